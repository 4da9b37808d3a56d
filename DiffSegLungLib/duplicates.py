"""Which CT files of a cohort were made of DICOM images that lie in the cohort, too: they are one CT."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.dicom_images import DicomFile, Slice, read_header
from DiffSegLungLib.dicom_pixels import slice_hu
from DiffSegLungLib.headers import fault_of_header, is_dicom
from DiffSegLungLib.image_files import quiet

SAME_VOXEL, SAME_HU = 0.05, 1.0
MOST_TRIED = 200
"""Images of a folder that are compared with a file; the series it was made of may not come first."""


def copies_of(files: Iterable[Path], folders: Iterable[Path]) -> dict[Path, Path]:
    """Files whose grid and values are those of DICOM images.

    Args:
        files: CT files.
        folders: that hold DICOM images themselves.

    Returns:
        For each copy the folder with its images.
    """
    known = list(folders)
    found = ((file, next((place for place in known if _is_copy(file, place)), None)) for file in files)
    return {file: place for file, place in found if place is not None}


def _is_copy(file: Path, folder: Path) -> bool:
    """Whether a file and a folder belong together, and a slice of the folder is one of the file."""
    if folder != file.parent and file.parent not in folder.parents and folder not in file.parents:
        return False
    with quiet():
        grid = _grid(file)
        return grid is not None and any(_holds(grid, file, image) for image in _images(folder))


def _grid(file: Path) -> sitk.ImageFileReader | None:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        if fault_of_header(file):
            return None
        reader.ReadImageInformation()
    except (OSError, RuntimeError):
        return None
    return reader if reader.GetDimension() == 3 and reader.GetNumberOfComponents() == 1 else None


def _images(folder: Path) -> Iterator[DicomFile]:
    """CT images of a folder, spread over its files."""
    paths = sorted(path for path in folder.iterdir() if path.is_file())
    for path in paths[:: max(1, len(paths) // MOST_TRIED)]:
        header = read_header(path) if is_dicom(path) else None
        if header and Slice(header).is_axial_ct and header.planes[0].spacing:
            yield header


def _holds(grid: sitk.ImageFileReader, file: Path, image: DicomFile) -> bool:
    """Whether the first slice of an image is one of the grid's, in place and values."""
    plane = image.planes[0]
    if grid.GetSize()[:2] != image.size or not np.allclose(grid.GetSpacing()[:2], plane.spacing, rtol=1e-3):
        return False
    place = _index(grid, plane.position)
    nearest = np.rint(place).astype(int)
    columns, rows, slices = grid.GetSize()
    at_corner = nearest[0] in (0, columns - 1) and nearest[1] in (0, rows - 1)
    if not (at_corner and 0 <= nearest[2] < slices and np.abs(place - nearest).max() < SAME_VOXEL):
        return False
    try:
        theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(file)))[nearest[2]]
        ours = slice_hu(Slice(image))
    except RuntimeError:
        return False
    flipped = ours[:: -1 if nearest[1] else 1, :: -1 if nearest[0] else 1]
    return bool(np.abs(theirs - flipped).max() <= SAME_HU)


def _index(grid: sitk.ImageFileReader, point: Iterable[float]) -> np.ndarray:
    """Of a point (LPS mm) in voxels (x, y, z)."""
    axes = np.reshape(grid.GetDirection(), (3, 3)) * np.asarray(grid.GetSpacing())
    return np.linalg.solve(axes, np.asarray(list(point)) - np.asarray(grid.GetOrigin()))
