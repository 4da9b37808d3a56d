"""Random fields and foams to paint with, made once and cut anew for each use.

Filtering noise or finding the cells of a foam for each lesion takes longer than a step of the network; a cut
at a random place, mirrored at random, of a tile several patches wide costs a copy.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from DiffSegLungLib.training.painting_hosts import GRID

FIELD_LENGTHS = (2.0, 3.0, 4.5, 6.5, 9.0, 13.0, 18.0, 27.0, 40.0)
"""Correlation lengths of the fields in mm."""
FIELD_TILE = (96, 256, 256)
CELL_WIDTHS = (3.5, 4.5, 6.0, 8.0, 10.5, 14.0)
"""Mean widths of the cells of a foam in mm."""
FOAM_TILE = (56, 176, 176)
DEVIATION_OF_LENGTH = 0.7
"""Deviation of the smoothing Gaussian, of the correlation length."""
WOBBLE = 0.12
"""By which the walls of a foam bend, of a cell's width."""
FRACTION = np.float32(1 / 1024)
"""Unit of the tiles, int16: half the memory of float32, and far sooner widened to it than float16 is."""
SPREAD_NOISE = (0.3, 0.6, 0.6)
"""Deviation in voxels of the smoothing of noise as a CT has it on the grid."""


class Foam(NamedTuple):
    """Cells that fill space, as lobules, cysts and nets of septa do.

    Attributes:
        cell: int32 number of the cell at each voxel.
        wall: distance to the nearest wall in mm.
        centre: distance to the cell's middle in mm.
        cells: numbers of cells run below it.
    """

    cell: np.ndarray
    wall: np.ndarray
    centre: np.ndarray
    cells: int


class Textures:
    """Fields and foams for patches up to the tiles' size.

    Args:
        seed: of the tiles.
    """

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._fields: dict[float, np.ndarray] = {}
        self._foams: dict[float, Foam] = {}

    def field(self, shape: tuple[int, ...], length: float, rng: np.random.Generator) -> np.ndarray:
        """A smooth field of zero mean and unit deviation, float32; ``length`` of correlation in mm."""
        nearest = min(FIELD_LENGTHS, key=lambda known: abs(np.log(known / length)))
        if nearest not in self._fields:
            self._fields[nearest] = _field_tile(
                nearest, np.random.default_rng((self._seed, int(10 * nearest)))
            )
        cut = _cut(self._fields[nearest], *_place(shape, FIELD_TILE, rng)).astype(np.float32)
        return (cut - cut.mean()) / (cut.std() + 1e-6)

    def foam(self, shape: tuple[int, ...], width: float, rng: np.random.Generator) -> Foam:
        """A foam of cells about ``width`` mm wide."""
        nearest = min(CELL_WIDTHS, key=lambda known: abs(np.log(known / width)))
        if nearest not in self._foams:
            self._foams[nearest] = self._foam_tile(nearest)
        tile = self._foams[nearest]
        place = _place(shape, FOAM_TILE, rng)
        scale = np.float32(width / nearest) * FRACTION
        cell, wall, centre = (_cut(part, *place) for part in tile[:3])
        return Foam(cell, wall.astype(np.float32) * scale, centre.astype(np.float32) * scale, tile.cells)

    def _foam_tile(self, width: float) -> Foam:
        rng = np.random.default_rng((self._seed, 1, int(10 * width)))
        size = np.array(FOAM_TILE) * GRID
        count = max(8, int(np.prod(size + 2 * width) / width**3))
        middles = rng.random((count, 3)) * (size + 2 * width) - width
        axes = [np.arange(side) * step for side, step in zip(FOAM_TILE, GRID, strict=True)]
        points = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
        for axis in (1, 2):
            points[:, axis] += self.field(FOAM_TILE, width, rng).ravel() * width * WOBBLE
        near, number = cKDTree(middles).query(points, k=2)
        wall, centre = (near[:, 1] - near[:, 0]) / 2, near[:, 0]
        return Foam(
            number[:, 0].reshape(FOAM_TILE).astype(np.int32),
            _stored(wall.reshape(FOAM_TILE)),
            _stored(centre.reshape(FOAM_TILE)),
            count,
        )

    @cached_property
    def grain(self) -> np.ndarray:
        """White noise of a tile, float32."""
        return np.random.default_rng((self._seed, 2)).standard_normal(FIELD_TILE, dtype=np.float32)

    @cached_property
    def smooth_grain(self) -> np.ndarray:
        """``grain`` as the host's own noise looks, float32."""
        return ndimage.gaussian_filter(self.grain, SPREAD_NOISE)

    def own_noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """Noise as a CT has it on the grid, float32."""
        return _cut(self.smooth_grain, *_place(shape, FIELD_TILE, rng))

    def noise(self, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
        """White noise, float32."""
        return _cut(self.grain, *_place(shape, FIELD_TILE, rng)).copy()


def _field_tile(length: float, rng: np.random.Generator) -> np.ndarray:
    """Noise smoothed on a grid as coarse as it allows, then enlarged; int16 in steps of ``FRACTION``."""
    step = np.maximum(length / np.array(GRID) / 1.6, 1.0)
    small = np.ceil(np.array(FIELD_TILE) / step).astype(int) + 4
    deviation = np.maximum(length / np.array(GRID) / step * DEVIATION_OF_LENGTH, 0.3)
    values = ndimage.gaussian_filter(rng.standard_normal(small, dtype=np.float32), deviation)
    values = ndimage.affine_transform(values, 1 / step, offset=1.0, output_shape=FIELD_TILE, order=1)
    return _stored(values / values.std())


def _stored(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, -31, 31) / FRACTION).astype(np.int16)


def _place(
    shape: tuple[int, ...], tile: tuple[int, ...], rng: np.random.Generator
) -> tuple[tuple[slice, ...], tuple[int, ...]]:
    """Where to cut, and along which axes to mirror."""
    first = [int(rng.integers(whole - side + 1)) for whole, side in zip(tile, shape, strict=True)]
    box = tuple(slice(low, low + side) for low, side in zip(first, shape, strict=True))
    return box, tuple(axis for axis in range(3) if rng.random() < 0.5)


def _cut(tile: np.ndarray, box: tuple[slice, ...], mirrored: tuple[int, ...]) -> np.ndarray:
    return np.flip(tile[box], mirrored)
