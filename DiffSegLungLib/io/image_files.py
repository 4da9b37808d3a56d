"""Read one image file; what is no CT, damaged, or huge by its header is refused before memory is taken."""

from __future__ import annotations

import gzip
import locale
import math
import os
import re
import struct
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, redirect_stderr
from functools import cache
from pathlib import Path
from typing import TextIO

import SimpleITK as sitk

from DiffSegLungLib.errors import MissingPartError, UnusableInputError, is_out_of_memory
from DiffSegLungLib.io.acquisition import read_acquisition
from DiffSegLungLib.io.files import is_ours_alone, require_there
from DiffSegLungLib.io.headers import fault_of_header
from DiffSegLungLib.progress import free_memory_mb

FEWEST_SLICES = 8
MOST_VOXELS = 2**31
BYTES_A_VOXEL = 6  # as stored and as float32
SPACING_LIMITS_MM = (0.1, 10.0)

STANDARD_ERROR = 2
GZIP_SIGN = b"\x1f\x8b"
_SIGNS = (
    (b"NRRD000", 0, "NRRD", (".nrrd", ".nhdr")),
    (b"n+1\0", 344, "NIfTI", (".nii", ".nii.gz")),
    (b"ObjectType", 0, "MetaImage", (".mha", ".mhd")),
)
"""What files begin with: sign, its place, the format, its endings."""
NIFTI_HEADER_BYTES = 348
_EIGHT_BIT = (sitk.sitkUInt8, sitk.sitkInt8)
_COMPLEX = (sitk.sitkComplexFloat32, sitk.sitkComplexFloat64)
FORMATS = "NRRD, NIfTI, MetaImage or a DICOM folder"


def read_file(path: Path, as_ct: bool = False, name: str | None = None) -> tuple[sitk.Image, dict[str, str]]:
    """Read a file, and what its header tells of the acquisition.

    Args:
        path: NRRD, NIfTI, MetaImage or DICOM.
        as_ct: refuse what cannot be a CT by its header: colour, 2D, 8 bit, too few slices, odd spacing.
        name: for messages; None for the file's.

    Raises:
        UnusableInputError: it cannot be read, or is no CT.
        MissingPartError: the memory does not suffice.
        MemoryError: it ran out while reading.
    """
    name = name or path.name
    if fault := fault_of_header(path):
        raise unusable(name, fault)
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with quiet():
            reader.ReadImageInformation()
            check_size(reader.GetSize(), reader.GetNumberOfComponents(), name)
            if as_ct:
                check_kind(reader.GetPixelID(), reader.GetNumberOfComponents(), reader.GetSize(), name)
                check_spacing(reader.GetSpacing(), name)
                if reader.GetPixelID() == sitk.sitkFloat64:
                    reader.SetOutputPixelType(sitk.sitkFloat32)
            _check_complete(reader, path, name)
            return three_dimensional(reader.Execute()), read_acquisition(reader)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise _unreadable(path, name, str(error)) from error


def existing(source: str | os.PathLike[str]) -> Path:
    """Return the path; an error where nothing is, or may not be read.

    Raises:
        TypeError: it is nothing that could be one, such as an array, which has no voxel size.
    """
    given: object = source  # Python programs may give anything
    if not isinstance(given, str | os.PathLike):
        kind = type(given).__name__
        raise TypeError(f"give a file, a folder or a SimpleITK image with its voxel size, not {kind}")
    path = Path(source)
    require_there(path)
    return path


def safe_title(path: Path) -> str:
    """Return the file's name without its endings, with only characters that any file system takes."""
    stem = re.sub(r"(?i)(\.seg)?\.(nrrd|nhdr|nii\.gz|nii|mha|mhd|dcm|hdr|img)$", "", path.name)
    return re.sub(r"[^\w .()+-]", "_", stem).strip(" .")[:80] or "CT"


@contextmanager
def quiet() -> Iterator[None]:
    """Keep ITK's own lines off standard error: what matters is said in ``Volume.warnings`` or in the error.

    Its readers and writers take numbers in the language of the process: meanwhile one with a decimal point.
    Threads may read side by side: lines and language come back with the last one.
    """
    _READERS.come()
    try:
        yield
    finally:
        _READERS.go()


class _Readers:
    """The threads that read at present; from the first to the last ITK is silent and numbers have points."""

    def __init__(self) -> None:
        self._lock, self._count, self._aside = threading.Lock(), 0, ExitStack()

    def come(self) -> None:
        with self._lock:
            if self._count == 0:
                self._aside.enter_context(_itk_silent())
                self._aside.enter_context(_decimal_point())
                if is_ours_alone():
                    self._aside.enter_context(_standard_error_aside())
            self._count += 1

    def go(self) -> None:
        with self._lock:
            self._count -= 1
            if self._count == 0:
                self._aside.close()


_READERS = _Readers()


@contextmanager
def _itk_silent() -> Iterator[None]:
    shown = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@contextmanager
def _decimal_point() -> Iterator[None]:
    """In German or French NRRD's 2.6 mm would be read as 2, and written as 2,6."""
    known = locale.setlocale(locale.LC_NUMERIC)
    if known == "C":
        yield
        return
    locale.setlocale(locale.LC_NUMERIC, "C")
    try:
        yield
    finally:
        locale.setlocale(locale.LC_NUMERIC, known)


@contextmanager
def _standard_error_aside() -> Iterator[None]:
    """The readers below ITK (MetaIO, niftilib) write by themselves: their file is that of the whole process.

    What Python writes meanwhile, in any thread, still comes through.
    """
    try:
        kept = os.dup(STANDARD_ERROR)
    except OSError:  # a program without a console has none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    with _python_still_heard():
        os.dup2(nowhere, STANDARD_ERROR)
        try:
            yield
        finally:
            os.dup2(kept, STANDARD_ERROR)
            os.close(kept)
            os.close(nowhere)


def _python_still_heard() -> AbstractContextManager[object]:
    """Another way to where standard error goes; whoever has put a stream of his own in its place keeps it."""
    if sys.stderr is None or sys.stderr is not sys.__stderr__:
        return nullcontext()
    return redirect_stderr(_second_standard_error())


@cache
def _second_standard_error() -> TextIO:
    """Never closed: a logger that is made while a file is read writes to it for good."""
    return os.fdopen(os.dup(STANDARD_ERROR), "w", buffering=1, errors="backslashreplace")


def check_size(size: Sequence[int], components: int, name: str) -> None:
    """Refuse what says it is huge before memory is taken for it: a small file may say so, too.

    Args:
        size: (x, y, z, ...) in voxels.
        components: values a voxel.
        name: for messages.
    """
    voxels = math.prod(size) * max(components, 1)
    if voxels > MOST_VOXELS:
        found = " x ".join(map(str, size))
        raise unusable(name, f"says it has {found} voxels, more than any CT; export it again, or crop it.")
    needed, free = voxels * BYTES_A_VOXEL / 1e6, free_memory_mb()
    if needed > free:
        raise MissingPartError(
            f"{name}: takes {needed:.0f} MB of memory to read, {free:.0f} MB are free; close other programs."
        )


def _check_complete(reader: sitk.ImageFileReader, path: Path, name: str) -> None:
    """Refuse a NIfTI file that was cut off, or whose voxels have no size.

    Its reader would fill the rest with zeros, take 1 mm, and say nothing.
    """
    if not reader.HasMetaDataKey("vox_offset") or not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    if not all(side > 0 for side in _nifti_sides(path)):
        raise unusable(name, "its header holds no voxel size; export the CT again.")
    bits = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * int(reader.GetMetaData("bitpix"))
    expected = int(float(reader.GetMetaData("vox_offset"))) + bits // 8
    if not _is_packed(path):
        complete = path.stat().st_size >= expected
    else:
        complete = _unpacked_size(path, expected) >= expected
    if not complete:
        raise unusable(name, "the file is cut off; copy or export the CT again.")


def _is_packed(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(len(GZIP_SIGN)) == GZIP_SIGN


def _nifti_sides(path: Path) -> tuple[float, ...]:
    """Voxel size (x, y, z) in mm as the header of a NIfTI file has it; its reader turns 0 into 1."""
    try:
        with gzip.open(path) if _is_packed(path) else path.open("rb") as stream:
            header = stream.read(NIFTI_HEADER_BYTES)
        order = "<" if struct.unpack_from("<i", header)[0] == NIFTI_HEADER_BYTES else ">"
        return struct.unpack_from(f"{order}3f", header, 80)
    except (EOFError, OSError, zlib.error, struct.error):
        return (0.0,)


def _unpacked_size(path: Path, expected: int) -> int:
    """Return a gzip file's content size in bytes; its last four bytes say it, else all is unpacked."""
    with path.open("rb") as packed:
        packed.seek(-4, os.SEEK_END)
        if int.from_bytes(packed.read(4), "little") == expected % 2**32:
            return expected
    size = 0
    try:
        with gzip.open(path) as unpacked:
            while size < expected and (block := unpacked.read(1 << 24)):  # what comes after is not read
                size += len(block)
    except (EOFError, OSError, zlib.error):
        return -1
    return size


def three_dimensional(image: sitk.Image) -> sitk.Image:
    """Return a 4D image of one time point as the 3D one it is; any other as it came."""
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        return image[:, :, :, 0]
    return image


def _unreadable(path: Path, name: str, reason: str) -> UnusableInputError:
    if "orthonormal" in reason or "orthogonal" in reason:
        return unusable(name, "its axes are sheared, which NIfTI cannot hold; save the CT as NRRD.")
    with path.open("rb") as stream:
        start = stream.read(NIFTI_HEADER_BYTES)
    for sign, place, kind, endings in _SIGNS:
        if start[place : place + len(sign)] == sign and not path.name.lower().endswith(endings):
            return unusable(name, f"is {kind} by its content; let its name end in {endings[0]}.")
    return unusable(name, f"cannot be read; it is damaged or not {FORMATS}; export the CT again.")


def unusable(name: str, sentence: str) -> UnusableInputError:
    """An error that begins with the name of what cannot be used."""
    return UnusableInputError(f"{name}: {sentence}")


def check_kind(pixel: int, components: int, size: Sequence[int], name: str) -> None:
    """Refuse what is no CT by its header: pixel type of SimpleITK, values a voxel, size (x, y, z, ...)."""
    if components > 1 or pixel in _COMPLEX:
        raise unusable(name, "holds several values per voxel (colour or vectors); give a CT.")
    if len(size) > 3 and any(n > 1 for n in size[3:]):
        raise unusable(name, f"has {len(size)} dimensions; give one 3D CT, a single time point.")
    if len(size) < 3:
        raise unusable(name, "is a single 2D picture; give the whole CT, for DICOM its folder.")
    if pixel in _EIGHT_BIT:
        raise unusable(name, "holds 8-bit grey values, not Hounsfield units; export the CT as 16 bit.")
    if min(size[:3]) < FEWEST_SLICES:
        raise _too_few(min(size[:3]), name)


def _too_few(count: int, name: str) -> UnusableInputError:
    slices = f"{count} slice{'s' * (count != 1)}"
    return unusable(
        name,
        f"has {slices}, {FEWEST_SLICES} are needed; give the whole CT, for DICOM its folder.",
    )


def check_spacing(spacing: Sequence[float], name: str) -> None:
    """Refuse voxel sizes (mm) that no CT of a chest has."""
    low, high = SPACING_LIMITS_MM
    if not all(low <= mm <= high for mm in spacing[:3]):
        found = " x ".join(f"{mm:.3g}" for mm in spacing[:3])
        raise unusable(name, f"voxel size {found} mm lies beyond {low:g} to {high:g} mm; correct it.")
