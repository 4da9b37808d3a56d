"""What the header of a DICOM file tells of its slices: one of a classic CT image, many of an Enhanced CT.

GDCM reads what lies at the root of a header; what belongs to single frames, ``multiframe`` reads.
"""

from __future__ import annotations

import hashlib
import math
import re
from dataclasses import dataclass
from pathlib import Path

import SimpleITK as sitk

from DiffSegLungLib.io.acquisition import MODALITY_TAG, read_acquisition, tag_value
from DiffSegLungLib.io.dicom_elements import fault_of_values
from DiffSegLungLib.io.planes import Plane

MULTI_FRAME = ("1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2")
"""Enhanced CT, and the legacy converted kind: their geometry is never at the root."""

HOUNSFIELD = ("", "HU", "US")
"""Rescale types of a CT; US is unspecified, which older scanners write."""


@dataclass(frozen=True)
class DicomFile:
    """What the header of one file tells.

    Attributes:
        patient: a code of who it is; it names nobody.
        plain: whether GDCM reads its pixels as HU, without help.
        planes: its slices, in the order of the file.
    """

    path: Path
    patient: str
    study: str
    series: str
    frame_of_reference: str
    number: str
    instance: str
    order: int
    modality: str
    size: tuple[int, int]
    pixel: int
    components: int
    plain: bool
    acquisition: dict[str, str]
    planes: tuple[Plane, ...]


@dataclass(frozen=True)
class Slice:
    """One slice of a file.

    Attributes:
        file: that holds it.
        frame: its place in the file, from 0.
    """

    file: DicomFile
    frame: int = 0

    @property
    def plane(self) -> Plane:
        """Where it lies and what its values mean."""
        return self.file.planes[self.frame]

    @property
    def is_axial_ct(self) -> bool:
        """Whether it can be a slice of a chest CT."""
        return self.file.modality == "CT" and self.plane.is_axial


def slices_of(files: list[DicomFile]) -> list[Slice]:
    """All slices of some files."""
    return [Slice(file, frame) for file in files for frame in range(len(file.planes))]


def read_header(path: Path) -> DicomFile | None:
    """What the header of a DICOM image tells; None for what is none, or is damaged."""
    if fault_of_values(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        planes = _planes(reader, path)
    except (RuntimeError, ValueError):
        return None
    if not planes:
        return None
    size = reader.GetSize()
    is_classic = planes[0].position == _numbers(tag_value(reader, "0020|0032"), 3)
    return DicomFile(
        path=path,
        patient=_patient(reader),
        study=tag_value(reader, "0020|000d"),
        series=tag_value(reader, "0020|000e"),
        frame_of_reference=tag_value(reader, "0020|0052"),
        number=_whole_number(tag_value(reader, "0020|0011")),
        instance=tag_value(reader, "0008|0018"),
        order=int(_whole_number(tag_value(reader, "0020|0013")) or 0),
        modality=tag_value(reader, MODALITY_TAG),
        size=(size[0], size[1]),
        pixel=reader.GetPixelID(),
        components=reader.GetNumberOfComponents(),
        plain=len(planes) == 1 and is_classic and tag_value(reader, "0028|0004") != "MONOCHROME1",
        acquisition=dict(planes[0].facts) | read_acquisition(reader),
        planes=planes,
    )


def _planes(reader: sitk.ImageFileReader, path: Path) -> tuple[Plane, ...]:
    size = reader.GetSize()
    if tag_value(reader, "0008|0016") in MULTI_FRAME or (len(size) == 3 and size[2] > 1):
        from DiffSegLungLib.io.multiframe import read_planes

        return read_planes(path)
    slope, intercept = (_numbers(tag_value(reader, tag), 1) for tag in ("0028|1053", "0028|1052"))
    return (
        Plane(
            position=_numbers(tag_value(reader, "0020|0032"), 3),
            orientation=_numbers(tag_value(reader, "0020|0037"), 6),
            spacing=_numbers(tag_value(reader, "0028|0030"), 2)[::-1],
            rescale=((slope or (1.0,))[0], (intercept or (0.0,))[0]),
            unit=tag_value(reader, "0028|1054").upper(),
            kind=tuple(tag_value(reader, "0008|0008").upper().split("\\")),
            acquisition=tag_value(reader, "0020|0012"),
            time=tag_value(reader, "0020|0100") or tag_value(reader, "0020|9241"),
            stack=tag_value(reader, "0020|9056"),
        ),
    )


def _patient(reader: sitk.ImageFileReader) -> str:
    """A code of the patient's ID, or of the name where there is no ID; nothing here may tell who it is."""
    known = tag_value(reader, "0010|0020") or tag_value(reader, "0010|0010")
    return hashlib.sha256(known.encode()).hexdigest()[:12] if known else ""


def _whole_number(text: str) -> str:
    """The number of a series as text; what is none is left out, since it goes into names and titles."""
    return text if re.fullmatch(r"-?\d{1,11}", text) else ""


def _numbers(text: str, count: int) -> tuple[float, ...]:
    parts = text.split("\\")
    try:
        numbers = tuple(float(part) for part in parts) if len(parts) == count else ()
    except ValueError:
        return ()
    return numbers if all(map(math.isfinite, numbers)) else ()
