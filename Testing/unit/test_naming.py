"""Names: typical tissue gets its own, density has its say, and the patient's inflation is allowed for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from DiffSegLungLib.decision.naming import (
    NAMED,
    NamingRule,
    densest_healthy,
    healthy_density,
    log_density_prior,
    lower_shift,
    mean_by_row,
    name_by_rule,
    upper_shift,
)
from DiffSegLungLib.decision.naming import tissue_posterior as posterior_of
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY

RULE = NamingRule()
HYPERINFLATED = -930.0
"""Healthy lung at which no bound is moved."""
SMOOTH = (0.2, 0.2)
"""Lines and holes of tissue without fine structure, log(1 + HU / 20)."""
COARSE = (2.6, 2.9)
"""Those of a honeycomb: lines and holes of about 300 HU."""


def descriptor(hu: float, texture: tuple[float, float] = SMOOTH) -> list[float]:
    return [hu / 100, hu / 100, *texture]


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
    assert name_by_rule(np.array([descriptor(hu, texture)]), RULE, HYPERINFLATED).tolist() == [tissue]


def test_components_may_have_more_descriptors_than_the_rule_reads() -> None:
    points = np.array([[*descriptor(-600), 5.0, -5.0], [*descriptor(0), 0.0, 9.0]])
    names = name_by_rule(points, RULE, HYPERINFLATED)
    assert names.dtype == np.uint8 and names.tolist() == [GROUND_GLASS, CONSOLIDATION]


def test_the_rule_is_stored_as_plain_numbers_and_comes_back() -> None:
    stored = RULE.stored()
    assert all(isinstance(value, float) for value in stored.values())
    assert NamingRule(**stored) == RULE


SHAPE = (20, 80, 50)
SPACING = 1.5


def shift_of(density: np.ndarray, usable: np.ndarray | None = None) -> np.ndarray:
    """The shift by row of a block of lung whose rows run from front to back."""
    usable = np.ones(SHAPE, bool) if usable is None else usable
    return upper_shift(
        healthy_density(density.reshape(SHAPE).astype(np.float32), usable, SPACING, RULE), RULE
    )


def lung(mean: float) -> np.ndarray:
    """A block of aerated lung with the spread of a real one."""
    return np.random.default_rng(0).normal(mean, 28, SHAPE)


def test_full_inspiration_shifts_nothing() -> None:
    np.testing.assert_allclose(shift_of(lung(RULE.reference_hu)), 0, atol=10)


def test_expiration_shifts_by_what_the_lung_is_denser() -> None:
    np.testing.assert_allclose(shift_of(lung(RULE.reference_hu + 60)), 60, atol=12)


def test_gravity_shifts_the_back_more_than_the_front() -> None:
    gradient = np.linspace(0, 60, SHAPE[1])[None, :, None]
    shift = shift_of(lung(RULE.reference_hu + 20) + gradient)
    np.testing.assert_allclose(shift - shift[0], gradient.ravel(), atol=12)


def test_disease_of_the_back_is_not_taken_for_gravity() -> None:
    density = lung(RULE.reference_hu)
    density[:, 60:] = -550
    np.testing.assert_allclose(shift_of(density), 0, atol=15)


@pytest.mark.parametrize("mean", [-930, -900, -885])
def test_hyperinflation_never_makes_emphysema_normal(mean: float) -> None:
    healthy = healthy_density(lung(mean).astype(np.float32), np.ones(SHAPE, bool), SPACING, RULE)
    assert upper_shift(healthy, RULE).max() == 0
    assert lower_shift(healthy, RULE).max() <= max(0, mean + 915)


@pytest.mark.parametrize(("side_mm", "shift"), [(4.0, RULE.largest_shift), (6.2, 91), (7.0, 20), (8.0, 0)])
def test_no_breath_makes_large_lungs_heavy(side_mm: float, shift: float) -> None:
    """1.1 kg in 1.3, 4.8, 6.9 and 10 litres have -140, -769, -840 and -893 HU."""
    density, usable = lung(-640).astype(np.float32), np.zeros(SHAPE, bool)
    usable[:, ::2, ::2] = True
    healthy = healthy_density(density, usable, side_mm, RULE)
    assert mean_by_row(healthy, usable) == pytest.approx(
        min(densest_healthy(usable, side_mm, RULE), -640), abs=10
    )
    assert upper_shift(healthy, RULE).mean() == pytest.approx(shift, abs=2)


def test_the_shift_has_a_limit() -> None:
    assert shift_of(lung(-640)).max() <= RULE.largest_shift


def test_diseased_voxels_do_not_shift_the_healthy_ones() -> None:
    density, random = lung(RULE.reference_hu), np.random.default_rng(1)
    kind = random.random(SHAPE)
    density[kind < 0.25] = -500
    density[kind > 0.75] = -985
    np.testing.assert_allclose(shift_of(density), 0, atol=15)


def test_a_lung_without_air_shifts_nothing() -> None:
    assert shift_of(np.full(SHAPE, 30.0)).max() == 0
    assert shift_of(lung(-860), np.zeros(SHAPE, bool)).max() == 0


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
    prior = dict(
        zip(NAMED, log_density_prior(np.array([hu], np.float32), RULE.reference_hu, RULE)[0], strict=True)
    )
    assert max(prior, key=lambda label: prior[label]) in favoured
    assert all(prior[label] == pytest.approx(0, abs=0.1) for label in favoured), "plausible, not just best"
    assert all(prior[label] < -2 for label in excluded)


def test_density_never_excludes_for_good() -> None:
    prior = log_density_prior(np.array([-3000.0, 3000.0], np.float32), RULE.reference_hu, RULE)
    assert np.isfinite(prior).all() and prior.dtype == np.float32
    assert prior.min() >= -25 and prior.max() <= 0


def test_expiration_widens_healthy_lung_and_leaves_emphysema() -> None:
    density = np.array([-700.0, -975.0], np.float32)
    inspired = log_density_prior(density, RULE.reference_hu, RULE)
    expired = log_density_prior(density, RULE.reference_hu + 60, RULE)
    healthy, emphysema = NAMED.index(HEALTHY), NAMED.index(EMPHYSEMA)
    glass = NAMED.index(GROUND_GLASS)
    assert expired[0, healthy] > inspired[0, healthy]
    assert expired[0, glass] < inspired[0, glass]
    assert expired[1, emphysema] == pytest.approx(inspired[1, emphysema], abs=1e-3)


LABELS = np.array([HEALTHY, HEALTHY, EMPHYSEMA, GROUND_GLASS, FIBROSIS, CONSOLIDATION], np.uint8)


def mixture_says(component: int, points: int) -> np.ndarray:
    densities = np.full((points, len(LABELS)), -20.0, np.float32)
    densities[:, component] = 0.0
    return densities


def posterior(component: int, hu: list[float], sharpness: float = 0.5) -> np.ndarray:
    density = np.array(hu, np.float32)
    weights = np.full(len(LABELS), 1 / len(LABELS))
    prior = log_density_prior(density, RULE.reference_hu, RULE)
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
    result = posterior_of(
        densities, weights, LABELS, np.zeros((1, 5), np.float32), replace(RULE, floor=0.0), 1.0
    )[0]
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
    prior = log_density_prior(np.array([30.0], np.float32), RULE.reference_hu, RULE)
    result = posterior_of(np.zeros((1, 2), np.float32), np.array([0.5, 0.5]), labels, prior, RULE, 0.5)
    assert result[0].argmax() == NAMED.index(CONSOLIDATION)
    assert result.sum() == pytest.approx(1, abs=1e-5)
