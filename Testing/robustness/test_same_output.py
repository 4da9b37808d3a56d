"""The same CT gives the same labels whatever computes them: threads, batches, order, axes, device.

Batches and threads change in which order floating-point numbers are added, so the embedding moves in its last
digits; a voxel that lies between two tissues may tip over.  ``LEAST_SAME`` of the lung's voxels must not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.representation import features
from Testing.robustness.scans import image_of, phantom, save

ROOT = Path(__file__).resolve().parents[2]
LEAST_SAME = 0.999
LEAST_SAME_DEVICE = 0.995
PIECE = (slice(16, 36), slice(18, 44), slice(10, 30))
"""The lower right corner of the lungs: healthy and diseased, seconds of work."""
WHOLE = (slice(None),) * 3


def scan(box: tuple[slice, ...]) -> tuple[sitk.Image, sitk.Image]:
    """CT and lung mask of a part of the chest."""
    mask = image_of(phantom().sides[box] > 0)
    return image_of(phantom().hu[box]), sitk.Cast(mask, sitk.sitkUInt8)


def labels_of(ct: sitk.Image, mask: sitk.Image, device: str = "cpu", quality: str = "fast") -> np.ndarray:
    """Labels on the CT's own grid."""
    result = segment(ct, lungs=mask, device=device, quality=quality)
    return np.asarray(sitk.GetArrayFromImage(result.labels))


def agreement(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Share of the lung's voxels with one label."""
    lungs = (ours > 0) | (theirs > 0)
    assert lungs.any() and len(np.unique(ours)) > 3, "a scan with several tissues tells more"
    return float((ours == theirs)[lungs].mean())


# --- ways to compute -------------------------------------------------------------------------------------


@contextmanager
def batches_of(windows: int, patch: pytest.MonkeyPatch) -> Iterator[None]:
    """So many windows go through the network at a time."""
    with patch.context() as patched:
        patched.setattr(features, "batch_size", lambda planned, device: windows)
        yield


@contextmanager
def windows_backwards(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """The last window first."""
    forwards = features._windows
    with patch.context() as patched:
        patched.setattr(features, "_windows", lambda *words: reversed(list(forwards(*words))))
        yield


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Torch computes with so many threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def as_ras(image: sitk.Image) -> sitk.Image:
    """The same patient in space, stored from left to right and from back to front."""
    return sitk.DICOMOrient(image, "RAS")


def as_sagittal(image: sitk.Image) -> sitk.Image:
    """The same patient in space, stored in sagittal slices."""
    return sitk.DICOMOrient(image, "PIR")


# --- on a piece, in make test ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain() -> np.ndarray:
    with threads(1):
        return labels_of(*scan(PIECE))


@pytest.mark.parametrize("windows", [1, 2, 4])
def test_windows_a_pass(plain: np.ndarray, windows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with batches_of(windows, monkeypatch):
        assert agreement(labels_of(*scan(PIECE)), plain) >= LEAST_SAME


def test_order_of_windows(plain: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with windows_backwards(monkeypatch):
        assert agreement(labels_of(*scan(PIECE)), plain) >= LEAST_SAME


@pytest.mark.parametrize("stored", [as_ras, as_sagittal])
def test_order_of_axes(plain: np.ndarray, stored: Callable[[sitk.Image], sitk.Image]) -> None:
    """The voxels are brought to one order before anything is computed: not one label may differ."""
    ct, mask = (stored(image) for image in scan(PIECE))
    labels = sitk.GetImageFromArray(labels_of(ct, mask))
    labels.CopyInformation(ct)
    back = sitk.GetArrayFromImage(sitk.DICOMOrient(labels, "LPS"))
    assert np.array_equal(back, plain)


def test_other_cases_before_it(plain: np.ndarray) -> None:
    """Nothing is left in the process from a case to the next."""
    other = image_of(phantom().hu[PIECE][::-1])
    labels_of(other, sitk.Cast(image_of(phantom().sides[PIECE][::-1] > 0), sitk.sitkUInt8))
    assert np.array_equal(labels_of(*scan(PIECE)), plain)


# --- the whole chest -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    with threads(1):
        return labels_of(*scan(WHOLE))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_threads(whole: np.ndarray, count: int, tmp_path: Path) -> None:
    """By the environment, as a user sets them: OpenMP's, and with them torch's, numpy's and ITK's."""
    for name, image in zip(("ct", "mask"), scan(WHOLE), strict=True):
        save(image, tmp_path / f"{name}.nrrd")
    words = [
        "segment",
        "ct.nrrd",
        "--lungs",
        "mask.nrrd",
        "-o",
        "r.nrrd",
        "--quality",
        "fast",
        "--device",
        "cpu",
    ]
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    environment = {**os.environ, **dict.fromkeys(names, str(count)), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "DiffSegLungLib", *words, "--progress", "none"]
    subprocess.run(command, check=True, cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL)
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "r.nrrd")))
    assert agreement(labels, whole) >= LEAST_SAME


@pytest.mark.slow
@pytest.mark.parametrize("windows", [1, 2, 4])
def test_windows_a_pass_in_the_whole_chest(
    whole: np.ndarray, windows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with batches_of(windows, monkeypatch):
        assert agreement(labels_of(*scan(WHOLE)), whole) >= LEAST_SAME


@pytest.mark.slow
def test_order_of_windows_in_the_whole_chest(whole: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    with windows_backwards(monkeypatch):
        assert agreement(labels_of(*scan(WHOLE)), whole) >= LEAST_SAME


@pytest.mark.slow
@pytest.mark.parametrize("stored", [as_ras, as_sagittal])
def test_order_of_axes_in_the_whole_chest(
    whole: np.ndarray, stored: Callable[[sitk.Image], sitk.Image]
) -> None:
    """The lungs are found, too, in whatever order the voxels come."""
    results = []
    for ct in (scan(WHOLE)[0], stored(scan(WHOLE)[0])):
        result = segment(ct, device="cpu", quality="fast")
        results.append(sitk.GetArrayFromImage(sitk.DICOMOrient(result.labels, "LPS")))
    first, second = results
    assert np.array_equal(first, second)


# --- devices ---------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("device", "there"),
    [("cuda", torch.cuda.is_available()), ("mps", torch.backends.mps.is_available())],
)
def test_graphics_card_and_processor_agree(device: str, there: bool) -> None:
    """A graphics card computes in bfloat16 (CUDA) or in another order: nearly every voxel, not all."""
    if not there:
        pytest.skip(f"torch finds no {device} device on this computer")
    ours, theirs = (labels_of(*scan(WHOLE), device=each, quality="standard") for each in (device, "cpu"))
    assert agreement(ours, theirs) >= LEAST_SAME_DEVICE
