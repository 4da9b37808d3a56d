"""One scan out of what lies in a folder: frames in any order, split anyhow, sent or acquired twice.

The truth is the chest of ``test_volume``: each voxel has its own noise, so that a misplaced slice shows.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.volume import load_volume
from Testing.unit.dicom_series import (
    SPACING,
    Frame,
    change_headers,
    frames_of,
    write_enhanced,
    write_series,
)
from Testing.unit.test_volume import chest

SLICES = 16
HU = chest((SLICES, 20, 22))
SERIES = "1.2.826.9"
TWO_SCANS = "holds 2 scans of one region"


def read_frames(parts: Sequence[Sequence[Frame]], classic: Sequence[int] = ()) -> Any:
    """The CT of multi-frame files, and of single slices beside them, all in one series."""
    with tempfile.TemporaryDirectory() as place:
        for index, part in enumerate(parts):
            if part:
                write_enhanced(Path(place, f"{index}.dcm"), part, SERIES)
        if classic:
            others = [index for index in range(SLICES) if index not in classic]
            tags: dict[str, Any] = {"StudyInstanceUID": "1.2.826.8", "FrameOfReferenceUID": "1.2.826.8.1"}
            write_series(Path(place, "classic"), HU, series=SERIES, skip=others, number=8, **tags)
        return load_volume(place)


@settings(deadline=None, max_examples=15)
@given(
    order=st.permutations(range(SLICES)),
    slopes=st.lists(st.sampled_from([(1, -1024), (2, -2048), (1, 0)]), min_size=SLICES, max_size=SLICES),
    jitter=st.lists(st.floats(-0.002, 0.002), min_size=SLICES, max_size=SLICES),
)
def test_frames_in_any_order_with_any_rescale_and_jitter(
    order: list[int], slopes: list[tuple[float, float]], jitter: list[float]
) -> None:
    given_frames = [
        replace(frame, rescale=slope, height=frame.height + shift)
        for frame, slope, shift in zip(frames_of(HU), slopes, jitter, strict=True)
    ]
    volume = read_frames([[given_frames[index] for index in order]])
    assert np.abs(volume.hu - HU).max() <= 1
    assert volume.spacing == pytest.approx(SPACING, abs=1e-3) and volume.warnings == ()


@settings(deadline=None, max_examples=15)
@given(where=st.lists(st.sampled_from(["first", "second", "classic"]), min_size=SLICES, max_size=SLICES))
def test_any_split_of_a_series_over_files_is_joined(where: list[str]) -> None:
    frames = frames_of(HU)
    parts = [[frames[i] for i in range(SLICES) if where[i] == part] for part in ("first", "second")]
    volume = read_frames(parts, [i for i in range(SLICES) if where[i] == "classic"])
    assert np.array_equal(volume.hu, HU) and volume.warnings == ()


@settings(deadline=None, max_examples=10)
@given(copied=st.sets(st.integers(0, SLICES - 1), min_size=1))
def test_copies_are_left_out_and_counted(copied: set[int]) -> None:
    frames = frames_of(HU)
    volume = read_frames([frames, [frames[index] for index in copied]])
    assert np.array_equal(volume.hu, HU)
    assert volume.warnings[0].startswith(f"{len(copied)} slices are there twice with the same values")


@pytest.mark.parametrize("by_number", [True, False], ids=["acquisition told", "not told"])
def test_of_two_acquisitions_half_a_step_apart_one_is_read(by_number: bool) -> None:
    moved = np.roll(HU, 3, axis=0)
    second = [replace(frame, height=frame.height + SPACING[0] * 0.4) for frame in frames_of(moved)]
    parts = [frames_of(HU), second]
    if by_number:
        parts = [[replace(f, acquisition=n) for f in part] for n, part in enumerate(parts, start=1)]
    volume = read_frames(parts)
    assert any(np.array_equal(volume.hu, each) for each in (HU, moved))
    assert "The series holds 2 scans of one region" in volume.warnings[0] or "two scans" in volume.warnings[0]


def test_a_scan_in_steps_is_one_scan_whatever_their_numbers() -> None:
    """Each step of four slices has a number of its own; the table moved downwards."""
    numbered = [replace(frame, acquisition=9 - index // 4) for index, frame in enumerate(frames_of(HU))]
    volume = read_frames([numbered])
    assert np.array_equal(volume.hu, HU) and volume.warnings == ()


def test_more_acquisitions_beside_the_scan_are_left_out(tmp_path: Path) -> None:
    write_series(tmp_path / "a", HU, series=SERIES, AcquisitionNumber=2)
    for number, skip in ((3, range(6, SLICES)), (4, range(8))):
        write_series(tmp_path / str(number), HU + 1, series=SERIES, skip=skip, AcquisitionNumber=number)
    volume = load_volume(tmp_path)
    assert np.array_equal(volume.hu, HU) and TWO_SCANS in volume.warnings[0]


@pytest.mark.parametrize("times", [2, 3])
def test_points_in_time_are_refused(times: int) -> None:
    frames = [replace(frame, time=t + 1) for t in range(times) for frame in frames_of(HU + t)]
    with pytest.raises(UnusableInputError, match=f"holds {times} points in time; give one"):
        read_frames([frames])


def test_kernel_and_thickness_of_frames_are_known(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "ct.dcm", frames_of(HU))
    image = pydicom.dcmread(path)
    shared, reconstruction = image.SharedFunctionalGroupsSequence[0], pydicom.Dataset()
    reconstruction.ConvolutionKernel = "B70f"
    shared.CTReconstructionSequence = [reconstruction]
    shared.PixelMeasuresSequence[0].SliceThickness = 5
    image.save_as(path)
    said = load_volume(tmp_path).warnings
    assert any("Slices are 5 mm thick" in each for each in said)
    assert any("kernel B70f is sharp" in each for each in said)


def test_a_missing_frame_is_said() -> None:
    frames = frames_of(chest())
    volume = read_frames([frames[:7] + frames[8:]])
    assert len(volume.hu) == len(frames) - 1 and volume.warnings[0].startswith("1 or more slices are missing")


def test_frames_that_lie_nowhere_are_refused(tmp_path: Path) -> None:
    path = write_enhanced(tmp_path / "ct.dcm", frames_of(HU))
    image = pydicom.dcmread(path)
    del image.PerFrameFunctionalGroupsSequence
    image.save_as(path)
    with pytest.raises(UnusableInputError, match="do not say where they lie"):
        load_volume(path)


# --- single slices --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "values",
    [
        {"PixelSpacing": [[0.7000049, 0.8], [0.7, 0.8000051]]},
        {"ImageOrientationPatient": [["1", "0.004999", "0", "-0.004999", "1", "0"],
                                     ["1", "0.005001", "0", "-0.005001", "1", "0"]]},
        {"SpacingBetweenSlices": [0]},
        {"SpacingBetweenSlices": [SPACING[0] / 2]},
        {"SpacingBetweenSlices": [-SPACING[0]]},
        {"FrameOfReferenceUID": [f"1.2.3.{index}" for index in range(SLICES)]},
        {"PhotometricInterpretation": ["MONOCHROME1"]},
        {"AcquisitionNumber": list(range(1, SLICES + 1))},
        {"AcquisitionTime": [f"1200{index:02d}" for index in range(SLICES)]},
    ],
    ids=lambda values: " ".join(values),
)  # fmt: skip
def test_headers_that_differ_a_little_or_lie_are_one_scan(tmp_path: Path, values: dict[str, Any]) -> None:
    write_series(tmp_path, HU)
    volume = load_volume(change_headers(tmp_path, **values))
    assert np.array_equal(volume.hu, HU) and volume.warnings == ()
    assert volume.spacing == pytest.approx((SPACING[0], SPACING[1], SPACING[2]), abs=1e-3)


def test_a_slice_without_pixel_spacing_has_no_size(tmp_path: Path) -> None:
    write_series(tmp_path, HU)
    for path in tmp_path.iterdir():
        image = pydicom.dcmread(path)
        del image.PixelSpacing
        image.save_as(path)
    with pytest.raises(UnusableInputError, match="do not tell the pixel spacing"):
        load_volume(tmp_path)


@pytest.mark.parametrize("kind", ["MIP", "MINIP", "PROJECTION IMAGE", "IODINE"])
def test_the_original_goes_before_projections_and_maps(tmp_path: Path, kind: str) -> None:
    types = ["DERIVED", "SECONDARY", "AXIAL", kind]
    study: dict[str, Any] = {"StudyInstanceUID": "1.2.3"}
    write_series(tmp_path / "map", np.repeat(HU, 2, axis=0), number=9, ImageType=types, **study)
    with pytest.raises(UnusableInputError, match="is a projection or a map, not density; give the original"):
        load_volume(tmp_path)
    write_series(tmp_path / "ct", HU, number=3, **study)
    volume = load_volume(tmp_path)
    assert np.array_equal(volume.hu, HU) and "not taken: 9 (32 slices, derived)" in volume.warnings[0]
    assert "not those of the lung" in load_volume(tmp_path, "9").warnings[0]


def test_patients_under_one_study_are_never_merged(tmp_path: Path) -> None:
    for patient in ("ONE", "TWO"):
        write_series(tmp_path / patient, HU, series=SERIES, StudyInstanceUID="1.2.3", PatientID=patient)
    with pytest.raises(UnusableInputError, match="CT of 2 patients lie under one study"):
        load_volume(tmp_path)


def test_two_frames_of_reference_are_two_scans(tmp_path: Path) -> None:
    write_series(tmp_path / "a", HU, series=SERIES, FrameOfReferenceUID="1.2.3")
    write_series(tmp_path / "b", HU[:10] + 1, series=SERIES, FrameOfReferenceUID="1.2.4")
    volume = load_volume(tmp_path)
    assert np.array_equal(volume.hu, HU) and "not taken: 4 (10 slices)" in volume.warnings[0]


@pytest.mark.parametrize(("lower", "upper"), [(1.0, 1.75), (2.0, 1.25), (1.0, 2.0)])
def test_two_distances_are_named(tmp_path: Path, lower: float, upper: float) -> None:
    write_series(tmp_path, HU)
    for path in tmp_path.iterdir():
        image = pydicom.dcmread(path)
        index = image.InstanceNumber - 1
        image.ImagePositionPatient[2] = lower * min(index, 8) + upper * max(index - 8, 0)
        image.save_as(path)
    small, large = sorted((lower, upper))
    with pytest.raises(UnusableInputError, match=f"two distances, {small:g} and {large:g} mm, none is"):
        load_volume(tmp_path)


def test_slices_with_gaps_say_how_much_was_seen(tmp_path: Path) -> None:
    write_series(tmp_path, HU, step=(0, 0, 10), SliceThickness=1)
    assert load_volume(tmp_path).warnings[0].startswith("Slices of 1 mm lie 10 mm apart: 10% of the lungs")
