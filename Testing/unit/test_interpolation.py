"""Resampling axis by axis: the same numbers as ITK and SciPy, in little memory."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter

from DiffSegLungLib.interpolation import (
    averaging_matrix,
    by_matrices,
    enlarged_slabs,
    nearest_voxels,
    smoothing_matrix,
)

OLD, SHAPE = (2.5, 0.7, 0.8), (17, 40, 33)


def image_of(values: np.ndarray, spacing: tuple[float, ...]) -> sitk.Image:
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(spacing[::-1])
    image.SetOrigin([side / 2 for side in spacing[::-1]])
    return image


def by_itk(
    values: np.ndarray, old: tuple[float, ...], shape: tuple[int, ...], new: tuple[float, ...], how: int
) -> np.ndarray:
    resample = sitk.ResampleImageFilter()
    resample.SetSize(shape[::-1])
    resample.SetOutputSpacing(new[::-1])
    resample.SetOutputOrigin([side / 2 for side in new[::-1]])
    resample.SetInterpolator(how)
    resample.SetUseNearestNeighborExtrapolator(True)
    return sitk.GetArrayFromImage(resample.Execute(image_of(values, old)))


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    return np.random.default_rng(0).normal(-800, 200, SHAPE).astype(np.float32)


def test_to_a_coarser_grid_it_smooths_and_interpolates_as_scipy_and_itk(values: np.ndarray) -> None:
    new, shape, sigma = (1.5, 1.5, 1.5), (28, 19, 18), (0.0, 0.8, 0.7)
    expected = by_itk(
        gaussian_filter(values, sigma, mode="nearest", truncate=3.0), OLD, shape, new, sitk.sitkLinear
    )
    matrices = [smoothing_matrix(*axis) for axis in zip(SHAPE, OLD, shape, new, sigma, strict=True)]
    assert by_matrices(values, matrices) == pytest.approx(expected, abs=2e-3)


def test_averages_are_those_of_itk(values: np.ndarray) -> None:
    new, shape = (2.0, 2.0, 2.0), (21, 14, 13)
    shrunk = sitk.BinShrink(image_of(values, OLD), [2, 2, 1])
    expected = by_itk(sitk.GetArrayFromImage(shrunk), (2.5, 1.4, 1.6), shape, new, sitk.sitkLinear)
    matrices = [averaging_matrix(*axis) for axis in zip(SHAPE, OLD, shape, new, strict=True)]
    assert by_matrices(values, matrices) == pytest.approx(expected, abs=2e-3)


def test_slabs_do_not_show(values: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    new, shape = (2.0, 2.0, 2.0), (21, 14, 13)
    matrices = [averaging_matrix(*axis) for axis in zip(SHAPE, OLD, shape, new, strict=True)]
    whole = by_matrices(values, matrices)
    monkeypatch.setattr("DiffSegLungLib.interpolation.SLAB_VOXELS", 3000)
    assert by_matrices(values, matrices) == pytest.approx(whole, abs=2e-3)


@pytest.mark.parametrize("count", [1, 3])
def test_to_a_finer_grid_it_interpolates_as_itk(
    values: np.ndarray, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("parallel", "interpolation"):
        monkeypatch.setattr(f"DiffSegLungLib.{module}.threads", lambda: count)
    monkeypatch.setattr("DiffSegLungLib.interpolation.SLAB_VOXELS", 20_000)
    new, shape = (0.9, 0.5, 0.45), (47, 56, 58)
    channels, found = np.stack([values, -values]), np.empty((2, *shape), np.float32)
    rows = []
    for slab, part in enlarged_slabs(channels, OLD, shape, new):
        found[:, slab] = part
        rows.append(slab.stop - slab.start)
    assert len(rows) > 3 and sum(rows) == shape[0]
    for member, channel in enumerate(channels):
        assert found[member] == pytest.approx(by_itk(channel, OLD, shape, new, sitk.sitkLinear), abs=2e-3)


@pytest.mark.parametrize(("new", "shape"), [((1.5, 1.5, 1.5), (28, 19, 18)), ((1.0, 0.3, 0.4), (42, 93, 66))])
def test_nearest_voxels_are_those_of_itk(
    values: np.ndarray, new: tuple[float, float, float], shape: tuple[int, int, int]
) -> None:
    index = [nearest_voxels(*axis) for axis in zip(SHAPE, OLD, shape, new, strict=True)]
    assert np.array_equal(values[np.ix_(*index)], by_itk(values, OLD, shape, new, sitk.sitkNearestNeighbor))


def test_a_coarse_grid_takes_a_slab_of_memory_not_a_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("DiffSegLungLib.interpolation.SLAB_VOXELS", 100_000)
    large = np.zeros((200, 128, 128), np.int16)
    matrices = [averaging_matrix(count, 0.7, round(count * 0.35), 2.0) for count in large.shape]
    tracemalloc.start()
    by_matrices(large, matrices)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 0.5 * large.nbytes, f"{peak / large.nbytes:.2f} times the CT"
