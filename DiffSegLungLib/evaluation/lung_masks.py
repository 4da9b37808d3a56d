"""The lungs themselves: experts' masks, and dense lung at chest wall, heart and diaphragm of known truth.

Every figure comes twice: with the model's lung network, and by thresholds alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.evaluation.cases import make_case
from DiffSegLungLib.evaluation.hosts import HostFile, load_host
from DiffSegLungLib.evaluation.lesions import Lesion
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.lungs.lungs import segment_lungs
from DiffSegLungLib.lungs.network import LungNetwork
from DiffSegLungLib.tissues import CONSOLIDATION

EXPERT_MASKS = ("ct/LCTSC-Test-S1-102", "ct/LCTSC-Test-S1-203", "train/LCTSC-Test-S1-104")
"""None of these patients was seen by the lung network in training."""
DENSE: tuple[tuple[str, float, float], ...] = (
    ("lobar", 60.0, 0.8),
    ("wall-touching", 40.0, 0.6),
    ("wall-touching", 20.0, 0.6),
)
"""Kind, radius in mm and severity: from a spot at the chest wall to half a lung over heart and diaphragm."""


def expert_mask(name: str, data: Path, model: Model) -> dict[str, Any]:
    """DSC of our lungs against an expert's."""
    volume = load_volume(data / f"{name}.nii.gz")
    expert = load_mask(data / f"{name}_lungmask.nii.gz", volume) > 0
    row: dict[str, Any] = {"name": name}
    for method, network in _methods(model).items():
        ours = segment_lungs(volume.hu, volume.spacing, network).mask
        row[method] = _dice(ours, expert)
    return row


def dense_lung(host: HostFile, seed: int, data: Path, model: Model) -> dict[str, Any]:
    """Dense lung placed into a healthy host: what of it our lungs hold, and DSC of the whole lungs.

    Returns:
        ``lesions``: a row a lesion with kind, radius in mm, ml, and recall by each method; ``dsc`` by each.
    """
    healthy = load_host(host, data)
    row: dict[str, Any] = {"name": host.name, "seed": seed, "lesions": [], "dsc": {}}
    voxel_ml = float(np.prod(healthy.spacing)) / 1000.0
    for number, (kind, radius, severity) in enumerate(DENSE):
        case = make_case(healthy, [Lesion(kind, radius, severity, 1000 * seed + number)])
        dense = case.truth == CONSOLIDATION
        entry: dict[str, Any] = {"kind": kind, "radius_mm": radius, "ml": float(dense.sum() * voxel_ml)}
        for method, network in _methods(model).items():
            ours = segment_lungs(case.hu, healthy.spacing, network).mask
            entry[method] = float(ours[dense].mean()) if dense.any() else float("nan")
            row["dsc"].setdefault(method, []).append(_dice(ours, healthy.sides > 0))
        row["lesions"].append(entry)
    return row


def _methods(model: Model) -> dict[str, LungNetwork | None]:
    """The network, where the model has one, and thresholds alone."""
    networks: dict[str, LungNetwork | None] = {"thresholds": None}
    return {"network": model.lungs, **networks} if model.lungs else networks


def _dice(ours: np.ndarray, truth: np.ndarray) -> float:
    return 2.0 * float((ours & truth).sum()) / float(ours.sum() + truth.sum())
