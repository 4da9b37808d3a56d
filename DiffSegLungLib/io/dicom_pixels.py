"""The values of DICOM slices in HU, each with the slope and intercept that belong to it.

GDCM unpacks what is compressed.  Where it would misread the rest of a header, it is given the stored values
alone, as a bare image.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import MultiFrameGrayscaleWordSecondaryCaptureImageStorage, generate_uid

from DiffSegLungLib.io.dicom_images import DicomFile, Slice

PIXELS = (
    "Rows", "Columns", "NumberOfFrames", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation",
    "PixelData",
)  # fmt: skip
"""All that a bare image keeps."""


def stack_hu(slices: Sequence[Slice]) -> np.ndarray:
    """HU of slices in their order, float32 (slice, y, x).

    Raises:
        RuntimeError: the pixels of a file cannot be read.
    """
    if all(each.file.plain for each in slices):
        try:
            return _plain(slices)
        except RuntimeError:  # GDCM stumbles over other fields, such as a step of 0
            pass
    columns, rows = slices[0].file.size
    hu = np.empty((len(slices), rows, columns), np.float32)
    for file in {id(each.file): each.file for each in slices}.values():
        stored = _stored(file)
        for index, each in enumerate(slices):
            if each.file is file:
                slope, intercept = each.plane.rescale
                hu[index] = stored[each.frame] * np.float32(slope) + np.float32(intercept)
    return hu


def slice_hu(each: Slice) -> np.ndarray:
    """HU of one slice, float32 (y, x); for errors see `stack_hu`."""
    return stack_hu([each])[0]


def _plain(slices: Sequence[Slice]) -> np.ndarray:
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(each.file.path) for each in slices])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    array = sitk.GetArrayFromImage(reader.Execute())
    return array.reshape(len(slices), *array.shape[-2:])


def _stored(file: DicomFile) -> np.ndarray:
    """The stored values of all frames, (frame, y, x)."""
    return _stored_in(file.path, (len(file.planes), *file.size[::-1]))


def forget() -> None:
    """Let go of the files that were read last."""
    _stored_in.cache_clear()


@lru_cache(maxsize=2)  # two multi-frame files whose frames are compared one by one
def _stored_in(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.dcm")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                _bare(path).save_as(bare, enforce_file_format=True)
        except Exception as error:  # pydicom has many ways to fail
            raise RuntimeError(str(error)) from error
        array = sitk.GetArrayFromImage(sitk.ReadImage(str(bare), imageIO="GDCMImageIO"))
    return array.reshape(shape)


def _bare(path: Path) -> Dataset:
    source = pydicom.dcmread(path)
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = source.file_meta.TransferSyntaxUID
    image.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    image.file_meta.MediaStorageSOPClassUID = image.SOPClassUID
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    for keyword in PIXELS:
        if keyword in source:
            image[keyword] = source[keyword]
    return image
