"""What lies on the disk: complete files only, and a segmentation's fields and voxels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib import tissues
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export import segmentation_file
from DiffSegLungLib.io import atomic

SHAPE = (4, 5, 6)


def label_image() -> sitk.Image:
    """Healthy, emphysema and a vessel in an oblique, anisotropic image; four tissues are absent."""
    labels = np.zeros(SHAPE, np.uint8)
    labels[1:3, 1:4, 2:6] = tissues.HEALTHY
    labels[2, 2, 3] = tissues.EMPHYSEMA
    labels[3, 4, 0] = tissues.VESSEL
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((0.7, 0.8, 2.5))
    image.SetOrigin((-12.5, 30.25, 7.0))
    angle = np.deg2rad(20)
    image.SetDirection((np.cos(angle), -np.sin(angle), 0, np.sin(angle), np.cos(angle), 0, 0, 0, -1))
    return image


def left_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_atomic_path_keeps_the_suffix_and_leaves_only_the_target(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "a.b.seg.nrrd"
    with atomic.atomic_path(target) as partial:
        assert partial.name.endswith("a.b.seg.nrrd") and partial.parent == target.parent
        partial.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert left_in(target.parent) == ["a.b.seg.nrrd"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("broken")])
def test_after_an_error_the_old_file_stands_and_nothing_else(tmp_path: Path, error: type | Exception) -> None:
    target = tmp_path / "out.txt"
    target.write_text("old")
    with pytest.raises((KeyboardInterrupt, RuntimeError)), atomic.atomic_path(target) as partial:  # noqa: PT012
        partial.write_text("half")
        raise error
    assert target.read_text() == "old"
    assert left_in(tmp_path) == ["out.txt"]


def test_a_folder_that_is_a_file_is_a_one_line_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UnusableInputError) as caught:
        atomic.write_text(tmp_path / "file" / "out.txt", "text")
    assert "\n" not in str(caught.value) and str(tmp_path / "file" / "out.txt") in str(caught.value)


FULL_DISK = """
import resource, signal, sys
import numpy as np, SimpleITK as sitk
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.segmentation_file import write_image
image = sitk.GetImageFromArray(np.random.default_rng(0).integers(0, 255, (40, 64, 64)).astype(np.uint8))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
try:
    write_image(sys.argv[1], image)
except UnusableInputError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the file size through POSIX")
@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_a_disk_that_takes_only_a_part_is_an_error(tmp_path: Path, suffix: str) -> None:
    target = tmp_path / f"out{suffix}"
    command = [sys.executable, "-c", FULL_DISK, str(target)]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2]
    )
    assert result.stdout.startswith(f"Cannot write {target}: ")
    assert len(result.stdout.splitlines()) == 1
    assert left_in(tmp_path) == []


def test_files_written_together_appear_together(tmp_path: Path) -> None:
    def fail(path: Path) -> None:
        assert left_in(tmp_path) != []  # the other one is there under its partial name
        assert not (tmp_path / "first").exists()
        raise OSError(28, "No space left on device")

    writers = {tmp_path / "first": lambda path: path.write_text("1"), tmp_path / "second": fail}
    with pytest.raises(UnusableInputError, match="second: No space left"):
        atomic.write_together(writers)
    assert left_in(tmp_path) == []
    writers[tmp_path / "second"] = lambda path: path.write_text("2")
    atomic.write_together(writers)
    assert left_in(tmp_path) == ["first", "second"]


def test_require_writable_leaves_no_trace_and_keeps_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "out.txt").write_text("old")
    atomic.require_writable(tmp_path / "out.txt")
    assert left_in(tmp_path) == ["out.txt"] and (tmp_path / "out.txt").read_text() == "old"
    with pytest.raises(UnusableInputError, match="is a folder"):
        atomic.require_writable(tmp_path)


def test_json_is_utf8_and_has_no_nan(tmp_path: Path) -> None:
    atomic.write_json(tmp_path / "m.json", {"who": "Zoë", "value": 1.5})
    assert "Zoë" in (tmp_path / "m.json").read_bytes().decode("utf-8")
    assert json.loads((tmp_path / "m.json").read_text("utf-8")) == {"who": "Zoë", "value": 1.5}
    with pytest.raises(ValueError, match="Out of range|not JSON compliant"):
        atomic.write_json(tmp_path / "nan.json", {"value": float("nan")})
    assert not (tmp_path / "nan.json").exists()


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz"])
def test_image_round_trip(tmp_path: Path, suffix: str) -> None:
    image = sitk.Cast(label_image(), sitk.sitkFloat32) / 7
    segmentation_file.write_image(tmp_path / f"u{suffix}", image)
    read = sitk.ReadImage(str(tmp_path / f"u{suffix}"))
    assert np.array_equal(sitk.GetArrayFromImage(read), sitk.GetArrayFromImage(image))
    assert np.allclose(read.GetOrigin(), image.GetOrigin(), atol=1e-5)
    assert np.allclose(read.GetDirection(), image.GetDirection(), atol=1e-5)


def test_an_unknown_image_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match=".nrrd or .nii.gz"):
        segmentation_file.write_image(tmp_path / "u.jpg", label_image())


def test_segmentation_reads_as_a_plain_label_map(tmp_path: Path) -> None:
    image = label_image()
    segmentation_file.write_segmentation(tmp_path / "s.seg.nrrd", image)
    read = sitk.ReadImage(str(tmp_path / "s.seg.nrrd"))
    expected = sitk.GetArrayFromImage(image)
    expected[expected == tissues.VESSEL] = 0
    assert read.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(sitk.GetArrayFromImage(read), expected)
    assert read.GetSize() == image.GetSize()
    for read_values, values in (
        (read.GetSpacing(), image.GetSpacing()),
        (read.GetOrigin(), image.GetOrigin()),
        (read.GetDirection(), image.GetDirection()),
    ):
        assert np.allclose(read_values, values, rtol=0, atol=1e-12)


def test_segmentation_is_compressed(tmp_path: Path) -> None:
    empty = sitk.Image(200, 200, 100, sitk.sitkUInt8)
    segmentation_file.write_segmentation(tmp_path / "s.seg.nrrd", empty)
    assert (tmp_path / "s.seg.nrrd").stat().st_size < 50_000


def test_every_reported_tissue_is_listed_with_its_fields(tmp_path: Path) -> None:
    segmentation_file.write_segmentation(tmp_path / "s.seg.nrrd", label_image())
    read = sitk.ReadImage(str(tmp_path / "s.seg.nrrd"))
    for index, tissue in enumerate(tissues.REPORTED):
        assert read.GetMetaData(f"Segment{index}_ID") == tissue.key
        assert read.GetMetaData(f"Segment{index}_Name") == tissue.name
        assert read.GetMetaData(f"Segment{index}_LabelValue") == str(tissue.label)
        assert read.GetMetaData(f"Segment{index}_Layer") == "0"
    assert not read.HasMetaDataKey(f"Segment{len(tissues.REPORTED)}_ID")
    assert read.GetMetaData("Segment0_Extent") == "2 5 1 3 1 2"
    assert read.GetMetaData("Segment1_Extent") == "3 3 2 2 2 2"
    assert read.GetMetaData("Segment2_Extent") == "0 -1 0 -1 0 -1"


def test_vessels_are_a_segment_when_asked_for(tmp_path: Path) -> None:
    segments = segmentation_file.tissue_segments(tissues.TISSUES)
    segmentation_file.write_segmentation(tmp_path / "s.seg.nrrd", label_image(), segments)
    read = sitk.ReadImage(str(tmp_path / "s.seg.nrrd"))
    assert np.count_nonzero(sitk.GetArrayFromImage(read) == tissues.VESSEL) == 1
    assert read.GetMetaData("Segment6_LabelValue") == str(tissues.VESSEL)


def test_the_patient_stays_out_of_the_segmentation(tmp_path: Path) -> None:
    image = label_image()
    image.SetMetaData("0010|0010", "Doe^Jane")
    segmentation_file.write_segmentation(tmp_path / "s.seg.nrrd", image)
    assert b"Doe" not in (tmp_path / "s.seg.nrrd").read_bytes()


def test_a_wrong_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="16-bit"):
        segmentation_file.write_segmentation(tmp_path / "s.seg.nrrd", sitk.Image(3, 3, 3, sitk.sitkInt16))


@pytest.mark.parametrize("tissue", tissues.TISSUES, ids=lambda tissue: tissue.key)
def test_terminology_entry_has_seven_parts_of_legal_length(tissue: tissues.Tissue) -> None:
    parts = segmentation_file.tissue_terminology(tissue).entry.split("~")
    assert len(parts) == 7
    assert parts[0] == "Segmentation category and type - DiffSegLung"
    assert parts[4] == "Anatomic codes - DICOM master list"
    assert (parts[3], parts[6]) == ("^^", "^^")
    for triplet in (parts[1], parts[2], parts[5]):
        scheme, value, meaning = triplet.split("^")
        assert scheme in ("SCT", "DCM")
        assert value.isdecimal() and len(value) <= 16  # DICOM PS3.5: SH
        assert 0 < len(meaning) <= 64  # DICOM PS3.5: LO
