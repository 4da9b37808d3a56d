"""Load, check and canonicalise a CT: geometry in, geometry out.

Every stage after this one works on ``Volume.hu``: float32 Hounsfield units, axes (z, y, x), index +x towards
the patient's Left, +y Posterior, +z Superior.  ``to_input_geometry`` is the way back, voxel by voxel.

Beside it ``image_files`` reads a file, ``series`` and ``dicom_folder`` a folder, ``label_maps`` a mask,
``hounsfield`` checks the values, ``acquisition`` warns, ``resampling`` changes the grid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.acquisition import quality_warnings
from DiffSegLungLib.io.dicom_folder import read_dicom_folder, read_multi_frame
from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.headers import is_dicom
from DiffSegLungLib.io.hounsfield import clean
from DiffSegLungLib.io.image_files import (
    check_kind,
    check_spacing,
    existing,
    read_file,
    safe_title,
    three_dimensional,
)
from DiffSegLungLib.io.series import Series
from DiffSegLungLib.io.source import Source
from DiffSegLungLib.io.told_geometry import geometry_warnings

LUNG_ON_EDGE_CM2 = 5.0


@dataclass(frozen=True, eq=False)
class Volume:
    """A checked CT in canonical axes.

    Attributes:
        hu: Hounsfield units, float32, (z, y, x), axes LPS.
        spacing: voxel size (z, y, x) in mm.
        image: a carrier of the canonical geometry: one voxel with canonical spacing, origin and direction, so
            that no second copy of the pixels is kept; ``canonical_image`` makes a full image of any array.
        input_geometry: the grid the CT came in; ``to_input_geometry`` returns to it.
        name: title of what is written: as it was asked for, else ``CT series 4`` for DICOM, ``CT`` for all
            else; a file's own name may be a patient's.
        metadata: acquisition facts that change numbers, where known; never a patient's identity.
        warnings: whole sentences for the reader.
        dicom_files: for each of the input's slices the DICOM file it was read from, in their order; none if
            it was no DICOM.
        dicom_frames: of each slice the place in its file, from 0.
        series: the CT series of the DICOM folder it was read from, this one and those that were not taken.
    """

    hu: np.ndarray
    spacing: tuple[float, float, float]
    image: sitk.Image
    input_geometry: Geometry
    name: str = "CT"
    metadata: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    dicom_files: tuple[Path, ...] = ()
    series: tuple[Series, ...] = ()
    dicom_frames: tuple[int, ...] = ()

    @property
    def series_uid(self) -> str:
        """Of the series that was read from a DICOM folder, empty for all else."""
        path = self.dicom_files[0] if self.dicom_files else None
        owners = (each.uid for each in self.series if path in {file.path for file in each.files})
        return next(owners, "")

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in ml; a stack sheared by a tilted gantry holds less than its spacing says."""
        shear = abs(np.linalg.det(np.asarray(self.image.GetDirection()).reshape(3, 3)))
        return float(np.prod(self.spacing) * shear / 1000.0)


def load_volume(
    source: str | os.PathLike[str] | sitk.Image, series: str | None = None, name: str | None = None
) -> Volume:
    """Load a chest CT, check that it is one, and turn it to canonical axes.

    Args:
        source: an NRRD, NIfTI or MetaImage file, a DICOM folder or multi-frame file, or an image in memory.
        series: Series Number or UID to take of a DICOM folder; None for the one that a reader would take.
        name: title of what is written; None for ``CT``, which names nobody.

    Returns:
        The volume; what the reader should know of its quality is in ``warnings``.

    Raises:
        UnusableInputError: the source is missing, cannot be read, or is not a CT in Hounsfield units.
        TypeError: it is nothing that could be one, such as an array, which has no voxel size.
    """
    read = _read(source, series)
    geometry = Geometry.of(read.image)
    canonical = sitk.DICOMOrient(read.image, "LPS")
    read.image = sitk.Image()  # the stored values go before the float32 copy comes: a lower memory peak
    hu = sitk.GetArrayViewFromImage(canonical).astype(np.float32)
    warnings = read.warnings + clean(hu, read.name)
    warnings += quality_warnings(canonical.GetSpacing(), read.metadata)
    return Volume(
        hu=hu,
        spacing=canonical.GetSpacing()[::-1],
        image=Geometry.of(canonical).place(sitk.Image([1, 1, 1], sitk.sitkUInt8)),
        input_geometry=geometry,
        name=name or read.title,
        metadata=read.metadata,
        warnings=tuple(warnings),
        dicom_files=read.dicom_files,
        series=read.series,
        dicom_frames=read.dicom_frames,
    )


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


def _read(source: str | os.PathLike[str] | sitk.Image, series: str | None) -> Source:
    if isinstance(source, sitk.Image):
        check_kind(source.GetPixelID(), source.GetNumberOfComponentsPerPixel(), source.GetSize(), "CT")
        check_spacing(source.GetSpacing(), "CT")
        return Source(three_dimensional(source), "CT", warnings=geometry_warnings(None, source, "CT"))
    path = existing(source)
    if path.is_dir():
        return read_dicom_folder(path, series)
    if series is not None:
        raise UnusableInputError(f"{path.name}: a file is one series; --series is for DICOM folders.")
    if is_dicom(path) and (frames := read_multi_frame(path, path.name)):
        return frames
    image, metadata = read_file(path, as_ct=True)
    return Source(image, safe_title(path), metadata, geometry_warnings(path, image, path.name))


def _without_bool(array: np.ndarray) -> np.ndarray:
    return array.view(np.uint8) if array.dtype == bool else array
