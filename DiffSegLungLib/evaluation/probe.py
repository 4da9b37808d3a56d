"""A linear probe: how far features of a 12 mm cell tell the tissues of known truth apart.

The probe alone sees the truth, and only to measure: a logistic regression fitted on the cells of some hosts
and asked about those of another.  No feature was trained on it.  What the network adds is the distance to
seven HU numbers of the same cell, which need no network.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.densities import AIR_HU
from DiffSegLungLib.evaluation.baselines import CELL, cell_grid, cut_cells
from DiffSegLungLib.evaluation.cases import Case
from DiffSegLungLib.evaluation.metrics import KEYS, mean
from DiffSegLungLib.evaluation.stages import Prepared
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.representation.diffusion import encode, from_hounsfield
from DiffSegLungLib.representation.distillation import EMBEDDING as LENGTH
from DiffSegLungLib.representation.features import embed
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.tissues import BY_KEY

HOUNSFIELD, TEACHER = "seven HU numbers", "34 radiomic numbers"
EMBEDDING, BOTTLENECK = "student embedding", "bottleneck"
PERCENTILES = (5, 25, 50, 75, 95)
LEAST_LUNG, LEAST_SCORED = 0.25, 0.05
"""Shares of a cell that must be lung, and whose truth must be known."""
LEAST_DISEASED = 0.25
"""Share of its known voxels from which on a cell is diseased; its tissue is the most frequent disease."""
MOST_HEALTHY = 3000
"""Healthy cells a case: there are far more than the fit needs."""
STRENGTH = 0.1
"""Inverse strength of the logistic regression's penalty."""
RIDGE = 100.0


@dataclass(frozen=True)
class Cells:
    """The cells of one case.

    Attributes:
        host: the CT that lesions were placed into; hosts are the folds.
        labels: uint8 (cells,), the tissue that most of the scored voxels of a cell are.
        features: (cells, numbers) by name; ``TEACHER`` and ``HOUNSFIELD`` are always there.
    """

    host: str
    labels: np.ndarray
    features: dict[str, np.ndarray]


class Both:
    """The student's embedding and, behind it, the bottleneck of its U-Net, in one pass.

    Args:
        student: who is read.
    """

    def __init__(self, student: Student) -> None:
        self.student = student

    def embed_hounsfield(
        self, hu: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor, timestep: int, numbers: torch.Tensor
    ) -> torch.Tensor:
        """As ``Student.embed_hounsfield``: (batch, EMBEDDING + channels, z/8, y/8, x/8)."""
        timesteps = torch.full((len(hu),), timestep, device=hu.device)
        noised = self.student.noised(from_hounsfield(hu), mask, noise.expand_as(hu), timesteps)
        bottleneck = encode(self.student.unet, noised, timesteps)
        return torch.cat([self.student.head(bottleneck, numbers), bottleneck], dim=1)


def describe_cells(
    case: Case, prepared: Prepared, model: Model, retrained: Mapping[str, Model] | None = None
) -> Cells:
    """Features and truth of the cells of one case.

    Args:
        case: the CT with lesions of known truth.
        prepared: the same CT on the working grid.
        model: ours.
        retrained: models trained with a part left out, by the name of the ablation.
    """
    from DiffSegLungLib.representation.radiomics.batched import teacher_for_patches

    hu, mask = prepared.grid.hu, prepared.grid.mask
    labels = tissue_of_cells(truth_on_grid(case, prepared), mask)
    chosen = _fewer_healthy(labels)
    blocks, insides = cut_cells(hu, AIR_HU)[chosen], cut_cells(mask, False)[chosen]
    features = {
        HOUNSFIELD: hounsfield_numbers(blocks, insides),
        TEACHER: teacher_for_patches(blocks, insides),
    }
    for name, other in ({"": model} | dict(retrained or {})).items():
        both, told = _read(other, hu, mask, chosen), f", {name}" if name else ""
        features[EMBEDDING + told], features[BOTTLENECK + told] = both[:, :LENGTH], both[:, LENGTH:]
    return Cells(case.host.name, labels[chosen], features)


def _read(model: Model, hu: np.ndarray, mask: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Embedding and bottleneck of the chosen cells, mean of the noise levels: (cells, numbers)."""
    levels = len(model.plan.timesteps)
    both: Any = Both(model.student)
    cells = embed(both, hu, mask, lambda values: values.unflatten(-1, (levels, -1)).mean(-2), model.plan)
    z, y, x = cell_grid(mask.shape)
    return cells[:, :z, :y, :x].reshape(len(cells), -1)[:, chosen].T


def truth_on_grid(case: Case, prepared: Prepared) -> np.ndarray:
    """Truth on the working grid, 0 where it is not known; uint8 (z, y, x)."""
    grid = prepared.grid
    known = np.where(case.scored, case.truth, 0).astype(np.uint8)[grid.box]
    spacing, shape = (grid.spacing,) * 3, grid.hu.shape
    return resample(
        np.ascontiguousarray(known), case.host.spacing, spacing, interpolation="nearest", size=shape
    )


def tissue_of_cells(truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The tissue of each cell, 0 where too little of it is lung or known; uint8 (cells,).

    Args:
        truth: label of each voxel, 0 where it is not known, (z, y, x).
        mask: bool, the lungs.
    """
    known, lung = cut_cells(truth, 0).reshape(-1, CELL**3), cut_cells(mask, False).reshape(-1, CELL**3)
    values = np.array([BY_KEY[key].label for key in KEYS])
    counts = np.stack([(known == value).sum(axis=1) for value in values], axis=1)
    enough = (counts.sum(axis=1) >= LEAST_SCORED * CELL**3) & (lung.mean(axis=1) >= LEAST_LUNG)
    diseased = counts[:, 1:].sum(axis=1) >= LEAST_DISEASED * counts.sum(axis=1)
    tissue = np.where(diseased, values[1 + counts[:, 1:].argmax(axis=1)], values[0])
    return np.where(enough, tissue, 0).astype(np.uint8)


def _fewer_healthy(labels: np.ndarray) -> np.ndarray:
    """Numbers of the cells that are used: all of disease, some of healthy lung."""
    healthy = np.flatnonzero(labels == BY_KEY["healthy"].label)
    kept = np.random.default_rng(0).permutation(healthy)[:MOST_HEALTHY]
    diseased = np.flatnonzero((labels > 0) & (labels != BY_KEY["healthy"].label))
    return np.sort(np.concatenate([kept, diseased]))


def hounsfield_numbers(blocks: np.ndarray, insides: np.ndarray) -> np.ndarray:
    """Mean, deviation and five percentiles of the HU of each cell's lung, (cells, 7)."""
    values = np.where(insides, blocks, np.nan).reshape(len(blocks), -1)
    with warnings.catch_warnings():  # a cell without lung has no numbers, and never counts
        warnings.simplefilter("ignore", RuntimeWarning)
        shares = np.nanpercentile(values, PERCENTILES, axis=1)
        return np.nan_to_num(np.stack([np.nanmean(values, axis=1), np.nanstd(values, axis=1), *shares], 1))


# --- the probe -------------------------------------------------------------------------------------------


def probe(cases: Sequence[Cells]) -> dict[str, dict[str, Any]]:
    """Balanced accuracy of each feature, the embedding also beside the HU numbers, hosts as folds.

    Args:
        cases: cells of two hosts at least.

    Returns:
        By feature: ``balanced_accuracy``, ``by_tissue`` (share of its cells found) and ``teacher_r2``.
    """
    names = [name for name in cases[0].features if all(name in one.features for one in cases)]
    result: dict[str, dict[str, Any]] = {}
    for name in names:
        result[name] = _judge(cases, (name,))
        if name == EMBEDDING:
            result[f"{name} + {HOUNSFIELD}"] = _judge(cases, (name, HOUNSFIELD))
    return result


def _judge(cases: Sequence[Cells], names: Sequence[str]) -> dict[str, Any]:
    labels = np.concatenate([one.labels for one in cases])
    hosts = np.concatenate([np.full(len(one.labels), one.host) for one in cases])
    teacher = np.concatenate([one.features[TEACHER] for one in cases])
    numbers = np.concatenate([np.hstack([one.features[name] for name in names]) for one in cases])
    found, explained = np.zeros(len(labels), np.uint8), []
    for host in np.unique(hosts):
        test = hosts == host
        own, other = _standardised(numbers[~test], numbers[test])
        found[test] = _classify(own, labels[~test], other)
        if TEACHER not in names:
            explained.append(_explained(own, teacher[~test], other, teacher[test]))
    shares = {key: _recall(found, labels, BY_KEY[key].label) for key in KEYS}
    return {
        "balanced_accuracy": mean(shares.values()),
        "by_tissue": shares,
        "teacher_r2": mean(explained) if explained else float("nan"),
        "cells": len(labels),
    }


def _standardised(own: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    middle, scale = own.mean(axis=0), np.maximum(own.std(axis=0), 1e-6)
    return (own - middle) / scale, (other - middle) / scale


def _classify(own: np.ndarray, labels: np.ndarray, other: np.ndarray) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression

    fitted = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=300).fit(own, labels)
    return np.asarray(fitted.predict(other), dtype=np.uint8)


def _explained(own: np.ndarray, teacher: np.ndarray, other: np.ndarray, wanted: np.ndarray) -> float:
    """Share of the teacher's variance in the test host that a linear map explains, mean over its numbers."""
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score

    guessed = Ridge(alpha=RIDGE).fit(own, teacher).predict(other)
    return float(np.clip(r2_score(wanted, guessed, multioutput="raw_values"), 0.0, 1.0).mean())


def _recall(found: np.ndarray, labels: np.ndarray, label: int) -> float:
    where = labels == label
    return float((found[where] == label).mean()) if where.any() else float("nan")
