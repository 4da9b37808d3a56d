"""A CT goes in and comes out voxel by voxel, and what is no CT is turned away with a sentence."""

from __future__ import annotations

import gzip
import itertools
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from scipy.ndimage import gaussian_filter
from scipy.spatial.transform import Rotation

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.acquisition import names_contrast
from DiffSegLungLib.io.image_files import quiet
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.volume import Volume, canonical_image, edge_warnings, load_volume, to_input_geometry
from Testing.unit.dicom_series import SPACING, frames_of, write_enhanced, write_series

ROOT = Path(__file__).parents[2]

AXIS_ORDERS = list(itertools.permutations(range(3)))
FLIPS = list(itertools.product((1, -1), repeat=3))


def chest(shape: tuple[int, int, int] = (24, 20, 22)) -> np.ndarray:
    """A soft-tissue block with a lung in it, in air; every voxel noisy, so that a misplaced one shows."""
    hu = np.full(shape, -1000.0)
    hu[:, 3:-3, 3:-3] = 40.0
    hu[:, 6:-6, 6:-6] = -850.0
    hu += np.random.default_rng(7).integers(-40, 40, shape)
    return hu.astype(np.float32)


def ct_image(hu: np.ndarray | None = None, direction: np.ndarray | None = None) -> sitk.Image:
    image = sitk.GetImageFromArray((chest() if hu is None else hu).astype(np.int16))
    image.SetSpacing(SPACING[::-1])
    image.SetOrigin((-100.5, -120.25, -300.125))
    if direction is not None:
        image.SetDirection(np.asarray(direction, dtype=float).ravel().tolist())
    return image


def signed_axes(order: Sequence[int], signs: Sequence[int]) -> np.ndarray:
    direction = np.zeros((3, 3))
    direction[list(order), range(3)] = signs
    return direction


def assert_same_grid(first: sitk.Image, second: sitk.Image, tolerance: float = 0.0) -> None:
    assert first.GetSize() == second.GetSize()
    np.testing.assert_allclose(first.GetSpacing(), second.GetSpacing(), rtol=0, atol=tolerance)
    np.testing.assert_allclose(first.GetOrigin(), second.GetOrigin(), rtol=0, atol=100 * tolerance)
    np.testing.assert_allclose(first.GetDirection(), second.GetDirection(), rtol=0, atol=tolerance)


def assert_points_agree(image: sitk.Image, volume: Volume) -> None:
    """The same place in the patient has the same value in the input and in the canonical array."""
    for index in ((0, 0, 0), (3, 5, 2), tuple(n - 1 for n in image.GetSize())):
        point = image.TransformIndexToPhysicalPoint(index)
        x, y, z = volume.image.TransformPhysicalPointToIndex(point)
        assert volume.hu[z, y, x] == image[index]


# --- geometry -------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", AXIS_ORDERS, ids=str)
@pytest.mark.parametrize("signs", FLIPS, ids=str)
def test_all_48_axis_orders_survive(order: tuple[int, ...], signs: tuple[int, ...]) -> None:
    image = ct_image(direction=signed_axes(order, signs))
    volume = load_volume(image)

    assert np.allclose(np.reshape(volume.image.GetDirection(), (3, 3)), np.eye(3))
    assert volume.spacing == tuple(SPACING[::-1][order.index(axis)] for axis in (2, 1, 0))
    assert_points_agree(image, volume)
    back = to_input_geometry(volume.hu, volume)
    assert_same_grid(back, image)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("seed", range(12))
def test_any_oblique_direction_comes_back_exactly(seed: int) -> None:
    direction = Rotation.random(random_state=seed).as_matrix()
    direction[:, seed % 3] *= (-1) ** seed
    image = ct_image(direction=direction)
    volume = load_volume(image)

    canonical = np.reshape(volume.image.GetDirection(), (3, 3))
    assert (np.abs(canonical - np.eye(3)) < 1.2).all() and (np.diag(canonical) > 0).all()
    assert_points_agree(image, volume)
    back = to_input_geometry(volume.hu, volume)
    assert_same_grid(back, image)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))


@pytest.mark.parametrize("ending", [".nrrd", ".nhdr", ".mha", ".mhd", ".nii", ".nii.gz"])
@pytest.mark.parametrize("turn", [0.0, 17.0], ids=["straight", "oblique"])
def test_files_round_trip(tmp_path: Path, ending: str, turn: float) -> None:
    axes = signed_axes((1, 2, 0), (-1, 1, -1))
    rotation = Rotation.from_euler("xyz", [turn, turn / 2, turn / 5], degrees=True).as_matrix()
    image = ct_image(direction=rotation @ axes)
    path = tmp_path / f"scan 1{ending}"
    sitk.WriteImage(image, path)

    volume = load_volume(path)
    labels = volume.hu < -700
    sitk.WriteImage(to_input_geometry(labels, volume), tmp_path / f"labels{ending}")
    written = sitk.ReadImage(tmp_path / f"labels{ending}")

    assert volume.name == "CT", "a file's name may be a patient's"
    assert_same_grid(written, sitk.ReadImage(path), tolerance=1e-6 if "nii" in ending else 1e-12)
    assert np.array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(image) < -700)
    assert np.array_equal(load_mask(tmp_path / f"labels{ending}", volume), labels)


def test_sheared_axes_are_kept_and_the_voxel_volume_knows() -> None:
    shear = np.eye(3)
    shear[:, 2] = (0.0, np.sin(0.3), np.cos(0.3))
    volume = load_volume(ct_image(direction=shear))
    assert_same_grid(to_input_geometry(volume.hu, volume), ct_image(direction=shear))
    assert volume.voxel_ml == pytest.approx(np.prod(SPACING) * np.cos(0.3) / 1000)


def test_array_facts_and_input_left_alone() -> None:
    image = ct_image()
    volume = load_volume(image)
    assert volume.hu.dtype == np.float32 and volume.hu.flags.writeable and volume.hu.flags.c_contiguous
    assert volume.voxel_ml == pytest.approx(0.0007)
    assert volume.name == "CT" and volume.warnings == ()
    volume.hu[:] = 0
    assert sitk.GetArrayViewFromImage(image).min() < -900
    with pytest.raises(ValueError, match="shape"):
        to_input_geometry(volume.hu[1:], volume)


def test_canonical_image_lies_where_the_ct_lies() -> None:
    image = ct_image(direction=signed_axes((2, 0, 1), (1, -1, -1)))
    volume = load_volume(image)
    canonical = canonical_image(volume.hu, volume)
    resampled = sitk.Resample(canonical, image, sitk.Transform(), sitk.sitkNearestNeighbor)
    assert np.array_equal(sitk.GetArrayFromImage(resampled), sitk.GetArrayFromImage(image))


def test_volume_travels_to_another_process() -> None:
    volume = load_volume(ct_image(direction=signed_axes((1, 0, 2), (1, 1, -1))))
    twin = pickle.loads(pickle.dumps(volume))
    assert np.array_equal(twin.hu, volume.hu)
    assert_same_grid(to_input_geometry(twin.hu, twin), to_input_geometry(volume.hu, volume))


# --- values ---------------------------------------------------------------------------------------


def test_padding_becomes_air_and_metal_is_cut() -> None:
    hu = chest()
    hu[:, 0], hu[:, 1], hu[:, -1], hu[5, 5, 5], hu[6, 6, 6] = -2000, -3024, -1100, 9000, -1099
    loaded = load_volume(ct_image(hu)).hu
    assert (loaded[:, [0, 1, -1]] == -1024).all()
    assert loaded[5, 5, 5] == 3071 and loaded[6, 6, 6] == -1099
    assert np.array_equal(loaded[:, 2:-1][hu[:, 2:-1] < 3000], hu[:, 2:-1][hu[:, 2:-1] < 3000])


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
def test_few_broken_values_become_air_with_a_warning(broken: float) -> None:
    hu = chest()
    hu[4, 4, 4:7] = broken
    image = sitk.GetImageFromArray(hu)
    image.CopyInformation(ct_image())
    volume = load_volume(image)
    assert (volume.hu[4, 4, 4:7] == -1024).all()
    assert volume.warnings == ("3 voxels were not numbers (NaN or infinite) and were read as air.",)


def test_float64_and_a_fourth_dimension_of_one_are_read(tmp_path: Path) -> None:
    image = sitk.Cast(ct_image(), sitk.sitkFloat64)
    sitk.WriteImage(sitk.JoinSeries([image]), tmp_path / "one.nii.gz")
    volume = load_volume(tmp_path / "one.nii.gz")
    assert np.array_equal(volume.hu, chest()) and volume.hu.dtype == np.float32


def test_thick_slices_are_said() -> None:
    image = ct_image()
    image.SetSpacing((0.7, 0.7, 2.5))
    assert load_volume(image).warnings == ("Slices lie 2.5 mm apart; fine patterns need 1.5 mm or less.",)


def with_spacing(*spacing: float) -> sitk.Image:
    image = ct_image()
    image.SetSpacing(spacing)
    return image


def not_finite() -> sitk.Image:
    hu = chest()
    hu[:2] = np.nan
    return sitk.GetImageFromArray(hu)


def padded_without_intercept() -> sitk.Image:
    hu = chest() + 1064
    hu[:, :2] = -2000
    return ct_image(hu)


UNUSABLE: dict[str, tuple[Callable[[], sitk.Image], str]] = {
    "8 bit": (lambda: sitk.Cast(ct_image() + 1040, sitk.sitkUInt8), "8-bit grey values"),
    "colour": (lambda: sitk.Compose(ct_image(), ct_image(), ct_image()), "several values per voxel"),
    "4D": (lambda: sitk.JoinSeries([ct_image(), ct_image()]), "4 dimensions"),
    "2D": (lambda: ct_image()[:, :, 3], "single 2D picture"),
    "7 slices": (lambda: ct_image(chest((7, 20, 22))), "has 7 slices, 8 are needed"),
    "1 slice": (lambda: ct_image(chest((1, 20, 22))), "has 1 slice, 8 are needed"),
    "MR": (lambda: ct_image(np.abs(chest() + 900) / 3), "no negative values .*MR perhaps"),
    "no air": (lambda: ct_image(np.maximum(chest(), -100)), "no air near -1000 HU"),
    "no intercept": (lambda: ct_image(chest() + 1064), "seem to lack the rescale intercept of -1024"),
    "no intercept, padded": (padded_without_intercept, "seem to lack the rescale intercept of -1024"),
    "thousands": (lambda: sitk.GetImageFromArray(chest() / 1000), "are not Hounsfield units"),
    "constant": (lambda: ct_image(np.full((10, 10, 10), -1000)), "are not Hounsfield units"),
    "NaN": (not_finite, "8% of the voxels are not numbers"),
    "all NaN": (lambda: sitk.GetImageFromArray(np.full((9, 9, 9), np.nan)), "100% of the voxels are"),
    "large spacing": (lambda: with_spacing(0.7, 0.7, 12), "0.7 x 0.7 x 12 mm lies beyond 0.1 to 10 mm"),
    "small spacing": (lambda: with_spacing(0.01, 0.7, 1), "voxel size 0.01 x 0.7 x 1 mm"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_an_image_in_memory_that_is_no_ct_is_refused(kind: str) -> None:
    """The same in files, and much more, is in Testing/robustness."""
    make, sentence = UNUSABLE[kind]
    with pytest.raises(UnusableInputError, match=sentence) as refusal:
        load_volume(make())
    assert "\n" not in str(refusal.value) and "; " in str(refusal.value)


# --- files that cannot be read --------------------------------------------------------------------


def test_gzip_of_several_members_is_complete(tmp_path: Path) -> None:
    sitk.WriteImage(ct_image(), tmp_path / "ct.nii")
    content = (tmp_path / "ct.nii").read_bytes()
    half = len(content) // 2
    (tmp_path / "ct.nii.gz").write_bytes(gzip.compress(content[:half]) + gzip.compress(content[half:]))
    assert np.array_equal(load_volume(tmp_path / "ct.nii.gz").hu, chest())


# --- masks ----------------------------------------------------------------------------------------


def test_mask_on_another_grid_is_brought_over() -> None:
    image = ct_image(direction=signed_axes((1, 0, 2), (-1, 1, 1)))
    volume = load_volume(image)
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[4:12, 5:15, 6:16], labels[12:20, 5:15, 6:16] = 1, 3
    cropped = canonical_image(labels, volume)[5:18, 3:17, 2:22]
    turned = sitk.DICOMOrient(cropped, "RAS")
    found = load_mask(turned, volume)
    assert found.dtype == np.uint8 and np.array_equal(found, labels)


def test_mask_with_large_labels_or_whole_floats(tmp_path: Path) -> None:
    volume = load_volume(ct_image())
    labels = (volume.hu < -500) * 300
    sitk.WriteImage(to_input_geometry(labels.astype(np.float32), volume), tmp_path / "lobes.nrrd")
    found = load_mask(tmp_path / "lobes.nrrd", volume)
    assert found.dtype == np.uint16 and np.array_equal(found, labels)


def test_layers_of_a_segmentation_file_are_merged(tmp_path: Path) -> None:
    volume = load_volume(ct_image())
    layers = np.zeros((*volume.hu.shape, 2), np.uint8)
    layers[3:9, ..., 0], layers[6:14, ..., 1] = 1, 2
    image = ct_image()
    for name, stack in (("fine", layers), ("shared", np.minimum(layers, 1))):
        vectors = sitk.GetImageFromArray(stack, isVector=True)
        vectors.CopyInformation(image)
        sitk.WriteImage(vectors, tmp_path / f"{name}.seg.nrrd")
    found = load_mask(tmp_path / "fine.seg.nrrd", volume)
    assert (found[3:9] == 1).all() and (found[9:14] == 2).all() and not found[14:].any()
    with pytest.raises(UnusableInputError, match="share label values"):
        load_mask(tmp_path / "shared.seg.nrrd", volume)


def elsewhere() -> sitk.Image:
    mask = ct_image() < -500
    mask.SetOrigin((5000, 5000, 5000))
    return mask


@pytest.mark.parametrize(
    ("mask", "sentence"),
    [
        (lambda: ct_image() > 5000, "is empty"),
        (elsewhere, "does not overlap"),
        (lambda: sitk.Cast(ct_image() < -500, sitk.sitkFloat32) * 0.5, "are no labels"),
        (ct_image, "are no labels"),
        (lambda: (ct_image() < -500)[:, :, 4], "2 dimensions"),
    ],
    ids=["empty", "elsewhere", "fractions", "a CT", "2D"],
)
def test_unusable_masks(mask: Callable[[], sitk.Image], sentence: str) -> None:
    with pytest.raises(UnusableInputError, match=sentence):
        load_mask(mask(), load_volume(ct_image()))


def test_missing_mask(tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match="no such file"):
        load_mask(tmp_path / "lungs.nrrd", load_volume(ct_image()))


def test_lungs_on_the_edge_are_said() -> None:
    lungs = np.zeros((40, 60, 60), bool)
    lungs[4:, 10:50, 10:50] = True
    assert edge_warnings(lungs[:38], (1, 1, 1)) == [
        "The lungs reach the upper edge of the scan; what lies beyond is not measured."
    ]
    cut_twice = edge_warnings(lungs[:, :, 10:], (1, 1, 1))
    assert cut_twice[0].startswith("The lungs reach the upper and right edge")
    assert edge_warnings(np.pad(lungs, 1), (1, 1, 1)) == []


# --- DICOM ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("rescale", [(1, -1024), (1, 0), (0.5, -1000.5)], ids=str)
def test_dicom_series(tmp_path: Path, rescale: tuple[float, float]) -> None:
    write_series(tmp_path / "Grün^Änne", chest(), rescale=rescale, KVP=120, ConvolutionKernel=["Br40d", "3"])
    volume = load_volume(tmp_path / "Grün^Änne")
    np.testing.assert_allclose(volume.hu, chest(), atol=0.26 if rescale[0] < 1 else 0)
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.name == "CT series 4" and volume.warnings == ()
    assert volume.metadata["kernel"] == "Br40d" and float(volume.metadata["tube_voltage_kvp"]) == 120
    assert volume.metadata["contrast"] == "no"
    assert volume.input_geometry.origin == (-100, -120, -300)


def test_dicom_patient_stays_unknown_and_text_can_be_written(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", chest())
    volume = load_volume(tmp_path / "ct")
    told = " ".join([volume.name, *volume.metadata.values(), *volume.warnings])
    assert not any(secret in told for secret in ("nne", "4711", "1950", "Thorax"))
    assert told.encode("utf-8")


@pytest.mark.parametrize(
    "orientation",
    [(-1, 0, 0, 0, -1, 0), (1, 0, 0, 0, -1, 0), (0.9553365, 0.2955202, 0, -0.2955202, 0.9553365, 0)],
    ids=["prone", "feet first", "oblique"],
)
def test_dicom_orientations(tmp_path: Path, orientation: tuple[float, ...]) -> None:
    write_series(tmp_path / "ct", chest(), orientation=orientation)
    volume = load_volume(tmp_path / "ct")
    dataset = next(d for p in (tmp_path / "ct").iterdir() if (d := pydicom.dcmread(p)).InstanceNumber == 4)
    row, column = 5, 9
    point = (
        np.array(dataset.ImagePositionPatient, float)
        + column * SPACING[2] * np.array(orientation[:3])
        + row * SPACING[1] * np.array(orientation[3:])
    )
    x, y, z = volume.image.TransformPhysicalPointToIndex(point.tolist())
    assert volume.hu[z, y, x] == chest()[3, row, column]
    assert np.array_equal(np.sort(volume.hu, axis=None), np.sort(chest(), axis=None))


def test_dicom_gantry_tilt_is_said_and_honoured(tmp_path: Path) -> None:
    # Row and column directions stay in the tilted plane, the table moves along z.
    tilt = np.radians(12)
    orientation = (1, 0, 0, 0, np.cos(tilt), np.sin(tilt))
    write_series(tmp_path / "ct", chest(), orientation=orientation, step=(0, 0, 1.25))
    volume = load_volume(tmp_path / "ct")
    assert volume.warnings[0].startswith("The gantry was tilted by 12.0 degrees")
    assert np.array_equal(volume.hu, chest())
    assert volume.image.TransformIndexToPhysicalPoint((0, 0, 20)) == pytest.approx((-100, -120, -275))
    assert volume.voxel_ml == pytest.approx(np.prod(SPACING) * np.cos(tilt) / 1000)


def test_dicom_contrast_sharp_kernel_and_thick_slices_are_said(tmp_path: Path) -> None:
    tags: dict[str, Any] = {"ConvolutionKernel": "B70f", "ContrastBolusAgent": "Iohexol", "SliceThickness": 3}
    write_series(tmp_path / "ct", chest(), **tags)
    contrast_said = load_volume(tmp_path / "ct")
    assert contrast_said.metadata["contrast"] == "yes"
    assert [sentence.split(";")[0] for sentence in contrast_said.warnings] == [
        "Slices are 3 mm thick",
        "Contrast medium was given",
        "The kernel B70f is sharp",
    ]


@pytest.mark.parametrize(
    "agent",
    ["WITHOUT", "Without contrast", "w/o", "W/O IV CONTRAST", "0", "0 ml", "NO", "No contrast", "NONE",
     "none given", "N/A", "sin contraste", "NON-CONTRAST", "non enhanced", "Native", "nativ",
     "UNENHANCED", "Not given", "-", ""],
)  # fmt: skip
def test_words_for_no_contrast(agent: str) -> None:
    assert not names_contrast(agent)


@pytest.mark.parametrize(
    "agent",
    ["Iohexol", "NONIONIC", "APPLIED", "IV", "Contrast", "NO ORAL, OMNIPAQUE IV", "Niopam 300", "80 ml",
     "Optiray 300", "Noxyl", "with"],
)  # fmt: skip
def test_words_for_contrast(agent: str) -> None:
    assert names_contrast(agent)


def test_a_ct_without_contrast_says_so(tmp_path: Path) -> None:
    write_series(tmp_path / "ct", chest((8, 20, 22)), ContrastBolusAgent="WITHOUT")
    native = load_volume(tmp_path / "ct")
    assert native.metadata["contrast"] == "no"
    assert not [sentence for sentence in native.warnings if "Contrast" in sentence]


def test_others_are_heard_while_a_file_is_read(capfd: pytest.CaptureFixture[str]) -> None:
    """Another thread writes on standard error, as a program that uses the library may."""
    with quiet():
        writing = threading.Thread(target=os.write, args=(2, b"another thread"))
        writing.start()
        writing.join()
    assert capfd.readouterr().err == "another thread"


def test_itk_speaks_again_after_the_last_reader() -> None:
    inner, ends = threading.Event(), threading.Event()

    def read() -> None:
        with quiet():
            inner.set()
            ends.wait(60)

    with ThreadPoolExecutor(1) as pool:
        with quiet():
            reading = pool.submit(read)
            assert inner.wait(60), "two may read at a time"
        assert not sitk.ProcessObject.GetGlobalWarningDisplay(), "the other one still reads"
        ends.set()
        reading.result()
    assert sitk.ProcessObject.GetGlobalWarningDisplay()


ALONE = """
import logging, os, sys, threading
from DiffSegLungLib.io.files import ours_alone
from DiffSegLungLib.io.image_files import quiet
def speak():
    print("python", file=sys.stderr)
    made.append(logging.StreamHandler())
made = []
with ours_alone(), quiet():
    os.write(2, b"a reader below ITK")
    speaking = threading.Thread(target=speak)
    speaking.start()
    speaking.join()
made[0].stream.write("later\\n")
os.write(2, b"after")
"""


def test_a_command_line_puts_aside_only_what_readers_write() -> None:
    done = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr.splitlines()) == (0, ["python", "later", "after"])


@pytest.mark.parametrize("kernel", ["LUNG", "BONEPLUS", "B60f", "Br59d", "Bl57d", "I70f", "YC", "L", "FC51"])
def test_sharp_kernels(tmp_path: Path, kernel: str) -> None:
    write_series(tmp_path / "ct", chest((8, 20, 22)), ConvolutionKernel=kernel)
    assert any(kernel in sentence for sentence in load_volume(tmp_path / "ct").warnings)


@pytest.mark.parametrize("kernel", ["STANDARD", "SOFT", "B31f", "Br40d", "Qr40", "I30f", "B", "C", "FC08"])
def test_soft_kernels(tmp_path: Path, kernel: str) -> None:
    write_series(tmp_path / "ct", chest((8, 20, 22)), ConvolutionKernel=kernel)
    assert load_volume(tmp_path / "ct").warnings == ()


def test_dicom_missing_slices(tmp_path: Path) -> None:
    write_series(tmp_path / "one", chest(), skip=[9])
    volume = load_volume(tmp_path / "one")
    assert volume.hu.shape[0] == 23
    assert volume.warnings[0].startswith("1 or more slices are missing; positions may be off by up to 0.")
    write_series(tmp_path / "many", chest(), skip=[5, 6, 11])
    with pytest.raises(UnusableInputError, match="3 or more slices are missing.*export all slices"):
        load_volume(tmp_path / "many")


def test_dicom_series_is_chosen_and_scouts_are_skipped(tmp_path: Path) -> None:
    scout = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    write_series(tmp_path / "scout", chest((30, 40, 40)), number=1, ImageType=scout)
    write_series(tmp_path / "thin", chest(), number=3)
    write_series(tmp_path / "deep" / "thick", chest()[::2], number=2, step=(0, 0, 2.5))
    write_series(tmp_path / "coronal", chest((30, 20, 20)), number=9, orientation=(1, 0, 0, 0, 0, -1))
    volume = load_volume(tmp_path)
    assert np.array_equal(volume.hu, chest())
    assert volume.warnings == (
        "The folder holds 2 axial CT series; series number 3 was taken, the one with most slices (24); "
        "not taken: 2 (12 slices).",
    )


def test_dicom_scout_within_the_series_and_a_copied_slice(tmp_path: Path) -> None:
    write_series(tmp_path, chest(), series="1.2.3")
    write_series(tmp_path, chest((1, 9, 9)), series="1.2.3", number=5, orientation=(1, 0, 0, 0, 0, -1))
    (tmp_path / "copy").write_bytes((tmp_path / "007_4").read_bytes())
    volume = load_volume(tmp_path)
    assert np.array_equal(volume.hu, chest()) and volume.warnings == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"Modality": "MR"}, "no axial CT series .*modality MR"),
        ({"ImageType": ["DERIVED", "SECONDARY", "LOCALIZER"]}, "no axial CT series"),
        ({"orientation": (1, 0, 0, 0, 0, -1)}, "no axial CT series"),
        ({"step": (0, 0, 0)}, "several images lie at one position"),
        ({"skip": range(7, 24)}, "has 7 slices, 8 are needed"),
        ({"step": (0, 0, 12)}, "12 mm lies beyond"),
    ],
    ids=["MR", "scout", "coronal", "one position", "few", "far apart"],
)
def test_dicom_refusals(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    write_series(tmp_path / "ct", chest(), **changes)
    with pytest.raises(UnusableInputError, match=sentence):
        load_volume(tmp_path / "ct")


def test_dicom_two_phases_in_one_series(tmp_path: Path) -> None:
    write_series(tmp_path / "a", chest(), series="1.2.3")
    write_series(tmp_path / "b", chest() + 1, series="1.2.3")
    with pytest.raises(UnusableInputError, match="one time point only"):
        load_volume(tmp_path)


def test_dicom_damaged_slice_is_left_out_and_said(tmp_path: Path) -> None:
    write_series(tmp_path, chest())
    path = tmp_path / "007_4"
    path.write_bytes(path.read_bytes()[:-200])
    volume = load_volume(tmp_path)
    assert len(volume.hu) == 23
    assert volume.warnings[0] == "DICOM files without a readable image, left out: 1."
    assert "1 or more slices are missing" in volume.warnings[1]


def test_dicom_of_two_kernels_the_soft_one_is_taken(tmp_path: Path) -> None:
    for number, kernel in ((2, "B70f"), (3, "B31f"), (4, "B60f")):
        hu = chest() + (number == 3)
        write_series(tmp_path / str(number), hu, number=number, ConvolutionKernel=kernel)
    volume = load_volume(tmp_path)
    assert np.array_equal(volume.hu, chest() + 1)
    assert "not taken: 2 (24 slices, B70f), 4 (24 slices, B60f)" in volume.warnings[0]


def test_dicom_of_two_studies_is_refused_unless_one_is_a_scout(tmp_path: Path) -> None:
    write_series(tmp_path / "a", chest(), StudyInstanceUID="1.2.3")
    write_series(tmp_path / "b", chest((3, 20, 22)), number=1, StudyInstanceUID="1.2.4")
    assert len(load_volume(tmp_path).hu) == 24
    write_series(tmp_path / "c", chest(), StudyInstanceUID="1.2.5")
    with pytest.raises(UnusableInputError, match="CT of 2 studies lie in this folder"):
        load_volume(tmp_path)


def test_dicom_of_mixed_spacing_within_a_series(tmp_path: Path) -> None:
    """A series whose lower half was reconstructed in thicker steps cannot be one grid."""
    write_series(tmp_path, chest(), series="1.2.3")
    for path in tmp_path.iterdir():
        image = pydicom.dcmread(path)
        if image.InstanceNumber > 12:
            image.ImagePositionPatient[2] += (image.InstanceNumber - 12) * 2.5
            image.save_as(path)
    with pytest.raises(UnusableInputError, match="two distances, 1.25 and 3.75 mm, none is missing"):
        load_volume(tmp_path)


def test_dicom_of_mixed_pixel_spacing_within_a_series(tmp_path: Path) -> None:
    """Two zooms under one series number are two grids; the larger one is read."""
    write_series(tmp_path / "a", chest(), series="1.2.3")
    write_series(tmp_path / "b", chest()[:10], series="1.2.3", number=5, PixelSpacing=[0.4, 0.4])
    volume = load_volume(tmp_path)
    assert len(volume.hu) == 24 and volume.spacing == pytest.approx(SPACING)


@pytest.mark.parametrize(
    "syntax",
    ["RLELossless", "JPEGLSLossless", "JPEG2000Lossless", "JPEGLossless", "DeflatedExplicitVRLittleEndian",
     "ExplicitVRBigEndian", "ImplicitVRLittleEndian"],
)  # fmt: skip
def test_dicom_transfer_syntaxes(tmp_path: Path, syntax: str) -> None:
    """What archives send, compressed here by pydicom and its plugins or by GDCM."""
    write_series(tmp_path / "plain", chest())
    (tmp_path / "ct").mkdir()
    for path in (tmp_path / "plain").iterdir():
        write_in_syntax(path, tmp_path / "ct" / path.name, syntax)
    for path in (tmp_path / "ct").iterdir():
        assert pydicom.dcmread(path).file_meta.TransferSyntaxUID.keyword in (syntax, f"{syntax}SV1")
    assert np.array_equal(load_volume(tmp_path / "ct").hu, chest())


def write_in_syntax(source: Path, target: Path, syntax: str) -> None:
    image = pydicom.dcmread(source)
    if syntax in ("JPEG2000Lossless", "JPEGLossless"):
        write_with_gdcm(source, target, syntax.removesuffix("Lossless"))
        return
    if syntax in ("RLELossless", "JPEGLSLossless"):
        compress(image, syntax)
        image.save_as(target, enforce_file_format=True)
        return
    if syntax == "ExplicitVRBigEndian":
        image.PixelData = image.pixel_array.astype(">i2").tobytes()
    image.file_meta.TransferSyntaxUID = getattr(pydicom.uid, syntax)
    pydicom.filewriter.dcmwrite(target, image, enforce_file_format=True, **encoding(syntax))


def write_with_gdcm(source: Path, target: Path, compressor: str) -> None:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(source))
    reader.SetOutputPixelType(sitk.sitkInt16)
    writer = sitk.ImageFileWriter()
    writer.SetImageIO("GDCMImageIO")
    writer.KeepOriginalImageUIDOn()
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    writer.SetFileName(str(target.with_suffix(".dcm")))
    writer.Execute(reader.Execute())


def encoding(syntax: str) -> dict[str, bool]:
    return {"implicit_vr": syntax.startswith("Implicit"), "little_endian": not syntax.endswith("BigEndian")}


def compress(image: pydicom.Dataset, syntax: str) -> None:
    """Compress in place, by pydicom's own or its plugin's encoder."""
    try:
        image.compress(getattr(pydicom.uid, syntax))
    except (RuntimeError, NotImplementedError, ValueError) as error:
        pytest.skip(f"no encoder for {syntax} is installed: {error}")


def test_one_dicom_slice_asks_for_the_folder(tmp_path: Path) -> None:
    write_series(tmp_path, chest())
    with pytest.raises(UnusableInputError, match="for DICOM its folder"):
        load_volume(tmp_path / "000_4")


@pytest.mark.parametrize("by_folder", [False, True], ids=["file", "folder"])
def test_enhanced_multi_frame_dicom(tmp_path: Path, by_folder: bool) -> None:
    write_enhanced(tmp_path / "enhanced.dcm", frames_of(chest()))
    volume = load_volume(tmp_path if by_folder else tmp_path / "enhanced.dcm")
    assert np.array_equal(volume.hu, chest())
    assert volume.spacing == pytest.approx(SPACING)
    assert volume.input_geometry.origin == pytest.approx((-100, -120, -300))
    assert volume.name == ("CT series 8" if by_folder else "CT")


# --- resampling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [(0.5, 0.5, 0.5), (1.5, 1.5, 1.5), (3, 2, 4)], ids=str)
@pytest.mark.parametrize("kind", [np.float32, np.uint8, bool])
def test_constant_stays_constant(new: tuple[float, ...], kind: type) -> None:
    for interpolation in ("linear", "nearest"):
        found = resample(np.full((15, 20, 25), 1, kind), SPACING, new, interpolation)
        assert found.dtype == kind and np.allclose(found, 1, atol=1e-6)


@pytest.mark.parametrize("new", [(0.5, 0.5, 0.5), (1.0, 1.0, 1.0), (2.5, 1.5, 3.0)], ids=str)
@pytest.mark.parametrize("axis", range(3))
def test_ramp_keeps_its_place_from_the_first_corner(new: tuple[float, ...], axis: int) -> None:
    centres = (np.arange(40) + 0.5) * SPACING[axis]
    ramp = np.broadcast_to(np.expand_dims(centres, [a for a in range(3) if a != axis]), (40, 40, 40))
    found = np.moveaxis(resample(ramp.astype(np.float32), SPACING, new), axis, 0)
    wanted = (np.arange(len(found)) + 0.5) * new[axis]
    inside = (wanted > 5) & (wanted < 40 * SPACING[axis] - 5)
    assert inside.any()
    np.testing.assert_allclose(found[inside] - wanted[inside, None, None], 0, atol=2e-3)


def test_round_trip_has_the_first_size_and_the_same_picture() -> None:
    smooth = gaussian_filter(chest((41, 50, 53)), 3)
    work = resample(smooth, SPACING, (1, 1, 1))
    assert work.shape == (51, 35, 42)
    back = resample(work, (1, 1, 1), SPACING, size=smooth.shape)
    assert back.shape == smooth.shape and back.dtype == np.float32
    assert np.abs(back - smooth)[3:-3, 3:-3, 3:-3].max() < 25


def test_nearest_gives_only_labels_that_were_there() -> None:
    labels = np.random.default_rng(1).choice([0, 2, 7], (20, 20, 20)).astype(np.uint8)
    found = resample(labels, (1, 1, 1), (1.7, 0.6, 1.3), "nearest")
    assert set(np.unique(found)) == {0, 2, 7} and found.dtype == np.uint8
    assert np.array_equal(
        resample(labels, (1, 1, 1), (0.5, 0.5, 0.5), "nearest"), labels.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    )


def test_coarser_grid_is_anti_aliased() -> None:
    noise = np.random.default_rng(2).normal(-850, 50, (48, 48, 48)).astype(np.float32)
    coarse = resample(noise, (1, 1, 1), (4, 4, 4))
    aliased = resample(noise, (1, 1, 1), (4, 4, 4), anti_alias=False)
    # White noise is cut by (2 sqrt(pi) sigma)^(-3/2) by a Gaussian, by 1 / sqrt(8) by linear interpolation.
    sigma = np.sqrt(15 / (8 * np.log(2)))
    assert coarse.std() == pytest.approx(50 * (2 * np.sqrt(np.pi) * sigma) ** -1.5, rel=0.25)
    assert aliased.std() == pytest.approx(50 / np.sqrt(8), rel=0.1)
    assert coarse.mean() == pytest.approx(-850, abs=0.5)
    along_z = resample(noise, (1, 1, 1), (4, 1, 1))
    assert along_z.shape == (12, 48, 48) and along_z.std() > 2.5 * coarse.std()


def test_mask_keeps_its_volume() -> None:
    mask = np.zeros((40, 60, 60), bool)
    mask[8:32, 10:50, 14:46] = True
    found = resample(mask, SPACING, (1.5, 1.5, 1.5))
    assert found.dtype == bool
    assert found.sum() * 1.5**3 == pytest.approx(mask.sum() * np.prod(SPACING), rel=0.06)


def test_same_grid_is_a_copy() -> None:
    array = chest()
    found = resample(array, SPACING, SPACING)
    assert np.array_equal(found, array) and not np.shares_memory(found, array)


# --- real CT --------------------------------------------------------------------------------------


def real_data() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("DIFFSEGLUNG_DATA", beside))


@pytest.mark.parametrize("name", ["LIDC-IDRI-0001", "lung2", "normal001"])
def test_real_ct_comes_back_exactly(name: str) -> None:
    path = real_data() / "ct" / f"{name}.nii.gz"
    if not path.exists():
        pytest.skip(f"real CT not found: {path}; set DIFFSEGLUNG_DATA")
    volume = load_volume(path)
    image = sitk.ReadImage(path)
    back = to_input_geometry(volume.hu, volume)
    assert_same_grid(back, image)
    assert np.array_equal(sitk.GetArrayFromImage(back), np.clip(sitk.GetArrayFromImage(image), None, 3071))
    assert -1100 < volume.hu.min() < -990 and volume.name == "CT"
