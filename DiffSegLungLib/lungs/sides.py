"""Which lung is the right one, and where both touch."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.filters import box_around, squared_distance
from DiffSegLungLib.lungs.air import middle_of_air, outside_air
from DiffSegLungLib.lungs.shapes import (
    CLOSING_MM,
    SLIT_MM,
    WORK_MM,
    Spacing,
    closing,
    fill_enclosed,
    lung_boxes,
    middle_of_tissue,
    nearest_on_work_grid,
)
from DiffSegLungLib.parallel import run_all

ALONE = 0.95  # share of the air on one side of the patient: the other lung holds none
LARGEST_CONTACT = 0.5  # of a face of the lungs' cube; two lungs 0-0.1, one that was cut in two 1.4-3.2
MOST_EROSION = 11  # voxels of the working grid after which two lungs that touch must have come apart


def named_sides(lung_air: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Right and left lung; one that is there alone is not cut in two."""
    split = _split_sides(lung_air, _alone(lung_air, work))
    return _one_lung(lung_air, work) if _contact(split) > LARGEST_CONTACT else split


def _alone(lung_air: np.ndarray, work: np.ndarray) -> int:
    """The side of the patient on which nearly all the air lies; 0 where both hold some."""
    middle = middle_of_tissue(work)
    columns = lung_air.sum(axis=(0, 1))
    share = float(columns[:middle].sum() / columns.sum())
    if share > ALONE or share < 1 - ALONE:
        return RIGHT if share > 0.5 else LEFT
    return 0


def _split_sides(lung_air: np.ndarray, alone: int = 0) -> np.ndarray:
    """Label right and left lung, cutting where they touch (anterior and posterior junction).

    Args:
        lung_air: Air of the lungs on the working grid.
        alone: The side of a lung that is alone, which is not cut; 0 where there are two.
    """
    if alone:
        return lung_air * np.uint8(alone)
    box = box_around(lung_air)
    air, middle = lung_air[box], middle_of_air(lung_air[box]) / WORK_MM
    depth = None  # squared, in voxels, as far as the deepest erosion
    for erosion in range(MOST_EROSION + 1):
        depth = squared_distance(~air, MOST_EROSION) if erosion == 1 else depth
        cores, _ = ndimage.label(air if depth is None else depth > erosion**2)
        there = np.nonzero(cores)
        sizes = np.bincount(cores[there])[1:]
        if sizes.size == 0:  # thinner than the erosion and still in one piece
            return _cut_in_the_middle(lung_air)
        centres = np.bincount(cores[there], weights=there[2])[1:] / sizes
        right, left = (sizes[where].max(initial=0) for where in (centres < middle, centres >= middle))
        if min(right, left) > 0.1 * max(right, left):
            break
    else:
        return _cut_in_the_middle(lung_air)
    names = np.concatenate([[0], np.where(centres < middle, RIGHT, LEFT)])
    split = np.zeros(lung_air.shape, np.uint8)
    # Where the lungs lie apart from the start, there is nothing to flood.
    split[box] = names[cores] if depth is None else _flooded(depth, names[cores], air)
    return split


def _contact(sides: np.ndarray) -> float:
    """Area at which both lungs touch, over a face of the cube that has their volume."""
    faces = 0
    for axis in range(3):
        before, after = np.moveaxis(sides, axis, 0)[:-1], np.moveaxis(sides, axis, 0)[1:]
        faces += int(np.count_nonzero((before | after) == (RIGHT | LEFT)))
    return float(faces / np.count_nonzero(sides) ** (2 / 3))


def _one_lung(lung_air: np.ndarray, work: np.ndarray) -> np.ndarray:
    """Sides where the field of view was cut to one lung: the room lies beside it, the mediastinum does not.

    What lies beyond that lung, towards the mediastinum, is a part of the other one.
    """
    pieces, _ = ndimage.label(lung_air)
    largest = pieces == np.bincount(pieces[lung_air]).argmax()
    columns = np.flatnonzero(largest.any(axis=(0, 1)))
    room = outside_air(work).sum(axis=(0, 1))
    is_right = room[: columns[0]].sum() >= room[columns[-1] :].sum()
    x = np.arange(lung_air.shape[2])
    left = x > columns[-1] if is_right else x >= columns[0]
    return np.where(lung_air, np.where(left, np.uint8(LEFT), np.uint8(RIGHT)), np.uint8(0))


def _flooded(depth: np.ndarray, sides: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Both sides grown from their cores, the deeper air first."""
    from skimage.segmentation import watershed

    grown: np.ndarray = watershed(-depth.astype(np.int16), sides, mask=air)
    return grown


def _cut_in_the_middle(lung_air: np.ndarray) -> np.ndarray:
    """One lung alone is named by the half of the volume it lies in; two merged ones are cut at mid-width."""
    half = np.arange(lung_air.shape[2]) < lung_air.shape[2] / 2
    share = lung_air[:, :, half].sum() / lung_air.sum()
    if not 0.25 < share < 0.75:
        half[:] = share >= 0.75
    return np.where(lung_air, np.where(half, np.uint8(RIGHT), np.uint8(LEFT)), np.uint8(0))


def close_sides(sides: np.ndarray, airways: np.ndarray) -> np.ndarray:
    """Close each lung in millimetres and fill its holes; never into the other lung or the airways."""
    closed = sides.copy()
    boxes = lung_boxes(sides)
    whole = run_all([partial(_closed, sides[box] == side) for side, box in boxes.items()])
    for (side, box), filled in zip(boxes.items(), whole, strict=True):
        closed[box][filled & (closed[box] == 0)] = side
    closed[airways] = 0
    return closed


def _closed(lung: np.ndarray) -> np.ndarray:
    # Filling plane by plane leaves slits one voxel wide in dense lung; a narrow closing takes them.
    return closing(fill_enclosed(closing(lung, CLOSING_MM)), SLIT_MM)


def sides_of_mask(mask: np.ndarray, work: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Keep labels 1 and 2 where they lie right and left, else split; never changes which voxels are lung.

    Args:
        mask: As `lungs_from_mask` takes it.
        work: HU on the working grid: where in the patient a lung lies that is there alone.
        spacing: Voxel size (z, y, x) in mm.
    """
    present = mask > 0
    if np.array_equal(np.unique(mask), (0, RIGHT, LEFT)):
        right_x, left_x = (_mean_x(mask == side) for side in (RIGHT, LEFT))
        if right_x < left_x:
            return mask.astype(np.uint8)
    coarse = nearest_on_work_grid(present.astype(np.uint8), spacing) > 0
    if not coarse.any():  # a mask thinner than the working grid
        return _cut_in_the_middle(present)
    split = named_sides(coarse, work)
    nearest = ndimage.distance_transform_edt(split == 0, return_distances=False, return_indices=True)
    index = [
        np.minimum(((np.arange(n) + 0.5) * s / WORK_MM).astype(int), m - 1)
        for n, s, m in zip(mask.shape, spacing, coarse.shape, strict=True)
    ]
    return np.where(present, split[tuple(nearest)][np.ix_(*index)], 0).astype(np.uint8)


def side_warnings(sides: np.ndarray) -> list[str]:
    """Named sides that lie the other way round are kept, but said."""
    right, left = sides == RIGHT, sides == LEFT
    if right.any() and left.any() and _mean_x(right) > _mean_x(left):
        return [
            "the right lung of the mask lies to the left of the left one; check its names and the CT's axes"
        ]
    return []


def _mean_x(mask: np.ndarray) -> float:
    columns = mask.sum(axis=(0, 1))
    return float((columns * np.arange(columns.size)).sum() / columns.sum())
