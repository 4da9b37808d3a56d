"""Fibrosis: nets of lines, honeycombs, bronchi pulled open; broken, sparse, most of it under the pleura."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.tissues import FIBROSIS
from DiffSegLungLib.training.painting import shapes
from DiffSegLungLib.training.painting.canvas import Canvas, soft

DEEP_SHAPES: shapes.Shares = {
    shapes.blob: 1.0,
    shapes.at_the_surface: 1.0,
    shapes.clouds: 1.0,
    shapes.along_vessels: 0.7,
}
CHANGED_HU = 70.0
"""A line or a cyst changes the host by as much."""
LEAST_CHANGED = 0.06
"""Share of 7 mm that lines must take before anyone sees a net."""
AROUND = (1, 7, 7)


def septa(canvas: Canvas, width: float, thickness: float) -> np.ndarray:
    """Walls of a foam, some of its cells hardly walled; share of a voxel. Width and thickness in mm."""
    foam = canvas.foam(width)
    kept = np.where(canvas.rng.random(foam.cells) < 0.85, np.float32(1.0), np.float32(0.35))[foam.cell]
    return soft(thickness - foam.wall, 0.35) * kept


def fibrosis(canvas: Canvas) -> None:
    """A net of lines on hardly any haze, now and then with honeycombs and widened bronchi."""
    before = canvas.hu.copy()
    edge = soft(_region(canvas), canvas.between(0.4, 1.5)) * canvas.lungs
    inside = edge > 0.5
    _reticulate(canvas, edge)
    if canvas.chance(0.5):
        _honeycomb(canvas, edge)
    if canvas.chance(0.3):
        _pull_bronchi(canvas, edge)
    _name(canvas, inside, before)


def thin_rim(canvas: Canvas) -> None:
    """Reticulation and honeycombs of 3 to 8 mm along the whole pleura, broken, to the apices."""
    before = canvas.hu.copy()
    layer = canvas.between(3, 8) * (1 + 0.4 * canvas.field(canvas.between(9, 27))) - canvas.depth
    broken = 4 * (canvas.field(canvas.between(6, 18)) + canvas.between(0.0, 1.2))
    edge = soft(np.minimum(layer, broken), 0.6) * canvas.lungs
    _reticulate(canvas, edge)
    if canvas.chance(0.5):
        _honeycomb(canvas, edge * soft(canvas.field(18), 0.3))
    _name(canvas, edge > 0.5, before)
    canvas.doubt((edge > 0.15) & (edge <= 0.5))


def _name(canvas: Canvas, inside: np.ndarray, before: np.ndarray) -> None:
    """Fibrosis where a net is to be seen; where its lines are too sparse the loss shall not look."""
    changed = (np.abs(canvas.hu - before) > CHANGED_HU).astype(np.float32)
    seen = ndimage.uniform_filter(changed, AROUND) >= LEAST_CHANGED
    canvas.name(inside & seen, FIBROSIS)
    canvas.doubt(inside & ~seen)


def _region(canvas: Canvas) -> np.ndarray:
    """Foci along the pleura, or anywhere."""
    if canvas.chance(0.25):
        return shapes.draw(canvas, DEEP_SHAPES)
    focal = canvas.between(0.2, 0.8) * canvas.field(canvas.between(6, 14))
    layer = canvas.spread(3, 24) * (0.6 + focal + 0.5 * canvas.field(30)) - canvas.depth
    if canvas.chance(0.4):
        return layer
    return np.minimum(layer, shapes.around(canvas, canvas.lungs & (canvas.depth < 8), canvas.spread(10, 50)))


def _reticulate(canvas: Canvas, edge: np.ndarray) -> None:
    """Nets of different widths over each other, broken, with lobules left out and dots where lines meet."""
    lines = np.zeros(canvas.shape, np.float32)
    for _ in range(int(canvas.rng.integers(1, 4))):
        broken = soft(canvas.field(canvas.between(3, 6)) + canvas.between(-0.2, 0.8), 0.3)
        net = septa(canvas, canvas.spread(3.5, 13), canvas.between(0.3, 0.8))
        lines = np.maximum(lines, net * canvas.spread(0.4, 1.0) * broken)
    dots = soft(canvas.field(canvas.between(2, 3.5)) - canvas.between(1.2, 1.9), 0.2) * canvas.between(0, 0.8)
    spared = soft(canvas.field(canvas.between(4, 8)) + canvas.between(-0.3, 0.9), 0.25)
    filled = canvas.between(0, 0.06) if canvas.chance(0.8) else canvas.between(0.06, 0.2)
    haze = np.clip(filled * (1 + 0.5 * canvas.field(6)), 0, 0.5)
    canvas.fill(np.maximum(haze, np.maximum(lines, dots) * spared) * edge, 30.0)


def _honeycomb(canvas: Canvas, edge: np.ndarray) -> None:
    """Cysts of 3 to 10 mm that share walls of 0.5 to 2 mm, in one to five layers under the pleura."""
    width = canvas.spread(3.5, 10)
    foam = canvas.foam(width)
    layers = canvas.depth < width * canvas.between(1, 4)
    chosen = (canvas.rng.random(foam.cells) < canvas.between(0.4, 0.95))[foam.cell]
    lumen = soft(foam.wall - np.clip(canvas.between(0.05, 0.12) * width, 0.25, 1.0), 0.25)
    air, wall = canvas.between(-980, -860), canvas.between(-250, 30)
    canvas.mix(edge * layers * chosen, lumen * air + (1 - lumen) * wall)


def _pull_bronchi(canvas: Canvas, edge: np.ndarray) -> None:
    """Traction bronchiectasis: air in a thick wall, branching through the net."""
    tubes = np.hypot(canvas.field(canvas.between(7, 12)), 0.8 * canvas.field(canvas.between(7, 12)))
    canvas.mix(soft(0.36 - tubes, 0.04) * edge * 0.8, 0.0)
    canvas.mix(soft(0.22 - tubes, 0.04) * edge, canvas.between(-980, -880))
