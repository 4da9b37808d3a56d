"""Scores at their very bounds, and the zones they are taken from."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

from DiffSegLungLib.anatomy import LOBES, THIRD_NAMES, thirds_from_sides
from DiffSegLungLib.quantify.measures import DEFINITIONS
from DiffSegLungLib.quantify.scores import goddard_points, scores, severity_points


@pytest.mark.parametrize(
    ("percent", "points"),
    [(0, 0), (1e-6, 0), (0.999, 0), (1, 1), (4.999, 1), (5, 2), (25, 2), (25.001, 3), (26, 3), (49.999, 3),
     (50, 4), (75, 4), (75.001, 5), (100, 5)],
)  # fmt: skip
def test_severity_bounds(percent: float, points: int) -> None:
    assert severity_points(percent) == points


@pytest.mark.parametrize(
    ("percent", "points"),
    [(0, 0), (1e-6, 0), (4.999, 0), (5, 1), (24.999, 1), (25, 2), (49.999, 2), (50, 3), (74.999, 3),
     (75, 4), (100, 4)],
)  # fmt: skip
def test_goddard_bounds(percent: float, points: int) -> None:
    assert goddard_points(percent) == points


def table(regions: list[str], **columns: list[float]) -> pandas.DataFrame:
    measures = pandas.DataFrame(0.0, index=pandas.Index(regions, name="region"), columns=list(DEFINITIONS))
    for column, values in columns.items():
        measures[column] = values
    return measures


def test_severity_adds_the_opacities_of_five_lobes() -> None:
    names = [lobe.name for lobe in LOBES]
    measures = table(names, **{"ground-glass_percent": [0, 2, 20, 40, 60]})  # type: ignore[arg-type]
    measures["fibrosis_percent"], measures["consolidation_percent"] = [0, 2, 5, 5, 10], [0, 0, 0, 5, 10]
    measures["emphysema_percent"] = 99.0
    [score] = scores(measures)
    assert (score.key, score.highest) == ("ct_severity", 25)
    assert score.points == dict(zip(names, (0, 1, 2, 4, 5), strict=True)) and score.total == 12
    assert "12 of 25" in score.text
    assert scores(measures.drop("right middle lobe")) == [], "four lobes make no score"


def test_goddard_is_of_emphysema_in_six_thirds() -> None:
    measures = table(list(THIRD_NAMES), emphysema_percent=[80, 30, 0, 50, 10, 0])
    [score] = scores(measures)
    assert (score.key, score.total, score.highest) == ("goddard_like", 4 + 2 + 0 + 3 + 1 + 0, 24)
    measures.loc[THIRD_NAMES[0], "emphysema_percent"] = np.nan
    assert scores(measures) == [], "a zone without parenchyma leaves the score undefined"


def test_traces_in_a_healthy_lung_score_nothing() -> None:
    """Shares as label maps of healthy lungs have them."""
    lobes, zones = [lobe.name for lobe in LOBES], list(THIRD_NAMES)
    measures = table([*lobes, *zones], emphysema_percent=[0.4, 1.1, 0.2, 0.0, 0.9, *[0.6] * 6])
    measures["ground-glass_percent"], measures["consolidation_percent"] = 0.5, 0.1
    assert {score.key: score.total for score in scores(measures)} == {"ct_severity": 0, "goddard_like": 0}


def test_thirds_part_each_lung_by_its_own_height() -> None:
    sides = np.zeros((12, 2, 4), np.uint8)
    sides[0:9, :, :2] = 1
    sides[3:10, :, 2:] = 2
    zones = thirds_from_sides(sides)
    heights = {name: np.flatnonzero(zone.any(axis=(1, 2))).tolist() for name, zone in zones.items()}
    assert heights["right lung, lower third"] == [0, 1, 2]
    assert heights["right lung, middle third"] == [3, 4, 5]
    assert heights["right lung, upper third"] == [6, 7, 8], "+z is up"
    # Seven slices: the middles of slices 2 and 4 lie at 5/14 and 9/14, both in the middle third.
    assert [heights[f"left lung, {third} third"] for third in ("lower", "middle", "upper")] == [
        [3, 4], [5, 6, 7], [8, 9],
    ]  # fmt: skip
    total = sum(zone.astype(int) for zone in zones.values())
    assert np.array_equal(total, sides > 0), "each voxel of the lungs in one zone"
    assert tuple(zones) == THIRD_NAMES


def test_a_missing_lung_has_no_thirds() -> None:
    sides = np.full((6, 1, 1), 2, np.uint8)
    assert list(thirds_from_sides(sides)) == list(THIRD_NAMES[3:])
