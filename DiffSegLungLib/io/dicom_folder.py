"""Read a DICOM folder or a multi-frame file: one scan, its slices ordered and placed by their positions."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.io.dicom_images import Slice
from DiffSegLungLib.io.dicom_pixels import forget, stack_hu
from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.image_files import check_kind, check_size, check_spacing, quiet, unusable
from DiffSegLungLib.io.scans import heights, one_scan
from DiffSegLungLib.io.series import Series, choose_series, list_series, series_of_file
from DiffSegLungLib.io.source import Source

LARGEST_SLICE_SHIFT_MM = 5.0
MOST_MISSING_SLICES = 0.05
SMALLEST_TILT_DEGREES = 0.5
SAME_STEP = 0.1
"""What steps may differ by and still be one, as a share; of a multiple, in steps."""
GAP_MM, GAP_SHARE = 3.0, 0.5
"""Slices with gaps: from this step on, thinner than this share of it."""


def read_dicom_folder(folder: Path, wanted: str | None = None) -> Source:
    """Read an axial CT series of a folder, the folders in it included.

    Args:
        folder: as an archive exports it.
        wanted: Series Number or Series Instance UID; None for the one that a reader would take.

    Raises:
        UnusableInputError: it holds no axial CT, not the one that is wanted, CT of several studies or
            patients, or a series with several scans or too many gaps.
    """
    listing = list_series(folder)
    series, warnings = choose_series(listing, wanted, folder.name)
    if listing.damaged:
        warnings.append(f"DICOM files without a readable image, left out: {listing.damaged}.")
    title = f"CT series {series.number}".strip()
    return _read(series, title, title, warnings, listing.full)


def find_slices(folder: Path, wanted: str | None = None) -> tuple[list[Slice], Geometry, str]:
    """The slices that `read_dicom_folder` reads, their grid and a name for messages, without their values.

    Raises:
        UnusableInputError: as `read_dicom_folder`.
    """
    series, _ = choose_series(list_series(folder), wanted, folder.name)
    name = f"CT series {series.number}".strip()
    slices, _ = one_scan(series.stack, name)
    forget()
    return slices, _grid(slices, name, []), name


def read_multi_frame(path: Path, name: str) -> Source | None:
    """Read an Enhanced CT as if its frames were single slices; None for a file of one frame.

    Args:
        path: a DICOM file.
        name: for messages.

    Raises:
        UnusableInputError: as for a folder.
    """
    series = series_of_file(path)
    return None if series is None else _read(series, name, "CT", [], ())


def _read(series: Series, name: str, title: str, warnings: list[str], listed: tuple[Series, ...]) -> Source:
    slices, left_out = one_scan(series.stack, name)
    warnings += left_out
    geometry = _grid(slices, name, warnings)
    check_size(geometry.size, 1, name)
    warnings += _gap_warnings(geometry.spacing[2], series.thickness_mm)
    try:
        with quiet():
            image = geometry.place(sitk.GetImageFromArray(stack_hu(slices)))
    except (RuntimeError, ValueError) as error:
        raise unusable(name, "a DICOM file of it is damaged; export the series again.") from error
    finally:
        forget()
    return Source(
        image,
        name,
        slices[0].file.acquisition,
        warnings,
        tuple(each.file.path for each in slices),
        title,
        listed,
        tuple(each.frame for each in slices),
    )


def _grid(slices: list[Slice], name: str, warnings: list[str]) -> Geometry:
    """The grid of slices that can be a CT by their headers."""
    if not slices[0].plane.spacing:
        raise unusable(name, "its headers do not tell the pixel spacing; export the CT again.")
    first = slices[0].file
    check_kind(first.pixel, first.components, (*first.size, len(slices)), name)
    geometry = stack_geometry(slices, name, warnings)
    check_spacing(geometry.spacing, name)
    return geometry


def stack_geometry(ordered: list[Slice], name: str, warnings: list[str]) -> Geometry:
    """Place the stack by its slices' positions; the third direction column keeps a tilted gantry's shear.

    Raises:
        UnusableInputError: the slices lie on no even grid.
    """
    first, count = ordered[0].plane, len(ordered)
    positions = np.asarray([each.plane.position for each in ordered])
    warnings += _check_distances(heights(ordered), name)
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
    direction /= np.linalg.norm(direction, axis=0)  # headers round; a file that is read back has unit axes
    size = (*ordered[0].file.size, count)
    return Geometry(size, (*first.spacing, length), first.position, tuple(direction.ravel().tolist()))


def _check_distances(places: np.ndarray, name: str) -> list[str]:
    """Compare the slices' heights (mm) with the even grid that an image can hold."""
    even = np.linspace(places[0], places[-1], len(places))
    shift = float(np.abs(places - even).max())
    steps = np.diff(places)
    two = _two_steps(steps)
    if two and shift > two[0] / 2:
        raise unusable(
            name,
            f"its slices lie at two distances, {two[0]:.3g} and {two[1]:.3g} mm, none is missing; give the "
            "part with one distance, or reconstruct the CT with one.",
        )
    missing = int(np.rint(steps / np.median(steps) - 1.0).clip(0).sum())
    reason = f"{missing} or more slices are missing" if missing else "the slices are unevenly spaced"
    remedy = "export all slices" if missing else "reconstruct the CT with one distance between slices"
    if shift > LARGEST_SLICE_SHIFT_MM or missing > MOST_MISSING_SLICES * len(places):
        raise unusable(name, f"{reason}, positions are off by up to {shift:.1f} mm; {remedy}.")
    if shift > 0.1 or missing:
        return [f"{reason[0].upper()}{reason[1:]}; positions may be off by up to {shift:.1f} mm."]
    return []


def _two_steps(steps: np.ndarray) -> tuple[float, float] | None:
    """The shorter and the longer distance of a CT that was made with two; None for any other.

    A long one that is a multiple of the short one is a gap, unless it comes again and again in a row.
    """
    short = float(np.median(steps[steps < steps.mean()])) if np.ptp(steps) else float(steps[0])
    is_long = steps > short * (1 + SAME_STEP)
    if np.count_nonzero(is_long) < 3:
        return None
    long = float(np.median(steps[is_long]))
    alike = np.abs(np.where(is_long, steps / long, steps / short) - 1) < SAME_STEP
    share_of_step = abs(long / short - round(long / short))
    in_a_row = np.count_nonzero(is_long[1:] & is_long[:-1]) >= np.count_nonzero(is_long) / 2
    is_clean = np.count_nonzero(~alike) <= 1  # where one passes into the other
    return (short, long) if is_clean and (share_of_step > SAME_STEP or in_a_row) else None


def _gap_warnings(step: float, thickness: str) -> list[str]:
    """High-resolution CT in steps: most of the lung lies between the slices."""
    try:
        thick = float(thickness)
    except ValueError:
        return []
    if step < GAP_MM or not 0 < thick < GAP_SHARE * step:
        return []
    return [
        f"Slices of {thick:g} mm lie {step:.3g} mm apart: {thick / step:.0%} of the lungs were seen, and "
        "volumes are extrapolated from it."
    ]
