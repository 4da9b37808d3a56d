"""Linear resampling axis by axis: one matrix an axis to coarser grids, slab by slab to finer ones.

Both grids share the corner of their first voxel; beyond the old grid the nearest voxel's value continues.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import gaussian_filter1d

from DiffSegLungLib.parallel import run_all, threads

SLAB_VOXELS = 4_000_000
"""Voxels that are worked on at a time, of the larger grid: bounds the memory whatever the CT's size."""
MOST_TOGETHER = 4
"""Slabs that are made side by side, for the same reason."""


@dataclass(frozen=True)
class AxisMap:
    """Where the voxels of a new grid lie between those of an old one, along one axis.

    Attributes:
        low: int (new,), the old voxel below.
        high: int (new,), the old voxel above.
        share: float32 (new,), share of the one above.
    """

    low: np.ndarray
    high: np.ndarray
    share: np.ndarray

    @classmethod
    def between(cls, old_count: int, old: float, new_count: int, new: float, offset: float = 0.0) -> AxisMap:
        """Between grids of these counts and voxel sizes in mm; the new one begins ``offset`` mm later."""
        position = ((np.arange(new_count) + 0.5) * new + offset) / old - 0.5
        position = np.clip(position, 0, old_count - 1)
        low = np.floor(position).astype(np.intp)
        return cls(low, np.minimum(low + 1, old_count - 1), (position - low).astype(np.float32))

    def along(self, values: np.ndarray, axis: int) -> np.ndarray:
        """Interpolate an array along one axis."""
        below, above = values.take(self.low, axis), values.take(self.high, axis)
        above -= below
        above *= self.share.reshape([-1 if each == axis % values.ndim else 1 for each in range(values.ndim)])
        above += below
        return above

    def matrix(self, old_count: int, sigma: float) -> np.ndarray:
        """float32 (new, old): a Gaussian of ``sigma`` old voxels, then the interpolation."""
        smooth = np.eye(old_count)
        if sigma > 0:
            smooth = gaussian_filter1d(smooth, sigma, axis=0, mode="nearest", truncate=3.0)
        return (
            smooth[self.low] * (1 - self.share[:, None]) + smooth[self.high] * self.share[:, None]
        ).astype(np.float32)


def nearest_voxels(old_count: int, old: float, new_count: int, new: float) -> np.ndarray:
    """The old voxel that the middle of each new one lies in, along one axis."""
    position = np.floor((np.arange(new_count) + 0.5) * new / old).astype(np.intp)
    return np.clip(position, 0, old_count - 1)


def averaging_matrix(old_count: int, old: float, new_count: int, new: float) -> np.ndarray:
    """float32 (new, old): means of as many whole voxels as fit into a new one, interpolated between."""
    bin_size = min(max(int(new / old), 1), old_count)
    bins = old_count // bin_size
    between = AxisMap.between(bins, bin_size * old, new_count, new).matrix(bins, 0.0)
    means = np.zeros((new_count, old_count), np.float32)
    means[:, : bins * bin_size] = np.repeat(between / bin_size, bin_size, axis=1)
    return means


def smoothing_matrix(old_count: int, old: float, new_count: int, new: float, sigma: float) -> np.ndarray:
    """float32 (new, old): a Gaussian of ``sigma`` old voxels, then linear interpolation."""
    return AxisMap.between(old_count, old, new_count, new).matrix(old_count, sigma)


def by_matrices(values: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """Apply a matrix along each axis, some slices at a time.

    Args:
        values: (z, y, x), numbers of any type; a view of a larger array will do.
        matrices: float32 (new, old) for z, y and x.

    Returns:
        float32 (new z, new y, new x).
    """
    z, y, x = matrices
    result = np.zeros((len(z), len(y) * len(x)), np.float32)
    rows = max(SLAB_VOXELS // (values.shape[1] * values.shape[2]), 1)
    for first in range(0, len(values), rows):
        slab = np.asarray(values[first : first + rows], np.float32)
        share = z[:, first : first + rows]
        touched = np.flatnonzero(share.any(axis=1))
        if touched.size:
            span = slice(touched[0], touched[-1] + 1)
            planes = np.matmul(y, slab @ x.T).reshape(len(slab), -1)
            result[span] += share[span] @ planes
    return result.reshape(len(z), len(y), len(x))


def enlarged_slabs(
    values: np.ndarray, old: Sequence[float], shape: Sequence[int], new: Sequence[float]
) -> Iterator[tuple[slice, np.ndarray]]:
    """Interpolate channels linearly onto a finer grid, some slices at a time.

    Args:
        values: float32 (channels, z, y, x).
        old: their voxel size (z, y, x) in mm.
        shape: (z, y, x) of the finer grid.
        new: its voxel size in mm.

    Yields:
        Which slices of the finer grid, and float32 (channels, slices, y, x) there.
    """
    z, y, x = (
        AxisMap.between(count, before, new_count, after)
        for count, before, new_count, after in zip(values.shape[1:], old, shape, new, strict=True)
    )
    rows = max(SLAB_VOXELS // (len(values) * shape[1] * shape[2]), 1)
    slabs = [slice(first, min(first + rows, shape[0])) for first in range(0, shape[0], rows)]

    def enlarged(slab: slice) -> np.ndarray:
        part = AxisMap(z.low[slab], z.high[slab], z.share[slab]).along(values, 1)
        # The row is the last axis: it is made longer first, where there is least to do.
        return y.along(x.along(part, 3), 2)

    together = min(threads(), MOST_TOGETHER)
    for first in range(0, len(slabs), together):
        group = slabs[first : first + together]
        yield from zip(group, run_all([partial(enlarged, slab) for slab in group]), strict=True)
