"""Dense lung without a network: dents and bays that it makes in the aerated lung."""

from __future__ import annotations

from functools import partial

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.lungs.shapes import AIR_HU, SLIT_MM, WORK_MM, closing, fill_enclosed, lung_boxes, voxels
from DiffSegLungLib.parallel import run_all

WIDEST_BAY_MM, BAY_ENCLOSED = 36.0, 0.65  # of the aerated lung; share of a piece's surface that borders on it
SMALLEST_BAY_ML, BESIDE_AIR = 1.5, 3  # below: a vessel; voxels to a bronchus, beside which it is an artery
BAY_HU = (-20.0, 110.0)  # median; fat is none, nor a vessel full of contrast medium
SOFT_HU = 200.0  # denser: bone, or a heart full of contrast medium


def dense_at_chest_wall(work: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Find consolidated lung that the threshold lost at the costal pleura.

    Seen from the middle of a lung, its costal surface is a height map over angle and slice. Consolidation
    at the wall is a dent of it between aerated lung on either side, filled where it holds soft tissue.
    Dents towards the mediastinum and below the lung are left alone: heart, spine and diaphragm are there.

    Args:
        work: HU on the working grid.
        sides: Right and left lung on the working grid.

    Returns:
        uint8, right and left label of the recovered tissue, 0 elsewhere.
    """
    recovered = np.zeros(sides.shape, np.uint8)
    boxes = lung_boxes(sides)
    dense = run_all([partial(_dense_beside, work[box], sides[box], side) for side, box in boxes.items()])
    for (side, box), lost in zip(boxes.items(), dense, strict=True):
        recovered[box][lost] = side
    return recovered


def _dense_beside(work: np.ndarray, sides: np.ndarray, side: int) -> np.ndarray:
    """The same for one lung, bool, in a box around it: a dent lies within its hull and 4 mm more."""
    lung = sides == side
    dent = _costal_dents(lung, outward=-1 if side == RIGHT else 1) & (sides == 0)
    soft = ndimage.binary_opening(dent & (work > -20) & (work < 150), iterations=2)
    labels, _ = ndimage.label(soft)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    lost = ndimage.binary_dilation((sizes > voxels(1.5))[labels], iterations=2) & dent & (work < 150)
    if not lost.any():
        return lost
    # The lost tissue closes the mouth of what reaches behind the lung's edge.  Rays leave slits one voxel
    # wide; a narrow closing fills them before the enclosed is filled.
    whole = fill_enclosed(closing(lung | lost, SLIT_MM))
    return whole & (sides == 0) & (work < 150)


def _costal_dents(lung: np.ndarray, outward: int) -> np.ndarray:
    """Voxels between a lung's costal surface and its axial convex hull: ribs and pleura bulge outwards.

    In front, where the heart dents the left lung too, only what has lung of its own side beside it counts.

    Args:
        lung: One lung on the working grid.
        outward: Direction of x that leads to the ribs: -1 for the right lung, 1 for the left.

    Returns:
        Bool mask; it leaves the lung's axial convex hull by 4 mm at most.
    """
    from skimage.morphology import convex_hull_image

    rows, columns = np.flatnonzero(lung.any(axis=(0, 2))), np.flatnonzero(lung.any(axis=(0, 1)))
    y = WORK_MM * (np.arange(lung.shape[1]) - (rows[0] + rows[-1]) / 2)[:, None]
    x = WORK_MM * (np.arange(lung.shape[2]) - (columns[0] + columns[-1]) / 2)[None, :] * outward
    radius, degrees = np.hypot(y, x), np.degrees(np.arctan2(y, x))  # 0 lateral, 90 posterior, -90 anterior
    angle = ((degrees + 180) / 3).astype(int) % 120
    surface = np.zeros((lung.shape[0], 120), np.float32)
    at = np.nonzero(lung)
    np.maximum.at(surface, (at[0], angle[at[1:]]), radius[at[1:]].astype(np.float32))
    narrow = ndimage.grey_closing(surface, (1, 5), mode="wrap")
    surface = np.where(surface > 0, surface, narrow)  # single rays without lung: a lesion up to the middle
    lateral, anterior = (degrees > -60) & (degrees < 115), (degrees > -110) & (degrees <= -60)
    costal = lateral | (anterior & _lung_medially(lung, outward))
    dent = (radius > surface[:, angle]) & (surface[:, angle] > 0) & costal & ~lung
    for index in np.flatnonzero(dent.any(axis=(1, 2))):  # 4 mm: the wall bulges beyond the hull's chord
        dent[index] &= ndimage.binary_dilation(convex_hull_image(lung[index]), iterations=2)
    return dent


def _lung_medially(lung: np.ndarray, outward: int) -> np.ndarray:
    """Voxels on whose row lung of the same side lies nearer to the middle of the patient."""
    from_middle = lung[..., ::-1] if outward < 0 else lung
    seen = np.maximum.accumulate(from_middle, axis=2)
    return seen[..., ::-1] if outward < 0 else seen


def dense_in_bays(work: np.ndarray, sides: np.ndarray, lung_air: np.ndarray) -> np.ndarray:
    """Find dense lung that bulges into the aerated lung, as a nodule or patch at the pleura does.

    Needs no network.  Pulmonary arteries bulge so too, but beside a bronchus.

    Args:
        work: HU on the working grid.
        sides: Right and left lung, as far as they are found.
        lung_air: Air of the lungs; other air is that of airways, bowel and room.

    Returns:
        uint8, right and left label of the dense lung, 0 elsewhere.
    """
    bays = np.zeros(sides.shape, np.uint8)
    dense = (sides == 0) & (work >= AIR_HU) & (work < SOFT_HU)
    other_air = ndimage.binary_dilation((work < AIR_HU) & ~lung_air, iterations=BESIDE_AIR)
    for side, box in lung_boxes(sides).items():
        lung = sides[box] == side
        inner = closing(lung, WIDEST_BAY_MM / 2) & dense[box]
        thick = ndimage.binary_dilation(ndimage.binary_opening(inner, iterations=2))
        pieces, _ = ndimage.label(thick & inner)
        for number, span in enumerate(ndimage.find_objects(pieces), start=1):
            near = tuple(slice(max(axis.start - 3, 0), axis.stop + 3) for axis in span)
            piece = pieces[near] == number
            if _is_bay(piece, work[box][near], lung[near]) and not other_air[box][near][piece].any():
                bays[box][near][piece] = side
    return bays


def _is_bay(piece: np.ndarray, work: np.ndarray, lung: np.ndarray) -> bool:
    """Whether a piece is soft tissue that the lung goes around."""
    if np.count_nonzero(piece) < voxels(SMALLEST_BAY_ML):
        return False
    enclosed = lung[ndimage.binary_dilation(piece, iterations=2) & ~piece].mean()
    return bool(enclosed >= BAY_ENCLOSED and BAY_HU[0] < np.median(work[piece]) < BAY_HU[1])
