"""One case of known truth: our labels, the baselines' and ours with a part left out, all scored alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.evaluation import baselines, metrics, probe, stages
from DiffSegLungLib.evaluation.cases import Case, draw_lesions, make_case
from DiffSegLungLib.evaluation.hosts import HostFile, load_host
from DiffSegLungLib.evaluation.stages import Prepared
from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.representation.quality import QUALITIES, STANDARD
from DiffSegLungLib.tissues import HEALTHY
from DiffSegLungLib.training.patches import patient_normalised

CALIBRATION_VOXELS = 300_000


def case_volume(case: Case) -> Volume:
    """The CT with lesions as the pipeline takes it, in canonical axes."""
    carrier = sitk.Image([int(side) for side in case.hu.shape[::-1]], sitk.sitkUInt8)
    carrier.SetSpacing([float(step) for step in case.host.spacing[::-1]])
    geometry = Geometry.of(carrier)
    return Volume(case.hu, case.host.spacing, geometry.place(sitk.Image([1, 1, 1], sitk.sitkUInt8)), geometry)


class Scorer:
    """Scores label maps of one case; what depends on the truth alone is made once.

    Args:
        case: the CT with lesions and its truth.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.sources = metrics.nearest_scored(case.scored, case.host.spacing)
        self.truth = metrics.fill_unscored(case.truth, case.scored, self.sources)

    def dice(self, labels: np.ndarray) -> dict[str, float]:
        """DSC by tissue."""
        return metrics.dice_by_tissue(labels, self.case.truth, self.case.scored)

    def hausdorff(self, labels: np.ndarray) -> dict[str, float]:
        """HD95 by tissue, in mm."""
        filled = metrics.fill_unscored(labels, self.case.scored, self.sources)
        lung = self.case.host.sides > 0
        return metrics.hausdorff_by_tissue(filled * lung, self.truth * lung, self.case.host.spacing)

    def volumes(self, labels: np.ndarray) -> dict[str, tuple[float, float]]:
        """True volume and error by tissue, in ml."""
        voxel_ml = float(np.prod(self.case.host.spacing)) / 1000.0
        return metrics.volume_errors(labels, self.case.truth, self.case.scored, voxel_ml)

    def calibration(self, labels: np.ndarray, uncertainty: np.ndarray) -> dict[str, Any]:
        """Error rate by uncertainty, over a sample of the scored voxels."""
        where = np.flatnonzero(self.case.scored & (labels > 0))
        where = np.random.default_rng(0).permutation(where)[:CALIBRATION_VOXELS]
        wrong = labels.ravel()[where] != self.case.truth.ravel()[where]
        return metrics.calibration_error(uncertainty.ravel()[where], wrong)


def run_case(
    file: HostFile,
    seed: int,
    data: Path,
    model: Model,
    retrained: Mapping[str, Model] | None = None,
    frozen: Mapping[str, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Make a case, segment it in every way, and score.

    Args:
        file: the host.
        seed: of the lesions.
        data: the data folder.
        model: ours.
        retrained: models trained with a part left out, by the name of the ablation.
        frozen: labels of an earlier state on this case, by its name.

    Returns:
        Plain numbers: ``dsc``, ``hd95_mm``, ``volumes``, ``calibration``, ``baselines``, ``ablations``,
        ``qualities``; and ``slice`` and ``cells`` for the figures and the probe.
    """
    retrained = retrained or {}
    case = make_case(load_host(file, data), draw_lesions(seed))
    prepared = stages.prepare(case_volume(case), model)
    scorer = Scorer(case)
    tissues = stages.decide(prepared, model)
    labels, uncertainty = stages.fuse_and_map(prepared, model, tissues)
    others = {
        name: stages.labels_to_volume(other, prepared)
        for name, other in baselines.run_all(prepared.grid, prepared.cells, seed).items()
    } | dict(frozen or {})
    return {
        "host": file.name,
        "seed": seed,
        "lesions": [(lesion.kind, lesion.radius, lesion.severity) for lesion in case.lesions],
        "dsc": scorer.dice(labels),
        "hd95_mm": scorer.hausdorff(labels),
        "volumes": scorer.volumes(labels),
        "calibration": scorer.calibration(labels, uncertainty),
        "baselines": {name: scorer.dice(other) for name, other in others.items()},
        "ablations": ablations(prepared, model, tissues, scorer, retrained),
        "qualities": qualities(prepared, model, scorer),
        "slice": _middle_slice(case, labels),
        "cells": vars(probe.describe_cells(case, prepared, model, retrained)),
    }


def ablations(
    prepared: Prepared, model: Model, tissues: Any, scorer: Scorer, retrained: Mapping[str, Model]
) -> dict[str, dict[str, Any]]:
    """Ours with one part left out; ``tissues`` is what ours decides before the fusion."""
    plain, _ = stages.fuse_and_map(prepared, stages.without_fusion(model), tissues)
    result: dict[str, dict[str, Any]] = {
        "no fusion": {"dsc": scorer.dice(plain), "hd95_mm": scorer.hausdorff(plain)}
    }
    no_cells = replace(prepared, cells=prepared.cells[:0])
    stretched = patient_normalised(prepared.grid.hu, prepared.grid.mask)
    single = stages.one_timestep(model)
    variants: dict[str, tuple[Prepared, Model]] = {
        "no diffusion features": (no_cells, stages.without_embedding(model)),
        "HU not preserved": (
            replace(prepared, cells=stages.embedding(stretched, prepared.grid, model)),
            model,
        ),
        "one timestep": (
            replace(prepared, cells=stages.embedding(prepared.grid.hu, prepared.grid, single)),
            single,
        ),
    }
    for name, other in retrained.items():
        cells = stages.embedding(prepared.grid.hu, prepared.grid, other)
        variants[name] = (replace(prepared, cells=cells), other)
    return result | {name: _dice_of(own, changed, scorer) for name, (own, changed) in variants.items()}


def qualities(prepared: Prepared, model: Model, scorer: Scorer) -> dict[str, dict[str, Any]]:
    """Ours with the work of each ``--quality``; ``prepared`` is of the standard one."""
    scores = {}
    for name in QUALITIES:
        own = prepared
        if name != STANDARD:
            cells = stages.embedding(prepared.grid.hu, prepared.grid, model, quality=name)
            own = replace(prepared, cells=cells)
        scores[name] = _dice_of(own, model, scorer)
    return scores


def _dice_of(prepared: Prepared, model: Model, scorer: Scorer) -> dict[str, Any]:
    """DSC by tissue of what is decided from here on."""
    labels, _ = stages.fuse_and_map(prepared, model, stages.decide(prepared, model))
    return {"dsc": scorer.dice(labels)}


def _middle_slice(case: Case, labels: np.ndarray) -> dict[str, np.ndarray]:
    """The slice with most kinds of disease, for the figures."""
    diseased = np.where(case.truth > HEALTHY, case.truth, 0)
    kinds = [len(np.unique(plane)) * 1e6 + (plane > 0).sum() for plane in diseased]
    z = int(np.argmax(kinds))
    return {
        "before": case.host.hu[z].astype(np.int16),
        "hu": case.hu[z].astype(np.int16),
        "truth": case.truth[z],
        "labels": labels[z],
    }
