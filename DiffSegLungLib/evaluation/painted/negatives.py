"""What is no disease, yet is denser than lung is at full breath: nothing of this is named."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.evaluation.painted.canvas import Canvas
from DiffSegLungLib.evaluation.painted.shapes import (
    Strand,
    bronchi,
    grow_lobules,
    points_of,
    scattered,
    strands,
)
from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import cover

WATER_HU, BLOOD_HU = 20.0, 45.0
SHARP_MM = 0.35
HILAR_MM = 25.0
"""Vessels this near the mediastinum are the hilum's."""


def dependent_density(canvas: Canvas) -> None:
    """Blood and tissue sink to the back: a graded band there, as thick as the lung above it is heavy."""
    for side, site, box in canvas.lungs(200):
        lung = site.pleura > 0
        behind = _distance_to_back(site, lung)
        up = ((site.grid.z - site.grid.z[0]) / np.ptp(site.grid.z))[:, None, None]
        thick = (15.0 - 7.0 * up) * np.clip(1.0 + 0.3 * site.noise(22.0, 80), 0.4, 1.8)
        sunk = 0.06 * np.clip(1.0 - behind / 90.0, 0.0, 1.0) + (0.38 - 0.12 * up) * np.exp(
            -np.maximum(behind, 0) / thick
        )
        site.paint(np.clip(sunk * (1.0 + 0.1 * site.noise(3.0, 81)), 0.0, 0.7), WATER_HU)
        canvas.lay(site, box, side)


def _distance_to_back(site: Site, lung: np.ndarray) -> np.ndarray:
    """How far the lung's back is behind each voxel, in mm."""
    rows = np.arange(lung.shape[1])
    last = np.where(lung.any(axis=1), (lung * rows[None, :, None]).max(axis=1), 0)
    return ((last[:, None, :] - rows[None, :, None]) * site.grid.spacing[1]).astype(np.float32)


def shallow_breath(canvas: Canvas) -> None:
    """A CT near expiration: less air everywhere, least at the back, some lobules that keep theirs."""
    for side, site, box in canvas.lungs(200):
        rng = site.random(40)
        lobules = grow_lobules(site, 14.0, 82)
        back = lobules.centres[:, 1] / np.ptp(site.grid.y)
        sunk = np.clip(0.13 + 0.14 * back + rng.normal(0, 0.02, lobules.count), 0.03, 0.4)
        sunk[rng.random(lobules.count) < 0.06] *= 0.5
        site.paint(lobules.spread(sunk) * (1.0 + 0.08 * site.noise(3.0, 81)), WATER_HU)
        canvas.lay(site, box, side)


def crowded_hila(canvas: Canvas) -> None:
    """Vessels and bronchi drawn together at the hila, as in a small breath or beside a stiff lobe."""
    host = canvas.host
    for side in (1, 2):
        if (host.sides == side).any():
            site, box = canvas.site(_hilum(canvas, side), 68.0, 200 + side)
            _crowd(site, canvas.random(100 + side))
            canvas.lay(site, box, side)


def _hilum(canvas: Canvas, side: int) -> np.ndarray:
    """Where most vessels lie together near the mediastinum, (3,) in voxels."""
    host = canvas.host
    near = (host.sides == side) & (host.mediastinum < HILAR_MM)
    crowd = ndimage.gaussian_filter(host.vessels * near, [8.0 / step for step in host.spacing], truncate=2.5)
    return np.array(np.unravel_index((crowd * near).argmax(), near.shape), float)


def _crowd(site: Site, rng: np.random.Generator) -> None:
    roots = points_of(site, (site.vessels > 0.5) & (site.pleura > 1.0))
    roots = scattered(roots[np.linalg.norm(roots, axis=1) < 20.0], 6.0, rng, 14)
    outwards = points_of(site, site.pleura > 10.0).mean(axis=0)
    vessels: list[Strand] = []
    airways: list[Strand] = []
    for number, root in enumerate(roots):
        way = outwards / np.linalg.norm(outwards) + rng.normal(0, 0.45, 3)
        vessels += bronchi(root, way, rng.uniform(20, 36), rng.uniform(2.0, 3.6), rng, 3)
        if number % 2:
            airways += bronchi(
                root + rng.normal(0, 3.0, 3), way, rng.uniform(18, 30), rng.uniform(1.5, 2.3), rng, 0
            )
    site.paint(cover(strands(site.grid, vessels), SHARP_MM), BLOOD_HU)
    tubes = strands(site.grid, airways)
    site.paint(cover(tubes - 1.2, SHARP_MM), WATER_HU)
    site.paint(cover(tubes, SHARP_MM), -970.0)
