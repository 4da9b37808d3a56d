"""Which CT series a DICOM folder holds, and which of them is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from DiffSegLungLib.io.acquisition import is_sharp
from DiffSegLungLib.io.dicom_images import HOUNSFIELD, DicomFile, Slice, read_header, slices_of
from DiffSegLungLib.io.files import files_below, require_there
from DiffSegLungLib.io.headers import is_dicom
from DiffSegLungLib.io.image_files import FEWEST_SLICES, FORMATS, quiet, unusable

SAME_SPACING, SAME_COSINE = 1e-3, 0.01
"""What slices of one stack may differ by: a share of the pixel spacing, and each cosine."""
SHORTEST_CHEST_MM = 80.0
"""What reaches less far is no CT of a chest, such as the slices that watch a bolus arrive."""
NOT_DENSITY = re.compile(
    r"\b(M(IN|AX)?IP|MINIMUM|MAXIMUM|PROJECTION IMAGE|SUBTRACTION|RESAMPLED_MIP|"
    r"IODINE|EFF_Z|EFFECTIVE_Z|ELECTRON_DENSITY|PERFUSION|FUSION|OVERLAY)\b"
)
"""Words of Image Type for what is computed of a CT and no longer its density."""
MAP_TAKEN = "The series is a projection or a map: its values are not those of the lung, nor are the numbers."


@dataclass(frozen=True)
class Series:
    """One axial CT series: slices of one patient, size, spacing and orientation.

    Attributes:
        stack: its slices, in no order.
    """

    stack: tuple[Slice, ...]

    @property
    def first(self) -> DicomFile:
        """Any of its files, for what all of them tell."""
        return self.stack[0].file

    @cached_property
    def files(self) -> tuple[DicomFile, ...]:
        """Its files, each once."""
        return tuple({id(each.file): each.file for each in self.stack}.values())

    @property
    def uid(self) -> str:
        """Series Instance UID."""
        return self.first.series

    @property
    def study(self) -> str:
        """Study Instance UID."""
        return self.first.study

    @property
    def number(self) -> str:
        """Series Number, empty where there is none."""
        return self.first.number

    @property
    def kernel(self) -> str:
        """Convolution kernel, empty where it is not told."""
        return self.first.acquisition.get("kernel", "")

    @property
    def thickness_mm(self) -> str:
        """Slice thickness, empty where it is not told."""
        return self.first.acquisition.get("slice_thickness_mm", "")

    @property
    def slices(self) -> int:
        """How many."""
        return len(self.stack)

    @cached_property
    def reach_mm(self) -> float:
        """From the lowest slice to the highest."""
        normal = self.stack[0].plane.normal
        heights = [float(np.dot(each.plane.position, normal)) for each in self.stack]
        return max(heights) - min(heights)

    @property
    def is_map(self) -> bool:
        """Whether it is a projection, or a map of something else than density."""
        plane = self.stack[0].plane
        return plane.unit not in HOUNSFIELD or NOT_DENSITY.search("\n".join(plane.kind)) is not None

    @property
    def is_original(self) -> bool:
        """Whether a scanner made it; unknown counts as made by one."""
        return "DERIVED" not in self.stack[0].plane.kind

    @property
    def text(self) -> str:
        """Number, slices and kernel, for people; nothing that tells who it is."""
        facts = [f"{self.slices} slices", self.kernel, "" if self.is_original else "derived"]
        return f"{self.number or 'unknown'} ({', '.join(filter(None, facts))})"


@dataclass(frozen=True)
class Listing:
    """The CT of a DICOM folder.

    Attributes:
        series: those that a reader would take first come first; the first is read unless another is asked
            for.
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

    Density goes before projections and maps, what reaches over a chest before what does not, originals before
    what was derived of them, then most slices, then a soft kernel: a sharp one adds false emphysema.

    Raises:
        UnusableInputError: a file may not be read, or there is no axial CT.
    """
    found = files_below(folder)
    for path in found:  # left out unseen, its slices would be missing
        require_there(path)
    with quiet():
        headers = {path: read_header(path) for path in found}
    files = [header for header in headers.values() if header]
    if not files:
        raise unusable(folder.name, f"no DICOM images in this folder; give {FORMATS}.")
    stacks = _stacks(each for each in slices_of(files) if each.is_axial_ct)
    if not stacks:
        raise _no_axial_ct(files, folder.name)
    damaged = sum(is_dicom(path) for path, header in headers.items() if not header)
    return Listing(tuple(sorted((Series(tuple(stack)) for stack in stacks), key=_rank)), damaged)


def series_of_file(path: Path) -> Series | None:
    """The axial CT of one multi-frame file; None for any other file."""
    with quiet():
        header = read_header(path)
    if header is None or len(header.planes) < 2:
        return None
    stacks = _stacks(each for each in slices_of([header]) if each.is_axial_ct)
    if not stacks:
        raise _no_axial_ct([header], path.name, "DICOM file")
    return min((Series(tuple(stack)) for stack in stacks), key=_rank)


def _no_axial_ct(files: Sequence[DicomFile], name: str, place: str = "folder") -> Exception:
    if any(file.modality == "CT" and not file.planes[0].position for file in files):
        return unusable(name, "its CT images do not say where they lie; export the CT again, by slices.")
    kinds = ", ".join(sorted({file.modality or "unknown" for file in files}))
    return unusable(name, f"no axial CT series in this {place} (modality {kinds}); give a chest CT.")


def _stacks(slices: Iterable[Slice]) -> list[list[Slice]]:
    """Slices of one series, patient, frame of reference, size, spacing and orientation, apart from others."""
    given = list(slices)
    stacks: dict[tuple[object, ...], list[list[Slice]]] = {}
    frames = _frames_of_reference(given)
    for each in given:
        file = each.file
        frame_of_reference = frames.get(file.series, file.frame_of_reference)
        key = (file.series, file.patient, frame_of_reference, file.size)
        alike = stacks.setdefault(key, [])
        own = next((stack for stack in alike if _same_grid(stack[0], each)), None)
        if own is None:
            alike.append([each])
        else:
            own.append(each)
    return [stack for alike in stacks.values() for stack in alike]


def _frames_of_reference(slices: Sequence[Slice]) -> dict[str, str]:
    """For series in which nearly each file has a frame of reference of its own, one for all.

    Some de-identifiers give a new one to each file; it then tells nothing.
    """
    files = {each.file.path: each.file for each in slices}.values()
    known: dict[str, list[str]] = {}
    for file in files:
        known.setdefault(file.series, []).append(file.frame_of_reference)
    return {series: "" for series, each in known.items() if len(set(each)) > max(2, len(each) / 4)}


def _same_grid(first: Slice, second: Slice) -> bool:
    ours, theirs = first.plane, second.plane
    if len(ours.spacing) != len(theirs.spacing):
        return False
    return bool(
        np.allclose(ours.spacing, theirs.spacing, rtol=SAME_SPACING, atol=0)
        and np.allclose(ours.orientation, theirs.orientation, rtol=0, atol=SAME_COSINE)
    )


def choose_series(listing: Listing, wanted: str | None, name: str) -> tuple[Series, list[str]]:
    """The series that is asked for, or the best of them; and a warning that lists the others.

    Args:
        listing: of the folder.
        wanted: Series Number or Series Instance UID; None for the first of the listing.
        name: of the folder, for messages.

    Raises:
        UnusableInputError: there is no such series, several have the number, or, unasked, the folder holds
            several studies or patients.
    """
    full = listing.full
    chosen = _wanted(listing.series, wanted, name) if wanted else _best(listing, name)
    warnings = [MAP_TAKEN] if chosen.is_map else []
    if len(full) < 2 or chosen not in full:
        return chosen, warnings
    most = all(chosen.slices >= each.slices for each in full)
    reason = "the one with most slices" if most else "the original with most slices"
    others = ", ".join(each.text for each in full if each is not chosen)
    return chosen, [
        *warnings,
        f"The folder holds {len(full)} axial CT series; series number {chosen.number or 'unknown'} was "
        f"taken, {'as asked for' if wanted else reason} ({chosen.slices}); not taken: {others}.",
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
    _require_one_patient(fitting, name)
    return fitting[0]  # of one UID and two grids the larger one, as without a wish


def _best(listing: Listing, name: str) -> Series:
    """Two studies are two points in time or two patients: none may be picked unasked."""
    _require_one_patient(listing.full, name)
    studies = len({each.study for each in listing.full})
    if studies > 1:
        known = ", ".join(each.text for each in listing.full)
        raise unusable(
            name,
            f"CT of {studies} studies lie in this folder; give a folder of one study, or choose one of "
            f"{known} with --series.",
        )
    best = listing.series[0]
    if best.is_map:
        raise unusable(
            name,
            f"its only CT series, {best.text}, is a projection or a map, not density; give the original "
            f"series, or take this one with --series {best.number or best.uid}.",
        )
    return best


def _require_one_patient(series: Sequence[Series], name: str) -> None:
    """Identifiers may be wrong: of two patients under one UID none may be picked, and none merged."""
    patients = {(each.study, each.first.patient) for each in series}
    if len(patients) > len({study for study, _ in patients}):
        raise unusable(
            name, f"CT of {len(patients)} patients lie under one study; give a folder of one patient."
        )


def _rank(series: Series) -> tuple[object, ...]:
    """Smallest first."""
    too_few, too_short = series.slices < FEWEST_SLICES, series.reach_mm < SHORTEST_CHEST_MM
    kind = (too_few, series.is_map, too_short, not series.is_original)
    return (*kind, -series.slices, is_sharp(series.kernel))


def study_of(path: Path) -> tuple[str, str] | None:
    """Study UID and patient's code of a DICOM image, empty where it has none; None for what is no image."""
    with quiet():
        header = read_header(path)
    return None if header is None else (header.study, header.patient)
