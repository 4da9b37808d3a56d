"""Are these Hounsfield units?  Check the values of a CT, and repair what can be repaired."""

from __future__ import annotations

import math

import numpy as np
from scipy.ndimage import label

from DiffSegLungLib.densities import HIGHEST_HU, LOWEST_HU
from DiffSegLungLib.io.image_files import unusable

PADDING_HU = -1100.0
MOST_NON_FINITE = 0.01
HIGHEST_LUNG_HU = -700.0
LEAST_AIR = 0.005


def clean(hu: np.ndarray, name: str) -> list[str]:
    """Check the values and repair in place what can be repaired; return what was repaired in sentences.

    Args:
        hu: float32 (z, y, x); padding becomes air, and metal at most 3071.
        name: for messages.

    Raises:
        UnusableInputError: the values are no Hounsfield units of a chest.
    """
    warnings = []
    low, high = float(hu.min()), float(hu.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        warnings.append(_replace_non_finite(hu, name))
        low, high = float(hu.min()), float(hu.max())
    if high >= HIGHEST_HU:
        _empty_bright_corners(hu)
    _check_hounsfield(hu, low, high, name)
    if low <= PADDING_HU:
        hu[hu <= PADDING_HU] = LOWEST_HU
    if high > HIGHEST_HU:
        np.minimum(hu, HIGHEST_HU, out=hu)
    return warnings


def _replace_non_finite(hu: np.ndarray, name: str) -> str:
    broken = ~np.isfinite(hu)
    share = float(broken.mean())
    if share >= MOST_NON_FINITE:
        raise unusable(name, f"{share:.0%} of the voxels are not numbers (NaN or infinite); export again.")
    hu[broken] = LOWEST_HU
    return f"{int(broken.sum())} voxels were not numbers (NaN or infinite) and were read as air."


def _empty_bright_corners(hu: np.ndarray) -> None:
    """Turn what lies outside a round field into air, where a scanner filled it with the highest value.

    Left as it is, it would wall in the air around the patient, which then looks like lung.
    """
    corners = hu[:, [0, 0, -1, -1], [0, -1, 0, -1]] >= HIGHEST_HU
    for index in np.flatnonzero(corners.all(axis=1)):
        parts, _ = label(hu[index] >= HIGHEST_HU)
        touching = {parts[0, 0], parts[0, -1], parts[-1, 0], parts[-1, -1]}
        hu[index][np.isin(parts, list(touching))] = LOWEST_HU


def _check_hounsfield(hu: np.ndarray, low: float, high: float, name: str) -> None:
    found = f"values from {low:g} to {high:g}"
    if high - low < 100.0:
        raise unusable(name, f"{found} are not Hounsfield units (rescaled?); give the unscaled CT.")
    step = max(1, round((hu.size / 2e6) ** (1 / 3)))
    sample = hu[::step, ::step, ::step]
    sample = sample[sample > PADDING_HU]
    if sample.size and _lacks_intercept(sample):
        raise unusable(name, f"stored values seem to lack the rescale intercept of -1024 ({found}); use HU.")
    if low >= 0.0:
        raise unusable(name, f"no negative values ({found}); this is no CT in Hounsfield units, MR perhaps.")
    if not sample.size or np.mean(sample < HIGHEST_LUNG_HU) < LEAST_AIR:
        raise unusable(name, f"no air near -1000 HU ({found}); this is no chest CT in Hounsfield units.")


def _lacks_intercept(sample: np.ndarray) -> bool:
    """Air near 0 and soft tissue near 1000 and nothing negative: Hounsfield units plus 1024."""
    if sample.min() < 0.0:
        return False
    dense = sample[(sample > 600.0) & (sample < 1600.0)]
    return bool(
        np.mean(sample < 300.0) > 0.005
        and dense.size > 0.02 * sample.size
        and 900.0 <= np.median(dense) <= 1250.0
    )
