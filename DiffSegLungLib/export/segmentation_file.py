"""The segmentation file and images: names, colours and codes as Slicer reads them."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.anatomy import LUNGS
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.atomic import PathLike, atomic_path
from DiffSegLungLib.terminology import TAG, Terminology
from DiffSegLungLib.tissues import CATEGORY, REGION, REPORTED, Tissue

if TYPE_CHECKING:
    import SimpleITK

TERMINOLOGY_CONTEXT = "Segmentation category and type - DiffSegLung"
REPRESENTATION = "Binary labelmap"
EMPTY_EXTENT = "0 -1 0 -1 0 -1"
IMAGE_SUFFIXES = (".nrrd", ".nii.gz")
CHUNK_BYTES = 1 << 20


@dataclass(frozen=True)
class Segment:
    """One segment of a segmentation file.

    Attributes:
        label: its value in the label map.
        key: its ID in Slicer.
        name: the reader's name.
        colour: red, green, blue, 0 to 255.
        terminology: its codes; None where it has none, as a segment that a user drew.
    """

    label: int
    key: str
    name: str
    colour: tuple[int, int, int]
    terminology: Terminology | None


def tissue_segments(tissues: Sequence[Tissue] = REPORTED) -> tuple[Segment, ...]:
    """The segments of tissues, in the order given."""
    return tuple(
        Segment(
            tissue.label,
            tissue.key,
            tissue.name,
            tissue.colour,
            tissue_terminology(tissue),
        )
        for tissue in tissues
    )


def tissue_terminology(tissue: Tissue) -> Terminology:
    """The codes of a tissue."""
    return Terminology(TERMINOLOGY_CONTEXT, CATEGORY, tissue.code, region=REGION)


TISSUE_SEGMENTS = tissue_segments()
"""What `segment` writes: the reported tissues."""

LUNG_SEGMENTS = tuple(
    Segment(lung.side, lung.key, lung.name.capitalize(), lung.colour, lung.terminology) for lung in LUNGS
)
"""The right and the left lung."""


def write_image(path: PathLike, image: SimpleITK.Image) -> None:
    """Writes a compressed image.

    Args:
        path: the suffix says the format, one of `IMAGE_SUFFIXES`.
        image: scalar voxels.

    Raises:
        UnusableInputError: another suffix, a sheared grid as NIfTI, or the file cannot be written.
    """
    if not Path(path).name.endswith(IMAGE_SUFFIXES):
        suffixes = " or ".join(IMAGE_SUFFIXES)
        raise UnusableInputError(f"Cannot write {path}: give a name that ends in {suffixes}.")
    from DiffSegLungLib.export.output_checks import require_square

    require_square(Path(path), image)
    with atomic_path(path) as partial:
        _write_compressed(image, partial)


def _write_compressed(image: SimpleITK.Image, path: Path) -> None:
    import SimpleITK as sitk

    from DiffSegLungLib.io.image_files import quiet

    try:
        with quiet():
            sitk.WriteImage(image, str(path), useCompression=True)
    except RuntimeError as error:  # SimpleITK's only error; its last line is the cause
        raise OSError(str(error).strip().splitlines()[-1]) from error
    _require_complete(path, image.GetNumberOfPixels() * image.GetSizeOfPixelComponent())


def _require_complete(path: Path, expected_bytes: int) -> None:
    """Reads the compressed voxels back: ITK's NIfTI writer says nothing when the disk is full."""
    written = 0
    try:
        with path.open("rb") as stream:
            if path.suffix == ".nrrd":
                _skip_text_header(stream)
            with gzip.GzipFile(fileobj=stream) as voxels:
                while chunk := voxels.read(CHUNK_BYTES):
                    written += len(chunk)
    except (EOFError, zlib.error) as error:
        raise OSError("the disk took only a part of it; it may be full") from error
    if written < expected_bytes:
        raise OSError(f"the disk took only {written} of {expected_bytes} bytes; it may be full")


def _skip_text_header(stream: Any) -> None:
    """Moves behind the empty line that ends an NRRD header."""
    while stream.readline().strip():
        pass


def write_segmentation(
    path: PathLike, labels: SimpleITK.Image, segments: Sequence[Segment] = TISSUE_SEGMENTS
) -> None:
    """Writes a segmentation that Slicer opens with names, colours and codes: one 3D layer, full geometry.

    Every listed segment is in the file, also where it has no voxel.  Voxels of other labels become 0.

    Args:
        path: a name in .seg.nrrd.
        labels: 3D uint8 label map in the CT's geometry.
        segments: what the file holds, in this order.

    Raises:
        UnusableInputError: the file cannot be written.
    """
    image = only_segments(labels, segments)
    for key, value in segmentation_header(image, segments).items():
        image.SetMetaData(key, value)
    write_image(path, image)


def only_segments(labels: SimpleITK.Image, segments: Sequence[Segment] = TISSUE_SEGMENTS) -> SimpleITK.Image:
    """The same label map with 0 where no segment is listed, and without the source's own metadata.

    Raises:
        ValueError: not a 3D label map of type uint8.
    """
    import SimpleITK as sitk

    if labels.GetPixelID() != sitk.sitkUInt8 or labels.GetDimension() != 3:
        found = f"{labels.GetDimension()}D {labels.GetPixelIDTypeAsString()}"
        raise ValueError(f"A label map is 3D uint8, not {found}")
    listed = np.zeros(256, np.uint8)
    for segment in segments:
        listed[segment.label] = segment.label
    image = sitk.GetImageFromArray(listed[sitk.GetArrayViewFromImage(labels)])
    image.CopyInformation(labels)
    return image


def segmentation_header(
    image: SimpleITK.Image, segments: Sequence[Segment] = TISSUE_SEGMENTS
) -> dict[str, str]:
    """The NRRD fields by which Slicer knows a segmentation (vtkMRMLSegmentationStorageNode of Slicer 5).

    Args:
        image: the label map, uint8.
        segments: in their order in the file.

    Returns:
        Field names and values.
    """
    extents = _extents(image)
    header = {
        "Segmentation_MasterRepresentation": REPRESENTATION,  # the field that Slicer reads and writes
        "Segmentation_SourceRepresentation": REPRESENTATION,  # its newer name
        "Segmentation_ContainedRepresentationNames": f"{REPRESENTATION}|",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",  # the file is not cropped
        "Segmentation_ConversionParameters": _reference_geometry(image),
    }
    for index, segment in enumerate(segments):
        fields = _segment_fields(segment, extents.get(segment.label, EMPTY_EXTENT))
        header |= {f"Segment{index}_{name}": value for name, value in fields.items()}
    return header


def _segment_fields(segment: Segment, extent: str) -> dict[str, str]:
    return {
        "ID": segment.key,
        "Name": segment.name,
        "NameAutoGenerated": "0",  # else Slicer renames the segment when its terminology is edited
        "Color": " ".join(f"{channel / 255:.6g}" for channel in segment.colour),
        "ColorAutoGenerated": "0",
        "LabelValue": str(segment.label),
        "Layer": "0",
        "Extent": extent,
        "Tags": f"{TAG}:{segment.terminology.entry}|" if segment.terminology else "",
    }


def _extents(image: SimpleITK.Image) -> dict[int, str]:
    """For each label present, the first and last voxel along x, y and z."""
    import SimpleITK as sitk
    from scipy import ndimage

    boxes = ndimage.find_objects(sitk.GetArrayViewFromImage(image))
    return {
        label: " ".join(f"{along.start} {along.stop - 1}" for along in reversed(box))
        for label, box in enumerate(boxes, start=1)
        if box is not None
    }


def _reference_geometry(image: SimpleITK.Image) -> str:
    """Tells Slicer the CT's whole grid, so that segments edited there keep it.

    Slicer crops its segments to their content; it finds the grid in this parameter:
    the 4x4 matrix from voxel to RAS, row by row, then the first and last voxel along x, y and z.
    """
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.array(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    matrix[:2] *= -1.0  # SimpleITK's axes are LPS, Slicer's are RAS
    extent = [bound for size in image.GetSize() for bound in (0, size - 1)]
    numbers = [repr(float(element)) for element in matrix.ravel()] + [str(bound) for bound in extent]
    return f"Reference image geometry|{';'.join(numbers)};|Geometry of the CT that was segmented.&"
