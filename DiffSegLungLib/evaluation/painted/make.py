"""From a kind to its case: load the host, paint it, and say what can be scored."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.evaluation.hosts import Host, load_host
from DiffSegLungLib.evaluation.painted.canvas import Canvas
from DiffSegLungLib.evaluation.painted.case import PaintedCase, PaintedKind
from DiffSegLungLib.evaluation.painted.kinds import HOSTS, KINDS, OWN_LESIONS, OWN_RADIUS_MM, PAINTERS
from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.volume import Volume


def make_painted(kind: str, data: Path) -> PaintedCase:
    """Paint a kind of disease into its host; the same kind gives the same voxels.

    Args:
        kind: a key of ``KINDS``.
        data: the data folder.

    Raises:
        UnusableInputError: there is no such kind.
    """
    if kind not in KINDS:
        raise UnusableInputError(f"There is no painted kind {kind!r}; choose from {', '.join(KINDS)}.")
    return paint_host(KINDS[kind], _host(KINDS[kind].host, data))


@lru_cache(maxsize=1)
def _host(name: str, data: Path) -> Host:
    """A host; kept, since several kinds follow each other in it."""
    host = load_host(HOSTS[name], data)
    own = host.own.copy()
    for middle in OWN_LESIONS.get(name, ()):
        squares = [
            ((np.arange(count) - place) * step) ** 2
            for count, place, step in zip(own.shape, middle, host.spacing, strict=True)
        ]
        away = squares[0][:, None, None] + squares[1][:, None] + squares[2]
        own |= away < OWN_RADIUS_MM**2
    return replace(host, own=own)


def paint_host(kind: PaintedKind, host: Host) -> PaintedCase:
    """Paint a kind into any host.

    Args:
        kind: what, and the seed of it.
        host: a CT from ``hosts``.
    """
    canvas = Canvas(host, kind.seed)
    PAINTERS[kind.name](canvas)
    return PaintedCase(
        kind=kind,
        volume=_volume(canvas),
        truth=canvas.truth,
        lungs=(host.sides > 0) & ~canvas.fluid,
        scored=~host.own & ~canvas.border(),
    )


def _volume(canvas: Canvas) -> Volume:
    """The painted CT as the pipeline takes it, in canonical axes."""
    spacing = canvas.host.spacing
    carrier = sitk.Image([int(side) for side in canvas.truth.shape[::-1]], sitk.sitkUInt8)
    carrier.SetSpacing([float(step) for step in spacing[::-1]])
    geometry = Geometry.of(carrier)
    point = geometry.place(sitk.Image([1, 1, 1], sitk.sitkUInt8))
    return Volume(canvas.picture(), spacing, point, geometry)
