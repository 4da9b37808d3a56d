"""What the reader is told of a lung mask that may be wrong."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.filters import box_around, within
from DiffSegLungLib.lungs.shapes import THINNEST_MM, WORK_MM, litres

BULLA_HU, THINNEST_GAS_MM = -970.0, 8.0  # gas in a space of its own
MUCH_GAS_ML, MUCH_GAS_SHARE = 50.0, 0.1  # of a lung; whichever is less
HIGH_IN_CHEST = 0.6  # of the lungs' height; stomach and bowel end below
MOST_LITRES = 10.0  # total capacity of a very tall man, tissue and blood included
SOLID_HU, MUCH_SOLID = -150.0, 0.5
SIDE_NAMES = {RIGHT: "right", LEFT: "left"}
MUCH_MISSED_ML = 200.0  # ten training CT 0-152, one with effusion and a collapsed lobe 340


def recovery_warnings(recovered: np.ndarray) -> list[str]:
    """Say where dense tissue was added: it may be consolidation, but also effusion or a pleural mass."""
    volumes = {name: 1000 * litres((recovered == side).sum()) for side, name in SIDE_NAMES.items()}
    return [
        f"{volume:.0f} mL of dense tissue at the pleura was counted as {name} lung; "
        "check that it is consolidated lung, not effusion or a pleural mass"
        for name, volume in volumes.items()
        if volume > 5
    ]


def missed_warnings(likely: np.ndarray) -> list[str]:
    """Say how much of what is likely lung, bool, lies in bodies too thick for the coarse network's error."""
    reach = THINNEST_MM / 2 / WORK_MM
    volume = 1000 * litres(float(np.count_nonzero(likely & within(~within(~likely, reach), reach))))
    if volume < MUCH_MISSED_ML:
        return []
    return [
        f"about {volume:.0f} mL of dense tissue beside the lungs may be consolidated or collapsed lung, or "
        "effusion, and were not counted; check the lung mask"
    ]


def gas_warnings(work: np.ndarray, sides: np.ndarray) -> list[str]:
    """Say where much gas lies without any tissue: thresholds cannot tell a bulla from a pneumothorax."""
    box, reach = box_around(sides > 0, 4), THINNEST_GAS_MM / 2 / WORK_MM  # no more is seen by the Gaussian
    work, sides = work[box], sides[box]
    gas = (ndimage.gaussian_filter(work, 1.0) < BULLA_HU) & (sides > 0)
    thick = gas & within(~within(~gas, reach), reach)
    volumes = {name: 1000 * litres((thick & (sides == side)).sum()) for side, name in SIDE_NAMES.items()}
    whole = {name: 1000 * litres((sides == side).sum()) for side, name in SIDE_NAMES.items()}
    return [
        f"{volume:.0f} mL of gas without tissue lie in the {name} lung and count as emphysema; "
        "check that it is a bulla, not a pneumothorax"
        for name, volume in volumes.items()
        if volume > min(MUCH_GAS_ML, MUCH_GAS_SHARE * whole[name]) > 0
    ]


def left_out_warnings(bowel: np.ndarray, sides: np.ndarray) -> list[str]:
    """Say where gas that was taken for bowel reaches high into the chest: a pneumothorax looks so, too."""
    labels, count = ndimage.label(bowel)
    heights = np.flatnonzero((sides > 0).any(axis=(1, 2)))
    high = heights[0] + HIGH_IN_CHEST * (heights[-1] - heights[0])
    boxes = ndimage.find_objects(labels)
    sizes = 1000 * litres(1) * np.bincount(labels.ravel(), minlength=count + 1)[1:]
    volume = sum(
        size for size, box in zip(sizes, boxes, strict=True) if size > MUCH_GAS_ML and box[0].stop > high
    )
    if not volume:
        return []
    return [
        f"{volume:.0f} mL of gas high in the chest were not counted as lung; check that it is stomach or "
        "bowel, not a pneumothorax or lung"
    ]


def density_warnings(work: np.ndarray, sides: np.ndarray) -> list[str]:
    """Say where what is called lung is mostly as dense as other organs; both on the working grid."""
    share = float(np.mean(work[sides > 0] > SOLID_HU)) if (sides > 0).any() else 0.0
    if share < MUCH_SOLID:
        return []
    return [
        f"{share:.0%} of the lungs are as dense as other organs; check that the lung mask holds lungs alone"
    ]


def shape_warnings(sides: np.ndarray) -> list[str]:
    """Suspicions from size, symmetry and extent of the lungs on the working grid."""
    warnings = []
    right, left = (litres((sides == side).sum()) for side in (RIGHT, LEFT))
    if right + left < 1.0:
        warnings.append(
            f"the lungs hold only {right + left:.1f} L; check the lung mask, and the voxel size of the CT"
        )
    if right + left > MOST_LITRES:
        warnings.append(
            f"the lungs hold {right + left:.1f} L, more than lungs do; check the lung mask, and the voxel "
            "size of the CT"
        )
    smaller = SIDE_NAMES[RIGHT if right < left else LEFT]
    if min(right, left) == 0:
        warnings.append(f"no {smaller} lung was found or given; if the patient has one, check the lung mask")
    elif min(right, left) < 0.55 * max(right, left):
        warnings.append(
            f"the {smaller} lung is much smaller (right {right:.1f} L, left {left:.1f} L): "
            "dense lung may be missing from the mask; check it"
        )
    for slice_index, name in ((0, "first"), (-1, "last")):
        area = (sides[slice_index] > 0).sum() * WORK_MM**2 / 100
        if area > 15:
            warnings.append(f"the {name} slice shows {area:.0f} cm2 of lung: they are only partly imaged")
    return warnings + _height_warnings(sides)


def _height_warnings(sides: np.ndarray) -> list[str]:
    """A base or apex much further in than the other side's: consolidated or compressed lung beyond it?"""
    if not all((sides == side).any() for side in (RIGHT, LEFT)):
        return []
    slices = [np.flatnonzero((sides == side).sum(axis=(1, 2)) * WORK_MM**2 > 100) for side in (RIGHT, LEFT)]
    if any(present.size == 0 for present in slices):
        return []
    (right_base, right_apex), (left_base, left_apex) = ((p[0] * WORK_MM, p[-1] * WORK_MM) for p in slices)
    warnings = []
    shortfalls = (("base", right_base - left_base, 45), ("apex", left_apex - right_apex, 30))
    for what, shortfall, limit in shortfalls:
        if abs(shortfall) > limit:
            side = SIDE_NAMES[RIGHT if shortfall > 0 else LEFT]
            warnings.append(
                f"the {what} of the {side} lung ends {abs(shortfall):.0f} mm short of the other side's: "
                "dense lung may be missing from the mask; check it"
            )
    return warnings
