"""Measuring segments as they are now: what is taken from the scene, and what is computed without it.

`take` reads the scene and is quick; `compute` knows arrays alone and may run in a thread.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import slicer

from DiffSegLungLib.anatomy import LUNGS, structure_of
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.terminology import parse_terminology
from DiffSegLungLib.tissues import REPORTED

from . import exchange
from .exchange import Layers, SegmentChoice

if TYPE_CHECKING:
    import pandas

LUNG_LABELS = {lung.key: lung.side for lung in LUNGS}
TISSUE_LABELS = {tissue.key: tissue.label for tissue in REPORTED}
HISTOGRAM_BINS = np.arange(-1030.0, 210.0, 10.0)


@dataclass(frozen=True)
class Taken:
    """What is measured; the user may draw on meanwhile.

    Attributes:
        tissues, lungs, regions: segments on the CT's grid; regions are None where none were chosen.
        names: of the regions, by their value.
        hu: (k, j, i), of the CT.
        huTime: changes with the CT's voxels.
        spacing: (k, j, i) in mm.
        voxelMl: volume of a voxel.
        up: the array's axis that runs along the patient, and whether it goes up.
    """

    tissues: Layers
    lungs: Layers
    regions: Layers | None
    names: dict[int, str]
    hu: np.ndarray
    huTime: int
    spacing: tuple[float, float, float]
    voxelMl: float
    up: tuple[int, bool]


@dataclass(frozen=True)
class Measured:
    """Measures, and what they were taken of, within the smallest box around the lungs.

    Attributes:
        table: region x measure, as `DiffSegLungLib.quantify.measures` defines them.
        histograms: voxels of each tissue in `HISTOGRAM_BINS`.
        profile: level x tissue, as `DiffSegLungLib.quantify.measures.zonal_profile` defines it.
        labels, sides, regions: uint8 or uint16 (k, j, i) within `box`, gaps filled.
        box: where they lie on the CT's grid.
        names, huTime: as of `Taken`.
    """

    table: pandas.DataFrame
    histograms: dict[str, np.ndarray]
    profile: pandas.DataFrame
    labels: np.ndarray
    sides: np.ndarray
    regions: np.ndarray
    box: tuple[slice, slice, slice]
    names: dict[int, str]
    huTime: int


def take(segmentationNode, volumeNode, lungNode, regions: SegmentChoice | None) -> Taken:
    """Reads the scene.

    Raises:
        UnusableInputError: a segmentation has none of its segments left, or does not lie in the CT.
    """
    values = {} if regions is None else {each: n for n, each in enumerate(regions.ids(), start=1)}
    geometry = exchange.worldGeometry(volumeNode)
    return Taken(
        tissues=_layers(segmentationNode, volumeNode, TISSUE_LABELS),
        lungs=_layers(lungNode, volumeNode, LUNG_LABELS),
        regions=exchange.labelLayers(regions, volumeNode, values) if regions else None,
        names={value: _regionName(regions.node, segmentId) for segmentId, value in values.items()},
        hu=slicer.util.arrayFromVolume(volumeNode),
        huTime=volumeNode.GetImageData().GetMTime(),
        spacing=volumeNode.GetSpacing()[::-1],
        voxelMl=abs(np.linalg.det(geometry[:3, :3])) / 1000.0,
        up=_upwards(geometry),
    )


def _upwards(geometry: np.ndarray) -> tuple[int, bool]:
    """The axis of a (k, j, i) array that lies nearest to the patient's, and whether it goes up."""
    along = (geometry[2, :3] / np.linalg.norm(geometry[:3, :3], axis=0))[::-1]
    axis = int(np.abs(along).argmax())
    return axis, bool(along[axis] > 0)


def _layers(node, volumeNode, labels: dict[str, int]) -> Layers:
    known = set(node.GetSegmentation().GetSegmentIDs())
    present = {segmentId: label for segmentId, label in labels.items() if segmentId in known}
    if not present:
        raise UnusableInputError(f"{node.GetName()} has none of its segments left: segment again.")
    return exchange.labelLayers(SegmentChoice(node), volumeNode, present)


def _regionName(node, segmentId: str) -> str:
    """Lobes by their codes first and names second; other segments keep their names."""
    segment = node.GetSegmentation().GetSegment(segmentId)
    lobe = structure_of(parse_terminology(exchange.terminologyOf(segment)), segment.GetName())
    return lobe.name if lobe else segment.GetName()


def compute(taken: Taken, before: Measured | None = None) -> Measured:
    """Measures, and of earlier measures of the same CT anew only what has changed.

    Args:
        taken: from the scene.
        before: the last measures of this segmentation, None where there are none.

    Raises:
        UnusableInputError: there is no lung.
    """
    from DiffSegLungLib.quantify.measures import complete, lung_box

    labels, sides = taken.tissues.merged().astype(np.uint8), taken.lungs.merged().astype(np.uint8)
    box = lung_box((labels > 0) | (sides > 0))
    regions = taken.regions.merged()[box] if taken.regions else np.zeros(sides[box].shape, np.uint8)
    labels, sides = complete(labels[box], sides[box], taken.spacing)
    if before is not None and _isSameLung(before, taken, box, labels, sides, regions):
        return _brushed(before, taken, labels)
    from DiffSegLungLib.quantify.measures import measure

    hu = taken.hu[box]
    table = measure(labels, hu, taken.spacing, _masks(sides, regions, taken.names), taken.voxelMl)
    histograms = {key: _histogram(hu[labels == label]) for key, label in TISSUE_LABELS.items()}
    profile = _profile(labels, taken)
    return Measured(table, histograms, profile, labels, sides, regions, box, taken.names, taken.huTime)


def _profile(labels: np.ndarray, taken: Taken) -> pandas.DataFrame:
    from DiffSegLungLib.quantify.measures import zonal_profile

    axis, goesUp = taken.up
    upright = np.moveaxis(labels, axis, 0)
    return zonal_profile(upright if goesUp else upright[::-1])


def _isSameLung(before: Measured, taken: Taken, box, labels, sides, regions) -> bool:
    """Whether tissues alone have changed, within the same lungs and regions of the same CT."""
    return (
        (before.huTime, before.names) == (taken.huTime, taken.names)
        and before.box == box
        and np.array_equal(before.sides, sides)
        and np.array_equal(before.regions, regions)
        and np.array_equal(before.labels > 0, labels > 0)
    )


def _brushed(before: Measured, taken: Taken, labels: np.ndarray) -> Measured:
    """Density does not hang on the tissues: volumes and shares alone change, by what the stroke touched."""
    from DiffSegLungLib.quantify.measures import lung_box, measure

    changed = before.labels != labels
    if not changed.any():
        return before
    stroke = lung_box(changed)
    hu = taken.hu[before.box][stroke]
    masks = _masks(before.sides[stroke], before.regions[stroke], taken.names)
    old, new = (
        measure(each[stroke], hu, taken.spacing, masks, taken.voxelMl) for each in (before.labels, labels)
    )
    table = _shifted(before.table, old, new)
    histograms = dict(before.histograms)
    for key, label in TISSUE_LABELS.items():
        gone, come = (_histogram(hu[each[stroke] == label]) for each in (before.labels, labels))
        histograms[key] = histograms[key] - gone + come
    profile = _profile(labels, taken)
    return replace(before, table=table, histograms=histograms, profile=profile, labels=labels)


def _shifted(table: pandas.DataFrame, old: pandas.DataFrame, new: pandas.DataFrame) -> pandas.DataFrame:
    """The table with the millilitres of a part of the lungs exchanged, and its shares brought up to date."""
    from DiffSegLungLib.tissues import DISEASES

    shifted = table.copy()
    columns = ["vessel_ml", *(f"{key}_ml" for key in TISSUE_LABELS)]
    gone, come = (each[columns].reindex(table.index, fill_value=0.0) for each in (old, new))
    shifted[columns] = (table[columns] - gone + come).clip(lower=0.0)
    parenchyma = shifted[columns[1:]].sum(axis="columns")
    for key in TISSUE_LABELS:
        shifted[f"{key}_percent"] = 100 * shifted[f"{key}_ml"] / parenchyma
    diseased = shifted[[f"{tissue.key}_ml" for tissue in DISEASES]].sum(axis="columns")
    shifted["disease_percent"] = 100 * diseased / parenchyma
    return shifted


def _masks(sides: np.ndarray, regions: np.ndarray, names: dict[int, str]) -> dict[str, np.ndarray]:
    from DiffSegLungLib.anatomy import regions_from_sides

    masks = regions_from_sides(sides)
    for value, name in names.items():
        inside = (regions == value) & (sides > 0)
        if inside.any():
            masks[name] = inside
    return masks


def _histogram(values: np.ndarray) -> np.ndarray:
    return np.histogram(values, HISTOGRAM_BINS)[0]
