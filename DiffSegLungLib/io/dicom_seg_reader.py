"""Read a DICOM segmentation, ours or another's, as an image with the header fields of a ``.seg.nrrd``.

So all that reads segments by code, ID or name reads it, too.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.dataset import Dataset

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.headers import fault_of_header, is_dicom
from DiffSegLungLib.io.image_files import unusable
from DiffSegLungLib.io.multiframe import planes_of
from DiffSegLungLib.io.planes import Plane
from DiffSegLungLib.terminology import TAG, Terminology
from DiffSegLungLib.tissues import BY_KEY, Code

SEGMENTATIONS = ("1.2.840.10008.5.1.4.1.1.66.4", "1.2.840.10008.5.1.4.1.1.66.7")
"""Segmentation Storage and Label Map Segmentation Storage."""
OUR_TRACKING = "DiffSegLung "
SAME_PLACE_MM = 0.01
MORE_THAN_HALF = 0.5


def is_dicom_segmentation(path: Path) -> bool:
    """Whether a file is a DICOM segmentation object."""
    if not path.is_file() or not is_dicom(path) or fault_of_header(path):
        return False
    return str(pydicom.dcmread(path, specific_tags=["SOPClassUID"]).get("SOPClassUID")) in SEGMENTATIONS


def read_dicom_segmentation(path: Path) -> sitk.Image:
    """The segments of a DICOM segmentation as label maps.

    Returns:
        uint8 or uint16 labels, a component for each layer of segments that overlap, with the header fields of
        ``segmentations``.

    Raises:
        UnusableInputError: it cannot be read, or is no stack of slices.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _read(pydicom.dcmread(path), path.name)
    except UnusableInputError:
        raise
    except Exception as error:  # pydicom has many ways to fail
        raise unusable(path.name, "the DICOM segmentation is damaged; export it again.") from error


def _read(dataset: Dataset, name: str) -> sitk.Image:
    planes = planes_of(dataset)
    if not planes[0].position or not planes[0].orientation or not planes[0].spacing:
        raise unusable(name, "the DICOM segmentation does not say where it lies; export it again.")
    frames = dataset.pixel_array.reshape(len(planes), dataset.Rows, dataset.Columns)
    origin, axes, places = _grid(planes)
    masks = _masks(dataset, frames, places)
    layers, layer_of = _layers(masks, (max(places) + 1, *frames.shape[1:]))
    image = (
        sitk.GetImageFromArray(np.stack(layers, axis=-1), isVector=True)
        if len(layers) > 1
        else (sitk.GetImageFromArray(layers[0]))
    )
    spacing = np.linalg.norm(axes, axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(origin.tolist())
    image.SetDirection((axes / spacing).ravel().tolist())
    for index, segment in enumerate(dataset.SegmentSequence):
        fields = _fields(segment, layer_of.get(int(segment.SegmentNumber), 0))
        for key, value in fields.items():
            image.SetMetaData(f"Segment{index}_{key}", value)
    return image


def _grid(planes: Sequence[Plane]) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Position of the first slice, the axes (columns, mm a voxel), and the slice of each frame."""
    first = planes[0]
    positions = np.asarray([plane.position for plane in planes])
    heights = positions @ first.normal
    distances = np.diff(np.unique(np.round(heights / SAME_PLACE_MM))) * SAME_PLACE_MM
    step = float(distances.min()) if len(distances) else 1.0
    places = np.rint((heights - heights.min()) / step).astype(int)
    lowest, highest = positions[heights.argmin()], positions[heights.argmax()]
    along = (highest - lowest) / places.max() if places.max() else first.normal * step
    in_plane = [np.asarray(first.orientation[:3]) * first.spacing[0]]
    in_plane.append(np.asarray(first.orientation[3:]) * first.spacing[1])
    return lowest, np.column_stack([*in_plane, along]), places.tolist()


def _masks(
    dataset: Dataset, frames: np.ndarray, places: Sequence[int]
) -> dict[int, list[tuple[int, np.ndarray]]]:
    """By segment number the slices in which it lies, each with its mask (y, x)."""
    kind = str(dataset.get("SegmentationType", "BINARY"))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    masks: dict[int, list[tuple[int, np.ndarray]]] = {}
    for frame, place, own in zip(frames, places, dataset.PerFrameFunctionalGroupsSequence, strict=True):
        if kind == "LABELMAP":
            for number in np.unique(frame[frame > 0]).tolist():
                masks.setdefault(number, []).append((place, frame == number))
            continue
        least = MORE_THAN_HALF * int(dataset.MaximumFractionalValue) if kind == "FRACTIONAL" else 0
        groups = own if "SegmentIdentificationSequence" in own else shared
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        masks.setdefault(number, []).append((place, frame > least))
    return masks


def _layers(
    masks: dict[int, list[tuple[int, np.ndarray]]], shape: tuple[int, ...]
) -> tuple[list[np.ndarray], dict[int, int]]:
    """Label maps (z, y, x), as few as keep segments that overlap apart, and which segment is in which."""
    kind = np.uint8 if max(masks, default=0) < 256 else np.uint16
    layers, layer_of = [np.zeros(shape, kind)], {}
    for number, slices in masks.items():
        free = (
            index
            for index, layer in enumerate(layers)
            if not any(layer[place][mask].any() for place, mask in slices)
        )
        index = next(free, len(layers))
        if index == len(layers):
            layers.append(np.zeros(shape, kind))
        for place, mask in slices:
            layers[index][place][mask] = number
        layer_of[number] = index
    return layers, layer_of


def _fields(segment: Dataset, layer: int) -> dict[str, str]:
    number = str(segment.SegmentNumber)
    tracking = str(segment.get("TrackingID") or "")
    own = tracking.removeprefix(OUR_TRACKING)
    terminology = _terminology(segment)
    return {
        "ID": own if tracking.startswith(OUR_TRACKING) and own in BY_KEY else f"Segment_{number}",
        "Name": str(segment.get("SegmentLabel") or f"Segment {number}"),
        "LabelValue": number,
        "Layer": str(layer),
        "Tags": f"{TAG}:{terminology.entry}|" if terminology else "",
    }


def _terminology(segment: Dataset) -> Terminology | None:
    category = _code(segment, "SegmentedPropertyCategoryCodeSequence")
    kind = _code(segment, "SegmentedPropertyTypeCodeSequence")
    if category is None or kind is None:
        return None
    types = segment.SegmentedPropertyTypeCodeSequence[0]
    modifier = _code(types, "SegmentedPropertyTypeModifierCodeSequence")
    return Terminology("DICOM", category, kind, modifier, _code(segment, "AnatomicRegionSequence"))


def _code(item: Dataset, keyword: str) -> Code | None:
    codes = item.get(keyword)
    if not codes:
        return None
    code = codes[0]
    parts = [str(code.get(word, "")) for word in ("CodingSchemeDesignator", "CodeValue", "CodeMeaning")]
    return Code(*(part.replace("^", " ").replace("~", " ").replace("|", " ") for part in parts))
