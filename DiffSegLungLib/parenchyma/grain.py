"""How far kernel and slices of a scan blur fine lines, read off the grain of its noise.

A soft kernel blurs lines and noise alike, and thick slices correlate what lies above each other.  Soft tissue
has noise and hardly anything else in every patient: unlike the lines of the lung itself, its grain tells the
scan and not the disease.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

SOFT_HU = (0.0, 110.0)
AROUND = 5
"""Voxels a side of the cube whose mean is taken off: what is left is noise, and edges."""
EVEN_SHARE = 0.5
"""Share of soft tissue, the most even, that is looked at: edges of muscles and vessels are not noise."""
FAR_HU = 120.0
"""From that mean: bone or lung in part."""
LEAST_VOXELS = 2000


@dataclass(frozen=True)
class Grain:
    """Correlation of the noise of neighbouring voxels of the working grid.

    Attributes:
        within: along the slices' rows and columns, mean of both.
        across: from slice to slice.
    """

    within: float
    across: float

    def stored(self) -> dict[str, float]:
        """Both as plain numbers, for the manifest."""
        return {"within": round(self.within, 3), "across": round(self.across, 3)}


def grain_of(hu: np.ndarray, mask: np.ndarray) -> Grain | None:
    """Grain of the noise in the soft tissue around the lungs; None where there is too little of it.

    Args:
        hu: float32 (z, y, x), isotropic grid.
        mask: bool (z, y, x), the lungs.
    """
    mean = ndimage.uniform_filter(hu, AROUND)
    noise = hu - mean
    soft = (mean > SOFT_HU[0]) & (mean < SOFT_HU[1]) & ~mask & (np.abs(noise) < FAR_HU)
    soft = ndimage.binary_erosion(soft, iterations=AROUND // 2)
    if np.count_nonzero(soft) < LEAST_VOXELS:
        return None
    power = ndimage.uniform_filter(noise * noise, AROUND)
    soft &= power <= np.quantile(power[soft], EVEN_SHARE)
    across, rows, columns = (_correlation(noise, soft, axis) for axis in range(3))
    return Grain((rows + columns) / 2, across)


def _correlation(noise: np.ndarray, inside: np.ndarray, axis: int) -> float:
    """Of each voxel's noise with that of the next along an axis, where both are inside; 0 without noise."""
    one, next_one = (_without_end(noise, axis, end) for end in (-1, 0))
    both = _without_end(inside, axis, -1) & _without_end(inside, axis, 0)
    if not both.any():
        return 0.0
    return float(np.mean(one[both] * next_one[both]) / max(float(np.mean(noise[inside] ** 2)), 1e-6))


def _without_end(values: np.ndarray, axis: int, end: int) -> np.ndarray:
    where = [slice(None)] * values.ndim
    where[axis] = slice(None, -1) if end else slice(1, None)
    return values[tuple(where)]
