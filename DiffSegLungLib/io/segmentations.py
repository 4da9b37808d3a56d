"""Reading segmentation files, ours or Slicer's.

A segment is known by its codes, ID or name, never by its order.  A ``.seg.nrrd`` holds one label map, or
several layers where segments overlap; its header says in which layer and under which value each segment lies.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.anatomy import (
    LEFT,
    RIGHT,
    THIRDS,
    WHOLE,
    Structure,
    is_lungs,
    structure_of,
    thirds_from_sides,
)
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.given_lungs import require_lungs_alone
from DiffSegLungLib.io.label_maps import labels_on_grid, load_mask, read_labels
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.terminology import TAG, Terminology, parse_terminology
from DiffSegLungLib.tissues import BY_KEY, TISSUES, Tissue

Source = str | os.PathLike[str] | sitk.Image
"""A file, a folder, or an image in memory."""

LONGEST_NAME = 64


@dataclass(frozen=True)
class StoredSegment:
    """One segment of a file.

    Attributes:
        key: its ID.
        name: as its maker called it.
        terminology: its codes, None where it has none.
        label: its value in its layer.
        layer: the component of the file's voxels.
    """

    key: str
    name: str
    terminology: Terminology | None
    label: int
    layer: int

    @property
    def structure(self) -> Structure | None:
        """The lung or lobe that it is."""
        return structure_of(self.terminology, self.name)

    @property
    def tissue(self) -> Tissue | None:
        """The tissue that it is: by its ID, else by its code, else by its name."""
        if self.key in BY_KEY:
            return BY_KEY[self.key]
        kind = self.terminology.type if self.terminology else None
        for tissue in TISSUES:
            if kind and (kind.scheme, kind.value) == (tissue.code.scheme, tissue.code.value):
                return tissue
        name = _plain(self.name)
        return next((each for each in TISSUES if name in (_plain(each.name), _plain(each.key))), None)


class SegmentationFile:
    """The segments of a file, on a CT's canonical grid."""

    def __init__(self, image: sitk.Image, name: str, volume: Volume) -> None:
        self.name = name
        self.segments = _segments(image, name)
        self._image = image
        self._volume = volume
        self._read: tuple[int, np.ndarray] | None = None

    def mask(self, segment: StoredSegment) -> np.ndarray:
        """Where a segment is, bool (z, y, x)."""
        if self._read is None or self._read[0] != segment.layer:  # one layer in memory at a time
            self._read = segment.layer, self._layer(segment.layer)
        return self._read[1] == segment.label

    def _layer(self, number: int) -> np.ndarray:
        several = self._image.GetNumberOfComponentsPerPixel() > 1
        layer = sitk.VectorIndexSelectionCast(self._image, number) if several else self._image
        return labels_on_grid(layer, self._volume, self.name, empty=True)


def read_segmentation(source: Source, volume: Volume) -> SegmentationFile | None:
    """Read a file that names its segments.

    Args:
        source: a file, or an image that still has its file's header fields.
        volume: the CT it belongs to.

    Returns:
        The segmentation; None for a plain label map.

    Raises:
        UnusableInputError: it cannot be read.
    """
    image, name = read_labels(source)
    return SegmentationFile(image, name, volume) if image.HasMetaDataKey("Segment0_ID") else None


def load_lungs(source: Source, volume: Volume) -> tuple[np.ndarray, bool]:
    """Read a lung mask.

    A segmentation whose segments are lungs or lobes has sides of its own, and what else it holds, such as a
    trachea, is no lung.  Without sides the segments named lung count, without these all of them.

    Args:
        source: a segmentation, or a plain label map.
        volume: the CT it belongs to.

    Returns:
        Labels (z, y, x), above 0 in the lungs, and whether the file itself says that 1 is right and 2 left.

    Raises:
        UnusableInputError: it cannot be read, is empty, lies outside the CT or holds other organs, too.
    """
    file = read_segmentation(source, volume)
    if file is None:
        labels = load_mask(source, volume)
        require_lungs_alone(labels, volume, "mask" if isinstance(source, sitk.Image) else Path(source).name)
        return labels, False
    sided = [segment for segment in file.segments if segment.structure]
    whole = [segment for segment in file.segments if is_lungs(segment.terminology, segment.name)]
    lungs = np.zeros(volume.hu.shape, np.uint8)
    for segment in sided or whole or file.segments:
        side = segment.structure.side if segment.structure else 1
        lungs[file.mask(segment) & (lungs == 0)] = side
    if not lungs.any():
        raise UnusableInputError(
            f"{file.name}: the lung mask is empty or does not overlap the CT; give the mask of this scan."
        )
    return lungs, bool(sided)


def load_regions(source: Source, volume: Volume, lungs: np.ndarray) -> dict[str, np.ndarray]:
    """Read lobes or other regions to measure.

    Args:
        source: a segmentation, whose lobes get the names of ``anatomy.LOBES`` and whose other segments keep
            theirs, or a plain label map, whose labels become "region 1" and so on.
        volume: the CT it belongs to.
        lungs: bool (z, y, x); regions end where the lungs end.

    Returns:
        Name to bool mask (z, y, x), only of regions that have lung in them.  No name is that of the whole,
        the right or the left lung.

    Raises:
        UnusableInputError: it cannot be read, or no region lies inside the lungs.
    """
    regions: dict[str, np.ndarray] = {}
    for name, region in _named_masks(source, volume):
        inside = region & lungs
        if inside.any():
            regions[_another_name(name, {WHOLE, RIGHT, LEFT, *regions})] = inside
    if not regions:
        raise UnusableInputError("no region lies inside the lungs; give regions drawn on this CT")
    return regions


def more_regions(given: Source | None, volume: Volume, sides: np.ndarray) -> dict[str, np.ndarray]:
    """What is measured beside the whole, the right and the left lung.

    Args:
        given: lobes or other regions as in `load_regions`, ``measures.THIRDS``, or None for nothing.
        volume: the CT.
        sides: (z, y, x), 1 in the patient's right lung, 2 in the left, 0 elsewhere.

    Raises:
        UnusableInputError: as `load_regions`.
    """
    if given is None:
        return {}
    if not isinstance(given, sitk.Image) and str(given) == THIRDS:
        return thirds_from_sides(sides)
    return load_regions(given, volume, sides > 0)


def load_tissues(source: Source, volume: Volume) -> tuple[np.ndarray, list[str]]:
    """Read a segmentation of tissues, perhaps corrected by hand.

    Args:
        source: a segmentation, or a plain label map with the values of the tissue table.
        volume: the CT it belongs to.

    Returns:
        Labels (z, y, x), uint8, and sentences on what was left out or lies in two tissues.

    Raises:
        UnusableInputError: it cannot be read, has no tissue, or a value is not in the tissue table.
    """
    file = read_segmentation(source, volume)
    if file is None:
        return _by_value(load_mask(source, volume)), []
    labels, warnings = np.zeros(volume.hu.shape, np.uint8), []
    overlap = 0
    for segment in file.segments:
        if segment.tissue is None:
            warnings.append(f"Segment {_shown(segment)!r} is none of DiffSegLung's tissues and was left out.")
            continue
        mask = file.mask(segment)
        overlap += int(np.count_nonzero(labels[mask]))
        labels[mask] = segment.tissue.label
    if overlap:
        millilitres = overlap * volume.voxel_ml
        warnings.append(f"Tissues overlap in {millilitres:.1f} ml; there the one listed last counts.")
    if not labels.any():
        names = ", ".join(tissue.key for tissue in TISSUES)
        raise UnusableInputError(
            f"{file.name}: no segment on this CT is a tissue; name them by ID, code or name ({names})."
        )
    return labels, warnings


def _segments(image: sitk.Image, name: str) -> tuple[StoredSegment, ...]:
    """The header's segments; files of Slicer before 4.11 hold one segment a layer, under the value 1."""
    segments: list[StoredSegment] = []
    layers = image.GetNumberOfComponentsPerPixel()
    while image.HasMetaDataKey(f"Segment{len(segments)}_ID"):
        index = len(segments)
        label, layer = _number(image, index, "LabelValue", 1), _number(image, index, "Layer", index)
        if not 0 <= layer < layers or label < 1:
            raise UnusableInputError(
                f"{name}: its header and its voxels do not fit; save it again in Slicer."
            )
        tags = dict(tag.partition(":")[::2] for tag in _field(image, index, "Tags").split("|"))
        terminology = parse_terminology(tags.get(TAG, ""))
        key = _field(image, index, "ID")
        segments.append(StoredSegment(key, _field(image, index, "Name") or key, terminology, label, layer))
    return tuple(segments)


def _field(image: sitk.Image, index: int, field: str) -> str:
    key = f"Segment{index}_{field}"
    return str(image.GetMetaData(key)).strip() if image.HasMetaDataKey(key) else ""


def _number(image: sitk.Image, index: int, field: str, default: int) -> int:
    text = _field(image, index, field)
    return int(text) if text.isdecimal() else default


def _named_masks(source: Source, volume: Volume) -> Iterable[tuple[str, np.ndarray]]:
    file = read_segmentation(source, volume)
    if file is None:
        labels = load_mask(source, volume)
        yield from ((f"region {value}", labels == value) for value in np.unique(labels[labels > 0]))
        return
    for segment in file.segments:
        yield segment.structure.name if segment.structure else _shown(segment), file.mask(segment)


def _shown(segment: StoredSegment) -> str:
    """A name of one line that a table can hold."""
    return " ".join(segment.name.split())[:LONGEST_NAME] or segment.key


def _another_name(name: str, taken: set[str]) -> str:
    """The name, with a number where it is taken."""
    used = {each.lower() for each in taken}
    number, candidate = 1, name
    while candidate.lower() in used:
        number += 1
        candidate = f"{name} ({number})"
    return candidate


def _by_value(labels: np.ndarray) -> np.ndarray:
    highest = TISSUES[-1].label
    if int(labels.max()) > highest:
        raise UnusableInputError(
            f"Label {int(labels.max())} in the label map is not in the tissue table: "
            f"give labels 0 to {highest}."
        )
    return labels.astype(np.uint8)


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())
