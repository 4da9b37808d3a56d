"""Emphysema and cavities: air where there should be lung."""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.tissues import CAVITY, CONSOLIDATION, EMPHYSEMA
from DiffSegLungLib.training.painting import shapes
from DiffSegLungLib.training.painting.canvas import Canvas, soft
from DiffSegLungLib.training.painting.raised import halo

AIR_HU = (-1005.0, -960.0)
LOST, DOUBTFUL = 0.42, 0.2
"""Share of the lung that must be gone to be called emphysema, and from which on it may be."""


def centrilobular(canvas: Canvas) -> None:
    """Holes without walls in the middles of lobules; vessels stay."""
    spread: shapes.Shares = {shapes.blob: 2.0, shapes.clouds: 2.0, shapes.everywhere: 1.5}
    _holes(canvas, shapes.draw(canvas, spread), canvas.hu < -500, walled=False)


def paraseptal(canvas: Canvas) -> None:
    """Rows of thin-walled holes along the pleura."""
    layer = canvas.between(6, 14) - canvas.depth
    _holes(canvas, np.minimum(shapes.draw(canvas, {shapes.crescent: 1.0}), layer), canvas.lungs, walled=True)


def _holes(canvas: Canvas, distance: np.ndarray, where: np.ndarray, walled: bool) -> None:
    width = canvas.between(6, 14)
    foam = canvas.foam(width)
    chosen = (canvas.rng.random(foam.cells) < canvas.between(0.3, 0.95))[foam.cell]
    radius = (canvas.rng.uniform(0.15, 0.55, foam.cells) * width).astype(np.float32)[foam.cell]
    hole = soft(radius - foam.centre, canvas.between(0.4, 1.2))
    if walled:
        hole = np.maximum(hole, soft(foam.wall - canvas.between(0.5, 1.0), 0.4))
    share = hole * chosen * soft(distance, 1.0) * canvas.lungs * where * canvas.between(0.6, 1.0)
    canvas.mix(share, canvas.between(*AIR_HU))
    _name(canvas, share)


def panlobular(canvas: Canvas) -> None:
    """Lung thinned out evenly, its vessels narrowed."""
    spread: shapes.Shares = {shapes.blob: 1.0, shapes.clouds: 2.0, shapes.everywhere: 1.0}
    share = soft(shapes.draw(canvas, spread), canvas.between(1, 4)) * canvas.lungs
    share = np.clip(share * canvas.between(0.65, 0.97) * (0.88 + 0.12 * canvas.field(6)), 0, 1)
    canvas.mix(share * np.where(canvas.hu < -600, 1.0, 0.3), canvas.between(*AIR_HU))
    _name(canvas, share)


def bulla(canvas: Canvas) -> None:
    """A large air space with a wall as thin as a hair, or with none to be seen."""
    radii = canvas.spread(6, 40) * canvas.rng.uniform(0.7, 1.4, 3)
    distance = shapes.ball(canvas, canvas.place(canvas.lungs & (canvas.depth < 15)), radii, 0.08)
    distance = np.minimum(distance, canvas.depth - canvas.between(0, 1))
    share = soft(distance, 0.5) * canvas.lungs
    canvas.mix(share, canvas.between(*AIR_HU))
    canvas.mix(soft(1.2 - np.abs(distance), 0.4) * canvas.between(0, 0.5) * canvas.lungs, 0.0)
    canvas.name(share > 0.5, EMPHYSEMA)


def _name(canvas: Canvas, share: np.ndarray) -> None:
    canvas.name(share > LOST, EMPHYSEMA)
    canvas.doubt((share > DOUBTFUL) & (share <= LOST))


def emphysema(canvas: Canvas) -> None:
    """Of one kind."""
    kinds = (centrilobular, panlobular, paraseptal, bulla)
    kinds[int(canvas.rng.choice(len(kinds), p=(0.45, 0.22, 0.18, 0.15)))](canvas)


def cavity(canvas: Canvas) -> None:
    """Air, or air above fluid, in a wall of soft tissue; alone in the lung or in dense lung."""
    radius = canvas.spread(4, 26)
    middle = canvas.place(canvas.lungs & (canvas.depth > 0.3 * radius))
    distance = shapes.ball(
        canvas, middle, radius * canvas.rng.uniform(0.8, 1.25, 3), canvas.between(0.03, 0.15)
    )
    wall = min(canvas.spread(1.2, 8), 0.6 * radius)
    if canvas.chance(0.3):
        halo(canvas, distance)
    if canvas.chance(0.3):
        _within_dense_lung(canvas, middle, radius)
    inner = distance - wall * (1 + 0.3 * canvas.field(max(4.0, radius / 2)))
    if canvas.chance(0.2):  # chambers
        inner = np.minimum(inner, canvas.foam(canvas.between(8, 14)).wall - canvas.between(0.5, 1.2))
    outer = soft(distance, 0.5) * canvas.lungs
    canvas.mix(outer, canvas.between(-20, 60))
    canvas.mix(soft(inner, 0.5) * canvas.lungs, _lumen(canvas, middle, radius))
    canvas.name(outer > 0.5, CAVITY)


def _within_dense_lung(canvas: Canvas, middle: np.ndarray, radius: float) -> None:
    around = shapes.ball(canvas, middle, radius * canvas.rng.uniform(1.3, 2.5, 3), 0.3)
    share = soft(around, canvas.between(0.5, 1.5)) * canvas.lungs
    canvas.mix(share, canvas.between(20, 80) + 8 * canvas.field(3))
    canvas.name(share > 0.5, CONSOLIDATION)


def _lumen(canvas: Canvas, middle: np.ndarray, radius: float) -> np.ndarray | float:
    air = canvas.between(-1000, -900)
    if not canvas.chance(0.2):
        return air
    level = middle[1] + radius * canvas.between(-0.3, 0.5)
    return np.broadcast_to(np.where(canvas.axes[1] > level, 15.0, air), canvas.shape)
