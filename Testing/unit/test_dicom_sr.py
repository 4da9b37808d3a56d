"""The measures as DICOM SR: valid, equal to the table, tied to segmentation and CT."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import generate_uid

from DiffSegLungLib.anatomy import regions_from_sides, thirds_from_sides
from DiffSegLungLib.app import cli
from DiffSegLungLib.export.segmentation_file import write_segmentation
from DiffSegLungLib.io.volume import Volume, load_volume, to_input_geometry
from DiffSegLungLib.quantify.measures import DEFINITIONS, measure
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, HEALTHY
from Testing.unit.dicom_series import write_series

pytest.importorskip("highdicom", reason="highdicom is optional: pip install highdicom")
from DiffSegLungLib.export.dicom_seg import build_dicom_seg  # noqa: E402
from DiffSegLungLib.export.dicom_sr import SCHEME, write_dicom_sr  # noqa: E402

TAGS: dict[str, Any] = {
    "StudyInstanceUID": generate_uid(),
    "FrameOfReferenceUID": generate_uid(),
    "StudyDate": "20240102",
    "StudyTime": "101112",
    "PatientSex": "F",
}


class Written:
    """A report and what it was written from."""

    def __init__(self, folder: Path) -> None:
        hu = np.full((10, 18, 16), 40.0)
        hu[2:8, 4:14, 2:7] = hu[2:8, 4:14, 9:14] = -850.0
        hu[:, :2] = -1000.0
        write_series(folder / "ct", hu, **TAGS)
        self.volume: Volume = load_volume(folder / "ct")
        self.labels = np.zeros(hu.shape, np.uint8)
        self.labels[2:8, 4:14, 2:14] = HEALTHY
        self.labels[3:5, 5:8, 3:6], self.labels[6, 9:13, 10] = EMPHYSEMA, CONSOLIDATION
        sides = np.where(self.labels > 0, np.where(np.arange(16) < 8, 1, 2), 0)
        regions = regions_from_sides(sides) | thirds_from_sides(sides)
        self.measures = measure(self.labels, self.volume.hu, self.volume.spacing, regions)
        self.segmentation = build_dicom_seg(self.labels, self.volume)
        self.path = folder / "sr.dcm"
        write_dicom_sr(self.path, self.segmentation, self.volume, self.measures)
        self.report = pydicom.dcmread(self.path)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return Written(tmp_path_factory.mktemp("sr"))


def test_a_report_of_corrected_segments_says_so(written: Written, tmp_path: Path) -> None:
    assert written.report.SeriesDescription == "DiffSegLung measures. Research use only"
    corrected = build_dicom_seg(written.labels, written.volume, corrected=True)
    write_dicom_sr(tmp_path / "sr.dcm", corrected, written.volume, written.measures)
    told = pydicom.dcmread(tmp_path / "sr.dcm").SeriesDescription
    assert told == "DiffSegLung measures, corrected by hand. Research use only"


def named(item: Dataset) -> str:
    return str(item.ConceptNameCodeSequence[0].CodeMeaning)


def groups(report: Dataset) -> list[Dataset]:
    [container] = [item for item in report.ContentSequence if named(item) == "Imaging Measurements"]
    return list(container.ContentSequence)


def text(group: Dataset, name: str) -> str:
    return next(str(item.TextValue) for item in group.ContentSequence if named(item) == name)


def numbers(group: Dataset) -> dict[tuple[str, str], Any]:
    """Value and unit by code of each measurement."""
    found: dict[tuple[str, str], Any] = {}
    for item in group.ContentSequence:
        if item.ValueType == "NUM":
            name, value = item.ConceptNameCodeSequence[0], item.MeasuredValueSequence[0]
            unit = value.MeasurementUnitsCodeSequence[0].CodeValue
            found[name.CodingSchemeDesignator, name.CodeValue] = float(value.NumericValue), unit
    return found


def test_dciodvfy_finds_no_error(written: Written) -> None:
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    result = subprocess.run([program, "-new", str(written.path)], capture_output=True, text=True)
    said = (result.stdout + result.stderr).splitlines()
    assert [line for line in said if line.startswith("Error")] == []
    assert any("Comprehensive3DSR" in line for line in said), "it was checked as a structured report"


def read_by_dcmqi(program: str, folder: Path, *words: str) -> Any:
    """What dcmqi, which Slicer reads these with, makes of a file."""
    pytest.importorskip("dcmqi", reason="dcmqi is not installed")
    command = [str(Path(sys.executable).with_name(program)), *words]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    said = [line for line in result.stderr.splitlines() if line.startswith(("E:", "W:"))]
    assert all(line.endswith("does not support this Specific Character Set: ISO_IR 192") for line in said), (
        said
    )
    [metadata] = folder.glob("*.json")
    return json.loads(metadata.read_text())


def test_dcmqi_reads_the_report(written: Written, tmp_path: Path) -> None:
    words = ["--inputDICOM", str(written.path), "--outputMetadata", "sr.json"]
    found = read_by_dcmqi("tid1500reader", tmp_path, *words)["Measurements"]
    emphysema = next(one for one in found if one["TrackingIdentifier"] == "DiffSegLung emphysema")
    assert emphysema["Finding"]["CodeMeaning"] == "Pulmonary emphysema"
    assert emphysema["FindingSite"]["CodeMeaning"] == "Lung"
    assert emphysema["segmentationSOPInstanceUID"] == written.segmentation.SOPInstanceUID
    volume, share = emphysema["measurementItems"]
    row = written.measures.loc["whole lung"]
    assert (float(volume["value"]), volume["units"]["CodeValue"]) == (
        pytest.approx(row["emphysema_ml"]),
        "ml",
    )
    assert (float(share["value"]), share["units"]["CodeValue"]) == (
        pytest.approx(row["emphysema_percent"]),
        "%",
    )


def test_dcmqi_reads_the_segmentation(written: Written, tmp_path: Path) -> None:
    import SimpleITK as sitk

    written.segmentation.save_as(tmp_path / "seg.dcm")
    words = ["--inputDICOM", "seg.dcm", "--outputDirectory", ".", "--outputType", "nrrd", "--prefix", "s"]
    found = read_by_dcmqi("segimage2itkimage", tmp_path, *words)["segmentAttributes"]
    assert [one[0]["SegmentLabel"] for one in found] == ["Healthy lung", "Emphysema", "Consolidation"]
    for number, tissue in enumerate((HEALTHY, EMPHYSEMA, CONSOLIDATION), start=1):
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"s-{number}.nrrd"))) > 0
        assert voxels.sum() == (written.labels == tissue).sum()


def test_it_is_a_tid_1500_report_of_the_same_patient_and_study(written: Written) -> None:
    report, first = written.report, pydicom.dcmread(written.volume.dicom_files[0])
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "1500"
    for keyword in ("PatientName", "PatientID", "StudyInstanceUID"):
        assert report[keyword].value == first[keyword].value
    assert report.SeriesInstanceUID not in (
        first.SeriesInstanceUID,
        written.segmentation.SeriesInstanceUID,
    )


def test_evidence_names_the_ct_and_the_segmentation(written: Written) -> None:
    referenced = {
        item.ReferencedSOPInstanceUID
        for study in written.report.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    images = {pydicom.dcmread(file).SOPInstanceUID for file in written.volume.dicom_files}
    assert referenced == images | {written.segmentation.SOPInstanceUID}


def test_each_tissue_refers_to_its_segment(written: Written) -> None:
    by_uid = {segment.TrackingUID: segment for segment in written.segmentation.SegmentSequence}
    found = {}
    for group in groups(written.report):
        for item in group.ContentSequence:
            if item.ValueType == "IMAGE" and "ReferencedSegmentNumber" in item.ReferencedSOPSequence[0]:
                reference = item.ReferencedSOPSequence[0]
                assert reference.ReferencedSOPInstanceUID == written.segmentation.SOPInstanceUID
                uid = next(i.UID for i in group.ContentSequence if named(i) == "Tracking Unique Identifier")
                assert by_uid[uid].SegmentNumber == reference.ReferencedSegmentNumber
                found[by_uid[uid].SegmentLabel] = numbers(group)
    row = written.measures.loc["whole lung"]
    assert set(found) == {"Healthy lung", "Emphysema", "Consolidation"}
    assert found["Emphysema"]["SCT", "118565006"] == (pytest.approx(row["emphysema_ml"]), "ml")
    assert found["Emphysema"][SCHEME, "emphysema_pct"] == (pytest.approx(row["emphysema_percent"]), "%")


def test_each_region_has_the_numbers_of_the_table(written: Written) -> None:
    found = {text(group, "Tracking Identifier"): numbers(group) for group in groups(written.report)}
    for region, row in written.measures.iterrows():
        measured = found[f"DiffSegLung {region}"]
        assert measured["DCM", "112031"] == (pytest.approx(row["mean_hu"]), "[hnsf'U]")
        assert measured["SCT", "118565006"] == (pytest.approx(row["lung_ml"]), "ml")
        assert measured[SCHEME, "laa950_pct"] == (pytest.approx(row["laa950_percent"]), "%")
        assert len(measured) == sum(np.isfinite(row[column]) for column in DEFINITIONS), "no two share a code"


def test_codes_fit_their_fields(written: Written) -> None:
    for element in written.report.iterall():
        if element.keyword == "CodeValue":
            assert len(element.value) <= 16
        if element.keyword == "CodeMeaning":
            assert len(element.value) <= 64


def test_the_command_measure_writes_both_and_asks_for_the_segmentation(
    written: Written, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_segmentation(tmp_path / "t.seg.nrrd", to_input_geometry(written.labels, written.volume))
    command = ["measure", str(written.volume.dicom_files[0].parent), str(tmp_path / "t.seg.nrrd")]
    assert cli.main([*command, "--dicom-sr", str(tmp_path / "sr.dcm")]) == 2
    assert "give --dicom-seg" in capsys.readouterr().err
    command += ["--dicom-seg", str(tmp_path / "seg.dcm"), "--dicom-sr", str(tmp_path / "sr.dcm")]
    assert cli.main(command) == 0, capsys.readouterr().err
    segmentation, report = (pydicom.dcmread(tmp_path / name) for name in ("seg.dcm", "sr.dcm"))
    [study] = report.CurrentRequestedProcedureEvidenceSequence
    series = {item.SeriesInstanceUID for item in study.ReferencedSeriesSequence}
    assert segmentation.SeriesInstanceUID in series
