"""DICOM segmentation objects: the tissues beside the CT they were found in, for archives and viewers.

highdicom writes them; it is optional (``pip install highdicom``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.export.dicom_sources import not_dicom, source_images
from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.tissues import CATEGORY, REGION, REPORTED, Code, Tissue
from DiffSegLungLib.version import __version__

if TYPE_CHECKING:
    from pydicom import Dataset

    from DiffSegLungLib.io.volume import Volume

PRODUCT = "DiffSegLung"
CORRECTED_WORDS = "corrected by hand"
CONTENT_LABEL = "DIFFSEGLUNG"
DESCRIPTION = "Lung tissues. Research use only, not for clinical use."
SERIES_OFFSET = 1000
"""Added to the CT's series number, so that the segmentation is listed behind it."""


def require_highdicom() -> None:
    """Says what to install.

    Raises:
        MissingPartError: highdicom is not there.
    """
    if find_spec("highdicom") is None:
        raise MissingPartError("DICOM segmentations need the package highdicom: pip install highdicom")


def require_dicom(source: Path) -> None:
    """A DICOM segmentation refers to the DICOM images it belongs to.

    Raises:
        UnusableInputError: the CT is a file of another format, or is not there.
    """
    from DiffSegLungLib.io.headers import is_dicom

    if not source.exists():
        raise UnusableInputError(f"{source}: no such file or folder; check the path.")
    if not source.is_dir() and not is_dicom(source):
        raise not_dicom(source.name)


def write_dicom_seg(
    path: str | Path,
    labels: np.ndarray,
    volume: Volume,
    corrected: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> None:
    """Writes a DICOM segmentation: binary, one segment for each tissue that has a voxel.

    Args:
        path: the file (.dcm).
        labels: (z, y, x) in canonical axes, label values of the tissue table.
        volume: the CT, read from DICOM.
        corrected: whether a person corrected it, which makes it semi-automatic.
        provenance: names and values stored as the algorithm's parameters, such as the model's checksum.

    Raises:
        UnusableInputError: the CT is no DICOM or its headers lack what a segmentation must refer to, no
            tissue has a voxel, or the file cannot be written.
        MissingPartError: highdicom is not installed.
    """
    dataset = build_dicom_seg(labels, volume, corrected, provenance)
    with atomic_path(path) as partial:
        dataset.save_as(partial)


def build_dicom_seg(
    labels: np.ndarray,
    volume: Volume,
    corrected: bool = False,
    provenance: Mapping[str, str] | None = None,
) -> Dataset:
    """The DICOM segmentation before it is written; see `write_dicom_seg`."""
    require_highdicom()
    images = source_images(volume)
    present = [tissue for tissue in REPORTED if (labels == tissue.label).any()]
    if not present:
        raise UnusableInputError("The segmentation is empty: there is nothing to write as DICOM.")
    pixels = _frames_of(images, _numbered(labels, present, volume), volume)
    dataset: Dataset = _segmentation(images, pixels, present, corrected, provenance)
    _tell_segment_by_frame(dataset)
    return dataset


def _numbered(labels: np.ndarray, present: Sequence[Tissue], volume: Volume) -> np.ndarray:
    """The label map on the CT's own slices, with the numbers 1, 2, ... of the segments."""
    import SimpleITK as sitk

    from DiffSegLungLib.io.volume import to_input_geometry

    numbers = np.zeros(256, np.uint8)
    for number, tissue in enumerate(present, start=1):
        numbers[tissue.label] = number
    return np.asarray(sitk.GetArrayFromImage(to_input_geometry(numbers[labels], volume)))


def _frames_of(images: list[Dataset], slices: np.ndarray, volume: Volume) -> np.ndarray:
    """The slices in the order of the images' frames; frames that were not read stay empty."""
    frames = int(images[0].get("NumberOfFrames") or 1)
    if len(images) > 1 or frames == 1:
        return slices
    ordered = np.zeros((frames, *slices.shape[1:]), slices.dtype)
    ordered[list(volume.dicom_frames)] = slices
    return ordered


def _tell_segment_by_frame(dataset: Dataset) -> None:
    """With one segment its number may stand once for all frames, where many viewers do not look."""
    import copy

    shared = dataset.SharedFunctionalGroupsSequence[0]
    keyword = "SegmentIdentificationSequence"
    if keyword in shared:
        for frame in dataset.PerFrameFunctionalGroupsSequence:
            setattr(frame, keyword, copy.deepcopy(shared.get(keyword)))
        delattr(shared, keyword)


def _segmentation(
    images: list[Dataset],
    pixels: np.ndarray,
    present: Sequence[Tissue],
    corrected: bool,
    provenance: Mapping[str, str] | None,
) -> Any:
    import highdicom

    algorithm = _algorithm(provenance)
    dataset = highdicom.seg.Segmentation(
        source_images=images,
        pixel_array=pixels,
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=[
            _description(number, tissue, corrected, algorithm)
            for number, tissue in enumerate(present, start=1)
        ],
        series_instance_uid=highdicom.UID(),
        series_number=int(images[0].get("SeriesNumber") or 0) + SERIES_OFFSET,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer=PRODUCT,
        manufacturer_model_name=PRODUCT,
        software_versions=__version__,
        device_serial_number=__version__,
        content_label=CONTENT_LABEL,
        content_description=DESCRIPTION,
    )
    dataset.SeriesDescription = f"{PRODUCT}, {CORRECTED_WORDS}" if corrected else PRODUCT
    dataset.ContentCreatorName = ""  # may be unknown, but must be there
    return dataset


def _algorithm(provenance: Mapping[str, str] | None) -> Any:
    import highdicom
    from pydicom.sr.codedict import codes

    return highdicom.AlgorithmIdentificationSequence(
        name=PRODUCT,
        family=codes.DCM.ArtificialIntelligence,
        version=__version__,
        parameters=dict(provenance) if provenance else None,
    )


def _description(number: int, tissue: Tissue, corrected: bool, algorithm: Any) -> Any:
    from highdicom.color import CIELabColor
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.uid import UID

    kinds = SegmentAlgorithmTypeValues
    return SegmentDescription(
        segment_number=number,
        segment_label=tissue.name,
        segmented_property_category=concept(CATEGORY),
        segmented_property_type=concept(tissue.code),
        algorithm_type=kinds.SEMIAUTOMATIC if corrected else kinds.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=UID(),
        tracking_id=f"{PRODUCT} {tissue.key}",
        anatomic_regions=[concept(REGION)],
        display_color=CIELabColor.from_rgb(*tissue.colour),
    )


def concept(code: Code) -> Any:
    """A code as highdicom wants it."""
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning)
