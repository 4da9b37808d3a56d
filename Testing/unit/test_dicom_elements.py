"""Values of a DICOM file fit into it, however it is encoded; what was cut off or lies is told apart."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from DiffSegLungLib.dicom_elements import values_fit
from Testing.unit.dicom_series import write_series

ENCODINGS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless)


@pytest.fixture
def slice_file(tmp_path: Path) -> Path:
    """One slice of a series, with a sequence in a sequence and a private element."""
    write_series(tmp_path / "ct", np.zeros((1, 32, 24), np.float32))
    (path,) = (tmp_path / "ct").iterdir()
    dataset = pydicom.dcmread(path)
    inner, outer = Dataset(), Dataset()
    inner.CodeValue, inner.CodeMeaning = "T-28000", "Lung"
    outer.AnatomicRegionSequence = Sequence([inner, inner])
    dataset.ReferencedImageSequence = Sequence([outer])
    dataset.private_block(0x0009, "us", create=True).add_new(0x01, "UN", bytes(30))
    dataset.save_as(path)
    return path


def encoded(path: Path, syntax: pydicom.uid.UID, undefined: bool = False) -> bytes:
    """The bytes of the file in another transfer syntax, its sequences with or without their lengths."""
    dataset = pydicom.dcmread(path)
    for element in dataset.iterall():
        if element.VR == "SQ":
            element.is_undefined_length = undefined
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.save_as(path, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=True)
    return path.read_bytes()


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
@pytest.mark.parametrize("syntax", ENCODINGS, ids=lambda syntax: syntax.name)
def test_sound_and_cut_off(slice_file: Path, syntax: pydicom.uid.UID, undefined: bool) -> None:
    content = encoded(slice_file, syntax, undefined)
    assert values_fit(slice_file)
    for cut in (len(content) - 20, len(content) - 60):
        slice_file.write_bytes(content[:cut])
        assert not values_fit(slice_file), cut
    slice_file.write_bytes(content + bytes(100))  # as some scanners fill up
    assert values_fit(slice_file)


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
def test_a_lie_within_a_sequence(slice_file: Path, undefined: bool) -> None:
    content = encoded(slice_file, ExplicitVRLittleEndian, undefined)
    at = content.index(struct.pack("<HH2sH", 0x0008, 0x0100, b"SH", 8)) + 6
    slice_file.write_bytes(content[:at] + b"\xff\xff" + content[at + 2 :])
    assert not values_fit(slice_file)


@pytest.mark.parametrize("content", [b"", b"x", bytes(132), b"Dear colleague, " * 30])
def test_what_is_no_dicom_does_not_fail(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert values_fit(tmp_path / "x") in (True, False)


def test_files_that_others_wrote() -> None:
    """pydicom's test files: scanners, encodings (big endian, too), compressions; cut ones say so by name."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = [path for path in sorted(folder.rglob("*.dcm")) if path.read_bytes()[128:132] == b"DICM"]
    assert len(files) > 40
    assert {path.name for path in files if not values_fit(path)} == {
        "MR_truncated.dcm",
        "rtplan_truncated.dcm",
    }
