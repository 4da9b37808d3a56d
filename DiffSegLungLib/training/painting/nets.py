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
CHANGED_HU = 100.0
"""A line or a cyst changes the host by as much, before the scanner blurs it."""
LEAST_CHANGED = 0.10
"""Share of the region that lines must take, over some 13 mm, before anyone sees a net."""
AROUND = (3, 13, 13)
"""Readers outline a net as a whole, with the aerated lung between its lines."""
STEEPNESS = 1.2
"""Slope of the hypotenuse of two fields next to the line where both are zero, times their length."""


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
    if canvas.chance(0.3):
        _cysts(canvas, edge)
    if canvas.chance(0.4):
        _pull_bronchi(canvas, edge)
    _name(canvas, inside, before)


def thin_rim(canvas: Canvas) -> None:
    """Reticulation and honeycombs of 3 to 8 mm along the whole pleura, broken, to the apices."""
    before = canvas.hu.copy()
    edge = _rim(canvas, canvas.between(3, 8), canvas.between(0.0, 1.2))
    _reticulate(canvas, edge)
    if canvas.chance(0.35):
        _cysts(canvas, edge * soft(canvas.field(18), 0.3))
    _name(canvas, edge > 0.5, before)
    canvas.doubt((edge > 0.15) & (edge <= 0.5))


def faint_rim(canvas: Canvas) -> None:
    """Early fibrosis: lines of 0.5 to 1 mm, few of them, in the outermost 3 to 6 mm, on clear lung."""
    before = canvas.hu.copy()
    edge = _rim(canvas, canvas.between(3, 6), canvas.between(0.2, 1.5))
    broken = soft(canvas.field(canvas.between(3, 6)) + canvas.between(-0.1, 0.8), 0.3)
    lines = septa(canvas, canvas.between(4.5, 9), canvas.between(0.25, 0.5)) * broken
    canvas.fill(np.maximum(lines * canvas.between(0.4, 0.9), canvas.between(0, 0.02)) * edge, 30.0)
    _name(canvas, edge > 0.5, before)
    canvas.doubt((edge > 0.15) & (edge <= 0.5))


def honeycombing(canvas: Canvas) -> None:
    """Honeycombs that rule a region: cysts of 3 to 12 mm stacked under the pleura."""
    before = canvas.hu.copy()
    width = canvas.spread(4.5, 14)
    depth = max(width * canvas.between(1, 5), 6.0)
    layer = depth * (1 + 0.3 * canvas.field(canvas.between(9, 27))) - canvas.depth
    if canvas.chance(0.75):
        size = canvas.spread(18, 60)
        layer = np.minimum(layer, shapes.around(canvas, canvas.lungs & (canvas.depth < 8), size))
    edge = soft(layer, canvas.between(0.4, 1.0)) * canvas.lungs
    if canvas.chance(0.6):
        _reticulate(canvas, edge)
    wall = canvas.between(-250, 40)
    _stack(canvas, edge, width, canvas.between(0.75, 1.0), wall)
    if canvas.chance(0.3):  # fine and coarse cysts side by side
        _stack(canvas, edge * soft(canvas.field(18) - 0.3, 0.1), canvas.spread(4.5, 14), 0.9, wall)
    if canvas.chance(0.5):
        _pull_bronchi(canvas, soft(layer + canvas.between(0, 10), 1.0) * canvas.lungs)
    _name(canvas, edge > 0.5, before)
    canvas.doubt((edge > 0.15) & (edge <= 0.5))


def _rim(canvas: Canvas, width: float, complete: float) -> np.ndarray:
    """Share of a layer under the pleura ``width`` mm deep, broken the more the less ``complete`` it is."""
    layer = width * (1 + 0.4 * canvas.field(canvas.between(9, 27))) - canvas.depth
    broken = 4 * (canvas.field(canvas.between(6, 18)) + complete)
    return soft(np.minimum(layer, broken), 0.6) * canvas.lungs


def _name(canvas: Canvas, inside: np.ndarray, before: np.ndarray) -> None:
    """Fibrosis where a net is to be seen; where its lines are too sparse the loss shall not look."""
    changed = inside & (np.abs(canvas.hu - before) > CHANGED_HU)
    lines = ndimage.uniform_filter(changed.astype(np.float32), AROUND)
    seen = lines >= LEAST_CHANGED * ndimage.uniform_filter(inside.astype(np.float32), AROUND)
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
    for _ in range(int(canvas.rng.integers(1, 3))):
        broken = soft(canvas.field(canvas.between(3, 6)) + canvas.between(-0.3, 0.6), 0.3)
        net = septa(canvas, canvas.spread(4.5, 14), canvas.between(0.3, 0.8))
        lines = np.maximum(lines, net * canvas.spread(0.4, 1.0) * broken)
    dots = soft(canvas.field(canvas.between(2, 3.5)) - canvas.between(1.2, 1.9), 0.2) * canvas.between(0, 0.8)
    spared = soft(canvas.field(canvas.between(4, 8)) + canvas.between(-0.3, 0.8), 0.25)
    filled = canvas.between(0, 0.04) if canvas.chance(0.8) else canvas.between(0.04, 0.18)
    haze = np.clip(filled * (1 + 0.5 * canvas.field(6)), 0, 0.5)
    canvas.fill(np.maximum(haze, np.maximum(lines, dots) * spared) * edge, 30.0)


def _cysts(canvas: Canvas, edge: np.ndarray) -> None:
    """Honeycomb cysts within a net, in one to four layers under the pleura."""
    width = canvas.spread(4.5, 13)
    layers = canvas.depth < width * canvas.between(1, 4)
    _stack(canvas, edge * layers, width, canvas.between(0.4, 0.95), canvas.between(-450, -50))


def _stack(canvas: Canvas, edge: np.ndarray, width: float, share: float, wall: float) -> None:
    """Cysts ``width`` mm apart in walls of 1 to 2.5 mm and ``wall`` HU; ``share`` of them is there."""
    foam = canvas.foam(width)
    chosen = (canvas.rng.random(foam.cells) < share)[foam.cell]
    half = np.clip(canvas.between(0.05, 0.11) * width, 0.4, 1.2)
    radius = (canvas.rng.uniform(0.5, 0.85, foam.cells) * width).astype(np.float32)[foam.cell]
    lumen = soft(np.minimum(foam.wall - half, radius - foam.centre), 0.25)
    air = canvas.between(-990, -880)
    canvas.mix(edge * chosen, lumen * air + (1 - lumen) * wall)


def _pull_bronchi(canvas: Canvas, edge: np.ndarray) -> None:
    """Traction bronchiectasis: air 3 to 8 mm wide in a thick wall, branching through the net."""
    length = canvas.between(9, 16)
    tubes = np.hypot(canvas.field(length), 0.8 * canvas.field(length)) * (length / STEEPNESS)
    radius, wall = canvas.spread(1.5, 4.0), canvas.between(0.7, 1.6)
    canvas.mix(soft(radius + wall - tubes, 0.3) * edge * canvas.between(0.4, 0.85), 0.0)
    canvas.mix(soft(radius - tubes, 0.3) * edge, canvas.between(-980, -880))
