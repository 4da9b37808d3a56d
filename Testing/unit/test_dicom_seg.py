"""DICOM segmentations: valid, in the CT's place, with our codes, and the patient only inside."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from DiffSegLungLib import tissues
from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.export import dicom_seg
from DiffSegLungLib.export.dicom_seg import require_dicom, write_dicom_seg
from DiffSegLungLib.export.segmentation_file import write_segmentation
from DiffSegLungLib.io.volume import Volume, canonical_image, load_volume, to_input_geometry
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, HEALTHY, VESSEL
from Testing.unit.dicom_series import write_series

highdicom = pytest.importorskip("highdicom", reason="highdicom is optional: pip install highdicom")

SHAPE = (10, 18, 16)
TAGS: dict[str, Any] = {
    "StudyInstanceUID": generate_uid(),
    "FrameOfReferenceUID": generate_uid(),
    "StudyDate": "20240102",
    "StudyTime": "101112",
    "StudyID": "1",
    "AccessionNumber": "",
    "PatientSex": "F",
    "ReferringPhysicianName": "",
    "PositionReferenceIndicator": "",
}
OBLIQUE = (0.9961947, 0.0871557, 0.0, -0.0868241, 0.9924039, 0.0871557)
"""Row and column of slices that are turned a little about z and x."""


def hounsfield() -> np.ndarray:
    hu = np.full(SHAPE, 40.0)
    hu[2:8, 4:14, 2:7] = hu[2:8, 4:14, 9:14] = -850.0
    hu[:, :2] = -1000.0
    return hu


def labels_of(volume: Volume) -> np.ndarray:
    """No two slices, rows or columns alike; fibrosis and others are absent."""
    labels = np.zeros(volume.hu.shape, np.uint8)
    labels[2:8, 4:14, 2:14] = HEALTHY
    labels[3:5, 5:8, 3:6] = EMPHYSEMA
    labels[6, 9:13, 10] = CONSOLIDATION
    labels[4, 10, 4:9] = VESSEL
    return labels


@pytest.fixture(scope="module", params=["straight", "oblique"])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Volume]:
    """A DICOM segmentation and the CT it belongs to."""
    folder = tmp_path_factory.mktemp("dicom")
    orientation = OBLIQUE if request.param == "oblique" else (1, 0, 0, 0, 1, 0)
    write_series(folder / "ct", hounsfield(), orientation=orientation, **TAGS)
    volume = load_volume(folder / "ct")
    provenance = {"model": "first", "sha256": "c0ffee"}
    write_dicom_seg(folder / "out" / "seg.dcm", labels_of(volume), volume, provenance=provenance)
    return folder / "out" / "seg.dcm", volume


def sources(volume: Volume) -> list[pydicom.Dataset]:
    return [pydicom.dcmread(file) for file in volume.dicom_files]


def test_each_voxel_lies_where_the_ct_has_it(case: tuple[Path, Volume]) -> None:
    segmentation, volume = highdicom.seg.segread(case[0]), case[1]
    images = sources(volume)
    found = segmentation.get_pixels_by_source_instance(
        source_sop_instance_uids=[image.SOPInstanceUID for image in images],
        assert_missing_frames_are_empty=True,
    )
    expected = sitk.GetArrayFromImage(to_input_geometry(labels_of(volume), volume))
    for number, label in enumerate((HEALTHY, EMPHYSEMA, CONSOLIDATION)):
        assert np.array_equal(found[..., number] > 0, expected == label)
    assert found.shape[-1] == 3


def test_each_voxel_has_its_place_in_the_patient(case: tuple[Path, Volume]) -> None:
    """By the positions that the file itself states, not by the images it refers to."""
    file, volume = highdicom.seg.segread(case[0]), case[1]
    expected = canonical_image(labels_of(volume), volume)
    shared = file.SharedFunctionalGroupsSequence[0]
    row, column = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3))
    spacing = shared.PixelMeasuresSequence[0].PixelSpacing
    count = 0
    for pixels, frame in zip(file.pixel_array, file.PerFrameFunctionalGroupsSequence, strict=True):
        label = (HEALTHY, EMPHYSEMA, CONSOLIDATION)[
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber - 1
        ]
        origin = np.array(frame.PlanePositionSequence[0].ImagePositionPatient, float)
        for y, x in np.argwhere(pixels):
            point = origin + x * spacing[1] * row + y * spacing[0] * column
            assert expected[expected.TransformPhysicalPointToIndex(point)] == label
            count += 1
    labels = labels_of(volume)
    assert count == np.isin(labels, (HEALTHY, EMPHYSEMA, CONSOLIDATION)).sum()


def test_segments_have_the_codes_of_the_tissue_table(case: tuple[Path, Volume]) -> None:
    segmentation = pydicom.dcmread(case[0])
    assert segmentation.SegmentationType == "BINARY"
    present = [tissues.BY_LABEL[label] for label in (HEALTHY, EMPHYSEMA, CONSOLIDATION)]
    for number, (segment, tissue) in enumerate(zip(segmentation.SegmentSequence, present, strict=True), 1):
        assert segment.SegmentNumber == number and segment.SegmentLabel == tissue.name
        for sequence, code in (
            (segment.SegmentedPropertyCategoryCodeSequence, tissues.CATEGORY),
            (segment.SegmentedPropertyTypeCodeSequence, tissue.code),
            (segment.AnatomicRegionSequence, tissues.REGION),
        ):
            item = sequence[0]
            assert (item.CodingSchemeDesignator, item.CodeValue, item.CodeMeaning) == (
                code.scheme,
                code.value,
                code.meaning,
            )
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        assert segment.TrackingID == f"DiffSegLung {tissue.key}" and segment.TrackingUID
        [algorithm] = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "DiffSegLung" and algorithm.AlgorithmVersion
        assert "c0ffee" in algorithm.AlgorithmParameters


def test_it_belongs_to_the_same_patient_study_and_frame_of_reference(case: tuple[Path, Volume]) -> None:
    segmentation, first = pydicom.dcmread(case[0]), sources(case[1])[0]
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "FrameOfReferenceUID", "StudyDate"):
        assert segmentation[keyword].value == first[keyword].value
    assert segmentation.SeriesInstanceUID != first.SeriesInstanceUID
    assert segmentation.SeriesDescription == "DiffSegLung"
    assert segmentation.ContentLabel == "DIFFSEGLUNG"
    referenced = {
        item.ReferencedSOPInstanceUID
        for item in segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {image.SOPInstanceUID for image in sources(case[1])}


def test_dciodvfy_finds_no_error(case: tuple[Path, Volume]) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    result = subprocess.run([program, "-new", str(case[0])], capture_output=True, text=True)
    errors = [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("Error")]
    assert errors == []
    assert "Segmentation" in result.stdout + result.stderr, "it was checked as a segmentation"


def test_corrected_by_hand_is_semi_automatic(case: tuple[Path, Volume], tmp_path: Path) -> None:
    write_dicom_seg(tmp_path / "s.dcm", labels_of(case[1]), case[1], corrected=True)
    segmentation = pydicom.dcmread(tmp_path / "s.dcm")
    kinds = {segment.SegmentAlgorithmType for segment in segmentation.SegmentSequence}
    assert kinds == {"SEMIAUTOMATIC"}
    assert segmentation.SeriesDescription == "DiffSegLung, corrected by hand"


def test_a_ct_without_optional_tags_will_do(tmp_path: Path) -> None:
    """De-identified CTs often lack what may be empty."""
    needed = {name: TAGS[name] for name in ("StudyInstanceUID", "FrameOfReferenceUID")}
    write_series(tmp_path / "ct", hounsfield(), **needed)
    for file in (tmp_path / "ct").iterdir():
        image = pydicom.dcmread(file)
        del image.PatientName, image.PatientID, image.PatientBirthDate, image.SliceThickness
        image.save_as(file)
    volume = load_volume(tmp_path / "ct")
    write_dicom_seg(tmp_path / "s.dcm", labels_of(volume), volume)
    assert pydicom.dcmread(tmp_path / "s.dcm").PatientName == ""


@pytest.mark.parametrize("keyword", ["StudyInstanceUID"])
def test_a_ct_without_what_must_be_there_is_refused(tmp_path: Path, keyword: str) -> None:
    write_series(tmp_path / "ct", hounsfield(), **{**TAGS, keyword: ""})
    volume = load_volume(tmp_path / "ct")
    with pytest.raises(UnusableInputError, match=f"have no {keyword}"):
        write_dicom_seg(tmp_path / "s.dcm", labels_of(volume), volume)
    assert not (tmp_path / "s.dcm").exists()


def test_an_empty_segmentation_and_a_ct_that_is_no_dicom_are_refused(
    case: tuple[Path, Volume], tmp_path: Path
) -> None:
    volume = case[1]
    vessels_only = np.where(labels_of(volume) == VESSEL, VESSEL, 0).astype(np.uint8)
    with pytest.raises(UnusableInputError, match="segmentation is empty"):
        write_dicom_seg(tmp_path / "s.dcm", vessels_only, volume)
    plain = load_volume(sitk.Cast(canonical_image(volume.hu, volume), sitk.sitkInt16))
    with pytest.raises(UnusableInputError, match="is no DICOM"):
        write_dicom_seg(tmp_path / "s.dcm", labels_of(plain), plain)
    assert list(tmp_path.iterdir()) == []


def test_a_source_is_judged_before_the_long_work(case: tuple[Path, Volume], tmp_path: Path) -> None:
    file = case[1].dicom_files[0]
    require_dicom(file)
    require_dicom(file.parent)
    (tmp_path / "ct.nrrd").write_bytes(b"NRRD0004\n")
    with pytest.raises(UnusableInputError, match=r"ct\.nrrd is no DICOM"):
        require_dicom(tmp_path / "ct.nrrd")
    with pytest.raises(UnusableInputError, match="no such file"):
        require_dicom(tmp_path / "nowhere")


def test_without_highdicom_the_remedy_is_said(
    case: tuple[Path, Volume], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_seg, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="pip install highdicom") as caught:
        write_dicom_seg(tmp_path / "s.dcm", labels_of(case[1]), case[1])
    assert caught.value.exit_status == 3


def test_the_command_measure_writes_one(
    case: tuple[Path, Volume], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    volume = case[1]
    write_segmentation(tmp_path / "t.seg.nrrd", to_input_geometry(labels_of(volume), volume))
    command = ["measure", str(volume.dicom_files[0].parent), str(tmp_path / "t.seg.nrrd"), "--corrected"]
    command += ["--dicom-seg", str(tmp_path / "t.dcm"), "-o", str(tmp_path / "t.csv")]
    command += ["--report", str(tmp_path / "report")]
    assert cli.main(command) == 0, capsys.readouterr().err
    segments = pydicom.dcmread(tmp_path / "t.dcm").SegmentSequence
    assert [segment.SegmentLabel for segment in segments] == ["Healthy lung", "Emphysema", "Consolidation"]
    for file in (path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".dcm"):
        content = file.read_bytes()
        assert b"4711" not in content and "Grün".encode() not in content, file.name
