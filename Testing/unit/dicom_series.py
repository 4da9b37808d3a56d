"""Synthetic DICOM series of a CT, for the tests that read and write DICOM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

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
