"""Vessels and airway walls: thin bright structures inside the lungs, kept out of the diseases.

Everything here works on an isotropic grid and treats what lies outside the lungs as absent, so that the chest
wall neither brightens the rim of the lungs nor takes part in any mean.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from scipy import ndimage

from DiffSegLungLib.densities import AIR_HU
from DiffSegLungLib.filters import (
    box_around,
    masked_mean,
    masked_opening,
    masked_share,
    nearest_inside,
    squared_distance,
    within,
)
from DiffSegLungLib.parallel import run_all
from DiffSegLungLib.parenchyma.nodules import find_nodules

SMALL_MM = 3.0
"""Half the side of the cube that removes peripheral vessels, airway walls and reticular lines."""
SOLID_HU = -550.0
"""What is denser and yet so thin that a cube's edges do not fit in is a vessel, not a small ground glass."""
SOLID_REACH_MM = 4.5
"""How far such a vessel blurs."""
LARGE_MM = 6.0
"""Half the side of the cube that removes segmental and lobar vessels."""
LINE_HU = 60.0
"""How far a voxel must rise above its opened surroundings to be left out of the parenchyma's density."""
VESSEL_HU = 180.0
"""How far it must rise to be called a vessel."""
AERATED_HU = -550.0
"""A vessel runs through aerated lung; inside denser tissue nothing is called a vessel."""
DENSE_HU = -350.0
ELONGATION = 2.5
"""Ratio of the longest to the second axis above which a dense structure is a tube, not a nodule."""
RAISED_HU = -720.0
HILAR_MM = 25.0
"""Lung this near the mediastinum is the hilar zone, where lobar vessels and bronchi lie."""
BRONCHIAL_MM = 30.0
"""And this near the trachea or a main bronchus."""
HILAR_THICKNESS_MM = 28.0
"""In the hilar zone only what a ball this wide fits into counts as diseased tissue: not where vessels part,
nor bronchi with their walls, nor smaller masses."""
HILAR_RIM_MM = 4.5
"""How far the diseased tissue reaches around such a ball."""
BLOCK = 65536
"""Voxels whose medians are taken at a time."""


@dataclass(frozen=True)
class Parenchyma:
    """The lungs without their vessels, on the working grid.

    Attributes:
        vessels: bool (z, y, x): vessels and airway walls.
        lines: float32 (z, y, x), HU: rise of each voxel above its opened surroundings, at least 0.
        density: float32 (z, y, x), HU: density of the tissue between the lines.
    """

    vessels: np.ndarray
    lines: np.ndarray
    density: np.ndarray


def separate_vessels(hu: np.ndarray, sides: np.ndarray, airways: np.ndarray, spacing: float) -> Parenchyma:
    """Tell vessels and airway walls from the tissue between them.

    Args:
        hu: float32 (z, y, x), isotropic grid.
        sides: uint8 (z, y, x), 1 in the right lung, 2 in the left.
        airways: bool (z, y, x), trachea and main bronchi; they tell where the hila are.
        spacing: voxel side in mm.

    Returns:
        Vessels, lines, and the density of the tissue between, all valid inside the lungs.
    """
    whole = Parenchyma(
        np.zeros(hu.shape, bool), np.zeros(hu.shape, np.float32), np.full(hu.shape, AIR_HU, np.float32)
    )
    if (sides > 0).any():  # nothing depends on what lies outside the lungs
        box = box_around(sides > 0)
        inside = _separate(hu[box], sides[box], airways[box], spacing)
        whole.vessels[box], whole.lines[box], whole.density[box] = (
            inside.vessels,
            inside.lines,
            inside.density,
        )
    return whole


def _separate(hu: np.ndarray, sides: np.ndarray, airways: np.ndarray, spacing: float) -> Parenchyma:
    """The same in a box around the lungs."""
    mask = sides > 0
    smooth = masked_mean(hu, mask, 0.7)
    opened = _opened(smooth, mask, spacing)
    lines = np.where(mask, np.maximum(smooth - opened, 0), 0).astype(np.float32)
    between = mask & (lines < _line_threshold(lines, opened, mask))
    nearest, near_hilum, filled = run_all(
        [
            partial(nearest_inside, between),
            partial(hilar_zone, sides, airways, spacing),
            partial(_without_lines, hu, opened, between, spacing),
        ]
    )
    density = _median(filled, nearest, between, mask)
    # The outermost voxels hold chest wall in part, which looks like a line.
    thin = ndimage.binary_erosion(mask) & (lines > VESSEL_HU) & (density < AERATED_HU)
    thick = _thick_vessels(opened, mask, spacing) | _hilar_structures(density, mask, near_hilum, spacing)
    nodules = find_nodules(hu, mask, near_hilum, spacing)
    thin, thick = thin & ~nodules, thick & ~nodules
    density[thick] = masked_mean(hu, between & ~thick & ~nodules, 6.0 / spacing)[thick]
    density[nodules], lines[nodules] = hu[nodules], 0
    return Parenchyma(thin | thick, lines, np.where(mask, density, AIR_HU).astype(np.float32))


def _opened(smooth: np.ndarray, mask: np.ndarray, spacing: float) -> np.ndarray:
    """Density of what is thicker than small vessels; small ground glass stays, small solid things go.

    A cube fits into little that is round: ground glass of 12 mm would go with the vessels.  Without its edges
    it fits into the places where vessels part, too, which are told by their density.
    """
    radius = round(SMALL_MM / spacing)
    cube = masked_opening(smooth, mask, radius)
    opened = masked_opening(smooth, mask, radius, rounded=True)
    solid = (np.where(mask, opened, AIR_HU) > SOLID_HU) & (opened > cube + LINE_HU)
    near = ndimage.binary_dilation(solid, iterations=max(round(SOLID_REACH_MM / spacing), 1))
    return np.where(near, cube, opened)


def _without_lines(hu: np.ndarray, opened: np.ndarray, between: np.ndarray, spacing: float) -> np.ndarray:
    """HU with the lines filled from their surroundings."""
    share = masked_share(between, 1.5 / spacing)
    around = np.where(share > 0.05, masked_mean(hu, between, 1.5 / spacing, share), opened)
    return np.nan_to_num(np.where(between, hu, around), posinf=AIR_HU, neginf=AIR_HU)


def _median(values: np.ndarray, nearest: np.ndarray, between: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Median over 3 x 3 x 3 voxels in the lungs, which takes the noise out; the nearest density is repeated.

    A median, since a mean would draw a rim of ground glass around every consolidation and fill small holes.

    Args:
        values: HU without lines, (z, y, x).
        nearest: what :func:`DiffSegLungLib.filters.nearest_inside` says of ``between``.
        between: bool (z, y, x), where the density is known.
        mask: bool (z, y, x), the lungs.
    """
    lungs = ndimage.binary_dilation(between, iterations=2)
    repeated = np.where(lungs, values, values.take(nearest)).astype(np.float32)
    padded = np.pad(repeated, 1, mode="edge")
    strides = np.array([padded.shape[1] * padded.shape[2], padded.shape[2], 1])
    around = (np.stack(np.meshgrid(*[[-1, 0, 1]] * 3, indexing="ij"), axis=-1) @ strides).ravel()
    where = np.flatnonzero(np.pad(mask, 1))

    def medians(first: int) -> np.ndarray:
        cubes = padded.take(where[first : first + BLOCK, None] + around)
        return torch.from_numpy(cubes).median(dim=1).values.numpy()

    result = np.full(mask.shape, AIR_HU, np.float32)
    result[mask] = np.concatenate(run_all([partial(medians, first) for first in range(0, where.size, BLOCK)]))
    return result


def _line_threshold(lines: np.ndarray, opened: np.ndarray, mask: np.ndarray) -> float:
    """Noise alone makes lines; the threshold stays above what most aerated voxels of this scan show."""
    typical = lines[mask & (opened < AERATED_HU)]
    return max(LINE_HU, 2.0 * float(np.median(typical)) if typical.size else LINE_HU)


def _thick_vessels(opened: np.ndarray, mask: np.ndarray, spacing: float) -> np.ndarray:
    """Dense tubes thinner than a lobar vessel.

    Consolidation survives the opening with the large cube; what hangs on it is its border, not a vessel.
    """
    dense = mask & (opened > DENSE_HU)
    core = mask & (masked_opening(opened, mask, round(LARGE_MM / spacing)) > DENSE_HU)
    near_core = ndimage.binary_dilation(core, iterations=round(SMALL_MM / spacing)) if core.any() else core
    parts, count = ndimage.label(dense & ~near_core, np.ones((3, 3, 3)))
    vessels = np.zeros(count + 1, bool)
    for index, box in enumerate(ndimage.find_objects(parts), start=1):
        vessels[index] = _is_tube(np.argwhere(parts[box] == index))
    return vessels[parts]


def _is_tube(where: np.ndarray) -> bool:
    """Whether voxels (n, 3) lie along a line rather than around a centre."""
    if len(where) < 8:
        return True
    lengths = np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(where.T)), 1e-6))
    return bool(lengths[2] / lengths[1] > ELONGATION)


def _hilar_structures(
    density: np.ndarray, mask: np.ndarray, near_hilum: np.ndarray, spacing: float
) -> np.ndarray:
    """Raised density at the hila that is no thicker than their vessels and bronchi are.

    A ball, since a cube of the width of such vessels misses round masses of nearly twice that width.
    """
    raised = mask & (density > RAISED_HU)
    radius = HILAR_THICKNESS_MM / 2 / spacing
    core = raised & ~_nearer_than(mask & ~raised, radius)
    return raised & near_hilum & ~within(core, radius + HILAR_RIM_MM / spacing)


def hilar_zone(sides: np.ndarray, airways: np.ndarray, spacing: float) -> np.ndarray:
    """Lung near the mediastinum and near the main bronchi; near the mediastinum alone without known bronchi.

    Args:
        sides: uint8 (z, y, x), 1 in the right lung, 2 in the left.
        airways: bool (z, y, x).
        spacing: voxel side in mm.

    Returns:
        bool (z, y, x).
    """
    zone = _nearer_than(_between_lungs(sides), HILAR_MM / spacing)
    if airways.any():
        zone &= _nearer_than(airways, BRONCHIAL_MM / spacing)
    return zone


def _nearer_than(mask: np.ndarray, voxels: float) -> np.ndarray:
    return squared_distance(mask, math.ceil(voxels)) < voxels**2


def mediastinal_distance(sides: np.ndarray, spacing: float | tuple[float, ...]) -> np.ndarray:
    """Distance in mm to the tissue between the lungs; infinite where there is but one lung.

    Args:
        sides: uint8 (z, y, x), 1 in the right lung (low x), 2 in the left.
        spacing: voxel side in mm, one number or one an axis.
    """
    between = _between_lungs(sides)
    if not between.any():
        return np.full(sides.shape, np.inf, np.float32)
    return ndimage.distance_transform_edt(~between, sampling=spacing).astype(np.float32)


def _between_lungs(sides: np.ndarray) -> np.ndarray:
    """The tissue between the lungs: on each row what lies between the right lung's end and the left one's."""
    columns = np.arange(sides.shape[2])
    right, left = sides == 1, sides == 2
    right_end = np.where(right.any(2), np.where(right, columns, -1).max(2), sides.shape[2])
    left_end = np.where(left.any(2), np.where(left, columns, sides.shape[2]).min(2), -1)
    return (columns > right_end[..., None]) & (columns < left_end[..., None]) & (sides == 0)
