"""Filters that see the lungs alone: what lies outside the mask is absent, neither bright nor dark."""

from __future__ import annotations

import numpy as np
from scipy import ndimage


def masked_share(mask: np.ndarray, sigma: float) -> np.ndarray:
    """Share of ``mask`` around each voxel under a Gaussian of ``sigma`` voxels, float32."""
    return ndimage.gaussian_filter(mask.astype(np.float32), sigma, mode="constant", truncate=3.0)


def masked_mean(values: np.ndarray, mask: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian mean over the mask's voxels alone (normalised convolution, Knutsson and Westin 1993).

    Args:
        values: float32 (z, y, x).
        mask: bool (z, y, x).
        sigma: in voxels.

    Returns:
        float32 (z, y, x); meaningless far outside the mask.
    """
    share = masked_share(mask, sigma)
    inside = np.where(mask, values, 0).astype(np.float32)
    total = ndimage.gaussian_filter(inside, sigma, mode="constant", truncate=3.0)
    return total / np.maximum(share, 1e-4)


def masked_opening(values: np.ndarray, mask: np.ndarray, radius: int) -> np.ndarray:
    """Grey opening with a cube of ``2 * radius + 1`` voxels that ignores what lies outside the mask.

    A cube, because its minimum and maximum are taken axis by axis: ten times faster than a ball here.
    """
    side = 2 * radius + 1
    eroded = ndimage.minimum_filter(np.where(mask, values, np.inf).astype(np.float32), side)
    return ndimage.maximum_filter(np.where(mask, eroded, -np.inf).astype(np.float32), side)
