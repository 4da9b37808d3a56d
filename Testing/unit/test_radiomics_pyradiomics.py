"""The teacher against pyradiomics, an implementation of others (optional extra ``radiomics``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("skimage", reason="the reference teacher needs scikit-image")
radiomics = pytest.importorskip("radiomics", reason="pip install 'diffseglung[radiomics]' brings pyradiomics")
sitk = pytest.importorskip("SimpleITK")

from DiffSegLungLib.radiomics import FEATURE_NAMES, GLCM_LEVELS, HU_MINIMUM  # noqa: E402
from DiffSegLungLib.radiomics.batched import teacher_for_patches  # noqa: E402
from DiffSegLungLib.radiomics.reference import middle_plane, prepare, to_unit_range  # noqa: E402

PATCHES = 6


@pytest.fixture(scope="module")
def patches() -> tuple[np.ndarray, np.ndarray]:
    """Smooth textures of lung density with a corner of chest wall."""
    from scipy import ndimage

    random = np.random.default_rng(5)
    noise = random.standard_normal((PATCHES, 16, 24, 24))
    rough = ndimage.gaussian_filter(noise, (0, 1, 1, 1))
    hu = -800 + 60 * np.arange(PATCHES)[:, None, None, None] + 300 * rough
    mask = np.ones(hu.shape, bool)
    mask[:, :, :6, :6] = False
    return hu.clip(-999, 399).astype(np.float32), mask


@pytest.fixture(scope="module")
def ours(patches: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    return teacher_for_patches(*patches)


def columns(ours: np.ndarray, *names: str) -> np.ndarray:
    return ours[:, [FEATURE_NAMES.index(name) for name in names]]


def test_intensity_statistics(patches: tuple[np.ndarray, np.ndarray], ours: np.ndarray) -> None:
    from radiomics.firstorder import RadiomicsFirstOrder

    expected = []
    for hu, mask in zip(*patches, strict=True):
        values, lung = prepare(hu, mask)
        # Bins of 28 HU that begin at the window's lower end, as ours.
        image = sitk.GetImageFromArray(values - HU_MINIMUM)
        label = sitk.GetImageFromArray(lung.astype(np.uint8))
        features = RadiomicsFirstOrder(image, label, binWidth=28)
        features.enableAllFeatures()
        found = features.execute()
        expected.append(
            [
                float(found["Mean"]) + HU_MINIMUM,
                float(found["Variance"]) ** 0.5,
                float(found["Skewness"]),
                float(found["Kurtosis"]) - 3,  # theirs is not the excess
                float(found["Entropy"]) * np.log(2),  # theirs is in bits
            ]
        )
    names = ("hu_mean", "hu_sd", "hu_skewness", "hu_kurtosis", "hu_entropy")
    assert columns(ours, *names) == pytest.approx(np.array(expected), rel=1e-6, abs=1e-6)


def glcm_of(plane: np.ndarray) -> np.ndarray:
    """Contrast, dissimilarity, homogeneity, energy, correlation and ASM, mean of the two axes' directions."""
    from radiomics.glcm import RadiomicsGLCM

    levels = (to_unit_range(plane) * (GLCM_LEVELS - 1)).astype(np.int32) + 1
    image = sitk.GetImageFromArray(levels[None].astype(np.int32))
    label = sitk.GetImageFromArray(np.ones((1, *plane.shape), np.uint8))
    one_slice = {"force2D": True, "force2Ddimension": 0}
    features: Any = RadiomicsGLCM(image, label, binWidth=1, symmetricalGLCM=True, **one_slice)
    features._initCalculation()
    matrices = features.P_glcm
    rows = []
    for angle in axis_angles(features, matrices.shape[-1]):
        features.P_glcm = matrices[..., [angle]]
        features._calculateCoefficients()
        asm = float(np.squeeze(features.getJointEnergyFeatureValue()))
        rows.append(
            [
                float(np.squeeze(features.getContrastFeatureValue())),
                float(np.squeeze(features.getDifferenceAverageFeatureValue())),
                float(np.squeeze(features.getIdmFeatureValue())),
                asm**0.5,
                float(np.squeeze(features.getCorrelationFeatureValue())),
                asm,
            ]
        )
    return np.mean(rows, axis=0)


def axis_angles(features: Any, count: int) -> list[int]:
    """Which of pyradiomics' directions run along rows and columns."""
    from radiomics import cMatrices

    # Sizes above 1 only: a slice has neighbours in its plane alone.
    angles = cMatrices.generate_angles(np.array((1, 9, 9)), np.array((1,)), 0, 1, 0)
    assert len(angles) == count == 4
    return [index for index, angle in enumerate(angles) if np.abs(angle).sum() == 1]


def test_co_occurrence(patches: tuple[np.ndarray, np.ndarray], ours: np.ndarray) -> None:
    expected = []
    for hu, mask in zip(*patches, strict=True):
        values, lung = prepare(hu, mask)
        expected.append(glcm_of(middle_plane(values, lung, 0)[0]))
    names = ("contrast", "dissimilarity", "homogeneity", "energy", "correlation", "asm")
    assert columns(ours, *(f"glcm_{name}" for name in names)) == pytest.approx(np.array(expected), rel=1e-6)
