"""Airless lung: patchy with open bronchi, collapsed beside an effusion, solid nodules and masses."""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.evaluation.painted.canvas import Canvas, name
from DiffSegLungLib.evaluation.painted.ground_glass import roughness, side_at
from DiffSegLungLib.evaluation.painted.shapes import (
    Strand,
    balls,
    bronchi,
    grow_lobules,
    inward,
    points_of,
    scattered,
    strands,
)
from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import cover, join
from DiffSegLungLib.tissues import CONSOLIDATION

SOFT_HU, FLUID_HU = 38.0, 8.0
SHARP_MM = 0.35


def solid(site: Site, region: np.ndarray, value: float, edge: float = 0.7) -> None:
    """Soft tissue, a little uneven, in a region; it drowns the vessels."""
    site.paint(cover(region, edge), value + 10.0 * site.noise(5.0, 50))
    name(site, region < -0.25, CONSOLIDATION)


def open_bronchi(site: Site, region: np.ndarray, pieces: list[Strand]) -> None:
    """Air in the bronchi that run through solid lung."""
    lumen = strands(site.grid, pieces) + 0.2 * site.noise(3.0, 51)
    site.paint(cover(lumen, SHARP_MM) * cover(region + 1.0, SHARP_MM), -930.0)


def infiltrate(site: Site, rng: np.random.Generator, width: float, size: int) -> np.ndarray:
    """Distance to a cluster of filled lobules around the middle of the site."""
    lobules = grow_lobules(site, width, 52)
    taken = lobules.cluster(np.zeros(3), size, rng)
    return lobules.border(taken) + roughness(site, 0.6, 3.5, 53)


def patchy(canvas: Canvas) -> None:
    """Clusters of filled lobules, deep and at the wall, with bronchi still open in them."""
    pleura = canvas.host.pleura
    wall = canvas.places(canvas.costal() & (pleura < 5), 6, 48.0, 1)
    deep = canvas.places((pleura > 14) & (canvas.host.mediastinum > 6), 5, 48.0, 2)
    for number, place in enumerate([*wall, *deep]):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 38.0, 200 + number)
        region = infiltrate(site, rng, 9.0, int(rng.integers(8, 36)))
        solid(site, region, rng.uniform(20, 55))
        open_bronchi(site, region, _through(site, rng, 6))
        canvas.lay(site, box, side_at(canvas, place))


def _through(site: Site, rng: np.random.Generator, count: int) -> list[Strand]:
    """Bronchi that come from within and run outwards through the middle of the site."""
    outwards = -inward(site, np.zeros((1, 3)), 6.0)[0]
    pieces: list[Strand] = []
    for _ in range(count):
        way = outwards + rng.normal(0, 0.45, 3)
        way /= np.linalg.norm(way)
        start = rng.normal(0, 4.0, 3) - 14.0 * way
        pieces += bronchi(start, way, rng.uniform(20, 34), rng.uniform(1.0, 1.9), rng, 2)
    return pieces


def collapse(canvas: Canvas) -> None:
    """Right a lower lobe pressed to the back beside an effusion, left one against the mediastinum."""
    for side, site, box in canvas.lungs(200):
        rng = site.random(40)
        fluid, lobe = (
            _beside_effusion(site, rng) if side == 1 else _against_mediastinum(canvas, site, box, rng)
        )
        # Under the fluid, too: between two borders of half a voxel each there must be no air.
        solid(site, np.minimum(lobe, fluid), rng.uniform(66, 84), 0.5)
        hilum = points_of(site, (lobe < -6) & (site.pleura > 8))
        starts = scattered(hilum, 18.0, rng, 5)
        pieces: list[Strand] = []
        for start in starts:
            pieces += bronchi(
                start, rng.normal(0, 1, 3) + np.array([-0.6, 0.8, 0.0]), rng.uniform(18, 34), 1.3, rng, 2
            )
        open_bronchi(site, lobe, pieces)
        site.paint(cover(fluid, 0.6), FLUID_HU + 3.0 * site.noise(8.0, 54))
        site.truth[fluid < 0] = 0
        canvas.lay(site, box, side)
        canvas.pour(box, site_share(site, fluid < 0) > 0.5, side)


def site_share(site: Site, where: np.ndarray) -> np.ndarray:
    """Share of each of the host's voxels that holds on the site's finer slices."""
    return where.reshape(-1, site.splits, *where.shape[1:]).mean(axis=1, dtype=np.float32)


def _along(axis: np.ndarray, lung: np.ndarray, which: int) -> np.ndarray:
    """Place along an axis between the first (0) and the last (1) of the lung."""
    found = np.flatnonzero(lung.any(axis=tuple({0, 1, 2} - {which})))
    shape = [-1 if a == which else 1 for a in range(3)]
    return ((axis - axis[found[0]]) / (axis[found[-1]] - axis[found[0]])).reshape(shape)


def _beside_effusion(site: Site, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Fluid behind with a meniscus up the chest wall, the lower lobe solid in front of it."""
    lung = site.pleura > 0
    up, back = _along(site.grid.z, lung, 0), _along(site.grid.y, lung, 1)
    low = np.clip(1.25 - up / rng.uniform(0.55, 0.7), 0.0, 1.0)
    behind = np.clip((back - 0.45) / 0.5, 0.0, 1.0)
    layer = 34.0 * low * behind**1.5 + 1.5 * site.noise(20.0, 55) * behind
    fluid = (site.pleura - layer).astype(np.float32)
    uneven = 1 + 0.12 * site.noise(16.0, 56)
    both = layer + 30.0 * low * np.clip((back - 0.5) / 0.3, 0.0, 1.0) * uneven
    lobe = np.where(both > 1.0, site.pleura - both + 0.6 * site.noise(4.0, 57), 3.0)
    return np.where(layer > 1.0, fluid, 3.0), lobe.astype(np.float32)


def _against_mediastinum(
    canvas: Canvas, site: Site, box: tuple[slice, slice, slice], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A wedge of solid lung beside the spine, a little fluid behind it in the recess."""
    lung = site.pleura > 0
    up, back = _along(site.grid.z, lung, 0), _along(site.grid.y, lung, 1)
    beside = np.repeat(canvas.host.mediastinum[box], site.splits, axis=0)
    low = np.clip(1.15 - up / rng.uniform(0.55, 0.7), 0.0, 1.0)
    width = 46.0 * low * np.clip((back - 0.4) / 0.4, 0.0, 1.0) * (1 + 0.1 * site.noise(18.0, 56))
    lobe = np.where(width > 1.0, beside - width + 0.6 * site.noise(4.0, 57), 3.0).astype(np.float32)
    layer = 13.0 * low * np.clip((back - 0.75) / 0.2, 0.0, 1.0)
    return np.where(layer > 1.0, site.pleura - layer, 3.0).astype(np.float32), lobe


def nodules(canvas: Canvas) -> None:
    """Solid nodules and masses of 8 to 30 mm: lobed, some with spicules, some at the wall or at the hilum."""
    pleura = canvas.host.pleura
    places = canvas.places((pleura > 3) & (canvas.host.mediastinum > 5), 16, 34.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        radius = 4.0 + 11.0 * (number / max(len(places) - 1, 1)) ** 1.5
        site, box = canvas.site(place, 2.2 * radius + 8.0, 200 + number)
        region = lobed(site, radius, rng)
        if number % 3 == 0:
            region = np.minimum(region, _spicules(site, radius, rng))
        solid(site, region, rng.uniform(15, 50), 0.5)
        canvas.lay(site, box, side_at(canvas, place))


def lobed(site: Site, radius: float, rng: np.random.Generator) -> np.ndarray:
    """Distance to a few balls grown into one of about ``radius`` mm."""
    ways = rng.normal(size=(int(rng.integers(4, 7)), 3))
    ways *= 0.55 * radius / np.linalg.norm(ways, axis=1, keepdims=True)
    body = balls(site.grid, np.zeros((1, 3)), np.array([0.62 * radius]), radius)
    for way in ways:
        lobe = balls(site.grid, way[None], np.array([rng.uniform(0.3, 0.6) * radius]), radius)
        body = join(body, lobe, 0.18 * radius)
    return body + 0.09 * radius * site.noise(0.6 * radius, 58) + 0.3 * site.noise(3.0, 59)


def _spicules(site: Site, radius: float, rng: np.random.Generator) -> np.ndarray:
    pieces = []
    for _ in range(14):
        way = rng.normal(size=3)
        way /= np.linalg.norm(way)
        pieces.append(Strand(0.6 * radius * way, (1.25 + rng.uniform(0, 0.5)) * radius * way, 1.3, 0.35))
    return strands(site.grid, pieces)
