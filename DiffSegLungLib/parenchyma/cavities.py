"""Cavities: air enclosed by dense tissue.  Density alone cannot tell them from emphysema; enclosure can."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

AIR_HU = -800.0
"""Below it a voxel may be the lumen of a cavity."""
SEAL_HU = -720.0
"""Above it a voxel may seal a lumen off: a wall thinner than a voxel is no denser."""
WALL_HU = -500.0
"""Above it a voxel is wall."""
WALL_MM = 4.5
"""How far from the lumen the wall is looked for."""
ENCLOSED = 0.75
"""Share of directions in which the lumen must meet wall before lung."""
SMALLEST_ML = 0.4
"""Smaller lumens cannot be told from bronchi on a 1.5 mm grid."""
LARGEST_ML = 250.0
THICK_WALL = 0.5
"""Share of the lung from 1.5 to ``WALL_MM`` around the lumen that is dense: bullae have hairline walls."""
EDGE_HU = -480.0
"""Half way from gas to wall: the lumen ends there, not where the gas ceases to be pure."""
RIM_MM = 3.0
"""How far the edge may lie beyond pure gas."""
THICKEST_WALL_MM = 12.0
COMPACT = 3.5
"""Ratio of longest to shortest axis above which a lumen is a bronchus."""


def find_cavities(hu: np.ndarray, mask: np.ndarray, airways: np.ndarray, spacing: float) -> np.ndarray:
    """Find air inside the lungs that dense tissue encloses.

    Args:
        hu: float32 (z, y, x), isotropic grid.
        mask: bool (z, y, x), the lungs.
        airways: bool (z, y, x), trachea and main bronchi; what opens into them is no cavity.
        spacing: voxel side in mm.

    Returns:
        bool (z, y, x): the lumens; their walls keep their own tissue.
    """
    smooth = ndimage.gaussian_filter(hu, 0.5)
    dense = (smooth > SEAL_HU) | ~mask
    lumens = _pockets(mask & ~dense, dense, spacing) & (smooth < AIR_HU)
    parts, _ = ndimage.label(lumens)
    near_airways = ndimage.binary_dilation(airways, iterations=2) if airways.any() else airways
    result = np.zeros(mask.shape, bool)
    for index, box in enumerate(ndimage.find_objects(parts), start=1):
        grown = tuple(slice(max(s.start - 5, 0), s.stop + 5) for s in box)
        lumen = parts[grown] == index
        if _is_cavity(lumen, smooth[grown], mask[grown], near_airways[grown], spacing):
            result[grown] |= _to_the_wall(lumen, smooth[grown], mask[grown], spacing)
    return result


def _to_the_wall(lumen: np.ndarray, hu: np.ndarray, mask: np.ndarray, spacing: float) -> np.ndarray:
    """The lumen up to the middle of its edge."""
    rim = mask & (hu < EDGE_HU)
    return ndimage.binary_dilation(lumen, iterations=max(round(RIM_MM / spacing), 1), mask=rim)


def cavity_walls(cavities: np.ndarray, hu: np.ndarray, mask: np.ndarray, spacing: float) -> np.ndarray:
    """Dense tissue around cavities: thin, but no vessel.

    Args:
        cavities: bool (z, y, x), what :func:`find_cavities` found.
        hu: float32 (z, y, x), isotropic grid.
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.

    Returns:
        bool (z, y, x).
    """
    if not cavities.any():
        return np.zeros(mask.shape, bool)
    wall = mask & ~cavities & (ndimage.gaussian_filter(hu, 0.5) > WALL_HU)
    return ndimage.binary_dilation(cavities, iterations=round(THICKEST_WALL_MM / spacing), mask=wall) & wall


def _pockets(open_lung: np.ndarray, dense: np.ndarray, spacing: float) -> np.ndarray:
    """Parts of the aerated lung that a closing of the dense tissue by 3 mm cuts off from the rest."""
    reach = max(int(round(1.5 / spacing)), 1)
    sealed = ndimage.binary_dilation(dense, iterations=reach)
    rest, count = ndimage.label(open_lung & ~sealed)
    if count == 0:
        return open_lung
    sizes = np.bincount(rest.ravel())
    small = sizes * spacing**3 / 1000.0 < LARGEST_ML
    small[0] = False
    return ndimage.binary_dilation(small[rest], iterations=reach + 1) & open_lung


def _is_cavity(
    lumen: np.ndarray, hu: np.ndarray, mask: np.ndarray, airways: np.ndarray, spacing: float
) -> bool:
    """Size, shape and wall of one lumen."""
    millilitres = lumen.sum() * spacing**3 / 1000.0
    if (
        not SMALLEST_ML <= millilitres <= LARGEST_ML
        or (lumen & airways).any()
        or _length_ratio(lumen) > COMPACT
    ):
        return False
    distance = ndimage.distance_transform_edt(~lumen, sampling=spacing)
    wall = (hu > WALL_HU) & mask
    meets_wall = ndimage.maximum_filter(wall, size=2 * max(int(round(3.0 / spacing)), 1) + 1)
    border = lumen & ~ndimage.binary_erosion(lumen)
    shell = mask & (distance > 1.5) & (distance <= WALL_MM)
    enclosed = meets_wall[border].mean() if border.any() else 0.0
    return bool(enclosed >= ENCLOSED and wall[shell].mean() >= THICK_WALL)


def _length_ratio(lumen: np.ndarray) -> float:
    axes = (
        np.sqrt(np.maximum(np.linalg.eigvalsh(np.cov(np.argwhere(lumen).T)), 0.05))
        if lumen.sum() > 3
        else [1.0] * 3
    )
    return float(axes[2] / axes[0])
