"""The radiomic teacher for one patch, as plainly as scipy and scikit-image allow.

This is the definition that ``batched.RadiomicTeacher`` is tested against. The package's docstring names the
sources and the rules for masks and degenerate patches.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from DiffSegLungLib.representation import radiomics as constants

FloatArray = NDArray[np.float64]
BoolArray = NDArray[np.bool_]


def describe(hu: NDArray[np.floating], mask: NDArray[np.generic]) -> FloatArray:
    """Describe the lung in one CT patch by 34 numbers, named by ``radiomics.FEATURE_NAMES``.

    Args:
        hu: Hounsfield units, shape (z, y, x).
        mask: lung, same shape; boolean, or numbers of which those above 0.5 are lung.

    Returns:
        float64 array of shape (34,); zeros when the mask is empty.

    Raises:
        ValueError: the shapes differ or are not three-dimensional, or a lung voxel is not finite.
    """
    values, lung = prepare(hu, mask)
    if not lung.any():
        return np.zeros(constants.FEATURE_COUNT)
    planes = [middle_plane(values, lung, axis) for axis in range(3)]
    return np.concatenate(
        [
            intensity_statistics(values[lung]),
            glcm_properties(planes[0][0]),
            np.mean([lbp_histogram(*plane) for plane in planes], axis=0),
            gabor_energies(*planes[0]),
        ]
    )


def prepare(hu: NDArray[np.floating], mask: NDArray[np.generic]) -> tuple[FloatArray, BoolArray]:
    """Check one patch; return its HU clipped to the window and rounded to ``HU_STEP``, and its lung."""
    values, lung = np.asarray(hu, dtype=np.float64), np.asarray(mask) > 0.5
    if values.ndim != 3 or values.shape != lung.shape:
        raise ValueError(f"a patch and its mask must share one (z, y, x) shape: {values.shape}, {lung.shape}")
    if not np.isfinite(values[lung]).all():
        raise ValueError("the patch holds lung voxels that are not finite; repair the volume first")
    values = np.where(lung, values, constants.HU_MINIMUM)
    values = np.clip(values, constants.HU_MINIMUM, constants.HU_MAXIMUM)
    return np.round(values / constants.HU_STEP) * constants.HU_STEP, lung


def middle_plane(values: FloatArray, lung: BoolArray, axis: int) -> tuple[FloatArray, BoolArray]:
    """The slice with lung nearest to the middle of an axis, filled outside the lung with its lung mean."""
    other_axes = tuple(other for other in range(3) if other != axis)
    with_lung = np.flatnonzero(lung.any(axis=other_axes))
    # argmin returns the first of equals, hence the lower index.
    index = with_lung[np.argmin(np.abs(with_lung - values.shape[axis] // 2))]
    plane, plane_lung = np.take(values, index, axis), np.take(lung, index, axis)
    return np.where(plane_lung, plane, plane[plane_lung].mean()), plane_lung


def to_unit_range(values: FloatArray) -> FloatArray:
    """Map the HU window to 0..1."""
    return (values - constants.HU_MINIMUM) / (constants.HU_MAXIMUM - constants.HU_MINIMUM)


def intensity_statistics(lung_values: FloatArray) -> FloatArray:
    """Mean, standard deviation, skewness, excess kurtosis and entropy (nats) of the lung's HU.

    Moments are those of the population (no correction for the sample size). A lung of one HU value has
    skewness and kurtosis 0.
    """
    from scipy.stats import entropy, kurtosis, skew

    window = (constants.HU_MINIMUM, constants.HU_MAXIMUM)
    counts, _ = np.histogram(lung_values, bins=constants.ENTROPY_BINS, range=window)
    varied = lung_values.var() >= constants.MINIMUM_VARIANCE
    shape = (skew(lung_values), kurtosis(lung_values)) if varied else (0.0, 0.0)
    return np.array([lung_values.mean(), lung_values.std(), *shape, entropy(counts)])


def glcm_properties(plane: FloatArray) -> FloatArray:
    """Six co-occurrence properties (Haralick 1973) at distance 1, mean of 0 and 90 degrees.

    The matrix is symmetric and covers the whole filled slice. A slice of one grey level has correlation 1.
    """
    from skimage.feature import graycomatrix, graycoprops

    levels = constants.GLCM_LEVELS
    image = (to_unit_range(plane) * (levels - 1)).astype(np.uint8)
    matrix = graycomatrix(image, [1], [0, np.pi / 2], levels=levels, symmetric=True, normed=True)
    return np.array([graycoprops(matrix, name).mean() for name in constants.GLCM_PROPERTIES])


def lbp_histogram(plane: FloatArray, plane_lung: BoolArray) -> FloatArray:
    """Shares of the ten rotation-invariant uniform local binary patterns (Ojala 2002) among lung pixels.

    As in scikit-image, pixels beyond the border count as 0, the darkest grey level.
    """
    from skimage.feature import local_binary_pattern

    image = (to_unit_range(plane) * (constants.LBP_LEVELS - 1)).astype(np.uint8)
    codes = local_binary_pattern(image, constants.LBP_POINTS, constants.LBP_RADIUS, "uniform")
    counts = np.bincount(codes[plane_lung].astype(int), minlength=constants.LBP_BINS)
    return counts / plane_lung.sum()


def gabor_kernels() -> FloatArray:
    """Twelve even Gabor kernels of zero mean, shape (12, 15, 15), frequency-major.

    ``exp(-(x^2 + y^2) / (2 sigma^2)) cos(2 pi f (x cos a + y sin a))`` less its mean, so that a uniform shift
    of HU leaves no response.
    """
    half = constants.GABOR_SIZE // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1].astype(np.float64)
    envelope = np.exp(-(x**2 + y**2) / (2 * constants.GABOR_SIGMA**2))
    kernels = []
    for frequency in constants.GABOR_FREQUENCIES:
        for angle in np.deg2rad(constants.GABOR_ANGLES):
            wave = np.cos(2 * np.pi * frequency * (x * np.cos(angle) + y * np.sin(angle)))
            kernels.append(envelope * wave - (envelope * wave).mean())
    return np.stack(kernels)


def gabor_energies(plane: FloatArray, plane_lung: BoolArray) -> FloatArray:
    """Mean squared response of each Gabor kernel over the lung pixels, then the mean of the twelve."""
    from scipy.ndimage import convolve

    image = to_unit_range(plane)
    responses = [convolve(image, kernel, mode="reflect") for kernel in gabor_kernels()]
    energies = [(response[plane_lung] ** 2).mean() for response in responses]
    return np.array([*energies, np.mean(energies)])
