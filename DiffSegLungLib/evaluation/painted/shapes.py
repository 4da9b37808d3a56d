"""How disease is shaped: lenses along the pleura, bent sheets, shells, strands, discs, packed cysts, lobules.

Shapes are distances in mm, negative inside, as ``phantom.grid`` has them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk
from scipy import ndimage
from scipy.spatial import cKDTree

from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import Grid, axis_distance, paint_each

FAR = 9.0
"""Distances beyond this many mm need not be exact."""
LOBULE_STEP_MM = 2.0
"""Lobules are grown on a grid this coarse."""


def points_of(site: Site, where: np.ndarray) -> np.ndarray:
    """Voxels where ``where`` holds, (n, 3) in mm."""
    index = np.nonzero(where)
    axes = (site.grid.z, site.grid.y, site.grid.x)
    return np.column_stack([axis[part] for axis, part in zip(axes, index, strict=True)]).astype(np.float64)


def clear_of_faces(site: Site, points: np.ndarray, margin: float) -> np.ndarray:
    """Points at least ``margin`` mm inside the site, so that nothing around them is cut off straight."""
    axes = (site.grid.z, site.grid.y, site.grid.x)
    low, high = (np.array([axis[end] for axis in axes]) for end in (0, -1))
    clear = points[((points >= low + margin) & (points <= high - margin)).all(axis=1)]
    return clear if len(clear) else points


def value_at(site: Site, values: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of the nearest voxels to points in mm; the border's continue outwards."""
    index = []
    for axis, step, column in zip(
        (site.grid.z, site.grid.y, site.grid.x), site.grid.spacing, points.T, strict=True
    ):
        index.append(np.clip(np.rint((column - axis[0]) / step).astype(int), 0, len(axis) - 1))
    return np.asarray(values[tuple(index)])


def inward(site: Site, points: np.ndarray, step: float = 3.0) -> np.ndarray:
    """Unit vectors from the pleura inwards at points in mm, (n, 3)."""
    slope = np.empty_like(points)
    for axis in range(3):
        offset = np.zeros(3)
        offset[axis] = step
        ahead = value_at(site, site.pleura, points + offset)
        slope[:, axis] = ahead - value_at(site, site.pleura, points - offset)
    return slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-6)


def scattered(points: np.ndarray, gap: float, rng: np.random.Generator, most: int = 100_000) -> np.ndarray:
    """Points drawn in random order so that none lie closer than ``gap`` mm, (n, 3)."""
    points = points[rng.permutation(len(points))[: 40 * most]]
    tree, free, chosen = cKDTree(points), np.ones(len(points), bool), []
    for number in range(len(points)):
        if free[number]:
            chosen.append(number)
            if len(chosen) == most:
                break
            free[tree.query_ball_point(points[number], gap)] = False
    return points[np.array(chosen, dtype=int)]


def wander(
    start: np.ndarray, candidates: np.ndarray, stride: float, steps: int, rng: np.random.Generator
) -> np.ndarray:
    """A walk over candidate points, about ``stride`` mm a step and seldom turning back, (n, 3)."""
    tree = cKDTree(candidates)
    path = [candidates[tree.query(start)[1]]]
    heading = rng.normal(size=3)
    for _ in range(steps):
        near = np.array(tree.query_ball_point(path[-1], 1.4 * stride))
        offsets = candidates[near] - path[-1]
        length = np.linalg.norm(offsets, axis=1)
        apt = length > 0.6 * stride
        if not apt.any():
            break
        along = offsets[apt] @ heading / (length[apt] * np.linalg.norm(heading)) + rng.normal(
            0, 0.3, apt.sum()
        )
        heading = offsets[apt][along.argmax()]
        path.append(path[-1] + heading)
    return np.array(path)


def balls(grid: Grid, centres: np.ndarray, radii: np.ndarray, reach: float = 3.0) -> np.ndarray:
    """Distance to the union of balls, exact up to ``reach`` mm outside."""
    depth = np.full(grid.shape, -reach, np.float32)

    def ball(part: Grid, number: int) -> np.ndarray:
        squares = [(axis - middle) ** 2 for axis, middle in zip(part.axes, centres[number], strict=True)]
        return (radii[number] - np.sqrt(squares[0] + squares[1] + squares[2])).astype(np.float32)

    paint_each(depth, grid, _boxes(centres, radii + reach), ball)
    return -depth


def lenses(grid: Grid, centres: np.ndarray, radii: np.ndarray, heights: np.ndarray) -> np.ndarray:
    """Thickness in mm of a layer: domes around centres on a surface, the highest counts."""
    thickness = np.zeros(grid.shape, np.float32)

    def dome(part: Grid, number: int) -> np.ndarray:
        squares = [(axis - middle) ** 2 for axis, middle in zip(part.axes, centres[number], strict=True)]
        share = (squares[0] + squares[1] + squares[2]) / radii[number] ** 2
        return (heights[number] * (1 - share)).astype(np.float32)

    paint_each(thickness, grid, _boxes(centres, radii), dome)
    return thickness


@dataclass(frozen=True)
class Disc:
    """A thin bent plate.

    Attributes:
        centre: (z, y, x) in mm.
        normal: unit vector across it.
        radius: in mm.
        half: half its thickness in mm.
        bend: mm that it leaves its plane for each square mm from the centre.
    """

    centre: np.ndarray
    normal: np.ndarray
    radius: float
    half: float
    bend: float = 0.0


def discs(grid: Grid, plates: list[Disc], reach: float = 2.0) -> np.ndarray:
    """Distance to the union of bent plates, thinner towards their rims."""
    depth = np.full(grid.shape, -reach, np.float32)

    def plate(part: Grid, number: int) -> np.ndarray:
        one = plates[number]
        offsets = [axis - np.float32(middle) for axis, middle in zip(part.axes, one.centre, strict=True)]
        across = sum(o * np.float32(n) for o, n in zip(offsets, one.normal, strict=True))
        beside = np.maximum(sum(o * o for o in offsets) - across**2, 0.0)
        half = one.half * np.sqrt(np.clip(1.05 - beside / one.radius**2, 0.0, 1.0))
        return np.minimum(half - np.abs(across - one.bend * beside), one.radius - np.sqrt(beside))

    centres = np.array([one.centre for one in plates]).reshape(-1, 3)
    extents = np.array([one.radius + abs(one.bend) * one.radius**2 + reach for one in plates])
    paint_each(depth, grid, _boxes(centres, extents), plate)
    return -depth


@dataclass(frozen=True)
class Strand:
    """A piece of a tube: ends (z, y, x) in mm, the radius at each."""

    start: np.ndarray
    end: np.ndarray
    first: float
    last: float


def strands(grid: Grid, pieces: list[Strand], reach: float = 3.0) -> np.ndarray:
    """Distance to the union of tubes, exact up to ``reach`` mm outside."""
    depth = np.full(grid.shape, -reach, np.float32)

    def tube(part: Grid, number: int) -> np.ndarray:
        one = pieces[number]
        away, along = axis_distance(part, one.start, one.end)
        return (one.first + (one.last - one.first) * along - away).astype(np.float32)

    boxes = []
    for one in pieces:
        extent = max(one.first, one.last) + reach
        boxes.append((np.minimum(one.start, one.end) - extent, np.maximum(one.start, one.end) + extent))
    paint_each(depth, grid, boxes, tube)
    return -depth


def bronchi(
    start: np.ndarray, way: np.ndarray, length: float, radius: float, rng: np.random.Generator, forks: int = 2
) -> list[Strand]:
    """A bronchus that bends, beads and forks on its way outwards."""
    pieces: list[Strand] = []
    position, heading, size = start, way / np.linalg.norm(way), radius
    count = max(int(length / 4.0), 2)
    for number in range(count):
        heading = heading + rng.normal(0, 0.16, 3)
        heading /= np.linalg.norm(heading)
        after = position + heading * length / count
        thinner = radius * (1 - 0.45 * (number + 1) / count) * rng.uniform(0.8, 1.2)
        pieces.append(Strand(position, after, size, thinner))
        position, size = after, thinner
        if forks and number == count // 2:
            aside = np.cross(heading, rng.normal(size=3))
            turned = heading + 0.8 * aside / np.linalg.norm(aside)
            pieces += bronchi(position, turned, 0.55 * length, 0.8 * size, rng, forks - 1)
    return pieces


def packed(
    points: np.ndarray, radii: np.ndarray, rng: np.random.Generator, overlap: float = 0.88
) -> tuple[np.ndarray, np.ndarray]:
    """Cysts thrown into a region, the large ones first, none deep in another: centres and radii.

    Args:
        points: where a centre may lie, (n, 3) in mm.
        radii: wanted radii in mm, each thrown until it fits or 12 times.
        rng: random numbers.
        overlap: least distance of two centres in sums of their radii.
    """
    centres, sizes = np.empty((0, 3)), np.empty(0)
    for radius in np.sort(radii)[::-1]:
        throws = points[rng.integers(len(points), size=12)]
        gaps = np.linalg.norm(throws[:, None] - centres[None], axis=2) - overlap * (sizes + radius)
        fits = (gaps > 0).all(axis=1)
        if fits.any():
            centres = np.vstack([centres, throws[fits.argmax()]])
            sizes = np.append(sizes, radius)
    return centres, sizes


def cysts(
    site: Site, where: np.ndarray, centres: np.ndarray, radii: np.ndarray, wall: np.ndarray
) -> np.ndarray:
    """Distance to the lumen of cysts that share their walls; ``FAR`` outside ``where``.

    Args:
        site: where they lie.
        where: bool, the voxels to fill.
        centres: (n, 3) in mm.
        radii: in mm; a cyst grows to 1.25 times that where no neighbour stops it.
        wall: thickness of the wall in mm on the site's grid.
    """
    distance = np.full(site.grid.shape, FAR, np.float32)
    if len(centres) < 2:
        return distance
    away, number = cKDTree(centres).query(points_of(site, where), k=min(6, len(centres)))
    # The border of two cysts lies half-way between their surfaces, not between their centres.
    beyond = np.sort(away - radii[number], axis=1)
    size = radii[number[:, 0]]
    lumen = np.maximum(wall[where] / 2 - (beyond[:, 1] - beyond[:, 0]) / 2, beyond[:, 0] - 0.25 * size)
    distance[where] = lumen
    return distance


def _boxes(centres: np.ndarray, extents: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    return [(centre - extent, centre + extent) for centre, extent in zip(centres, extents, strict=True)]


@dataclass(frozen=True)
class Lobules:
    """Secondary lobules: irregular territories that fill a site, on a coarse grid.

    Attributes:
        numbers: int32 (z, y, x), 1 to ``count``.
        count: of lobules.
        centres: (count, 3) in mm.
        axes: coarse voxel centres in mm.
        grid: the site's.
    """

    numbers: np.ndarray
    count: int
    centres: np.ndarray
    axes: tuple[np.ndarray, np.ndarray, np.ndarray]
    grid: Grid

    def border(self, taken: np.ndarray) -> np.ndarray:
        """About the distance in mm to the lobules that are taken (bool, count), negative inside."""
        return (0.5 - self.spread(taken, 0.9)) * np.float32(0.9 * np.sqrt(2 * np.pi) * LOBULE_STEP_MM)

    def spread(self, values: np.ndarray, softness: float = 0.5) -> np.ndarray:
        """A value of each lobule (count,) on the site's grid, going over softly at the borders."""
        coarse = np.concatenate([[0], values])[self.numbers].astype(np.float32)
        coarse = ndimage.gaussian_filter(coarse, softness)
        for axis, wanted in enumerate((self.grid.z, self.grid.y, self.grid.x)):
            coarse = _interpolated(coarse, axis, self.axes[axis], wanted)
        return coarse

    def neighbours(self) -> np.ndarray:
        """Pairs of lobules that touch, (n, 2), each both ways."""
        pairs = []
        for axis in range(3):
            first = np.moveaxis(self.numbers, axis, 0)[:-1].ravel()
            second = np.moveaxis(self.numbers, axis, 0)[1:].ravel()
            differ = first != second
            pairs.append(np.column_stack([first[differ], second[differ]]))
        both = np.vstack(pairs)
        return np.unique(np.vstack([both, both[:, ::-1]]), axis=0) - 1

    def cluster(self, start: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
        """Bool (count,): lobules taken one by one from the one at ``start`` (mm), as infiltrates grow."""
        pairs, taken = self.neighbours(), np.zeros(self.count, bool)
        faces = [np.moveaxis(self.numbers, axis, 0)[end] for axis in range(3) for end in (0, -1)]
        cut = np.unique(np.concatenate([face.ravel() for face in faces])) - 1
        pairs = pairs[~np.isin(pairs[:, 1], cut)]
        taken[np.linalg.norm(self.centres - start, axis=1).argmin()] = True
        while taken.sum() < min(size, self.count):
            touching = pairs[taken[pairs[:, 0]] & ~taken[pairs[:, 1]], 1]
            if not len(touching):
                break
            taken[rng.choice(touching)] = True
        return taken


def grow_lobules(site: Site, width: float, stream: int) -> Lobules:
    """Lobules about ``width`` mm wide: floods that rise from scattered seeds over uneven ground."""
    rng = site.random(stream)
    axes = [
        np.arange(axis[0], axis[-1] + LOBULE_STEP_MM, LOBULE_STEP_MM)
        for axis in (site.grid.z, site.grid.y, site.grid.x)
    ]
    shape = tuple(len(axis) for axis in axes)
    ground = ndimage.gaussian_filter(rng.standard_normal(shape), 1.2)
    count = max(int(np.prod(shape) * LOBULE_STEP_MM**3 / (0.75 * width**3)), 2)
    everywhere = np.argwhere(np.ones(shape, bool)) * LOBULE_STEP_MM
    seeds = scattered(everywhere, 0.8 * width, rng, count)
    markers = np.zeros(shape, np.uint32)
    markers[tuple((seeds / LOBULE_STEP_MM).astype(int).T)] = np.arange(len(seeds)) + 1
    flooded = sitk.MorphologicalWatershedFromMarkers(
        sitk.GetImageFromArray(ground.astype(np.float32)), sitk.GetImageFromArray(markers), False, False
    )
    origin = np.array([axis[0] for axis in axes])
    numbers = sitk.GetArrayFromImage(flooded).astype(np.int32)
    return Lobules(numbers, len(seeds), seeds + origin, (axes[0], axes[1], axes[2]), site.grid)


def _interpolated(values: np.ndarray, axis: int, places: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Linear interpolation along one axis."""
    position = np.clip((wanted - places[0]) / (places[1] - places[0]), 0, len(places) - 1)
    low = np.minimum(position.astype(int), len(places) - 2)
    share = (position - low).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
    return values.take(low, axis) * (1 - share) + values.take(low + 1, axis) * share


@dataclass(frozen=True)
class Arc:
    """Part of a shell around a lobule: middle, radius and half thickness in mm, and where it bulges to.

    Attributes:
        centre: (z, y, x) in mm.
        bulge: unit vector to the middle of the arc.
        radius: in mm.
        half: half its thickness in mm.
        opening: cosine of the angle from ``bulge`` at which the arc ends.
    """

    centre: np.ndarray
    bulge: np.ndarray
    radius: float
    half: float
    opening: float


def arcs(grid: Grid, shells: list[Arc], reach: float = 2.0) -> np.ndarray:
    """Distance to the union of arcs, thinner towards their ends."""
    depth = np.full(grid.shape, -reach, np.float32)

    def arc(part: Grid, number: int) -> np.ndarray:
        one = shells[number]
        offsets = [axis - np.float32(middle) for axis, middle in zip(part.axes, one.centre, strict=True)]
        away = np.sqrt(sum(o * o for o in offsets)) + 1e-3
        turn = sum(o * np.float32(b) for o, b in zip(offsets, one.bulge, strict=True)) / away
        half = one.half * np.clip((turn - one.opening) / 0.35, 0.0, 1.0)
        return np.where(turn > one.opening, half - np.abs(away - one.radius), -reach)

    centres = np.array([one.centre for one in shells]).reshape(-1, 3)
    extents = np.array([one.radius + one.half + reach for one in shells])
    paint_each(depth, grid, _boxes(centres, extents), arc)
    return -depth
