"""Decisions by region: what is too small or too thin to be a lesion goes to the next most likely tissue."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.filters import box_around, squared_distance
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY

RAISED = (GROUND_GLASS, FIBROSIS, CONSOLIDATION)
DARKEST = 0.1
"""Share of a hole that tells how dark it is."""


@dataclass(frozen=True)
class RegionSettings:
    """What a lesion is at least.

    Attributes:
        raised_ml: connected ground glass, fibrosis and consolidation together.
        emphysema_ml: connected emphysema.
        fibrosis_ml: connected fibrosis; a net of lines is a matter of regions.
        depth_mm: how far raised tissue must reach from the pleura; less is partial volume of the chest wall.
        solid_depth_mm: the same where it is consolidation.
        depth_slices: the same in slices of the CT, since a thick slice blurs the diaphragm into the lung.
        fibrosis_depth_mm: the same for fibrosis; the thin costophrenic recess, blurred by breathing,
            has lines and holes of its own.
        reach_mm: how far raised tissue may run along the pleura from where it reaches that deep.
        agreed: share of a part of ground glass and fibrosis from which one of the two takes it all.
        neck_mm: half the width of a bridge that does not make two such parts one.
        rim_mm: a shell of ground glass around consolidation that is no thicker is partial volume.
        half_hu: half way from healthy lung to consolidation; such a shell is parted there.
        bundle_ml: a bundle of vessels is no larger.
        bundle_vessels: share of vessels around a region from which it is part of their bundle.
        bundle_solid: share of consolidation in it from which it is none.
        faint_hu: how far under the bound of emphysema the darkest tenth of a hole must lie.
        faint_ml: lung of this size that passes the bound, however little, is emphysema.
        lumen_ml: the air of a bronchus within the lung is no larger.
        lumen_vessels: share of vessels and bronchial walls around a hole from which it is such air.
        lucent_reach_mm: how far the edge of an emphysematous hole may lie beyond what is surely air.
    """

    raised_ml: float = 0.3
    emphysema_ml: float = 0.03
    fibrosis_ml: float = 1.0
    depth_mm: float = 7.0
    solid_depth_mm: float = 5.0
    depth_slices: float = 1.5
    fibrosis_depth_mm: float = 8.0
    reach_mm: float = 10.0
    rim_mm: float = 8.0
    agreed: float = 0.75
    neck_mm: float = 3.0
    half_hu: float = -420.0
    bundle_ml: float = 20.0
    bundle_vessels: float = 0.1
    bundle_solid: float = 0.05
    faint_hu: float = 20.0
    faint_ml: float = 50.0
    lumen_ml: float = 2.0
    lumen_vessels: float = 0.2
    lucent_reach_mm: float = 3.0

    def stored(self) -> dict[str, float]:
        """The settings as plain numbers."""
        return asdict(self)


def drop_bundles(
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
        firm = _parts_holding(region, best == order.index(CONSOLIDATION), settings.bundle_solid)
        most = settings.bundle_ml * 1000.0 / spacing**3
        bundles = _among_vessels(region, vessels & aerated, mask, most, settings.bundle_vessels) & ~firm
        if labels == (FIBROSIS,):
            result[glass][bundles] += result[fibrosis][bundles]
        _take(result, members, bundles)
    return result


def _among_vessels(
    region: np.ndarray,
    vessels: np.ndarray,
    mask: np.ndarray,
    most_voxels: float,
    least_share: float,
) -> np.ndarray:
    """Voxels of the parts of a region that lie among vessels.

    Args:
        region: bool (z, y, x).
        vessels: bool, as the region.
        mask: bool, the lungs.
        most_voxels: parts as large as that are lesions.
        least_share: of vessels in the lung two voxels around a part.
    """
    parts, count = ndimage.label(region)
    if count == 0:
        return region
    sizes = np.bincount(parts.ravel())
    among, free = np.zeros(count + 1, bool), mask & ~region
    for part, span in enumerate(ndimage.find_objects(parts), start=1):
        if sizes[part] >= most_voxels:
            continue
        box = tuple(slice(max(side.start - 2, 0), side.stop + 2) for side in span)
        around = ndimage.binary_dilation(parts[box] == part, iterations=2) & free[box]
        crossed = int(np.count_nonzero(around & vessels[box]))
        among[part] = crossed >= least_share * max(int(np.count_nonzero(around)), 1)
    return among[parts]


def _parts_holding(
    region: np.ndarray, voxels: np.ndarray, least_share: float, large: float = np.inf
) -> np.ndarray:
    """Voxels of the parts of a region that hold at least such a share of some voxels, or are ``large``."""
    parts, count = ndimage.label(region)
    sizes = np.bincount(parts.ravel())
    holding = np.bincount(parts[voxels], minlength=count + 1) >= least_share * sizes
    holding |= sizes >= large
    holding[0] = False
    return holding[parts]


def find_lumens(
    posterior: np.ndarray,
    order: tuple[int, ...],
    vessels: np.ndarray,
    mask: np.ndarray,
    spacing: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Air of bronchi within the lung that passes for emphysema: their walls and arteries lie around it.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        vessels: bool (z, y, x), vessels and airway walls.
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        settings: ``lumen_ml`` and ``lumen_vessels``; emphysema has less than 0.1 of vessels around it.

    Returns:
        bool (z, y, x).
    """
    holes = mask & (likeliest(posterior) == order.index(EMPHYSEMA))
    most = settings.lumen_ml * 1000.0 / spacing**3
    return _among_vessels(holes, vessels & ~holes, mask, most, settings.lumen_vessels)


def drop_faint_holes(
    posterior: np.ndarray,
    order: tuple[int, ...],
    density: np.ndarray,
    bound: np.ndarray,
    mask: np.ndarray,
    spacing: float,
    settings: RegionSettings,
) -> np.ndarray:
    """Take emphysema from lung that hardly passes its bound: noise and dark lung do, holes go far beyond.

    Panlobular emphysema passes it as little, but over large parts of a lung.

    Args:
        posterior: float32 (tissues, z, y, x).
        order: the label of each tissue of ``posterior``.
        density: HU of the parenchyma, (z, y, x).
        bound: HU under which lung is emphysema, broadcast to (z, y, x).
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        settings: ``faint_hu``, ``faint_ml``.

    Returns:
        float32 (tissues, z, y, x), renormalised inside the mask.
    """
    emphysema = order.index(EMPHYSEMA)
    holes = mask & (likeliest(posterior) == emphysema)
    dark = density < bound - settings.faint_hu
    borne_out = _parts_holding(holes, dark, DARKEST, settings.faint_ml * 1000.0 / spacing**3)
    result = posterior.copy()
    _take(result, [emphysema], holes & ~borne_out)
    return result


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
        specks = _specks(region, core, least * voxels_per_ml)
        if labels == RAISED:  # a layer along the pleura may hang on a lesion far away
            reach = settings.reach_mm / spacing
            specks |= region & (squared_distance(core, math.ceil(reach)) > reach**2)
        changed |= specks
        if labels == (FIBROSIS,):
            # A small net of lines is rough ground glass, which the next round judges.
            result[order.index(GROUND_GLASS)][specks] += result[members[0]][specks]
        for member in members:
            result[member][specks] = 0
    _take(result, [], changed)
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
    _decide(inside, (netted >= settings.agreed)[parts] & (best == glass), fibrosis)
    _decide(inside, (netted <= 1 - settings.agreed)[parts] & (best == fibrosis), glass)
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
    _decide(inside, rim & dense, order.index(CONSOLIDATION))
    _decide(inside, rim & ~dense, order.index(HEALTHY))
    return result


def _opened_by_cube(mask: np.ndarray, side: int) -> np.ndarray:
    """Opening of a bool mask with a cube of ``side`` voxels, an axis at a time: a cube is made of lines."""
    lines = [np.ones(np.where(np.arange(3) == axis, side, 1), bool) for axis in range(3)]
    for line in lines:
        mask = ndimage.binary_erosion(mask, line)
    for line in lines:
        mask = ndimage.binary_dilation(mask, line)
    return mask


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


def _take(posterior: np.ndarray, members: list[int], where: np.ndarray) -> None:
    """Take some tissues from a posterior, in place; the others share what is left."""
    there = posterior[:, where]
    there[members] = 0
    posterior[:, where] = there / np.maximum(there.sum(axis=0), 1e-6)


def _decide(posterior: np.ndarray, where: np.ndarray, member: int) -> None:
    """Exchange a tissue's posterior with the largest one, in place: it wins, and the doubt stays."""
    there = posterior[:, where]
    best, places = there.argmax(axis=0), np.arange(there.shape[1])
    largest = there[best, places]
    there[best, places] = there[member]
    there[member] = largest
    posterior[:, where] = there


def _specks(region: np.ndarray, core: np.ndarray, least_voxels: float) -> np.ndarray:
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
