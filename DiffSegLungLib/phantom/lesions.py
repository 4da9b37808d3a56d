"""The five diseases, each placed where it lives: irregular in outline, truth at the voxel's centre.

A lesion changes HU and truth in place.  Those that let vessels be seen are painted before the vessels, those
that hide them after.  Each has its own random stream, so leaving one out moves none of the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from DiffSegLungLib import tissues
from DiffSegLungLib.phantom.anatomy import Organs
from DiffSegLungLib.phantom.grid import Grid, blend, cover, ellipsoid, paint_each, smooth_noise
from DiffSegLungLib.phantom.trees import Trees, tube_cover

Point = tuple[float, float, float]


@dataclass
class Lung:
    """The scan while it is painted.

    Attributes:
        grid: the voxels.
        organs: distances on the voxels.
        trees: vessels and bronchi.
        hu: float32, painted in place.
        truth: uint8 label values, painted in place.
        seed: of the phantom.
    """

    grid: Grid
    organs: Organs
    trees: Trees
    hu: np.ndarray
    truth: np.ndarray
    seed: int

    def noise(self, length: float, stream: int) -> np.ndarray:
        """Random field of the lesions, ``length`` mm grains."""
        return smooth_noise(self.grid, length, (self.seed, 50, stream))

    def name(self, where: np.ndarray, label: int) -> None:
        """Write a label where ``where`` holds inside the lungs."""
        self.truth[where & (self.organs.lungs < 0)] = label


def _somewhere(seed: int, stream: int, centres: list[Point], radii: list[Point]) -> list[tuple[Point, Point]]:
    """The usual places and sizes, moved by up to 5 mm and scaled by up to a tenth."""
    rng = np.random.default_rng((seed, 60, stream))
    moved = np.array(centres) + rng.uniform(-5, 5, (len(centres), 3))
    scaled = np.array(radii) * rng.uniform(0.9, 1.1, (len(radii), 1))
    return [(_point(m), _point(s)) for m, s in zip(moved, scaled, strict=True)]


def _point(values: np.ndarray) -> Point:
    return float(values[0]), float(values[1]), float(values[2])


def _nearest(grid: Grid, places: list[tuple[Point, Point]]) -> np.ndarray:
    """Distance to the union of ellipsoids."""
    distance = np.full(grid.shape, np.inf, dtype=np.float32)
    for centre, radii in places:
        np.minimum(distance, ellipsoid(grid, centre, radii), out=distance)
    return distance


def _balls(grid: Grid, centres: np.ndarray, radii: np.ndarray) -> np.ndarray:
    """Distance to the union of balls, exact up to 3 mm outside."""
    depth = np.full(grid.shape, -3.0, dtype=np.float32)
    reach = radii[:, None] + 3.0

    def ball(part: Grid, number: int) -> np.ndarray:
        squares = [(axis - middle) ** 2 for axis, middle in zip(part.axes, centres[number], strict=True)]
        return radii[number] - np.sqrt(squares[0] + squares[1] + squares[2])

    paint_each(depth, grid, list(zip(centres - reach, centres + reach, strict=True)), ball)
    return -depth


def _lobules(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Centres and radii of centrilobular holes: ever more of them towards the apex."""
    axes = (np.arange(12, 128, 6.5), np.arange(-85, 85, 6.5), np.arange(-120, 120, 6.5))
    centres = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    centres = centres + rng.uniform(-3, 3, centres.shape)
    severity = np.clip((centres[:, 0] - 10) / 95, 0, 1)
    kept = rng.random(len(centres)) < 0.75 * severity
    return centres[kept], rng.uniform(1.5, 2.4 + 1.8 * severity[kept])


def _emphysema(lung: Lung) -> None:
    """Centrilobular holes of the upper zones, confluent towards the apex."""
    centres, radii = _lobules(np.random.default_rng((lung.seed, 61)))
    holes = _balls(lung.grid, centres, radii) + 0.8 * lung.noise(5.0, 1)
    holes = np.maximum(holes, lung.organs.lungs + 2.0)
    blend(lung.hu, cover(holes, lung.grid.blur), -985.0)
    lung.name(holes < 0, tissues.EMPHYSEMA)


def _bulla(lung: Lung) -> None:
    """A thin-walled air space under the pleura of the right apex; no vessel crosses it."""
    places = _somewhere(lung.seed, 2, [(92, -18, -62)], [(25, 22, 19)])
    bulla = _nearest(lung.grid, places) + 1.5 * lung.noise(14.0, 2)
    wall = np.maximum(bulla, lung.organs.lungs)
    bulla = np.maximum(bulla + 0.9, lung.organs.lungs + 0.5)
    blend(lung.hu, cover(wall, lung.grid.blur), -350.0)
    blend(lung.hu, cover(bulla, lung.grid.blur), -990.0)
    lung.name(wall < 0, tissues.EMPHYSEMA)


def _ground_glass(lung: Lung) -> None:
    """Peripheral patches of both lungs, fading at the edge; vessels stay seen."""
    places = _somewhere(
        lung.seed, 3,
        [(-20, 42, 96), (18, -30, 98), (6, -20, -104), (32, 48, -88), (-48, 62, 58), (-30, -40, -100)],
        [(26, 24, 20), (17, 21, 15), (24, 26, 17), (15, 16, 18), (15, 14, 22), (14, 17, 13)],
    )  # fmt: skip
    patch = _nearest(lung.grid, places) + 4.0 * lung.noise(13.0, 3) + 2.0 * lung.noise(5.0, 4)
    patch = np.maximum(patch, lung.organs.lungs)
    density = -600.0 + 55.0 * lung.noise(4.0, 5)
    blend(lung.hu, cover(patch, 2.2), density)
    lung.name(patch < 0, tissues.GROUND_GLASS)


def _cells(region: np.ndarray, grid: Grid, rng: np.random.Generator) -> np.ndarray:
    """Distance to the walls of a foam of 4 to 8 mm cells, for the voxels of ``region`` (1D)."""
    from scipy.spatial import cKDTree

    axes = (np.arange(-150, 30, 6.6), np.arange(-110, 110, 6.6), np.arange(-150, 150, 6.6))
    seeds = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    seeds = seeds + rng.uniform(-2.9, 2.9, seeds.shape)
    index = np.nonzero(region)
    points = np.column_stack([grid.z[index[0]], grid.y[index[1]], grid.x[index[2]]])
    near = cKDTree(seeds).query(points, k=2)[0]
    return ((near[:, 1] - near[:, 0]) / 2).astype(np.float32)


def _fibrosis(lung: Lung) -> None:
    """Basal subpleural reticulation, with honeycomb cysts next to the pleura."""
    z, y, _ = lung.grid.axes
    basal = np.clip((-48.0 - z + 0.3 * y) / 50.0, 0.0, 1.0)
    depth = -lung.organs.chest - 1.5
    extent = depth - (13.0 + 0.08 * y + 5.0 * lung.noise(16.0, 6)) * basal + 3.0
    extent = np.maximum(extent, lung.organs.lungs)
    region = extent < 5.0
    to_wall = np.full(lung.grid.shape, 9.0, dtype=np.float32)
    to_wall[region] = _cells(region, lung.grid, np.random.default_rng((lung.seed, 62)))
    honeycomb = cover(extent + 9.0 + 2.0 * lung.noise(9.0, 7), 1.2)
    lines = cover(to_wall - 0.85 - 0.25 * honeycomb, lung.grid.blur)
    inside = -760.0 + 40 * lung.noise(6.0, 8)
    pattern = inside + honeycomb * (-925.0 - inside)
    pattern += lines * (-250.0 + 100.0 * honeycomb - pattern)
    blend(lung.hu, cover(extent, 1.2), pattern)
    lung.name(extent < 0, tissues.FIBROSIS)


def _consolidation(lung: Lung) -> None:
    """Airless lung on the right posterior chest wall; the bronchi in it stay black."""
    centres: list[Point] = [(-6, 65, -76), (-20, 70, -54), (8, 46, -96)]
    places = _somewhere(lung.seed, 4, centres, [(25, 24, 26), (16, 18, 18), (14, 18, 16)])
    solid = _nearest(lung.grid, places) + 4.5 * lung.noise(12.0, 9) + 2.0 * lung.noise(5.0, 10)
    solid = np.maximum(solid, lung.organs.lungs)
    blend(lung.hu, cover(solid, 1.5), 15.0 + 12.0 * lung.noise(8.0, 11))
    bronchi = lung.trees.bronchi.widened(0.8, 0.7)
    blend(lung.hu, tube_cover(lung.grid, bronchi) * cover(solid - 1.0, lung.grid.blur), -940.0)
    lung.name(solid < 0, tissues.CONSOLIDATION)


def _cavity(lung: Lung) -> None:
    """A thick-walled cavity of the left upper lobe; its wall counts as consolidation."""
    place = _somewhere(lung.seed, 5, [(46, 34, 82)], [(9.5, 9.0, 10.0)])[0]
    lumen = ellipsoid(lung.grid, *place) + 1.2 * lung.noise(8.0, 12)
    rough = 1.4 * lung.noise(6.0, 13) + 0.8 * lung.noise(3.0, 14)
    wall = np.maximum(ellipsoid(lung.grid, *place) - 6.2 + np.clip(rough, -2.2, 2.2), lung.organs.lungs)
    blend(lung.hu, cover(wall, lung.grid.blur), 32.0)
    blend(lung.hu, cover(lumen, lung.grid.blur), -985.0)
    lung.name(wall < 0, tissues.CONSOLIDATION)
    lung.name(lumen < 0, tissues.CAVITY)


BEFORE_VESSELS: dict[str, tuple[Callable[[Lung], None], ...]] = {
    tissues.BY_LABEL[tissues.EMPHYSEMA].key: (_emphysema,),
    tissues.BY_LABEL[tissues.GROUND_GLASS].key: (_ground_glass,),
    tissues.BY_LABEL[tissues.FIBROSIS].key: (_fibrosis,),
}
AFTER_VESSELS: dict[str, tuple[Callable[[Lung], None], ...]] = {
    tissues.BY_LABEL[tissues.EMPHYSEMA].key: (_bulla,),
    tissues.BY_LABEL[tissues.CONSOLIDATION].key: (_consolidation,),
    tissues.BY_LABEL[tissues.CAVITY].key: (_cavity,),
}

LESIONS: tuple[str, ...] = tuple(tissue.key for tissue in tissues.DISEASES)
"""The diseases a phantom can show, by the keys of the tissue table."""


def paint_lesions(lung: Lung, wanted: tuple[str, ...], before_vessels: bool) -> None:
    """Paint the wanted lesions of one of the two rounds, in the tissue table's order."""
    painters = BEFORE_VESSELS if before_vessels else AFTER_VESSELS
    for key in LESIONS:
        for paint in painters.get(key, ()) if key in wanted else ():
            paint(lung)
