"""Which CT files of a cohort were made of DICOM images that lie in the cohort, too: they are one CT."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.io.dicom_images import DicomFile, Slice, read_header
from DiffSegLungLib.io.dicom_pixels import forget, slice_hu
from DiffSegLungLib.io.headers import fault_of_header, is_dicom
from DiffSegLungLib.io.image_files import quiet

SAME_VOXEL, SAME_HU = 0.05, 1.0
MOST_TRIED = 200
"""Images of a folder that are compared with a file; the series it was made of may not come first."""


def copies_of(files: Iterable[Path], folders: Iterable[Path], root: Path) -> dict[Path, Path]:
    """Files whose grid and values are those of DICOM images.

    Args:
        files: CT files.
        folders: that hold DICOM images themselves.
        root: of the cohort; what has no other folder in common is not compared.

    Returns:
        For each copy the folder with its images.
    """
    known = list(folders)
    read = cache(lambda folder: list(_images(folder)))
    found: dict[Path, Path] = {}
    with quiet():
        for file in files:
            related = [place for place in known if _are_related(file.parent, place, root)]
            grid = _grid(file) if related else None
            if grid is None:
                continue
            place = next((each for each in related if _is_among(grid, file, read(each))), None)
            if place is not None:
                found[file] = place
    forget()
    return found


def _are_related(first: Path, second: Path, root: Path) -> bool:
    """Whether one lies in the other, or both in a folder that is not the cohort's own."""
    if first in (second, *second.parents) or second in first.parents:
        return True
    return Path(os.path.commonpath([first, second])) not in (root, *root.parents)


def _is_among(grid: sitk.ImageFileReader, file: Path, images: Iterable[DicomFile]) -> bool:
    return any(_holds(grid, file, image) for image in images)


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
