"""Lesions of known truth, painted physically into healthy regions of real CT.

Each kind is a function that paints one site: shapes are irregular, fill voxels by share, and leave the host's
vessels where the disease leaves them.  For evaluation (and to augment lung masks) alone: nothing is ever
trained with these labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.spatial import cKDTree

from DiffSegLungLib import tissues
from DiffSegLungLib.densities import AIR_HU
from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import Grid, cover, ellipsoid, paint_each, tube

AIR, WATER, SOFT = AIR_HU, 0.0, 35.0
"""HU of what lesions are made of."""
INTO_PLEURA_MM = -1.2
"""Dense lesions at the chest wall fill the half-empty voxels of the pleura too."""
FAR = 9.0
"""Distances beyond this many mm need not be exact."""


@dataclass(frozen=True)
class Lesion:
    """What to paint, and where.

    Attributes:
        kind: a key of ``KINDS``.
        radius: of the region it takes, in mm.
        severity: 0 (just seen) to 1 (severe).
        seed: of its shapes and place.
        place: middle in the host's voxels (z, y, x); None to have one drawn where the kind lives.
    """

    kind: str
    radius: float
    severity: float = 0.5
    seed: int = 0
    place: tuple[float, float, float] | None = None


def _region(site: Site, radius: float, roughness: float = 0.16, stream: int = 1) -> np.ndarray:
    """Distance to an irregular blob in the middle of the site, in mm (negative inside)."""
    stretch = site.random(stream).uniform(0.8, 1.2, 3) * radius
    blob = ellipsoid(site.grid, (0, 0, 0), (float(stretch[0]), float(stretch[1]), float(stretch[2])))
    return blob + radius * roughness * site.noise(0.6 * radius, stream) + 0.8 * site.noise(4.0, stream + 1)


def _inside_lung(site: Site, distance: np.ndarray, margin: float = 0.0) -> np.ndarray:
    return np.maximum(distance, margin - site.pleura)


def _balls(grid: Grid, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance to the union of balls (centres in mm), exact up to 3 mm outside."""
    depth = np.full(grid.shape, -3.0, dtype=np.float32)
    reach = radii[:, None] + 3.0

    def ball(part: Grid, number: int) -> np.ndarray:
        squares = [(axis - middle) ** 2 for axis, middle in zip(part.axes, centres[number], strict=True)]
        return (radii[number] - np.sqrt(squares[0] + squares[1] + squares[2])).astype(np.float32)

    paint_each(depth, grid, list(zip(centres - reach, centres + reach, strict=True)), ball)
    return -depth


def _jittered(site: Site, step: float, jitter: float, stream: int) -> np.ndarray:
    """Points about ``step`` mm apart that fill the site, (n, 3) in mm."""
    rng = site.random(stream)
    axes = [np.arange(axis[0], axis[-1] + step, step) for axis in (site.grid.z, site.grid.y, site.grid.x)]
    points = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    return points + rng.uniform(-jitter, jitter, points.shape) * step


def _at(site: Site, values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values at the voxels nearest to points in mm."""
    index = []
    for axis, step, column in zip(
        (site.grid.z, site.grid.y, site.grid.x), site.grid.spacing, points.T, strict=True
    ):
        index.append(np.clip(np.rint((column - axis[0]) / step).astype(int), 0, len(axis) - 1))
    return values[index[0], index[1], index[2]]


def _foam(site: Site, region: np.ndarray, step: float, stream: int) -> np.ndarray:
    """Distance to the walls of a foam of cells ``step`` mm wide in ``region``; ``FAR`` elsewhere."""
    seeds = _jittered(site, step, 0.48, stream)
    index = np.nonzero(region)
    points = np.column_stack([site.grid.z[index[0]], site.grid.y[index[1]], site.grid.x[index[2]]])
    near = cKDTree(seeds).query(points, k=2)[0]
    distance = np.full(site.grid.shape, FAR, np.float32)
    distance[region] = (near[:, 1] - near[:, 0]) / 2
    return distance


# --- emphysema -------------------------------------------------------------------------------------------


def _paint_holes(site: Site, holes: np.ndarray, air: float = -985.0, spare_vessels: bool = True) -> None:
    share = cover(holes, site.grid.blur)
    site.paint(share * (1.0 - site.vessels) if spare_vessels else share, air)
    site.name(holes < 0, tissues.EMPHYSEMA)


def _centrilobular(site: Site, radius: float, severity: float) -> None:
    """Holes without walls in the middle of lobules, beside their vessels; confluent if severe."""
    region = _inside_lung(site, _region(site, radius), 2.0)
    centres = _jittered(site, 6.5, 0.4, 3)
    depth = -_at(site, region, centres)
    rng = site.random(4)
    kept = (depth > 1.0) & (rng.random(len(centres)) < 0.45 + 0.5 * severity)
    radii = rng.uniform(1.6, 2.4 + 1.8 * severity, len(centres)) * np.clip(0.6 + depth / 15, 0.6, 1.15)
    holes = _balls(site.grid, centres[kept], radii[kept].astype(np.float32)) + 0.7 * site.noise(4.0, 5)
    _paint_holes(site, _inside_lung(site, holes, 1.5))


def _paraseptal(site: Site, radius: float, severity: float) -> None:
    """A row of thin-walled cysts along the pleura."""
    rng, size = site.random(3), 3.0 + 3.0 * severity
    candidates = np.argwhere((site.pleura > 0.75 * size) & (site.pleura < 1.1 * size))
    axes = (site.grid.z, site.grid.y, site.grid.x)
    points = np.column_stack([axis[column] for axis, column in zip(axes, candidates.T, strict=True)])
    points = points[np.linalg.norm(points, axis=1) < radius]
    chosen: list[np.ndarray] = []
    for point in points[rng.permutation(len(points))]:
        if all(np.linalg.norm(point - other) > 1.75 * size for other in chosen):
            chosen.append(point)
    centres = np.array(chosen).reshape(-1, 3)
    radii = (size * rng.uniform(0.85, 1.15, len(centres))).astype(np.float32)
    near = cKDTree(centres) if len(centres) else None
    holes = _inside_lung(site, _balls(site.grid, centres, radii) + 0.4 * site.noise(4.0, 5), 0.6)
    walls = _between_centres(site, holes, near)
    site.paint(cover(holes - 0.7, site.grid.blur), -870.0)
    _paint_holes(site, np.maximum(holes, 0.45 - walls), spare_vessels=False)
    site.name(holes < 0, tissues.EMPHYSEMA)


def _between_centres(site: Site, holes: np.ndarray, tree: cKDTree | None) -> np.ndarray:
    """Distance to the walls half-way between the nearest two centres, inside the holes."""
    walls = np.full(site.grid.shape, FAR, np.float32)
    where = np.nonzero(holes < 1.0)
    if tree is not None and tree.n > 1 and len(where[0]):
        points = np.column_stack([site.grid.z[where[0]], site.grid.y[where[1]], site.grid.x[where[2]]])
        near = tree.query(points, k=2)[0]
        walls[where] = (near[:, 1] - near[:, 0]) / 2
    return walls


def _panlobular(site: Site, radius: float, severity: float) -> None:
    """Lung thinned out evenly, its vessels few and narrow, fading into the healthy lung."""
    region = _inside_lung(site, _region(site, radius))
    thinned = np.clip(0.80 + 0.15 * severity + 0.05 * site.noise(7.0, 5), 0.0, 0.98)
    site.paint(cover(region, 1.6) * thinned * (1.0 - 0.6 * site.vessels), -990.0)
    site.name(region < 0, tissues.EMPHYSEMA)


def _bulla(site: Site, radius: float, severity: float) -> None:
    """An air space with a hairline wall under the pleura; no vessel crosses it."""
    bulla = _inside_lung(site, _region(site, radius, 0.08))
    site.paint(cover(bulla, site.grid.blur), -420.0 - 150.0 * severity)
    _paint_holes(site, np.maximum(bulla + 0.8, 0.5 - site.pleura), -992.0, spare_vessels=False)
    site.name(bulla < 0, tissues.EMPHYSEMA)


# --- raised density --------------------------------------------------------------------------------------


def _haze(site: Site, region: np.ndarray, severity: float, edge: float = 2.4) -> None:
    """Water in the air spaces: vessels stay seen, since they are full of water already."""
    grain = 0.045 * site.noise(5.0, 8) + 0.055 * site.noise(2.5, 10)
    filled = np.clip(0.20 + 0.22 * severity + grain, 0.08, 0.65)
    site.paint(cover(region, edge) * filled, WATER + 20.0)


def _ground_glass(site: Site, radius: float, severity: float) -> None:
    """Haze through which vessels are seen, its edge soft."""
    region = _inside_lung(site, _region(site, radius))
    _haze(site, region, severity)
    site.name(region < 0, tissues.GROUND_GLASS)


def _crazy_paving(site: Site, radius: float, severity: float) -> None:
    """Haze crossed by a net of thickened septa, lobule by lobule."""
    region = _inside_lung(site, _region(site, radius))
    _haze(site, region, severity)
    lines = _foam(site, region < 3.0, 9.5, 9) - 0.45 - 0.25 * severity
    site.paint(cover(lines, site.grid.blur) * cover(region, 1.5) * 0.6, -150.0)
    site.name(region < 0, tissues.GROUND_GLASS)


def _bronchogram(site: Site, radius: float) -> list[np.ndarray]:
    """Distances to a bronchus and its two branches that run through the middle towards the periphery."""
    rng = site.random(11)
    way = rng.normal(size=3)
    way /= np.linalg.norm(way)
    turn = np.cross(way, rng.normal(size=3))
    turn /= np.linalg.norm(turn)
    start, fork = -0.95 * radius * way, -0.1 * radius * way
    ends = [fork + radius * (0.75 * way + side * 0.45 * turn) for side in (-1, 1)]
    paths = [[start, fork], *([fork, end] for end in ends)]
    sizes = [[2.0, 1.7], [1.4, 0.8], [1.2, 0.7]]
    return [
        tube(site.grid, [tuple(point) for point in path], list(size))  # type: ignore[misc]
        for path, size in zip(paths, sizes, strict=True)
    ]


def _solid(site: Site, region: np.ndarray, radius: float) -> None:
    """Soft tissue with a bronchus and its branches, still open, in it."""
    site.paint(cover(region, 1.2), SOFT + 12.0 * site.noise(6.0, 8))
    for bronchus in _bronchogram(site, radius):
        site.paint(cover(bronchus, site.grid.blur) * cover(region, site.grid.blur), -960.0)
    site.name(region < 0, tissues.CONSOLIDATION)


def _consolidation(site: Site, radius: float, severity: float) -> None:
    """Airless lung that hides its vessels; bronchi in it stay black (air bronchogram), a thin haze around."""
    region = _inside_lung(site, _region(site, radius, 0.2), INTO_PLEURA_MM)
    site.paint(cover(region - 1.5, 2.0) * 0.25, WATER)
    _solid(site, region, radius)


def _lobar(site: Site, radius: float, severity: float) -> None:
    """Consolidation up to a fissure: a smooth face on one side."""
    region = _region(site, radius, 0.12)
    z, y, _ = site.grid.axes
    fissure = (0.75 * z - 0.66 * y - 0.25 * radius).astype(np.float32) + 1.0 * site.noise(25.0, 12)
    _solid(site, _inside_lung(site, np.maximum(region, fissure), INTO_PLEURA_MM), radius)


def _nodule(site: Site, radius: float, severity: float) -> None:
    """A solid round nodule, its edge sharp."""
    region = _inside_lung(site, _region(site, radius, 0.12), INTO_PLEURA_MM)
    site.paint(cover(region, 1.0), SOFT)
    site.name(region < 0, tissues.CONSOLIDATION)


# --- fibrosis --------------------------------------------------------------------------------------------


def _crescent(site: Site, radius: float, thickness: float) -> np.ndarray:
    """A layer under the pleura, within a region, thinning out at its ends."""
    region = _region(site, radius)
    layer = site.pleura - thickness * np.clip(-region / (0.5 * radius), 0, 1) - 1.5 * site.noise(9.0, 6)
    return _inside_lung(site, np.maximum(region, layer))


def _net(site: Site, region: np.ndarray, cell: float, width: float, density: float, stream: int) -> None:
    """Lines of fibrous tissue between lobules or cysts, here thick, there thin or broken."""
    lines = _foam(site, region < 2.0, cell, stream) - width * (1.0 + 0.3 * site.noise(5.0, stream + 1))
    strength = np.clip(0.85 + 0.25 * site.noise(4.0, stream + 2), 0.2, 1.0)
    site.paint(cover(lines, site.grid.blur) * cover(region, 1.2) * strength, density)


def _reticulation(site: Site, radius: float, severity: float) -> None:
    """A net of fine lines under the pleura of the base, on a faint haze."""
    region = _crescent(site, radius, 12.0 + 10.0 * severity)
    site.paint(cover(region, 1.8) * (0.10 + 0.08 * severity), WATER)
    _net(site, region, 6.5, 0.55 + 0.2 * severity, -200.0, 13)
    site.name(region < 0, tissues.FIBROSIS)


def _honeycombing(site: Site, radius: float, severity: float) -> None:
    """Layers of cysts with thick shared walls under the pleura, reticulation inwards of them."""
    region = _crescent(site, radius, 14.0 + 8.0 * severity)
    site.paint(cover(region, 1.8) * 0.15, WATER)
    _net(site, region, 6.5, 0.6, -250.0, 13)
    comb = np.maximum(region, site.pleura - 9.0 - 4.0 * severity)
    site.paint(cover(comb, 1.2) * (1 - site.vessels), -900.0)
    _net(site, comb, 6.5, 0.95, -120.0, 17)
    site.name(region < 0, tissues.FIBROSIS)


def _traction(site: Site, radius: float, severity: float) -> None:
    """Reticulation and bronchi pulled open in it: beaded, thick-walled, running up to the pleura."""
    _reticulation(site, radius, severity)
    rng = site.random(18)
    places = np.argwhere((site.truth == tissues.FIBROSIS) & (site.pleura > 4) & (site.pleura < 9))
    for number, place in enumerate(places[rng.permutation(len(places))][: 3 + round(4 * severity)]):
        end = np.array([site.grid.z[place[0]], site.grid.y[place[1]], site.grid.x[place[2]]])
        inward = -end / max(float(np.linalg.norm(end)), 1.0) * 20.0 + rng.normal(0, 4, 3)
        path = [tuple(end + inward * share) for share in (0.0, 0.5, 1.0)]
        bronchus = tube(site.grid, path, [2.3, 1.7, 1.9]) + 0.5 * site.noise(4.0, 20 + number)
        inside = site.truth == tissues.FIBROSIS
        site.paint(cover(bronchus - 1.0, site.grid.blur) * inside, -150.0)
        site.paint(cover(bronchus, site.grid.blur) * inside, -950.0)


# --- cavities --------------------------------------------------------------------------------------------


def _cavity(site: Site, radius: float, wall: float, level: float | None) -> None:
    """Air in a shell of soft tissue; fluid, if any, lies behind ``level`` of the lumen (the patient lies)."""
    lumen = _region(site, radius, 0.10)
    rough = np.clip(0.25 * wall * site.noise(6.0, 9), -0.5 * wall, 0.7 * wall)
    outer = _inside_lung(site, lumen - wall + rough, INTO_PLEURA_MM)
    lumen = _inside_lung(site, lumen, 1.5)
    site.paint(cover(outer, site.grid.blur), SOFT)
    site.paint(cover(lumen, site.grid.blur), 12.0)
    above = site.grid.axes[1] - np.float32(FAR * radius if level is None else level * radius)
    gas = np.maximum(lumen, above)
    site.paint(cover(gas, site.grid.blur), -985.0)
    site.name(outer < 0, tissues.CONSOLIDATION)
    site.name(gas < 0, tissues.CAVITY)


def _thin_walled(site: Site, radius: float, severity: float) -> None:
    _cavity(site, radius, 2.0 + 1.0 * severity, None)


def _thick_walled(site: Site, radius: float, severity: float) -> None:
    _cavity(site, radius, 4.0 + 4.0 * severity, None)


def _with_level(site: Site, radius: float, severity: float) -> None:
    _cavity(site, radius, 3.5 + 3.0 * severity, 0.6 - 0.5 * severity)


@dataclass(frozen=True)
class Kind:
    """One kind of lesion and where it lives.

    Attributes:
        tissue: label of what it mainly is.
        paint: paints a site of a radius and a severity.
        height: lowest and highest place of its middle, 0 at the base of the lungs, 1 at the apex.
        depth: least and largest depth of its middle below the pleura, in mm.
        reach: how far it reaches, in radii.
    """

    tissue: int
    paint: Callable[[Site, float, float], None]
    height: tuple[float, float] = (0.15, 0.9)
    depth: tuple[float, float] = (6.0, 60.0)
    reach: float = 1.5


KINDS: dict[str, Kind] = {
    "centrilobular": Kind(tissues.EMPHYSEMA, _centrilobular, (0.6, 0.9), (12.0, 60.0)),
    "paraseptal": Kind(tissues.EMPHYSEMA, _paraseptal, (0.5, 0.9), (1.0, 6.0), 1.2),
    "panlobular": Kind(tissues.EMPHYSEMA, _panlobular, (0.15, 0.5), (12.0, 60.0)),
    "bulla": Kind(tissues.EMPHYSEMA, _bulla, (0.4, 0.9), (4.0, 12.0)),
    "ground-glass": Kind(tissues.GROUND_GLASS, _ground_glass),
    "crazy-paving": Kind(tissues.GROUND_GLASS, _crazy_paving),
    "consolidation": Kind(tissues.CONSOLIDATION, _consolidation, (0.15, 0.85), (12.0, 60.0)),
    "wall-touching": Kind(tissues.CONSOLIDATION, _consolidation, (0.15, 0.8), (3.0, 8.0)),
    "lobar": Kind(tissues.CONSOLIDATION, _lobar, (0.3, 0.6), (8.0, 20.0)),
    "nodule": Kind(tissues.CONSOLIDATION, _nodule, (0.05, 0.95), (2.0, 60.0), 2.2),
    "reticulation": Kind(tissues.FIBROSIS, _reticulation, (0.1, 0.4), (3.0, 10.0)),
    "honeycombing": Kind(tissues.FIBROSIS, _honeycombing, (0.1, 0.35), (3.0, 10.0)),
    "traction-bronchiectasis": Kind(tissues.FIBROSIS, _traction, (0.1, 0.4), (3.0, 10.0)),
    "thin-walled-cavity": Kind(tissues.CAVITY, _thin_walled, (0.4, 0.85), (12.0, 60.0), 1.9),
    "thick-walled-cavity": Kind(tissues.CAVITY, _thick_walled, (0.3, 0.85), (14.0, 60.0), 2.4),
    "cavity-with-level": Kind(tissues.CAVITY, _with_level, (0.3, 0.8), (14.0, 60.0), 2.2),
}
"""Every kind of lesion; ``reach`` leaves room for the roughness of the outline and for walls."""
