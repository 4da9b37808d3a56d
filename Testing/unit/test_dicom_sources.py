"""Headers as archives and de-identifiers leave them: the outputs are made, what is invalid stays empty."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pydicom
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataelem import RawDataElement
from pydicom.tag import BaseTag

from DiffSegLungLib.anatomy import regions_from_sides
from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import IncompleteOutputError, UnusableInputError
from DiffSegLungLib.export.dicom_writers import DicomWriters
from DiffSegLungLib.export.output_checks import require_fitting
from DiffSegLungLib.export.segmentation_file import write_image, write_segmentation
from DiffSegLungLib.io.segmentations import load_lungs, load_regions, load_tissues
from DiffSegLungLib.io.volume import Volume, load_volume, to_input_geometry
from DiffSegLungLib.quantify.measures import measure
from DiffSegLungLib.tissues import EMPHYSEMA, HEALTHY, VESSEL
from Testing.unit.dicom_series import frames_of, write_enhanced, write_series
from Testing.unit.test_dicom_seg import TAGS, hounsfield, labels_of

pytest.importorskip("highdicom", reason="highdicom is optional: pip install highdicom")
from DiffSegLungLib.export.dicom_seg import build_dicom_seg, write_dicom_seg  # noqa: E402
from DiffSegLungLib.export.dicom_sr import build_dicom_sr  # noqa: E402

NUMBERS = {"PatientWeight": "DS", "SeriesNumber": "IS"}
KANJI = "Mokei^Ichi=模型^一"


def with_values(folder: Path, **values: Any) -> Volume:
    """A CT whose headers hold these values, valid or not; None takes a value away."""
    write_series(folder, hounsfield(), **TAGS)
    with pydicom.config.disable_value_validation():
        for path in folder.iterdir():
            image = pydicom.dcmread(path)
            for keyword, value in values.items():
                if value is None:
                    delattr(image, keyword)
                elif keyword in NUMBERS:  # pydicom writes no words there
                    tag = BaseTag(pydicom.datadict.tag_for_keyword(keyword) or 0)
                    image[tag] = RawDataElement(
                        tag, NUMBERS[keyword], len(value), value.encode(), 0, False, True
                    )
                else:
                    setattr(image, keyword, value)
            image.save_as(path)
    return load_volume(folder)


def measures_of(labels: np.ndarray, volume: Volume) -> pandas.DataFrame:
    sides = np.where(labels > 0, np.where(np.arange(labels.shape[2]) < 8, 1, 2), 0)
    return measure(labels, volume.hu, volume.spacing, regions_from_sides(sides), volume.voxel_ml)


@pytest.mark.parametrize(
    ("keyword", "value", "kept"),
    [
        ("PatientBirthDate", "1900-01-01", ""),
        ("PatientBirthDate", "19001345", ""),
        ("StudyDate", "REMOVED", ""),
        ("StudyDate", "20010229", ""),
        ("StudyTime", "99:99", ""),
        ("StudyTime", "12:30:45", ""),
        ("PatientSex", "UNKNOWN", ""),
        ("PatientSex", "female", ""),
        ("PatientSex", "F", "F"),
        ("PatientID", "x" * 70, ""),
        ("StudyTime", "123045.5", "123045.5"),
        ("PatientAge", "45", None),
        ("PatientWeight", "heavy", None),
        ("SeriesNumber", "four", None),
    ],
)
def test_what_is_invalid_is_left_empty(tmp_path: Path, keyword: str, value: str, kept: str | None) -> None:
    volume = with_values(tmp_path / "ct", **{keyword: value})
    labels = labels_of(volume)
    segmentation = build_dicom_seg(labels, volume)
    build_dicom_sr(segmentation, volume, measures_of(labels, volume)).save_as(tmp_path / "sr.dcm")
    segmentation.save_as(tmp_path / "seg.dcm")
    written = pydicom.dcmread(tmp_path / "seg.dcm")
    if kept is not None:
        assert written.get(keyword) == kept
    assert np.array_equal(
        load_tissues(tmp_path / "seg.dcm", volume)[0], np.where(labels == VESSEL, 0, labels)
    )


@pytest.mark.parametrize(
    ("charset", "name"),
    [
        (["", "ISO 2022 IR 87"], KANJI),
        ("ISO_IR 192", "Müller^Ёж=模型"),
        ("ISO_IR 100", "Grün^Änne"),
        (None, "A^B"),
    ],
)
def test_names_are_kept_in_every_character_set(
    tmp_path: Path, charset: list[str] | str | None, name: str
) -> None:
    volume = with_values(tmp_path / "ct", SpecificCharacterSet=charset, PatientName=name, Manufacturer="A")
    write_dicom_seg(tmp_path / "seg.dcm", labels_of(volume), volume)
    assert str(pydicom.dcmread(tmp_path / "seg.dcm").PatientName) == name


@pytest.mark.parametrize("known", [None, "", "REMOVED", "1.2.03"])
def test_without_frame_of_reference_a_new_one_is_the_same_in_each_run(
    tmp_path: Path, known: str | None
) -> None:
    volume = with_values(tmp_path / "ct", FrameOfReferenceUID=known)
    first, second = (build_dicom_seg(labels_of(volume), volume) for _ in range(2))
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.FrameOfReferenceUID not in (known, "") and first.FrameOfReferenceUID.is_valid


@pytest.mark.parametrize("step", [0, 0.5, 9, -1.25])
def test_the_step_comes_from_the_positions(tmp_path: Path, step: float) -> None:
    volume = with_values(tmp_path / "ct", SpacingBetweenSlices=step)
    measures = (
        build_dicom_seg(labels_of(volume), volume).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    )
    assert float(measures[0].SpacingBetweenSlices) == pytest.approx(1.25)


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(10)))
def test_an_enhanced_ct_in_any_order_gets_its_segments_in_place(tmp_path: Path, order: list[int]) -> None:
    frames = frames_of(hounsfield())
    write_enhanced(tmp_path / "ct" / "e.dcm", [frames[index] for index in order])
    volume = load_volume(tmp_path / "ct")
    labels = labels_of(volume)
    segmentation = build_dicom_seg(labels, volume)
    segmentation.save_as(tmp_path / "seg.dcm")
    build_dicom_sr(segmentation, volume, measures_of(labels, volume))
    expected = np.where(labels == VESSEL, 0, labels)
    assert np.array_equal(load_tissues(tmp_path / "seg.dcm", volume)[0], expected)


@pytest.mark.parametrize("present", [[HEALTHY], [EMPHYSEMA], [HEALTHY, EMPHYSEMA]])
def test_each_frame_tells_its_segment_and_the_report_refers_to_it(tmp_path: Path, present: list[int]) -> None:
    volume = with_values(tmp_path / "ct")
    labels = np.where(np.isin(labels_of(volume), present), labels_of(volume), 0).astype(np.uint8)
    segmentation = build_dicom_seg(labels, volume)
    frames = segmentation.PerFrameFunctionalGroupsSequence
    assert all("SegmentIdentificationSequence" in frame for frame in frames)
    assert build_dicom_sr(segmentation, volume, measures_of(labels, volume)).ContentSequence


def test_dcmqi_reads_the_same_volume(tmp_path: Path) -> None:
    pytest.importorskip("dcmqi", reason="dcmqi is not installed")
    volume = with_values(tmp_path / "ct", SpacingBetweenSlices=0.5)
    labels = labels_of(volume)
    write_dicom_seg(tmp_path / "seg.dcm", labels, volume)
    program = Path(sys.executable).with_name("segimage2itkimage")
    command = [program, "--inputDICOM", tmp_path / "seg.dcm", "--outputDirectory", tmp_path]
    subprocess.run([*map(str, command)], check=True, capture_output=True)
    millilitres = 0.0
    for path in tmp_path.glob("*.nrrd"):
        image = sitk.ReadImage(path)
        millilitres += (sitk.GetArrayFromImage(image) > 0).sum() * np.prod(image.GetSpacing()) / 1000
    assert millilitres == pytest.approx(np.isin(labels, (1, 2, 5)).sum() * volume.voxel_ml, rel=1e-3)


# --- read back ------------------------------------------------------------------------------------


def test_our_segmentation_is_read_by_lungs_regions_and_measure(tmp_path: Path) -> None:
    volume = with_values(tmp_path / "ct")
    labels = np.where(labels_of(volume) == VESSEL, 1, labels_of(volume)).astype(np.uint8)
    write_dicom_seg(tmp_path / "seg.dcm", labels, volume)
    lungs, named = load_lungs(tmp_path / "seg.dcm", volume)
    assert np.array_equal(lungs > 0, labels > 0) and not named
    regions = load_regions(tmp_path / "seg.dcm", volume, labels > 0)
    assert set(regions) == {"Healthy lung", "Emphysema", "Consolidation"}
    assert cli.main(["measure", str(tmp_path / "ct"), str(tmp_path / "seg.dcm"), "--lungs",
                     str(tmp_path / "seg.dcm"), "-o", str(tmp_path / "t.csv")]) == 0  # fmt: skip
    table = pandas.read_csv(tmp_path / "t.csv", index_col=0)
    assert table.loc["whole lung", "lung_ml"] == pytest.approx((labels > 0).sum() * volume.voxel_ml)


def test_a_damaged_segmentation_is_said(tmp_path: Path) -> None:
    volume = with_values(tmp_path / "ct")
    write_dicom_seg(tmp_path / "seg.dcm", labels_of(volume), volume)
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    del dataset.PerFrameFunctionalGroupsSequence
    dataset.save_as(tmp_path / "seg.dcm")
    with pytest.raises(UnusableInputError, match=r"seg\.dcm: the DICOM segmentation does not say where"):
        load_lungs(tmp_path / "seg.dcm", volume)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({1: "lung", 2: "lung"}, ""),
        ({1: "lung", 2: "body"}, ""),
        ({10: "lung", 12: "lung", 5: "body"}, "label 5 holds no air, labels 10, 12 hold air"),
        ({3: "lung", 250: "body"}, "label 250 holds no air"),
        ({1: "body"}, ""),
        ({1: "body", 2: "body"}, ""),
    ],
    ids=str,
)
def test_maps_of_several_organs_are_no_lungs(given: dict[int, str], sentence: str) -> None:
    hu = np.full((12, 40, 40), -1000.0, np.float32)
    hu[:, 4:36, 4:36] = 40.0
    hu[2:10, 8:20, 6:18] = hu[2:10, 8:20, 22:34] = -850.0
    places = {"lung": [np.s_[2:10, 8:20, 6:18], np.s_[2:10, 8:20, 22:34]],
              "body": [np.s_[2:10, 22:34, 6:18], np.s_[2:10, 22:34, 22:34]]}  # fmt: skip
    labels = np.zeros(hu.shape, np.uint8)
    for label, kind in given.items():
        labels[places[kind].pop()] = label
    image, mask = sitk.GetImageFromArray(hu.astype(np.int16)), sitk.GetImageFromArray(labels)
    for each in (image, mask):
        each.SetSpacing((4.0, 4.0, 8.0))
    volume = load_volume(image)
    if not sentence:
        assert np.array_equal(load_lungs(mask, volume)[0], labels)
        return
    with pytest.raises(UnusableInputError, match=sentence):
        load_lungs(mask, volume)


# --- outputs that a CT does not fit ---------------------------------------------------------------


@pytest.mark.parametrize("degrees", [-20, 1, 20])
def test_a_sheared_ct_is_no_nifti(tmp_path: Path, degrees: int) -> None:
    angle = np.radians(degrees)
    step = (0, float(2 * np.sin(angle)), float(2 * np.cos(angle)))
    write_series(tmp_path / "ct", hounsfield(), step=step, **TAGS)
    sheared = "NIfTI cannot hold the sheared slices of a tilted gantry; end the name in .nrrd"
    with pytest.raises(UnusableInputError, match=sheared):
        require_fitting(tmp_path / "ct", None, [tmp_path / "x.nii.gz"], False)
    require_fitting(tmp_path / "ct", None, [tmp_path / "x.seg.nrrd"], True)
    volume = load_volume(tmp_path / "ct")
    labels = to_input_geometry(labels_of(volume), volume)
    with pytest.raises(UnusableInputError, match=sheared):
        write_image(tmp_path / "x.nii.gz", labels)
    write_image(tmp_path / "x.nrrd", labels)
    with pytest.raises(UnusableInputError, match=sheared):
        require_fitting(tmp_path / "x.nrrd", None, [tmp_path / "y.nii.gz"], False)


def test_what_cannot_be_referred_to_is_said_before_the_work(tmp_path: Path) -> None:
    frames = frames_of(hounsfield())
    for name, part in (("a", frames[:5]), ("b", frames[5:])):
        write_enhanced(tmp_path / f"{name}.dcm", part, series="1.2.3")
    require_fitting(tmp_path, None, [], False)
    with pytest.raises(UnusableInputError, match="slices lie in 2 files.*leave out --dicom-seg"):
        require_fitting(tmp_path, None, [], True)


def test_a_dicom_fault_takes_no_other_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever it is: here the writer of reports cannot be used at all."""
    volume = with_values(tmp_path / "ct")
    write_segmentation(tmp_path / "t.seg.nrrd", to_input_geometry(labels_of(volume), volume))
    monkeypatch.setattr("DiffSegLungLib.export.dicom_sr._tissue_groups", lambda *_: 1 / 0)
    words = ["measure", str(tmp_path / "ct"), str(tmp_path / "t.seg.nrrd"), "-o", str(tmp_path / "t.csv")]
    words += ["--dicom-seg", str(tmp_path / "t.dcm"), "--dicom-sr", str(tmp_path / "sr.dcm")]
    assert cli.main(words) == IncompleteOutputError.exit_status
    assert "DICOM report could not be made (ZeroDivisionError" in capsys.readouterr().err
    assert (tmp_path / "t.csv").exists() and (tmp_path / "t.dcm").exists()
    assert not (tmp_path / "sr.dcm").exists()


def test_without_its_segmentation_there_is_no_report(tmp_path: Path) -> None:
    volume = replace(with_values(tmp_path / "ct"), dicom_files=())
    labels = labels_of(volume)
    writers = DicomWriters(labels, volume, measures_of(labels, volume), {})
    assert writers.writers(tmp_path / "a.dcm", tmp_path / "b.dcm") == {}
    with pytest.raises(IncompleteOutputError, match="DICOM segmentation could not be made .*is no DICOM"):
        writers.raise_fault()
