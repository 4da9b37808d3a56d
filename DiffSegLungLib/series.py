"""Which CT series a DICOM folder holds, and which of them is read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from .acquisition import MODALITY_TAG, is_sharp, read_acquisition, tag_value
from .dicom_elements import fault_of_values
from .files import require_there
from .headers import is_dicom
from .image_files import FEWEST_SLICES, FORMATS, quiet, unusable

STUDY_TAG = "0020|000d"


@dataclass(frozen=True)
class Series:
    """One axial CT series: images of one size, spacing and orientation.

    Attributes:
        files: its images, in no order.
    """

    files: tuple[DicomFile, ...]

    @property
    def uid(self) -> str:
        """Series Instance UID."""
        return self.files[0].series

    @property
    def study(self) -> str:
        """Study Instance UID."""
        return self.files[0].study

    @property
    def number(self) -> str:
        """Series Number, empty where there is none."""
        return self.files[0].number

    @property
    def kernel(self) -> str:
        """Convolution kernel, empty where it is not told."""
        return self.files[0].acquisition.get("kernel", "")

    @property
    def thickness_mm(self) -> str:
        """Slice thickness, empty where it is not told."""
        return self.files[0].acquisition.get("slice_thickness_mm", "")

    @property
    def slices(self) -> int:
        """How many."""
        return sum(file.frames for file in self.files)

    @property
    def text(self) -> str:
        """Number, slices and kernel, for people; nothing that tells who it is."""
        kernel = f", {self.kernel}" if self.kernel else ""
        return f"{self.number or 'unknown'} ({self.slices} slices{kernel})"

    @property
    def to_read(self) -> list[DicomFile]:
        """Its images, or the largest multi-frame one alone."""
        largest = max(self.files, key=lambda file: file.frames)
        return list(self.files) if largest.frames == 1 else [largest]


@dataclass(frozen=True)
class Listing:
    """The CT of a DICOM folder.

    Attributes:
        series: those with enough slices first; the first one is read unless another is asked for.
        damaged: how many DICOM files hold no readable image.
    """

    series: tuple[Series, ...]
    damaged: int

    @property
    def full(self) -> tuple[Series, ...]:
        """The series with enough slices to be a CT of the chest."""
        return tuple(each for each in self.series if each.slices >= FEWEST_SLICES)


def list_series(folder: Path) -> Listing:
    """Read every header of a folder, the folders in it included.

    Of series with as many slices, one with a soft kernel comes first: a sharp one adds false emphysema.

    Raises:
        UnusableInputError: a file may not be read, or there is no axial CT.
    """
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in found:  # left out unseen, its slices would be missing
        require_there(path)
    with quiet():
        headers = {path: _header(path) for path in found}
    files = [header for header in headers.values() if header]
    if not files:
        raise unusable(folder.name, f"no DICOM images in this folder; give {FORMATS}.")
    candidates: dict[tuple[object, ...], list[DicomFile]] = {}
    for file in files:
        if file.is_axial_ct:
            candidates.setdefault((file.series, *file.grid), []).append(file)
    if not candidates:
        kinds = ", ".join(sorted({file.modality or "unknown" for file in files}))
        raise unusable(folder.name, f"no axial CT series in this folder (modality {kinds}); give a chest CT.")
    series = sorted((Series(tuple(group)) for group in candidates.values()), key=_rank)
    damaged = sum(is_dicom(path) for path, header in headers.items() if not header)
    return Listing(tuple(series), damaged)


def choose_series(listing: Listing, wanted: str | None, name: str) -> tuple[Series, list[str]]:
    """The series that is asked for, or the one with most slices; and a warning that lists the others.

    Args:
        listing: of the folder.
        wanted: Series Number or Series Instance UID; None for the one with most slices.
        name: of the folder, for messages.

    Raises:
        UnusableInputError: there is no such series, several have the number, or, unasked, the folder holds
            several studies.
    """
    full = listing.full
    chosen = _wanted(listing.series, wanted, name) if wanted else _most(listing, name)
    if len(full) < 2 or chosen not in full:
        return chosen, []
    reason = "as asked for" if wanted else "the one with most slices"
    others = ", ".join(each.text for each in full if each is not chosen)
    return chosen, [
        f"The folder holds {len(full)} axial CT series; series number {chosen.number or 'unknown'} was "
        f"taken, {reason} ({sum(file.frames for file in chosen.to_read)}); not taken: {others}."
    ]


def _wanted(series: Sequence[Series], wanted: str, name: str) -> Series:
    fitting = [each for each in series if wanted in (each.number, each.uid)]
    if not fitting:
        known = ", ".join(each.text for each in series)
        raise unusable(name, f"no axial CT series {wanted}; choose one of {known} with --series.")
    if len({each.uid for each in fitting}) > 1:
        raise unusable(
            name,
            f"{len(fitting)} series have the number {wanted}; give --series the UID of one, "
            "which 'diffseglung check FOLDER' lists.",
        )
    return fitting[0]  # of one UID and two grids the larger one, as without a wish


def _most(listing: Listing, name: str) -> Series:
    """Two studies are two points in time or two patients: none may be picked unasked."""
    studies = len({each.study for each in listing.full})
    if studies > 1:
        known = ", ".join(each.text for each in listing.full)
        raise unusable(
            name,
            f"CT of {studies} studies lie in this folder; give a folder of one study, or choose one of "
            f"{known} with --series.",
        )
    return listing.series[0]


def _rank(series: Series) -> tuple[int, bool]:
    """Smallest first: most slices, then a soft kernel."""
    return -series.slices, is_sharp(series.kernel)


def study_of(path: Path) -> str | None:
    """The study UID of a DICOM image, empty where it has none; None for what is no image."""
    with quiet():
        header = _header(path)
    return None if header is None else header.study


# --- the header of one file -----------------------------------------------------------------------


@dataclass(frozen=True)
class DicomFile:
    """What the header of one image tells."""

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
        """Of the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def frames(self) -> int:
        """Slices in the file."""
        return self.size[2] if len(self.size) > 2 else 1

    @property
    def grid(self) -> tuple[object, ...]:
        """What all images of a stack have in common."""
        spacing = tuple(round(step, 3) for step in self.spacing[:2])
        return self.size[:2], spacing, tuple(round(cosine, 2) for cosine in self.orientation)

    @property
    def is_axial_ct(self) -> bool:
        """Whether it can be a slice of a chest CT: no scout, no reformat."""
        # A gantry tilts by 30 degrees at most; coronal and sagittal reformats lie at 90.
        placed = len(self.orientation) == 6 and len(self.position) == 3
        return self.modality == "CT" and not self.is_localizer and placed and abs(self.normal[2]) > 0.75


def _header(path: Path) -> DicomFile | None:
    if fault_of_values(path):
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
    return DicomFile(
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
