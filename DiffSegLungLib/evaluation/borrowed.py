"""Truth borrowed from others: slice labels, readers' marks, patches, a pair of kernels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.decision.naming import NAMED, log_density_prior, tissue_posterior
from DiffSegLungLib.densities import LOW_ATTENUATION_HU
from DiffSegLungLib.evaluation import baselines
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.parenchyma.vessels import Parenchyma
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.representation.features import fine_descriptors
from DiffSegLungLib.tissues import (
    BY_LABEL,
    CAVITY,
    CONSOLIDATION,
    DISEASES,
    EMPHYSEMA,
    FIBROSIS,
    GROUND_GLASS,
    HEALTHY,
    REPORTED,
    VESSEL,
)

SLICE_CASES = ("train/P001", "train/cap001")
HEALTHY_CASE = "ct/normal001"
KERNEL_PAIR = ("ct/Lung_Dx-A0001_B", "ct/Lung_Dx-A0001_L")
MARKED = (
    ("ct/LIDC-IDRI-0001", "_nodulevotes", 3),
    ("train/LIDC-IDRI-0003", "_nodulevotes", 3),
    ("ct/lung2", "_tumor", 1),
)
"""Solid nodules and a mass: dense tissue where readers saw it."""
INFILTRATES = (GROUND_GLASS, CONSOLIDATION)
PATCH_SLICES = 5
PATCH_MM = 0.75
"""About the pixel of the patches; their source states no spacing of each."""


def file_of(name: str, data: Path) -> Path:
    """The CT of a name below the data folder."""
    return data / f"{name}.nii.gz"


def slice_auc(name: str, data: Path, result: Result) -> dict[str, Any]:
    """Area under the curve of raised density a slice against the slices that readers called infected.

    The score of a slice is the share of its parenchyma that is ground glass or consolidation: what readers
    call infected; scars and widened bronchi are older.
    """
    from sklearn.metrics import roc_auc_score

    truth = json.loads((data / f"{name}_slice_labels.json").read_text(encoding="utf-8"))
    seen = np.array(truth["slice_infected_by_z"])
    lung = result.label_array > 0
    bounds = baselines.fixed_thresholds(result.volume.hu)
    maps = {"ours": result.label_array, "thresholds": np.where(lung, bounds, 0)}
    scores = {key: _raised_share(labels) for key, labels in maps.items()}
    return {"name": name, **{key: float(roc_auc_score(seen, share)) for key, share in scores.items()}}


def _raised_share(labels: np.ndarray) -> np.ndarray:
    parenchyma = ((labels > 0) & (labels != VESSEL)).sum(axis=(1, 2))
    return np.isin(labels, INFILTRATES).sum(axis=(1, 2)) / np.maximum(parenchyma, 1)


def healthy_lung(result: Result, others: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Disease called in a healthy lung, in percent of its parenchyma; other methods' labels beside ours."""
    lung = result.label_array > 0
    thresholds = baselines.fixed_thresholds(result.volume.hu)[lung]
    return {
        "name": HEALTHY_CASE,
        "ours": diseased_percent(result.label_array),
        "thresholds": 100.0 * float(np.mean(thresholds != HEALTHY)),
        "others": {name: diseased_percent(labels) for name, labels in others.items()},
        "by_tissue": volumes(result)[1],
    }


def diseased_percent(labels: np.ndarray) -> float:
    """Share of the parenchyma that carries a disease's label."""
    parenchyma = (labels > 0) & (labels != VESSEL)
    diseased = np.isin(labels, [tissue.label for tissue in DISEASES])
    return 100.0 * float(diseased.sum() / max(int(parenchyma.sum()), 1))


def volumes(result: Result) -> tuple[float, dict[str, float]]:
    """Parenchyma in ml, and each tissue's share of it in percent."""
    parenchyma = ((result.label_array > 0) & (result.label_array != VESSEL)).sum()
    shares = {
        tissue.key: 100.0 * float((result.label_array == tissue.label).sum() / max(int(parenchyma), 1))
        for tissue in REPORTED
    }
    return float(parenchyma * result.volume.voxel_ml), shares


def marked_lesion(name: str, suffix: str, votes: int, data: Path, model_name: str | None) -> dict[str, Any]:
    """What we call a nodule or mass that readers marked: shares of its voxels by tissue, in percent."""
    result = segment(file_of(name, data), model=model_name)
    marked = load_mask(data / f"{name}{suffix}.nii.gz", result.volume) >= votes
    found = result.label_array[marked]
    shares = {tissue.key: 100.0 * float(np.mean(found == tissue.label)) for tissue in BY_LABEL.values()}
    dense = float(np.isin(found, (CONSOLIDATION, GROUND_GLASS, FIBROSIS, CAVITY)).mean())
    return {
        "name": name,
        "marked_ml": float(marked.sum() * result.volume.voxel_ml),
        "dense_percent": 100.0 * dense,
        "outside_lung_percent": 100.0 * float(np.mean(found == 0)),
        "by_tissue": shares,
    }


def kernel_pair(data: Path, model_name: str | None) -> dict[str, Any]:
    """One patient, soft and sharp kernel: shares of the tissues in each, and what the reader is warned of."""
    rows = {}
    for name in KERNEL_PAIR:
        result = segment(file_of(name, data), model=model_name)
        rows[name] = {"percent": volumes(result)[1], "warnings": result.manifest["warnings"]}
    return {"name": "kernel pair A0001", "scans": rows}


# --- emphysema patches -----------------------------------------------------------------------------------


def emphysema_patches(data: Path, model: Model) -> dict[str, Any]:
    """Emphysema called in each of the 1,337 patches against their class; LAA-950 beside us.

    A patch is one small slice without lungs: density and texture decide without the embedding, and full
    inspiration is assumed, since there is no lung to read the level of inflation off.
    """
    from sklearn.metrics import roc_auc_score

    stored = np.load(data / "emphysema_patches" / "emphysema_patches_hu.npz", allow_pickle=False)
    ours = {key: np.array([_patch_emphysema(patch, model) for patch in stored[key]]) for key in stored}
    laa = {key: (stored[key] < LOW_ATTENUATION_HU).mean(axis=(1, 2)) for key in stored}

    def auc(scores: dict[str, np.ndarray], classes: tuple[str, ...]) -> float:
        positive = np.concatenate([scores[name] for name in classes])
        truth = np.r_[np.zeros(len(scores["NT"])), np.ones(len(positive))]
        return float(roc_auc_score(truth, np.r_[scores["NT"], positive]))

    severe = ("CL2", "CL3", "PL")
    return {
        "auc": auc(ours, severe),
        "laa950_auc": auc(laa, severe),
        "auc_by_class": {key: auc(ours, (key,)) for key in stored if key != "NT"},
        "mean_percent": {key: 100.0 * float(scores.mean()) for key, scores in ours.items()},
        "laa950_percent": {key: 100.0 * float(scores.mean()) for key, scores in laa.items()},
        "correlation_with_laa950": float(
            np.corrcoef(np.concatenate(list(ours.values())), np.concatenate(list(laa.values())))[0, 1]
        ),
    }


def _patch_emphysema(patch: np.ndarray, model: Model) -> float:
    """Share of the patch's pixels that are called emphysema."""
    from scipy import ndimage

    from DiffSegLungLib.evaluation.stages import without_embedding

    plane = ndimage.median_filter(patch.astype(np.float32), 3)
    block = np.repeat(plane[None], PATCH_SLICES, axis=0)
    mask = np.ones(block.shape, bool)
    empty = Parenchyma(np.zeros(block.shape, bool), np.zeros(block.shape, np.float32), block)
    fine = fine_descriptors(np.repeat(patch[None].astype(np.float32), PATCH_SLICES, 0), mask, empty, PATCH_MM)
    points = fine[:, PATCH_SLICES // 2].reshape(len(fine), -1).T
    plain = without_embedding(model)
    inspired = BY_LABEL[EMPHYSEMA].prior.high + model.rule.lucent_by
    prior = log_density_prior(plane.ravel(), inspired, model.rule)
    posterior = tissue_posterior(
        plain.mixture.log_densities(points),
        plain.mixture.weights,
        plain.labels,
        prior,
        plain.rule,
        plain.sharpness,
    )
    return float(np.mean(posterior.argmax(axis=1) == NAMED.index(EMPHYSEMA)))
