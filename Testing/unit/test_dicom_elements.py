"""Values of a DICOM file fit into it, however it is encoded; what was cut off or lies is told apart."""

from __future__ import annotations

import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from DiffSegLungLib.io import dicom_elements
from DiffSegLungLib.io.dicom_elements import CUT_OFF, TOO_LARGE, fault_of_values
from DiffSegLungLib.io.volume import load_volume
from Testing.unit.dicom_series import write_series

ENCODINGS = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless)


PIXEL_DATA = (0x7FE0, 0x0010, b"OW", 0)


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
    assert not fault_of_values(slice_file)
    for cut in (len(content) - 20, len(content) - 60):
        slice_file.write_bytes(content[:cut])
        assert fault_of_values(slice_file) == CUT_OFF, cut
    slice_file.write_bytes(content + bytes(100))  # as some scanners fill up
    assert not fault_of_values(slice_file)


@pytest.mark.parametrize("undefined", [False, True], ids=["lengths", "delimiters"])
def test_a_lie_within_a_sequence(slice_file: Path, undefined: bool) -> None:
    content = encoded(slice_file, ExplicitVRLittleEndian, undefined)
    at = content.index(struct.pack("<HH2sH", 0x0008, 0x0100, b"SH", 8)) + 6
    slice_file.write_bytes(content[:at] + b"\xff\xff" + content[at + 2 :])
    assert fault_of_values(slice_file) == CUT_OFF


# --- deflated as a whole ------------------------------------------------------------------------------


def deflated(meta: bytes, data: bytes) -> bytes:
    """A file of both, the data set deflated."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return meta + packer.compress(data) + packer.flush()


@pytest.fixture
def parts(slice_file: Path) -> tuple[bytes, bytes]:
    """Meta information in the deflated syntax, and the data set as it is before it is deflated."""
    content = encoded(slice_file, DeflatedExplicitVRLittleEndian)
    length = struct.unpack_from("<I", content, 140)[0]  # of the meta information behind this element
    return content[: 144 + length], zlib.decompress(content[144 + length :], -zlib.MAX_WBITS)


def test_deflated_is_looked_into(slice_file: Path, parts: tuple[bytes, bytes]) -> None:
    meta, data = parts
    whole = deflated(meta, data)
    slice_file.write_bytes(whole + b"\0")  # filled up to an even length
    assert not fault_of_values(slice_file)
    for broken in (whole[:-20], deflated(meta, data[:-60]), meta + b"\xff" * 50, meta + zlib.compress(data)):
        slice_file.write_bytes(broken)
        assert fault_of_values(slice_file) == CUT_OFF


def test_the_transfer_syntax_is_told_once_and_first(slice_file: Path, parts: tuple[bytes, bytes]) -> None:
    """Of two syntaxes, or one behind the meta information, readers take now this one, now that."""
    meta, data = parts
    syntaxes = [
        struct.pack("<HH2sH", 0x0002, 0x0010, b"UI", len(uid)) + uid
        for uid in (b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    ]
    lie = struct.pack("<HH2sHI", *PIXEL_DATA, 0xFFFFFFF0) + bytes(100)
    slice_file.write_bytes(meta + syntaxes[0] + data)
    assert fault_of_values(slice_file) == CUT_OFF
    plain = meta.replace(b"1.2.840.10008.1.2.1.99", b"1.2.840.10008.1.2.1\0\0\0")
    slice_file.write_bytes(plain + data)
    assert not fault_of_values(slice_file)
    slice_file.write_bytes(plain + syntaxes[1] + data)
    assert fault_of_values(slice_file) == CUT_OFF
    slice_file.write_bytes(plain + data[: data.index(b"\x08\0\x16\0")] + syntaxes[1] + deflated(b"", lie))
    assert fault_of_values(slice_file) == CUT_OFF
    sequence = struct.pack("<HH2sHI", 0x0002, 0x0099, b"SQ", 0, 8) + struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    slice_file.write_bytes(plain + sequence + data)
    assert fault_of_values(slice_file) == CUT_OFF


def test_a_bomb_takes_no_memory(
    slice_file: Path, parts: tuple[bytes, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit is to the byte, and what goes beyond is not kept."""
    slice_file.write_bytes(deflated(*parts))
    monkeypatch.setattr(dicom_elements, "MOST_INFLATED_BYTES", len(parts[1]))
    assert not fault_of_values(slice_file)
    monkeypatch.setattr(dicom_elements, "MOST_INFLATED_BYTES", len(parts[1]) - 1)
    assert fault_of_values(slice_file) == TOO_LARGE
    limit = 32 * dicom_elements.PIECE_BYTES
    monkeypatch.setattr(dicom_elements, "MOST_INFLATED_BYTES", limit)
    slice_file.write_bytes(deflated(parts[0], struct.pack("<HH2sHI", *PIXEL_DATA, limit) + bytes(limit)))
    tracemalloc.start()
    assert fault_of_values(slice_file) == TOO_LARGE
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < limit / 4


def test_a_deflated_series_reads_as_the_plain_one(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 300, (9, 20, 24)).astype(np.float32)
    write_series(tmp_path / "ct", hu)
    plain = load_volume(tmp_path / "ct")
    for path in (tmp_path / "ct").iterdir():
        encoded(path, DeflatedExplicitVRLittleEndian)
    read = load_volume(tmp_path / "ct")
    np.testing.assert_array_equal(read.hu, plain.hu)
    assert read.input_geometry == plain.input_geometry


@pytest.mark.parametrize("content", [b"", b"x", bytes(132), b"Dear colleague, " * 30])
def test_what_is_no_dicom_does_not_fail(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    assert fault_of_values(tmp_path / "x") in ("", CUT_OFF)


def test_files_that_others_wrote() -> None:
    """pydicom's test files: scanners, encodings (big endian, too), compressions; cut ones say so by name."""
    folder = Path(pydicom.__file__).parent / "data" / "test_files"
    files = [path for path in sorted(folder.rglob("*.dcm")) if path.read_bytes()[128:132] == b"DICM"]
    assert len(files) > 40
    assert {path.name for path in files if fault_of_values(path)} == {
        "MR_truncated.dcm",
        "rtplan_truncated.dcm",
    }
