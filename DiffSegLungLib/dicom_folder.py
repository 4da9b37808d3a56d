"""Read a DICOM folder: choose the series, order its slices, and place them by their positions."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .acquisition import MODALITY_TAG, is_sharp, read_acquisition, tag_value
from .dicom_elements import values_fit
from .files import require_there
from .geometry import Geometry
from .headers import is_dicom
from .image_files import (
    FEWEST_SLICES,
    FORMATS,
    Source,
    check_kind,
    check_spacing,
    quiet,
    read_file,
    unusable,
)

LARGEST_SLICE_SHIFT_MM = 5.0
MOST_MISSING_SLICES = 0.05
SMALLEST_TILT_DEGREES = 0.5
STUDY_TAG = "0020|000d"


def read_dicom_folder(folder: Path) -> Source:
    """Read the axial CT series with most slices of a folder, the folders in it included.

    Raises:
        UnusableInputError: it holds no axial CT, CT of several studies, or a series with too many gaps.
    """
    with quiet():
        found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in found:  # left out unseen, its slices would be missing
            require_there(path)
        headers = {path: _header(path) for path in found}
        files = [header for header in headers.values() if header]
        if not files:
            raise unusable(folder.name, f"no DICOM images in this folder; give {FORMATS}.")
        series, warnings = _choose_series(files, folder.name)
        damaged = sum(is_dicom(path) for path, header in headers.items() if not header)
        if damaged:
            warnings.append(f"DICOM files without a readable image, left out: {damaged}.")
        name = f"CT series {series[0].number}".strip()
        if len(series) == 1:
            image, metadata = read_file(series[0].path, as_ct=True)
            return Source(image, name, metadata, warnings, (series[0].path,))
        ordered = _ordered(series, name)
        image = _read_series(ordered, name, warnings)
        files_in_order = tuple(file.path for file in ordered)
        return Source(image, name, series[0].acquisition, warnings, files_in_order)


def study_of(path: Path) -> str | None:
    """The study UID of a DICOM image, empty where it has none; None for what is no image."""
    if not values_fit(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    with quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    return tag_value(reader, STUDY_TAG)


# --- the header of one file -----------------------------------------------------------------------


@dataclass(frozen=True)
class _DicomFile:
    path: Path
    study: str
    series: str
    number: str
    instance: str
    modality: str
    is_localizer: bool
    orientation: tuple[float, ...]
    position: tuple[float, ...]
    size: tuple[int, ...]
    spacing: tuple[float, ...]
    pixel: int
    components: int
    acquisition: dict[str, str]

    @property
    def normal(self) -> np.ndarray:
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def frames(self) -> int:
        return self.size[2] if len(self.size) > 2 else 1

    @property
    def is_axial_ct(self) -> bool:
        # A gantry tilts by 30 degrees at most; coronal and sagittal reformats lie at 90.
        placed = len(self.orientation) == 6 and len(self.position) == 3
        return self.modality == "CT" and not self.is_localizer and placed and abs(self.normal[2]) > 0.75


def _header(path: Path) -> _DicomFile | None:
    if not values_fit(path):
        return None
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    size = reader.GetSize()
    # A multi-frame file tells its geometry frame by frame, out of reach of plain tags; the reader knows it.
    in_frames = reader.GetDirection() if len(size) == 3 and size[2] > 1 else ()
    return _DicomFile(
        path=path,
        study=tag_value(reader, STUDY_TAG),
        series=tag_value(reader, "0020|000e"),
        number=_whole_number(tag_value(reader, "0020|0011")),
        instance=tag_value(reader, "0008|0018"),
        modality=tag_value(reader, MODALITY_TAG),
        is_localizer="LOCALIZER" in tag_value(reader, "0008|0008").upper(),
        orientation=_numbers(tag_value(reader, "0020|0037"), 6) or (in_frames[0::3] + in_frames[1::3]),
        position=_numbers(tag_value(reader, "0020|0032"), 3) or (reader.GetOrigin() if in_frames else ()),
        size=size,
        spacing=reader.GetSpacing(),
        pixel=reader.GetPixelID(),
        components=reader.GetNumberOfComponents(),
        acquisition=read_acquisition(reader),
    )


def _whole_number(text: str) -> str:
    """The number of a series as text; what is none is left out, since it goes into names and titles."""
    return text if re.fullmatch(r"-?\d{1,11}", text) else ""


def _numbers(text: str, count: int) -> tuple[float, ...]:
    parts = text.split("\\")
    try:
        return tuple(float(part) for part in parts) if len(parts) == count else ()
    except ValueError:
        return ()


# --- which series ---------------------------------------------------------------------------------


def _choose_series(files: list[_DicomFile], name: str) -> tuple[list[_DicomFile], list[str]]:
    """Return the axial CT series with most slices, and a warning that lists the others.

    Of series with as many slices, one with a soft kernel is taken, since a sharp one adds false emphysema.
    """
    candidates: dict[tuple[object, ...], list[_DicomFile]] = {}
    for file in files:
        if file.is_axial_ct:
            spacing = tuple(round(step, 3) for step in file.spacing[:2])
            grid = (file.size[:2], spacing, tuple(round(cosine, 2) for cosine in file.orientation))
            candidates.setdefault((file.series, *grid), []).append(file)
    if not candidates:
        kinds = ", ".join(sorted({file.modality or "unknown" for file in files}))
        raise unusable(name, f"no axial CT series in this folder (modality {kinds}); give a chest CT.")
    _require_one_study(candidates.values(), name)
    ranked = sorted(candidates.values(), key=_rank)
    chosen = max(ranked[0], key=lambda file: file.frames)
    chosen_series = ranked[0] if chosen.frames == 1 else [chosen]
    real = [series for series in ranked if sum(file.frames for file in series) >= FEWEST_SLICES]
    if len(real) < 2:
        return chosen_series, []
    number = chosen.number or "unknown"
    others = ", ".join(_description(series) for series in real if chosen not in series)
    return chosen_series, [
        f"The folder holds {len(real)} axial CT series; series number {number} was taken, "
        f"the one with most slices ({_slices(chosen_series)}); not taken: {others}."
    ]


def _slices(series: list[_DicomFile]) -> int:
    return sum(file.frames for file in series)


def _rank(series: list[_DicomFile]) -> tuple[int, bool]:
    """Smallest first: most slices, then a soft kernel."""
    return -_slices(series), is_sharp(series[0].acquisition.get("kernel", ""))


def _description(series: list[_DicomFile]) -> str:
    kernel = series[0].acquisition.get("kernel", "")
    return f"{series[0].number or 'unknown'} ({_slices(series)} slices{', ' + kernel if kernel else ''})"


def _require_one_study(candidates: Iterable[list[_DicomFile]], name: str) -> None:
    """Two studies are two points in time or two patients: none may be picked unasked."""
    full = [series for series in candidates if _slices(series) >= FEWEST_SLICES]
    studies = {series[0].study for series in full}
    if len(studies) > 1:
        raise unusable(name, f"CT of {len(studies)} studies lie in this folder; give a folder of one study.")


# --- from slices to a stack -----------------------------------------------------------------------


def _read_series(ordered: list[_DicomFile], name: str, warnings: list[str]) -> sitk.Image:
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


def _ordered(series: list[_DicomFile], name: str) -> list[_DicomFile]:
    """Sort by position along the slice normal; the same slice stored twice counts once."""
    unique = list({file.instance or str(file.path): file for file in series}.values())
    normal = unique[0].normal
    ordered = sorted(unique, key=lambda file: float(np.dot(file.position, normal)))
    positions = [float(np.dot(file.position, normal)) for file in ordered]
    if len(positions) > 1 and np.diff(positions).min() < 0.01:
        raise unusable(name, "several images lie at one position (4D or mixed); give one time point only.")
    return ordered


def _series_geometry(ordered: list[_DicomFile], name: str, warnings: list[str]) -> Geometry:
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
