"""Do heart, aorta and liver lie where the file puts right and left?  A file may swap the sides."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.lungs.aorta import between_middles, find_aorta
from DiffSegLungLib.lungs.shapes import WORK_MM

HEART = (0.15, 0.5)
"""Share of the lungs' height, from below, at which the heart lies between them."""
HEART_MM = -5.0
"""How far left of the chest's middle the middle between the lungs lies: 0 to 20 in 21 CT, -13 and -22 beside
two right lungs that had shrunk."""
LIVER_MM, LIVER_HU = (6.0, 32.0), (20.0, 200.0)
"""Below a lung the liver is soft tissue throughout; the left one lies on heart, fat, stomach and spleen."""
LIVER_SHARE = 0.1
"""By which the share of soft tissue is larger on the liver's side: 0.01 to 0.7 where both lungs are whole."""
LEAST_COLUMNS = 100
"""Of a lung that must be seen from below to say what it lies on."""
EDGE_MM = 15.0
"""The outline of a lung from below, so far in: beyond lie ribs and chest wall."""
WHOLE = 0.65
"""A lung smaller than this beside the other one has shrunk, and drawn heart and diaphragm with it."""

SWAPPED = (
    "{} on the patient's right: right and left are probably swapped in the file, and with them all values of "
    "the two sides; check them (some healthy people are built so)"
)


def mirrored_warnings(work: np.ndarray, sides: np.ndarray, aorta_seen: bool) -> list[str]:
    """One sentence where the organs lie on the other side than the file says, or nothing.

    Args:
        work: HU (z, y, x) on the working grid, z from below, x to the patient's left.
        sides: uint8, 1 right lung, 2 left lung, 0 elsewhere.
        aorta_seen: whether the descending aorta was found where it belongs.
    """
    if aorta_seen or not all((sides == side).any() for side in (RIGHT, LEFT)):
        return []
    if not find_aorta(work, sides, WORK_MM).any() and find_aorta(*_turned(work, sides), WORK_MM).any():
        return [SWAPPED.format("the descending aorta lies")]
    if _heart_mm(sides) < HEART_MM and _lungs_are_whole(sides) and _liver_left(work, sides) > LIVER_SHARE:
        return [SWAPPED.format("the heart lies further to the right than to the left, and no liver")]
    return []


def _turned(work: np.ndarray, sides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The patient seen in a mirror; what was the right lung is the left one there."""
    other = np.where(sides == RIGHT, LEFT, np.where(sides == LEFT, RIGHT, 0)).astype(np.uint8)
    return np.ascontiguousarray(work[..., ::-1]), np.ascontiguousarray(other[..., ::-1])


def _heart_mm(sides: np.ndarray) -> float:
    """How far left of the chest's middle the middle between the lungs lies at the heart; 0 if unknown."""
    between = between_middles(sides, HEART)
    if between is None:
        return 0.0
    middles = []
    for plane in sides[between[0]]:
        rows = [(np.flatnonzero(row == RIGHT), np.flatnonzero(row == LEFT)) for row in plane]
        both = [(right, left) for right, left in rows if right.size and left.size]
        if both:
            outer = (min(right[0] for right, _ in both) + max(left[-1] for _, left in both)) / 2
            middles.append(np.mean([(right[-1] + left[0]) / 2 for right, left in both]) - outer)
    return float(np.mean(middles)) * WORK_MM if middles else 0.0


def _lungs_are_whole(sides: np.ndarray) -> bool:
    right, left = ((sides == side).sum() for side in (RIGHT, LEFT))
    return bool(min(right, left) > WHOLE * max(right, left))


def _liver_left(work: np.ndarray, sides: np.ndarray) -> float:
    """By how much the left lung lies on more soft tissue than the right one; 0 where a base is not seen."""
    smooth = ndimage.gaussian_filter(work, 1.5)
    shares = {side: _soft_below(smooth, sides == side) for side in (RIGHT, LEFT)}
    return 0.0 if None in shares.values() else shares[LEFT] - shares[RIGHT]  # type: ignore[operator]


def _soft_below(smooth: np.ndarray, lung: np.ndarray) -> float | None:
    """Share of soft tissue among what lies under a lung; None where the scan ends with it."""
    seen = lung.any(axis=0)
    deep = ndimage.distance_transform_edt(seen, sampling=WORK_MM) > EDGE_MM
    near, far = (round(mm / WORK_MM) for mm in LIVER_MM)
    y, x = np.nonzero(deep & (lung.argmax(axis=0) >= far))
    if y.size < LEAST_COLUMNS:
        return None
    below = lung.argmax(axis=0)[y, x] - np.arange(near, far)[:, None]
    values = smooth[below, y, x]
    return float(((values > LIVER_HU[0]) & (values < LIVER_HU[1])).mean())
