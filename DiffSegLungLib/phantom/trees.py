"""Pulmonary arteries, veins and bronchi: trees that fill the lungs.

Each tree is grown as in Tawhai et al. (Annals of Biomedical Engineering 28:793, 2000): a branch grows towards
the centre of the lung tissue that it serves, the tissue is parted in two, each half gets a daughter.  The
radius follows Murray's law from the amount of tissue served.  Bronchi follow the arteries, as in life.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DiffSegLungLib.phantom.anatomy import BLOOD, HILA, STEP, WALL, Organs
from DiffSegLungLib.phantom.grid import Grid, blend, cover, lattice

TISSUE_POINTS = 16000
"""Points that stand for one lung's tissue."""
TERMINAL_POINTS = 9
"""Points that one terminal branch serves at most: about 1.4 ml."""
TERMINAL_RADIUS = 0.6
LARGEST_RADIUS = 4.4
MURRAY = 3.3
"""Exponent of the radius law; a little over Murray's 3, so that the hila are not crowded."""
THINNEST_BRONCHUS, SEEN_LUMEN = 0.6, 1.1
"""Radius in mm of the thinnest bronchus that air in airless lung shows, and that aerated lung shows."""
REACH = (0.14, 0.26, 0.4, 0.5)
"""How far towards the centre of its tissue a branch grows, by its generation."""
ARTERY_ROOT = (4.0, -10.0, 0.0)
VEIN_ROOT = (-22.0, -6.0, 0.0)
"""Where arteries and veins enter, seen from the end of the main bronchus, in mm."""
SEEN = 0.3
"""The part of a voxel from which a vessel is seen, and is named vessel in the truth."""


@dataclass(frozen=True)
class Pieces:
    """Straight tapering pieces of a tree: ends (n, 3) as (z, y, x) in mm, radii (n, 2) in mm."""

    starts: np.ndarray
    ends: np.ndarray
    radii: np.ndarray

    def thicker_than(self, radius: float) -> Pieces:
        """The pieces whose far end is at least so thick."""
        keep = self.radii[:, 1] >= radius
        return Pieces(self.starts[keep], self.ends[keep], self.radii[keep])

    def widened(self, factor: float, wall: float = 0.0) -> Pieces:
        """The same course, each radius times ``factor`` plus ``wall`` mm."""
        return Pieces(self.starts, self.ends, self.radii * factor + wall)


@dataclass(frozen=True)
class Trees:
    """The blood vessels and the bronchi (radii of the lumen) of both lungs."""

    vessels: Pieces
    bronchi: Pieces


def join_pieces(parts: list[Pieces]) -> Pieces:
    """All pieces in one."""
    return Pieces(*(np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])))


def _tissue(organs: Organs, side: int, rng: np.random.Generator) -> np.ndarray:
    """Points (n, 3) in the lung of one side, away from the pleura."""
    grid = lattice(STEP)
    inside = (organs.lungs < -2.5) & ((grid.axes[2] > 0) == (side == 2))
    index = np.argwhere(inside)
    chosen = index[rng.choice(len(index), TISSUE_POINTS, replace=False)]
    origin = np.array([grid.z[0], grid.y[0], grid.x[0]])
    return origin + (chosen + rng.uniform(-0.5, 0.5, chosen.shape)) * STEP


def _halves(
    tissue: np.ndarray, course: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Part the tissue by a plane through the branch, across the tissue's longest extent beside it."""
    around = tissue - tissue.mean(axis=0)
    around -= np.outer(around @ course, course)
    normal = np.linalg.eigh(around.T @ around)[1][:, -1] + 0.2 * rng.standard_normal(3)
    normal -= (normal @ course) * course
    count = int(len(tissue) * rng.uniform(0.32, 0.68))
    order = np.argpartition(around @ normal, count)
    return tissue[order[:count]], tissue[order[count:]]


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.sqrt(vector @ vector)), 1e-6)


def grow(tissue: np.ndarray, root: np.ndarray, heading: np.ndarray, seed: tuple[int, ...]) -> Pieces:
    """Grow one tree from ``root``, leaving it along ``heading``, through the tissue's points (n, 3)."""
    rng = np.random.default_rng(seed)
    branches: list[np.ndarray] = []
    waiting = [(root, heading, tissue, 0, LARGEST_RADIUS)]
    while waiting:
        start, course, served, depth, before = waiting.pop()
        aim = served.mean(axis=0) - start
        last = len(served) <= TERMINAL_POINTS
        reach = 0.95 if last else REACH[min(depth, len(REACH) - 1)] + rng.uniform(0, 0.1)
        end = start + reach * aim
        knee = start + 0.25 * reach * aim + 0.25 * reach * np.sqrt(aim @ aim) * course
        radius = min(TERMINAL_RADIUS * (len(served) / TERMINAL_POINTS) ** (1 / MURRAY), before)
        branches.append(np.concatenate([start, knee, end, [before, 0.75 * radius if last else radius]]))
        halves = () if last else _halves(served, _unit(aim), rng)
        waiting.extend((end, _unit(end - knee), half, depth + 1, radius) for half in halves)
    return _bends(np.array(branches))


def _bends(branches: np.ndarray, pieces: int = 3) -> Pieces:
    """Cut quadratic curves (rows of start, knee, end and the two radii) into straight pieces."""
    at = np.linspace(0, 1, pieces + 1)[None, :, None]
    start, knee, end = (branches[:, None, low : low + 3] for low in (0, 3, 6))
    points = (1 - at) ** 2 * start + 2 * at * (1 - at) * knee + at**2 * end
    # A daughter takes up its own radius within its first third.
    before, radius = branches[:, 9:10], branches[:, 10:11]
    radii = np.concatenate([np.minimum(before, 1.3 * radius), np.repeat(radius, pieces, axis=1)], axis=1)
    ends = np.stack([radii[:, :-1], radii[:, 1:]], axis=-1)
    return Pieces(points[:, :-1].reshape(-1, 3), points[:, 1:].reshape(-1, 3), ends.reshape(-1, 2))


def _beside(arteries: Pieces, hilum: np.ndarray) -> Pieces:
    """Bronchi along the arteries: moved aside by the sum of the radii; they start at the main bronchus."""
    course = arteries.ends - arteries.starts
    aside = np.cross(course, np.array([0.3, 1.0, 0.2]))
    aside /= np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-6)
    lumen = 0.66 * arteries.radii
    gap = arteries.radii + lumen + 0.6

    def moved(points: np.ndarray, gaps: np.ndarray) -> np.ndarray:
        away = np.linalg.norm(points - hilum - ARTERY_ROOT, axis=1, keepdims=True)
        near = np.exp(-((away / 15.0) ** 2))
        return points + aside * gaps * (1 - near) - np.array(ARTERY_ROOT) * near

    return Pieces(moved(arteries.starts, gap[:, :1]), moved(arteries.ends, gap[:, 1:]), lumen)


def grow_trees(organs: Organs, seed: int) -> Trees:
    """Arteries, veins and bronchi of both lungs; ``organs`` on the lattice."""
    vessels, bronchi = [], []
    for side, hilum in HILA.items():
        centre = np.array(hilum)
        outward = np.array([0.0, 0.0, -1.0 if side == 1 else 1.0])
        tissue = _tissue(organs, side, np.random.default_rng((seed, 10, side)))
        arteries = grow(tissue, centre + ARTERY_ROOT, outward, (seed, 11, side))
        veins = grow(tissue, centre + VEIN_ROOT, outward, (seed, 12, side))
        vessels += [arteries, veins]
        bronchi.append(_beside(arteries, centre).thicker_than(THINNEST_BRONCHUS))
    return Trees(join_pieces(vessels), join_pieces(bronchi))


def _filled(away: np.ndarray, radius: np.ndarray, blur: float) -> np.ndarray:
    """How much of a voxel a tube fills after the point spread.

    A thin tube becomes a Gaussian that keeps its volume; a thick one keeps its shape with blurred borders.
    """
    spread = blur**2 + radius**2 / 4
    thin = radius**2 / (2 * spread) * np.exp(-(away**2) / (2 * spread))
    thick = np.clip(0.5 - (away - radius) / (2.5 * blur), 0, 1)
    return np.where(radius < 2 * blur, thin, thick).astype(np.float32)


def tube_cover(grid: Grid, pieces: Pieces) -> np.ndarray:
    """How much of each voxel the pieces fill, 0 to 1, float32."""
    filled = np.zeros(grid.shape, dtype=np.float32)
    margin = pieces.radii.max(axis=1, initial=0.0)[:, None] + 2.4 * grid.blur
    first = np.array([grid.z[0], grid.y[0], grid.x[0]])
    low = np.ceil((np.minimum(pieces.starts, pieces.ends) - margin - first) / grid.spacing).astype(int)
    high = np.floor((np.maximum(pieces.starts, pieces.ends) + margin - first) / grid.spacing).astype(int)
    # Pieces of like size are painted together, each in a cube of voxels: thousands of small loops are slow.
    size = 2 * np.ceil((high - low + 1).max(axis=1) / 2).astype(int)
    for side in np.unique(size[size > 0]):
        group = np.nonzero(size == side)[0]
        for part in np.array_split(group, int(np.ceil(len(group) * side**3 / 1e6))):
            _paint_cubes(filled, grid, pieces, part, low[part], int(side))
    return filled


def _paint_cubes(
    filled: np.ndarray, grid: Grid, pieces: Pieces, chosen: np.ndarray, low: np.ndarray, side: int
) -> None:
    """Raise ``filled`` in place in cubes of ``side`` voxels from the corners ``low``, one a chosen piece."""
    cube = np.indices((side, side, side)).reshape(3, -1).T
    index = low[:, None, :] + cube[None, :, :]
    first = np.array([grid.z[0], grid.y[0], grid.x[0]])
    offset = (index * np.array(grid.spacing) + first - pieces.starts[chosen, None]).astype(np.float32)
    course = (pieces.ends - pieces.starts)[chosen, None].astype(np.float32)
    length = np.maximum((course**2).sum(axis=-1), 1e-6)
    along = np.clip((offset * course).sum(axis=-1) / length, 0, 1)
    away = np.sqrt(((offset - along[..., None] * course) ** 2).sum(axis=-1))
    radii = pieces.radii[chosen].astype(np.float32)
    value = _filled(away, radii[:, :1] + (radii[:, 1:] - radii[:, :1]) * along, grid.blur)
    inside = ((index >= 0) & (index < filled.shape)).all(axis=-1)
    place = np.ravel_multi_index(tuple(index[inside].T), filled.shape)
    np.maximum.at(filled.reshape(-1), place, value[inside])


def paint_trees(hu: np.ndarray, grid: Grid, trees: Trees, organs: Organs) -> np.ndarray:
    """Paint vessels, bronchial walls and air in place; returns where they are seen (bool).

    Bronchi stop at the heart and at the diaphragm, where a curved lung lets a straight branch stray.
    """
    free = cover(np.maximum(1.5 - organs.blood, 2.0 - organs.diaphragm), grid.blur)
    vessels = tube_cover(grid, trees.vessels)
    bronchi = trees.bronchi.thicker_than(SEEN_LUMEN)
    walls = tube_cover(grid, bronchi.widened(1.05, 0.42)) * free
    lumen = tube_cover(grid, bronchi) * free
    blend(hu, vessels, BLOOD)
    blend(hu, walls, WALL)
    blend(hu, lumen, -985.0)
    return (vessels > SEEN) | (walls > SEEN)
