"""Load, check and canonicalise a CT: geometry in, geometry out.

Every stage after this one works on ``Volume.hu``: float32 Hounsfield units, axes (z, y, x), index +x towards
the patient's Left, +y Posterior, +z Superior.  ``to_input_geometry`` is the way back, voxel by voxel.
"""

from __future__ import annotations

import gzip
import math
import os
import re
import struct
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import label

from .errors import MissingPartError, UnusableInputError, is_out_of_memory
from .files import require_there
from .interpolation import by_matrices, enlarged_slabs, nearest_voxels, smoothing_matrix
from .progress import free_memory_mb

AIR_HU = -1024.0
PADDING_HU = -1100.0
HIGHEST_HU = 3071.0
FEWEST_SLICES = 8
MOST_VOXELS = 2**31
BYTES_A_VOXEL = 6  # as stored and as float32
SPACING_LIMITS_MM = (0.1, 10.0)
THIN_SLICE_MM = 1.5
MOST_NON_FINITE = 0.01
HIGHEST_LUNG_HU = -700.0
LEAST_AIR = 0.005
LARGEST_SLICE_SHIFT_MM = 5.0
MOST_MISSING_SLICES = 0.05
LUNG_ON_EDGE_CM2 = 5.0
SMALLEST_TILT_DEGREES = 0.5

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
_FORMATS = "NRRD, NIfTI, MetaImage or a DICOM folder"
# Tags whose values change numbers; none of them identifies a patient.
MODALITY_TAG = "0008|0060"
STUDY_TAG = "0020|000d"
ACQUISITION_TAGS = {
    "kernel": "0018|1210",
    "slice_thickness_mm": "0018|0050",
    "tube_voltage_kvp": "0018|0060",
    "manufacturer": "0008|0070",
    "contrast": "0018|0010",
}
# Lung and bone kernels: Siemens from 50 up (B50, Br59, Bl57, I70); GE by name; Philips YA to YD, D, L;
# Canon FC3x, FC5x, FC8x.
_SHARP_KERNEL = re.compile(r"([BIQU][A-Z]?[5-9]\d|LUNG|BONE|EDGE|ULTRA|Y[A-D]$|[DL]$|FC[358]\d)")


@dataclass(frozen=True)
class Geometry:
    """Where a voxel grid lies in the patient, in ITK's (x, y, z) order and LPS millimetres."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Return the geometry of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def matrix(self) -> np.ndarray:
        """The direction cosines as a (3, 3) matrix; its columns are the index axes."""
        return np.asarray(self.direction).reshape(3, 3)

    def place(self, image: sitk.Image) -> sitk.Image:
        """Give this spacing, origin and direction to ``image`` and return it."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image


@dataclass(frozen=True, eq=False)
class Volume:
    """A checked CT in canonical axes.

    Attributes:
        hu: Hounsfield units, float32, (z, y, x), axes LPS.
        spacing: voxel size (z, y, x) in mm.
        image: a carrier of the canonical geometry: one voxel with canonical spacing, origin and direction, so
            that no second copy of the pixels is kept; ``canonical_image`` makes a full image of any array.
        input_geometry: the grid the CT came in; ``to_input_geometry`` returns to it.
        name: safe as a title; the file's stem, ``CT series 4`` for DICOM, ``CT`` for an image in memory.
        metadata: acquisition facts that change numbers, where known; never a patient's identity.
        warnings: whole sentences for the reader.
        dicom_files: the DICOM files it was read from, in the order of the input's slices; none if it was no
            DICOM.
    """

    hu: np.ndarray
    spacing: tuple[float, float, float]
    image: sitk.Image
    input_geometry: Geometry
    name: str = "CT"
    metadata: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    dicom_files: tuple[Path, ...] = ()

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml; a stack sheared by a tilted gantry holds less than its spacing says."""
        shear = abs(np.linalg.det(np.asarray(self.image.GetDirection()).reshape(3, 3)))
        return float(np.prod(self.spacing) * shear / 1000.0)


@dataclass
class _Source:
    """A CT as it was read, before any check of its values."""

    image: sitk.Image
    name: str
    metadata: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    dicom_files: tuple[Path, ...] = ()


def load_volume(source: str | os.PathLike[str] | sitk.Image) -> Volume:
    """Load a chest CT, check that it is one, and turn it to canonical axes.

    Args:
        source: an NRRD, NIfTI or MetaImage file, a DICOM folder or multi-frame file, or an image in memory.

    Returns:
        The volume; what the reader should know of its quality is in ``warnings``.

    Raises:
        UnusableInputError: the source is missing, cannot be read, or is not a CT in Hounsfield units.
    """
    read = _read(source)
    geometry = Geometry.of(read.image)
    canonical = sitk.DICOMOrient(read.image, "LPS")
    read.image = sitk.Image()  # the stored values go before the float32 copy comes: a lower memory peak
    hu = sitk.GetArrayViewFromImage(canonical).astype(np.float32)
    warnings = read.warnings + _clean(hu, read.name)
    warnings += _quality_warnings(canonical.GetSpacing(), read.metadata)
    return Volume(
        hu=hu,
        spacing=canonical.GetSpacing()[::-1],
        image=Geometry.of(canonical).place(sitk.Image([1, 1, 1], sitk.sitkUInt8)),
        input_geometry=geometry,
        name=read.name,
        metadata=read.metadata,
        warnings=tuple(warnings),
        dicom_files=read.dicom_files,
    )


def load_mask(source: str | os.PathLike[str] | sitk.Image, volume: Volume) -> np.ndarray:
    """Load a label map and bring it onto a volume's canonical grid, by nearest neighbour in patient space.

    Args:
        source: a label map file (``.seg.nrrd`` included) or an image in memory, on any grid in the CT.
        volume: the CT it belongs to.

    Returns:
        Labels (z, y, x), uint8, or uint16 where a label is above 255.

    Raises:
        UnusableInputError: it cannot be read, holds no labels, is empty or lies outside the CT.
    """
    image, name = read_labels(source)
    array = labels_on_grid(image, volume, name)
    if not array.any():
        raise _unusable(name, "the mask does not overlap the CT; give the mask of this very scan.")
    return array


def read_labels(source: str | os.PathLike[str] | sitk.Image) -> tuple[sitk.Image, str]:
    """Read a label map with its header fields, and return it with a name for messages.

    Raises:
        UnusableInputError: there is no such file, or it cannot be read.
    """
    if isinstance(source, sitk.Image):
        return source, "mask"
    return _read_file(_existing(source))[0], Path(source).name


def labels_on_grid(image: sitk.Image, volume: Volume, name: str, empty: bool = False) -> np.ndarray:
    """Bring a label map onto a volume's canonical grid, by nearest neighbour in patient space.

    Args:
        image: whole numbers on any grid in the CT.
        volume: the CT it belongs to.
        name: for messages.
        empty: whether a label map without any label is taken.

    Returns:
        Labels (z, y, x), uint8, or uint16 where a label is above 255.

    Raises:
        UnusableInputError: it holds no labels, or is empty.
    """
    labels = _label_image(image, name, empty)
    carrier = volume.image
    placed = sitk.Resample(
        labels,
        volume.hu.shape[::-1],
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        carrier.GetOrigin(),
        carrier.GetSpacing(),
        carrier.GetDirection(),
        0,
        labels.GetPixelID(),
    )
    return np.asarray(sitk.GetArrayFromImage(placed))


def canonical_image(array: np.ndarray, volume: Volume) -> sitk.Image:
    """Return a canonical (z, y, x) array as an image in the canonical geometry; bool becomes uint8."""
    return Geometry.of(volume.image).place(sitk.GetImageFromArray(_without_bool(array)))


def to_input_geometry(array: np.ndarray, volume: Volume) -> sitk.Image:
    """Return a canonical (z, y, x) array on the input's own grid, voxel by voxel, without interpolation.

    Args:
        array: any array of the shape of ``volume.hu``; bool becomes uint8.
        volume: the CT it was computed from.

    Returns:
        An image with exactly the input's size, spacing, origin and direction.
    """
    if array.shape != volume.hu.shape:
        raise ValueError(f"array has shape {array.shape}, the volume {volume.hu.shape}")
    canonical = np.asarray(volume.image.GetDirection()).reshape(3, 3)
    # Canonical axes are the input's, permuted and flipped: canonical = input @ signed permutation.
    permutation = np.rint(np.linalg.solve(volume.input_geometry.matrix, canonical)).astype(int)
    by_xyz = np.transpose(_without_bool(array))
    source_axes = np.abs(permutation).argmax(axis=1)
    flipped = tuple(axis for axis in range(3) if permutation[axis, source_axes[axis]] < 0)
    by_xyz = np.flip(np.transpose(by_xyz, source_axes), flipped)
    image = sitk.GetImageFromArray(np.ascontiguousarray(np.transpose(by_xyz)))
    return volume.input_geometry.place(image)


def resample(
    array: np.ndarray,
    spacing: Sequence[float],
    new_spacing: Sequence[float],
    interpolation: Literal["linear", "nearest"] = "linear",
    anti_alias: bool = True,
    size: Sequence[int] | None = None,
) -> np.ndarray:
    """Resample an array between two grids that share the corner of their first voxel.

    Made coarser, an axis is first smoothed by the Gaussian that widens the old point spread to the new one:
    sigma^2 = (ratio^2 - 1) / (8 ln 2) voxels (Cardoso et al., MICCAI 2015, scale factor PSF matching).
    Beyond the old grid the nearest voxel's value continues.

    Args:
        array: (z, y, x); float32, bool, uint8 or uint16.
        spacing: voxel size (z, y, x) in mm.
        new_spacing: wanted voxel size (z, y, x) in mm, kept exactly.
        interpolation: ``nearest`` for labels; ``linear`` cuts bool at one half and rounds integers.
        anti_alias: smooth before making coarser; never done for ``nearest``.
        size: wanted shape (z, y, x); by default the nearest that fills the same box.

    Returns:
        The array on the new grid, of the same dtype (float64 becomes float32).
    """
    old = np.asarray(spacing, dtype=float)
    new = np.asarray(new_spacing, dtype=float)
    filling = np.maximum(np.rint(np.asarray(array.shape) * old / new), 1)
    shape = tuple(int(n) for n in (filling if size is None else size))
    if shape == array.shape and np.allclose(old, new):
        return array.copy()
    if interpolation == "nearest":
        grids = zip(array.shape, old, shape, new, strict=True)
        return array[np.ix_(*(nearest_voxels(*grid) for grid in grids))]
    sigma = _psf_matching(new / old) if anti_alias else np.zeros(3)
    return _back_to(_interpolate(array, old, shape, new, sigma), array.dtype)


def edge_warnings(lungs: np.ndarray, spacing: Sequence[float]) -> list[str]:
    """Say where the field of view cuts the lungs.

    Args:
        lungs: bool (z, y, x), canonical axes.
        spacing: voxel size (z, y, x) in mm.

    Returns:
        One sentence that names the edges with more than 5 cm2 of lung on them, or nothing.
    """
    edges = []
    for axis, ends in enumerate((("lower", "upper"), ("front", "back"), ("right", "left"))):
        voxel_cm2 = float(np.prod(np.delete(np.asarray(spacing, dtype=float), axis))) / 100.0
        for index, end in zip((0, -1), ends, strict=True):
            if np.count_nonzero(lungs.take(index, axis=axis)) * voxel_cm2 > LUNG_ON_EDGE_CM2:
                edges.append(end)
    if not edges:
        return []
    return [f"The lungs reach the {' and '.join(edges)} edge of the scan; what lies beyond is not measured."]


# --- resampling -----------------------------------------------------------------------------------


def _without_bool(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint8) if array.dtype == bool else array


def _psf_matching(ratio: np.ndarray) -> np.ndarray:
    """Deviation in old voxels of the Gaussian that makes an axis ``ratio`` times as coarse."""
    return np.sqrt(np.maximum(ratio**2 - 1.0, 0.0) / (8.0 * math.log(2.0)))


def _interpolate(
    array: np.ndarray, old: np.ndarray, shape: tuple[int, ...], new: np.ndarray, sigma: np.ndarray
) -> np.ndarray:
    if not sigma.any() and math.prod(shape) > array.size:
        result = np.empty(shape, np.float32)
        values = array[None].astype(np.float32, copy=False)
        for slab, larger in enlarged_slabs(values, old.tolist(), shape, new.tolist()):
            result[slab] = larger[0]
        return result
    axes = zip(array.shape, old, shape, new, sigma, strict=True)
    return by_matrices(array, [smoothing_matrix(*axis) for axis in axes])


def _back_to(array: np.ndarray, dtype: np.dtype) -> np.ndarray:
    if np.issubdtype(dtype, np.bool_):
        return array >= 0.5
    if np.issubdtype(dtype, np.integer) and array.dtype != dtype:
        return np.rint(array).astype(dtype)
    return array


# --- reading --------------------------------------------------------------------------------------


def _read(source: str | os.PathLike[str] | sitk.Image) -> _Source:
    if isinstance(source, sitk.Image):
        _check_kind(source.GetPixelID(), source.GetNumberOfComponentsPerPixel(), source.GetSize(), "CT")
        _check_spacing(source.GetSpacing(), "CT")
        return _Source(_three_dimensional(source), "CT")
    path = _existing(source)
    if path.is_dir():
        return _read_dicom_folder(path)
    image, metadata = _read_file(path, as_ct=True)
    return _Source(image, safe_title(path), metadata, dicom_files=(path,) if is_dicom(path) else ())


def _existing(source: str | os.PathLike[str]) -> Path:
    path = Path(source)
    require_there(path)
    return path


def safe_title(path: Path) -> str:
    """Return the file's name without its endings, with only characters that any file system takes."""
    stem = re.sub(r"(?i)(\.seg)?\.(nrrd|nhdr|nii\.gz|nii|mha|mhd|dcm|hdr|img)$", "", path.name)
    return re.sub(r"[^\w .()+-]", "_", stem).strip(" .")[:80] or "CT"


_READING = threading.RLock()


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep ITK's own lines off standard error: what matters is said in ``Volume.warnings`` or in the error.

    The readers below ITK (MetaIO, niftilib) write there by themselves, so its file is put aside; one thread
    at a time, since it belongs to the whole process.
    """
    with _READING, _standard_error_aside():
        shown = sitk.ProcessObject.GetGlobalWarningDisplay()
        sitk.ProcessObject.SetGlobalWarningDisplay(False)
        try:
            yield
        finally:
            sitk.ProcessObject.SetGlobalWarningDisplay(shown)


@contextmanager
def _standard_error_aside() -> Iterator[None]:
    try:
        kept = os.dup(STANDARD_ERROR)
    except OSError:  # a program without a console has none
        yield
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, STANDARD_ERROR)
    try:
        yield
    finally:
        os.dup2(kept, STANDARD_ERROR)
        os.close(kept)
        os.close(nowhere)


def _read_file(path: Path, as_ct: bool = False) -> tuple[sitk.Image, dict[str, str]]:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        with _quiet():
            reader.ReadImageInformation()
            _check_size(reader, path.name)
            if as_ct:
                _check_kind(reader.GetPixelID(), reader.GetNumberOfComponents(), reader.GetSize(), path.name)
                _check_spacing(reader.GetSpacing(), path.name)
                if reader.GetPixelID() == sitk.sitkFloat64:
                    reader.SetOutputPixelType(sitk.sitkFloat32)
            _check_complete(reader, path)
            return _three_dimensional(reader.Execute()), _acquisition(reader)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError from error
        raise _unreadable(path, str(error)) from error


def _check_size(reader: sitk.ImageFileReader, name: str) -> None:
    """Refuse a file that says it is huge before memory is taken for it: a small file may say so, too."""
    size = reader.GetSize()
    voxels = math.prod(size) * max(reader.GetNumberOfComponents(), 1)
    if voxels > MOST_VOXELS:
        found = " x ".join(map(str, size))
        raise _unusable(name, f"says it has {found} voxels, more than any CT; export it again, or crop it.")
    needed, free = voxels * BYTES_A_VOXEL / 1e6, free_memory_mb()
    if needed > free:
        raise MissingPartError(
            f"{name}: takes {needed:.0f} MB of memory to read, {free:.0f} MB are free; close other programs."
        )


def _check_complete(reader: sitk.ImageFileReader, path: Path) -> None:
    """Refuse a NIfTI file that was cut off, or whose voxels have no size.

    Its reader would fill the rest with zeros, take 1 mm, and say nothing.
    """
    if not reader.HasMetaDataKey("vox_offset") or not path.name.lower().endswith((".nii", ".nii.gz")):
        return
    if not all(side > 0 for side in _nifti_sides(path)):
        raise _unusable(path.name, "its header holds no voxel size; export the CT again.")
    bits = math.prod(reader.GetSize()) * reader.GetNumberOfComponents() * int(reader.GetMetaData("bitpix"))
    expected = int(float(reader.GetMetaData("vox_offset"))) + bits // 8
    if not _is_packed(path):
        complete = path.stat().st_size >= expected
    else:
        complete = _unpacked_size(path, expected) >= expected
    if not complete:
        raise _unusable(path.name, "the file is cut off; copy or export the CT again.")


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


def _three_dimensional(image: sitk.Image) -> sitk.Image:
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        return image[:, :, :, 0]
    return image


def _unreadable(path: Path, reason: str) -> UnusableInputError:
    if "orthonormal" in reason or "orthogonal" in reason:
        return _unusable(path.name, "its axes are sheared, which NIfTI cannot hold; save the CT as NRRD.")
    with path.open("rb") as stream:
        start = stream.read(NIFTI_HEADER_BYTES)
    for sign, place, kind, endings in _SIGNS:
        if start[place : place + len(sign)] == sign and not path.name.lower().endswith(endings):
            return _unusable(path.name, f"is {kind} by its content; let its name end in {endings[0]}.")
    return _unusable(path.name, f"cannot be read; it is damaged or not {_FORMATS}; export the CT again.")


def _label_image(image: sitk.Image, name: str, empty: bool = False) -> sitk.Image:
    """Return a 3D label image, uint8 or uint16, of whatever whole numbers the mask holds."""
    if image.GetDimension() != 3:
        raise _unusable(name, f"the mask has {image.GetDimension()} dimensions; give a 3D label map.")
    array = sitk.GetArrayViewFromImage(image)
    if array.ndim == 4:
        array = _merge_layers(array, name)
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind != "f" or np.array_equal(array, np.rint(array))
    if not (whole and low >= 0.0 and high <= 65535.0):
        raise _unusable(name, f"mask values from {low:g} to {high:g} are no labels; give whole numbers.")
    if high == 0.0 and not empty:
        raise _unusable(name, "the mask is empty; give a mask with at least one labelled voxel.")
    labels = sitk.GetImageFromArray(array.astype(np.uint8 if high <= 255.0 else np.uint16))
    return Geometry.of(image).place(labels)


def _merge_layers(layers: np.ndarray, name: str) -> np.ndarray:
    """Lay a segmentation's layers (z, y, x, layer) onto each other; the first one stays on top."""
    labels = [set(np.unique(layers[..., layer]).tolist()) - {0} for layer in range(layers.shape[-1])]
    if sum(map(len, labels)) > len(set().union(*labels)):
        raise _unusable(name, "overlapping segments share label values; export it as one label map.")
    merged = layers[..., 0].copy()
    for layer in range(1, layers.shape[-1]):
        np.copyto(merged, layers[..., layer], where=merged == 0)
    return merged


# --- checks ---------------------------------------------------------------------------------------


def _unusable(name: str, sentence: str) -> UnusableInputError:
    return UnusableInputError(f"{name}: {sentence}")


def _check_kind(pixel: int, components: int, size: Sequence[int], name: str) -> None:
    if components > 1 or pixel in _COMPLEX:
        raise _unusable(name, "holds several values per voxel (colour or vectors); give a CT.")
    if len(size) > 3 and any(n > 1 for n in size[3:]):
        raise _unusable(name, f"has {len(size)} dimensions; give one 3D CT, a single time point.")
    if len(size) < 3:
        raise _unusable(name, "is a single 2D picture; give the whole CT, for DICOM its folder.")
    if pixel in _EIGHT_BIT:
        raise _unusable(name, "holds 8-bit grey values, not Hounsfield units; export the CT as 16 bit.")
    if min(size[:3]) < FEWEST_SLICES:
        raise _too_few(min(size[:3]), name)


def _too_few(count: int, name: str) -> UnusableInputError:
    slices = f"{count} slice{'s' * (count != 1)}"
    return _unusable(
        name,
        f"has {slices}, {FEWEST_SLICES} are needed; give the whole CT, for DICOM its folder.",
    )


def _check_spacing(spacing: Sequence[float], name: str) -> None:
    low, high = SPACING_LIMITS_MM
    if not all(low <= mm <= high for mm in spacing[:3]):
        found = " x ".join(f"{mm:.3g}" for mm in spacing[:3])
        raise _unusable(name, f"voxel size {found} mm lies beyond {low:g} to {high:g} mm; correct it.")


def _clean(hu: np.ndarray, name: str) -> list[str]:
    """Check the values and repair in place what can be repaired; return what was repaired in sentences."""
    warnings = []
    low, high = float(hu.min()), float(hu.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        warnings.append(_replace_non_finite(hu, name))
        low, high = float(hu.min()), float(hu.max())
    if high >= HIGHEST_HU:
        _empty_bright_corners(hu)
    _check_hounsfield(hu, low, high, name)
    if low <= PADDING_HU:
        hu[hu <= PADDING_HU] = AIR_HU
    if high > HIGHEST_HU:
        np.minimum(hu, HIGHEST_HU, out=hu)
    return warnings


def _replace_non_finite(hu: np.ndarray, name: str) -> str:
    broken = ~np.isfinite(hu)
    share = float(broken.mean())
    if share >= MOST_NON_FINITE:
        raise _unusable(name, f"{share:.0%} of the voxels are not numbers (NaN or infinite); export again.")
    hu[broken] = AIR_HU
    return f"{int(broken.sum())} voxels were not numbers (NaN or infinite) and were read as air."


def _empty_bright_corners(hu: np.ndarray) -> None:
    """Turn what lies outside a round field into air, where a scanner filled it with the highest value.

    Left as it is, it would wall in the air around the patient, which then looks like lung.
    """
    corners = hu[:, [0, 0, -1, -1], [0, -1, 0, -1]] >= HIGHEST_HU
    for index in np.flatnonzero(corners.all(axis=1)):
        parts, _ = label(hu[index] >= HIGHEST_HU)
        touching = {parts[0, 0], parts[0, -1], parts[-1, 0], parts[-1, -1]}
        hu[index][np.isin(parts, list(touching))] = AIR_HU


def _check_hounsfield(hu: np.ndarray, low: float, high: float, name: str) -> None:
    found = f"values from {low:g} to {high:g}"
    if high - low < 100.0:
        raise _unusable(name, f"{found} are not Hounsfield units (rescaled?); give the unscaled CT.")
    step = max(1, round((hu.size / 2e6) ** (1 / 3)))
    sample = hu[::step, ::step, ::step]
    sample = sample[sample > PADDING_HU]
    if sample.size and _lacks_intercept(sample):
        raise _unusable(name, f"stored values seem to lack the rescale intercept of -1024 ({found}); use HU.")
    if low >= 0.0:
        raise _unusable(name, f"no negative values ({found}); this is no CT in Hounsfield units, MR perhaps.")
    if not sample.size or np.mean(sample < HIGHEST_LUNG_HU) < LEAST_AIR:
        raise _unusable(name, f"no air near -1000 HU ({found}); this is no chest CT in Hounsfield units.")


def _lacks_intercept(sample: np.ndarray) -> bool:
    """Air near 0 and soft tissue near 1000 and nothing negative: Hounsfield units plus 1024."""
    if sample.min() < 0.0:
        return False
    dense = sample[(sample > 600.0) & (sample < 1600.0)]
    return bool(
        np.mean(sample < 300.0) > 0.005
        and dense.size > 0.02 * sample.size
        and 900.0 <= np.median(dense) <= 1250.0
    )


# --- what the reader should know ------------------------------------------------------------------


def _quality_warnings(spacing: Sequence[float], metadata: dict[str, str]) -> list[str]:
    warnings = []
    finer = f"fine patterns need {THIN_SLICE_MM:g} mm or less."
    if max(spacing) > THIN_SLICE_MM:
        warnings.append(f"Slices lie {max(spacing):.3g} mm apart; {finer}")
    elif _number(metadata.get("slice_thickness_mm")) > THIN_SLICE_MM:
        thickness = _number(metadata["slice_thickness_mm"])
        warnings.append(f"Slices are {thickness:g} mm thick; {finer}")
    if metadata.get("contrast") == "yes":
        warnings.append("Contrast medium was given; it raises the density of healthy lung and of vessels.")
    if _is_sharp(metadata.get("kernel", "")):
        warnings.append(f"The kernel {metadata['kernel']} is sharp; its noise adds false emphysema.")
    return warnings


def _number(text: str | None) -> float:
    try:
        return float(text or 0.0)
    except ValueError:
        return 0.0


def _acquisition(reader: sitk.ImageFileReader) -> dict[str, str]:
    facts = {fact: _tag(reader, tag).split("\\")[0] for fact, tag in ACQUISITION_TAGS.items()}
    if _tag(reader, MODALITY_TAG) == "CT":
        facts["contrast"] = "no" if facts["contrast"].upper() in ("", "NONE", "NO") else "yes"
    return {fact: value for fact, value in facts.items() if value}


def _tag(reader: sitk.ImageFileReader, tag: str) -> str:
    if not reader.HasMetaDataKey(tag):
        return ""
    # Bytes outside UTF-8 arrive as lone surrogates, which no later file could be written with.
    return str(reader.GetMetaData(tag)).encode("utf-8", "replace").decode("utf-8").strip()


# --- DICOM folders --------------------------------------------------------------------------------


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


def _read_dicom_folder(folder: Path) -> _Source:
    with _quiet():
        found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        for path in found:  # left out unseen, its slices would be missing
            require_there(path)
        headers = {path: _header(path) for path in found}
        files = [header for header in headers.values() if header]
        if not files:
            raise _unusable(folder.name, f"no DICOM images in this folder; give {_FORMATS}.")
        series, warnings = _choose_series(files, folder.name)
        damaged = sum(is_dicom(path) for path, header in headers.items() if not header)
        if damaged:
            warnings.append(f"DICOM files without a readable image, left out: {damaged}.")
        name = f"CT series {series[0].number}".strip()
        if len(series) == 1:
            image, metadata = _read_file(series[0].path, as_ct=True)
            return _Source(image, name, metadata, warnings, (series[0].path,))
        ordered = _ordered(series, name)
        image = _read_series(ordered, name, warnings)
        files_in_order = tuple(file.path for file in ordered)
        return _Source(image, name, series[0].acquisition, warnings, files_in_order)


def _header(path: Path) -> _DicomFile | None:
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
        study=_tag(reader, STUDY_TAG),
        series=_tag(reader, "0020|000e"),
        number=_whole_number(_tag(reader, "0020|0011")),
        instance=_tag(reader, "0008|0018"),
        modality=_tag(reader, MODALITY_TAG),
        is_localizer="LOCALIZER" in _tag(reader, "0008|0008").upper(),
        orientation=_numbers(_tag(reader, "0020|0037"), 6) or (in_frames[0::3] + in_frames[1::3]),
        position=_numbers(_tag(reader, "0020|0032"), 3) or (reader.GetOrigin() if in_frames else ()),
        size=size,
        spacing=reader.GetSpacing(),
        pixel=reader.GetPixelID(),
        components=reader.GetNumberOfComponents(),
        acquisition=_acquisition(reader),
    )


def is_dicom(path: Path) -> bool:
    """Whether a file calls itself DICOM; the index of a folder, DICOMDIR, does not count."""
    with path.open("rb") as file:
        return path.name.upper() != "DICOMDIR" and file.read(132)[128:] == b"DICM"


def study_of(path: Path) -> str | None:
    """The study UID of a DICOM image, empty where it has none; None for what is no image."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileName(str(path))
    with _quiet():
        try:
            reader.ReadImageInformation()
        except RuntimeError:
            return None
    return _tag(reader, STUDY_TAG)


def _whole_number(text: str) -> str:
    """The number of a series as text; what is none is left out, since it goes into names and titles."""
    return text if re.fullmatch(r"-?\d{1,11}", text) else ""


def _numbers(text: str, count: int) -> tuple[float, ...]:
    parts = text.split("\\")
    try:
        return tuple(float(part) for part in parts) if len(parts) == count else ()
    except ValueError:
        return ()


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
        raise _unusable(name, f"no axial CT series in this folder (modality {kinds}); give a chest CT.")
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


def _is_sharp(kernel: str) -> bool:
    return _SHARP_KERNEL.match(kernel.strip().upper()) is not None


def _rank(series: list[_DicomFile]) -> tuple[int, bool]:
    """Smallest first: most slices, then a soft kernel."""
    return -_slices(series), _is_sharp(series[0].acquisition.get("kernel", ""))


def _description(series: list[_DicomFile]) -> str:
    kernel = series[0].acquisition.get("kernel", "")
    return f"{series[0].number or 'unknown'} ({_slices(series)} slices{', ' + kernel if kernel else ''})"


def _require_one_study(candidates: Iterable[list[_DicomFile]], name: str) -> None:
    """Two studies are two points in time or two patients: none may be picked unasked."""
    full = [series for series in candidates if _slices(series) >= FEWEST_SLICES]
    studies = {series[0].study for series in full}
    if len(studies) > 1:
        raise _unusable(name, f"CT of {len(studies)} studies lie in this folder; give a folder of one study.")


def _read_series(ordered: list[_DicomFile], name: str, warnings: list[str]) -> sitk.Image:
    _check_kind(ordered[0].pixel, ordered[0].components, (*ordered[0].size[:2], len(ordered)), name)
    geometry = _series_geometry(ordered, name, warnings)
    _check_spacing(geometry.spacing, name)
    reader = sitk.ImageSeriesReader()
    reader.SetImageIO("GDCMImageIO")
    reader.SetFileNames([str(file.path) for file in ordered])
    reader.SetOutputPixelType(sitk.sitkFloat32)
    try:
        return geometry.place(reader.Execute())
    except RuntimeError as error:
        raise _unusable(name, "a DICOM file of it is damaged; export the series again.") from error


def _ordered(series: list[_DicomFile], name: str) -> list[_DicomFile]:
    """Sort by position along the slice normal; the same slice stored twice counts once."""
    unique = list({file.instance or str(file.path): file for file in series}.values())
    normal = unique[0].normal
    ordered = sorted(unique, key=lambda file: float(np.dot(file.position, normal)))
    positions = [float(np.dot(file.position, normal)) for file in ordered]
    if len(positions) > 1 and np.diff(positions).min() < 0.01:
        raise _unusable(name, "several images lie at one position (4D or mixed); give one time point only.")
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
        raise _unusable(name, f"{reason}, positions are off by up to {shift:.1f} mm; export all slices.")
    if shift > 0.1:
        return [f"{reason[0].upper()}{reason[1:]}; positions may be off by up to {shift:.1f} mm."]
    return []
