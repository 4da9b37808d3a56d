"""What readers of LIDC said of each nodule, beside what we call its voxels.

The files hold for each reader's mark its texture, its internal structure, its voxels and their mean HU, but
neither place nor number of the nodule.  So nodules are parted in the map of votes, and each takes as many
marks as readers voted for it, those that it resembles in size and density.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

from DiffSegLungLib.evaluation.borrowed import file_of
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.tissues import BY_LABEL, CAVITY, CONSOLIDATION, FIBROSIS, GROUND_GLASS, VESSEL

READINGS, VOTES = "_nodule_readings.json", "_nodulevotes.nii.gz"
GROUND_GLASS_TEXTURE, AIR_WITHIN = 1, 4
"""Of LIDC's scales: texture 1 is ground glass, 5 solid; internal structure 4 is air."""
OWN_MM = 5.0
"""Farther than this from what two readers marked, a mark is no rim of theirs but a nodule of its own."""
LEAST_OF_SHARED = 0.1
"""Size of such a nodule, of what two readers marked beside it; smaller is a wide outline."""
HU_OF_A_DOUBLING = 100.0
"""Difference in mean HU that weighs as much as half or twice the size."""
DENSE = (CONSOLIDATION, FIBROSIS, CAVITY)


@dataclass(frozen=True)
class Reading:
    """One reader's mark of one nodule.

    Attributes:
        texture: 1 ground glass to 5 solid.
        structure: 1 soft tissue, 2 fluid, 3 fat, 4 air.
        voxels: of the outline, on the grid that it was drawn in.
        mean_hu: within it.
    """

    texture: int
    structure: int
    voxels: float
    mean_hu: float


def cases(data: Path) -> list[str]:
    """Names of the CT below the data folder that have readings."""
    found = data.glob(f"*/*{READINGS}")
    return sorted(f"{path.parent.name}/{path.name.removesuffix(READINGS)}" for path in found)


def read(path: Path) -> list[Reading]:
    """The readings of one CT, in the order of the file."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    return [
        Reading(entry["texture"], entry["internalStructure"], entry["voxels"], entry["mean_hu"])
        for entry in entries
    ]


def part_nodules(votes: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Number the nodules in a map of votes.

    What hangs together is one nodule, but for what one reader alone marked beside what others marked, too.

    Args:
        votes: readers that marked a voxel, (z, y, x).
        spacing: (z, y, x) in mm.

    Returns:
        int32, 0 outside, nodules from 1 on.
    """
    corners = np.ones((3, 3, 3), bool)
    nodules, count = ndimage.label(votes > 0, corners)
    shared = np.bincount(nodules[votes > 1], minlength=count + 1)
    if not shared.any():
        return nodules
    far = ndimage.distance_transform_edt(votes < 2, sampling=spacing) > OWN_MM
    own, pieces = ndimage.label((votes > 0) & far & (shared[nodules] > 0), corners)
    for piece in range(1, pieces + 1):
        inside = own == piece
        if inside.sum() >= LEAST_OF_SHARED * shared[nodules[inside][0]]:
            count += 1
            nodules[inside] = count
    return nodules


def place(
    readings: Sequence[Reading], votes: np.ndarray, nodules: np.ndarray, hu: np.ndarray
) -> list[list[Reading]]:
    """The readings of each nodule, from 1 on: as many as readers marked it, alike in size and mean HU.

    Args:
        readings: of the CT; what is more than the nodules take is left out.
        votes: readers that marked a voxel, (z, y, x).
        nodules: their numbers, as of ``part_nodules``.
        hu: of the CT on the same grid.
    """
    placed: list[list[Reading]] = [[] for _ in range(int(nodules.max()))]
    if not placed or not readings:
        return placed
    numbers = range(1, len(placed) + 1)
    marks = ndimage.sum_labels(votes, nodules, numbers)
    readers = ndimage.maximum(votes, nodules, numbers).astype(int)
    means = ndimage.sum_labels(votes * hu, nodules, numbers) / marks
    # all outlines together hold as many voxels as there are votes, but on another grid
    drawn = np.array([reading.voxels for reading in readings])
    ratios = (drawn / drawn.sum())[:, None] / (marks / readers / marks.sum())
    apart = np.abs(np.array([reading.mean_hu for reading in readings])[:, None] - means)
    slots = np.repeat(np.arange(len(placed)), readers)
    costs = np.abs(np.log2(ratios)) + apart / HU_OF_A_DOUBLING
    for reading, slot in zip(*linear_sum_assignment(costs[:, slots]), strict=True):
        placed[slots[slot]].append(readings[reading])
    return placed


def score(name: str, data: Path, model_name: str | None) -> dict[str, Any]:
    """Each nodule of a CT: what its readers said, and what we call it."""
    result = segment(file_of(name, data), model=model_name)
    votes = load_mask(data / f"{name}{VOTES}", result.volume)
    nodules = part_nodules(votes, result.volume.spacing)
    placed = place(read(data / f"{name}{READINGS}"), votes, nodules, result.volume.hu)
    rows = [
        describe(readings, votes * (nodules == number), result.label_array, result.volume.voxel_ml)
        for number, readings in enumerate(placed, 1)
    ]
    return {"name": name, "nodules": rows}


def describe(
    readings: Sequence[Reading], votes: np.ndarray, labels: np.ndarray, voxel_ml: float
) -> dict[str, Any]:
    """One nodule: its readings, and the shares of tissues in what at least half of its readers marked.

    Args:
        readings: that were placed there.
        votes: readers that marked a voxel of this nodule, (z, y, x).
        labels: what we call each voxel.
        voxel_ml: of a voxel.
    """
    readers = int(votes.max())
    found = labels[(votes > 0) & (2 * votes >= readers)]
    return {
        "readers": readers,
        "readings": len(readings),
        "texture": sorted(reading.texture for reading in readings),
        "internal_structure": sorted(reading.structure for reading in readings),
        "ml": float(found.size * voxel_ml),
        "ground_glass_percent": 100.0 * float(np.mean(found == GROUND_GLASS)),
        "dense_percent": 100.0 * float(np.isin(found, DENSE).mean()),
        "cavity_percent": 100.0 * float(np.mean(found == CAVITY)),
        "vessel_percent": 100.0 * float(np.mean(found == VESSEL)),
        "outside_lung_percent": 100.0 * float(np.mean(found == 0)),
        "by_tissue": {t.key: 100.0 * float(np.mean(found == t.label)) for t in BY_LABEL.values()},
    }


def called(rows: Sequence[dict[str, Any]], scale: str, value: int) -> dict[str, Any]:
    """The nodules of which a reader said one thing: how many readers and nodules, and their shares by volume.

    Args:
        rows: of ``score``.
        scale: ``texture`` or ``internal_structure``.
        value: on that scale.
    """
    nodules = [nodule for row in rows for nodule in row["nodules"] if value in nodule[scale]]
    summary: dict[str, Any] = {
        "readers": sum(nodule[scale].count(value) for nodule in nodules),
        "nodules": len(nodules),
        "ml": sum(nodule["ml"] for nodule in nodules),
    }
    for key in ("ground_glass_percent", "dense_percent", "cavity_percent") if nodules else ():
        summary[key] = sum(nodule[key] * nodule["ml"] for nodule in nodules) / summary["ml"]
    return summary
