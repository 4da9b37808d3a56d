"""Decisions by region: what is too small or too thin to be a lesion goes to the next most likely tissue."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.filters import box_around, squared_distance
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY

RAISED = (GROUND_GLASS, FIBROSIS, CONSOLIDATION)


@dataclass(frozen=True)
class RegionSettings:
    """What a lesion is at least.

    Attributes:
        raised_ml: connected ground glass, fibrosis and consolidation together.
        emphysema_ml: connected emphysema.
        fibrosis_ml: connected fibrosis; a net of lines is a matter of regions.
        depth_mm: how far raised tissue must reach from the pleura; less is partial volume of the chest wall.
        depth_slices: the same in slices of the CT, since a thick slice blurs the diaphragm into the lung.
        fibrosis_depth_mm: the same for fibrosis; the thin costophrenic recess, blurred by breathing,
            has lines and holes of its own.
        agreed: share of a connected ground glass and fibrosis from which one of the two takes it all.
        rim_mm: a shell of ground glass around consolidation that is no thicker is partial volume.
        half_hu: half way from healthy lung to consolidation; such a shell is parted there.
        lucent_reach_mm: how far the edge of an emphysematous hole may lie beyond what is surely air.
    """

    raised_ml: float = 0.3
    emphysema_ml: float = 0.03
    fibrosis_ml: float = 1.0
    depth_mm: float = 5.0
    depth_slices: float = 1.5
    fibrosis_depth_mm: float = 8.0
    rim_mm: float = 6.0
    agreed: float = 0.85
    half_hu: float = -420.0
    lucent_reach_mm: float = 3.0

    def stored(self) -> dict[str, float]:
        """The settings as plain numbers."""
        return asdict(self)


def drop_specks(
    posterior: np.ndarray,
    order: tuple[int, ...],
    mask: np.ndarray,
    spacing: float,
    slice_mm: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Take from the posterior what no region bears out.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        slice_mm: distance of the CT's slices.
        settings: the least sizes.

    Returns:
        float32 (tissues, z, y, x), renormalised inside the mask.
    """
    voxels_per_ml = 1000.0 / spacing**3
    raised_depth = max(settings.depth_mm, settings.depth_slices * slice_mm)
    deepest = math.ceil(max(raised_depth, settings.fibrosis_depth_mm) / spacing)
    depth = squared_distance(~mask, deepest)
    result = posterior.copy()
    changed = np.zeros(mask.shape, bool)
    for labels, least, deep in (
        ((FIBROSIS,), settings.fibrosis_ml, settings.fibrosis_depth_mm),
        (RAISED, settings.raised_ml, raised_depth),
        ((EMPHYSEMA,), settings.emphysema_ml, 0.0),
    ):
        members = [order.index(label) for label in labels]
        region = mask & np.isin(likeliest(result), members)
        specks = _specks(region, depth, least * voxels_per_ml, deep / spacing)
        changed |= specks
        if labels == (FIBROSIS,):
            # A small net of lines is rough ground glass, which the next round judges.
            result[order.index(GROUND_GLASS)][specks] += result[members[0]][specks]
        for member in members:
            result[member][specks] = 0
    left = result[:, changed]
    result[:, changed] = left / np.maximum(left.sum(axis=0), 1e-6)
    return result


def agree_on_texture(
    posterior: np.ndarray, order: tuple[int, ...], mask: np.ndarray, settings: RegionSettings
) -> np.ndarray:
    """Let a region be ground glass or fibrosis as a whole: its rim has less of a net than its middle.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        mask: bool (z, y, x), the lungs.
        settings: ``agreed``.

    Returns:
        float32 (tissues, z, y, x).
    """
    best = likeliest(posterior)
    glass, fibrosis = order.index(GROUND_GLASS), order.index(FIBROSIS)
    parts, count = ndimage.label(mask & np.isin(best, [glass, fibrosis]))
    if count == 0:
        return posterior
    sizes = np.maximum(np.bincount(parts.ravel()), 1)
    netted = np.bincount(parts[best == fibrosis], minlength=count + 1) / sizes
    netted[0] = 0.5
    result = posterior.copy()
    _decide(result, (netted >= settings.agreed)[parts] & (best == glass), fibrosis)
    _decide(result, (netted <= 1 - settings.agreed)[parts] & (best == fibrosis), glass)
    return result


def part_rims(
    posterior: np.ndarray,
    order: tuple[int, ...],
    hu: np.ndarray,
    mask: np.ndarray,
    spacing: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Give thin shells of ground glass around consolidation to what they are the edge of.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        hu: float32 (z, y, x), the CT on the working grid.
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        settings: ``rim_mm`` and ``half_hu``.

    Returns:
        float32 (tissues, z, y, x).
    """
    best = likeliest(posterior)
    solid = mask & (best == order.index(CONSOLIDATION))
    if not solid.any():
        return posterior
    width = max(round(settings.rim_mm / spacing), 1)
    # A shell lies within ``width`` of what is solid, and the opening that tells it sees twice as far.
    box = box_around(solid, 3 * width + 3)
    shell = mask[box] & np.isin(best[box], [order.index(GROUND_GLASS), order.index(FIBROSIS)])
    thick = ndimage.binary_opening(shell, np.ones((width + 1,) * 3, bool))
    near = ndimage.binary_dilation(solid[box], iterations=width)
    rim = shell & near & ~thick
    dense = ndimage.gaussian_filter(hu[box], 0.5) > settings.half_hu
    result = posterior.copy()
    inside = result[(slice(None), *box)]
    _decide(inside, rim & dense, order.index(CONSOLIDATION))
    _decide(inside, rim & ~dense, order.index(HEALTHY))
    return result


def grow_holes(
    posterior: np.ndarray,
    order: tuple[int, ...],
    hu: np.ndarray,
    edge: np.ndarray,
    mask: np.ndarray,
    spacing: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Let emphysema reach the middle of its edges: a hole ends half way between air and healthy lung.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        hu: float32 (z, y, x), the CT on the working grid.
        edge: HU of that half way, broadcast to (z, y, x).
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        settings: ``lucent_reach_mm``.

    Returns:
        float32 (tissues, z, y, x).
    """
    best = likeliest(posterior)
    holes = mask & (best == order.index(EMPHYSEMA))
    if not holes.any():
        return posterior
    reach = max(round(settings.lucent_reach_mm / spacing), 1)
    box = box_around(holes, reach + 3)
    lucent = mask[box] & (best[box] == order.index(HEALTHY))
    lucent &= ndimage.gaussian_filter(hu[box], 0.6) < np.broadcast_to(edge, hu.shape)[box]
    grown = ndimage.binary_dilation(holes[box], iterations=reach, mask=lucent | holes[box]) & lucent
    result = posterior.copy()
    _decide(result[(slice(None), *box)], grown, order.index(EMPHYSEMA))
    return result


def likeliest(posterior: np.ndarray) -> np.ndarray:
    """Number of the largest of the tissues, uint8 (z, y, x); several times as fast as ``argmax`` over few."""
    best, largest = np.zeros(posterior.shape[1:], np.uint8), posterior[0].copy()
    for member, channel in enumerate(posterior[1:], start=1):
        best[channel > largest] = member
        np.maximum(largest, channel, out=largest)
    return best


def _decide(posterior: np.ndarray, where: np.ndarray, member: int) -> None:
    """Exchange a tissue's posterior with the largest one, in place: it wins, and the doubt stays."""
    there = posterior[:, where]
    best, places = there.argmax(axis=0), np.arange(there.shape[1])
    largest = there[best, places]
    there[best, places] = there[member]
    there[member] = largest
    posterior[:, where] = there


def _specks(region: np.ndarray, depth: np.ndarray, least_voxels: float, least_depth: float) -> np.ndarray:
    """Voxels of components that are too small or never reach deep enough.

    Args:
        region: bool (z, y, x).
        depth: squared distance to the pleura in voxels, right up to ``least_depth``.
        least_voxels: size.
        least_depth: in voxels.
    """
    parts, count = ndimage.label(region)
    if count == 0:
        return region
    small = np.bincount(parts.ravel()) < least_voxels
    small |= np.bincount(parts[depth >= least_depth**2], minlength=count + 1) == 0
    small[0] = False
    return small[parts]
