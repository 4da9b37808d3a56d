"""Measures on arrays small enough to be computed by hand."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib.anatomy import LEFT, RIGHT, WHOLE, regions_from_sides
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.quantify.measures import (
    DEFINITIONS,
    DENSITOMETRY,
    lung_box,
    measure,
    measure_corrected,
    table_text,
    zonal_profile,
)
from DiffSegLungLib.tissues import (
    CONSOLIDATION,
    DISEASES,
    EMPHYSEMA,
    GROUND_GLASS,
    HEALTHY,
    REPORTED,
    VESSEL,
)

SPACING = (2.0, 0.5, 1.5)
"""Anisotropic on purpose: 1.5 cubic mm a voxel."""

PERCENTS = [f"{tissue.key}_percent" for tissue in REPORTED]


def line(values: list[float], dtype: type) -> np.ndarray:
    return np.array(values, dtype=dtype).reshape(1, 1, -1)


def everywhere(labels: np.ndarray) -> dict[str, np.ndarray]:
    return {WHOLE: np.ones(labels.shape, dtype=bool)}


def densities(values: list[float]) -> dict[str, float]:
    hu = line(values, np.float32)
    labels = np.full(hu.shape, HEALTHY, dtype=np.uint8)
    return measure(labels, hu, SPACING, everywhere(labels)).loc[WHOLE].to_dict()


def test_volumes_use_the_volume_of_an_anisotropic_voxel() -> None:
    labels = line([0, HEALTHY, HEALTHY, GROUND_GLASS, VESSEL], np.uint8)
    row = measure(labels, np.full(labels.shape, -800, np.float32), SPACING, everywhere(labels)).loc[WHOLE]
    assert row["lung_ml"] == pytest.approx(4 * 0.0015)
    assert row["vessel_ml"] == pytest.approx(0.0015)
    assert row["healthy_ml"] == pytest.approx(2 * 0.0015)
    assert row["ground-glass_ml"] == pytest.approx(0.0015)


def test_shares_are_of_the_parenchyma_and_sum_to_100() -> None:
    labels = line([HEALTHY, HEALTHY, GROUND_GLASS, CONSOLIDATION, VESSEL, VESSEL, 0], np.uint8)
    row = measure(labels, np.full(labels.shape, -800, np.float32), SPACING, everywhere(labels)).loc[WHOLE]
    assert row["healthy_percent"] == 50.0
    assert row["ground-glass_percent"] == 25.0
    assert row["disease_percent"] == 50.0
    assert row["fibrosis_ml"] == 0.0 and row["fibrosis_percent"] == 0.0
    assert row[PERCENTS].sum() == pytest.approx(100.0)


def test_shares_sum_to_100_in_random_labels() -> None:
    random = np.random.default_rng(3)
    labels = random.integers(0, 8, (5, 7, 9)).astype(np.uint8)
    hu = random.normal(-700, 200, labels.shape).astype(np.float32)
    sides = random.integers(0, 3, labels.shape)
    table = measure(labels, hu, SPACING, regions_from_sides(sides))
    assert np.allclose(table[PERCENTS].sum(axis=1), 100.0)
    diseases = table[[f"{tissue.key}_percent" for tissue in DISEASES]].sum(axis=1)
    assert np.allclose(diseases, table["disease_percent"])
    assert table.loc[WHOLE, "lung_ml"] == pytest.approx(table.loc[[RIGHT, LEFT], "lung_ml"].sum())
    assert table.loc[WHOLE, "mass_g"] == pytest.approx(table.loc[[RIGHT, LEFT], "mass_g"].sum())


def test_exactly_minus_950_is_not_low_attenuation() -> None:
    assert densities([-951, -950, -949, -950])["laa950_percent"] == 25.0


def test_high_attenuation_excludes_both_bounds() -> None:
    assert densities([-600, -599, -251, -250])["haa_percent"] == 50.0


def test_mean_percentile_and_mass_by_hand() -> None:
    row = densities([-1000, -900, -800, -700, -600])
    assert row["mean_hu"] == pytest.approx(-800.0)
    # Position 0.15 x 4 = 0.6 between the first two values.
    assert row["perc15_hu"] == pytest.approx(-940.0)
    assert row["mass_g"] == pytest.approx((0.0 + 0.1 + 0.2 + 0.3 + 0.4) * 0.0015)


def test_mass_is_floored_where_the_density_would_be_negative() -> None:
    assert densities([-1024, -1000, -500])["mass_g"] == pytest.approx(0.5 * 0.0015)


def test_densitometry_includes_vessels_and_leaves_out_what_is_not_lung() -> None:
    labels = line([HEALTHY, VESSEL, 0], np.uint8)
    hu = line([-900, 100, 3000], np.float32)
    row = measure(labels, hu, SPACING, everywhere(labels)).loc[WHOLE]
    assert row["mean_hu"] == -400.0
    assert row["healthy_percent"] == 100.0


def test_the_whole_lung_is_weighted_by_voxels_not_by_sides() -> None:
    labels = line([EMPHYSEMA, HEALTHY, HEALTHY, HEALTHY, EMPHYSEMA], np.uint8)
    hu = line([-980, -800, -800, -800, -980], np.float32)
    sides = line([1, 1, 1, 1, 2], np.uint8)
    percent = measure(labels, hu, SPACING, regions_from_sides(sides))["emphysema_percent"]
    assert percent[RIGHT] == 25.0
    assert percent[LEFT] == 100.0
    assert percent[WHOLE] == 40.0


def test_a_region_without_lung_has_no_volume_and_no_density() -> None:
    labels = line([HEALTHY, 0], np.uint8)
    regions = {WHOLE: labels > 0, LEFT: labels == 0}
    row = measure(labels, np.full(labels.shape, -800, np.float32), SPACING, regions).loc[LEFT]
    volumes = [column for column in row.index if column.endswith(("_ml", "_g"))]
    assert (row[volumes] == 0).all()
    assert row.drop(volumes).isna().all()


@pytest.mark.parametrize(("side", "name"), [(1, "right lung"), (2, "left lung")])
def test_a_lung_that_is_not_there_has_no_row(side: int, name: str) -> None:
    labels = line([HEALTHY, EMPHYSEMA, 0], np.uint8)
    sides, hu = np.where(labels > 0, side, 0), line([-850, -970, 0], np.float32)
    table = measure_corrected(labels, sides, hu, SPACING)
    assert list(table.index) == ["whole lung", name]
    assert np.isfinite(table.to_numpy()).all()
    assert ("right" in table_text(table), "left" in table_text(table)) == (side == 1, side == 2)


def test_a_volume_without_any_lung_does_not_fail() -> None:
    labels = np.zeros((2, 3, 4), dtype=np.uint8)
    table = measure(labels, np.zeros(labels.shape, np.float32), SPACING, regions_from_sides(labels))
    assert list(table["lung_ml"]) == [0.0]
    assert table_text(table).splitlines()[2].split() == ["Healthy", "lung", "0", "-"]


def test_a_region_of_vessels_alone_has_no_share() -> None:
    labels = line([VESSEL], np.uint8)
    row = measure(labels, line([20], np.float32), SPACING, everywhere(labels)).loc[WHOLE]
    assert np.isnan(row["healthy_percent"]) and row["mean_hu"] == 20.0


def test_every_column_is_defined() -> None:
    labels = line([HEALTHY], np.uint8)
    table = measure(labels, line([-800], np.float32), SPACING, everywhere(labels))
    assert list(table.columns) == list(DEFINITIONS)
    assert table.index.name == "region"
    assert set(DENSITOMETRY) <= set(DEFINITIONS)
    assert all(entry.unit and entry.definition and entry.source for entry in DEFINITIONS.values())


def test_unusable_input_is_named() -> None:
    labels = line([HEALTHY, HEALTHY], np.uint8)
    hu = line([-800, -800], np.float32)
    with pytest.raises(UnusableInputError, match="region 'left lung'"):
        measure(labels, hu, SPACING, {LEFT: np.ones((1, 1, 3), dtype=bool)})
    with pytest.raises(UnusableInputError, match="the CT"):
        measure(labels, hu[..., :1], SPACING, everywhere(labels))
    with pytest.raises(UnusableInputError, match="positive spacing"):
        measure(labels, hu, (1.0, 0.0, 1.0), everywhere(labels))
    with pytest.raises(UnusableInputError, match="Label 8"):
        measure(labels + 7, hu, SPACING, everywhere(labels))


def test_lung_box_holds_the_labels_and_its_margin_stops_at_the_border() -> None:
    labels = np.zeros((6, 6, 6), dtype=np.uint8)
    labels[2:4, 1, 5] = HEALTHY
    assert lung_box(labels) == (slice(2, 4), slice(1, 2), slice(5, 6))
    box = lung_box(labels, margin=(1, 3, 3))
    assert labels[box].shape == (4, 5, 4)


def test_text_table_has_a_row_per_tissue_aligned() -> None:
    labels = line([EMPHYSEMA, HEALTHY, HEALTHY, HEALTHY, GROUND_GLASS], np.uint8)
    sides = line([1, 1, 1, 2, 2], np.uint8)
    hu = np.full(labels.shape, -812, np.float32)
    table = measure(labels, hu, (10, 100, 100), regions_from_sides(sides))
    lines = table_text(table).splitlines()
    assert [name for name in (WHOLE, RIGHT, LEFT) if name in lines[0]] == [WHOLE, RIGHT, LEFT]
    for tissue in REPORTED:
        [row] = [text for text in lines if text.startswith(tissue.name + " ")]
        assert len(row) == len(lines[0])
    [emphysema] = [text for text in lines if text.startswith("Emphysema")]
    assert emphysema.split()[1:] == ["100", "20.0", "100", "33.3", "0", "0.0"]
    [density] = [text for text in lines if text.startswith("Mean lung density")]
    assert density.split()[-3:] == ["-812"] * 3


def test_zonal_profile_runs_from_apex_to_base() -> None:
    """Four slices of lung of six, +z is up: the uppermost is emphysema, the lowest half consolidated."""
    labels = np.zeros((6, 2, 2), np.uint8)
    labels[1:5] = HEALTHY
    labels[4] = EMPHYSEMA
    labels[1, 0] = CONSOLIDATION
    labels[2, 0, 0] = VESSEL
    profile = zonal_profile(labels, levels=4)
    assert list(profile.index) == [12.5, 37.5, 62.5, 87.5] and profile.index.name == "from_apex"
    assert list(profile["emphysema"]) == [100, 0, 0, 0]
    assert list(profile["healthy"]) == [0, 100, 100, 50]
    assert list(profile["consolidation"]) == [0, 0, 0, 50]
    assert len(zonal_profile(labels)) == 4, "no more levels than slices"


def test_zonal_profile_of_nothing_has_no_level() -> None:
    assert zonal_profile(np.zeros((3, 2, 2), np.uint8)).empty


def test_zonal_profile_of_vessels_alone_is_undefined() -> None:
    assert zonal_profile(np.full((2, 2, 2), VESSEL, np.uint8)).isna().to_numpy().all()
