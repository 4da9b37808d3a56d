"""Raised lung by region: what is too small, thin or superficial goes to the next most likely tissue."""

from __future__ import annotations

import math

import numpy as np
from scipy import ndimage

from DiffSegLungLib.decision.regions import (
    RAISED,
    RegionSettings,
    among_vessels,
    decide,
    likeliest,
    parts_holding,
    take,
)
from DiffSegLungLib.filters import box_around, squared_distance
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY


def drop_bronchovascular_bundles(
    posterior: np.ndarray,
    order: tuple[int, ...],
    vessels: np.ndarray,
    mask: np.ndarray,
    spacing: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Take from the posterior what is a bundle of vessels and bronchi, and not a net of lines.

    Around fibrosis hardly a vessel runs through aerated lung (a share of 0.04 at most was measured), around
    bundles many do.  What is not fibrosis may be ground glass; that is asked next.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        vessels: bool (z, y, x).
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        settings: ``bundle_ml``, ``bundle_vessels`` and ``bundle_solid``.

    Returns:
        float32 (tissues, z, y, x), renormalised inside the mask.
    """
    result = posterior.copy()
    fibrosis, glass = order.index(FIBROSIS), order.index(GROUND_GLASS)
    for labels in ((FIBROSIS,), RAISED):
        best = likeliest(result)
        members = [order.index(label) for label in labels]
        region = mask & np.isin(best, members)
        aerated = mask & ~np.isin(best, [order.index(label) for label in RAISED])
        firm = parts_holding(region, best == order.index(CONSOLIDATION), settings.bundle_solid)
        most = settings.bundle_ml * 1000.0 / spacing**3
        bundles = among_vessels(region, vessels & aerated, mask, most, settings.bundle_vessels) & ~firm
        if labels == (FIBROSIS,):
            result[glass][bundles] += result[fibrosis][bundles]
        take(result, members, bundles)
    return result


def drop_small_or_superficial(
    posterior: np.ndarray,
    order: tuple[int, ...],
    mask: np.ndarray,
    spacing: float,
    slice_mm: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Take from the posterior what is too small, or too close to the pleura, to be a lesion.

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
    deepest = max(settings.depth_mm, settings.fibrosis_depth_mm, settings.depth_slices * slice_mm)
    depth = squared_distance(~mask, math.ceil(deepest / spacing))
    result = posterior.copy()
    changed = np.zeros(mask.shape, bool)
    for labels, least in (
        ((FIBROSIS,), settings.fibrosis_ml),
        (RAISED, settings.raised_ml),
        ((EMPHYSEMA,), settings.emphysema_ml),
    ):
        members = [order.index(label) for label in labels]
        best = likeliest(result)
        region = mask & np.isin(best, members)
        core = region & _deep(depth, labels, best == order.index(CONSOLIDATION), spacing, slice_mm, settings)
        dropped = _small_or_superficial(region, core, least * voxels_per_ml)
        if labels == RAISED:  # a layer along the pleura may hang on a lesion far away
            reach = settings.reach_mm / spacing
            dropped |= region & (squared_distance(core, math.ceil(reach)) > reach**2)
        changed |= dropped
        if labels == (FIBROSIS,):
            # A small net of lines is rough ground glass, which the next round judges.
            result[order.index(GROUND_GLASS)][dropped] += result[members[0]][dropped]
        for member in members:
            result[member][dropped] = 0
    take(result, [], changed)
    return result


def _deep(
    depth: np.ndarray,
    labels: tuple[int, ...],
    solid: np.ndarray,
    spacing: float,
    slice_mm: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Where a tissue lies deep enough to be no partial volume of the chest wall; ``depth`` is squared."""
    thick = settings.depth_slices * slice_mm
    if labels == (FIBROSIS,):
        return depth >= (settings.fibrosis_depth_mm / spacing) ** 2
    if labels != RAISED:
        return np.ones(depth.shape, bool)
    glass = depth >= (max(settings.depth_mm, thick) / spacing) ** 2
    return glass | (solid & (depth >= (max(settings.solid_depth_mm, thick) / spacing) ** 2))


def agree_on_texture(
    posterior: np.ndarray,
    order: tuple[int, ...],
    mask: np.ndarray,
    spacing: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Let a region be ground glass or fibrosis as a whole: its rim has less of a net than its middle.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        settings: ``agreed`` and ``neck_mm``.

    Returns:
        float32 (tissues, z, y, x).
    """
    best = likeliest(posterior)
    glass, fibrosis = order.index(GROUND_GLASS), order.index(FIBROSIS)
    raised = mask & np.isin(best, [glass, fibrosis])
    if not raised.any():
        return posterior
    neck = max(round(settings.neck_mm / spacing), 1)
    box = box_around(raised, neck + 1)
    best, parts = best[box], _parts_without_necks(raised[box], neck)
    sizes = np.maximum(np.bincount(parts.ravel()), 1)
    netted = np.bincount(parts[best == fibrosis], minlength=len(sizes)) / sizes
    netted[0] = 0.5
    result = posterior.copy()
    inside = result[(slice(None), *box)]
    decide(inside, (netted >= settings.agreed)[parts] & (best == glass), fibrosis)
    decide(inside, (netted <= 1 - settings.agreed)[parts] & (best == fibrosis), glass)
    return result


def _parts_without_necks(region: np.ndarray, neck: int) -> np.ndarray:
    """Numbers of a region's parts, int32: what only a neck joins is two; what is all neck has number 0.

    Args:
        region: bool (z, y, x).
        neck: half the width in voxels of what parts.
    """
    parts, _ = ndimage.label(ndimage.binary_opening(region, iterations=neck))
    nearest = ndimage.distance_transform_edt(parts == 0, return_distances=False, return_indices=True)
    return np.where(region, parts[tuple(nearest)], 0)


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
    thick = _opened_by_cube(shell, width + 1)
    near = ndimage.binary_dilation(solid[box], iterations=width)
    rim = shell & near & ~thick
    dense = ndimage.gaussian_filter(hu[box], 0.5) > settings.half_hu
    result = posterior.copy()
    inside = result[(slice(None), *box)]
    decide(inside, rim & dense, order.index(CONSOLIDATION))
    decide(inside, rim & ~dense, order.index(HEALTHY))
    return result


def _opened_by_cube(mask: np.ndarray, side: int) -> np.ndarray:
    """Opening of a bool mask with a cube of ``side`` voxels, an axis at a time: a cube is made of lines."""
    lines = [np.ones(np.where(np.arange(3) == axis, side, 1), bool) for axis in range(3)]
    for line in lines:
        mask = ndimage.binary_erosion(mask, line)
    for line in lines:
        mask = ndimage.binary_dilation(mask, line)
    return mask


def _small_or_superficial(region: np.ndarray, core: np.ndarray, least_voxels: float) -> np.ndarray:
    """Voxels of components that are too small or have nothing of the core.

    Args:
        region: bool (z, y, x).
        core: bool, what of it lies deep.
        least_voxels: size.
    """
    parts, count = ndimage.label(region)
    if count == 0:
        return region
    small = np.bincount(parts.ravel()) < least_voxels
    small |= np.bincount(parts[core], minlength=count + 1) == 0
    small[0] = False
    return small[parts]
