"""Emphysema by region: air of bronchi and what is hardly darker than its bound are none."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.decision.regions import (
    RegionSettings,
    among_vessels,
    decide,
    likeliest,
    parts_holding,
    take,
)
from DiffSegLungLib.filters import box_around
from DiffSegLungLib.tissues import EMPHYSEMA, HEALTHY

DARKEST = 0.1
"""Share of a hole that tells how dark it is."""


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
    return among_vessels(holes, vessels & ~holes, mask, most, settings.lumen_vessels)


def drop_marginal_lucencies(
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
    clear = parts_holding(holes, dark, DARKEST, settings.faint_ml * 1000.0 / spacing**3)
    result = posterior.copy()
    take(result, [emphysema], holes & ~clear)
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
    decide(result[(slice(None), *box)], grown, order.index(EMPHYSEMA))
    return result
