"""The radiomic teacher: 34 handcrafted numbers that describe the lung inside one CT patch.

``reference.describe`` is the readable definition (scipy, scikit-image); ``batched.RadiomicTeacher`` gives
the same numbers for many patches at once in torch. This file only holds what both share, and imports neither.

The choice of numbers is that of DiffSegLung (arXiv 2605.11758): Hounsfield statistics, the grey-level
co-occurrence matrix of Haralick et al. (1973, doi 10.1109/TSMC.1973.4309314), the rotation-invariant uniform
local binary patterns of Ojala et al. (2002, doi 10.1109/TPAMI.2002.1017623), and Gabor energies.

Rules that hold for every number:

* HU are clipped to the window, then rounded to ``HU_STEP``. On that grid sums in float64 are exact, so
  a mean does not depend on the order of summation and both implementations choose the same grey levels.
* Only lung voxels count. In a slice, everything else takes the mean of the slice's lung pixels, so that
  the pleura makes no edge; voxels outside the mask can therefore hold anything, even NaN.
* A "middle slice" is the slice with lung nearest to index ``n // 2`` (the lower index wins a tie).
* A patch without any lung voxel is described by 34 zeros.
* A non-finite HU inside the lung is an error.
"""

from __future__ import annotations

from DiffSegLungLib.densities import WINDOW_HU

HU_MINIMUM, HU_MAXIMUM = WINDOW_HU
HU_STEP = 1.0 / 1024.0
"""HU are rounded to this power of two; far below the noise of any scanner."""

ENTROPY_BINS = 50
GLCM_LEVELS = 64
LBP_LEVELS = 256
LBP_POINTS = 8
LBP_RADIUS = 1
LBP_BINS = LBP_POINTS + 2
GABOR_FREQUENCIES = (0.10, 0.25, 0.40)
"""Cycles per voxel."""
GABOR_ANGLES = (0, 45, 90, 135)
"""Degrees from the array's x axis (patient left) towards its y axis (posterior)."""
GABOR_SIGMA = 3.0
GABOR_SIZE = 15

MINIMUM_VARIANCE = 1e-6
"""HU^2. Below it (a standard deviation of 0.001 HU) skewness and kurtosis are noise, and set to 0."""

INTENSITY_NAMES = ("hu_mean", "hu_sd", "hu_skewness", "hu_kurtosis", "hu_entropy")
GLCM_PROPERTIES = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "ASM")
GLCM_NAMES = tuple(f"glcm_{name.lower()}" for name in GLCM_PROPERTIES)
LBP_NAMES = (*(f"lbp_uniform_{ones}" for ones in range(LBP_POINTS + 1)), "lbp_not_uniform")
GABOR_NAMES = (
    *(f"gabor_{frequency:.2f}_{angle}deg" for frequency in GABOR_FREQUENCIES for angle in GABOR_ANGLES),
    "gabor_mean",
)

FEATURE_NAMES: tuple[str, ...] = (*INTENSITY_NAMES, *GLCM_NAMES, *LBP_NAMES, *GABOR_NAMES)
FEATURE_COUNT = len(FEATURE_NAMES)


def _group_slices() -> dict[str, slice]:
    slices, start = {}, 0
    parts = {"intensity": INTENSITY_NAMES, "glcm": GLCM_NAMES, "lbp": LBP_NAMES, "gabor": GABOR_NAMES}
    for group, names in parts.items():
        slices[group] = slice(start, start + len(names))
        start += len(names)
    return slices


GROUPS: dict[str, slice] = _group_slices()
"""Where each group lies within the 34 numbers."""
