"""Ground glass, consolidation, masses and collapse: lung that holds less air than it should."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.tissues import CONSOLIDATION, GROUND_GLASS
from DiffSegLungLib.training.painted_patches import LEFT_OUT
from DiffSegLungLib.training.painting import shapes
from DiffSegLungLib.training.painting.canvas import AIRWAY, Canvas, soft
from DiffSegLungLib.training.painting.nets import septa
from DiffSegLungLib.training.painting_hosts import GRID

DENSE_SHAPES: shapes.Shares = {
    shapes.blob: 3.0,
    shapes.crescent: 2.0,
    shapes.band: 1.0,
    shapes.lobules: 1.0,
    shapes.along_vessels: 1.0,
    shapes.at_the_surface: 3.0,
    shapes.arcs: 0.5,
    shapes.clouds: 0.4,
}
SEEN = 0.08
"""Share of the air that must be filled before anyone calls it haze."""
DOUBTFUL = 0.03
FLUID_HU = (-5.0, 25.0)
OPEN_BRONCHUS_HU = -850.0
HILAR_DEPTH_MM, HILAR_VESSEL_MM = 8.0, 3.0
"""A vessel of this radius so near the lung's surface comes from the mediastinum."""
CENTRAL = 0.4
"""Share of the masses that grow at the hilum, where dense lung is hardest to tell from the mediastinum."""
AIRLESS, HALF_AIRLESS = 0.85, 0.25
"""Share of a voxel that is collapsed: from which on it is called so, and from which on nobody is asked."""


def halo(canvas: Canvas, distance: np.ndarray) -> None:
    """Haze around a dense lesion."""
    edge = soft(distance + canvas.between(3, 12), canvas.between(1, 3)) * canvas.lungs
    share = edge * canvas.between(0.12, 0.5) * (1 + 0.3 * canvas.field(8))
    canvas.fill(share)
    canvas.name(share > 0.1, GROUND_GLASS)


def ground_glass(canvas: Canvas) -> None:
    """Haze, even or mottled, some crossed by broken septa (crazy paving) or by bronchi, dark in it."""
    edge = soft(shapes.draw(canvas), canvas.spread(0.4, 3.5)) * canvas.lungs
    share = canvas.spread(0.10, 0.55) * (1 + canvas.between(0, 0.3) * canvas.field(canvas.between(4, 16)))
    if canvas.chance(0.6):
        spared = soft(canvas.field(canvas.between(2.5, 6)) + canvas.between(-0.4, 0.9), 0.3)
        share = share * (0.25 + 0.75 * spared)
    if canvas.chance(0.55) and np.median(share) > 0.14:
        broken = soft(canvas.field(5) + canvas.between(-0.2, 1), 0.3)
        lines = septa(canvas, canvas.between(4, 10), canvas.between(0.3, 0.9))
        share = share + lines * canvas.between(0.08, 0.3) * broken
    share = np.clip(share, 0, 0.8) * edge
    filled = share * (1 - _open_bronchi(canvas)) if canvas.chance(0.25) else share
    canvas.fill(filled, canvas.between(20, 60))
    canvas.name(share > SEEN, GROUND_GLASS)
    canvas.doubt((share > DOUBTFUL) & (share <= SEEN))


def bronchograms(canvas: Canvas, value: np.ndarray | float) -> np.ndarray:
    """Bronchi that stay open in dense lung: where two fields are both near zero run branching tubes."""
    return value + _open_bronchi(canvas) * (OPEN_BRONCHUS_HU - value)


def _open_bronchi(canvas: Canvas) -> np.ndarray:
    """Share of each voxel within a bronchus."""
    length, width = canvas.between(5, 11), canvas.between(0.06, 0.16)
    return soft(width - np.hypot(canvas.field(length), 0.7 * canvas.field(length)), 0.03)


def consolidation(canvas: Canvas) -> None:
    """Airless lung in which no vessel is seen any more, often with open bronchi and a halo."""
    distance = shapes.draw(canvas, DENSE_SHAPES)
    if canvas.chance(0.5):
        halo(canvas, distance)
    edge = soft(distance, canvas.between(0.4, 1.8)) * canvas.lungs
    filled = canvas.between(0.96, 1.0) if canvas.chance(0.75) else canvas.between(0.75, 0.92)
    density = canvas.between(25, 60) if canvas.chance(0.5) else canvas.between(60, 120)
    value: np.ndarray = density + 8 * canvas.field(3)
    if canvas.chance(0.45):
        value = bronchograms(canvas, value)
    canvas.mix(filled * edge, value)
    canvas.name(edge > 0.5, CONSOLIDATION)


def mass(canvas: Canvas) -> None:
    """A solid nodule or mass, smooth or with spicules, its middle now and then dead; many sit at a hilum."""
    central = canvas.chance(CENTRAL)
    radius = canvas.spread(12, 45) if central else canvas.spread(3, 32)
    place = canvas.place(_hilum(canvas) if central else canvas.lungs)
    distance = shapes.ball(canvas, place, radius * canvas.rng.uniform(0.8, 1.25, 3), 0.12)
    if canvas.chance(0.4):
        thorns = np.abs(canvas.field(4.5)) < 0.12
        distance = np.where(thorns, distance + canvas.between(2, 8), distance)
    if canvas.chance(0.35):
        halo(canvas, distance)
    edge = soft(distance, canvas.between(0.3, 0.8)) * canvas.lungs
    value = canvas.between(15, 90) + 6 * canvas.field(4)
    if canvas.chance(0.25):
        value = value - canvas.between(10, 40) * soft(distance - 0.4 * radius, 2)
    canvas.mix(edge, value)
    canvas.name(edge > 0.5, CONSOLIDATION)


def collapse(canvas: Canvas) -> None:
    """Fluid between chest wall and lung, and airless lung under it; either may be missing."""
    place = canvas.place(canvas.lungs & (canvas.depth < 5))
    region = shapes.ball(canvas, place, canvas.spread(15, 60) * canvas.rng.uniform(0.8, 1.8, 3), 0.15)
    depth = canvas.spread(3, 40) if canvas.chance(0.75) else 0.0
    rim = depth * (1 + 0.3 * canvas.field(30)) - canvas.depth
    under = canvas.spread(4, 35) * (1 + 0.3 * canvas.field(12)) if canvas.chance(0.8) else None
    fluid = soft(np.minimum(rim, region), 0.7) * (depth > 0)
    solid = np.zeros(canvas.shape, np.float32)
    if under is not None:
        solid = soft(np.minimum(rim + under, region), canvas.between(0.3, 0.8))
    _airless(canvas, solid * canvas.lungs, fluid * canvas.lungs, region)


def drowned(canvas: Canvas) -> None:
    """A side full of fluid, the collapsed rest of the lung about its hilum."""
    hilum = canvas.place(_hilum(canvas))
    region = shapes.ball(canvas, hilum, canvas.between(40, 120) * canvas.rng.uniform(0.8, 1.4, 3), 0.15)
    rest = shapes.ball(canvas, hilum, canvas.spread(12, 45) * canvas.rng.uniform(0.6, 1.5, 3), 0.25)
    solid, flooded = soft(rest, canvas.between(0.3, 0.8)), soft(region, 1.0)
    fluid = flooded * (1 - solid) * (0.0 if canvas.chance(0.2) else 1.0)
    _airless(canvas, np.minimum(solid, flooded) * canvas.lungs, fluid * canvas.lungs, region)


def _hilum(canvas: Canvas) -> np.ndarray:
    """Where thick vessels reach the surface of the lung; where none do, surface by the large airways."""
    surface = canvas.lungs & (canvas.depth < HILAR_DEPTH_MM)
    thick = ndimage.distance_transform_edt(canvas.vessels, sampling=GRID) >= HILAR_VESSEL_MM
    if (surface & thick).any():
        return surface & thick
    airways = canvas.labels == AIRWAY
    if not airways.any():
        return surface & canvas.vessels
    away = ndimage.distance_transform_edt(~airways, sampling=GRID)
    return surface & (away <= away[surface].min(initial=np.inf) + HILAR_DEPTH_MM)


def _airless(canvas: Canvas, solid: np.ndarray, fluid: np.ndarray, region: np.ndarray) -> None:
    """Collapsed lung takes up contrast medium, the fluid beside it does not."""
    water = canvas.between(*FLUID_HU)
    value: np.ndarray = water + canvas.between(30, 95) + 10 * canvas.field(4)
    if canvas.chance(0.25):
        value = bronchograms(canvas, value)
    if canvas.chance(0.3):
        near = canvas.lungs & (region > -10)
        canvas.fill(near * canvas.between(0.15, 0.5))
        canvas.name(near, GROUND_GLASS)
    canvas.mix(solid * canvas.between(0.98, 1), value)
    canvas.name(solid > HALF_AIRLESS, CONSOLIDATION)
    canvas.labels[(canvas.labels == CONSOLIDATION) & (solid > HALF_AIRLESS) & (solid <= AIRLESS)] = LEFT_OUT
    canvas.put_beside(fluid, water + 6 * canvas.field(3))
