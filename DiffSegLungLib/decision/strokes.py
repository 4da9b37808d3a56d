"""Strokes spread: what somebody painted in a few places is evidence for the whole CT.

The decoder's features say which lung looks alike.  Over them and over space a Gaussian process (Rasmussen
and Williams 2006, equations 2.22 to 2.24) interpolates by how many nats the posterior was wrong where
somebody painted.  Near a stroke and alike much is corrected, far away only what looks the same.  What was
corrected is decided as every posterior is: the fusion smooths it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import ndimage

from DiffSegLungLib.decision.field import Field
from DiffSegLungLib.decision.label_map import Tissues, label_map
from DiffSegLungLib.decision.network_decision import Evidence, decide_by_network
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.half_precision import from_half
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.parenchyma.grid import Grid
from DiffSegLungLib.tissues import BY_LABEL, NOT_LUNG, NOT_LUNG_KEY, OUTSIDE

SURE = 0.95
"""Posterior that a painted tissue shall have where it was painted."""
LEAST_POSTERIOR = 1e-4
NEAR, FAR = (0.65, 2.5, 30.0), (0.35, 2.2, float("inf"))
"""The two ranges of the kernel: share of the variance, likeness in deviations within a tissue, mm."""
DOUBT = 0.3
"""Variance of the noise: painted borders are not exact."""
MOST_CELLS = 400
"""Painted cells that are taken, evenly spread over all of them; more would tell the same."""
BLOCK = 65536
LEAST_NATS = 0.02
"""A correction below it moves nothing."""
SHRINK = 0.01
"""Share of the mean variance that is added to each direction's."""


@dataclass(frozen=True)
class Spread:
    """A result after strokes.

    Attributes:
        labels: uint8 (z, y, x), values of the tissue table.
        moved_ml: from tissue to tissue, by their keys: ``{"fibrosis": {"ground-glass": 12.5}}``.
        strokes_ml: what was painted, by key.
        outside_ml: of it what lies outside the lungs: it is as painted, and taught nothing.
        tissues: as they were decided on the working grid, before what was painted was put in.
        grid: the working grid.
    """

    labels: np.ndarray
    moved_ml: Mapping[str, Mapping[str, float]]
    strokes_ml: Mapping[str, float]
    outside_ml: float
    tissues: Tissues
    grid: Grid


def spread(
    field: Field,
    strokes: np.ndarray,
    labels: np.ndarray,
    volume: Volume,
    decided: np.ndarray | None = None,
) -> Spread:
    """Decide the whole CT anew, with what was painted as evidence.

    Args:
        field: what the run kept.
        strokes: uint8 (z, y, x) on the CT's grid: tissue, ``NOT_LUNG``, or 0.
        labels: to be corrected, on the same grid; where strokes move nothing they stay.
        volume: the CT.
        decided: labels that the run decided, where they are at hand: it saves half of the time.

    Returns:
        Labels in which what was painted stays exactly as painted.

    Raises:
        UnusableInputError: strokes or labels do not fit the CT, or nothing was painted in the lungs.
    """
    if not strokes.shape == labels.shape == field.ct_shape:
        raise UnusableInputError("The strokes lie on another grid than the CT: paint strokes on this CT.")
    before = field.evidence()
    after = replace(before, posterior=corrected_posterior(field, before.posterior, strokes))
    mask = labels > OUTSIDE
    if decided is None:
        decided = label_map(decide_by_network(before), before.grid, volume, mask)
    tissues = decide_by_network(after)
    anew = label_map(tissues, after.grid, volume, mask)
    result = np.where(anew != decided, anew, labels)
    result[_no_lung(field, before, after, strokes) & mask] = OUTSIDE
    painted = strokes > 0
    result[painted] = np.where(strokes[painted] == NOT_LUNG, OUTSIDE, strokes[painted])
    outside = np.count_nonzero(painted & ~mask & (strokes != NOT_LUNG)) * volume.voxel_ml
    return Spread(
        result,
        _moved_ml(labels, result, volume),
        _volumes(strokes, volume),
        round(float(outside), 3),
        tissues,
        after.grid,
    )


def decided_labels(field: Field, volume: Volume) -> np.ndarray:
    """The labels that the run decided, uint8 (z, y, x), vessels among them."""
    evidence = field.evidence()
    return label_map(decide_by_network(evidence), evidence.grid, volume, field.sides_on_ct() > 0)


def corrected_posterior(field: Field, posterior: np.ndarray, strokes: np.ndarray) -> np.ndarray:
    """The posterior, corrected by what was painted.

    Args:
        field: what the run kept.
        posterior: of the lung voxels on the working grid, float32 (classes, voxels).
        strokes: uint8 (z, y, x), on the CT's grid.

    Returns:
        As ``posterior``.

    Raises:
        UnusableInputError: nothing was painted in the lungs.
    """
    painted = field.to_cells(strokes)
    where = np.flatnonzero(painted)
    if not where.size:
        raise UnusableInputError(
            "All strokes lie outside the lungs, where nothing can be learnt from them: paint within the "
            "lungs, or correct the lung mask and segment again."
        )
    where = where[np.linspace(0, where.size - 1, min(where.size, MOST_CELLS)).astype(int)]
    classes = np.where(painted[where] == NOT_LUNG, OUTSIDE, painted[where])
    of_cells = field.posterior_of_cells()
    nats = _missing_nats(of_cells[:, where], classes)
    alike = _whitened(from_half(field.features).T, of_cells.argmax(axis=0))
    logs = np.log(np.maximum(posterior, LEAST_POSTERIOR))
    for number, values in _interpolated(alike, field.cell_places(), where, classes, nats).items():
        logs[number] += field.from_cells(values)
    logs -= logs.max(axis=0)
    shares = np.exp(logs, out=logs)
    shares /= shares.sum(axis=0)
    return shares


def _missing_nats(posterior: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """By how many nats the painted class must rise for a posterior of ``SURE``; float32 (cells,), 0 at least.

    Args:
        posterior: (classes, cells).
        classes: that were painted, (cells,).
    """
    own = np.clip(np.take_along_axis(posterior, classes[None].astype(np.intp), 0)[0], LEAST_POSTERIOR, SURE)
    wanted = np.log(SURE / (1 - SURE))
    return np.maximum(wanted - np.log(own / (1 - own)), 0).astype(np.float32)


def _whitened(features: np.ndarray, classes: np.ndarray) -> torch.Tensor:
    """Features in deviations within a class, so that a distance says how unlike two cells are.

    Args:
        features: float32 (cells, channels).
        classes: the likeliest of each cell; each counts as much as any other, however rare.
    """
    channels = features.shape[1]
    own = [features[classes == number] for number in np.unique(classes)]
    spreads = [np.cov(each.T) for each in own if len(each) > 2 * channels]
    within = np.mean(spreads, axis=0) if spreads else np.eye(channels)
    within += np.eye(channels) * (np.trace(within) / channels * SHRINK)
    factor = np.linalg.inv(np.linalg.cholesky(within)).astype(np.float32)
    return torch.from_numpy(features @ factor.T)


def _interpolated(
    alike: torch.Tensor, places: np.ndarray, where: np.ndarray, classes: np.ndarray, nats: np.ndarray
) -> dict[int, np.ndarray]:
    """The mean of the Gaussian process at each cell, in nats, by class: float32 (cells,).

    Args:
        alike: features (cells, channels) whose distances count.
        places: of the cells in mm, (cells, 3).
        where: painted cells, (painted,).
        classes: that were painted there.
        nats: that were missing there.
    """
    positions, chosen = torch.from_numpy(places), torch.from_numpy(where)
    known, spots = alike[chosen], positions[chosen]
    numbers = np.unique(classes)
    missing = torch.from_numpy(nats[:, None] * (classes[:, None] == numbers))
    noise = DOUBT * torch.eye(len(where))
    weights = torch.linalg.solve(_kernel(known, spots, known, spots) + noise, missing)
    found = torch.empty((len(alike), len(numbers)))
    for first in range(0, len(alike), BLOCK):
        block = slice(first, first + BLOCK)
        found[block] = _kernel(alike[block], positions[block], known, spots) @ weights
    moved = {int(number): found[:, place].numpy() for place, number in enumerate(numbers)}
    return {number: values for number, values in moved.items() if np.abs(values).max() > LEAST_NATS}


def _kernel(
    alike: torch.Tensor, places: torch.Tensor, known: torch.Tensor, spots: torch.Tensor
) -> torch.Tensor:
    """Covariance of two sets of cells: likeness times nearness, at two ranges."""
    unlike, apart = torch.cdist(alike, known).square_(), torch.cdist(places, spots).square_()
    total = torch.zeros_like(unlike)
    for share, deviations, mm in (NEAR, FAR):
        total += share * torch.exp(unlike * (-0.5 / deviations**2) + apart * (-0.5 / mm**2))
    return total


def _no_lung(field: Field, before: Evidence, after: Evidence, strokes: np.ndarray) -> np.ndarray:
    """Where strokes made it likely that it is no lung, as far as it hangs together with them; bool."""
    beyond = strokes == NOT_LUNG
    if not beyond.any():
        return beyond
    outside = np.zeros(field.mask.shape, bool)
    outside[field.mask] = (after.posterior[OUTSIDE] > 0.5) & (before.posterior[OUTSIDE] <= 0.5)
    box = field.box
    around = beyond[box] | resample(
        outside, (field.spacing,) * 3, field.ct_spacing, interpolation="nearest", size=beyond[box].shape
    )
    pieces, count = ndimage.label(around)
    touched = np.zeros(count + 1, bool)
    touched[np.unique(pieces[beyond[box]])] = True
    touched[0] = False
    result = np.zeros_like(beyond)
    result[box] = touched[pieces]
    return result


def _moved_ml(labels: np.ndarray, result: np.ndarray, volume: Volume) -> dict[str, dict[str, float]]:
    """From tissue to tissue, in ml."""
    changed = labels != result
    pairs, counts = np.unique(np.stack([labels[changed], result[changed]]), axis=1, return_counts=True)
    moved: dict[str, dict[str, float]] = {}
    for (old, new), count in zip(pairs.T.tolist(), counts.tolist(), strict=True):
        moved.setdefault(_key(old), {})[_key(new)] = round(count * volume.voxel_ml, 3)
    return moved


def _volumes(strokes: np.ndarray, volume: Volume) -> dict[str, float]:
    """Painted ml by key."""
    labels, counts = np.unique(strokes[strokes > 0], return_counts=True)
    return {
        _key(label): round(count * volume.voxel_ml, 3)
        for label, count in zip(labels.tolist(), counts.tolist(), strict=True)
    }


def _key(label: int) -> str:
    return BY_LABEL[label].key if label in BY_LABEL else NOT_LUNG_KEY
