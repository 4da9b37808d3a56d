"""The grid that lungs are found on, and shapes on it."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.filters import Box, box_around, within
from DiffSegLungLib.interpolation import averaging_matrix, by_matrices

WORK_MM = 2.0  # isotropic working grid: fine enough for pleura and main bronchi, 10x fewer voxels than the CT
AIR_HU = -320.0  # the pleura that experts draw lies slightly outside the half-way value of -380 HU
SLIT_MM = 4.0
CLOSING_MM = 8.0  # vessels, nodules and small juxta-pleural lesions stay inside
THINNEST_MM = 12.0  # a dense rim thinner than this at the pleura is the coarse network's error, not lung


def litres(count: float) -> float:
    """Volume of so many voxels of the working grid."""
    return count * WORK_MM**3 / 1e6


def voxels(millilitres: float) -> float:
    """How many voxels of the working grid hold a volume."""
    return millilitres * 1000 / WORK_MM**3


def depth_mm(mask: np.ndarray) -> np.ndarray:
    """Distance in mm of each voxel of a working-grid mask to the outside of the mask."""
    return ndimage.distance_transform_edt(mask) * WORK_MM


def middle_of_tissue(work: np.ndarray) -> int:
    """The column on either side of which half of the patient's tissue lies, however many lungs there are."""
    tissue = np.cumsum((work > AIR_HU).sum(axis=(0, 1)))
    return int(np.searchsorted(tissue, tissue[-1] / 2))


def lung_boxes(sides: np.ndarray) -> dict[int, Box]:
    """A box around each lung that is there."""
    return {side: box_around(sides == side) for side in (RIGHT, LEFT) if (sides == side).any()}


def fill_enclosed(lung: np.ndarray) -> np.ndarray:
    """Fill what the lung encloses in two of the three planes.

    Vessels and dense lung are open to the hilum in 3D, so a 3D filling misses them; the dome of the
    diaphragm and the heart are enclosed in one plane only, so they stay out.
    """
    enclosed = [_holes(lung, plane) for plane in range(3)]
    return lung | (sum(hole.astype(np.uint8) for hole in enclosed) >= 2) | _holes(lung, None)


def _holes(lung: np.ndarray, normal: int | None) -> np.ndarray:
    """Background that cannot reach the border within planes along axis `normal` (None: in 3D)."""
    neighbours = ndimage.generate_binary_structure(3, 1)
    if normal is not None:
        np.moveaxis(neighbours, normal, 0)[[0, 2]] = False
    labels, count = ndimage.label(~lung, neighbours)
    reached = np.zeros(count + 1, bool)
    reached[0] = True
    for axis in range(3):
        if axis != normal:
            reached[np.moveaxis(labels, axis, 0)[[0, -1]]] = True
    return ~reached[labels]


def closing(mask: np.ndarray, radius_mm: float) -> np.ndarray:
    """Closing with a ball in mm."""
    radius = radius_mm / WORK_MM
    margin = int(radius) + 2
    padded = np.pad(mask, margin)
    inner = ~within(~within(padded, radius), radius)
    return (inner | padded)[margin:-margin, margin:-margin, margin:-margin]


Spacing = tuple[float, float, float]


def _work_shape(shape: tuple[int, ...], spacing: Spacing) -> tuple[int, ...]:
    return tuple(max(1, round(n * s / WORK_MM)) for n, s in zip(shape, spacing, strict=True))


def to_work_grid(hu: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Average down and interpolate to the isotropic working grid."""
    matrices = [
        averaging_matrix(count, side, new_count, WORK_MM)
        for count, side, new_count in zip(hu.shape, spacing, _work_shape(hu.shape, spacing), strict=True)
    ]
    return np.clip(by_matrices(hu, matrices), LOWEST_HU, 3000)


def nearest_on_work_grid(labels: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Labels on the working grid, by nearest neighbour."""
    index = [
        np.minimum(((np.arange(m) + 0.5) * WORK_MM / s).astype(int), n - 1)
        for n, s, m in zip(labels.shape, spacing, _work_shape(labels.shape, spacing), strict=True)
    ]
    return labels[np.ix_(*index)]
