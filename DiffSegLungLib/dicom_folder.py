"""Read a DICOM folder: order the slices of a series, and place them by their positions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .geometry import Geometry
from .image_files import Source, check_kind, check_spacing, quiet, read_file, unusable
from .series import DicomFile, choose_series, list_series

LARGEST_SLICE_SHIFT_MM = 5.0
MOST_MISSING_SLICES = 0.05
SMALLEST_TILT_DEGREES = 0.5


def read_dicom_folder(folder: Path, wanted: str | None = None) -> Source:
    """Read an axial CT series of a folder, the folders in it included.

    Args:
        folder: as an archive exports it.
        wanted: Series Number or Series Instance UID; None for the series with most slices.

    Raises:
        UnusableInputError: it holds no axial CT, not the one that is wanted, CT of several studies, or a
            series with too many gaps.
    """
    listing = list_series(folder)
    series, warnings = choose_series(listing, wanted, folder.name)
    if listing.damaged:
        warnings.append(f"DICOM files without a readable image, left out: {listing.damaged}.")
    name = f"CT series {series.number}".strip()
    files = series.to_read
    with quiet():
        if len(files) == 1:
            image, metadata = read_file(files[0].path, as_ct=True, name=name)
        else:
            files = _ordered(files, name)
            image, metadata = _read_series(files, name, warnings), files[0].acquisition
    return Source(image, name, metadata, warnings, tuple(file.path for file in files), name, listing.full)


def _read_series(ordered: list[DicomFile], name: str, warnings: list[str]) -> sitk.Image:
    check_kind(ordered[0].pixel, ordered[0].components, (*ordered[0].size[:2], len(ordered)), name)
    geometry = _series_geometry(ordered, name, warnings)
    check_spacing(geometry.spacing, name)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(file.path) for file in ordered])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        return geometry.place(reader.Execute())
    except RuntimeError as error:
        raise unusable(name, "a DICOM file of it is damaged; export the series again.") from error


def _ordered(series: list[DicomFile], name: str) -> list[DicomFile]:
    """Sort by position along the slice normal; the same slice stored twice counts once."""
    unique = list({file.instance or str(file.path): file for file in series}.values())
    normal = unique[0].normal
    ordered = sorted(unique, key=lambda file: float(np.dot(file.position, normal)))
    positions = [float(np.dot(file.position, normal)) for file in ordered]
    if len(positions) > 1 and np.diff(positions).min() < 0.01:
        raise unusable(name, "several images lie at one position (4D or mixed); give one time point only.")
    return ordered


def _series_geometry(ordered: list[DicomFile], name: str, warnings: list[str]) -> Geometry:
    """Place the stack by its slices' positions; the third direction column keeps a tilted gantry's shear."""
    first, count = ordered[0], len(ordered)
    positions = np.asarray([file.position for file in ordered])
    warnings += _check_distances(positions @ first.normal, name)
    step = (positions[-1] - positions[0]) / (count - 1)
    length = float(np.linalg.norm(step))
    tilt = math.degrees(math.acos(min(1.0, float(step @ first.normal) / length)))
    if tilt >= SMALLEST_TILT_DEGREES:
        warnings.append(
            f"The gantry was tilted by {tilt:.1f} degrees; the labels keep the sheared slices, "
            "which some programs do not show in the right place."
        )
    third = step / length if tilt >= SMALLEST_TILT_DEGREES else first.normal
    direction = np.column_stack([first.orientation[:3], first.orientation[3:], third])
    spacing = (*first.spacing[:2], length)
    return Geometry((*first.size[:2], count), spacing, first.position, tuple(direction.ravel().tolist()))


def _check_distances(heights: np.ndarray, name: str) -> list[str]:
    """Compare the slices' heights (mm) with the even grid that an image can hold."""
    even = np.linspace(heights[0], heights[-1], len(heights))
    shift = float(np.abs(heights - even).max())
    distances = np.diff(heights)
    missing = int(np.rint(distances / np.median(distances) - 1.0).clip(0).sum())
    reason = f"{missing} or more slices are missing" if missing else "the slices are unevenly spaced"
    if shift > LARGEST_SLICE_SHIFT_MM or missing > MOST_MISSING_SLICES * len(heights):
        raise unusable(name, f"{reason}, positions are off by up to {shift:.1f} mm; export all slices.")
    if shift > 0.1:
        return [f"{reason[0].upper()}{reason[1:]}; positions may be off by up to {shift:.1f} mm."]
    return []
