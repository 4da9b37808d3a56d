"""A simulated reader who corrects: where most is wrong one stroke, spread it, and look again.

He takes the largest error on any slice that was read, missed disease or healthy lung that is called diseased,
and paints in it what is true, as long and as broad as a stroke of a brush; what is right he leaves alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import ndimage

from DiffSegLungLib.decision.strokes import spread
from DiffSegLungLib.evaluation.readings import LABELS, SliceTruth, score
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.tissues import HEALTHY, OUTSIDE, VESSEL

RADIUS_MM, LENGTH_MM = 5.0, 15.0
"""Of a stroke: a disc of this radius, drawn so that the stroke is that long."""
STROKES = (0, 1, 3, 5, 10)
"""After how many the Dice is taken."""
WALKER_MM, WALKER_BETA = 3.0, 130.0
"""Grid of the random walker, and how much a step in density bars its way."""
FAR_MM = 15.0
"""Lung farther than that from each stroke is as it was, for the random walker."""
WALKER_HU = 700.0

Truth = Mapping[int, SliceTruth]


@dataclass(frozen=True)
class Stroke:
    """What the reader paints.

    Attributes:
        z: slice.
        pixels: bool (y, x).
        label: tissue that is true there.
    """

    z: int
    pixels: np.ndarray
    label: int


def next_stroke(
    truth: Truth, labels: np.ndarray, painted: np.ndarray, spacing: Sequence[float]
) -> Stroke | None:
    """The stroke in the largest error; None where all is right.

    Args:
        truth: of each slice that was read.
        labels: as they are now, (z, y, x).
        painted: strokes so far, (z, y, x); nobody paints twice.
        spacing: (z, y, x) in mm.
    """
    largest, where = 0, None
    for z in truth:
        for error in _errors(truth[z], labels[z], painted[z]):
            parts, _ = ndimage.label(error)
            sizes = np.bincount(parts.ravel())[1:]
            if sizes.size and sizes.max() > largest:
                largest, where = int(sizes.max()), (z, parts == int(sizes.argmax()) + 1)
    if where is None:
        return None
    z, piece = where
    pixels = piece & brush(piece, spacing[1:])
    true = truth[z].labels[pixels]
    diseases = true[true > 0]
    return Stroke(z, pixels, int(np.bincount(diseases).argmax()) if diseases.size else HEALTHY)


def _errors(truth: SliceTruth, labels: np.ndarray, painted: np.ndarray) -> Iterator[np.ndarray]:
    """Within the lungs: disease that is called none, and lung that is called diseased."""
    diseased, free = np.isin(labels, LABELS), painted == 0
    yield (truth.labels > 0) & ~diseased & (labels != VESSEL) & (labels != OUTSIDE) & free
    yield diseased & (truth.labels == 0) & ~truth.left_out & free


def brush(piece: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """A stroke along a piece through its innermost pixel: bool (y, x)."""
    depth = ndimage.distance_transform_edt(piece, sampling=spacing)
    middle = np.array(np.unravel_index(int(depth.argmax()), piece.shape)) * spacing
    away = np.argwhere(piece) * spacing - middle
    along = np.linalg.eigh(away.T @ away)[1][:, -1]
    rows, columns = np.indices(piece.shape)
    offsets = np.stack([rows * spacing[0] - middle[0], columns * spacing[1] - middle[1]])
    reach = LENGTH_MM / 2 - RADIUS_MM
    lengthwise, across = np.tensordot(along, offsets, 1), np.tensordot(along[::-1] * (1, -1), offsets, 1)
    beyond = np.maximum(np.abs(lengthwise) - reach, 0)
    inside: np.ndarray = beyond**2 + across**2 <= RADIUS_MM**2
    return inside


def curves(result: Result, truth: Truth, strokes: Sequence[int] = STROKES) -> dict[str, Any]:
    """Dice by the number of strokes: spread, and the same strokes alone and by a random walker.

    Args:
        result: of a run.
        truth: of each slice that was read.
        strokes: counts at which the Dice is taken.

    Returns:
        ``spread``, ``alone``, ``walker``: lists as long as ``strokes``; ``painted_ml``; ``every``: Dice after
        each stroke of the first.
    """
    assert result.field is not None
    start, spacing = result.label_array, result.volume.spacing
    painted, labels = np.zeros_like(start), start
    methods: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "alone": lambda seeds: np.where(seeds > 0, seeds, start),
        "walker": lambda seeds: walked(start, seeds, result.volume.hu, spacing),
    }
    every = [score(truth, start, spacing)["dice"]]
    rows: dict[str, list[float]] = {"spread": [every[0]], "alone": [every[0]], "walker": [every[0]]}
    for count in range(1, max(strokes) + 1):
        stroke = next_stroke(truth, labels, painted, spacing)
        if stroke is not None:
            painted[stroke.z][stroke.pixels] = stroke.label
            labels = spread(result.field, painted, start, result.volume, start).labels
        every.append(score(truth, labels, spacing)["dice"])
        if count in strokes:
            rows["spread"].append(every[-1])
            for name, method in methods.items():
                rows[name].append(score(truth, method(painted), spacing)["dice"])
    ml = float(np.count_nonzero(painted) * result.volume.voxel_ml)
    return {**rows, "every": every, "painted_ml": ml}


def walked(start: np.ndarray, seeds: np.ndarray, hu: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The strokes spread by a random walker over density (Grady 2006), as far as lung that stays as it was.

    Args:
        start: labels of the run, (z, y, x).
        seeds: strokes, on the same grid.
        hu: on the same grid.
        spacing: (z, y, x) in mm.
    """
    from skimage.segmentation import random_walker

    box = tuple(slice(int(where.min()), int(where.max()) + 1) for where in np.nonzero(start))
    new = (WALKER_MM,) * 3
    density = np.clip(resample(hu[box], spacing, new) / WALKER_HU, -1.5, 0.5)
    lung = resample(start[box] > 0, spacing, new, interpolation="nearest", size=density.shape)
    coarse = _coarse_seeds(seeds[box], spacing, density.shape)
    distance = ndimage.distance_transform_edt(coarse == 0, sampling=new)
    tissues = np.unique(coarse[coarse > 0])  # the walker wants consecutive numbers
    as_it_was = len(tissues) + 1
    markers = np.where(lung, np.searchsorted(tissues, coarse) + (coarse > 0), -1).astype(np.int32)
    markers[lung & (coarse == 0)] = 0
    markers[lung & (coarse == 0) & (distance > FAR_MM)] = as_it_was
    if not {1, as_it_was} <= set(np.unique(markers).tolist()):
        return np.where(seeds > 0, seeds, start)
    found = random_walker(density, markers, beta=WALKER_BETA, mode="cg_j", tol=1e-3, prob_tol=0.1)
    names = np.concatenate([[0], tissues, [0]]).astype(np.uint8)
    given = names[np.clip(found, 0, as_it_was)]
    fine = resample(given, new, spacing, interpolation="nearest", size=start[box].shape)
    labels = start.copy()
    labels[box] = np.where((fine > 0) & (start[box] > 0), fine, start[box])
    return np.where(seeds > 0, seeds, labels)


def _coarse_seeds(seeds: np.ndarray, spacing: Sequence[float], shape: Sequence[int]) -> np.ndarray:
    """Strokes on the walker's grid: thin as they are, none is lost."""
    coarse = np.zeros(shape, np.uint8)
    places = np.argwhere(seeds)
    cells = np.minimum(((places + 0.5) * spacing / WALKER_MM).astype(int), np.array(shape) - 1)
    coarse[tuple(cells.T)] = seeds[tuple(places.T)]
    return coarse
