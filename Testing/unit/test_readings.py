"""Disease that readers marked: a reading of a phantom whose scores are known, and the figures over CT."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.evaluation import read_ct, readings
from DiffSegLungLib.evaluation.read_ct import OURS, SECOND_READER
from DiffSegLungLib.evaluation.readings import Mark, Reading
from DiffSegLungLib.tissues import (
    CAVITY,
    CONSOLIDATION,
    EMPHYSEMA,
    FIBROSIS,
    GROUND_GLASS,
    HEALTHY,
    OUTSIDE,
    VESSEL,
)

SHAPE, SPACING = (4, 60, 60), (2.0, 1.0, 1.0)
SIDE = SHAPE[1] * SHAPE[2]
HEALTHY_HU = -850.0
HAZE, SOLID = ((30, 30), 8.0), ((20, 22), 6.0)
"""Middle (y, x) and radius of what is marked, in pixels of 1 mm; the disease goes 8 pixels farther."""
FALSE_ALARM = (3, slice(40, 50), slice(40, 50))
MARKS = (
    Mark(0, 30, 30, 8, 8, "ground-glass", lesion=1),
    Mark(1, 30, 30, 8, 8, "ground-glass", lesion=1),
    Mark(2, 22, 20, 6, 6, "consolidation", lesion=2),
)
READING = Reading("phantom", "A", (0, 1, 2, 3), HEALTHY_HU, MARKS)


def disc(middle: tuple[int, int], radius: float) -> np.ndarray:
    rows, columns = np.indices(SHAPE[1:]) + 0.5
    return np.hypot(rows - middle[0], columns - middle[1]) <= radius


def ct() -> np.ndarray:
    """Haze on two slices, airless lung on the third, nothing on the last."""
    hu = np.full(SHAPE, HEALTHY_HU, np.float32)
    hu[:2, disc(HAZE[0], 16)] = -600.0
    hu[2, disc(SOLID[0], 14)] = 20.0
    return hu


def labels() -> np.ndarray:
    """The haze found on one of its slices, the airless lung outside the lungs, a false alarm on the last."""
    found = np.full(SHAPE, HEALTHY, np.uint8)
    found[0, disc(*HAZE)] = GROUND_GLASS
    found[2, disc(*SOLID)] = OUTSIDE
    found[FALSE_ALARM] = FIBROSIS
    return found


def scored(given: np.ndarray, reading: Reading = READING) -> dict[str, Any]:
    return readings.score(readings.truth_of(reading, ct(), SPACING), given, SPACING)


def grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """A mask and what lies within so many steps of it, a step a row or a column."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        up, down, left, right = padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]
        mask = mask | up | down | left | right
    return mask


def test_the_scores_of_a_known_reading() -> None:
    haze, solid = int(disc(*HAZE).sum()), int(disc(*SOLID).sum())
    figures = scored(labels())
    truth, given = 2 * haze + solid, haze + 100
    assert figures["dice"] == pytest.approx(2 * haze / (truth + given))
    assert figures["recall"] == pytest.approx(haze / truth)
    assert figures["precision"] == pytest.approx(haze / given)
    assert (figures["lesions"], figures["found"]) == (2, 1)
    assert figures["named"]["ground-glass"] == {"healthy": 0.5, "ground-glass": 0.5}
    assert figures["named"]["consolidation"] == {"outside": 1.0}
    assert figures["marked_ml"]["consolidation"] == pytest.approx(solid * 2.0 / 1000.0)
    rest = 4 * SIDE - 2 * grown(disc(*HAZE), 3).sum() - grown(disc(*SOLID), 3).sum()
    assert figures["healthy_disease_percent"] == pytest.approx(100.0 * 100 / rest)
    assert figures["slice_auc"] == pytest.approx(1 / 3), "one of three marked slices lies above the last"


def test_a_lesion_is_found_when_three_tenths_of_it_are_called_any_disease() -> None:
    inside = np.argwhere(disc(*HAZE))
    for share, found in ((0.62, 1), (0.58, 0)):
        given = np.full(SHAPE, HEALTHY, np.uint8)
        given[0, *inside[: int(share * len(inside))].T] = CAVITY
        assert scored(given)["found"] == found, "of both slices together"


def test_three_pixels_around_a_mark_are_left_out_and_the_fourth_is_not() -> None:
    circle = disc(*HAZE)
    for steps, false_alarms in ((3, False), (4, True)):
        given = np.full(SHAPE, HEALTHY, np.uint8)
        given[0, grown(circle, steps)] = GROUND_GLASS
        assert (scored(given)["precision"] < 1) == false_alarms


def test_vessels_within_a_mark_are_neither_missed_nor_false() -> None:
    given = labels()
    half = disc(*HAZE) & (np.arange(60) < 30)
    given[1, half] = VESSEL
    haze, solid = int(disc(*HAZE).sum()), int(disc(*SOLID).sum())
    figures = scored(given)
    assert figures["recall"] == pytest.approx(haze / (2 * haze - half.sum() + solid))
    assert figures["named"]["ground-glass"]["healthy"] == pytest.approx(
        (haze - half.sum()) / (2 * haze - half.sum())
    )
    assert figures["healthy_disease_percent"] == pytest.approx(scored(labels())["healthy_disease_percent"])


@pytest.mark.parametrize("doubt", [{"sure": False}, {"tissue": "other"}])
def test_what_a_reader_doubts_judges_nobody(doubt: dict[str, Any]) -> None:
    doubtful = replace(READING, marks=(*MARKS[:2], replace(MARKS[2], **doubt)))
    given = labels()
    given[2, disc(*SOLID)] = CONSOLIDATION
    figures = scored(given, doubtful)
    haze = int(disc(*HAZE).sum())
    assert figures["lesions"] == 1 and "consolidation" not in figures["named"]
    assert figures["precision"] == pytest.approx(haze / (haze + 100)), "no false alarm either"


def test_within_a_mark_only_what_looks_diseased_is_truth() -> None:
    hu = ct()
    hu[0, :, :30] = HEALTHY_HU
    truth = readings.truth_of(READING, hu, SPACING)[0]
    seen = disc(*HAZE) & (np.arange(60) >= 30)
    assert not truth.labels[:, :28].any() and (truth.labels[:, 32:] > 0).sum() == seen[:, 32:].sum()
    assert truth.left_out[disc(*HAZE) & (np.arange(60) < 28)].all()


@pytest.mark.parametrize(
    ("tissue", "hu", "seen"),
    [
        (EMPHYSEMA, -940, True), (EMPHYSEMA, -920, False), (CAVITY, -810, True), (CAVITY, -790, False),
        (GROUND_GLASS, -740, True), (GROUND_GLASS, -760, False), (GROUND_GLASS, 160, False),
        (FIBROSIS, -780, True), (FIBROSIS, -800, False),
        (CONSOLIDATION, -390, True), (CONSOLIDATION, -410, False), (CONSOLIDATION, 160, False),
    ],
)  # fmt: skip
def test_what_each_tissue_looks_like(tissue: int, hu: float, seen: bool) -> None:
    looks = readings.appearance(np.full((9, 9), hu, np.float32), (1.0, 1.0), HEALTHY_HU)
    assert looks[tissue].all() == seen and looks[tissue].any() == seen


def test_an_ellipse_turns_clockwise_and_counts_in_mm() -> None:
    mark = Mark(0, 20.0, 10.0, 9.0, 2.0, "fibrosis", angle=30)
    inside = readings.ellipse(mark, (40, 40), (0.5, 1.0))
    assert inside.sum() * 0.5 == pytest.approx(np.pi * 18, rel=0.05)
    rows, columns = np.nonzero(inside)
    assert (rows.mean() + 0.5) * 0.5 == pytest.approx(10, abs=0.1)
    assert np.polyfit(columns, rows * 0.5, 1)[0] > 0.3, "down to the right"


def test_a_second_reader_is_scored_like_a_program() -> None:
    truth = readings.truth_of(READING, ct(), SPACING)
    other = replace(READING, reader="B", slices=(0, 1, 3), marks=MARKS[:1])
    lungs = np.ones(SHAPE, bool)
    figures = readings.score_reader(truth, readings.truth_of(other, ct(), SPACING), lungs, SPACING)
    assert figures["recall"] == pytest.approx(0.5), "on the slices that both have read"
    assert figures["precision"] == 1 and figures["dice"] == pytest.approx(2 / 3)
    same = readings.score_reader(truth, truth, lungs, SPACING)
    assert same["dice"] == 1 and same["found"] == same["lesions"] == 2


# --- files -----------------------------------------------------------------------------------------------


def stored(case: str = "phantom", reader: str = "A") -> dict[str, Any]:
    marks = [{"z": 0, "x": 30, "y": 30, "rx": 8, "ry": 8, "tissue": "ground-glass", "note": "faint"}]
    return {"case": case, "reader": reader, "slices_read": [1, 0], "healthy_hu": -850, "marks": marks}


def write(folder: Path, content: Any, name: str = "phantom_A.json") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_reading_is_read_from_its_file(tmp_path: Path) -> None:
    reading = readings.load_reading(write(tmp_path, stored()))
    assert (reading.case, reading.reader, reading.slices) == ("phantom", "A", (0, 1))
    assert reading.marks == (Mark(0, 30, 30, 8, 8, "ground-glass"),)


@pytest.mark.parametrize("broken", [[], {"case": "x"}, {**stored(), "marks": [{"z": 1}]}])
def test_what_is_no_reading_is_refused_in_a_line(broken: Any, tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match=r"phantom_A\.json is no reading of a CT.*; take the file"):
        readings.load_reading(write(tmp_path, broken))


def test_a_reading_of_another_ct_is_refused() -> None:
    with pytest.raises(UnusableInputError, match="has 4 slices, its reading names slice 7"):
        readings.truth_of(replace(READING, slices=(0, 7)), ct(), SPACING)


# --- the CT ----------------------------------------------------------------------------------------------


def test_the_ct_are_those_with_readings_and_tuning_takes_its_own(tmp_path: Path) -> None:
    with pytest.raises(MissingPartError, match="no readings in"):
        read_ct.read_ct(tmp_path)
    for case in ("P001", "RIDERPilot-0109", "kept-apart"):
        write(tmp_path / "readings", stored(case), f"{case}_A.json")
    with pytest.raises(MissingPartError, match="kept-apart has a reading, but no CT"):
        read_ct.read_ct(tmp_path)
    write(tmp_path / "ct", "", "kept-apart.nii.gz")
    found = {ct.name: (ct.use, ct.in_mean) for ct in read_ct.read_ct(tmp_path)}
    assert found == {
        "train/P001": ("tuning", True),
        "train/RIDERPilot-0109": ("reported", True),
        "ct/kept-apart": ("reported", False),
    }
    assert [ct.case for ct in read_ct.read_ct(tmp_path, tuning=True)] == ["P001"]
    assert [reading.reader for reading in read_ct.readings_of(read_ct.READ_CT[0], tmp_path)] == ["A"]


def scores(**dice: float) -> dict[str, Any]:
    """Of each reader ours, and thresholds half as good."""
    return {reader: {OURS: {"dice": one}, "thresholds": {"dice": one / 2}} for reader, one in dice.items()}


def test_readers_and_the_ct_of_one_lung_are_averaged_before_the_mean() -> None:
    rows = [
        {"name": "train/elastix_lung_baseline", "scores": scores(A=0.2)},
        {"name": "train/elastix_lung_followup", "scores": scores(A=0.4)},
        {"name": "train/P001", "scores": scores(A=0.8, B=0.6)},
        {"name": "train/LCTSC-Test-S1-104", "scores": scores(A=0.0)},
        {"name": "ct/kept-apart", "scores": scores(A=0.0)},
    ]
    assert read_ct.mean_dice(rows, OURS) == pytest.approx((0.3 + 0.7) / 2)
    assert read_ct.mean_dice(rows, "thresholds") == pytest.approx(0.25)
    assert np.isnan(read_ct.mean_dice(rows, "rules only"))
    assert read_ct.methods_of(rows) == ["thresholds"]
    trained = {str(row["name"]).split("/")[1]: True for row in rows}
    assert list(read_ct.figures_by_case(rows, trained)) == [
        "P001", "elastix_lung_baseline", "elastix_lung_followup", "LCTSC-Test-S1-104", "kept-apart",
    ]  # fmt: skip


def test_the_second_reader_is_given_where_there_is_one() -> None:
    both = scores(A=0.8, B=0.6)
    both["A"][SECOND_READER], both["B"][SECOND_READER] = {"dice": 0.95}, {"dice": 0.9}
    rows = [{"name": "train/P001", "scores": both}, {"name": "train/cap001", "scores": scores(A=0.5)}]
    assert read_ct.second_reader(rows) == {"P001": {"A": 0.95, "B": 0.9}}
    assert read_ct.methods_of(rows) == ["thresholds"]


def test_a_model_says_which_ct_it_was_trained_on() -> None:
    described = {
        "training_data": {"trained_on": ["COVID-CT-MD P001", "LIDC-IDRI-0003, -0314"]},
        "lungs": {"training_data": ["RIDERPilot-0109"]},
        "name": "P002",
    }
    cases = ["P001", "P002", "LIDC-IDRI-0314", "RIDERPilot-0109", "cap001"]
    assert list(read_ct.trained_on(cases, described).values()) == [True, False, True, True, False]
    assert read_ct.trained_on(["cap001", "P002", "new"], {}) == {"cap001": True, "P002": False, "new": False}
