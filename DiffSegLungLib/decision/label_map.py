"""From posteriors on the working grid to labels and uncertainty on the CT's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from DiffSegLungLib.decision.naming import NAMED
from DiffSegLungLib.decision.regions import likeliest
from DiffSegLungLib.interpolation import enlarged_slabs
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.parenchyma.grid import Grid
from DiffSegLungLib.tissues import CAVITY, VESSEL


@dataclass(frozen=True)
class Tissues:
    """What is known of each voxel of the working grid before it goes back to the CT's own.

    Attributes:
        posterior: float32 (tissues of ``NAMED``, z, y, x).
        vessels: bool.
        cavities: bool.
        healthy: float32 (y,), HU of the patient's healthy lung.
        moved_ml: what each rule gave another name, after the network; empty where no network decided.
    """

    posterior: np.ndarray
    vessels: np.ndarray
    cavities: np.ndarray
    healthy: np.ndarray
    moved_ml: Mapping[str, float] = field(default_factory=dict)


def to_volume(
    tissues: Tissues, grid: Grid, volume: Volume, mask: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and normalised entropy on the CT's own grid."""
    return label_map(tissues, grid, volume, mask), entropy_map(tissues, grid, volume, mask)


def label_map(tissues: Tissues, grid: Grid, volume: Volume, mask: np.ndarray) -> np.ndarray:
    """Labels on the CT's own grid, uint8.

    Posteriors, not labels, are interpolated, some slices at a time: outlines stay smooth and memory small.
    """
    channels = [*_beyond_lungs(tissues, grid), tissues.vessels, tissues.cavities]
    labels, box, spacing = np.zeros(mask.shape, np.uint8), grid.box, (grid.spacing,) * 3
    stacked = np.stack(channels, dtype=np.float32)
    for rows, values in enlarged_slabs(stacked, spacing, mask[box].shape, volume.spacing):
        label = np.array(NAMED, np.uint8)[likeliest(values[: len(NAMED)])]
        label[values[-2] > 0.5] = VESSEL
        label[values[-1] > 0.5] = CAVITY
        labels[box][rows] = label * mask[box][rows]
    return labels


def entropy_map(tissues: Tissues, grid: Grid, volume: Volume, mask: np.ndarray) -> np.ndarray:
    """Normalised entropy of the posterior on the CT's own grid, float32, 0 to 1."""
    entropies, box, spacing = np.zeros(mask.shape, np.float32), grid.box, (grid.spacing,) * 3
    posterior = np.stack(_beyond_lungs(tissues, grid))
    for rows, shares in enlarged_slabs(posterior, spacing, mask[box].shape, volume.spacing):
        inside = mask[box][rows]
        within = shares[:, inside]
        entropy = -(within * np.log(np.maximum(within, 1e-6))).sum(axis=0)
        entropies[box][rows][inside] = np.clip(entropy / np.log(len(NAMED)), 0, 1)
    return entropies


def _beyond_lungs(tissues: Tissues, grid: Grid) -> list[np.ndarray]:
    """Posteriors with the nearest lung voxel's outside the lungs: their rim on a finer grid needs one."""
    return [channel.take(grid.nearest) for channel in tissues.posterior]
