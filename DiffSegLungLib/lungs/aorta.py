"""The descending aorta without contrast medium: a round rod of soft tissue beside the spine.

In each axial slice the largest circles that fit into soft tissue are candidates; those that follow each other
from slice to slice are the aorta.  With contrast medium none is found, since it is as bright as bone then.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

SOFT_HU = (-10.0, 110.0)
"""Blood without contrast medium in a CT that is 40 HU off at most; fat lies below and bone above."""
BONE_HU = 130.0
SPINE_MM, VERTEBRA_MM = 30.0, 16.0
"""Half width about the patient's middle in which the spine is looked for; bone in a row that makes it one."""
SPINE_SLICES_MM = 22.0
"""Height over which the front of the spine is evened out: discs between the vertebrae are no bone."""
HEIGHT = (0.15, 0.75)
"""Share of the lungs' height, from below, between diaphragm and arch."""
RADIUS_MM = (8.0, 19.0)
LEFT_MM, BEHIND_MM = (-12.0, 45.0), (-30.0, 14.0)
"""Where its middle may lie from the middle of the vertebra's front; in the eight training CT without contrast
medium it lies 2 mm to the right to 40 mm to the left, and 28 mm in front to 12 mm behind."""
STEP_MM, STEP_RADIUS_MM = 4.0, 3.0
"""By which middle and radius may differ from slice to slice."""
LEAST_MM = 40.0
"""Height over which it must be followed: 66 to 166 mm in those eight; in another, 26 mm of stomach."""
RIM_MM = (3.0, 6.0)
"""Beyond its radius, where lung, fat and bone must show."""
LEAST_RIM = 0.5
"""Share of the rim that is no soft tissue: 0.6 to 0.8 in those eight."""
WALL_MM = 3.0
"""From the edge inwards, not counted as blood."""


class Disc(NamedTuple):
    """A circle in an axial slice: its middle in voxels, its radius in mm."""

    z: int
    y: int
    x: int
    radius: float


def find_aorta(work: np.ndarray, lungs: np.ndarray, side_mm: float) -> np.ndarray:
    """The blood of the descending aorta, away from its wall.

    Args:
        work: HU (z, y, x), isotropic, z from below, x to the patient's left.
        lungs: uint8, 1 right and 2 left lung.
        side_mm: of a voxel.

    Returns:
        bool (z, y, x); empty where the aorta is not found beyond doubt.
    """
    inside = np.zeros(work.shape, bool)
    box = _between_spine_and_lungs(lungs)
    if box is None:
        return inside
    smooth = ndimage.gaussian_filter(work[box], (1.0, 0.7, 0.7))
    spine = _spine(smooth, side_mm)
    if spine is None:
        return inside
    chain = _longest_chain(_candidates(smooth, spine, side_mm), side_mm)
    if len(chain) * side_mm >= LEAST_MM and _rim(smooth, chain, side_mm) >= LEAST_RIM:
        for disc in chain:
            near = _distance(smooth[disc.z], disc, side_mm) <= disc.radius - WALL_MM
            inside[box][disc.z] |= near
    return inside


def between_middles(lungs: np.ndarray, heights: tuple[float, float]) -> tuple[slice, slice] | None:
    """Slices between two shares of the lungs' height, columns between their middles; None without two lungs.

    Args:
        lungs: (z, y, x), 1 in the right lung, 2 in the left.
        heights: 0 at the base, 1 at the apex.
    """
    columns = [np.nonzero(lungs == side)[2] for side in (1, 2)]
    if min(len(column) for column in columns) == 0:
        return None
    first, last = sorted(int(np.median(column)) for column in columns)
    filled = np.flatnonzero((lungs > 0).any(axis=(1, 2)))
    low, high = (int(filled[0] + share * (filled[-1] - filled[0])) for share in heights)
    return (slice(low, high), slice(first, last)) if min(high - low, last - first) >= 1 else None


def _between_spine_and_lungs(lungs: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The back half of the chest between the middles of the lungs; None where there are not two."""
    between = between_middles(lungs, HEIGHT)
    if between is None:
        return None
    depths = np.flatnonzero((lungs > 0).any(axis=(0, 2)))
    front, back = (depths[0] + depths[-1]) // 2 - 5, depths[-1] + 5
    return between[0], slice(max(int(front), 0), int(back)), between[1]


def _spine(smooth: np.ndarray, side_mm: float) -> np.ndarray | None:
    """Front and middle of the spine in each slice, (z, 2) in voxels: y and x; None where there is no bone."""
    middle, half = smooth.shape[2] // 2, round(SPINE_MM / side_mm)
    first = max(middle - half, 0)
    bone = smooth[:, :, first : middle + half] > BONE_HU
    wide = bone.sum(axis=2) * side_mm >= VERTEBRA_MM
    found = np.flatnonzero(wide.any(axis=1))
    if found.size == 0:
        return None
    fronts = wide.argmax(axis=1)[found]
    rows = round(VERTEBRA_MM / side_mm)
    middles = [
        np.nonzero(bone[z, y : y + rows])[1].mean() + first for z, y in zip(found, fronts, strict=True)
    ]
    slices, size = np.arange(len(smooth)), round(SPINE_SLICES_MM / side_mm)
    return np.stack(
        [ndimage.median_filter(np.interp(slices, found, line), size) for line in (fronts, middles)], axis=1
    )


def _candidates(smooth: np.ndarray, spine: np.ndarray, side_mm: float) -> list[list[Disc]]:
    """The largest circles of soft tissue beside the spine, slice by slice."""
    soft = (smooth > SOFT_HU[0]) & (smooth < SOFT_HU[1])
    size = 2 * round(STEP_MM / side_mm) + 1
    discs = []
    for z, (front, middle) in enumerate(spine):
        # what lies beyond the box is no soft tissue: a circle that leaves it is cut to what is seen
        depth = ndimage.distance_transform_edt(np.pad(soft[z], 1))[1:-1, 1:-1] * side_mm
        peak = (ndimage.maximum_filter(depth, size) == depth) & (depth >= RADIUS_MM[0])
        y, x = np.nonzero(peak & (depth <= RADIUS_MM[1]))
        left, behind = (x - middle) * side_mm, (y - front) * side_mm
        near = (left > LEFT_MM[0]) & (left < LEFT_MM[1]) & (behind > BEHIND_MM[0]) & (behind < BEHIND_MM[1])
        found = zip(y[near], x[near], strict=True)
        discs.append([Disc(z, int(row), int(column), float(depth[row, column])) for row, column in found])
    return discs


def _longest_chain(candidates: list[list[Disc]], side_mm: float) -> list[Disc]:
    """The longest run of circles, one in each slice, each near the one below; the later of equal ones."""
    best: list[Disc] = []
    below: list[list[Disc]] = []
    for discs in candidates:
        chains = []
        for disc in discs:
            joined = [chain for chain in below if _follows(disc, chain[-1], side_mm)]
            chains.append([*max(joined, key=len, default=[]), disc])
        below = chains
        best = max([best, *chains], key=len)
    return best


def _follows(disc: Disc, other: Disc, side_mm: float) -> bool:
    moved = max(abs(disc.y - other.y), abs(disc.x - other.x)) * side_mm
    return moved <= STEP_MM and abs(disc.radius - other.radius) <= STEP_RADIUS_MM


def _rim(smooth: np.ndarray, chain: list[Disc], side_mm: float) -> float:
    """Share of what surrounds the circles that is no soft tissue."""
    shares = []
    for disc in chain:
        beyond = _distance(smooth[disc.z], disc, side_mm) - disc.radius
        rim = smooth[disc.z][(beyond > RIM_MM[0]) & (beyond <= RIM_MM[1])]
        shares.append(np.mean((rim < SOFT_HU[0]) | (rim > SOFT_HU[1])))
    return float(np.mean(shares))


def _distance(plane: np.ndarray, disc: Disc, side_mm: float) -> np.ndarray:
    """Distance in mm of each voxel of a slice to the middle of a circle."""
    y, x = np.indices(plane.shape)
    return np.hypot(y - disc.y, x - disc.x) * side_mm
