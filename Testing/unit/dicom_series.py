"""Synthetic DICOM series of a CT, for the tests that read and write DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    CTImageStorage,
    EnhancedCTImageStorage,
    ExplicitVRLittleEndian,
    generate_uid,
)

SPACING = (1.25, 0.7, 0.8)
"""Voxel size (z, y, x) in mm."""


def dicom_header(sop_class: str, series: str, number: int) -> Dataset:
    """What every image of a series says; the patient's name and the maker have letters beyond ASCII."""
    header = Dataset()
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    header.SOPClassUID = header.file_meta.MediaStorageSOPClassUID = UID(sop_class)
    header.SOPInstanceUID = header.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    header.SeriesInstanceUID, header.SeriesNumber = series, number
    header.SpecificCharacterSet = "ISO_IR 100"
    header.PatientName, header.PatientID, header.PatientBirthDate = "Grün^Änne", "ID-4711", "19500101"
    header.SeriesDescription = "Grün Thorax"
    header.Modality, header.ImageType, header.Manufacturer = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], "Größe"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 16, 16, 15, 1
    return header


def write_series(
    folder: Path,
    hu: np.ndarray,
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    step: Sequence[float] | None = None,
    rescale: tuple[float, float] = (1, -1024),
    skip: Sequence[int] = (),
    number: int = 4,
    series: str = "",
    **tags: Any,
) -> None:
    """Write one CT series whose file names are not in the order of its slices."""
    folder.mkdir(parents=True, exist_ok=True)
    series = series or str(generate_uid())
    normal = np.cross(orientation[:3], orientation[3:])
    move = np.asarray(normal * SPACING[0] if step is None else step)
    slope, intercept = rescale
    for index in set(range(len(hu))) - set(skip):
        header = dicom_header(CTImageStorage, series, number)
        header.InstanceNumber = index + 1
        header.ImagePositionPatient = [f"{mm:.6f}" for mm in np.array([-100, -120, -300]) + index * move]
        header.ImageOrientationPatient = [f"{cosine:.8f}" for cosine in orientation]
        header.PixelSpacing, header.SliceThickness = list(SPACING[1:]), SPACING[0]
        header.Rows, header.Columns = hu.shape[1:]
        header.RescaleSlope, header.RescaleIntercept = slope, intercept
        header.PixelData = np.rint((hu[index] - intercept) / slope).astype("<i2").tobytes()
        for keyword, value in tags.items():
            setattr(header, keyword, value)
        header.save_as(folder / f"{index * 7 % 101:03d}_{number}", enforce_file_format=True)


@dataclass(frozen=True, eq=False)
class Frame:
    """A frame of an Enhanced CT.

    Attributes:
        hu: (y, x).
        height: along z, mm.
        rescale: slope and intercept.
        time: point in time, 0 for none.
        acquisition: number, 0 for none.
    """

    hu: np.ndarray
    height: float
    rescale: tuple[float, float] = (1, -1024)
    time: int = 0
    acquisition: int = 0


def frames_of(hu: np.ndarray, step: float = SPACING[0]) -> list[Frame]:
    """Frames that lie where `write_series` puts its slices, ``step`` mm apart."""
    return [Frame(plane, -300 + index * step) for index, plane in enumerate(hu)]


def write_enhanced(
    path: Path,
    frames: Sequence[Frame],
    series: str = "",
    spacing: Sequence[float] = SPACING,
    **tags: Any,
) -> Path:
    """Write one Enhanced CT with its frames in the order given; ``spacing`` is (z, y, x) in mm."""
    path.parent.mkdir(parents=True, exist_ok=True)
    header = dicom_header(EnhancedCTImageStorage, series or str(generate_uid()), 8)
    header.NumberOfFrames, (header.Rows, header.Columns) = len(frames), frames[0].hu.shape
    header.StudyInstanceUID, header.FrameOfReferenceUID = "1.2.826.8", "1.2.826.8.1"
    shared, measures, plane = Dataset(), Dataset(), Dataset()
    measures.PixelSpacing, measures.SliceThickness = list(spacing[1:]), spacing[0]
    plane.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [plane]
    header.SharedFunctionalGroupsSequence = [shared]
    header.PerFrameFunctionalGroupsSequence = [_groups(frame) for frame in frames]
    stored = [np.rint((frame.hu - frame.rescale[1]) / frame.rescale[0]).astype("<i2") for frame in frames]
    header.PixelData = np.stack(stored).tobytes()
    for keyword, value in tags.items():
        setattr(header, keyword, value)
    header.save_as(path, enforce_file_format=True)
    return path


def _groups(frame: Frame) -> Dataset:
    groups, content, position, rescale = Dataset(), Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [-100, -120, f"{frame.height:.6f}"]
    rescale.RescaleSlope, rescale.RescaleIntercept = frame.rescale
    rescale.RescaleType = "HU"
    if frame.time:
        content.TemporalPositionIndex = frame.time
    if frame.acquisition:
        content.FrameAcquisitionNumber = frame.acquisition
    groups.FrameContentSequence, groups.PlanePositionSequence = [content], [position]
    groups.PixelValueTransformationSequence = [rescale]
    return groups


def change_headers(folder: Path, **values: Sequence[Any]) -> Path:
    """Give each slice values of its own, valid or not, taken in turn; return the folder."""
    with pydicom.config.disable_value_validation():
        for index, path in enumerate(sorted(folder.iterdir())):
            image = pydicom.dcmread(path)
            for keyword, choices in values.items():
                setattr(image, keyword, choices[index % len(choices)])
            image.save_as(path)
    return folder
