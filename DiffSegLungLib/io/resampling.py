"""Resample an array between two grids that share the corner of their first voxel."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from DiffSegLungLib.interpolation import by_matrices, enlarged_slabs, nearest_voxels, smoothing_matrix


def resample(
    array: np.ndarray,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    interpolation: Literal["linear", "nearest"] = "linear",
    anti_alias: bool = True,
    size: Sequence[int] | None = None,
) -> np.ndarray:
    """Resample an array between two grids that share the corner of their first voxel.

    Made coarser, an axis is first smoothed by the Gaussian that widens the old point spread to the new one:
    sigma^2 = (ratio^2 - 1) / (8 ln 2) voxels (Cardoso et al., MICCAI 2015, scale factor PSF matching).
    Beyond the old grid the nearest voxel's value continues.

    Args:
        array: (z, y, x); float32, bool, uint8 or uint16.
        spacing: voxel size (z, y, x) in mm.
        new_spacing: wanted voxel size (z, y, x) in mm, kept exactly.
        interpolation: ``nearest`` for labels; ``linear`` cuts bool at one half and rounds integers.
        anti_alias: smooth before making coarser; never done for ``nearest``.
        size: wanted shape (z, y, x); by default the nearest that fills the same box.

    Returns:
        The array on the new grid, of the same dtype (float64 becomes float32).
    """
    old = np.asarray(spacing, dtype=float)
    new = np.asarray(new_spacing, dtype=float)
    filling = np.maximum(np.rint(np.asarray(array.shape) * old / new), 1)
    shape = tuple(int(n) for n in (filling if size is None else size))
    if shape == array.shape and np.allclose(old, new):
        return array.copy()
    if interpolation == "nearest":
        grids = zip(array.shape, old, shape, new, strict=True)
        return array[np.ix_(*(nearest_voxels(*grid) for grid in grids))]
    sigma = _psf_matching(new / old) if anti_alias else np.zeros(3)
    return _back_to(_interpolate(array, old, shape, new, sigma), array.dtype)


def _psf_matching(ratio: np.ndarray) -> np.ndarray:
    """Deviation in old voxels of the Gaussian that makes an axis ``ratio`` times as coarse."""
    return np.sqrt(np.maximum(ratio**2 - 1.0, 0.0) / (8.0 * math.log(2.0)))


def _interpolate(
    array: np.ndarray, old: np.ndarray, shape: tuple[int, ...], new: np.ndarray, sigma: np.ndarray
) -> np.ndarray:
    if not sigma.any() and math.prod(shape) > array.size:
        result = np.empty(shape, np.float32)
        values = array[None].astype(np.float32, copy=False)
        for slab, larger in enlarged_slabs(values, old.tolist(), shape, new.tolist()):
            result[slab] = larger[0]
        return result
    axes = zip(array.shape, old, shape, new, sigma, strict=True)
    return by_matrices(array, [smoothing_matrix(*axis) for axis in axes])


def _back_to(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if np.issubdtype(dtype, np.bool_):
        return array >= 0.5
    if np.issubdtype(dtype, np.integer) and array.dtype != dtype:
        return np.rint(array).astype(dtype)
    return array
