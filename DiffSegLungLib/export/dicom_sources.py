"""The CT's own headers as DICOM objects that refer to it may repeat them: what is invalid is left empty.

Archives and de-identifiers write words where dates belong, and names in character sets of several parts.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib.errors import UnusableInputError

if TYPE_CHECKING:
    from pydicom import Dataset
    from pydicom.dataelem import DataElement
    from pydicom.tag import BaseTag

    from DiffSegLungLib.io.dicom_images import Slice
    from DiffSegLungLib.io.volume import Volume

MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""What a segmentation repeats from the CT and may leave empty (type 2); a de-identified CT may lack it."""
MUST_BE_THERE = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID")
SEXES = ("M", "F", "O")
UNICODE = "ISO_IR 192"
WITHOUT_RULES = ("SQ", "OB", "OW", "OF", "OD", "OL", "OV", "UN", "US", "SS", "UL", "SL", "FL", "FD", "AT")
"""Value representations in which nothing is text."""


def source_images(volume: Volume) -> list[Dataset]:
    """The CT's headers, each file's once, in the order of its slices, complete enough to be referred to.

    Raises:
        UnusableInputError: the CT is no DICOM, or lacks what must be referred to.
    """
    if not volume.dicom_files:
        raise not_dicom(volume.name)
    files = list(dict.fromkeys(volume.dicom_files))
    images = [_read(file) for file in files]
    for image in images:
        _require_complete(image, volume.name)
        _complete(image, images[0])
        _tell_geometry(image, volume)
    return images


def require_referable(slices: list[Slice], name: str) -> None:
    """Refuses slices that a DICOM segmentation could not refer to.

    Raises:
        UnusableInputError: says why, and what to do.
    """
    files = {each.file.path: each.file for each in slices}
    if len(files) > 1 and any(len(file.planes) > 1 for file in files.values()):
        raise UnusableInputError(
            f"{name}: its slices lie in {len(files)} files, of which some hold many: a DICOM segmentation "
            "cannot refer to both; leave out --dicom-seg, or export the CT as single slices."
        )
    _require_complete(_read(slices[0].file.path), name)


def not_dicom(name: str) -> UnusableInputError:
    """The error of a CT that is no DICOM."""
    return UnusableInputError(
        f"{name} is no DICOM: a DICOM segmentation refers to the CT's own DICOM files; give their folder."
    )


def _require_complete(image: Dataset, name: str) -> None:
    missing = [keyword for keyword in MUST_BE_THERE if not image.get(keyword)]
    if missing:
        raise UnusableInputError(
            f"{name}: its DICOM headers have no {', '.join(missing)}; export the CT again."
        )


def _read(file: Path) -> Dataset:
    import pydicom

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = pydicom.dcmread(file, stop_before_pixels=True)
        _to_unicode(image)
        for tag in list(image.keys()):
            _mend(image, tag)
    return image


def _to_unicode(image: Dataset) -> None:
    """Names in any character set, decoded as their header says, and from here on in Unicode."""
    try:
        image.decode()
    except (LookupError, TypeError, UnicodeError, ValueError):  # unknown set: ASCII is what is left
        image.SpecificCharacterSet = ""
    image.SpecificCharacterSet = UNICODE


def _mend(image: Dataset, tag: BaseTag) -> None:
    """Leave empty what is no value of its kind."""
    try:
        element = image[tag]
    except Exception:  # pydicom converts it here, and has many ways to fail
        del image[tag]
        return
    if element.VR not in WITHOUT_RULES and not _is_valid(element):
        if element.keyword in MAY_BE_EMPTY:
            element.value = ""
        elif element.VR != "UI":  # a UID is a name: others may know it as it is
            del image[tag]


def _is_valid(element: DataElement) -> bool:
    from pydicom.config import RAISE
    from pydicom.valuerep import DA, DT, TM, validate_value

    values = element.value if element.VM > 1 else [element.value]
    exact = {"DA": DA, "TM": TM, "DT": DT}.get(element.VR)
    try:
        for value in values:
            if value in (None, ""):
                continue
            validate_value(element.VR, str(value), RAISE)
            if exact:
                exact(str(value))
    except (TypeError, ValueError):
        return False
    return element.keyword != "PatientSex" or element.value in ("", None, *SEXES)


def _tell_geometry(image: Dataset, volume: Volume) -> None:
    """Voxel size and axes as they were found: what a header says of the step is often wrong."""
    from pydicom import Dataset

    geometry = volume.input_geometry
    x, y, step = geometry.spacing
    normal = np.cross(geometry.matrix[:, 0], geometry.matrix[:, 1])
    between = step * float(geometry.matrix[:, 2] @ normal)  # less than the step where the gantry was tilted
    measures = image
    if "PerFrameFunctionalGroupsSequence" in image:
        measures, orientation = Dataset(), Dataset()
        measures.PixelSpacing = [y, x]
        orientation.ImageOrientationPatient = [*geometry.matrix[:, 0], *geometry.matrix[:, 1]]
        shared = (image.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
        shared.PixelMeasuresSequence, shared.PlaneOrientationSequence = [measures], [orientation]
        image.SharedFunctionalGroupsSequence = [shared]
    measures.SpacingBetweenSlices = between
    if not measures.get("SliceThickness"):
        measures.SliceThickness = between


def _complete(image: Dataset, first: Dataset) -> None:
    """What may be empty is there, and one frame of reference for all slices."""
    from pydicom.uid import UID, generate_uid

    for keyword in MAY_BE_EMPTY:
        if keyword not in image:
            setattr(image, keyword, "")
    known = first.get("FrameOfReferenceUID") or ""
    own = generate_uid(entropy_srcs=[str(first.get("SeriesInstanceUID") or first.SOPInstanceUID)])
    image.FrameOfReferenceUID = (
        known if UID(known).is_valid else own
    )  # the same in each run: later ones must fit together
