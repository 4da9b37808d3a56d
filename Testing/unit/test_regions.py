"""Decisions by region: edges go to what they are the edge of, and a region has one texture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.decision.lucent_regions import drop_marginal_lucencies, find_lumens, grow_holes
from DiffSegLungLib.decision.naming import NAMED, NamingRule, hole_edge, share_by_texture
from DiffSegLungLib.decision.raised_regions import (
    _opened_by_cube,
    agree_on_texture,
    drop_bronchovascular_bundles,
    drop_small_or_superficial,
    part_rims,
)
from DiffSegLungLib.decision.regions import RegionSettings
from DiffSegLungLib.parenchyma.cavities import cavity_walls, find_cavities
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY

SIDE, SPACING = 40, 1.5
SETTINGS = RegionSettings()
MASK = np.ones((SIDE,) * 3, bool)
Box = tuple[slice, slice, slice]


def cube(low: int, high: int) -> Box:
    return (slice(low, high),) * 3


def posterior_of(labels: np.ndarray) -> np.ndarray:
    return np.stack([np.where(labels == label, 0.8, 0.05) for label in NAMED]).astype(np.float32)


def labels_of(posterior: np.ndarray) -> np.ndarray:
    return np.array(NAMED)[posterior.argmax(axis=0)]


def test_a_thin_shell_around_consolidation_is_parted_half_way() -> None:
    labels, hu = np.full(MASK.shape, HEALTHY), np.full(MASK.shape, -860.0, np.float32)
    labels[cube(9, 31)], labels[cube(11, 29)] = GROUND_GLASS, CONSOLIDATION
    hu[cube(9, 31)], hu[cube(10, 30)] = -600.0, 0.0
    found = labels_of(part_rims(posterior_of(labels), NAMED, hu, MASK, SPACING, SETTINGS))
    assert (found == GROUND_GLASS).sum() < 0.01 * (labels == GROUND_GLASS).sum()  # the cube's corners
    assert (found[cube(10, 30)] == CONSOLIDATION).mean() > 0.95
    assert (found[9, 12:28, 12:28] == HEALTHY).all()


def bundle_of(label: int, vessels_around: bool, core: int = FIBROSIS) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of a piece of 2.5 ml, with or without vessels that leave it; where it was."""
    labels, vessels = np.full(MASK.shape, HEALTHY), np.zeros(MASK.shape, bool)
    labels[cube(16, 25)], labels[cube(18, 23)] = label, core
    if vessels_around:
        vessels[:, 19:22, 19:22] = vessels[19:22, :, 19:22] = vessels[19:22, 19:22] = True
    where = labels != HEALTHY
    return labels_of(
        drop_bronchovascular_bundles(posterior_of(labels), NAMED, vessels, MASK, SPACING, SETTINGS)
    ), where


@pytest.mark.parametrize("label", [FIBROSIS, GROUND_GLASS])
def test_a_bundle_of_vessels_is_no_disease(label: int) -> None:
    found, where = bundle_of(label, vessels_around=True, core=label)
    assert (found[where] == HEALTHY).all()
    found, where = bundle_of(label, vessels_around=False, core=label)
    assert (found[where] == label).all()


def test_a_nodule_at_a_vessel_stays() -> None:
    found, where = bundle_of(CONSOLIDATION, vessels_around=True, core=CONSOLIDATION)
    assert (found[where] == CONSOLIDATION).all()


def test_a_net_among_vessels_within_ground_glass_is_ground_glass() -> None:
    labels, vessels = np.full(MASK.shape, HEALTHY), np.zeros(MASK.shape, bool)
    labels[cube(5, 35)], labels[4:12, 16:25, 16:25] = GROUND_GLASS, FIBROSIS
    vessels[:4, 14:27, 14:27] = True
    found = labels_of(
        drop_bronchovascular_bundles(posterior_of(labels), NAMED, vessels, MASK, SPACING, SETTINGS)
    )
    assert (found[cube(5, 35)] == GROUND_GLASS).all()


def hole_of(darkest: float, spacing: float = SPACING) -> np.ndarray:
    """What becomes of a hole just below its bound whose middle third a side is as dark as given."""
    labels, density = np.full(MASK.shape, HEALTHY), np.full(MASK.shape, -860.0, np.float32)
    labels[cube(10, 22)], density[cube(10, 22)], density[cube(13, 19)] = EMPHYSEMA, -952.0, darkest
    bound = np.full((1, SIDE, 1), -950.0, np.float32)
    return labels_of(
        drop_marginal_lucencies(posterior_of(labels), NAMED, density, bound, MASK, spacing, SETTINGS)
    )


def test_lung_that_hardly_passes_the_bound_is_no_hole() -> None:
    assert (hole_of(-960.0) == HEALTHY).all()
    found = hole_of(-985.0)
    assert (found[cube(10, 22)] == EMPHYSEMA).all() and (found == EMPHYSEMA).sum() == 12**3


def test_a_large_part_of_the_lung_that_hardly_passes_the_bound_is_emphysema() -> None:
    millilitres = 12**3 * 3.2**3 / 1000
    assert millilitres > SETTINGS.faint_ml > 12**3 * 2.8**3 / 1000 * 0.5
    assert (hole_of(-960.0, spacing=3.2)[cube(10, 22)] == EMPHYSEMA).all()


@pytest.mark.parametrize(
    ("wall", "side", "is_lumen"), [(True, 4, True), (False, 4, False), (True, 16, False)]
)
def test_air_within_bronchial_walls_is_no_emphysema(wall: bool, side: int, is_lumen: bool) -> None:
    labels, vessels = np.full(MASK.shape, HEALTHY), np.zeros(MASK.shape, bool)
    hole = np.zeros(MASK.shape, bool)
    hole[10 : 10 + side, 10 : 10 + side, 10 : 10 + side] = True
    labels[hole] = EMPHYSEMA
    vessels[8 : 12 + side, 8:10, 8 : 12 + side] = wall
    vessels[8 : 12 + side, 8 : 12 + side, 8:10] = wall
    lumens = find_lumens(posterior_of(labels), NAMED, vessels, MASK, SPACING, SETTINGS)
    assert np.array_equal(lumens, hole if is_lumen else np.zeros_like(hole))


def test_thick_ground_glass_beside_consolidation_stays() -> None:
    labels, hu = np.full(MASK.shape, HEALTHY), np.full(MASK.shape, -600.0, np.float32)
    labels[cube(5, 20)] = CONSOLIDATION
    labels[20:35, 5:20, 5:20] = GROUND_GLASS
    found = labels_of(part_rims(posterior_of(labels), NAMED, hu, MASK, SPACING, SETTINGS))
    assert (found[20:35, 6:19, 6:19] == GROUND_GLASS).mean() > 0.95


@pytest.mark.parametrize("side", [2, 5, 6])
def test_an_opening_by_lines_is_that_by_the_cube(side: int) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(side).normal(size=(20, 24, 22)), side / 2) > -0.02
    expected = ndimage.binary_opening(mask, np.ones((side,) * 3, bool))
    assert expected.any() and not expected.all()
    assert np.array_equal(_opened_by_cube(mask, side), expected)


def test_a_hole_grows_to_the_middle_of_its_edge_and_no_further() -> None:
    labels, hu = np.full(MASK.shape, HEALTHY), np.full(MASK.shape, -860.0, np.float32)
    labels[cube(15, 25)] = EMPHYSEMA
    hu[cube(14, 26)] = -985.0
    edge = hole_edge(np.full((SIDE, 1), -860.0))
    found = labels_of(grow_holes(posterior_of(labels), NAMED, hu, edge, MASK, SPACING, SETTINGS))
    assert (found[cube(15, 25)] == EMPHYSEMA).all()
    assert 10**3 < (found == EMPHYSEMA).sum() <= 12**3
    plain = posterior_of(np.full(MASK.shape, HEALTHY))
    assert (labels_of(grow_holes(plain, NAMED, hu, edge, MASK, SPACING, SETTINGS)) == HEALTHY).all()


@pytest.mark.parametrize(("netted", "expected"), [(13, FIBROSIS), (1, GROUND_GLASS)])
def test_a_region_takes_the_texture_of_most_of_it(netted: int, expected: int) -> None:
    labels = np.full(MASK.shape, HEALTHY)
    labels[10:24, 10:24, 10:24] = GROUND_GLASS
    labels[10 : 10 + netted, 10:24, 10:24] = FIBROSIS
    found = labels_of(agree_on_texture(posterior_of(labels), NAMED, MASK, SPACING, SETTINGS))
    assert (found[cube(10, 24)] == expected).all()


def test_half_and_half_stays_as_it_is() -> None:
    labels = np.full(MASK.shape, HEALTHY)
    labels[cube(10, 24)], labels[10:17, 10:24, 10:24] = GROUND_GLASS, FIBROSIS
    assert (labels_of(agree_on_texture(posterior_of(labels), NAMED, MASK, SPACING, SETTINGS)) == labels).all()


def test_a_narrow_bridge_does_not_make_two_regions_one() -> None:
    labels = np.full(MASK.shape, HEALTHY)
    labels[cube(4, 14)], labels[cube(20, 34)] = GROUND_GLASS, FIBROSIS
    labels[14:20, 8:10, 8:10] = GROUND_GLASS
    found = labels_of(agree_on_texture(posterior_of(labels), NAMED, MASK, SPACING, SETTINGS))
    assert (found[cube(4, 14)] == GROUND_GLASS).all() and (found[cube(20, 34)] == FIBROSIS).all()


def test_a_layer_along_the_pleura_goes_and_the_lesion_it_hangs_on_stays() -> None:
    lung = MASK.copy()
    lung[:, :6] = False
    labels = np.full(MASK.shape, HEALTHY)
    labels[:, 6:8], labels[4:14, 6:16, 4:14] = GROUND_GLASS, GROUND_GLASS
    found = labels_of(drop_small_or_superficial(posterior_of(labels), NAMED, lung, SPACING, 1.5, SETTINGS))
    assert (found[4:14, 6:16, 4:14] == GROUND_GLASS).all()
    assert (found[30:, 6:8, 30:] == HEALTHY).all()


def test_a_small_net_is_ground_glass_and_not_healthy() -> None:
    labels = np.full(MASK.shape, HEALTHY)
    labels[cube(10, 22)], labels[cube(10, 15)] = GROUND_GLASS, FIBROSIS
    found = labels_of(drop_small_or_superficial(posterior_of(labels), NAMED, MASK, SPACING, 1.5, SETTINGS))
    assert (found[cube(10, 15)] == GROUND_GLASS).all()


def test_texture_moves_nothing_but_ground_glass_and_fibrosis() -> None:
    rule = NamingRule()
    posterior = np.tile(np.array([[0.3, 0.1, 0.3, 0.2, 0.1]], np.float32), (2, 1))
    shared = share_by_texture(posterior, np.array([rule.net_above - 0.3, rule.net_above + 0.3]), rule)
    glass, fibrosis = NAMED.index(GROUND_GLASS), NAMED.index(FIBROSIS)
    others = [index for index in range(len(NAMED)) if index not in (glass, fibrosis)]
    assert np.allclose(shared[:, others], posterior[:, others])
    assert np.allclose(shared.sum(axis=1), 1.0)
    assert shared[0, glass] > 0.45 and shared[1, fibrosis] > 0.45


def shell(wall_hu: float, wall: float) -> tuple[np.ndarray, np.ndarray]:
    """A ball of air of 9 mm radius in a wall; HU and the distance from its middle in mm."""
    away = np.linalg.norm((np.indices(MASK.shape).T - SIDE / 2) * SPACING, axis=-1).T
    hu = np.where(away < 9 + wall, wall_hu, -860.0)
    return np.where(away < 9, -990.0, hu).astype(np.float32), away


def test_a_thin_walled_cavity_is_found_up_to_its_wall() -> None:
    hu, away = shell(20.0, 2.5)
    found = find_cavities(hu, MASK, np.zeros(MASK.shape, bool), SPACING)
    overlap = 2 * (found & (away < 9)).sum() / (found.sum() + (away < 9).sum())
    assert overlap > 0.9
    walls = cavity_walls(found, hu, MASK, SPACING)
    assert walls[(away > 9.5) & (away < 11)].mean() > 0.8
    assert not walls[away > 14].any()


def test_a_bulla_with_a_hairline_wall_is_no_cavity() -> None:
    hu, _ = shell(-720.0, 1.5)
    assert not find_cavities(hu, MASK, np.zeros(MASK.shape, bool), SPACING).any()
