"""Decisions by region: what is too small or too thin to be a lesion goes to the next most likely tissue."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS

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
    """

    raised_ml: float = 0.3
    emphysema_ml: float = 0.03
    fibrosis_ml: float = 1.0
    depth_mm: float = 5.0
    depth_slices: float = 1.5
    fibrosis_depth_mm: float = 8.0

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
    depth = ndimage.distance_transform_edt(mask, sampling=spacing)
    raised_depth = max(settings.depth_mm, settings.depth_slices * slice_mm)
    result = posterior.copy()
    for labels, least, deep in (
        ((FIBROSIS,), settings.fibrosis_ml, settings.fibrosis_depth_mm),
        (RAISED, settings.raised_ml, raised_depth),
        ((EMPHYSEMA,), settings.emphysema_ml, 0.0),
    ):
        members = [order.index(label) for label in labels]
        region = mask & np.isin(result.argmax(axis=0), members)
        specks = _specks(region, depth, least * voxels_per_ml, deep)
        for member in members:
            result[member][specks] = 0
    return result / np.maximum(result.sum(axis=0), 1e-6)


def _specks(region: np.ndarray, depth: np.ndarray, least_voxels: float, least_depth: float) -> np.ndarray:
    """Voxels of components that are too small or never reach deep enough."""
    parts, count = ndimage.label(region)
    if count == 0:
        return region
    sizes = np.bincount(parts.ravel())
    deepest = np.concatenate([[0.0], ndimage.maximum(depth, parts, np.arange(1, count + 1))])
    small = (sizes < least_voxels) | (deepest < least_depth)
    small[0] = False
    return small[parts]
