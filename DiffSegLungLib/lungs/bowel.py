"""Gas of stomach, bowel and oesophagus, which is no lung."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.filters import within
from DiffSegLungLib.lungs.air import GAS_HU, LARGE_GAS_ML, is_crossed, middle_of_air
from DiffSegLungLib.lungs.shapes import WORK_MM, voxels

WHOLE_WALL, HALF_A_WALL = 0.55, 0.38  # share of soft tissue around gas: bowel 0.63-0.99, a large bulla 0.43
SURELY_OUTSIDE = 0.75  # bowel and oesophagus 0.90-1.0, gas within lung 0-0.28


def bowel_gas(work: np.ndarray, air: np.ndarray, outside: np.ndarray | None = None) -> np.ndarray:
    """Gas of stomach, bowel and oesophagus: pure, low or in the midline, walled by soft tissue.

    Args:
        work: HU on the working grid.
        air: What may be lung.
        outside: The network's probability that a voxel lies outside the lungs.  Where it is sure, half a wall
            will do: the other half borders on lung.

    Returns:
        The gas and its wall, within `air`.
    """
    gas = (work < GAS_HU) & air
    cores, _ = ndimage.label(~within(~gas, 3 / WORK_MM))
    heights, middle = np.flatnonzero(air.any(axis=(1, 2))), middle_of_air(air)
    found = np.zeros(air.shape, bool)
    for label, box in enumerate(ndimage.find_objects(cores), 1):
        core_mm = [WORK_MM * (s.start + s.stop) / 2 for s in box]
        low = core_mm[0] < WORK_MM * heights.mean()
        midline = abs(core_mm[2] - middle) < 20 and WORK_MM * (box[2].stop - box[2].start) < 30
        if not (low or midline):
            continue
        near = tuple(slice(max(0, s.start - 12), s.stop + 12) for s in box)
        core = cores[near] == label
        if core.sum() < voxels(0.15) or np.median(work[near][core]) > -960:
            continue
        pocket = (ndimage.distance_transform_edt(~core) <= 4) & gas[near]
        to_pocket = ndimage.distance_transform_edt(~pocket)
        shell = work[near][(to_pocket > 2) & (to_pocket <= 5)]
        sure = outside is not None and float(outside[near][pocket].mean()) > SURELY_OUTSIDE
        if core.sum() > voxels(LARGE_GAS_ML) and not sure and is_crossed(pocket, work[near]):
            continue
        if (shell > -200).mean() > (HALF_A_WALL if sure else WHOLE_WALL):
            found[near] |= to_pocket <= 2
    if outside is not None and found.any():  # a large loop of bowel reaches further than its core tells
        beyond = ndimage.binary_propagation(found & gas, mask=gas & (outside > SURELY_OUTSIDE))
        found |= ndimage.binary_dilation(beyond, iterations=2)
    return found & air
