"""How well a label map agrees with the truth: overlap, distance, volume, calibration."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from DiffSegLungLib.tissues import REPORTED, TISSUES

KEYS: tuple[str, ...] = tuple(tissue.key for tissue in REPORTED)
"""The tissues that are scored, as named in ``results.json``."""
RESAMPLES = 2000


def fill_unscored(labels: np.ndarray, scored: np.ndarray, sources: Sequence[np.ndarray]) -> np.ndarray:
    """Give unscored lung the label of the nearest scored voxel, so that a vessel makes no surface."""
    filled = labels[tuple(sources)]
    return np.where(scored, labels, filled)


def nearest_scored(scored: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, ...]:
    """Indices of the nearest scored voxel of each voxel."""
    found = ndimage.distance_transform_edt(
        ~scored, sampling=spacing, return_distances=False, return_indices=True
    )
    return tuple(axis.astype(np.int16) for axis in found)


def dice_by_tissue(labels: np.ndarray, truth: np.ndarray, scored: np.ndarray) -> dict[str, float]:
    """DSC of each tissue over the scored voxels; NaN where neither map has it."""
    count = len(TISSUES) + 1
    joint = np.bincount(
        truth[scored].astype(np.int64) * count + labels[scored], minlength=count * count
    ).reshape(count, count)
    result = {}
    for tissue in REPORTED:
        total = joint[tissue.label].sum() + joint[:, tissue.label].sum()
        result[tissue.key] = 2.0 * joint[tissue.label, tissue.label] / total if total else float("nan")
    return result


def volume_errors(
    labels: np.ndarray, truth: np.ndarray, scored: np.ndarray, voxel_ml: float
) -> dict[str, tuple[float, float]]:
    """True volume and signed error of each tissue in ml, over the scored voxels."""
    result = {}
    for tissue in REPORTED:
        true = float((truth[scored] == tissue.label).sum() * voxel_ml)
        result[tissue.key] = true, float((labels[scored] == tissue.label).sum() * voxel_ml) - true
    return result


def hausdorff_by_tissue(labels: np.ndarray, truth: np.ndarray, spacing: Sequence[float]) -> dict[str, float]:
    """95th percentile of the symmetric surface distance in mm (MONAI); NaN where a map lacks the tissue."""
    import torch
    from monai.metrics import compute_hausdorff_distance

    result = {}
    for tissue in REPORTED:
        both = [labels == tissue.label, truth == tissue.label]
        if not (both[0].any() and both[1].any()):
            result[tissue.key] = float("nan")
            continue
        box = ndimage.find_objects((both[0] | both[1]).astype(np.uint8))[0]
        found, true = (torch.from_numpy(np.pad(one[box], 1)[None, None].astype(np.uint8)) for one in both)
        distance = compute_hausdorff_distance(
            found, true, include_background=True, percentile=95, spacing=list(spacing)
        )
        result[tissue.key] = float(distance)
    return result


def calibration_error(uncertainty: np.ndarray, wrong: np.ndarray, bins: int = 10) -> dict[str, Any]:
    """Does uncertainty tell where the labels are wrong?

    Args:
        uncertainty: normalised entropy, (voxels,).
        wrong: bool, (voxels,).
        bins: of equal width in uncertainty.

    Returns:
        ``auc`` of telling wrong voxels from right ones; for each bin its middle, error rate and share.
    """
    from sklearn.metrics import roc_auc_score

    index = np.clip((uncertainty * bins).astype(int), 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    errors = np.bincount(index, weights=wrong, minlength=bins)
    rate = errors / np.maximum(count, 1)
    both = 0 < wrong.sum() < wrong.size
    return {
        "auc": float(roc_auc_score(wrong, uncertainty)) if both else float("nan"),
        "bins": [
            {"uncertainty": (number + 0.5) / bins, "error_rate": float(rate[number]), "share": float(share)}
            for number, share in enumerate(count / max(count.sum(), 1))
        ],
    }


def mean(values: Iterable[float]) -> float:
    """Mean of what is a number; NaN where nothing is."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def bootstrap(values: Iterable[float], seed: int = 0) -> tuple[float, float]:
    """95 % interval of the mean over cases, by resampling cases."""
    known = np.array([value for value in values if np.isfinite(value)])
    if known.size < 2:
        return float("nan"), float("nan")
    draws = np.random.default_rng(seed).choice(known, (RESAMPLES, known.size)).mean(axis=1)
    return float(np.percentile(draws, 2.5)), float(np.percentile(draws, 97.5))
