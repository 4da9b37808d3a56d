"""Lung and airway masks: threshold, airway growing, right and left, closing in millimetres."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.filters import box_around, squared_distance, within
from DiffSegLungLib.interpolation import averaging_matrix, by_matrices, enlarged_slabs
from DiffSegLungLib.lungs.calibration import Calibration, calibrate
from DiffSegLungLib.lungs.dense import (
    Network,
    around_lungs,
    behind_dense,
    dense_at_chest_wall,
    dense_by_network,
    dense_in_bays,
    tips_of_domes,
)
from DiffSegLungLib.lungs.shapes import (
    AIR_HU,
    CLOSING_MM,
    SLIT_MM,
    WORK_MM,
    closing,
    depth_mm,
    fill_enclosed,
    lung_boxes,
    middle_of_tissue,
    voxels,
)
from DiffSegLungLib.lungs.warnings import (
    density_warnings,
    gas_warnings,
    left_out_warnings,
    recovery_warnings,
    shape_warnings,
)
from DiffSegLungLib.parallel import run_all

NO_TISSUE_HU = -985.0  # median below: bowel or room air; the worst emphysema lies above
WHOLE_WALL, HALF_A_WALL = 0.55, 0.38  # share of soft tissue around gas: bowel 0.63-0.99, a large bulla 0.43
SURELY_OUTSIDE = 0.75  # bowel and oesophagus 0.90-1.0, gas within lung 0-0.28
LARGE_GAS_ML, TISSUE_HU, CROSSED = 40.0, -850.0, 0.04
"""Gas beyond this volume with this share of tissue in it is emphysema: 0.05 to 0.09 where it was painted into
three CT, bowel 0.00 to 0.01 but for a colon of 30 ml with 0.10."""
GAS_HU = -940.0  # below: gas rather than parenchyma, unless emphysematous
CUT_LUNG_ML = 4.0  # below: thinner than the cut lung that is kept, an eighth of a ball of 20 mm at the least
PASSAGE_MM = 12.0  # narrower: a streak of metal through the chest wall, not where a lung ends
ALONE = 0.95  # share of the air on one side of the patient: the other lung holds none
LEAST_OF_A_SIDE = 0.2  # of the air of the other half of the patient; below, a lung may have been lost
LARGEST_CONTACT = 0.5  # of a face of the lungs' cube; two lungs 0-0.1, one that was cut in two 1.4-3.2
MOST_EROSION = 11  # voxels of the working grid after which two lungs that touch must have come apart

Spacing = tuple[float, float, float]


@dataclass(frozen=True)
class Lungs:
    """The lungs of one CT, on its own grid.

    Attributes:
        sides: uint8 (z, y, x): 0 outside, 1 right lung, 2 left lung.
        airways: bool (z, y, x): trachea and main bronchi; not part of the lungs.
        warnings: One sentence for each thing a reader should check.
        origin: ``network``, ``classical`` or ``given``: where the outline comes from.
        calibration: What air and blood say of the CT's values.
    """

    sides: np.ndarray
    airways: np.ndarray
    warnings: tuple[str, ...] = ()
    origin: str = "classical"
    calibration: Calibration = Calibration()

    @property
    def mask(self) -> np.ndarray:
        """Both lungs, bool (z, y, x)."""
        return self.sides > 0


def segment_lungs(hu: np.ndarray, spacing: Spacing, network: Network | None = None) -> Lungs:
    """Find the lungs and the large airways.

    Args:
        hu: CT in HU (z, y, x), canonical LPS axes.
        spacing: Voxel size (z, y, x) in mm.
        network: Adds dense lung, at heart and diaphragm too; without it only dents at the wall are filled.

    Returns:
        Right and left lung, airways and warnings on the grid of `hu`.

    Raises:
        UnusableInputError: No lungs were found.
    """
    work = to_work_grid(hu, spacing)
    air, joined = _inner_air(work)
    airways = _airways(work, air)
    lung_air = air & ~ndimage.binary_dilation(airways)
    bowel = _bowel_gas(work, lung_air)
    lung_air &= ~bowel
    found, recovered = _by_thresholds(work, lung_air, airways)
    origin = "classical"
    warnings: list[str] = []
    if network is not None:
        shares = around_lungs(work, found, network)
        seen = shares[0][found > 0].mean() < 0.5  # a network that sees no lungs knows no bowel either
        doubted = _bowel_gas(work, (found > 0) & seen, shares[0]) & ~bowel
        if doubted.any():
            bowel, lung_air = bowel | doubted, lung_air & ~doubted
            found, recovered = _by_thresholds(work, lung_air, airways)
        origin, dense, warnings = dense_by_network(work, found, (work >= AIR_HU) | lung_air, shares)
        if origin == "network":
            domes = tips_of_domes(recovered > 0, found > 0, shares[0])
            found, recovered = found * ~domes, recovered * ~domes
        dense = np.maximum(dense, behind_dense(work, np.where(dense > 0, dense, found), dense))
        found, recovered = np.where(dense > 0, dense, found), np.maximum(recovered, dense)
    bays = dense_in_bays(work, found, lung_air)
    found, recovered = np.maximum(found, bays), np.maximum(recovered, bays)
    warnings += joined + recovery_warnings(recovered)
    warnings += shape_warnings(found) + gas_warnings(work, found) + left_out_warnings(bowel, found)
    native, native_airways = _to_native(found, airways, hu.shape, spacing)
    shown = calibrate(work, airways, (work < AIR_HU) & ~air, found, WORK_MM)
    return Lungs(native, native_airways, (*warnings, *shown.warnings()), origin, shown)


def lungs_from_mask(
    mask: np.ndarray, hu: np.ndarray, spacing: Spacing, sides_are_named: bool = False
) -> Lungs:
    """Use a given lung mask exactly as it is and only name its sides.

    Args:
        mask: Any integer or bool mask (z, y, x); above 0 is lung. Labels 1 and 2 are kept as right and
            left when their positions fit.
        hu: CT in HU (z, y, x), canonical LPS axes.
        spacing: Voxel size (z, y, x) in mm.
        sides_are_named: Whoever drew the mask called label 1 the right lung and 2 the left; kept as it is.

    Returns:
        Lungs whose `mask` equals `mask > 0`; the airways are found in the CT for information.

    Raises:
        UnusableInputError: The mask is empty or its shape differs from the CT's.
    """
    if mask.shape != hu.shape:
        raise UnusableInputError(f"the lung mask has shape {mask.shape}, the CT {hu.shape}; resample it")
    if not (mask > 0).any():
        raise UnusableInputError("the lung mask is empty; draw the lungs or leave out --lungs")
    work = to_work_grid(hu, spacing)
    outside = _outside_air(work)
    tubes = _airways(work, (work < AIR_HU) & ~outside)
    _, airways = _to_native(np.zeros_like(tubes, np.uint8), tubes, hu.shape, spacing)
    sides = mask.astype(np.uint8) if sides_are_named else _sides_of_mask(mask, work, spacing)
    warnings = _side_warnings(sides) if sides_are_named else []
    coarse = _nearest_on_work_grid(sides, spacing)
    shown = calibrate(work, tubes, outside, coarse, WORK_MM)
    warnings += density_warnings(work, coarse) + shape_warnings(coarse) + shown.warnings()
    return Lungs(sides, airways & (sides == 0), tuple(warnings), "given", shown)


# --- grids -----------------------------------------------------------------------------------------------


def _work_shape(shape: tuple[int, ...], spacing: Spacing) -> tuple[int, ...]:
    return tuple(max(1, round(n * s / WORK_MM)) for n, s in zip(shape, spacing, strict=True))


def to_work_grid(hu: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Average down and interpolate to the isotropic working grid."""
    matrices = [
        averaging_matrix(count, side, new_count, WORK_MM)
        for count, side, new_count in zip(hu.shape, spacing, _work_shape(hu.shape, spacing), strict=True)
    ]
    return np.clip(by_matrices(hu, matrices), -1024, 3000)


def _to_native(
    sides: np.ndarray, airways: np.ndarray, shape: tuple[int, ...], spacing: Spacing
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolate lungs and airways to the CT's grid, where the larger share wins and one half is the edge.

    Returns:
        Sides, uint8, without the airways; airways, bool.
    """
    masks = (sides == RIGHT, sides == LEFT, airways)
    smooth = np.stack([ndimage.gaussian_filter(mask.astype(np.float32), 0.6) for mask in masks])
    native, native_airways = np.zeros(shape, np.uint8), np.zeros(shape, bool)
    for slab, (right, left, tubes) in enlarged_slabs(smooth, (WORK_MM,) * 3, shape, spacing):
        inside = (right + left >= 0.5) & (tubes <= 0.5)
        native[slab] = np.where(right >= left, np.uint8(RIGHT), np.uint8(LEFT)) * inside
        native_airways[slab] = tubes > 0.5
    return native, native_airways


# --- air -------------------------------------------------------------------------------------------------


def _inner_air(work: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """Air within the patient; where a lung is missing in it, also what a narrow passage joins to the outside.

    Dark streaks of metal cross the chest wall: through them the room's air reaches into the lungs.

    Returns:
        The air, bool; a warning where passages were closed.
    """
    outside = _outside_air(work)
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


def _outside_air(work: np.ndarray) -> np.ndarray:
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
    return median > GAS_HU or (median > NO_TISSUE_HU and _is_crossed(piece, work))


def _airways(work: np.ndarray, air: np.ndarray) -> np.ndarray:
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
    middle = _middle(air)
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


def _middle(air: np.ndarray) -> float:
    """The x position in mm halfway between the outermost inner air of right and left."""
    columns = np.flatnonzero(air.any(axis=(0, 1)))
    return WORK_MM * (columns[0] + columns[-1]) / 2 if columns.size else 0.0


# --- lungs -----------------------------------------------------------------------------------------------


def _bowel_gas(work: np.ndarray, air: np.ndarray, outside: np.ndarray | None = None) -> np.ndarray:
    """Gas of stomach, bowel and oesophagus: pure, low or in the midline, walled by soft tissue.

    Args:
        work: HU on the working grid.
        air: What may be lung.
        outside: The network's probability that a voxel lies outside the lungs.  Where it is sure, half a wall
            will do: the other half borders on lung.

    Returns:
        The gas and its wall, within `air`.
    """
    gas = (work < GAS_HU) & air
    cores, _ = ndimage.label(~within(~gas, 3 / WORK_MM))
    heights, middle = np.flatnonzero(air.any(axis=(1, 2))), _middle(air)
    found = np.zeros(air.shape, bool)
    for label, box in enumerate(ndimage.find_objects(cores), 1):
        core_mm = [WORK_MM * (s.start + s.stop) / 2 for s in box]
        low = core_mm[0] < WORK_MM * heights.mean()
        midline = abs(core_mm[2] - middle) < 20 and WORK_MM * (box[2].stop - box[2].start) < 30
        if not (low or midline):
            continue
        near = tuple(slice(max(0, s.start - 12), s.stop + 12) for s in box)
        core = cores[near] == label
        if core.sum() < voxels(0.15) or np.median(work[near][core]) > -960:
            continue
        pocket = (ndimage.distance_transform_edt(~core) <= 4) & gas[near]
        to_pocket = ndimage.distance_transform_edt(~pocket)
        shell = work[near][(to_pocket > 2) & (to_pocket <= 5)]
        sure = outside is not None and float(outside[near][pocket].mean()) > SURELY_OUTSIDE
        if core.sum() > voxels(LARGE_GAS_ML) and not sure and _is_crossed(pocket, work[near]):
            continue
        if (shell > -200).mean() > (HALF_A_WALL if sure else WHOLE_WALL):
            found[near] |= to_pocket <= 2
    if outside is not None and found.any():  # a large loop of bowel reaches further than its core tells
        beyond = ndimage.binary_propagation(found & gas, mask=gas & (outside > SURELY_OUTSIDE))
        found |= ndimage.binary_dilation(beyond, iterations=2)
    return found & air


def _is_crossed(pocket: np.ndarray, work: np.ndarray) -> bool:
    """Whether vessels cross a pocket of gas, as they do in lung however emphysematous."""
    whole = closing(pocket, CLOSING_MM)
    return bool((work[whole] > TISSUE_HU).mean() > CROSSED)


def _by_thresholds(
    work: np.ndarray, lung_air: np.ndarray, airways: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both lungs from their air, with what it encloses and what is dense at the chest wall; that alone."""
    large = _large_components(lung_air)
    _require_tissue(work[large])
    closed = _close_sides(_named_sides(large, work), airways)
    recovered = dense_at_chest_wall(work, closed) * ~airways
    return np.where(recovered > 0, recovered, closed), recovered


def _large_components(air: np.ndarray) -> np.ndarray:
    """Drop pieces too small to be a lung or a lobe cut off by a fissure or a scar."""
    labels, count = ndimage.label(air)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if sizes.max() < voxels(100):
        raise _no_lungs()
    return (sizes > max(0.02 * sizes.max(), voxels(30)))[labels]


def _require_tissue(hu: np.ndarray) -> None:
    """Lungs hold tissue, however destroyed; bowel, stomach and the room hold none."""
    median = float(np.median(hu))
    if median < NO_TISSUE_HU:
        raise UnusableInputError(
            f"what could be lung holds gas alone (half of it below {median:.0f} HU), so no lungs were found "
            "in the CT (is it a chest CT in Hounsfield units?); give a mask with --lungs"
        )


def _no_lungs() -> UnusableInputError:
    return UnusableInputError(
        "no lungs were found in the CT (is it a chest CT in Hounsfield units?); give a mask with --lungs"
    )


def _named_sides(lung_air: np.ndarray, work: np.ndarray) -> np.ndarray:
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
    air, middle = lung_air[box], _middle(lung_air[box]) / WORK_MM
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
    room = _outside_air(work).sum(axis=(0, 1))
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


def _close_sides(sides: np.ndarray, airways: np.ndarray) -> np.ndarray:
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


# --- given masks and warnings ----------------------------------------------------------------------------


def _sides_of_mask(mask: np.ndarray, work: np.ndarray, spacing: Spacing) -> np.ndarray:
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
    coarse = _nearest_on_work_grid(present.astype(np.uint8), spacing) > 0
    if not coarse.any():  # a mask thinner than the working grid
        return _cut_in_the_middle(present)
    split = _named_sides(coarse, work)
    nearest = ndimage.distance_transform_edt(split == 0, return_distances=False, return_indices=True)
    index = [
        np.minimum(((np.arange(n) + 0.5) * s / WORK_MM).astype(int), m - 1)
        for n, s, m in zip(mask.shape, spacing, coarse.shape, strict=True)
    ]
    return np.where(present, split[tuple(nearest)][np.ix_(*index)], 0).astype(np.uint8)


def _side_warnings(sides: np.ndarray) -> list[str]:
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


def _nearest_on_work_grid(labels: np.ndarray, spacing: Spacing) -> np.ndarray:
    index = [
        np.minimum(((np.arange(m) + 0.5) * WORK_MM / s).astype(int), n - 1)
        for n, s, m in zip(labels.shape, spacing, _work_shape(labels.shape, spacing), strict=True)
    ]
    return labels[np.ix_(*index)]
