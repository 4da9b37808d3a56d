"""Ground glass as it is seen: bands, crescents, arcs, along vessels, on the diaphragm, mottled, all over.

Water in the air spaces leaves vessels seen, since they are full of water already.
"""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.evaluation.painted.canvas import Canvas, name
from DiffSegLungLib.evaluation.painted.shapes import (
    FAR,
    Arc,
    Disc,
    arcs,
    balls,
    clear_of_faces,
    discs,
    grow_lobules,
    inward,
    lenses,
    points_of,
    wander,
)
from DiffSegLungLib.evaluation.site import Box, Site
from DiffSegLungLib.phantom.grid import cover
from DiffSegLungLib.tissues import GROUND_GLASS

FLUID_HU = 30.0
EDGE_MM = 0.9
"""Ground glass has no sharp border, but at a septum."""


def haze(site: Site, share: np.ndarray, filled: np.ndarray | float) -> None:
    """Fill ``filled`` of the air of a region (its share of each voxel), finely uneven, and name it."""
    uneven = 1.0 + 0.28 * site.noise(6.0, 30) + 0.22 * site.noise(2.6, 31)
    site.paint(share * np.clip(filled * uneven, 0.04, 0.85), FLUID_HU)
    name(site, share > 0.5, GROUND_GLASS)


def roughness(site: Site, height: float, length: float, stream: int) -> np.ndarray:
    """An uneven border in mm; bounded, so that nothing appears apart from what it roughens."""
    return height * np.clip(site.noise(length, stream), -1.7, 1.7)


def _finish(
    canvas: Canvas, site: Site, box: Box, place: np.ndarray, region: np.ndarray, filled: float
) -> None:
    rough = region + roughness(site, 0.7, 5.0, 32) + roughness(site, 0.4, 2.5, 33)
    haze(site, cover(rough, EDGE_MM), filled)
    canvas.lay(site, box, side_at(canvas, place))


def side_at(canvas: Canvas, place: np.ndarray) -> int:
    """The lung that a voxel lies in."""
    return int(canvas.host.sides[tuple(place.astype(int))])


def bands_and_plates(canvas: Canvas) -> None:
    """Bands that run along the pleura some way below it, and bent plates that stand on it."""
    pleura, costal = canvas.host.pleura, canvas.costal()
    places = canvas.places(costal & (pleura > 5) & (pleura < 12), 11, 42.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 44.0, 200 + number)
        region = _band(site, rng) if number % 2 else _plate(site, rng)
        _finish(canvas, site, box, place, region, rng.uniform(0.09, 0.36))


def _band(site: Site, rng: np.random.Generator) -> np.ndarray:
    depth = float(site.pleura[tuple(np.array(site.grid.shape) // 2)])
    level = clear_of_faces(site, points_of(site, np.abs(site.pleura - depth) < 0.8), 15.0)
    path = wander(np.zeros(3), level, 7.0, int(rng.integers(5, 9)), rng)
    half = lenses(site.grid, path, rng.uniform(9, 14, len(path)), rng.uniform(3.0, 5.5, len(path)))
    drift = 1.5 * site.noise(18.0, 34)
    return np.where(half > 0, np.abs(site.pleura - depth + drift) - half, FAR)


def _plate(site: Site, rng: np.random.Generator) -> np.ndarray:
    """A plate holds the way inwards: it stands on the pleura like a septum that has filled."""
    inner = inward(site, np.zeros((1, 3)))[0]
    normal = np.cross(inner, rng.normal(size=3))
    normal /= np.linalg.norm(normal)
    plates = [
        Disc(
            inner * step + normal * rng.normal(0, 2.0),
            normal,
            rng.uniform(12, 20),
            rng.uniform(2.6, 4.5),
            rng.normal(0, 0.006),
        )
        for step in (-4.0, 8.0, 18.0)
    ]
    return discs(site.grid, plates, 5.0)


def crescents(canvas: Canvas) -> None:
    """Layers under the pleura, thickest in the middle, that run out along the chest wall."""
    pleura, costal = canvas.host.pleura, canvas.costal()
    places = canvas.places(costal & (pleura < 2.5), 9, 55.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 60.0, 200 + number)
        region = crescent(site, rng, (8.0, 19.0), int(rng.integers(3, 8)))
        _finish(canvas, site, box, place, region, rng.uniform(0.09, 0.38))


def crescent(site: Site, rng: np.random.Generator, height: tuple[float, float], length: int) -> np.ndarray:
    """Distance to a layer under the pleura that begins in the middle of the site and wanders off along it."""
    surface = clear_of_faces(site, points_of(site, (site.pleura > 0) & (site.pleura < 2.0)), 21.0)
    path = wander(np.zeros(3), surface, 9.0, length, rng)
    waxing = 0.55 + 0.45 * np.sin(np.linspace(0.3, np.pi - 0.3, len(path)))
    heights = rng.uniform(*height) * waxing * rng.uniform(0.75, 1.25, len(path))
    thickness = lenses(site.grid, path, rng.uniform(13, 20, len(path)), heights)
    return np.where(thickness > 0, site.pleura - thickness, FAR)


def perilobular(canvas: Canvas) -> None:
    """Arcades: thick blurred arcs around lobules that stand on the pleura, side by side."""
    pleura, costal = canvas.host.pleura, canvas.costal()
    places = canvas.places(costal & (pleura > 3) & (pleura < 7), 8, 50.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 55.0, 200 + number)
        level = clear_of_faces(site, points_of(site, (site.pleura > 2) & (site.pleura < 6)), 18.0)
        middles = wander(np.zeros(3), level, 12.0, int(rng.integers(5, 10)), rng)
        shells = [
            _arcade(middle, inner, rng) for middle, inner in zip(middles, inward(site, middles), strict=True)
        ]
        _finish(canvas, site, box, place, arcs(site.grid, shells, 5.0), rng.uniform(0.13, 0.42))


def _arcade(middle: np.ndarray, inner: np.ndarray, rng: np.random.Generator) -> Arc:
    bulge = inner + rng.normal(0, 0.3, 3)
    return Arc(
        middle,
        bulge / np.linalg.norm(bulge),
        rng.uniform(8, 13),
        rng.uniform(1.3, 2.4),
        rng.uniform(-0.6, 0.1),
    )


def along_vessels(canvas: Canvas) -> None:
    """Cuffs around vessels, from the hilum outwards, and apart from it."""
    host = canvas.host
    vessels = (host.vessels > 0.7) & (host.sides > 0)
    near = canvas.places(vessels & (host.mediastinum > 4) & (host.mediastinum < 18), 4, 60.0, 1)
    apart = canvas.places(vessels & (host.mediastinum > 30), 5, 50.0, 2)
    for number, place in enumerate([*near, *apart]):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 65.0 if number < len(near) else 38.0, 200 + number)
        region = _cuffs(site, rng, 5 if number < len(near) else 2)
        _finish(canvas, site, box, place, region, rng.uniform(0.09, 0.36))


def _cuffs(site: Site, rng: np.random.Generator, walks: int) -> np.ndarray:
    tree = clear_of_faces(site, points_of(site, (site.vessels > 0.4) & (site.pleura > 3)), 15.0)
    paths = [wander(np.zeros(3), tree, 5.0, int(rng.integers(5, 9)), rng) for _ in range(walks)]
    radii = [
        np.linspace(rng.uniform(9, 13), rng.uniform(4, 6), len(path)) * rng.uniform(0.8, 1.15, len(path))
        for path in paths
    ]
    region = balls(site.grid, np.vstack(paths), np.concatenate(radii), 6.0)
    return region + roughness(site, 1.4, 8.0, 35)


def at_diaphragm(canvas: Canvas) -> None:
    """Mounds on the diaphragm, patchy lobule by lobule."""
    host = canvas.host
    below = max(round(4.0 / host.spacing[0]), 1)
    lung = host.sides > 0
    floor = lung.copy()
    floor[below:] &= ~lung[:-below]
    places = canvas.places(floor & (host.mediastinum > 12) & (canvas.height() < 0.45), 8, 45.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 48.0, 200 + number)
        lobules = grow_lobules(site, 10.0, 36)
        filled = lobules.spread(np.clip(rng.normal(0.2, 0.1, lobules.count), 0.07, 0.6))
        region = crescent(site, rng, (14.0, 26.0), int(rng.integers(2, 4)))
        haze(site, cover(region + roughness(site, 0.8, 5.0, 32), EDGE_MM), filled)
        canvas.lay(site, box, side_at(canvas, place))


def mottled(canvas: Canvas) -> None:
    """Clusters of lobules, each with its own density, faint at the rim and dense within, some spared."""
    pleura = canvas.host.pleura
    places = canvas.places((pleura > 6) & (canvas.host.mediastinum > 8), 8, 58.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 46.0, 200 + number)
        lobules = grow_lobules(site, 9.0, 36)
        taken = lobules.cluster(np.zeros(3), int(rng.integers(18, 55)), rng)
        away = np.linalg.norm(lobules.centres, axis=1)
        dense = np.clip(rng.uniform(0.4, 0.62) - away / 100.0 + rng.normal(0, 0.08, lobules.count), 0.14, 0.7)
        shown = taken & (rng.random(lobules.count) < 0.88)
        share = cover(lobules.border(shown) + roughness(site, 0.5, 3.0, 32), 0.7)
        haze(site, share, lobules.spread(np.where(taken, dense, 0.2)))
        canvas.lay(site, box, side_at(canvas, place))


def all_over(canvas: Canvas) -> None:
    """Both lungs whole, denser towards the back, every lobule a little different."""
    for side, site, box in canvas.lungs(200):
        rng = site.random(40)
        lobules = grow_lobules(site, 13.0, 36)
        behind = lobules.centres[:, 1] / np.ptp(site.grid.y)
        dense = np.clip(0.25 + 0.2 * behind + rng.normal(0, 0.08, lobules.count), 0.12, 0.6)
        haze(site, np.ones(site.grid.shape, np.float32), lobules.spread(dense))
        canvas.lay(site, box, side)
