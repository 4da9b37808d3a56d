"""The reference mixture of the training cohort, and the model folder that is shipped."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from DiffSegLungLib.decision.fusion import FusionSettings
from DiffSegLungLib.decision.mixture import Mixture, Projection, fit_mixture, fit_projection
from DiffSegLungLib.decision.mixture_decision import descriptors_of
from DiffSegLungLib.decision.naming import NamingRule, healthy_density, name_by_rule
from DiffSegLungLib.decision.regions import RegionSettings
from DiffSegLungLib.models import storage
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.features import EmbeddingPlan, embed
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.prepared_ct import prepare_for_fit

BINS = (24, 12)
"""Bins of density and of lines over which voxels are sampled flat."""


@dataclass(frozen=True)
class ReferenceSettings:
    """How the reference is fitted.

    Attributes:
        spacing: voxel side in mm.
        channels: principal components of the embedding.
        components: Gaussians a tissue.
        points: voxels a CT.
        sharpness: exponent on the mixture's likelihood.
        seed: of noise and samples.
        taught: the student's head was taught by distillation, and tells the radiomics.
    """

    spacing: float = 1.5
    channels: int = 8
    components: int = 5
    points: int = 8_000
    sharpness: float = 0.5
    seed: int = 0
    taught: bool = True


@dataclass(frozen=True)
class _Sampled:
    """What one CT gives: embeddings of its cells, and where and what its sampled voxels are."""

    cells: np.ndarray
    inside: np.ndarray
    chosen: np.ndarray
    fine: np.ndarray
    mask: np.ndarray
    healthy: np.ndarray


def fit_reference(
    student: Student,
    sources: Iterable[Path],
    plan: EmbeddingPlan,
    settings: ReferenceSettings,
    rule: NamingRule,
    progress: Progress = silent,
) -> tuple[Projection, Mixture, np.ndarray]:
    """Fit projection and mixture on the training CT; components are named by density and texture.

    Returns:
        The projection, the mixture, and the label of each component.
    """
    files = list(sources)
    sampled = []
    for index, path in enumerate(files):
        progress("reference", index / len(files), path.name)
        sampled.append(_sample_one(student, path, plan, settings, rule))
    projection = fit_projection(
        np.concatenate([one.cells[:, one.inside].T for one in sampled]),
        settings.channels,
        _told(student, len(plan.timesteps)) if settings.taught else None,
    )
    points = np.concatenate([_points(one, projection) for one in sampled])
    named = np.concatenate([name_by_rule(one.fine.T, rule, one.healthy) for one in sampled])
    mixture, labels = fit_mixture(points, named, settings.components, settings.seed)
    progress("reference", 1.0, f"{len(points)} voxels")
    return projection, mixture, labels


def _told(student: Student, levels: int) -> np.ndarray:
    """The map from the embeddings of the noise levels, side by side, to the radiomics they tell."""
    weight = student.head.regress.weight.detach().cpu().numpy()
    return np.tile(weight.T / levels, (levels, 1))


def _sample_one(
    student: Student, path: Path, plan: EmbeddingPlan, settings: ReferenceSettings, rule: NamingRule
) -> _Sampled:
    grid, parenchyma, fine = prepare_for_fit(path, settings.spacing)
    cells = embed(student, grid.hu, grid.mask, lambda cell: cell, plan, settings.seed)
    usable = grid.mask & ~parenchyma.vessels
    chosen = _flat_sample(usable, fine, settings)
    rows = healthy_density(parenchyma.density, usable, settings.spacing, rule)
    healthy = np.broadcast_to(rows[:, None], usable.shape)[chosen]
    return _Sampled(
        cells, _cells_inside(grid.mask, cells.shape[1:]), chosen, fine[:, chosen], grid.mask, healthy
    )


def _cells_inside(mask: np.ndarray, cells: tuple[int, ...]) -> np.ndarray:
    """Cells that are lung by half."""
    padded = np.zeros([8 * side for side in cells], bool)
    padded[: mask.shape[0], : mask.shape[1], : mask.shape[2]] = mask
    z, y, x = cells
    return padded.reshape(z, 8, y, 8, x, 8).mean(axis=(1, 3, 5)) > 0.5


def _flat_sample(usable: np.ndarray, fine: np.ndarray, settings: ReferenceSettings) -> np.ndarray:
    """Voxels drawn so that rare densities and textures count as much as common ones; bool (z, y, x)."""
    density, lines = fine[0][usable], fine[3][usable]
    counts, *edges = np.histogram2d(density, lines, bins=BINS)
    first, second = (
        np.clip(np.digitize(values, edge) - 1, 0, len(edge) - 2)
        for values, edge in zip((density, lines), edges, strict=True)
    )
    chance = 1.0 / np.maximum(counts[first, second], 30)
    chance = np.minimum(chance * settings.points / chance.sum(), 1.0)
    chosen = np.zeros(usable.shape, bool)
    chosen[usable] = np.random.default_rng(settings.seed).random(len(chance)) < chance
    return chosen


def _points(one: _Sampled, projection: Projection) -> np.ndarray:
    """Descriptors of the sampled voxels of one CT, (points, dimensions)."""
    embedding = projection(torch.from_numpy(one.cells).permute(1, 2, 3, 0)).permute(3, 0, 1, 2).numpy()
    fine = np.zeros((len(one.fine), *one.mask.shape), np.float32)
    fine[:, one.chosen] = one.fine
    rows = slice(0, one.mask.shape[0])
    return descriptors_of(fine, np.ascontiguousarray(embedding), one.mask, rows)[:, one.chosen].T


def write_model(
    folder: Path,
    run: Path,
    sources: Iterable[Path],
    facts: dict[str, Any],
    plan: EmbeddingPlan,
    settings: ReferenceSettings,
    progress: Progress = silent,
) -> Path:
    """Make a model folder of a training run: the averaged student and the reference mixture fitted with it.

    A run without distillation has taught the head nothing: the embedding then holds the bottleneck as it is.

    Args:
        folder: the model folder to write.
        run: the training run's checkpoint.
        sources: the training CT.
        facts: name, version, licence, training data and whatever else ``model.json`` shall say.
        plan: windows and timesteps.
        settings: of the reference fit.
        progress: told of the fit.

    Returns:
        ``folder``.
    """
    weights = checkpoint.load_module(run, "average")
    header = checkpoint.load_facts(run)
    channels = header["settings"]["channels"]
    student = Student(channels)
    student.load_state_dict(weights)
    if header["settings"]["distillation"] == 0:
        student.head.pass_through()
        settings = replace(settings, taught=False)
    rule, fusion = NamingRule(), FusionSettings()
    reference = fit_reference(student.eval(), sources, plan, settings, rule, progress)
    storage.write_student(folder, student.state_dict())
    storage.write_mixture(folder, *reference)
    described = {
        **facts,
        "architecture": {"channels": list(channels), "hidden": 128},
        "hu_window": [-1000, 400],
        "spacing_mm": settings.spacing,
        "sharpness": settings.sharpness,
        "training": {"steps": header["step"], "settings": header["settings"]},
    }
    storage.write_description(folder, described, plan, rule, fusion, RegionSettings())
    return folder
