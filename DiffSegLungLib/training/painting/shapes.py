"""Where disease lies: maps of the distance to its border in mm, positive inside."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from DiffSegLungLib.training.painting.canvas import Canvas

EVERYWHERE = 20.0
LEAST_MM, LARGEST_MM = 4.0, 38.0
"""Radius of a lesion."""


def ball(canvas: Canvas, middle: np.ndarray, radii: np.ndarray, rough: float = 0.3) -> np.ndarray:
    """A turned ellipsoid with a rough outline; ``middle`` and ``radii`` in mm."""
    turn, _ = np.linalg.qr(canvas.rng.standard_normal((3, 3)))
    away = [axis - np.float32(at) for axis, at in zip(canvas.axes, middle, strict=True)]
    square = sum(
        (np.float32(row[0]) * away[0] + np.float32(row[1]) * away[1] + np.float32(row[2]) * away[2]) ** 2
        / np.float32(radius) ** 2
        for row, radius in zip(turn, radii, strict=True)
    )
    mean = float(np.mean(radii))
    grain = canvas.field(max(4.0, mean / canvas.between(1.5, 4)))
    return np.float32(mean) * (1 - np.sqrt(square) + np.float32(rough) * grain)


def around(canvas: Canvas, where: np.ndarray, size: float, margin: float = 0.0) -> np.ndarray:
    """A ball of about ``size`` mm at a place in ``where``."""
    radii = size * canvas.rng.uniform(0.7, 1.7, 3) + margin
    return ball(canvas, canvas.place(where), radii, canvas.between(0.1, 0.5))


def blob(canvas: Canvas, size: float) -> np.ndarray:
    """A rough ball anywhere in the lungs."""
    return around(canvas, canvas.lungs, size)


def at_the_surface(canvas: Canvas, size: float) -> np.ndarray:
    """A ball whose middle lies at wall, diaphragm or mediastinum."""
    return around(canvas, canvas.lungs & (canvas.depth < 4), size)


def crescent(canvas: Canvas, size: float) -> np.ndarray:
    """A layer under the pleura, here thick, there thin."""
    width = canvas.spread(3, 25)
    layer = width * (1 + 0.45 * canvas.field(canvas.between(8, 25))) - canvas.depth
    return np.minimum(layer, around(canvas, canvas.lungs & (canvas.depth < 6), size * 1.4, 6))


def band(canvas: Canvas, size: float) -> np.ndarray:
    """A plate through the lung, as after an infection."""
    way = canvas.rng.standard_normal(3)
    way /= np.linalg.norm(way)
    middle = canvas.place(canvas.lungs)
    along = sum(
        np.float32(part) * (axis - np.float32(at))
        for part, axis, at in zip(way, canvas.axes, middle, strict=True)
    )
    along = along + canvas.between(0, 4) * canvas.field(15)
    return np.minimum(
        canvas.spread(1.5, 10) - np.abs(along), ball(canvas, middle, np.full(3, size * 1.4 + 8))
    )


def lobules(canvas: Canvas, size: float) -> np.ndarray:
    """Some lobules of a region, up to their walls."""
    region = blob(canvas, size)
    foam = canvas.foam(canvas.between(8, 18))
    chosen = (canvas.rng.random(foam.cells) < canvas.between(0.3, 0.8))[foam.cell]
    edge = np.minimum(foam.wall, 3)
    return np.minimum(np.where(chosen, edge, -edge), region + 3)


def arcs(canvas: Canvas, size: float) -> np.ndarray:
    """Along the walls of lobules: arcades, as of organising pneumonia."""
    region = blob(canvas, size)
    foam = canvas.foam(canvas.between(10, 18))
    broken = canvas.field(8) * 2.0 + canvas.between(-1, 2)
    return np.minimum(np.minimum(canvas.between(1.5, 4) - foam.wall, broken), region)


def along_vessels(canvas: Canvas, size: float) -> np.ndarray:
    """A sleeve around vessels."""
    width = canvas.between(3, 14)
    sleeve = width * (1 + 0.4 * canvas.field(10)) - canvas.to_vessel
    return np.minimum(sleeve, around(canvas, canvas.vessels, size * 1.2, 6))


def clouds(canvas: Canvas, size: float) -> np.ndarray:
    """Parts of everything, without a middle."""
    return 8 * (canvas.field(canvas.between(12, 40)) - canvas.between(-0.5, 0.9))


def everywhere(canvas: Canvas, size: float) -> np.ndarray:
    """All of the patch."""
    return np.full(canvas.shape, EVERYWHERE, np.float32)


Shape = Callable[[Canvas, float], np.ndarray]
Shares = Mapping[Shape, float]

SHAPES: Shares = {
    blob: 3.0,
    crescent: 2.5,
    band: 1.0,
    lobules: 1.5,
    arcs: 0.7,
    along_vessels: 2.5,
    at_the_surface: 1.5,
    clouds: 1.0,
    everywhere: 0.5,
}
"""How often each is drawn."""


def draw(canvas: Canvas, shapes: Shares = SHAPES) -> np.ndarray:
    """A shape drawn at random, of a size drawn at random."""
    shares = np.array(list(shapes.values()))
    chosen = list(shapes)[int(canvas.rng.choice(len(shapes), p=shares / shares.sum()))]
    return chosen(canvas, canvas.spread(LEAST_MM, LARGEST_MM)).astype(np.float32)
