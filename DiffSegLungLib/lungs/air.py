"""Air of the lungs and of the large airways, apart from the air around the patient."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.filters import within
from DiffSegLungLib.lungs.shapes import AIR_HU, CLOSING_MM, WORK_MM, closing, depth_mm, voxels

NO_TISSUE_HU = -985.0  # median below: bowel or room air; the worst emphysema lies above
LARGE_GAS_ML, TISSUE_HU, CROSSED = 40.0, -850.0, 0.04
"""Gas beyond this volume with this share of tissue in it is emphysema: 0.05 to 0.09 where it was painted into
three CT, bowel 0.00 to 0.01 but for a colon of 30 ml with 0.10."""
GAS_HU = -940.0  # below: gas rather than parenchyma, unless emphysematous
CUT_LUNG_ML = 4.0  # below: thinner than the cut lung that is kept, an eighth of a ball of 20 mm at the least
PASSAGE_MM = 12.0  # narrower: a streak of metal through the chest wall, not where a lung ends
LEAST_OF_A_SIDE = 0.2  # of the air of the other half of the patient; below, a lung may have been lost


def inner_air(work: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Air within the patient; where a lung is missing in it, also what a narrow passage joins to the outside.

    Dark streaks of metal cross the chest wall: through them the room's air reaches into the lungs.

    Returns:
        The air, bool; a warning where passages were closed.
    """
    outside = outside_air(work)
    inner = (work < AIR_HU) & ~outside
    middle = work.shape[2] // 2
    halves = [np.count_nonzero(half) for half in (inner[..., :middle], inner[..., middle:])]
    if min(halves) > LEAST_OF_A_SIDE * max(halves) and max(halves) > voxels(100):
        return inner, []
    lung = _behind_passages(outside, work)
    sentence = (
        "the lungs are open to the air outside (streaks of metal?) and were closed; check the lung mask"
    )
    return inner | lung, [sentence] if lung.any() else []


def _behind_passages(outside: np.ndarray, work: np.ndarray) -> np.ndarray:
    """What is thick and impure as lung is, and away from the border once narrow passages are closed."""
    labels, count = ndimage.label(depth_mm(outside) > PASSAGE_MM / 2)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.unique(np.concatenate([labels[:, [0, -1], :].ravel(), labels[:, :, [0, -1]].ravel()]))
    candidates = np.setdiff1d(np.flatnonzero(sizes > voxels(CUT_LUNG_ML)), np.append(border, 0))
    lung = [label for label in candidates if np.median(work[labels == label]) > GAS_HU]
    return within(np.isin(labels, lung), (PASSAGE_MM / 2 + WORK_MM) / WORK_MM) & outside


def outside_air(work: np.ndarray) -> np.ndarray:
    """Air around the patient: it touches an in-plane border and is not shaped and filled like a cut lung."""
    labels, count = ndimage.label(work < AIR_HU)
    border = np.zeros(work.shape, bool)
    border[:, [0, -1], :] = border[:, :, [0, -1]] = True
    touching = np.setdiff1d(np.unique(labels[border]), [0])
    if touching.size == 0:
        return np.zeros(work.shape, bool)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)[touching]
    contact = np.bincount(labels[border], minlength=count + 1)[touching]
    # a lung that the field of view cuts is thick, not pure air, and meets the border with a small part only
    candidates = (contact < 0.03 * sizes) & (sizes > voxels(CUT_LUNG_ML))
    cut_lung = [label for label in touching[candidates] if _is_thick_and_impure(labels == label, work)]
    return np.isin(labels, np.setdiff1d(touching, cut_lung))


def _is_thick_and_impure(piece: np.ndarray, work: np.ndarray) -> bool:
    if depth_mm(piece).max() <= 20:
        return False
    median = float(np.median(work[piece]))
    return median > GAS_HU or (median > NO_TISSUE_HU and is_crossed(piece, work))


def find_airways(work: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Trachea and main bronchi: grow from the trachea with the highest threshold that does not leak."""
    seed = _trachea_seed(work, air)
    grown = np.zeros(work.shape, bool)
    if not seed.any():
        return grown
    for threshold in range(-960, -700, 20):
        wider = ndimage.binary_propagation(seed | grown, mask=(work < threshold) & air)
        too_large = wider.sum() > voxels(120)
        if grown.any() and (too_large or wider.sum() > 1.4 * grown.sum()):
            break
        if not too_large:
            grown = wider
    return grown if grown.any() else seed


def _trachea_seed(work: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Round, dark, central regions in the upper half, followed through at least 2 cm of slices."""
    tube = np.zeros(work.shape, bool)
    middle = middle_of_air(air)
    for z in range(work.shape[0] // 2, work.shape[0]):
        labels, count = ndimage.label((work[z] < -880) & air[z])
        for index, box in enumerate(ndimage.find_objects(labels), 1):
            height, width = (WORK_MM * (s.stop - s.start) for s in box)
            region = labels[box] == index
            area = region.sum() * WORK_MM**2
            x = WORK_MM * (box[1].start + box[1].stop) / 2
            is_round = area > 0.55 * height * width and max(height, width) < 40
            if 50 < area < 700 and is_round and abs(x - middle) < 35:
                tube[z][box] |= region
    labels, count = ndimage.label(tube)
    if count == 0:
        return tube
    lengths = [(s[0].stop - s[0].start) for s in ndimage.find_objects(labels)]
    best = int(np.argmax(lengths))
    return labels == best + 1 if lengths[best] * WORK_MM >= 20 else np.zeros(work.shape, bool)


def middle_of_air(air: np.ndarray) -> float:
    """The x position in mm halfway between the outermost inner air of right and left."""
    columns = np.flatnonzero(air.any(axis=(0, 1)))
    return WORK_MM * (columns[0] + columns[-1]) / 2 if columns.size else 0.0


def is_crossed(pocket: np.ndarray, work: np.ndarray) -> bool:
    """Whether vessels cross a pocket of gas, as they do in lung however emphysematous."""
    whole = closing(pocket, CLOSING_MM)
    return bool((work[whole] > TISSUE_HU).mean() > CROSSED)
