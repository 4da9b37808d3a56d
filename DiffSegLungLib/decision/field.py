"""What a run keeps so that strokes can change its result without reading the network again.

The decision's evidence and the decoder's features, of the lungs alone and in half precision: some 15 MB a
litre of lung, on a working grid of 1.5 mm.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.decision.by_network import NetworkReading
from DiffSegLungLib.decision.fusion import FusionSettings
from DiffSegLungLib.decision.network_decision import Evidence
from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.filters import nearest_inside
from DiffSegLungLib.half_precision import from_half, to_half
from DiffSegLungLib.interpolation import AxisMap
from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.parenchyma.grid import Grid
from DiffSegLungLib.representation.tissue_unet import CELL, SPACING

CELL_MM = (SPACING[0], SPACING[1] * CELL, SPACING[2] * CELL)
"""Sides of the cells that the decoder's features are of, (z, y, x)."""
FORMAT = "DiffSegLung field 1"
VALUES = 256
"""That a voxel of strokes may have."""
ARRAYS = ("posterior", "edges", "hu", "healthy", "sides", "lungs", "features", "cells")
FACTS = ("origin", "spacing", "ct_shape", "ct_spacing", "model")

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Field:
    """The evidence of one run.

    Attributes:
        posterior: float16 (classes, lung voxels), on the working grid.
        edges: float16 (lung voxels,).
        hu: float16 (lung voxels,).
        healthy: float32 (y,) of the working grid.
        sides: uint8 (z, y, x), the lungs on the working grid: 1 right, 2 left.
        lungs: uint8, bits of the lungs on the CT's own grid within ``box``.
        features: float16 (channels, lung cells).
        cells: bool (z, y, x), which cells of the network's grid are of the lungs.
        origin: where the cells begin, in mm from the CT's first corner, (z, y, x).
        box: of the working grid, in the CT's voxels.
        spacing: of the working grid in mm.
        ct_shape: of the CT, (z, y, x).
        ct_spacing: of the CT in mm, (z, y, x).
        fusion: the fusion's parameters.
        model: SHA-256 of the weights that decided.
    """

    posterior: np.ndarray
    edges: np.ndarray
    hu: np.ndarray
    healthy: np.ndarray
    sides: np.ndarray
    lungs: np.ndarray
    features: np.ndarray
    cells: np.ndarray
    origin: Triple
    box: tuple[slice, slice, slice]
    spacing: float
    ct_shape: tuple[int, int, int]
    ct_spacing: Triple
    fusion: FusionSettings
    model: str

    @classmethod
    def of(
        cls, evidence: Evidence, seen: NetworkReading, volume: Volume, lungs: np.ndarray, model: str
    ) -> Field:
        """Keep what decided.

        Args:
            evidence: on the working grid.
            seen: what the network said.
            volume: the CT.
            lungs: bool (z, y, x), on the CT's grid.
            model: SHA-256 of the weights.
        """
        grid, features, mask = evidence.grid, seen.reading.features, evidence.grid.mask
        origin = _corner(seen.box, volume.spacing)
        offset = tuple(a - b for a, b in zip(_corner(grid.box, volume.spacing), origin, strict=True))
        cells = np.zeros(features.shape[1:], bool)
        places = [
            _nearest(cells.shape[axis], CELL_MM[axis], mask.shape[axis], offset[axis], grid.spacing)
            for axis in range(3)
        ]
        cells[tuple(place[where] for place, where in zip(places, np.nonzero(mask), strict=True))] = True
        return cls(
            to_half(evidence.posterior),
            to_half(evidence.edges),
            to_half(grid.hu[mask]),
            evidence.healthy,
            grid.sides,
            np.packbits(lungs[grid.box]),
            features[:, cells],
            cells,
            origin,
            grid.box,
            grid.spacing,
            volume.hu.shape,
            volume.spacing,
            evidence.fusion,
            model,
        )

    @cached_property
    def mask(self) -> np.ndarray:
        """The lungs on the working grid."""
        return self.sides > 0

    def require_fits(self, volume: Volume) -> None:
        """Refuses another CT's field.

        Raises:
            UnusableInputError: the CT has other voxels.
        """
        same = volume.hu.shape == self.ct_shape and np.allclose(volume.spacing, self.ct_spacing)
        if not same:
            raise UnusableInputError(
                "What was kept for corrections is of another CT: give the file of this CT's run, or leave "
                "it out, and the network reads the CT again."
            )

    def sides_on_ct(self) -> np.ndarray:
        """The lungs on the CT's own grid, uint8 (z, y, x): 1 right, 2 left."""
        sides = np.zeros(self.ct_shape, np.uint8)
        size = sides[self.box].shape
        nearest = self.sides.take(self.grid.nearest)
        named = resample(nearest, (self.spacing,) * 3, self.ct_spacing, interpolation="nearest", size=size)
        lungs = np.unpackbits(self.lungs, count=named.size).reshape(size)
        sides[self.box] = named * lungs
        return sides

    @cached_property
    def grid(self) -> Grid:
        """The working grid; air outside the lungs."""
        hu = np.full(self.mask.shape, LOWEST_HU, np.float32)
        hu[self.mask] = from_half(self.hu)
        return Grid(self.box, hu, self.sides, np.zeros_like(self.mask), self.spacing, self.ct_spacing[0])

    def evidence(self) -> Evidence:
        """What decided, as it was kept."""
        edges = from_half(self.edges)
        return Evidence(from_half(self.posterior), edges, self.healthy, self.grid, self.fusion)

    def from_cells(self, values: np.ndarray) -> np.ndarray:
        """Values of the lung cells, (cells,), at the lung voxels of the working grid: float32 (voxels,).

        Interpolated linearly; a cell outside the lungs says what the nearest one within says.
        """
        filled = np.zeros(self.cells.shape, np.float32)
        filled[self.cells] = values
        filled = filled.take(self._nearest_cells)
        for axis, cells in enumerate(self.cells.shape):
            offset = self.box[axis].start * self.ct_spacing[axis] - self.origin[axis]
            count = self.mask.shape[axis]
            filled = AxisMap.between(cells, CELL_MM[axis], count, self.spacing, offset).along(filled, axis)
        return filled[self.mask]

    @cached_property
    def _nearest_cells(self) -> np.ndarray:
        return nearest_inside(self.cells)

    def to_cells(self, strokes: np.ndarray) -> np.ndarray:
        """Strokes (z, y, x) on the CT's grid, by lung cell: uint8 (cells,), 0 where nothing was painted.

        A stroke is thinner than a cell: the cell is what most of its painted voxels are.
        """
        places = np.argwhere(strokes)
        middles = (places + 0.5) * np.array(self.ct_spacing) - np.array(self.origin)
        index = np.floor(middles / np.array(CELL_MM)).astype(np.intp)
        within = ((index >= 0) & (index < self.cells.shape)).all(axis=1)
        flat = np.ravel_multi_index(tuple(index[within].T), self.cells.shape)
        votes = flat * VALUES + strokes[tuple(places[within].T)]
        found, counts = np.unique(votes, return_counts=True)
        found = found[np.argsort(counts, kind="stable")]  # the most frequent comes last, and stays
        painted = np.zeros(self.cells.size, np.uint8)
        painted[found // VALUES] = found % VALUES
        return painted.reshape(self.cells.shape)[self.cells]

    def posterior_of_cells(self) -> np.ndarray:
        """The posterior at the middle of each lung cell, float32 (classes, cells)."""
        number = np.zeros(self.mask.shape, np.int32)
        number[self.mask] = np.arange(np.count_nonzero(self.mask), dtype=np.int32)
        number = number.take(self.grid.nearest)
        places = []
        for axis in range(3):
            offset = self.origin[axis] - self.box[axis].start * self.ct_spacing[axis]
            cells = self.cells.shape[axis]
            places.append(_nearest(number.shape[axis], self.spacing, cells, offset, CELL_MM[axis]))
        return from_half(self.posterior)[:, number[np.ix_(*places)][self.cells]]

    def cell_places(self) -> np.ndarray:
        """Where the middle of each lung cell is, float32 (cells, 3), in mm."""
        return ((np.argwhere(self.cells) + 0.5) * CELL_MM).astype(np.float32)


def _corner(box: tuple[slice, slice, slice], spacing: Triple) -> Triple:
    z, y, x = (side.start * step for side, step in zip(box, spacing, strict=True))
    return z, y, x


def _nearest(count: int, step: float, new_count: int, offset: float, new: float) -> np.ndarray:
    """Along one axis, in which of ``count`` voxels of ``step`` mm the middles of the new ones lie."""
    place = np.floor(((np.arange(new_count) + 0.5) * new + offset) / step).astype(np.intp)
    return np.clip(place, 0, count - 1)


def save(field: Field, path: Path) -> None:
    """Write a field; half precision, no pickle."""
    from safetensors.numpy import save_file

    facts = {name: getattr(field, name) for name in FACTS}
    facts["box"] = [[side.start, side.stop] for side in field.box]
    facts["fusion"] = field.fusion.stored()
    arrays = {name: np.ascontiguousarray(getattr(field, name)) for name in ARRAYS}
    arrays["cells"] = arrays["cells"].astype(np.uint8)
    with atomic_path(path) as partial:
        save_file(arrays, str(partial), metadata={"format": FORMAT, "facts": json.dumps(facts)})


def load(path: Path) -> Field:
    """Read a field.

    Raises:
        UnusableInputError: it is none, or of another version.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "numpy") as file:
            stored = file.metadata() or {}
            if stored.get("format") != FORMAT:
                raise ValueError("another format")
            facts = json.loads(stored["facts"])
            arrays = {name: file.get_tensor(name) for name in ARRAYS}
        return _checked(arrays, facts)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        reason = str(error).splitlines()[-1] if str(error) else type(error).__name__
        raise UnusableInputError(
            f"{path.name} does not hold what a run keeps for corrections ({reason}): leave it out, and the "
            "network reads the CT again."
        ) from None


def _checked(arrays: dict[str, np.ndarray], facts: dict[str, Any]) -> Field:
    """A field of what a file holds.

    Raises:
        ValueError: its parts do not fit one another.
    """
    arrays["cells"] = arrays["cells"].astype(bool)
    lung, cells = np.count_nonzero(arrays["sides"]), np.count_nonzero(arrays["cells"])
    sizes = {"posterior": lung, "edges": lung, "hu": lung, "features": cells}
    if any(arrays[name].shape[-1] != size for name, size in sizes.items()):
        raise ValueError("its parts do not fit one another")
    told: dict[str, Any] = {**arrays}
    told |= {name: tuple(facts[name]) for name in ("origin", "ct_shape", "ct_spacing")}
    told["box"] = tuple(slice(*side) for side in facts["box"])
    if 8 * arrays["lungs"].size < np.prod([side.stop - side.start for side in told["box"]]):
        raise ValueError("its parts do not fit one another")
    told["fusion"] = FusionSettings(**facts["fusion"])
    return Field(**told, spacing=float(facts["spacing"]), model=str(facts["model"]))
