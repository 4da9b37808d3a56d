"""Names: typical tissue gets its own, density has its say, and the patient's inflation is allowed for."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib.naming import NAMED, NamingRule, inflation_shift, log_density_prior, name_by_rule
from DiffSegLungLib.naming import tissue_posterior as posterior_of
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY

RULE = NamingRule()
SMOOTH = (0.2, 0.2)
"""Lines and holes of tissue without fine structure, log(1 + HU / 20)."""
COARSE = (2.6, 2.9)
"""Those of a honeycomb: lines and holes of about 300 HU."""


def descriptor(hu: float, texture: tuple[float, float] = SMOOTH) -> list[float]:
    return [hu / 100, hu / 100, *texture]


def aerated(mean: float) -> np.ndarray:
    return np.random.default_rng(0).normal(mean, 25, 200_000).astype(np.float32)


@pytest.mark.parametrize(
    ("hu", "texture", "tissue"),
    [
        (-985, SMOOTH, EMPHYSEMA),
        (-860, SMOOTH, HEALTHY),
        (-820, COARSE, HEALTHY),
        (-600, SMOOTH, GROUND_GLASS),
        (-600, COARSE, FIBROSIS),
        (-450, (COARSE[0], SMOOTH[1]), GROUND_GLASS),
        (-450, (SMOOTH[0], COARSE[1]), GROUND_GLASS),
        (0, SMOOTH, CONSOLIDATION),
        (0, COARSE, CONSOLIDATION),
    ],
)
def test_typical_tissue_gets_its_name(hu: float, texture: tuple[float, float], tissue: int) -> None:
    assert name_by_rule(np.array([descriptor(hu, texture)]), RULE).tolist() == [tissue]


def test_components_may_have_more_descriptors_than_the_rule_reads() -> None:
    points = np.array([[*descriptor(-600), 5.0, -5.0], [*descriptor(0), 0.0, 9.0]])
    names = name_by_rule(points, RULE)
    assert names.dtype == np.uint8 and names.tolist() == [GROUND_GLASS, CONSOLIDATION]


def test_the_rule_is_stored_as_plain_numbers_and_comes_back() -> None:
    stored = RULE.stored()
    assert all(isinstance(value, float) for value in stored.values())
    assert NamingRule(**stored) == RULE


def test_full_inspiration_shifts_nothing() -> None:
    assert inflation_shift(aerated(RULE.reference_hu), RULE) == pytest.approx(0, abs=10)


def test_expiration_shifts_by_what_the_lung_is_denser() -> None:
    assert inflation_shift(aerated(RULE.reference_hu + 60), RULE) == pytest.approx(60, abs=12)


@pytest.mark.parametrize("mean", [-930, -900, -880])
def test_hyperinflation_never_makes_emphysema_normal(mean: float) -> None:
    assert inflation_shift(aerated(mean), RULE) == 0


def test_the_shift_has_a_limit() -> None:
    assert inflation_shift(aerated(-650), RULE) == pytest.approx(RULE.largest_shift)


def test_diseased_voxels_do_not_shift_the_healthy_ones() -> None:
    glass = np.random.default_rng(1).normal(-500, 60, 80_000)
    emphysema = np.random.default_rng(2).normal(-980, 10, 80_000)
    mixed = np.concatenate([aerated(RULE.reference_hu), glass, emphysema])
    assert inflation_shift(mixed, RULE) == pytest.approx(0, abs=10)


def test_a_lung_without_air_shifts_nothing() -> None:
    assert inflation_shift(np.full(5_000, 30.0, np.float32), RULE) == 0
    assert inflation_shift(np.empty(0, np.float32), RULE) == 0


@pytest.mark.parametrize(
    ("hu", "favoured", "excluded"),
    [
        (-980, {EMPHYSEMA}, {GROUND_GLASS, FIBROSIS, CONSOLIDATION}),
        (-860, {HEALTHY}, {GROUND_GLASS, CONSOLIDATION}),
        (-600, {GROUND_GLASS, FIBROSIS}, {EMPHYSEMA, CONSOLIDATION}),
        (0, {CONSOLIDATION}, {HEALTHY, EMPHYSEMA}),
    ],
)
def test_density_favours_the_right_tissue(hu: float, favoured: set[int], excluded: set[int]) -> None:
    prior = dict(zip(NAMED, log_density_prior(np.array([hu], np.float32), 0.0)[0], strict=True))
    assert max(prior, key=lambda label: prior[label]) in favoured
    assert all(prior[label] == pytest.approx(0, abs=0.1) for label in favoured), "plausible, not just best"
    assert all(prior[label] < -2 for label in excluded)


def test_density_never_excludes_for_good() -> None:
    prior = log_density_prior(np.array([-3000.0, 3000.0], np.float32), 0.0)
    assert np.isfinite(prior).all() and prior.dtype == np.float32
    assert prior.min() >= -25 and prior.max() <= 0


def test_expiration_widens_healthy_lung_and_leaves_emphysema() -> None:
    density = np.array([-700.0, -975.0], np.float32)
    inspired, expired = log_density_prior(density, 0.0), log_density_prior(density, 60.0)
    healthy, emphysema = NAMED.index(HEALTHY), NAMED.index(EMPHYSEMA)
    glass = NAMED.index(GROUND_GLASS)
    assert expired[0, healthy] > inspired[0, healthy]
    assert expired[0, glass] < inspired[0, glass]
    assert expired[1, emphysema] == inspired[1, emphysema]


LABELS = np.array([HEALTHY, HEALTHY, EMPHYSEMA, GROUND_GLASS, FIBROSIS, CONSOLIDATION], np.uint8)


def mixture_says(component: int, points: int) -> np.ndarray:
    densities = np.full((points, len(LABELS)), -20.0, np.float32)
    densities[:, component] = 0.0
    return densities


def posterior(component: int, hu: list[float], sharpness: float = 0.5) -> np.ndarray:
    density = np.array(hu, np.float32)
    weights = np.full(len(LABELS), 1 / len(LABELS))
    prior = log_density_prior(density, 0.0)
    return posterior_of(mixture_says(component, len(hu)), weights, LABELS, prior, RULE, sharpness)


@pytest.mark.parametrize("component", range(len(LABELS)))
def test_the_posterior_sums_to_one(component: int) -> None:
    result = posterior(component, [-1100, -980, -860, -600, -250, 0, 2000])
    assert result.dtype == np.float32 and result.shape == (7, len(NAMED))
    assert np.isfinite(result).all() and result.min() >= 0
    assert result.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_components_of_one_name_are_gathered() -> None:
    weights = np.full(len(LABELS), 1 / len(LABELS))
    densities = np.full((1, len(LABELS)), -20.0, np.float32)
    densities[0, [0, 1, 3]] = 0.0  # two healthy components against one of ground glass
    result = posterior_of(densities, weights, LABELS, np.zeros((1, 5), np.float32), RULE, 1.0)[0]
    assert result[NAMED.index(HEALTHY)] == pytest.approx(2 * result[NAMED.index(GROUND_GLASS)], rel=0.05)


def test_texture_decides_where_density_cannot() -> None:
    fibrosis, glass = NAMED.index(FIBROSIS), NAMED.index(GROUND_GLASS)
    assert posterior(4, [-500])[0].argmax() == fibrosis
    assert posterior(3, [-500])[0].argmax() == glass


def test_clear_density_overrules_a_name() -> None:
    assert posterior(3, [0])[0].argmax() == NAMED.index(CONSOLIDATION)
    assert posterior(0, [-1000])[0].argmax() == NAMED.index(EMPHYSEMA)


def test_no_component_of_a_name_is_no_fault() -> None:
    labels = np.array([HEALTHY, EMPHYSEMA], np.uint8)
    prior = log_density_prior(np.array([30.0], np.float32), 0.0)
    result = posterior_of(np.zeros((1, 2), np.float32), np.array([0.5, 0.5]), labels, prior, RULE, 0.5)
    assert result[0].argmax() == NAMED.index(CONSOLIDATION)
    assert result.sum() == pytest.approx(1, abs=1e-5)
