"""How well a label map tells what was painted."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import ndimage

from DiffSegLungLib.evaluation.painted.case import PaintedCase
from DiffSegLungLib.tissues import BY_LABEL, HEALTHY, OUTSIDE, VESSEL

FOUND_SHARE = 0.3
"""Share of a lesion that must be called diseased for it to be found."""
LEAST_ML = 0.05
"""Smaller lesions are not counted."""
ONE_LESION_MM = 3.0
"""What is painted closer together than twice this is one lesion."""


def score(labels: np.ndarray, case: PaintedCase) -> dict[str, Any]:
    """Compare a label map with the truth.

    Args:
        labels: uint8 (z, y, x) on the case's grid.
        case: from ``make_painted``.

    Returns:
        ``kind``, ``tissue`` and ``false_percent``, the share of the healthy lung that is called diseased; for
        disease also ``dice`` of the kind's tissue, ``any_dice`` of any disease, ``lesions`` and the share of
        them ``found``, ``named``: what the painted tissue is called, and ``held``, the share of it inside the
        labels' lungs.

    Raises:
        ValueError: the labels lie on another grid.
    """
    if labels.shape != case.truth.shape:
        raise ValueError(f"labels have shape {labels.shape}, the case {case.truth.shape}")
    rest = case.lungs & case.scored & (case.truth == HEALTHY)
    row: dict[str, Any] = {"kind": case.kind.name, "tissue": BY_LABEL[case.kind.tissue].key}
    if not case.kind.negative:
        row |= _of_disease(labels, case)
    row["false_percent"] = 100.0 * _share(_diseased(labels)[rest])
    return row


def _of_disease(labels: np.ndarray, case: PaintedCase) -> dict[str, Any]:
    painted = case.scored & (case.truth == case.kind.tissue)
    # As among readers: a vessel that is told apart inside disease is no miss.
    judged = case.scored & ~((case.truth > HEALTHY) & (labels == VESSEL))
    called = labels[painted]
    lesions, found = count_lesions(labels, case)
    return {
        "dice": _dice(judged & (labels == case.kind.tissue), judged & (case.truth == case.kind.tissue)),
        "any_dice": _dice(judged & _diseased(labels), judged & (case.truth > HEALTHY)),
        "lesions": lesions,
        "found": found / lesions if lesions else 0.0,
        "named": _named(called),
        "held": _share(called > OUTSIDE),
    }


def count_lesions(labels: np.ndarray, case: PaintedCase) -> tuple[int, int]:
    """Lesions of the truth, and how many of them are called diseased for ``FOUND_SHARE`` at least."""
    diseased = case.scored & (case.truth > HEALTHY)
    if not diseased.any():
        return 0, 0
    box = ndimage.find_objects(diseased.view(np.uint8))[0]
    near = ndimage.distance_transform_edt(~diseased[box], sampling=case.volume.spacing) <= ONE_LESION_MM
    numbers, count = ndimage.label(near)
    numbers = numbers[diseased[box]]
    volumes = np.bincount(numbers, minlength=count + 1)
    called = np.bincount(numbers, weights=_diseased(labels[box])[diseased[box]], minlength=count + 1)
    large = volumes * case.volume.voxel_ml > LEAST_ML
    return int(large.sum()), int((called[large] >= FOUND_SHARE * volumes[large]).sum())


def _diseased(labels: np.ndarray) -> np.ndarray:
    return (labels > HEALTHY) & (labels != VESSEL)


def _dice(found: np.ndarray, true: np.ndarray) -> float:
    return float(2 * (found & true).sum() / max(found.sum() + true.sum(), 1))


def _share(of: np.ndarray) -> float:
    return float(of.mean()) if of.size else 0.0


def _named(called: np.ndarray) -> dict[str, float]:
    counts = np.bincount(called, minlength=VESSEL + 1)
    names = {OUTSIDE: "outside"} | {label: tissue.key for label, tissue in BY_LABEL.items()}
    return {names[label]: float(count / max(called.size, 1)) for label, count in enumerate(counts) if count}
