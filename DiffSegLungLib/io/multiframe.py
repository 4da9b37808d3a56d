"""The frames of an Enhanced CT: where each lies, what its values mean, and to which scan it belongs.

What frames have in common stands in the shared functional groups, what differs in those of each frame (DICOM
PS3.3, C.7.6.16).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pydicom

from DiffSegLungLib.io.planes import Plane

if TYPE_CHECKING:
    from pydicom import Dataset

FACTS = {
    "kernel": ("CTReconstructionSequence", "ConvolutionKernel"),
    "slice_thickness_mm": ("PixelMeasuresSequence", "SliceThickness"),
    "tube_voltage_kvp": ("CTXRayDetailsSequence", "KVP"),
}
"""Of the acquisition, where a frame tells it."""
SHARED, PER_FRAME = "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"


def read_planes(path: Path) -> tuple[Plane, ...]:
    """The frames of a multi-frame image, in the order of the file.

    Returns:
        A plane a frame; without position where the file does not place its frames.

    Raises:
        ValueError: it does not describe as many frames as it says it has.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return planes_of(pydicom.dcmread(path, stop_before_pixels=True))
    except Exception as error:  # pydicom reads values when they are asked for, and has many ways to fail
        raise ValueError(str(error)) from error


def planes_of(header: Dataset) -> tuple[Plane, ...]:
    """As `read_planes`, of a header that was read; errors are pydicom's own."""
    count = int(header.get("NumberOfFrames") or 1)
    shared = (header.get(SHARED) or [pydicom.Dataset()])[0]
    own = header.get(PER_FRAME) or []
    if not own:
        return (Plane((), (), ()),) * count
    if len(own) != count:
        raise ValueError(f"{count} frames, {len(own)} described")
    return tuple(_plane(header, shared, frame) for frame in own)


def _plane(header: Dataset, shared: Dataset, own: Dataset) -> Plane:
    def group(sequence: str, keyword: str) -> Any:
        """The value of one frame: its own, else the shared one."""
        for groups in (own, shared):
            items = groups.get(sequence)
            if items and items[0].get(keyword) is not None:
                return items[0].get(keyword)
        return None

    kind = group("CTImageFrameTypeSequence", "FrameType") or header.get("ImageType")
    return Plane(
        position=_floats(group("PlanePositionSequence", "ImagePositionPatient"), 3),
        orientation=_floats(group("PlaneOrientationSequence", "ImageOrientationPatient"), 6),
        spacing=_floats(group("PixelMeasuresSequence", "PixelSpacing"), 2)[::-1],
        rescale=(
            float(_or(group("PixelValueTransformationSequence", "RescaleSlope"), 1.0)),
            float(_or(group("PixelValueTransformationSequence", "RescaleIntercept"), 0.0)),
        ),
        unit=str(group("PixelValueTransformationSequence", "RescaleType") or "").upper(),
        kind=tuple(map(str.upper, [kind] if isinstance(kind, str) else kind or ())),
        acquisition=_text(group("FrameContentSequence", "FrameAcquisitionNumber")),
        time=_time(group),
        stack=_text(group("FrameContentSequence", "StackID")),
        facts=tuple((name, text) for name, place in FACTS.items() if (text := _text(group(*place)))),
    )


def _time(group: Any) -> str:
    """The point in time, by whichever of the standard's ways it is told."""
    told = (
        ("FrameContentSequence", "TemporalPositionIndex"),
        ("TemporalPositionSequence", "TemporalPositionTimeOffset"),
        ("CardiacSynchronizationSequence", "NominalPercentageOfCardiacPhase"),
        ("RespiratorySynchronizationSequence", "NominalPercentageOfRespiratoryPhase"),
    )
    return "/".join(_text(group(*place)) for place in told).strip("/")


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()


def _or(value: Any, default: float) -> Any:
    return default if value is None else value


def _floats(value: Any, count: int) -> tuple[float, ...]:
    numbers = () if value is None or isinstance(value, str) else tuple(map(float, value))
    return numbers if len(numbers) == count else ()
