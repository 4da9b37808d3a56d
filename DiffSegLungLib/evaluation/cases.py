"""Cases: a real CT with lesions drawn from a seed, and the truth of each voxel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from DiffSegLungLib import tissues
from DiffSegLungLib.evaluation.hosts import HILUM_MM, Host
from DiffSegLungLib.evaluation.lesions import KINDS, Lesion
from DiffSegLungLib.evaluation.site import Box, make_site

TRIES = 400
GAP = 1.1
"""Least distance of two lesions' middles, in sums of their radii."""

# Kind, least and largest radius in mm, least and largest severity.
USUAL: tuple[tuple[str, tuple[float, float], tuple[float, float]], ...] = (
    ("lobar", (28, 38), (0.4, 0.9)),
    ("centrilobular", (24, 34), (0.4, 1.0)),
    ("honeycombing", (28, 38), (0.3, 1.0)),
    ("reticulation", (28, 40), (0.3, 1.0)),
    ("panlobular", (22, 32), (0.3, 1.0)),
    ("traction-bronchiectasis", (26, 34), (0.3, 0.9)),
    ("ground-glass", (18, 28), (0.1, 1.0)),
    ("wall-touching", (14, 22), (0.3, 0.9)),
    ("crazy-paving", (16, 26), (0.3, 0.9)),
    ("bulla", (10, 20), (0.0, 1.0)),
    ("paraseptal", (24, 36), (0.2, 1.0)),
    ("consolidation", (11, 18), (0.3, 0.9)),
    ("ground-glass", (12, 20), (0.1, 1.0)),
    ("thick-walled-cavity", (7, 12), (0.2, 0.9)),
    ("cavity-with-level", (9, 14), (0.2, 0.9)),
    ("thin-walled-cavity", (7, 13), (0.2, 0.9)),
    ("ground-glass", (10, 16), (0.1, 1.0)),
)
"""What a case shows, the large ones first since they need room."""


@dataclass(frozen=True)
class Case:
    """A CT with lesions.

    Attributes:
        host: the CT it was made from.
        hu: float32 (z, y, x) with lesions.
        truth: uint8 label of each voxel; 0 outside the lungs.
        scored: bool, where truth is known.
        lesions: what was placed, and where.
    """

    host: Host
    hu: np.ndarray
    truth: np.ndarray
    scored: np.ndarray
    lesions: tuple[Lesion, ...]


def draw_lesions(seed: int) -> list[Lesion]:
    """The usual lesions with sizes and severities drawn from a seed."""
    rng = np.random.default_rng((seed, 80))
    return [
        Lesion(kind, float(rng.uniform(*radius)), float(rng.uniform(*severity)), int(rng.integers(1 << 30)))
        for kind, radius, severity in USUAL
    ]


def make_case(host: Host, lesions: Sequence[Lesion]) -> Case:
    """Place lesions into a host one by one; those for which there is no room are left out.

    Args:
        host: a CT from ``hosts``.
        lesions: what to place, in this order.
    """
    hu, scored = host.hu.copy(), host.scored.copy()
    truth = np.where(host.sides > 0, np.uint8(tissues.HEALTHY), np.uint8(tissues.OUTSIDE))
    placed: list[Lesion] = []
    for lesion in lesions:
        middle = lesion.place or _find_room(host, lesion, placed)
        if middle is not None:
            placed.append(replace(lesion, place=middle))
            _place(host, placed[-1], hu, truth, scored)
    return Case(host, hu, truth, scored, tuple(placed))


def _find_room(host: Host, lesion: Lesion, placed: list[Lesion]) -> tuple[float, float, float] | None:
    """A place where the kind lives, away from the hilum, the host's own lesions and those placed before."""
    kind, rng = KINDS[lesion.kind], np.random.default_rng((lesion.seed, 81))
    filled = np.flatnonzero((host.sides > 0).any(axis=(1, 2)))
    low, high = (round(filled[0] + share * (filled[-1] - filled[0])) for share in kind.height)
    depth = host.pleura[low : high + 1]
    # Deep places get rare in a small lung: take the deepest tenth of what there is rather than nothing.
    least = min(kind.depth[0], float(np.percentile(depth[depth > 0], 80)))
    fits = (depth >= least) & (depth <= kind.depth[1]) & ~host.own[low : high + 1]
    fits &= host.mediastinum[low : high + 1] > HILUM_MM
    candidates = np.argwhere(fits)
    for _ in range(TRIES if len(candidates) else 0):
        z, y, x = candidates[rng.integers(len(candidates))]
        place = float(z + low), float(y), float(x)
        if all(_apart(host, place, lesion, other) for other in placed):
            return place
    return None


def _apart(host: Host, place: tuple[float, float, float], lesion: Lesion, other: Lesion) -> bool:
    offset = (np.array(place) - np.array(other.place)) * np.array(host.spacing)
    return bool(np.linalg.norm(offset) > GAP * (lesion.radius + other.radius))


def _place(host: Host, lesion: Lesion, hu: np.ndarray, truth: np.ndarray, scored: np.ndarray) -> None:
    """Paint one lesion into HU, truth and what is scored, in place."""
    assert lesion.place is not None
    kind = KINDS[lesion.kind]
    box = _box(host, lesion, kind.reach)
    site = make_site(hu, host.pleura, host.vessels, host.spacing, lesion.place, box, lesion.seed)
    kind.paint(site, lesion.radius, lesion.severity)
    keep, add, named = site.thick_slices()
    # What is painted on the pleura stays; the other lung must not be reached.
    z, y, x = (round(index) for index in lesion.place)
    here = (host.sides[box] == host.sides[z, y, x]) | (host.sides[box] == 0)
    keep = np.where(here, keep, 1.0)
    fresh = np.sqrt(1.0 - keep**2) * host.grain.field(keep.shape, lesion.seed)
    hu[box] = keep * hu[box] + np.where(here, add, 0.0) + fresh
    named = np.where(here, named, 0)
    truth[box] = np.where(named > 0, named, truth[box])
    # Dense tissue hides the host's vessels, so there the truth is known again.
    dense = np.isin(named, (tissues.CONSOLIDATION, tissues.CAVITY))
    scored[box] |= dense & ~host.own[box]


def _box(host: Host, lesion: Lesion, reach: float) -> Box:
    assert lesion.place is not None
    parts = []
    for middle, step, side in zip(lesion.place, host.spacing, host.hu.shape, strict=True):
        half = reach * lesion.radius / step + 3
        parts.append(slice(max(int(middle - half), 0), min(int(np.ceil(middle + half)) + 1, side)))
    return parts[0], parts[1], parts[2]
