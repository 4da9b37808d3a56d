"""Is a label map that is given as lungs one of lungs alone?  Whole-body maps hold other organs, too."""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.io.image_files import unusable
from DiffSegLungLib.io.volume import Volume

SOLID_HU = -150.0
"""Median from which a label holds no aerated lung; so does consolidated lung."""
LOBES = 5
LARGEST_LOBE_ML = 2500.0
SHOWN = 5


def require_lungs_alone(labels: np.ndarray, volume: Volume, name: str) -> None:
    """Refuse a plain label map that holds other organs beside the lungs.

    One or two solid labels may be consolidated lungs, and one among lobes a consolidated lobe.

    Args:
        labels: (z, y, x) on the CT's grid.
        volume: the CT.
        name: for messages.

    Raises:
        UnusableInputError: organs other than lungs are in it.
    """
    values = np.unique(labels[labels > 0])
    if len(values) < 2:
        return
    solid = {int(value): mask for value in values if _is_solid(volume.hu[mask := labels == value])}
    may_be_lobes = values.max() <= LOBES
    if len(solid) == len(values) <= 2 or not solid:
        return
    largest = max(np.count_nonzero(mask) * volume.voxel_ml for mask in solid.values())
    if may_be_lobes and largest < LARGEST_LOBE_ML and 2 * len(solid) <= len(values):
        return
    aerated = [int(value) for value in values if int(value) not in solid]
    raise unusable(
        name,
        f"holds organs beside the lungs: {_listed(list(solid))} no air, {_listed(aerated)} air; give a mask "
        "of the lungs alone.",
    )


def _is_solid(hu: np.ndarray) -> bool:
    return bool(np.median(hu) > SOLID_HU)


def _listed(values: list[int]) -> str:
    shown = ", ".join(map(str, values[:SHOWN])) + (" and more" if len(values) > SHOWN else "")
    return f"label{'s' * (len(values) != 1)} {shown or 'none'} hold{'s' * (len(values) == 1)}"
