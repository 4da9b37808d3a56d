"""Disease of known truth, painted into patches of healthy lung while the network trains.

Painted truth is nobody's annotation: it says what was painted, so the method stays unsupervised.  The painter
of ``evaluation`` is another program; what it paints is never trained on, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import ndimage

from DiffSegLungLib.tissues import CONSOLIDATION, FIBROSIS, GROUND_GLASS, OUTSIDE
from DiffSegLungLib.training.painted_patches import LEFT_OUT
from DiffSegLungLib.training.painting import healthy, lucent, nets, raised, scanner
from DiffSegLungLib.training.painting.canvas import Canvas
from DiffSegLungLib.training.painting.textures import Textures
from DiffSegLungLib.training.painting_hosts import PaintingHost

DISEASED = 0.8
"""Share of the patches that are painted; the others teach what is healthy."""
THIN = 0.3
"""Share of the patients without fat."""
LEAST_LUNG = 500
"""Voxels of lung below which nothing is painted."""
KINDS: dict[Callable[[Canvas], None], tuple[float, float]] = {
    lucent.emphysema: (0.14, 0.13),
    raised.ground_glass: (0.24, 0.32),
    nets.fibrosis: (0.16, 0.17),
    nets.thin_rim: (0.06, 0.04),
    nets.faint_rim: (0.05, 0.03),
    nets.honeycombing: (0.08, 0.06),
    raised.consolidation: (0.09, 0.10),
    raised.mass: (0.10, 0.07),
    lucent.cavity: (0.08, 0.07),
    raised.collapse: (0.09, 0.06),
    raised.drowned: (0.05, 0.03),
}
"""How often each kind comes first, and how often beside another."""
FIRST = (lucent.emphysema,)
"""Painted before all others: it would eat their walls."""
LAST = (raised.collapse, raised.drowned)
"""Painted after all others: lung that collapsed has no other disease to be seen."""
EMPHYSEMA_HU = -915.0
"""Emphysema that is denser at the end is left out of the loss."""
SOLID_HU, NEARLY_SOLID_HU = -120.0, -250.0
"""Haze as dense as this looks like consolidation, or like both; knots of a net like neither."""

HOST_SHARE = 0.5
"""Where more of the host than this is left, it was dense before: vessels of the hilum within haze."""


def paint(host: PaintingHost, textures: Textures, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paint a patch of a host.

    Args:
        host: the patch, (z, y, x) on 2 x 1 x 1 mm.
        textures: to paint with.
        rng: draws what is painted.

    Returns:
        float32 HU and uint8 labels: the values of ``tissues``, 8 in large airways, 255 where the loss shall
        not look.
    """
    canvas = Canvas(host, textures, rng)
    if canvas.chance(THIN):
        healthy.thin_patient(canvas)
    if host.lungs.sum() > LEAST_LUNG:
        _paint_lung(canvas)
    diseased = (canvas.labels == GROUND_GLASS) | (canvas.labels == FIBROSIS)
    canvas.labels[(host.vessels & diseased) | (host.ignored & (canvas.labels != OUTSIDE))] = LEFT_OUT
    return scanner.scan(canvas)


class Painter:
    """Paints patches with textures of its own; they are made at the first use, in the worker that paints.

    Args:
        seed: of the textures.
    """

    def __init__(self, seed: int = 0) -> None:
        self.textures = Textures(seed)

    def __call__(self, host: PaintingHost, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Paint a patch; see :func:`paint`."""
        return paint(host, self.textures, rng)


def _paint_lung(canvas: Canvas) -> None:
    """First what is no disease, then disease on it, then the scanner's part in what was painted."""
    healthy.breath(canvas)
    if canvas.chance(0.05):
        healthy.motion(canvas)
    before = canvas.hu.copy()
    if canvas.chance(DISEASED):
        for kind in _draw_kinds(canvas):
            kind(canvas)
        if canvas.chance(0.04):
            healthy.pneumothorax(canvas)
    if canvas.chance(0.06):
        healthy.airway_disease(canvas)
    scanner.blend_in(canvas, before)
    _name_by_looks(canvas)


def _draw_kinds(canvas: Canvas) -> list[Callable[[Canvas], None]]:
    """One to three kinds of disease, in the order in which they are painted."""
    kinds = list(KINDS)
    first, beside = (np.array(shares) / sum(shares) for shares in zip(*KINDS.values(), strict=True))
    drawn = [int(canvas.rng.choice(len(kinds), p=first))]
    drawn += [int(number) for number in canvas.rng.choice(len(kinds), canvas.rng.integers(0, 3), p=beside)]
    return sorted((kinds[number] for number in drawn), key=lambda kind: (kind in LAST) - (kind in FIRST))


def _name_by_looks(canvas: Canvas) -> None:
    """Labels follow what the patch looks like at the end, not what was meant."""
    labels = canvas.labels
    canvas.dark_enough(ndimage.gaussian_filter(canvas.hu, (0.3, 0.8, 0.8)), EMPHYSEMA_HU)
    wide = ndimage.uniform_filter(canvas.hu, (3, 7, 7))
    hazy = labels == GROUND_GLASS
    labels[hazy & (wide > NEARLY_SOLID_HU)] = LEFT_OUT
    labels[hazy & (wide > SOLID_HU) & (canvas.kept < HOST_SHARE)] = CONSOLIDATION  # not the hilum's vessels
    labels[(labels == FIBROSIS) & (wide > SOLID_HU)] = LEFT_OUT
