"""The teacher against pyradiomics, an implementation of others (optional extra ``radiomics``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("skimage", reason="the reference teacher needs scikit-image")
radiomics = pytest.importorskip("radiomics", reason="pip install 'diffseglung[radiomics]' brings pyradiomics")
sitk = pytest.importorskip("SimpleITK")

from DiffSegLungLib.representation.radiomics import FEATURE_NAMES, GLCM_LEVELS, HU_MINIMUM  # noqa: E402
from DiffSegLungLib.representation.radiomics.batched import teacher_for_patches  # noqa: E402
from DiffSegLungLib.representation.radiomics.reference import middle_plane, prepare, to_unit_range  # noqa: E402

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


def test_densitometry_of_a_region() -> None:
    """Volume, mean, shares and mass of ``measures`` by first-order and shape features, voxels anisotropic."""
    from radiomics.firstorder import RadiomicsFirstOrder
    from radiomics.shape import RadiomicsShape

    from DiffSegLungLib.quantify.measures import measure
    from DiffSegLungLib.tissues import HEALTHY

    spacing = (2.5, 0.7, 0.9)
    hu = np.rint(np.random.default_rng(2).normal(-820, 140, (12, 18, 16))).astype(np.float32)
    hu[5, 5, 5:9] = (-950, -951, -600, -250)  # the bounds themselves
    lung = np.zeros(hu.shape, bool)
    lung[2:-2, 3:-3, 3:-3] = True
    row = measure(lung * np.uint8(HEALTHY), hu, spacing, {"lung": lung}).loc["lung"]

    def image(array: np.ndarray) -> Any:
        made = sitk.GetImageFromArray(array)
        made.SetSpacing(spacing[::-1])
        return made

    def volume_ml(mask: np.ndarray) -> float:
        label = image(mask.astype(np.uint8))
        return float(RadiomicsShape(image(hu), label).getVoxelVolumeFeatureValue()) / 1000

    def mean(values: np.ndarray) -> float:
        features = RadiomicsFirstOrder(image(values), image(lung.astype(np.uint8)))
        features.enableAllFeatures()
        return float(features.execute()["Mean"])

    whole = volume_ml(lung)
    assert row["lung_ml"] == row["healthy_ml"] == pytest.approx(whole)
    assert row["mean_hu"] == pytest.approx(mean(hu))
    assert row["laa950_percent"] == pytest.approx(100 * volume_ml(lung & (hu < -950)) / whole)
    assert row["haa_percent"] == pytest.approx(100 * volume_ml(lung & (hu > -600) & (hu < -250)) / whole)
    assert row["mass_g"] == pytest.approx(mean(np.maximum(hu + 1000, 0) / 1000) * whole)


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
