"""Do the labels agree with those of the same method without its short cuts?

python -m Testing.bench.plain [CT...] [--phantom] [--least 99.5]

The plain way: float32 throughout, one window a pass on the whole lattice, the embedding of all noise levels
up-sampled to voxels before it is projected, SciPy's posterior, distances and grey openings of
the whole volume at once.  It takes minutes, and some gigabytes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from itertools import product
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from scipy import ndimage

from DiffSegLungLib import pipeline
from DiffSegLungLib.decision import mixture_decision
from DiffSegLungLib.decision.mixture import Mixture, Projection
from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.parenchyma.grid import Grid
from DiffSegLungLib.phantom import make_phantom, phantom_image
from DiffSegLungLib.representation import features

ROOMS = {
    "lungs": "air bowel chest_wall dense sides shapes warnings lungs",
    "parenchyma": "nodules vessels",
    "decision": "fusion lucent_regions mixture_decision network_decision raised_regions regions",
}
FILTERING = ["filters", "parenchyma.grid", "representation.features"]
FILTERING += [f"{room}.{name}" for room, names in ROOMS.items() for name in names.split()]
MODULES = [import_module(f"DiffSegLungLib.{name}") for name in FILTERING]
ROWS = 4
"""Slices at a time whose embedding of all noise levels is up-sampled: each voxel has 384 numbers."""


def main() -> int:
    """Prints a line for each CT; exit status 1 where one falls short."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ct", nargs="*", type=Path)
    parser.add_argument("--phantom", action="store_true", help="the synthetic CT, too")
    parser.add_argument("--least", type=float, default=99.5, help="percent of lung voxels")
    arguments = parser.parse_args()
    sources: dict[str, Any] = {path.name: path for path in arguments.ct}
    if arguments.phantom:
        sources["phantom"] = phantom_image(make_phantom((1.5,) * 3, 0, None))
    short = False
    for name, source in sources.items():
        percent, lung, ratio = agreement(source)
        told = f"{percent:.3f} % of {lung} lung voxels have the same label"
        print(f"{name}: {told}, in {ratio:.1f} times the time", flush=True)
        short |= percent < arguments.least
    return int(short)


def agreement(source: Any) -> tuple[float, int, float]:
    """Percent of lung voxels with the same label, their number, and the plain way's time over ours."""
    labels, seconds = [], []
    for way in (nullcontext, plain):
        start = time.perf_counter()
        with way():
            labels.append(pipeline.segment(source).label_array)
        seconds.append(time.perf_counter() - start)
    ours, theirs = labels
    lung = (ours > 0) | (theirs > 0)
    return 100.0 * float((ours == theirs)[lung].mean()), int(lung.sum()), seconds[1] / seconds[0]


@contextmanager
def plain() -> Iterator[None]:
    """The pipeline without its short cuts, as long as the context lasts."""
    numbers: list[Projection] = []

    def embed(model: Model, grid: Grid, seed: int, *_: Any) -> np.ndarray:
        numbers[:] = [model.projection]
        return features.embed(model.student, grid.hu, grid.mask, lambda cells: cells, model.plan, seed)

    def descriptors(fine: np.ndarray, cells: np.ndarray, mask: np.ndarray, rows: slice) -> np.ndarray:
        return np.concatenate([fine[:, rows], _projected(cells, mask.shape, rows, numbers[0])])

    with ExitStack() as stack:
        swap = lambda target, name, new: stack.enter_context(patch.object(target, name, new))  # noqa: E731
        swap(features, "_autocast", lambda device: nullcontext())
        swap(features, "batch_size", lambda planned, device: 1)
        swap(features, "_windows", _lattice)
        swap(mixture_decision, "_embed", embed)
        swap(mixture_decision, "descriptors_of", descriptors)
        swap(Mixture, "log_densities", _log_densities)
        for module, (name, new) in product(MODULES, OPERATIONS.items()):
            if hasattr(module, name):
                swap(module, name, new)
        yield


def _lattice(mask: np.ndarray, plan: features.EmbeddingPlan) -> Iterator[tuple[int, int, int]]:
    """Corners of a lattice over the whole volume, where a window holds any lung."""
    starts = []
    for side, window, stride in zip(mask.shape, plan.window, plan.stride, strict=True):
        starts.append(sorted({*range(0, side - window, stride), side - window}))
    for z, y, x in product(*starts):
        if mask[features._box((z, y, x), plan.window)].any():
            yield z, y, x


def _projected(cells: np.ndarray, shape: tuple[int, ...], rows: slice, projection: Projection) -> np.ndarray:
    """The embedding of every voxel of some slices, up-sampled whole and then projected."""
    whole = (shape[0], shape[1], shape[2])
    parts = []
    for first in range(rows.start, rows.stop, ROWS):
        some = slice(first, min(first + ROWS, rows.stop))
        voxels = torch.from_numpy(features.upsample_cells(cells, whole, some)).permute(1, 2, 3, 0)
        parts.append(projection(voxels).permute(3, 0, 1, 2).numpy())
    return np.concatenate(parts, axis=1)


def _log_densities(
    mixture: Mixture, points: np.ndarray, device: str = "cpu", exponents: np.ndarray | None = None
) -> np.ndarray:
    """By SciPy, as many dimensions at a time as count alike, given those before them."""
    dimensions = points.shape[1]
    counted = np.ones(dimensions) if exponents is None else exponents
    ends = [*np.flatnonzero(np.diff(counted)) + 1, dimensions]
    result = np.zeros((len(points), len(mixture.means)))
    before = np.zeros_like(result)
    for end in ends:
        marginal = _marginal_log_densities(mixture, points, end)
        result += counted[end - 1] * (marginal - before)
        before = marginal
    return result.astype(np.float32)


def _marginal_log_densities(mixture: Mixture, points: np.ndarray, dimensions: int) -> np.ndarray:
    from scipy.stats import multivariate_normal

    some = points[:, :dimensions].astype(np.float64)
    parts = zip(mixture.means, mixture.covariances, strict=True)
    return np.stack(
        [
            multivariate_normal.logpdf(some, mean[:dimensions], covariance[:dimensions, :dimensions])
            for mean, covariance in parts
        ],
        axis=1,
    )


def _squared_distance(mask: np.ndarray, reach: int) -> np.ndarray:
    if not mask.any():
        return np.full(mask.shape, reach**2 + 1)
    return np.rint(ndimage.distance_transform_edt(~mask) ** 2).astype(np.int64)


def _within(mask: np.ndarray, radius: float) -> np.ndarray:
    near: np.ndarray = _squared_distance(mask, int(np.ceil(radius))) <= radius**2
    return near


def _masked_opening(values: np.ndarray, mask: np.ndarray, radius: int, rounded: bool = False) -> np.ndarray:
    footprint = np.ones((2 * radius + 1,) * 3, bool)
    if rounded:
        cube = np.pad(np.ones((2 * radius - 1,) * 3, bool), 1)
        footprint = ndimage.binary_dilation(cube, ndimage.generate_binary_structure(3, 1))
    eroded = ndimage.minimum_filter(np.where(mask, values, np.inf), footprint=footprint)
    grown: np.ndarray = ndimage.maximum_filter(np.where(mask, eroded, -np.inf), footprint=footprint)
    return grown.astype(np.float32)


OPERATIONS = {
    "squared_distance": _squared_distance,
    "within": _within,
    "masked_opening": _masked_opening,
}
"""By the names that the modules import them under."""

if __name__ == "__main__":
    sys.exit(main())
