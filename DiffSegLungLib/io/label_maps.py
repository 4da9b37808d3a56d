"""Read a label map, and bring it onto the grid of a CT."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.io.dicom_seg_reader import is_dicom_segmentation, read_dicom_segmentation
from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.image_files import existing, read_file, unusable

if TYPE_CHECKING:
    from DiffSegLungLib.io.volume import Volume


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
        raise unusable(name, "the mask does not overlap the CT; give the mask of this very scan.")
    return array


def read_labels(source: str | os.PathLike[str] | sitk.Image) -> tuple[sitk.Image, str]:
    """Read a label map with its header fields, and return it with a name for messages.

    Raises:
        UnusableInputError: there is no such file, or it cannot be read.
    """
    if isinstance(source, sitk.Image):
        return source, "mask"
    path = existing(source)
    if is_dicom_segmentation(path):
        return read_dicom_segmentation(path), path.name
    return read_file(path)[0], path.name


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


def _label_image(image: sitk.Image, name: str, empty: bool = False) -> sitk.Image:
    """Return a 3D label image, uint8 or uint16, of whatever whole numbers the mask holds."""
    if image.GetDimension() != 3:
        raise unusable(name, f"the mask has {image.GetDimension()} dimensions; give a 3D label map.")
    array = sitk.GetArrayViewFromImage(image)
    if array.ndim == 4:
        array = _merge_layers(array, name)
    low, high = float(array.min()), float(array.max())
    whole = array.dtype.kind != "f" or np.array_equal(array, np.rint(array))
    if not (whole and low >= 0.0 and high <= 65535.0):
        raise unusable(name, f"mask values from {low:g} to {high:g} are no labels; give whole numbers.")
    if high == 0.0 and not empty:
        raise unusable(name, "the mask is empty; give a mask with at least one labelled voxel.")
    labels = sitk.GetImageFromArray(array.astype(np.uint8 if high <= 255.0 else np.uint16))
    return Geometry.of(image).place(labels)


def _merge_layers(layers: np.ndarray, name: str) -> np.ndarray:
    """Lay a segmentation's layers (z, y, x, layer) onto each other; the first one stays on top."""
    labels = [set(np.unique(layers[..., layer]).tolist()) - {0} for layer in range(layers.shape[-1])]
    if sum(map(len, labels)) > len(set().union(*labels)):
        raise unusable(name, "overlapping segments share label values; export it as one label map.")
    merged = layers[..., 0].copy()
    for layer in range(1, layers.shape[-1]):
        np.copyto(merged, layers[..., layer], where=merged == 0)
    return merged
