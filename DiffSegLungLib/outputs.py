"""What is written: the segmentation file, images and text.  A file appears only once it is complete."""

from __future__ import annotations

import errno
import gzip
import hashlib
import importlib
import json
import os
import platform
import time
import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.anatomy import LUNGS
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.files import LONGEST_SHOWN
from DiffSegLungLib.terminology import TAG, Terminology
from DiffSegLungLib.tissues import CATEGORY, REGION, REPORTED, Tissue

if TYPE_CHECKING:
    import SimpleITK

PathLike = str | os.PathLike[str]

TERMINOLOGY_CONTEXT = "Segmentation category and type - DiffSegLung"
REPRESENTATION = "Binary labelmap"
EMPTY_EXTENT = "0 -1 0 -1 0 -1"
IMAGE_SUFFIXES = (".nrrd", ".nii.gz")
CHUNK_BYTES = 1 << 20
LONGEST_END = 60
"""Characters of a name that its unfinished file keeps: file systems take 255 in all."""
OLD_SECONDS = 86_400
_PARTIAL = ".partial-"
_COMPUTER = hashlib.sha256(platform.node().encode()).hexdigest()[:6]


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


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Lends a name beside the target to write to; the target appears when the block ends well.

    The lent name ends as the target's name does, so that writers find their format in the suffix.
    A missing folder is created.  After an error or a cancellation nothing is left behind.

    Args:
        path: where the complete file shall appear; an existing file is replaced.

    Yields:
        The name to write to.

    Raises:
        UnusableInputError: the file cannot be written there, or the disk is full.
    """
    target = Path(path)
    partial = target.with_name(f"{_PARTIAL}{_mark()}-{target.name[-LONGEST_END:]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        yield partial
        _flush_to_disk(partial)
        os.replace(partial, target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _cannot_write(target: Path, error: OSError) -> UnusableInputError:
    reason, name = error.strerror or str(error), str(target)
    if len(name) > LONGEST_SHOWN:
        name = f"{name[:40]}...{name[-20:]}"
    remedy = "Choose a folder that is writable and has space, and try again."
    if error.errno == errno.ENAMETOOLONG:
        remedy = "Give a shorter name."
    return UnusableInputError(f"Cannot write {name}: {reason}. {remedy}")


def _mark() -> str:
    """Computer, process and a random part: who writes here."""
    return f"{_COMPUTER}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def remove_leftovers(folder: Path) -> None:
    """Removes unfinished files that nobody writes any more: their process was killed, or they are a day old.

    Another process may be writing into the same folder at this moment, perhaps from another computer.
    """
    for path in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            if _is_left(path):
                path.unlink()


def _is_left(path: Path) -> bool:
    """A process of this computer can be asked for; of another one the age must tell."""
    computer, process, *_ = [*path.name.removeprefix(_PARTIAL).split("-"), ""]
    if computer == _COMPUTER and process.isdecimal() and os.name != "nt":  # there, to ask is to end it
        return not _is_alive(int(process))
    return time.time() - path.stat().st_mtime > OLD_SECONDS


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _flush_to_disk(path: Path) -> None:
    """Makes sure that the content is on the disk before the name is: a crash never leaves a short file."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def write_together(writers: Mapping[Path, Callable[[Path], None]]) -> None:
    """Writes several files; none appears before all are complete, the first listed appears last.

    Args:
        writers: for each file, the function that writes it to the path it is given.

    Raises:
        UnusableInputError: one of the files cannot be written; then none appears.
    """
    if not writers:
        return
    with _turn_in(next(iter(writers)).parent) as take_turn, ExitStack() as stack:
        for path, write in writers.items():
            write(stack.enter_context(atomic_path(path)))
        take_turn()


@contextmanager
def _turn_in(folder: Path) -> Iterator[Callable[[], None]]:
    """Lends a function that waits until no other process renames files in the folder; held until the end.

    Two runs with one output would else leave the labels of the one beside the manifest of the other.  Where
    the file system or Windows knows no lock of a folder, there is none.
    """
    with ExitStack() as stack:

        def take_turn() -> None:
            with suppress(ImportError, OSError):
                fcntl: Any = importlib.import_module("fcntl")
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)

        yield take_turn


def require_writable(path: PathLike) -> None:
    """Finds out before the long work, not after it, that a file cannot be written.

    Raises:
        UnusableInputError: the path is a folder, or nothing can be written beside it.
    """
    target = Path(path)
    if os.path.isdir(target):  # unlike Path's, False for a name that is too long
        raise UnusableInputError(f"Cannot write {target}: it is a folder. Give the name of a file.")
    probe = target.with_name(f"{_PARTIAL}{_mark()}-probe")
    with atomic_path(probe) as partial:
        partial.touch()
    probe.unlink(missing_ok=True)
    try:
        os.lstat(target)  # the name itself: free, taken, or too long for this file system
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(target, error) from None


def write_text(path: PathLike, text: str) -> None:
    """Writes text as UTF-8 with plain line ends; see `atomic_path` for errors."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_private(path: PathLike, text: str) -> None:
    """Writes text that only its owner may read, such as names of patients; see `atomic_path` for errors."""
    with atomic_path(path) as partial:
        partial.touch(mode=0o600)
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: PathLike, content: Any) -> None:
    """Writes JSON that people can read and compare: indented, in the given order; see `atomic_path`.

    Raises:
        ValueError: a number is not finite; JSON has no name for it.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


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
    from DiffSegLungLib.output_checks import require_square

    require_square(Path(path), image)
    with atomic_path(path) as partial:
        _write_compressed(image, partial)


def _write_compressed(image: SimpleITK.Image, path: Path) -> None:
    import SimpleITK as sitk

    from DiffSegLungLib.image_files import quiet

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
