"""The phantom's world in millimetres: voxel centres, smooth fields, noise and partial volume.

Every shape is a signed distance in mm (negative inside), so that any voxel spacing shows the same anatomy.
Large shapes are computed on one fixed lattice and interpolated by cubic B-splines to the wanted voxels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

EXTENT = (300.0, 280.0, 350.0)
"""The field of view (z, y, x) in mm, centred on the origin."""

SCANNER_BLUR = 0.55
"""Standard deviation in mm of the scanner's own point spread, beside the voxel's."""

_PAD = 2
# A unit-variance lattice loses variance in the B-spline: the mean of its squared weights is 151/315 an axis.
_SPLINE_DEVIATION = (151.0 / 315.0) ** 1.5


@dataclass(frozen=True)
class Grid:
    """Voxel centres along the three axes, in mm (x to the patient's left, y posterior, z superior).

    Attributes:
        z: centres of the slices, float32.
        y: centres of the rows, float32.
        x: centres of the columns, float32.
        spacing: (z, y, x) in mm.
    """

    z: np.ndarray
    y: np.ndarray
    x: np.ndarray
    spacing: tuple[float, float, float]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along (z, y, x)."""
        return len(self.z), len(self.y), len(self.x)

    @property
    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """z, y and x so shaped that they broadcast to the whole grid."""
        return self.z[:, None, None], self.y[None, :, None], self.x[None, None, :]

    @property
    def blur(self) -> float:
        """Standard deviation in mm of the point spread: scanner and (mean) voxel box together."""
        voxel = float(np.prod(self.spacing)) ** (1 / 3)
        return float(np.hypot(SCANNER_BLUR, voxel / np.sqrt(12.0)))

    def box(self, low: np.ndarray, high: np.ndarray) -> tuple[slice, slice, slice]:
        """The voxels between two corners (z, y, x) in mm; empty slices where the box lies outside."""
        first = np.array([self.z[0], self.y[0], self.x[0]])
        start = np.maximum(np.ceil((low - first) / self.spacing), 0).astype(int)
        stop = np.maximum(np.floor((high - first) / self.spacing).astype(int) + 1, 0)
        return slice(start[0], stop[0]), slice(start[1], stop[1]), slice(start[2], stop[2])

    def crop(self, slices: tuple[slice, slice, slice]) -> Grid:
        """The part of the grid inside the slices."""
        return Grid(self.z[slices[0]], self.y[slices[1]], self.x[slices[2]], self.spacing)


def voxel_grid(spacing: tuple[float, float, float]) -> Grid:
    """The grid of a scan over the whole field of view."""
    axes = []
    for extent, step in zip(EXTENT, spacing, strict=True):
        count = max(round(extent / step), 1)
        axes.append(((np.arange(count) - (count - 1) / 2) * step).astype(np.float32))
    return Grid(axes[0], axes[1], axes[2], spacing)


def lattice(step: float) -> Grid:
    """The fixed lattice of smooth fields: the field of view plus a margin for the spline."""
    axes = []
    for extent in EXTENT:
        node = np.arange(int(np.ceil(extent / step)) + 2 * _PAD + 1) - _PAD
        axes.append((node * step - extent / 2).astype(np.float32))
    return Grid(axes[0], axes[1], axes[2], (step, step, step))


def _spline_weights(positions: np.ndarray, step: float, extent: float, nodes: int) -> csr_matrix:
    """Cubic B-spline weights (position, node); four nodes count for each position."""
    from scipy.sparse import csr_matrix

    place = (positions + extent / 2) / step + _PAD
    node = np.floor(place).astype(int)[:, None] + np.arange(-1, 3)
    away = np.abs(place[:, None] - node)
    weight = np.where(away < 1, 2 / 3 - away**2 + away**3 / 2, np.clip(2 - away, 0, None) ** 3 / 6)
    row = np.repeat(np.arange(len(positions)), 4)
    return csr_matrix((weight.ravel().astype(np.float32), (row, node.ravel())), shape=(len(positions), nodes))


def interpolate(coefficients: np.ndarray, step: float, grid: Grid) -> np.ndarray:
    """The B-spline of a lattice's coefficients at the voxel centres, float32."""
    field = coefficients.astype(np.float32, copy=False)
    for axis, positions in enumerate((grid.z, grid.y, grid.x)):
        moved = np.moveaxis(field, axis, 0)
        weights = _spline_weights(positions, step, EXTENT[axis], moved.shape[0])
        flat = weights @ np.ascontiguousarray(moved).reshape(moved.shape[0], -1)
        field = np.moveaxis(flat.reshape(-1, *moved.shape[1:]), 0, axis)
    return np.ascontiguousarray(field)


def resample(values: np.ndarray, step: float, grid: Grid) -> np.ndarray:
    """A field given at the lattice's nodes, at the voxel centres."""
    from scipy.ndimage import spline_filter

    return interpolate(spline_filter(values.astype(np.float32), order=3, output=np.float32), step, grid)


def smooth_noise(grid: Grid, length: float, seed: tuple[int, ...]) -> np.ndarray:
    """Random field of unit deviation whose grains are about ``length`` mm; the same at every spacing."""
    coefficients = np.random.default_rng(seed).standard_normal(lattice(length).shape, dtype=np.float32)
    return interpolate(coefficients, length, grid) / np.float32(_SPLINE_DEVIATION)


def cover(distance: np.ndarray, blur: float) -> np.ndarray:
    """How much of a voxel a shape fills, 0 to 1, from the signed distance of its border in mm."""
    return np.clip(0.5 - distance / np.float32(2.5 * blur), 0.0, 1.0)


def blend(hu: np.ndarray, fraction: np.ndarray, value: np.ndarray | float) -> None:
    """Mix ``value`` HU into ``hu`` in place, by the fraction of the voxel that it fills."""
    hu += fraction * (value - hu)


def join(first: np.ndarray, second: np.ndarray, radius: float) -> np.ndarray:
    """Union of two distances, the groove between them filled over ``radius`` mm."""
    overlap = np.clip(0.5 + (second - first) / (2 * radius), 0.0, 1.0)
    return second + (first - second) * overlap - radius * overlap * (1 - overlap)


def meet(first: np.ndarray, second: np.ndarray, radius: float) -> np.ndarray:
    """Intersection of two distances, its edge rounded over ``radius`` mm."""
    return -join(-first, -second, radius)


def to_distance(field: np.ndarray, step: float) -> np.ndarray:
    """Turn any smooth implicit function on the lattice into about a distance: divide by its slope."""
    slope = np.sqrt(sum(part**2 for part in np.gradient(field, step)))
    return field / np.maximum(slope, 0.05)


def ellipsoid(
    grid: Grid, centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> np.ndarray:
    """About the distance to an ellipsoid; centre and radii (z, y, x) in mm."""
    scaled: float | np.ndarray = 0.0
    slope: float | np.ndarray = 0.0
    for axis, middle, radius in zip(grid.axes, centre, radii, strict=True):
        part = (axis - middle) / radius
        scaled = scaled + part**2
        slope = slope + (part / radius) ** 2
    size = np.sqrt(scaled)
    return np.asarray(size * (size - 1) / np.maximum(np.sqrt(slope), 1e-4), dtype=np.float32)


def tube(grid: Grid, path: list[tuple[float, float, float]], radii: list[float]) -> np.ndarray:
    """Distance to a tube along a path of points (z, y, x), its radius changing from point to point."""
    distance = np.full(grid.shape, np.inf, dtype=np.float32)
    for start, end, first, last in zip(path[:-1], path[1:], radii[:-1], radii[1:], strict=True):
        away, along = axis_distance(grid, np.array(start), np.array(end))
        np.minimum(distance, away - (first + (last - first) * along), out=distance)
    return distance


def axis_distance(grid: Grid, start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance of every voxel to a line piece, and where along it (0 to 1) its nearest point lies."""
    course = (end - start).astype(np.float32)
    length = max(float(course @ course), 1e-6)
    offsets = [axis - np.float32(origin) for axis, origin in zip(grid.axes, start, strict=True)]
    along = np.clip(sum(o * c for o, c in zip(offsets, course, strict=True)) / length, 0.0, 1.0)
    away = np.sqrt(sum((o - along * c) ** 2 for o, c in zip(offsets, course, strict=True)))
    return away, along


def paint_each(
    field: np.ndarray,
    grid: Grid,
    boxes: list[tuple[np.ndarray, np.ndarray]],
    shape: Callable[[Grid, int], np.ndarray],
) -> None:
    """Raise ``field`` in place to ``shape(part of the grid, number)`` inside each box (corners in mm)."""
    for number, (low, high) in enumerate(boxes):
        slices = grid.box(low, high)
        part = field[slices]
        if part.size:
            np.maximum(part, shape(grid.crop(slices), number), out=part)
