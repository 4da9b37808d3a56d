"""Solid nodules of known truth in a real CT: which of them are called dense tissue, by diameter."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.evaluation.cases import Case, make_case
from DiffSegLungLib.evaluation.hosts import HostFile, load_host
from DiffSegLungLib.evaluation.known_truth import case_volume
from DiffSegLungLib.evaluation.lesions import Lesion
from DiffSegLungLib.evaluation.stages import decide, fuse_and_map, prepare
from DiffSegLungLib.tissues import CAVITY, CONSOLIDATION, FIBROSIS

COUNT = 40
RADIUS_MM = (3.0, 8.0)
BANDS_MM: tuple[tuple[int, int], ...] = ((6, 8), (8, 10), (10, 12), (12, 16))
"""Diameters, from and below."""
DENSE = (CONSOLIDATION, FIBROSIS, CAVITY)
FOUND = 0.5
"""Share of a nodule's voxels that must be called dense."""


def score(host: HostFile, seed: int, data: Path, model: Model) -> dict[str, Any]:
    """Place nodules into a host, segment, and say of each how much is called dense tissue.

    Returns:
        ``name`` and ``nodules``: a row each with ``diameter_mm`` and ``dense``, a share.
    """
    rng = np.random.default_rng((seed, 82))
    drawn = [
        Lesion("nodule", float(rng.uniform(*RADIUS_MM)), 0.5, int(rng.integers(1 << 30)))
        for _ in range(COUNT)
    ]
    case = make_case(load_host(host, data), drawn)
    prepared = prepare(case_volume(case), model)
    labels, _ = fuse_and_map(prepared, model, decide(prepared, model))
    return {"name": host.name, "seed": seed, "nodules": shares(case, labels)}


def shares(case: Case, labels: np.ndarray) -> list[dict[str, float]]:
    """Diameter of each nodule in mm, and the share of its voxels that is called dense."""
    spacing = np.array(case.host.spacing)
    where = np.argwhere(case.truth == CONSOLIDATION)
    places = np.array([lesion.place for lesion in case.lesions], float)
    own = cKDTree(places * spacing).query(where * spacing)[1]
    dense = np.isin(labels[tuple(where.T)], DENSE)
    return [
        {"diameter_mm": 2 * lesion.radius, "dense": float(dense[own == number].mean())}
        for number, lesion in enumerate(case.lesions)
        if (own == number).any()
    ]


def by_diameter(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each band of diameters the number of nodules, the share found, and the mean share called dense."""
    nodules = [nodule for row in rows for nodule in row["nodules"]]
    result = {}
    for low, high in BANDS_MM:
        band = [one["dense"] for one in nodules if low <= one["diameter_mm"] < high]
        if band:
            found = float(np.mean([share >= FOUND for share in band]))
            result[f"{low} to {high} mm"] = {
                "nodules": len(band),
                "found": found,
                "dense": float(np.mean(band)),
            }
    return result
