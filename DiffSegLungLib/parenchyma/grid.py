"""The working grid: what is computed on it, and the way there."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.filters import nearest_inside
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.lungs.lungs import Lungs
from DiffSegLungLib.parenchyma.grain import Grain, grain_of

MARGIN_MM = 12.0
"""Tissue kept around the lungs on the working grid."""
LEAST_LUNG_ML = 1.0
"""Less than a thumbnail of lung is a slip of the pen, not a lung."""


@dataclass(frozen=True)
class Grid:
    """The working grid: the lungs' box, isotropic at the model's spacing.

    Attributes:
        box: the box in the volume's voxels, (z, y, x).
        hu: float32 HU on the grid.
        sides: uint8 lungs on the grid, 1 right and 2 left.
        airways: bool trachea and main bronchi on the grid.
        spacing: voxel side in mm.
        slice_mm: distance of the CT's own slices.
    """

    box: tuple[slice, slice, slice]
    hu: np.ndarray
    sides: np.ndarray
    airways: np.ndarray
    spacing: float
    slice_mm: float

    @cached_property
    def mask(self) -> np.ndarray:
        """The lungs, bool."""
        return self.sides > 0

    @cached_property
    def nearest(self) -> np.ndarray:
        """For each voxel the flat index of the nearest lung voxel."""
        return nearest_inside(self.mask)

    @cached_property
    def grain(self) -> Grain | None:
        """Of the noise; None where there is too little soft tissue to tell."""
        return grain_of(self.hu, self.mask)


def working_grid(volume: Volume, found: Lungs, spacing: float) -> Grid:
    """Crop to the lungs and resample to the model's spacing."""
    if np.count_nonzero(found.mask) * volume.voxel_ml < LEAST_LUNG_ML:
        raise UnusableInputError("the lungs are too small to be measured; check the lung mask")
    box = lung_box(found.mask, volume.spacing)
    new = (spacing,) * 3
    hu = found.calibration.corrected(resample(volume.hu[box], volume.spacing, new))
    sides = _to_grid(found.sides, box, volume.spacing, new, hu.shape)
    airways = _to_grid(found.airways, box, volume.spacing, new, hu.shape)
    if not sides.any():
        raise UnusableInputError("the lungs are too small to be measured; check the lung mask")
    return Grid(box, hu, sides, airways, spacing, volume.spacing[0])


def lung_box(
    mask: np.ndarray, spacing: tuple[float, float, float], margin_mm: float = MARGIN_MM
) -> tuple[slice, slice, slice]:
    """The box of the lungs with a margin in mm, as one slice an axis."""
    box = []
    for axis, step in enumerate(spacing):
        margin = int(np.ceil(margin_mm / step))
        where = np.flatnonzero(mask.any(axis=tuple(other for other in range(3) if other != axis)))
        box.append(slice(max(int(where[0]) - margin, 0), int(where[-1]) + margin + 1))
    return box[0], box[1], box[2]


def _to_grid(
    labels: np.ndarray,
    box: tuple[slice, slice, slice],
    spacing: tuple[float, float, float],
    new: tuple[float, float, float],
    shape: tuple[int, ...],
) -> np.ndarray:
    return resample(labels[box], spacing, new, interpolation="nearest", size=shape)
