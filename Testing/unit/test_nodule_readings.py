"""Readers' marks: which reading belongs to which nodule, and what is said of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.evaluation import nodule_readings, study, summary
from DiffSegLungLib.evaluation.nodule_readings import Reading
from DiffSegLungLib.evaluation.study import Outcome, Plan
from DiffSegLungLib.tissues import CAVITY, CONSOLIDATION, GROUND_GLASS, HEALTHY, VESSEL

SHAPE = (24, 40, 60)
SPACING = (2.0, 1.0, 1.0)


def ball(middle: tuple[int, int, int], radius: float) -> np.ndarray:
    """In mm about a voxel."""
    axes = (slice(None), None, None, None)
    offsets = (np.indices(SHAPE) - np.array(middle)[axes]) * np.array(SPACING)[axes]
    return np.linalg.norm(offsets, axis=0) <= radius


SOLID, SMALL, HAZE = ball((12, 20, 14), 7), ball((6, 8, 45), 4), ball((12, 20, 29), 8)
"""A solid nodule, a small one apart from both, and ground glass that touches the first."""


def ct() -> tuple[np.ndarray, np.ndarray]:
    """HU, and votes: three readers and a wide fourth for the solid nodule, two for the small, one for fog."""
    hu, votes = np.full(SHAPE, -850.0, np.float32), np.zeros(SHAPE, np.uint8)
    for mask, value, readers in ((HAZE, -650.0, 1), (SMALL, -300.0, 2), (SOLID, -50.0, 3)):
        hu[mask], votes[mask] = value, readers
    votes += ball((12, 20, 14), 9) & ~HAZE
    return hu, votes


def said() -> list[Reading]:
    """The readings of that CT, as drawn in a grid of half the voxel size."""
    hu, _ = ct()
    wide = ball((12, 20, 14), 9) & ~HAZE
    marks = [(SOLID, 5), (SMALL, 4), (SOLID, 5), (SMALL, 5), (SOLID, 4), (wide, 3), (HAZE, 1)]
    return [Reading(texture, 1, 8.0 * mask.sum(), float(hu[mask].mean())) for mask, texture in marks]


def test_a_lone_mark_beside_a_shared_one_is_a_nodule_of_its_own() -> None:
    _, votes = ct()
    nodules = nodule_readings.part_nodules(votes, SPACING)
    assert nodules.max() == 3 and (nodules > 0).tolist() == (votes > 0).tolist()
    assert len(np.unique(nodules[SOLID & ~HAZE])) == 1
    shared, own = nodules[12, 20, 14], nodules[12, 20, 33]
    assert own not in (shared, nodules[6, 8, 45])
    assert (nodules[HAZE & ~SOLID] == own).mean() > 0.7
    assert (nodules == own)[~HAZE].sum() == 0, "a wide outline is none"


def test_nodules_marked_once_each_stay_as_they_are() -> None:
    votes = (SOLID | SMALL).astype(np.uint8)
    assert nodule_readings.part_nodules(votes, SPACING).max() == 2
    assert nodule_readings.part_nodules(np.zeros(SHAPE, np.uint8), SPACING).max() == 0


def test_readings_go_where_size_and_density_fit() -> None:
    hu, votes = ct()
    nodules = nodule_readings.part_nodules(votes, SPACING)
    placed = nodule_readings.place(said(), votes, nodules, hu)
    by_place = {place: placed[nodules[place] - 1] for place in ((12, 20, 14), (6, 8, 45), (12, 20, 33))}
    textures = [sorted(reading.texture for reading in found) for found in by_place.values()]
    assert textures == [[3, 4, 5, 5], [4, 5], [1]]
    more = nodule_readings.place([*said(), Reading(2, 1, 90.0, 0.0)], votes, nodules, hu)
    assert sum(map(len, more)) == 7, "no reader more than voted"


def test_without_a_mark_nothing_is_placed() -> None:
    hu, votes = ct()
    assert nodule_readings.place(said(), 0 * votes, np.zeros(SHAPE, np.int32), hu) == []
    nodules = nodule_readings.part_nodules(votes, SPACING)
    assert nodule_readings.place([], votes, nodules, hu) == [[], [], []]


def test_what_at_least_half_of_the_readers_marked_is_scored() -> None:
    votes = np.array([[[1, 2, 2, 4]]], np.uint8)
    labels = np.array([[[HEALTHY, GROUND_GLASS, VESSEL, CONSOLIDATION]]], np.uint8)
    row = nodule_readings.describe([Reading(1, 4, 9, -600.0), Reading(5, 1, 9, -50.0)], votes, labels, 0.5)
    assert row["readers"] == 4 and row["readings"] == 2 and row["ml"] == 1.5
    assert row["texture"] == [1, 5] and row["internal_structure"] == [1, 4]
    shares = [row[f"{key}_percent"] for key in ("ground_glass", "dense", "vessel", "cavity", "outside_lung")]
    assert shares == pytest.approx([100 / 3, 100 / 3, 100 / 3, 0, 0])
    alone = nodule_readings.describe([], np.array([[[0, 1]]]), np.array([[[CAVITY, 0]]]), 0.5)
    assert alone["outside_lung_percent"] == 100 and alone["dense_percent"] == 0


def nodule(texture: list[int], structure: list[int], ml: float, ground_glass: float) -> dict[str, Any]:
    row: dict[str, Any] = {"readers": len(texture), "readings": len(texture), "ml": ml}
    row |= {"texture": texture, "internal_structure": structure, "ground_glass_percent": ground_glass}
    return row | {f"{key}_percent": 10.0 for key in ("dense", "cavity", "vessel", "outside_lung")}


def test_figures_are_weighted_by_volume_and_count_readers_and_nodules() -> None:
    rows = [{"name": "a", "nodules": [nodule([1, 1, 5], [1, 1, 1], 3.0, 80.0), nodule([5], [1], 9.0, 0.0)]}]
    rows += [{"name": "b", "nodules": [nodule([1], [1], 1.0, 0.0)]}]
    found = nodule_readings.called(rows, "texture", nodule_readings.GROUND_GLASS_TEXTURE)
    assert (found["readers"], found["nodules"], found["ml"]) == (3, 2, 4.0)
    assert found["ground_glass_percent"] == pytest.approx(60)
    none = nodule_readings.called(rows, "internal_structure", nodule_readings.AIR_WITHIN)
    assert none == {"readers": 0, "nodules": 0, "ml": 0}


def written(tmp_path: Path, nodules: list[dict[str, Any]]) -> tuple[dict[str, Any], str]:
    """``results.json`` and ``RESULTS.md`` of an evaluation of these alone."""
    outcome = Outcome(Plan(tmp_path))
    outcome.facts = {"commit": "c", "weights_sha256": "w", "model": "m", "hosts": ["ct/x"]}
    outcome.facts |= {"lesion_seeds": [1], "segmentation_seed": 0}
    outcome.rows = {"nodule_readings": [{"name": "train/x", "nodules": nodules}]}
    summary.write_all(tmp_path, outcome)
    results = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    return results, (tmp_path / "RESULTS.md").read_text(encoding="utf-8")


def test_the_marks_are_written_down(tmp_path: Path) -> None:
    results, page = written(tmp_path, [nodule([1, 5], [1, 1], 2.0, 40.0)])
    assert results["nodule_readings"]["ground_glass"]["ground_glass_percent"] == 40
    assert results["details"]["nodule_readings"][0]["nodules"][0]["texture"] == [1, 5]
    assert "| train/x | 2 | 1 5 | 1 1 | 2.0 | 40 | 10 | 10 | 10 |" in page
    assert "(texture 1): 1 reader of 1 nodule; 40 % of its voxels called ground glass, 10 % dense." in page
    assert "in which a reader saw air: none in these data." in page


def test_air_is_written_down_and_what_could_not_be_placed(tmp_path: Path) -> None:
    _, page = written(tmp_path, [nodule([5, 5], [4, 4], 2.0, 0.0) | {"readings": 1}])
    assert "in which a reader saw air: 2 readers of 1 nodule; 10 % of its voxels called cavity." in page
    assert "(texture 1): none in these data." in page
    assert "| 2 (1 readings placed) |" in page


def test_the_files_of_readings_are_found_and_read(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    entry = {"texture": 1, "internalStructure": 4, "voxels": 12, "mean_hu": -610.5, "malignancy": 3}
    path = tmp_path / "train" / f"some-ct{nodule_readings.READINGS}"
    path.write_text(json.dumps([entry, entry | {"texture": 5}]), encoding="utf-8")
    assert nodule_readings.cases(tmp_path) == ["train/some-ct"]
    assert nodule_readings.read(path) == [Reading(1, 4, 12, -610.5), Reading(5, 4, 12, -610.5)]
    tasks = [task.name for task in study.all_tasks(Plan(tmp_path, parts=("borrowed",)))]
    assert tasks.count("nodule_readings: train/some-ct") == 1
