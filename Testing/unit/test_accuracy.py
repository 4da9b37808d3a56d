"""The regression guard: a fixed subset of the evaluation that needs no real CT; a drop of accuracy fails.

One lung of the phantom stands in for the host.  ``make evaluate`` has the figures on real CT.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.evaluation import stages
from DiffSegLungLib.evaluation.cases import Case, make_case
from DiffSegLungLib.evaluation.hosts import make_host
from DiffSegLungLib.evaluation.known_truth import Scorer, case_volume
from DiffSegLungLib.evaluation.lesions import Lesion
from DiffSegLungLib.lungs.lungs import Lungs
from DiffSegLungLib.models import store as models
from DiffSegLungLib.phantom import make_phantom
from DiffSegLungLib.tissues import CONSOLIDATION, FIBROSIS, GROUND_GLASS, OUTSIDE

LESIONS = (
    Lesion("honeycombing", 28.0, 0.7, 1),
    Lesion("bulla", 14.0, 0.5, 2),
    Lesion("centrilobular", 24.0, 0.9, 3),
    Lesion("wall-touching", 16.0, 0.6, 4),
    Lesion("ground-glass", 20.0, 0.6, 5),
    Lesion("thick-walled-cavity", 9.0, 0.5, 6),
)
# Three or four hundredths below what was measured; small lesions among the phantom's many lines are hard.
LEAST = {
    "healthy": 0.98,
    "emphysema": 0.70,
    "ground-glass": 0.72,
    "fibrosis": 0.55,
    "consolidation": 0.90,
    "cavity": 0.90,
}


@pytest.fixture(scope="module")
def scored() -> tuple[Case, np.ndarray]:
    if models.DEFAULT not in {info.name for info in models.list_models()}:
        pytest.skip(f"no model named {models.DEFAULT!r} is in this tree")
    phantom = make_phantom((2.0, 1.5, 1.5), seed=3, lesions=(), noise_hu=15.0)
    half = phantom.hu.shape[2] // 2
    hu = np.ascontiguousarray(phantom.hu[:, :, :half]).astype(np.float32)
    sides = (phantom.truth[:, :, :half] != OUTSIDE).astype(np.uint8)
    host = make_host("phantom", hu, (2.0, 1.5, 1.5), sides, np.zeros(sides.shape, bool))
    case = make_case(host, LESIONS)
    return case, segmented(case)


def segmented(case: Case) -> np.ndarray:
    """Labels of a case within the host's own lungs."""
    model = models.load()
    lungs = Lungs(case.host.sides, np.zeros(case.hu.shape, bool))
    prepared = stages.prepare(case_volume(case), model, found=lungs)
    labels, _ = stages.fuse_and_map(prepared, model, stages.decide(prepared, model))
    return labels


def test_every_lesion_found_room(scored: tuple[Case, np.ndarray]) -> None:
    assert len(scored[0].lesions) == len(LESIONS)


@pytest.mark.parametrize("tissue", LEAST)
def test_accuracy_has_not_dropped(scored: tuple[Case, np.ndarray], tissue: str) -> None:
    case, labels = scored
    assert Scorer(case).dice(labels)[tissue] >= LEAST[tissue]


def test_the_net_of_lines_is_what_tells_fibrosis(scored: tuple[Case, np.ndarray]) -> None:
    case, labels = scored
    true = (case.truth == FIBROSIS) & case.scored
    assert np.mean(labels[true] == FIBROSIS) > 3 * np.mean(labels[true] == GROUND_GLASS)
    glass = (case.truth == GROUND_GLASS) & case.scored
    assert np.mean(np.isin(labels[glass], (FIBROSIS, CONSOLIDATION))) < 0.35


def test_a_soft_kernel_leaves_fibrosis_its_name(scored: tuple[Case, np.ndarray]) -> None:
    case, labels = scored
    soft = replace(case, hu=ndimage.gaussian_filter(case.hu, (0, 0.8, 0.8)))
    true = (case.truth == FIBROSIS) & case.scored
    assert np.mean(segmented(soft)[true] == FIBROSIS) > 0.8 * np.mean(labels[true] == FIBROSIS)
