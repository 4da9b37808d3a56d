"""The evaluation measures what it says: lesions as painted, metrics, baselines, judgement and files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.evaluation import (
    baselines,
    metrics,
    nodules,
    probe,
    robustness,
    stages,
    study,
    summary,
    widespread,
)
from DiffSegLungLib.evaluation.cases import Case, draw_lesions, make_case
from DiffSegLungLib.evaluation.hosts import REPORTED, REPORTED_SEEDS, TUNING, TUNING_SEEDS, Host, make_host
from DiffSegLungLib.evaluation.known_truth import Scorer, ablations, case_volume, qualities
from DiffSegLungLib.evaluation.lesions import KINDS, Lesion
from DiffSegLungLib.evaluation.stages import Prepared
from DiffSegLungLib.evaluation.study import Outcome, Plan
from DiffSegLungLib.lungs.lungs import Lungs
from DiffSegLungLib.models import store as models
from DiffSegLungLib.parenchyma.grid import working_grid
from DiffSegLungLib.parenchyma.vessels import Parenchyma
from DiffSegLungLib.representation.features import EmbeddingPlan
from DiffSegLungLib.representation.quality import QUALITIES, STANDARD
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.tissues import CAVITY, CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY
from Testing.unit.tiny_model import write_tiny_model

SPACING = (2.5, 1.2, 1.2)
NOISE_HU = 15.0
MIDDLE = (22.0, 50.0, 40.0)
HU_RANGE = {
    EMPHYSEMA: (-1000, -900),
    GROUND_GLASS: (-760, -430),
    FIBROSIS: (-760, -300),
    CONSOLIDATION: (-30, 80),
    CAVITY: (-1010, -900),
}
"""Where the median of a painted tissue must lie."""


@pytest.fixture(scope="module")
def host() -> Host:
    """A block of aerated lung with noise and a few straight vessels, soft tissue around it."""
    shape = (44, 100, 90)
    z, y, x = np.indices(shape)
    lung = (z > 2) & (z < 41) & (y > 8) & (y < 92) & (x > 6) & (x < 84)
    clean = np.where(lung, -860.0, 40.0)
    clean[lung & (((y % 24) - 12) ** 2 + ((z % 16) - 8) ** 2 < 3)] = 30.0
    noise = np.random.default_rng(0).normal(0, NOISE_HU, shape)
    sides = np.where(lung, 1, 0).astype(np.uint8)
    return make_host("block", (clean + noise).astype(np.float32), SPACING, sides, np.zeros(shape, bool))


def placed(host: Host, kind: str, severity: float = 0.5) -> Case:
    surface = KINDS[kind].depth[0] < 12
    place = (MIDDLE[0], 16.0 if surface else MIDDLE[1], MIDDLE[2])
    return make_case(host, [Lesion(kind, 16.0, severity, 5, place)])


@pytest.mark.parametrize("kind", KINDS)
def test_each_lesion_shows_its_tissue_where_the_truth_says(host: Host, kind: str) -> None:
    case, label = placed(host, kind), KINDS[kind].tissue
    where = (case.truth == label) & (host.vessels < 0.05)
    assert where.sum() * np.prod(SPACING) > 300
    low, high = HU_RANGE[label]
    assert low < np.median(case.hu[where]) < high
    assert not (case.truth[host.sides == 0] > 0).any()
    untouched = np.linalg.norm((np.indices(case.hu.shape).T - np.array(MIDDLE)) * SPACING, axis=-1).T > 90
    assert np.array_equal(case.hu[untouched], host.hu[untouched])


def test_the_same_seed_paints_the_same_voxels_and_another_does_not(host: Host) -> None:
    first, again = (make_case(host, [Lesion("ground-glass", 16.0, 0.5, 5)]) for _ in range(2))
    other = make_case(host, [Lesion("ground-glass", 16.0, 0.5, 6)])
    assert np.array_equal(first.hu, again.hu)
    assert not np.array_equal(first.truth, other.truth)


def test_severity_and_radius_do_what_they_say(host: Host) -> None:
    light, dense = (placed(host, "ground-glass", severity) for severity in (0.1, 0.9))
    glass = (light.truth == GROUND_GLASS) & (host.vessels < 0.05)
    assert dense.hu[glass].mean() - light.hu[glass].mean() > 100
    small, large = (make_case(host, [Lesion("ground-glass", r, 0.5, 5, MIDDLE)]) for r in (8.0, 20.0))
    assert (large.truth == GROUND_GLASS).sum() > 5 * (small.truth == GROUND_GLASS).sum()


def test_ground_glass_keeps_vessels_and_noise(host: Host) -> None:
    case = placed(host, "ground-glass")
    glass = case.truth == GROUND_GLASS
    vessel = glass & (host.hu > -50)
    assert np.abs(case.hu[vessel] - host.hu[vessel]).mean() < 40
    solid = placed(host, "consolidation")
    core = (solid.truth == CONSOLIDATION) & (solid.hu > -60)
    grain = np.diff(solid.hu, axis=0)[core[1:] & core[:-1]].std() / np.sqrt(2)
    assert 0.6 * NOISE_HU < grain < 2.0 * NOISE_HU


def test_measured_grain_is_the_noise_that_was_there(host: Host) -> None:
    assert host.grain.deviation == pytest.approx(NOISE_HU, rel=0.3)
    assert host.grain.field((6, 60, 60), 1).std() == pytest.approx(host.grain.deviation, rel=1e-3)


def test_vessels_and_own_lesions_are_not_scored_but_consolidation_is(host: Host) -> None:
    case = placed(host, "consolidation")
    vessel = (host.hu > -50) & (host.sides > 0)
    assert not host.scored[vessel].any()
    assert case.scored[vessel & (case.truth == CONSOLIDATION)].all()


def test_tuning_and_reported_share_neither_host_nor_seed() -> None:
    assert not {host.name for host in TUNING} & {host.name for host in REPORTED}
    assert not set(TUNING_SEEDS) & set(REPORTED_SEEDS)
    assert {lesion.kind for lesion in draw_lesions(REPORTED_SEEDS[0])} == set(KINDS) - {"nodule"}


# --- metrics ---------------------------------------------------------------------------------------------


def two_boxes() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth, labels = np.ones((20, 20, 20), np.uint8), np.ones((20, 20, 20), np.uint8)
    truth[5:15, 5:15, 5:15] = EMPHYSEMA
    labels[5:15, 5:15, 8:18] = EMPHYSEMA
    return truth, labels, np.ones(truth.shape, bool)


def test_dice_and_hausdorff_of_a_shifted_box() -> None:
    truth, labels, scored = two_boxes()
    assert metrics.dice_by_tissue(labels, truth, scored)["emphysema"] == pytest.approx(0.7)
    distance = metrics.hausdorff_by_tissue(labels, truth, (2.0, 1.0, 1.5))["emphysema"]
    assert distance == pytest.approx(3 * 1.5)
    assert np.isnan(metrics.dice_by_tissue(labels, truth, scored)["cavity"])


def test_what_is_not_scored_does_not_count() -> None:
    truth, labels, scored = two_boxes()
    scored &= (labels == EMPHYSEMA) == (truth == EMPHYSEMA)
    assert metrics.dice_by_tissue(labels, truth, scored)["emphysema"] == 1.0
    sources = metrics.nearest_scored(scored, (1, 1, 1))
    assert set(np.unique(metrics.fill_unscored(labels, scored, sources))) == {HEALTHY, EMPHYSEMA}


def test_volume_error_is_signed_and_in_millilitres() -> None:
    truth, labels, scored = two_boxes()
    labels[labels == EMPHYSEMA] = HEALTHY
    assert metrics.volume_errors(labels, truth, scored, 0.5)["emphysema"] == (500.0, -500.0)


def test_calibration_tells_a_knowing_uncertainty_from_a_blind_one() -> None:
    rng = np.random.default_rng(0)
    uncertainty = rng.random(20_000)
    knowing = metrics.calibration_error(uncertainty, rng.random(20_000) < uncertainty)
    blind = metrics.calibration_error(uncertainty, rng.random(20_000) < 0.3)
    assert knowing["auc"] > 0.75 > 0.55 > blind["auc"]
    rates = [one["error_rate"] for one in knowing["bins"]]
    assert rates == sorted(rates)


def test_bootstrap_interval_holds_the_mean_and_ignores_nan() -> None:
    values = [0.7, 0.8, 0.9, float("nan")]
    low, high = metrics.bootstrap(values)
    assert 0.699 < low < metrics.mean(values) < high < 0.901


# --- baselines and robustness ----------------------------------------------------------------------------


def test_opening_takes_a_vessel_from_the_thresholds_but_not_a_lesion() -> None:
    hu = np.full((24, 24, 24), -860.0, np.float32)
    hu[:, 4:7, 4:7] = 30.0
    hu[8:20, 12:22, 12:22] = -550.0
    plain, opened = baselines.fixed_thresholds(hu), baselines.opened_thresholds(hu, (1.5, 1.5, 1.5))
    assert (plain[:, 5, 5] != HEALTHY).mean() > 0.5
    assert (opened[:, 4:7, 4:7] == HEALTHY).all()
    assert (opened[10:18, 14:20, 14:20] == GROUND_GLASS).all()


def test_clusters_are_named_by_their_mean_density() -> None:
    hu = np.full((16, 32, 32), -860.0, np.float32)
    hu[:, 16:] = 20.0
    hu += np.random.default_rng(0).normal(0, 5, hu.shape).astype(np.float32)
    mask = np.ones(hu.shape, bool)
    for labels in (baselines.hounsfield_mixture(hu, mask, 0), baselines.radiomic_clusters(hu, mask, 0)):
        assert (labels[:, :14] == HEALTHY).mean() > 0.9
        assert (labels[:, 18:] == CONSOLIDATION).mean() > 0.9


def scan(emphysema: float, warnings: list[str]) -> dict[str, Any]:
    percent = {"healthy": 100.0 - emphysema, "emphysema": emphysema}
    return {"name": "x", "percent": percent, "warnings": warnings}


def test_a_changed_volume_must_be_warned_of() -> None:
    plain = scan(30.0, ["Old warning."])
    assert robustness.judge(scan(32.5, []), plain)["volumes_held"]
    assert not robustness.judge(scan(36.0, ["Old warning."]), plain)["held"]
    same = robustness.judge(scan(36.0, ["71 mL counted as lung"]), scan(30.0, ["65 mL counted as lung"]))
    assert not same["held"]


BLURRED = "Fine lines are blurred by 21 % by a soft kernel (its noise correlates by 0.52): that was allowed"
TOO_HIGH = "the CT values lie 33 HU too high by trachea (-939 HU) and blood (68 HU): tissues were judged"


@pytest.mark.parametrize(
    ("change", "warning", "held"),
    [
        ("smoothed", BLURRED, True),
        ("smoothed", TOO_HIGH, False),
        ("smoothed", "251 mL of gas high in the chest were not counted as lung", False),
        ("offset +30 HU", TOO_HIGH, True),
        ("offset -30 HU", TOO_HIGH, False),
        ("slices 5 mm", "Slices lie 5 mm apart; fine patterns need 1.5 mm or less.", True),
        ("noise 25 HU", BLURRED, False),
    ],
)
def test_only_the_warning_of_this_very_change_counts(change: str, warning: str, held: bool) -> None:
    verdict = robustness.judge(scan(36.0, [warning]) | {"name": change}, scan(30.0, []))
    assert verdict["held"] == held and not verdict["volumes_held"]
    assert verdict["new_warnings"] == [warning]
    assert verdict["expected_warnings"] == ([warning] if held else [])


def test_each_change_that_may_be_warned_of_is_one() -> None:
    assert set(robustness.EXPECTED) < set(robustness.CHANGES)


def test_each_nodule_has_its_own_share(host: Host) -> None:
    lesions = [
        Lesion("nodule", 5.0, place=(22.0, 30.0, 40.0)),
        Lesion("nodule", 4.0, place=(22.0, 70.0, 40.0)),
    ]
    case = make_case(host, lesions)
    labels = np.where(
        (case.truth == CONSOLIDATION) & (np.arange(case.truth.shape[1]) < 50)[:, None], CONSOLIDATION, HEALTHY
    )
    first, second = nodules.shares(case, labels)
    assert (first["diameter_mm"], first["dense"]) == (10.0, 1.0)
    assert (second["diameter_mm"], second["dense"]) == (8.0, 0.0)
    bands = nodules.by_diameter([{"nodules": [first, second]}])
    assert bands == {
        "8 to 10 mm": {"nodules": 1, "found": 0.0, "dense": 0.0},
        "10 to 12 mm": {"nodules": 1, "found": 1.0, "dense": 1.0},
    }


@pytest.mark.parametrize("spread", widespread.SPREADS, ids=lambda spread: spread.name)
def test_a_spread_takes_its_share_of_the_lungs(spread: widespread.Spread, host: Host) -> None:
    hu, where = widespread.painted(host, spread, 1)
    lung = host.sides > 0
    assert where.sum() / lung.sum() == pytest.approx(spread.extent, abs=0.01)
    assert np.array_equal(hu[~lung], host.hu[~lung])
    inside = ndimage.binary_erosion(where, iterations=3)
    free = inside & (host.vessels == 0)
    expected = (1 - spread.filled) * host.hu[free].mean() + spread.filled * spread.hu
    assert hu[free].mean() == pytest.approx(expected, abs=25)
    vessels = inside & (host.vessels > 0.99)
    assert spread.label == CONSOLIDATION or np.array_equal(hu[vessels], host.hu[vessels])
    low = np.nonzero(where)[1 if spread.dorsal else 0].mean()
    other = np.nonzero(lung & ~where)[1 if spread.dorsal else 0].mean()
    assert low > other if spread.dorsal else low < other


def test_spreads_are_counted_over_the_hosts() -> None:
    name = widespread.SPREADS[0].name
    rows = [
        {"spreads": [{"spread": name, "held": held, "named": held - 0.1, "elsewhere": 0.0}]}
        for held in (0.9, 0.7)
    ]
    counted = {"hosts": 2, "held_least": 0.7, "named": pytest.approx(0.7), "elsewhere": 0.0}
    assert widespread.by_spread(rows) == {name: counted}


# --- qualities -------------------------------------------------------------------------------------------


def test_each_quality_is_scored_with_an_embedding_of_its_own(host: Host, tmp_path: Path) -> None:
    model = models.load(str(write_tiny_model(tmp_path / "tiny", 1.2)))
    case, lungs = placed(host, "ground-glass"), Lungs(host.sides, np.zeros(host.sides.shape, bool))
    prepared, scorer = stages.prepare(case_volume(case), model, found=lungs), Scorer(case)
    scores = qualities(prepared, model, scorer)
    assert list(scores) == list(QUALITIES)
    assert all(row["dsc"]["healthy"] > 0.9 for row in scores.values())
    own, _ = stages.fuse_and_map(prepared, model, stages.decide(prepared, model))
    assert scores[STANDARD]["dsc"]["ground-glass"] == scorer.dice(own)["ground-glass"]
    fast, standard, best = (
        stages.embedding(prepared.grid.hu, prepared.grid, model, quality=name) for name in QUALITIES
    )
    assert np.array_equal(standard, prepared.cells)
    assert not np.allclose(fast, standard, atol=1e-3)
    assert not np.allclose(best, standard, atol=1e-3)


# --- ablations -------------------------------------------------------------------------------------------


def test_a_model_trained_otherwise_has_its_own_row(host: Host, tmp_path: Path) -> None:
    model = models.load(str(write_tiny_model(tmp_path / "tiny", 1.2)))
    case, lungs = placed(host, "ground-glass"), Lungs(host.sides, np.zeros(host.sides.shape, bool))
    prepared, scorer = stages.prepare(case_volume(case), model, found=lungs), Scorer(case)
    tissues = stages.decide(prepared, model)
    # A model that drops any raised region below a litre.
    other = replace(model, regions=replace(model.regions, raised_ml=1000.0))
    rows = ablations(prepared, model, tissues, scorer, {"no x": other, "the same": model})
    own, _ = stages.fuse_and_map(prepared, model, tissues)
    assert rows["the same"]["dsc"] == pytest.approx(scorer.dice(own), nan_ok=True)
    assert rows["no x"]["dsc"]["ground-glass"] < rows["the same"]["dsc"]["ground-glass"] - 0.3
    assert not {"no x", "the same"} & set(ablations(prepared, model, tissues, scorer, {}))


def test_models_trained_otherwise_are_those_that_the_user_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(tmp_path))
    assert study.retrained() == {}
    assert study.describe(Plan(tmp_path))["not_retrained"] == sorted(study.RETRAINED)
    folder = write_tiny_model(tmp_path / "no-warm-up", 1.5)
    facts = study.describe(Plan(tmp_path))
    row = "short training, no warm-up"
    assert list(facts["retrained"]) == [row] and row not in facts["not_retrained"]
    with (folder / "weights.safetensors").open("ab") as weights:
        weights.write(b"x")
    with pytest.raises(MissingPartError, match="damaged"):
        study.retrained()


# --- files -----------------------------------------------------------------------------------------------


def row(seed: int, dice: float) -> dict[str, Any]:
    both = {"dsc": dict.fromkeys(metrics.KEYS, dice), "hd95_mm": dict.fromkeys(metrics.KEYS, 10.0)}
    plane = {"before": np.full((9, 9), -860), "hu": np.full((9, 9), -860)}
    plane |= {"truth": np.ones((9, 9), np.uint8), "labels": np.ones((9, 9), np.uint8)}
    return {
        "host": "ct/x",
        "seed": seed,
        "dsc": dict.fromkeys(metrics.KEYS, dice),
        "hd95_mm": dict.fromkeys(metrics.KEYS, 5.0),
        "volumes": dict.fromkeys(metrics.KEYS, (10.0, -1.0)),
        "calibration": {"auc": 0.8, "bins": []},
        "baselines": {"thresholds": dict.fromkeys(metrics.KEYS, 0.5)},
        "ablations": {"no fusion": both},
        "qualities": {name: {"dsc": dict.fromkeys(metrics.KEYS, dice)} for name in QUALITIES},
        "slice": plane,
    }


def dense(network: float, thresholds: float) -> dict[str, Any]:
    return {"kind": "lobar", "radius_mm": 60.0, "ml": 300.0, "network": network, "thresholds": thresholds}


def changed_scan(subject: str, name: str, emphysema: float, dice: float | None = None) -> dict[str, Any]:
    known = {} if dice is None else {"dsc": dict.fromkeys(metrics.KEYS, dice)}
    return {**scan(emphysema, []), "subject": subject, "name": name, **known}


def some_outcome(folder: Path) -> Outcome:
    """Of every part of a study some rows."""
    outcome = Outcome(Plan(folder), seconds=90.0)
    outcome.facts = {"commit": "c", "weights_sha256": "w", "model": "m", "hosts": ["ct/x"]}
    outcome.facts |= {"lesion_seeds": [1, 2], "segmentation_seed": 0}
    outcome.facts |= {"retrained": {"no distillation": "0123456789abcdef"}, "not_retrained": ["no warm-up"]}
    outcome.rows = {
        "cases": [
            row(1, 0.8) | {"cells": vars(some_cells("ct/x", 1, True))},
            row(2, 0.9) | {"cells": vars(some_cells("ct/y", 2, True))},
        ],
        "slices": [{"name": "train/P001", "ours": 0.93, "thresholds": 0.8}],
        "healthy": [{"name": "ct/normal001", "ours": 0.5, "thresholds": 8.7, "others": {"thresholds": 9.1}}],
        "lungs": [
            {"name": "ct/a", "network": 0.98, "thresholds": 0.97},
            {"name": "ct/b", "thresholds": 0.96},
        ],
        "nodules": [{"nodules": [{"diameter_mm": 9.0, "dense": 0.8}, {"diameter_mm": 9.5, "dense": 0.2}]}],
        "widespread": [
            {
                "spreads": [
                    {"spread": widespread.SPREADS[0].name, "held": 0.9, "named": 0.8, "elsewhere": 0.01}
                ]
            }
        ],
        "dense": [{"name": "ct/x", "lesions": [dense(0.95, 0.6), dense(0.6, 0.7)]}],
        "robustness": [
            changed_scan("ct/x", "as it is", 30.0, 0.8),
            changed_scan("ct/x", "smoothed", 40.0, 0.5),
            changed_scan("train/P001", "as it is", 30.0),
            changed_scan("train/P001", "smoothed", 31.0),
        ],
    }
    return outcome


def test_files_of_an_evaluation(tmp_path: Path) -> None:
    summary.write_all(tmp_path, some_outcome(tmp_path))
    written = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert written["dsc"]["cavity"] == pytest.approx(0.85)
    assert written["hd95_mm"] == 5.0
    assert written["slice_auc"] == {"P001": 0.93}
    assert written["baselines"]["thresholds"]["dsc"]["healthy"] == 0.5
    assert written["ablations"]["no fusion"]["hd95_mm"] == 10.0
    assert list(written["qualities"]) == ["fast", "standard", "best"]
    assert written["qualities"]["best"]["dsc"]["cavity"] == pytest.approx(0.85)
    assert written["robustness"]["ct/x, smoothed"]["held"] is False
    assert written["robustness"]["train/P001, smoothed"]["held"] is True
    assert written["dsc_scanned_differently"]["smoothed"]["cavity"] == 0.5
    assert written["probe"][probe.EMBEDDING]["balanced_accuracy"] > 0.95
    page = (tmp_path / "RESULTS.md").read_text(encoding="utf-8")
    assert "| older painted, DSC cavity | >= 0.72 | 0.850 | yes |" in page
    assert written["baselines"]["thresholds"]["healthy_disease_percent"] == 9.1
    assert "weights SHA-256: no distillation `0123456789ab`." in page
    assert "Not measured: no warm-up: their models are not in `DIFFSEGLUNG_MODELS`" in page
    assert "| fast | 0.850 | 0.850 |" in page
    assert "| robustness | 2 of 2 held | 1 of 2 | **no** |" in page
    assert "| smoothed | **10.0** | 1.0 |" in page
    assert "| smoothed | 0.500 | 0.500 |" in page
    assert "| 8 to 10 mm | 2 | 0.50 | 0.50 |" in page
    assert "| ground-glass, 60 % from the base, 30 % filled | 0.90 | 0.80 | 0.01 |" in page
    assert "| student embedding + seven HU numbers | 1.000 |" in page
    assert "| fusion lowers HD95 | >= 10 % | 50.0 % | yes |" in page
    assert "| lungs, DSC against experts | >= 0.97 | 0.960 | **no** |" in page
    assert "| lungs, dense lung held (least of 2 lesions 0.60) | >= 0.9 | 0.775 | **no** |" in page
    assert (
        "ct/a: DSC of the lungs against the expert's 0.980 by the network, 0.970 by thresholds alone." in page
    )
    assert "lobar consolidation of 300 ml: 0.95 by the network, 0.60 by thresholds alone; lobar" in page
    for name in ("cases.csv", "robustness.csv", "cases.png", "dsc.png"):
        assert (tmp_path / name).stat().st_size > 50


# --- the probe -------------------------------------------------------------------------------------------


def some_cells(host: str, seed: int, informative: bool) -> probe.Cells:
    """Cells of all six tissues; the HU numbers tell three of them apart, the embedding all or none."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(1, 7), 60).astype(np.uint8)
    one_hot = np.eye(7)[labels] if informative else rng.normal(size=(len(labels), 7))
    teacher = np.hstack([labels[:, None] % 3, rng.normal(size=(len(labels), 33))])
    features = {
        probe.HOUNSFIELD: (labels[:, None] // 2 + rng.normal(0, 0.1, (len(labels), 7))),
        probe.TEACHER: teacher,
        probe.EMBEDDING: np.hstack([one_hot + rng.normal(0, 0.1, one_hot.shape), teacher[:, :5]]),
    }
    return probe.Cells(host, labels, features)


def test_the_probe_finds_what_a_feature_tells_and_no_more() -> None:
    knowing = probe.probe([some_cells("a", 1, True), some_cells("b", 2, True)])
    blind = probe.probe([some_cells("a", 1, False), some_cells("b", 2, False)])
    both = f"{probe.EMBEDDING} + {probe.HOUNSFIELD}"
    assert knowing[probe.EMBEDDING]["balanced_accuracy"] > 0.95
    assert 0.3 < knowing[probe.HOUNSFIELD]["balanced_accuracy"] < 0.75
    assert knowing[both]["balanced_accuracy"] > knowing[probe.HOUNSFIELD]["balanced_accuracy"] + 0.2
    assert blind[probe.EMBEDDING]["balanced_accuracy"] < knowing[probe.EMBEDDING]["balanced_accuracy"] - 0.3
    assert knowing[probe.EMBEDDING]["teacher_r2"] > knowing[probe.HOUNSFIELD]["teacher_r2"] + 0.05


def test_hosts_are_folds_so_that_a_host_cannot_explain_itself() -> None:
    """Labels that follow nothing but the host's own noise are not found in the other host."""
    rng = np.random.default_rng(0)
    cells = []
    for host in "ab":
        own = some_cells(host, 1, True)
        cells.append(replace(own, features=own.features | {"noise": rng.normal(size=(360, 200))}))
    assert probe.probe(cells)["noise"]["balanced_accuracy"] < 0.3


def test_a_cell_is_what_a_quarter_of_it_is() -> None:
    truth = np.full((8, 8, 32), HEALTHY, np.uint8)
    truth[:, :3, 8:16] = FIBROSIS
    truth[:, :1, 16:24] = FIBROSIS
    truth[:, :, 24:] = 0
    mask = np.ones(truth.shape, bool)
    assert probe.tissue_of_cells(truth, mask).tolist() == [HEALTHY, FIBROSIS, HEALTHY, 0]
    mask[:, 1:] = False
    assert not probe.tissue_of_cells(truth, mask).any(), "an eighth of lung is too little"


def test_hounsfield_numbers_look_at_the_lung_alone() -> None:
    blocks = np.full((2, 8, 8, 8), 50.0)
    blocks[:, :4] = np.linspace(-900, -800, 256).reshape(4, 8, 8)
    inside = np.zeros(blocks.shape, bool)
    inside[0, :4] = True
    numbers = probe.hounsfield_numbers(blocks, inside)
    assert numbers.shape == (2, 7)
    assert numbers[0] == pytest.approx([-850, 28.98, -895, -875, -850, -825, -805], abs=0.1)
    assert not numbers[1].any()


def test_the_cells_of_a_case_are_described(host: Host) -> None:
    torch.manual_seed(0)
    case = placed(host, "ground-glass")
    volume = case_volume(case)
    found = Lungs(host.sides, np.zeros(host.sides.shape, bool))
    grid = working_grid(volume, found, 1.5)
    empty = np.zeros(0, np.float32)
    prepared = Prepared(volume, found, grid, Parenchyma(empty, empty, empty), empty, empty)
    plan = EmbeddingPlan((16, 16, 16), (16, 16, 16), (10,), 8)
    model: Any = SimpleNamespace(student=Student((8, 8, 8, 8), hidden=16).eval(), plan=plan)
    other: Any = SimpleNamespace(student=Student((8, 8, 8, 16), hidden=16).eval(), plan=plan)
    cells = probe.describe_cells(case, prepared, model, {"no x": other})
    assert set(np.unique(cells.labels)) == {HEALTHY, GROUND_GLASS}
    numbers = {name: feature.shape for name, feature in cells.features.items()}
    count = len(cells.labels)
    assert numbers[probe.EMBEDDING] == (count, probe.LENGTH) and numbers[probe.BOTTLENECK] == (count, 8)
    assert numbers["student embedding, no x"] == (count, probe.LENGTH) and numbers["bottleneck, no x"] == (
        count,
        16,
    )
    assert numbers[probe.TEACHER] == (count, 34) and numbers[probe.HOUNSFIELD] == (count, 7)
    density = cells.features[probe.HOUNSFIELD][:, 3]
    assert np.median(density[cells.labels == GROUND_GLASS]) > np.median(density[cells.labels == HEALTHY]) + 30
