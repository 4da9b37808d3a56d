"""Lung and airway masks: threshold, airway growing, right and left, closing in millimetres."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy import ndimage

from .anatomy import LEFT_SIDE as LEFT
from .anatomy import RIGHT_SIDE as RIGHT
from .calibration import Calibration, calibrate
from .errors import UnusableInputError
from .filters import Box, box_around, squared_distance, within
from .interpolation import averaging_matrix, by_matrices, enlarged_slabs
from .parallel import run_all

WORK_MM = 2.0  # isotropic working grid: fine enough for pleura and main bronchi, 10x fewer voxels than the CT
AIR_HU = -320.0  # the pleura that experts draw lies slightly outside the half-way value of -380 HU
NO_TISSUE_HU = -985.0  # median below: bowel or room air; the worst emphysema lies above
BULLA_HU, THINNEST_GAS_MM = -970.0, 8.0  # gas in a space of its own
MUCH_GAS_ML, MUCH_GAS_SHARE = 50.0, 0.1  # of a lung; whichever is less
WHOLE_WALL, HALF_A_WALL = 0.55, 0.38  # share of soft tissue around gas: bowel 0.63-0.99, a large bulla 0.43
SURELY_OUTSIDE = 0.75  # bowel and oesophagus 0.90-1.0, gas within lung 0-0.28
LARGE_GAS_ML, TISSUE_HU, CROSSED = 40.0, -850.0, 0.04
"""Gas beyond this volume with this share of tissue in it is emphysema: 0.05 to 0.09 where it was painted into
three CT, bowel 0.00 to 0.01 but for a colon of 30 ml with 0.10."""
HIGH_IN_CHEST = 0.6  # of the lungs' height; stomach and bowel end below
GAS_HU = -940.0  # below: gas rather than parenchyma, unless emphysematous
CUT_LUNG_ML = 4.0  # below: thinner than the cut lung that is kept, an eighth of a ball of 20 mm at the least
PASSAGE_MM = 12.0  # narrower: a streak of metal through the chest wall, not where a lung ends
ALONE = 0.95  # share of the air on one side of the patient: the other lung holds none
LEAST_OF_A_SIDE = 0.2  # of the air of the other half of the patient; below, a lung may have been lost
SLIT_MM = 4.0
MOST_EROSION = 11  # voxels of the working grid after which two lungs that touch must have come apart
CLOSING_MM = 8.0  # vessels, nodules and small juxta-pleural lesions stay inside
SIDE_NAMES = {RIGHT: "right", LEFT: "left"}

Spacing = tuple[float, float, float]
Network = Callable[[np.ndarray], np.ndarray]
"""HU on the working grid to the probability of outside, right and left lung, (3, z, y, x)."""

LIKELY, CERTAIN = 0.3, 0.9
"""Probabilities of lung of what is added of a piece of dense tissue where the lung goes around it, and of
what counts as certain."""
ENCLOSED, WEIGHT_OF_CERTAIN = 0.45, 0.4
"""Share of a piece's surface at which the lung goes around it; how much its certain share counts beside."""
ROUNDS = ((0.2, 0.48, 0.75), (0.6, 0.54, 0.95), (0.85, 0.60, 0.95))
"""Probability of what pieces are made; their least enclosed and weighted certain share together; probability
of what is added where the lung does not go around them.  What hangs together with heart or liver in one round
parts from them in the next."""
LEAST_BELOW, HALF_ENCLOSED = 0.15, 0.5
"""Share of a piece's lower face that lies on lung, below which it is the diaphragm's dome, unless half of its
surface is enclosed: domes 0.04 to 0.12 and 0.41, lesions above the diaphragm 0.02 and 0.52 at the least."""
NOTHING_BELOW, HALF_SURE = 0.02, 0.45
"""The same of what was found at the chest wall; the mean probability of lying outside it needs besides."""
TIP_ML = (1.0, 40.0)  # of a dome that the rays from the middle of the lung cut off; larger: lung after all
WIDEST_BAY_MM, BAY_ENCLOSED = 36.0, 0.65  # of the aerated lung; share of a piece's surface that borders on it
SMALLEST_BAY_ML, BESIDE_AIR = 1.5, 3  # below: a vessel; voxels to a bronchus, beside which it is an artery
BAY_HU = (-20.0, 110.0)  # median; fat is none, nor a vessel full of contrast medium
FAT_HU, MOST_FAT = (-150.0, -30.0), 0.2  # more: the fat around the heart
LEAST_CORE = 30  # voxels
LEAST_DENSE_ML, WELL_ENCLOSED = 10.0, 0.55  # below the first, only what is enclosed by the second
MEDIAL, SURE_WITHIN = 0.45, 0.63
"""Of the way from the middle of the patient to the ribs; mean probability more than 6 mm beneath the surface.

Heart and hilum, half enclosed as they are, look like dense lung to the coarse network where they lie on lung,
and less so beneath: 0.38 to 0.56 within, at 0.19 to 0.34 of the way.  Consolidation enclosed no better lies
farther out where it is as unsure, from 0.63 on, or is lung all through: 0.76 at the least where it is medial.
"""
LOW, TOWERING = 0.3, 0.5
"""Of the lungs' height, below which only what is certain counts, and to which large consolidation must reach:
liver, spleen and heart, where they are likely lung, end at 0.41 in ten training CT."""
TOWERING_CORE_ML, EXUDATE_HU, BESIDE_AORTA = 5.0, 28.0, 0.22
"""What of it is more than 6 mm from its surface (the aorta's arch: 1.6); what is less dense is effusion; how
far from the middle of the patient its median lies, the ribs at 1 (aorta 0.18, consolidation from 0.24 on)."""
SMALLEST_DENSE_ML = 5.0  # below: the coarse network's error
SOFT_HU = 200.0  # denser: bone, or a heart full of contrast medium
BEHIND_MM = 20.0  # of dense lung, in which the chest wall is looked at again
THINNEST_MM = 12.0  # a dense rim thinner than this at the pleura is the coarse network's error, not lung
BELOW_MM, ABOVE_MM, BESIDE_MM = (
    60.0,
    40.0,
    30.0,
)  # how far consolidated lung is looked for beyond the aerated lung
MUCH_MISSED_ML = 200.0  # ten training CT without it 0-152, a collapsed lobe 390, large consolidation 130-870
LEAST_AGREEMENT = 0.8  # mean probability of what thresholds call lung; a network below is not believed


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
        shares = _around_lungs(work, found, network)
        seen = shares[0][found > 0].mean() < 0.5  # a network that sees no lungs knows no bowel either
        doubted = _bowel_gas(work, (found > 0) & seen, shares[0]) & ~bowel
        if doubted.any():
            bowel, lung_air = bowel | doubted, lung_air & ~doubted
            found, recovered = _by_thresholds(work, lung_air, airways)
        origin, dense, warnings = _dense_by_network(work, found, (work >= AIR_HU) | lung_air, shares)
        if origin == "network":
            domes = _domes(recovered > 0, found > 0, shares[0])
            found, recovered = found * ~domes, recovered * ~domes
        dense = np.maximum(dense, _behind(work, np.where(dense > 0, dense, found), dense))
        found, recovered = np.where(dense > 0, dense, found), np.maximum(recovered, dense)
    bays = dense_in_bays(work, found, lung_air)
    found, recovered = np.maximum(found, bays), np.maximum(recovered, bays)
    warnings += joined + _recovery_warnings(recovered)
    warnings += _shape_warnings(found) + _gas_warnings(work, found) + _left_out_warnings(bowel, found)
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
    sides = mask.astype(np.uint8) if sides_are_named else _sides_of_mask(mask, spacing)
    warnings = _side_warnings(sides) if sides_are_named else []
    coarse = _nearest_on_work_grid(sides, spacing)
    shown = calibrate(work, tubes, outside, coarse, WORK_MM)
    warnings += _shape_warnings(coarse) + shown.warnings()
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


def _litres(voxels: float) -> float:
    return voxels * WORK_MM**3 / 1e6


def _voxels(millilitres: float) -> float:
    return millilitres * 1000 / WORK_MM**3


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
    if min(halves) > LEAST_OF_A_SIDE * max(halves) and max(halves) > _voxels(100):
        return inner, []
    lung = _behind_passages(outside, work)
    sentence = (
        "the lungs are open to the air outside (streaks of metal?) and were closed; check the lung mask"
    )
    return inner | lung, [sentence] if lung.any() else []


def _behind_passages(outside: np.ndarray, work: np.ndarray) -> np.ndarray:
    """What is thick and impure as lung is, and away from the border once narrow passages are closed."""
    labels, count = ndimage.label(_depth(outside) > PASSAGE_MM / 2)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    border = np.unique(np.concatenate([labels[:, [0, -1], :].ravel(), labels[:, :, [0, -1]].ravel()]))
    candidates = np.setdiff1d(np.flatnonzero(sizes > _voxels(CUT_LUNG_ML)), np.append(border, 0))
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
    candidates = (contact < 0.03 * sizes) & (sizes > _voxels(CUT_LUNG_ML))
    cut_lung = [label for label in touching[candidates] if _is_thick_and_impure(labels == label, work)]
    return np.isin(labels, np.setdiff1d(touching, cut_lung))


def _is_thick_and_impure(piece: np.ndarray, work: np.ndarray) -> bool:
    if _depth(piece).max() <= 20:
        return False
    median = float(np.median(work[piece]))
    return median > GAS_HU or (median > NO_TISSUE_HU and _is_crossed(piece, work))


def _depth(mask: np.ndarray) -> np.ndarray:
    """Distance in mm of each voxel of a working-grid mask to the outside of the mask."""
    return ndimage.distance_transform_edt(mask) * WORK_MM


def _airways(work: np.ndarray, air: np.ndarray) -> np.ndarray:
    """Trachea and main bronchi: grow from the trachea with the highest threshold that does not leak."""
    seed = _trachea_seed(work, air)
    grown = np.zeros(work.shape, bool)
    if not seed.any():
        return grown
    for threshold in range(-960, -700, 20):
        wider = ndimage.binary_propagation(seed | grown, mask=(work < threshold) & air)
        too_large = wider.sum() > _voxels(120)
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
        if core.sum() < _voxels(0.15) or np.median(work[near][core]) > -960:
            continue
        pocket = (ndimage.distance_transform_edt(~core) <= 4) & gas[near]
        to_pocket = ndimage.distance_transform_edt(~pocket)
        shell = work[near][(to_pocket > 2) & (to_pocket <= 5)]
        sure = outside is not None and float(outside[near][pocket].mean()) > SURELY_OUTSIDE
        if core.sum() > _voxels(LARGE_GAS_ML) and not sure and _is_crossed(pocket, work[near]):
            continue
        if (shell > -200).mean() > (HALF_A_WALL if sure else WHOLE_WALL):
            found[near] |= to_pocket <= 2
    if outside is not None and found.any():  # a large loop of bowel reaches further than its core tells
        beyond = ndimage.binary_propagation(found & gas, mask=gas & (outside > SURELY_OUTSIDE))
        found |= ndimage.binary_dilation(beyond, iterations=2)
    return found & air


def _is_crossed(pocket: np.ndarray, work: np.ndarray) -> bool:
    """Whether vessels cross a pocket of gas, as they do in lung however emphysematous."""
    whole = _closing(pocket, CLOSING_MM)
    return bool((work[whole] > TISSUE_HU).mean() > CROSSED)


def _by_thresholds(
    work: np.ndarray, lung_air: np.ndarray, airways: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both lungs from their air, with what it encloses and what is dense at the chest wall; that alone."""
    large = _large_components(lung_air)
    _require_tissue(work[large])
    closed = _close_sides(_split_sides(large, _alone(large, work)), airways)
    recovered = _dense_at_chest_wall(work, closed) * ~airways
    return np.where(recovered > 0, recovered, closed), recovered


def _large_components(air: np.ndarray) -> np.ndarray:
    """Drop pieces too small to be a lung or a lobe cut off by a fissure or a scar."""
    labels, count = ndimage.label(air)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    if sizes.max() < _voxels(100):
        raise _no_lungs()
    return (sizes > max(0.02 * sizes.max(), _voxels(30)))[labels]


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


def _alone(lung_air: np.ndarray, work: np.ndarray) -> int:
    """The side of the patient on which nearly all the air lies; 0 where both hold some."""
    middle = _middle_of_tissue(work)
    columns = lung_air.sum(axis=(0, 1))
    share = float(columns[:middle].sum() / columns.sum())
    if share > ALONE or share < 1 - ALONE:
        return RIGHT if share > 0.5 else LEFT
    return 0


def _middle_of_tissue(work: np.ndarray) -> int:
    """The column on either side of which half of the patient's tissue lies, however many lungs there are."""
    tissue = np.cumsum((work > AIR_HU).sum(axis=(0, 1)))
    return int(np.searchsorted(tissue, tissue[-1] / 2))


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
    boxes = _boxes(sides)
    whole = run_all([partial(_closed, sides[box] == side) for side, box in boxes.items()])
    for (side, box), filled in zip(boxes.items(), whole, strict=True):
        closed[box][filled & (closed[box] == 0)] = side
    closed[airways] = 0
    return closed


def _closed(lung: np.ndarray) -> np.ndarray:
    # Filling plane by plane leaves slits one voxel wide in dense lung; a narrow closing takes them.
    return _closing(_fill_enclosed(_closing(lung, CLOSING_MM)), SLIT_MM)


def _boxes(sides: np.ndarray) -> dict[int, Box]:
    """A box around each lung that is there."""
    return {side: box_around(sides == side) for side in (RIGHT, LEFT) if (sides == side).any()}


def _fill_enclosed(lung: np.ndarray) -> np.ndarray:
    """Fill what the lung encloses in two of the three planes.

    Vessels and dense lung are open to the hilum in 3D, so a 3D filling misses them; the dome of the
    diaphragm and the heart are enclosed in one plane only, so they stay out.
    """
    enclosed = [_holes(lung, plane) for plane in range(3)]
    return lung | (sum(hole.astype(np.uint8) for hole in enclosed) >= 2) | _holes(lung, None)


def _holes(lung: np.ndarray, normal: int | None) -> np.ndarray:
    """Background that cannot reach the border within planes along axis `normal` (None: in 3D)."""
    neighbours = ndimage.generate_binary_structure(3, 1)
    if normal is not None:
        np.moveaxis(neighbours, normal, 0)[[0, 2]] = False
    labels, count = ndimage.label(~lung, neighbours)
    reached = np.zeros(count + 1, bool)
    reached[0] = True
    for axis in range(3):
        if axis != normal:
            reached[np.moveaxis(labels, axis, 0)[[0, -1]]] = True
    return ~reached[labels]


def _closing(mask: np.ndarray, radius_mm: float) -> np.ndarray:
    """Closing with a ball in mm."""
    radius = radius_mm / WORK_MM
    margin = int(radius) + 2
    padded = np.pad(mask, margin)
    inner = ~within(~within(padded, radius), radius)
    return (inner | padded)[margin:-margin, margin:-margin, margin:-margin]


# --- the network's lungs ---------------------------------------------------------------------------------


def _dense_by_network(
    work: np.ndarray, found: np.ndarray, allowed: np.ndarray, shares: np.ndarray
) -> tuple[str, np.ndarray, list[str]]:
    """Find dense lung that thresholds lose: what the network takes for lung and what is thick.

    Args:
        work: HU on the working grid.
        found: Right and left lung by thresholds.
        allowed: Where lung may be: not in the air of airways, bowel and room.
        shares: The network's probabilities of outside, right and left lung.

    Returns:
        ``network``, or ``classical`` where it is not to be believed; right and left label of the dense lung,
        uint8, 0 elsewhere; warnings.
    """
    side = np.where(shares[1] >= shares[2], np.uint8(RIGHT), np.uint8(LEFT))
    agreed = float(1 - shares[0][found > 0].mean())
    if agreed < LEAST_AGREEMENT:
        sentence = (
            f"the lung network was not used: it holds only {100 * agreed:.0f} % of the lungs that "
            "thresholds find; check the lung mask"
        )
        return "classical", np.zeros_like(found), [sentence]
    soft = allowed & (work < SOFT_HU)
    dense = _borne_out(work, 1 - shares[0], found > 0, soft)
    missed = soft & (work > AIR_HU) & ~dense & (found == 0)
    return "network", np.where(dense, side, np.uint8(0)), _missed_warnings(missed & (shares[0] < 0.5))


def _borne_out(
    work: np.ndarray, probability: np.ndarray, lung: np.ndarray, allowed: np.ndarray
) -> np.ndarray:
    """Dense lung, bool: liver, spleen and heart look like it, but the lung does not go around them.

    Args:
        work: HU on the working grid.
        probability: Of lung, by the network.
        lung: What thresholds find.
        allowed: Where dense lung may be.
    """
    missed, near = allowed & ~lung, ndimage.binary_dilation(lung, iterations=2)
    dense, outward = np.zeros(lung.shape, bool), _from_the_middle(work, lung)
    for least, enough, very_likely in ROUNDS:
        pieces, _ = ndimage.label(_thick(missed & ~dense & (probability > least), near))
        for number, span in enumerate(ndimage.find_objects(pieces), start=1):
            box = (
                slice(max(span[0].start - 3, 0), span[0].stop + 3),
                slice(max(span[1].start - 3, 0), span[1].stop + 3),
                slice(max(span[2].start - 3, 0), span[2].stop + 3),
            )
            piece, around = pieces[box] == number, lung[box] | dense[box]
            bound = _least_probability(piece, work[box], probability[box], around, enough, very_likely)
            if bound < 1 and not _is_mediastinal(piece, probability[box], around, outward[box[2]]):
                dense[box] |= piece & (probability[box] > bound)
    dense |= _towering(work, probability, lung, missed & ~dense)
    if not dense.any():
        return dense
    # The coarse network leaves a gap to the lung.
    box = box_around(lung | dense)
    whole = _fill_enclosed(_closing((lung | dense)[box], CLOSING_MM)) & missed[box]
    dense[box] |= whole & within(dense[box], THINNEST_MM / WORK_MM)
    return dense


def _towering(work: np.ndarray, probability: np.ndarray, lung: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """Large consolidation at the back, bool: the lung goes around one side of it only, as around the liver.

    But liver, spleen and heart end lower, and an effusion is less dense.

    Args:
        work: HU on the working grid.
        probability: Of lung, by the network.
        lung: What thresholds find.
        missed: Where dense lung may be that is not found yet.
    """
    near, found = ndimage.binary_dilation(lung, iterations=2), np.zeros(lung.shape, bool)
    outward, ends = _from_the_middle(work, lung), np.flatnonzero(lung.any(axis=(1, 2)))[[0, -1]]
    height = (np.arange(len(lung)) - ends[0]) / max(ends[1] - ends[0], 1)
    likely = probability > np.where(height < LOW, CERTAIN, 0.5)[:, None, None]
    pieces, _ = ndimage.label(_thick(missed & likely, near))
    for number, span in enumerate(ndimage.find_objects(pieces), start=1):
        piece = np.pad(pieces[span] == number, 3)
        z, _, x = np.nonzero(piece[3:-3, 3:-3, 3:-3])
        top, aside = np.percentile(height[span[0]][z], 95), np.median(outward[span[2]][x])
        core = np.count_nonzero(~within(~piece, THINNEST_MM / 2 / WORK_MM))
        is_solid = EXUDATE_HU < np.median(work[span][piece[3:-3, 3:-3, 3:-3]]) < BAY_HU[1]
        if top > TOWERING and aside > BESIDE_AORTA and core > _voxels(TOWERING_CORE_ML) and is_solid:
            found[span] |= piece[3:-3, 3:-3, 3:-3]
    return found


def _least_probability(
    piece: np.ndarray,
    work: np.ndarray,
    probability: np.ndarray,
    lung: np.ndarray,
    enough: float,
    very_likely: float,
) -> float:
    """From which probability on a piece of dense tissue is lung; 1 where none of it is."""
    enclosed = _enclosed(piece, lung)
    certain = float((probability[piece] > CERTAIN).mean())
    volume = np.count_nonzero(piece)
    small = volume < _voxels(LEAST_DENSE_ML) and enclosed < WELL_ENCLOSED
    lung_like = enclosed + WEIGHT_OF_CERTAIN * certain >= enough
    lung_like &= enclosed >= HALF_ENCLOSED or _share_below(piece, lung) >= LEAST_BELOW
    if volume < _voxels(SMALLEST_DENSE_ML) or small or not lung_like or _is_fat(piece, work):
        return 1.0
    return LIKELY if enclosed >= ENCLOSED and volume >= _voxels(LEAST_DENSE_ML) else very_likely


def _enclosed(piece: np.ndarray, lung: np.ndarray) -> float:
    """Share of a piece's surface that borders on lung."""
    return float(lung[ndimage.binary_dilation(piece, iterations=2) & ~piece].mean())


def _from_the_middle(work: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """How far each column lies from the middle of the patient; 1 where the lungs end."""
    away = np.abs(np.arange(work.shape[2]) - _middle_of_tissue(work))
    return away / max(away[lung.any(axis=(0, 1))].max(), 1)


def _is_mediastinal(
    piece: np.ndarray, probability: np.ndarray, lung: np.ndarray, outward: np.ndarray
) -> bool:
    """Whether a piece is heart or hilum: medial, not well enclosed and likely at its surface only.

    Args:
        piece: What may be dense lung.
        probability: Of lung, by the network.
        lung: What is lung already.
        outward: How far each column lies from the middle of the patient.
    """
    medial = np.average(outward, weights=piece.sum(axis=(0, 1))) < MEDIAL
    if not medial or _enclosed(piece, lung) >= WELL_ENCLOSED:
        return False
    core = ~within(~piece, THINNEST_MM / 2 / WORK_MM)
    return float(probability[core if core.any() else piece].mean()) < SURE_WITHIN


def _behind(work: np.ndarray, sides: np.ndarray, dense: np.ndarray) -> np.ndarray:
    """Dents of the chest wall beside dense lung, uint8, right and left label: it ends at the pleura."""
    if not dense.any():
        return dense
    return _dense_at_chest_wall(work, sides) * within(dense > 0, BEHIND_MM / WORK_MM)


def _share_below(piece: np.ndarray, lung: np.ndarray) -> float:
    """Share of a piece's lower face under which there is lung."""
    face = piece[1:] & ~piece[:-1]
    return float(lung[:-1][face].mean()) if face.any() else 0.0


def _domes(recovered: np.ndarray, lung: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Pieces of what was found at the chest wall that are the tip of the diaphragm's dome.

    Args:
        recovered: What was found there.
        lung: The lungs, that included.
        outside: The network's probability of it.
    """
    pieces, _ = ndimage.label(recovered)
    domes = np.zeros(recovered.shape, bool)
    for number, span in enumerate(ndimage.find_objects(pieces), start=1):
        box = tuple(slice(max(side.start - 1, 0), side.stop + 1) for side in span)
        piece = pieces[box] == number
        small = _voxels(TIP_ML[0]) < np.count_nonzero(piece) < _voxels(TIP_ML[1])
        bottom = _share_below(piece, lung[box] & ~piece) < NOTHING_BELOW
        if small and bottom and outside[box][piece].mean() > HALF_SURE:
            domes[box] |= piece
    return domes


def _is_fat(piece: np.ndarray, work: np.ndarray) -> bool:
    """Whether a piece is fat away from its surface, which partial volume makes as dark as fat."""
    core = ndimage.binary_erosion(piece, iterations=2)
    core = core if np.count_nonzero(core) >= LEAST_CORE else piece
    smooth = ndimage.gaussian_filter(work, 1.0)[core]
    return float(((smooth > FAT_HU[0]) & (smooth < FAT_HU[1])).mean()) >= MOST_FAT


def _around_lungs(work: np.ndarray, found: np.ndarray, network: Network) -> np.ndarray:
    """The network's probabilities near the lungs: it never saw arms or pelvis. Elsewhere all is outside."""
    box = _box_around(found)
    shares = np.zeros((3, *work.shape), np.float32)
    shares[0] = 1
    shares[(slice(None), *box)] = network(work[box])
    return shares


def _box_around(sides: np.ndarray) -> tuple[slice, slice, slice]:
    """Where lung may be, aerated or not; beside a lung that is alone there is room for the other."""
    spans = [np.flatnonzero((sides > 0).any(axis=other)) for other in ((1, 2), (0, 2), (0, 1))]
    alone = min((sides == side).sum() for side in (RIGHT, LEFT)) < 0.1 * (sides > 0).sum()
    across = (spans[2][-1] - spans[2][0]) * WORK_MM if alone else 0.0
    margins = ((BELOW_MM, ABOVE_MM), (BESIDE_MM, BESIDE_MM), (BESIDE_MM + across, BESIDE_MM + across))
    box = [
        slice(max(int(span[0] - before / WORK_MM), 0), int(span[-1] + after / WORK_MM) + 1)
        for span, (before, after) in zip(spans, margins, strict=True)
    ]
    return box[0], box[1], box[2]


def _thick(mask: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """What is thicker than a rim, with its own outline, in pieces of at least 1.5 ml that touch the lung."""
    cores = ~within(~mask, THINNEST_MM / 2 / WORK_MM)
    near = within(cores, 1.5 * THINNEST_MM / WORK_MM)
    labels, count = ndimage.label(near & mask)
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    touching = np.bincount(labels[lung], minlength=count + 1) > 0
    return ((sizes > _voxels(1.5)) & touching & (np.arange(count + 1) > 0))[labels]


# --- dense lung at the chest wall ------------------------------------------------------------------------


def _dense_at_chest_wall(work: np.ndarray, sides: np.ndarray) -> np.ndarray:
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
    boxes = _boxes(sides)
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
    lost = ndimage.binary_dilation((sizes > _voxels(1.5))[labels], iterations=2) & dent & (work < 150)
    if not lost.any():
        return lost
    # The lost tissue closes the mouth of what reaches behind the lung's edge.  Rays leave slits one voxel
    # wide; a narrow closing fills them before the enclosed is filled.
    whole = _fill_enclosed(_closing(lung | lost, SLIT_MM))
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


# --- dense lung in bays ----------------------------------------------------------------------------------


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
    for side, box in _boxes(sides).items():
        lung = sides[box] == side
        inner = _closing(lung, WIDEST_BAY_MM / 2) & dense[box]
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
    if np.count_nonzero(piece) < _voxels(SMALLEST_BAY_ML):
        return False
    enclosed = lung[ndimage.binary_dilation(piece, iterations=2) & ~piece].mean()
    return bool(enclosed >= BAY_ENCLOSED and BAY_HU[0] < np.median(work[piece]) < BAY_HU[1])


# --- given masks and warnings ----------------------------------------------------------------------------


def _sides_of_mask(mask: np.ndarray, spacing: Spacing) -> np.ndarray:
    """Keep labels 1 and 2 where they lie right and left, else split; never changes which voxels are lung."""
    present = mask > 0
    if np.array_equal(np.unique(mask), (0, RIGHT, LEFT)):
        right_x, left_x = (_mean_x(mask == side) for side in (RIGHT, LEFT))
        if right_x < left_x:
            return mask.astype(np.uint8)
    work = _nearest_on_work_grid(present.astype(np.uint8), spacing) > 0
    if not work.any():  # a mask thinner than the working grid
        return _cut_in_the_middle(present)
    split = _split_sides(work)
    nearest = ndimage.distance_transform_edt(split == 0, return_distances=False, return_indices=True)
    index = [
        np.minimum(((np.arange(n) + 0.5) * s / WORK_MM).astype(int), m - 1)
        for n, s, m in zip(mask.shape, spacing, work.shape, strict=True)
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


def _recovery_warnings(recovered: np.ndarray) -> list[str]:
    """Say where dense tissue was added: it may be consolidation, but also effusion or a pleural mass."""
    volumes = {name: 1000 * _litres((recovered == side).sum()) for side, name in SIDE_NAMES.items()}
    return [
        f"{volume:.0f} mL of dense tissue at the pleura was counted as {name} lung; "
        "check that it is consolidated lung, not effusion or a pleural mass"
        for name, volume in volumes.items()
        if volume > 5
    ]


def _missed_warnings(likely: np.ndarray) -> list[str]:
    """Say how much of what is likely lung, bool, lies in bodies too thick for the coarse network's error."""
    reach = THINNEST_MM / 2 / WORK_MM
    volume = 1000 * _litres(float(np.count_nonzero(likely & within(~within(~likely, reach), reach))))
    if volume < MUCH_MISSED_ML:
        return []
    return [
        f"about {volume:.0f} mL of dense tissue beside the lungs may be consolidated or collapsed lung, or "
        "effusion, and were not counted; check the lung mask"
    ]


def _gas_warnings(work: np.ndarray, sides: np.ndarray) -> list[str]:
    """Say where much gas lies without any tissue: thresholds cannot tell a bulla from a pneumothorax."""
    box, reach = box_around(sides > 0, 4), THINNEST_GAS_MM / 2 / WORK_MM  # no more is seen by the Gaussian
    work, sides = work[box], sides[box]
    gas = (ndimage.gaussian_filter(work, 1.0) < BULLA_HU) & (sides > 0)
    thick = gas & within(~within(~gas, reach), reach)
    volumes = {name: 1000 * _litres((thick & (sides == side)).sum()) for side, name in SIDE_NAMES.items()}
    whole = {name: 1000 * _litres((sides == side).sum()) for side, name in SIDE_NAMES.items()}
    return [
        f"{volume:.0f} mL of gas without tissue lie in the {name} lung and count as emphysema; "
        "check that it is a bulla, not a pneumothorax"
        for name, volume in volumes.items()
        if volume > min(MUCH_GAS_ML, MUCH_GAS_SHARE * whole[name]) > 0
    ]


def _left_out_warnings(bowel: np.ndarray, sides: np.ndarray) -> list[str]:
    """Say where gas that was taken for bowel reaches high into the chest: a pneumothorax looks so, too."""
    labels, count = ndimage.label(bowel)
    heights = np.flatnonzero((sides > 0).any(axis=(1, 2)))
    high = heights[0] + HIGH_IN_CHEST * (heights[-1] - heights[0])
    boxes = ndimage.find_objects(labels)
    sizes = 1000 * _litres(1) * np.bincount(labels.ravel(), minlength=count + 1)[1:]
    volume = sum(
        size for size, box in zip(sizes, boxes, strict=True) if size > MUCH_GAS_ML and box[0].stop > high
    )
    if not volume:
        return []
    return [
        f"{volume:.0f} mL of gas high in the chest were not counted as lung; check that it is stomach or "
        "bowel, not a pneumothorax or lung"
    ]


def _shape_warnings(sides: np.ndarray) -> list[str]:
    """Suspicions from size, symmetry and extent of the lungs on the working grid."""
    warnings = []
    right, left = (_litres((sides == side).sum()) for side in (RIGHT, LEFT))
    if right + left < 1.0:
        warnings.append(f"the lungs hold only {right + left:.1f} L; check the lung mask")
    if min(right, left) < 0.55 * max(right, left):
        smaller = SIDE_NAMES[RIGHT if right < left else LEFT]
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
