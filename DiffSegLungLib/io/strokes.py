"""Reading strokes: where somebody painted what a tissue really is."""

from __future__ import annotations

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.label_maps import labels_on_grid, read_labels
from DiffSegLungLib.io.segmentations import SegmentationFile, Source
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.tissues import NOT_LUNG, NOT_LUNG_KEY, NOT_LUNG_NAME, TISSUES

GRID_TOLERANCE = 0.05
"""Of a voxel, by which grids may differ that are one: files round what they store."""


def load_strokes(source: Source, volume: Volume) -> np.ndarray:
    """Read strokes.

    Args:
        source: a segmentation whose segments are tissues or called ``not-lung``, or a plain label map with
            the values of the tissue table and ``NOT_LUNG``; painted on the CT's grid, or a part of it.
        volume: the CT.

    Returns:
        uint8 (z, y, x): the tissue painted, ``NOT_LUNG``, 0 where nothing was; where strokes overlap the one
        listed last counts.

    Raises:
        UnusableInputError: they cannot be read, are empty, of another grid, or of no tissue.
    """
    image, name = read_labels(source)
    if image.GetDimension() == 3:  # all else is refused when it is read
        _require_grid(image, volume, name)
    if image.HasMetaDataKey("Segment0_ID"):
        strokes = _painted(SegmentationFile(image, name, volume), volume)
    else:
        strokes = labels_on_grid(image, volume, name, empty=True)
    known = {0, NOT_LUNG, *(tissue.label for tissue in TISSUES)}
    if other := sorted(set(np.unique(strokes).tolist()) - known):
        raise UnusableInputError(
            f"{name}: label {other[0]} is no tissue; paint with labels 1 to {TISSUES[-1].label}, or "
            f"{NOT_LUNG} for what is not lung."
        )
    if not strokes.any():
        raise UnusableInputError(f"{name}: nothing is painted on this CT; paint a stroke and try again.")
    return strokes.astype(np.uint8)


def _painted(file: SegmentationFile, volume: Volume) -> np.ndarray:
    strokes = np.zeros(volume.hu.shape, np.uint8)
    for segment in file.segments:
        words = {segment.key.lower(), segment.name.strip().lower()}
        outside = bool(words & {NOT_LUNG_KEY, NOT_LUNG_NAME.lower()})
        if segment.tissue is None and not outside:
            if file.mask(segment).any():
                names = ", ".join([*(tissue.key for tissue in TISSUES), NOT_LUNG_KEY])
                raise UnusableInputError(
                    f"{file.name}: segment {segment.name!r} is no tissue; call it one of {names}."
                )
            continue
        strokes[file.mask(segment)] = segment.tissue.label if segment.tissue else NOT_LUNG
    return strokes


def _require_grid(image: sitk.Image, volume: Volume, name: str) -> None:
    """A stroke is thin: brought from another grid it would not be what was painted.

    Raises:
        UnusableInputError: the voxels are not the CT's.
    """
    far = np.asarray(image.GetSize()) - 1
    corners = [(0, 0, 0), *np.diag(far).tolist()]
    places = np.array([_index(volume, image.TransformIndexToPhysicalPoint(corner)) for corner in corners])
    lengths = np.abs(places[1:] - places[0]).sum(axis=1)
    apart = max(np.abs(places - np.rint(places)).max(), np.abs(lengths - far).max())
    if apart > GRID_TOLERANCE:
        voxel = " x ".join(f"{step:.3g}" for step in image.GetSpacing())
        raise UnusableInputError(
            f"{name} lies on another grid than the CT (voxels of {voxel} mm): paint strokes on this CT."
        )


def _index(volume: Volume, point: tuple[float, ...]) -> tuple[float, ...]:
    """Of a point, the CT's voxel as broken numbers."""
    return tuple(volume.image.TransformPhysicalPointToContinuousIndex(point))
