"""Lung and airway masks: thresholds, airways, dense lung, right and left."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT_SIDE as LEFT
from DiffSegLungLib.anatomy import RIGHT_SIDE as RIGHT
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.interpolation import enlarged_slabs
from DiffSegLungLib.lungs.air import NO_TISSUE_HU, find_airways, inner_air, outside_air
from DiffSegLungLib.lungs.bowel import bowel_gas
from DiffSegLungLib.lungs.calibration import Calibration, calibrate
from DiffSegLungLib.lungs.chest_wall import dense_at_chest_wall, dense_in_bays
from DiffSegLungLib.lungs.dense import Network, around_lungs, behind_dense, dense_by_network, diaphragm_domes
from DiffSegLungLib.lungs.mirrored import mirrored_warnings
from DiffSegLungLib.lungs.shapes import AIR_HU, WORK_MM, Spacing, nearest_on_work_grid, to_work_grid, voxels
from DiffSegLungLib.lungs.sides import close_sides, named_sides, side_warnings, sides_of_mask
from DiffSegLungLib.lungs.warnings import (
    density_warnings,
    gas_warnings,
    left_out_warnings,
    recovery_warnings,
    shape_warnings,
)


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
    air, joined = inner_air(work)
    airways = find_airways(work, air)
    lung_air = air & ~ndimage.binary_dilation(airways)
    bowel = bowel_gas(work, lung_air)
    lung_air &= ~bowel
    found, recovered = _by_thresholds(work, lung_air, airways)
    origin = "classical"
    warnings: list[str] = []
    if network is not None:
        shares = around_lungs(work, found, network)
        seen = shares[0][found > 0].mean() < 0.5  # a network that sees no lungs knows no bowel either
        doubted = bowel_gas(work, (found > 0) & seen, shares[0]) & ~bowel
        if doubted.any():
            bowel, lung_air = bowel | doubted, lung_air & ~doubted
            found, recovered = _by_thresholds(work, lung_air, airways)
        origin, dense, warnings = dense_by_network(work, found, (work >= AIR_HU) | lung_air, shares)
        if origin == "network":
            domes = diaphragm_domes(recovered > 0, found > 0, shares[0])
            found, recovered = found * ~domes, recovered * ~domes
        dense = np.maximum(dense, behind_dense(work, np.where(dense > 0, dense, found), dense))
        found, recovered = np.where(dense > 0, dense, found), np.maximum(recovered, dense)
    bays = dense_in_bays(work, found, lung_air)
    found, recovered = np.maximum(found, bays), np.maximum(recovered, bays)
    warnings += joined + recovery_warnings(recovered)
    warnings += shape_warnings(found) + gas_warnings(work, found) + left_out_warnings(bowel, found)
    native, native_airways = _to_native(found, airways, hu.shape, spacing)
    shown = calibrate(work, airways, (work < AIR_HU) & ~air, found, WORK_MM)
    warnings += mirrored_warnings(work, found, shown.aorta_hu is not None) + shown.warnings()
    return Lungs(native, native_airways, tuple(warnings), origin, shown)


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
    outside = outside_air(work)
    tubes = find_airways(work, (work < AIR_HU) & ~outside)
    _, airways = _to_native(np.zeros_like(tubes, np.uint8), tubes, hu.shape, spacing)
    sides = mask.astype(np.uint8) if sides_are_named else sides_of_mask(mask, work, spacing)
    warnings = side_warnings(sides) if sides_are_named else []
    coarse = nearest_on_work_grid(sides, spacing)
    shown = calibrate(work, tubes, outside, coarse, WORK_MM)
    warnings += mirrored_warnings(work, coarse, shown.aorta_hu is not None)
    warnings += density_warnings(work, coarse) + shape_warnings(coarse) + shown.warnings()
    return Lungs(sides, airways & (sides == 0), tuple(warnings), "given", shown)


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


def _by_thresholds(
    work: np.ndarray, lung_air: np.ndarray, airways: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Both lungs from their air, with what it encloses and what is dense at the chest wall; that alone."""
    large = _large_components(lung_air)
    _require_tissue(work[large])
    closed = close_sides(named_sides(large, work), airways)
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
