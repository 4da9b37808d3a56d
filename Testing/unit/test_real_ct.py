"""The whole method on real CT: a healthy lung stays healthy, disease is found where it was seen.

Skipped where the development data are not at hand (``DIFFSEGLUNG_DATA`` or ``../shared/data``).
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from DiffSegLungLib.anatomy import WHOLE
from DiffSegLungLib.evaluation.cases import make_case
from DiffSegLungLib.evaluation.hosts import HostFile, load_host
from DiffSegLungLib.evaluation.lesions import Lesion
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.lungs.lungs import segment_lungs
from DiffSegLungLib.models import store as models
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, GROUND_GLASS, HEALTHY, VESSEL

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = Path(os.environ.get("DIFFSEGLUNG_DATA", REPOSITORY.parent / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    not (DATA / "ct" / "normal001.nii.gz").exists(), reason="no real CT: DIFFSEGLUNG_DATA names none"
)


def run(name: str) -> Result:
    return segment(DATA / f"{name}.nii.gz", seed=0)


def test_healthy_lung_is_called_healthy() -> None:
    result = run("ct/normal001")
    whole = result.measures.loc[WHOLE]
    opacity = ("ground-glass", "fibrosis", "consolidation", "cavity")
    assert whole["emphysema_percent"] <= 2.0
    assert sum(whole[f"{tissue}_percent"] for tissue in opacity) <= 5.0
    # Of all lung voxels, vessels included, so that they cannot hide behind the denominator.
    assert np.mean(result.label_array[result.label_array > 0] == HEALTHY) >= 0.92


def test_covid_pneumonia_lies_in_the_slices_where_it_was_seen() -> None:
    labels = run("train/P001").label_array
    truth = json.loads((DATA / "train" / "P001_slice_labels.json").read_text(encoding="utf-8"))
    parenchyma = ((labels > 0) & (labels != VESSEL)).sum(axis=(1, 2))
    opacity = np.isin(labels, (GROUND_GLASS, CONSOLIDATION)).sum(axis=(1, 2))
    share = opacity / np.maximum(parenchyma, 1)
    assert roc_auc_score(truth["slice_infected_by_z"], share) >= 0.85


def test_bulla_is_emphysema() -> None:
    """The bulla of the right lower chest: a large region of air, not healthy and not a cavity."""
    from scipy import ndimage

    result = run("ct/LCTSC-Test-S1-203")
    air = ndimage.binary_opening((result.volume.hu < -960) & (result.label_array > 0), iterations=3)
    parts, _ = ndimage.label(air)
    bulla = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    assert bulla.sum() * result.volume.voxel_ml > 20
    assert np.mean(result.label_array[bulla] == EMPHYSEMA) > 0.9


def test_lobar_consolidation_is_lung() -> None:
    """Thresholds lose it: from pleura to heart it is as dense as what surrounds the lung."""
    healthy = load_host(HostFile("ct/normal001"), DATA)
    case = make_case(healthy, [Lesion("lobar", 60.0, 0.8, seed=101_000)])
    dense = case.truth == CONSOLIDATION
    by_thresholds = segment_lungs(case.hu, healthy.spacing)
    found = segment_lungs(case.hu, healthy.spacing, models.load().lungs)
    assert by_thresholds.mask[dense].mean() < 0.2, "thresholds would do"
    assert found.mask[dense].mean() > 0.7
