"""Solid nodules: as dense as vessels and hardly thicker, but round; a vessel goes on where they end."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from DiffSegLungLib.filters import squared_distance

SOLID_HU = -450.0
"""Half way from lung to soft tissue."""
RADIUS_MM = (3.3, 9.0)
"""Of the largest ball within.  Outside the hila vessels are thinner than the first but where they part; what
is thicker than the second an opening keeps."""
THICK_MM = 3.8
SHELL_MM = (2.0, 4.0)
"""How far from that ball it is asked what goes on."""
GOES_ON = 0.24
"""Share of solid tissue there from which it is part of something larger: vessels that part 0.28 at the least,
nodules of known truth 0.02 to 0.2."""
GOES_ON_IF_THIN = 0.1
"""The same below ``THICK_MM``: vessels 0.11 at the least."""
GOES_ON_TWICE = 0.05
"""Share of the second largest piece there from which a vessel runs through; 19 nodules in 20 have 0.04."""
REACH, LEAST_REACH_MM = 1.5, 2.0
"""How far an uneven nodule goes beyond the ball: so many radii, or so many mm more if that is further."""


def find_nodules(hu: np.ndarray, mask: np.ndarray, hilum: np.ndarray, spacing: float) -> np.ndarray:
    """Solid nodules of about 7 to 18 mm outside the hila.

    Args:
        hu: float32 (z, y, x), isotropic grid.
        mask: bool (z, y, x), the lungs.
        hilum: bool (z, y, x), where vessels are as thick as nodules and no nodule is looked for.
        spacing: voxel side in mm.

    Returns:
        bool (z, y, x).
    """
    solid = mask & (ndimage.gaussian_filter(hu, 0.5) > SOLID_HU)
    squared = squared_distance(~solid, math.ceil(RADIUS_MM[1] / spacing) + 1)
    parts, _ = ndimage.label(squared >= (RADIUS_MM[0] / spacing) ** 2)
    nodules = np.zeros(mask.shape, bool)
    for part, span in enumerate(ndimage.find_objects(parts), start=1):
        depths = np.where(parts[span] == part, squared[span], 0)
        radius = math.sqrt(float(depths.max())) * spacing
        centre = np.argwhere(depths == depths.max()).mean(axis=0) + [side.start for side in span]
        if radius <= RADIUS_MM[1] and not hilum[tuple(np.rint(centre).astype(int))]:
            _add_nodule(nodules, solid, mask, centre, radius, spacing)
    return nodules


def _add_nodule(
    nodules: np.ndarray,
    solid: np.ndarray,
    mask: np.ndarray,
    centre: np.ndarray,
    radius: float,
    spacing: float,
) -> None:
    """Add what is solid about a ball, in place, unless it goes on beyond; centre in voxels, radius in mm."""
    reach = max(REACH * radius, radius + LEAST_REACH_MM)
    half = math.ceil(max(reach, radius + SHELL_MM[1]) / spacing) + 1
    middle = np.rint(centre).astype(int)
    box = tuple(slice(max(place - half, 0), place + half + 1) for place in middle)
    corner, end = [side.start for side in box], [side.stop for side in box]
    axes = np.ogrid[tuple(map(slice, corner, np.minimum(end, mask.shape)))]
    squares = [(axis - place) ** 2 for axis, place in zip(axes, centre, strict=True)]
    distance = np.sqrt(squares[0] + squares[1] + squares[2]) * spacing
    shell = (distance > radius + SHELL_MM[0]) & (distance <= radius + SHELL_MM[1]) & mask[box]
    if _goes_on(solid[box], shell, GOES_ON if radius >= THICK_MM else GOES_ON_IF_THIN):
        return
    near, _ = ndimage.label(solid[box] & (distance <= reach))
    own = near[tuple(middle - corner)]
    nodules[box] |= (near == own) & (near > 0)


def _goes_on(solid: np.ndarray, shell: np.ndarray, most: float) -> bool:
    """Whether too much of a shell around a ball is solid, or two of its sides are, as where a vessel runs."""
    pieces, _ = ndimage.label(solid & shell, np.ones((3, 3, 3)))
    sizes = np.sort(np.bincount(pieces[pieces > 0], minlength=3))
    voxels = np.count_nonzero(shell)
    return bool(sizes.sum() > most * voxels or sizes[-2] > GOES_ON_TWICE * voxels)
