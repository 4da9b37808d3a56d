"""The pipeline's stages held apart: a CT is prepared once and decided many times, with parts left out."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from DiffSegLungLib.decision.label_map import Tissues, to_volume
from DiffSegLungLib.decision.mixture_decision import classify, refine
from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.lungs.lungs import Lungs, segment_lungs
from DiffSegLungLib.parenchyma.grid import Grid, working_grid
from DiffSegLungLib.parenchyma.vessels import Parenchyma, separate_vessels
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING
from DiffSegLungLib.representation.features import embed, fine_descriptors
from DiffSegLungLib.representation.quality import STANDARD, quality_of


@dataclass(frozen=True)
class Prepared:
    """A CT up to its descriptors.

    Attributes:
        volume: the CT.
        found: its lungs.
        grid: the working grid.
        parenchyma: vessels and the density between them.
        fine: descriptors of density and texture.
        cells: projected embedding.
    """

    volume: Volume
    found: Lungs
    grid: Grid
    parenchyma: Parenchyma
    fine: np.ndarray
    cells: np.ndarray


def prepare(volume: Volume, model: Model, seed: int = 0, found: Lungs | None = None) -> Prepared:
    """Run the stages that come before the decision, as ``segment`` runs them; ``found`` gives the lungs."""
    found = found or segment_lungs(volume.hu, volume.spacing, model.lungs)
    grid = working_grid(volume, found, model.spacing)
    parenchyma = separate_vessels(grid.hu, grid.sides, grid.airways, grid.spacing)
    fine = fine_descriptors(grid.hu, grid.mask, parenchyma, grid.spacing)
    return Prepared(volume, found, grid, parenchyma, fine, embedding(grid.hu, grid, model, seed))


def embedding(hu: np.ndarray, grid: Grid, model: Model, seed: int = 0, quality: str = STANDARD) -> np.ndarray:
    """Projected embedding of any HU on the working grid, with the work of a quality."""
    effort = quality_of(quality)
    plan = replace(model.plan, stride=effort.stride(model.plan.window, model.plan.stride, DOWNSAMPLING))
    return embed(model.student, hu, grid.mask, model.projection, plan, seed, draws=effort.draws)


def decide(prepared: Prepared, model: Model, seed: int = 0) -> Tissues:
    """Posteriors on the working grid, before the fusion."""
    tissues, _ = classify(model, prepared.grid, prepared.parenchyma, prepared.fine, prepared.cells, seed)
    return tissues


def fuse_and_map(prepared: Prepared, model: Model, tissues: Tissues) -> tuple[np.ndarray, np.ndarray]:
    """Labels and normalised entropy on the CT's own grid."""
    fused = refine(model, prepared.grid, prepared.parenchyma, prepared.fine, tissues)
    return to_volume(fused, prepared.grid, prepared.volume, prepared.found.mask)


def labels_to_volume(labels: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Labels of the working grid on the CT's own grid, by the nearest voxel."""
    from DiffSegLungLib.io.resampling import resample

    grid, volume = prepared.grid, prepared.volume
    shape = volume.hu[grid.box].shape
    nearest = resample(labels, (grid.spacing,) * 3, volume.spacing, interpolation="nearest", size=shape)
    result = np.zeros(volume.hu.shape, np.uint8)
    result[grid.box] = nearest * prepared.found.mask[grid.box]
    return result


def without_embedding(model: Model) -> Model:
    """The same mixture with the dimensions of the embedding marginalised out."""
    from DiffSegLungLib.representation.features import DESCRIPTORS

    fine = len(DESCRIPTORS)
    mixture = replace(
        model.mixture,
        means=model.mixture.means[:, :fine],
        covariances=model.mixture.covariances[:, :fine, :fine],
    )
    return replace(model, mixture=mixture)


def without_fusion(model: Model) -> Model:
    """No step of diffusion: the arg-max of the posteriors."""
    return replace(model, fusion=replace(model.fusion, steps=0))


def one_timestep(model: Model) -> Model:
    """Embeddings of the middle noise level alone, put in the place of all three."""
    timesteps = model.plan.timesteps
    return replace(
        model, plan=replace(model.plan, timesteps=(timesteps[len(timesteps) // 2],) * len(timesteps))
    )
