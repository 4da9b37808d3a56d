"""The network read on a CT, and what is decided from it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from DiffSegLungLib.decision.by_network import (
    AIRWAY,
    NetworkReading,
    calibrated,
    cavities_of,
    dense_beside,
    disease_kept,
    diseased_where_likely,
    shares_of_tissues,
    vessels_of,
)
from DiffSegLungLib.decision.naming import NAMED
from DiffSegLungLib.representation.network import TissueNetwork, on_grid
from DiffSegLungLib.representation.reading import Reading, _along, read
from DiffSegLungLib.representation.tissue_unet import CELL, CLASSES, SPACING, TissueUNet
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

WINDOW = (16, 32, 32)


@pytest.fixture(scope="module")
def net() -> TissueUNet:
    torch.manual_seed(0)
    return TissueUNet((8, 8, 8)).eval()


def posterior_of(*parts: tuple[int, float], shape: tuple[int, int, int] = (1, 1, 1)) -> np.ndarray:
    posterior = np.zeros((CLASSES, *shape), np.float32)
    for label, share in parts:
        posterior[label] = share
    return posterior


def test_overlapping_windows_sum_to_one_and_agree_with_a_single_one(net: TissueUNet) -> None:
    hu = np.full((24, 40, 56), -800, np.float32)
    reading = read(net, hu, window=WINDOW)
    assert reading.posterior.shape == (CLASSES, 24, 40, 56)
    assert reading.features.shape == (8, 24, 20, 28)
    assert np.abs(reading.posterior.astype(np.float32).sum(axis=0) - 1).max() < 0.02
    whole = read(net, hu[:16, :32, :32], window=WINDOW)
    middle = (slice(None), slice(0, 4), slice(0, 8), slice(0, 8))
    assert np.abs(whole.posterior[middle].astype(float) - reading.posterior[middle]).max() < 0.02


@pytest.mark.parametrize("largest", [48, 160])
def test_windows_cover_every_side_and_overlap(largest: int) -> None:
    grain = 8 if largest == 48 else 16
    for side in range(1, 500):
        width, starts = _along(side, largest, grain)
        assert width % grain == 0 and width <= largest and all(start % CELL == 0 for start in starts)
        assert starts[0] == 0 and starts[-1] + width >= side
        assert all(after - before <= width - largest // 5 + CELL for before, after in pairwise(starts))


def test_the_mean_over_the_mirror_image_knows_no_side(net: TissueUNet) -> None:
    hu = np.random.default_rng(0).uniform(-900, 100, (16, 32, 32)).astype(np.float32)
    network = TissueNetwork(net, 1.0, (0.0,) * CLASSES)
    seen = network.read(hu, SPACING, mirrored=True)
    other = network.read(hu[..., ::-1], SPACING, mirrored=True)
    assert np.abs(seen.posterior.astype(float) - other.posterior[..., ::-1]).max() < 2e-3
    once = network.read(hu, SPACING).posterior
    assert np.abs(once.astype(float) - seen.posterior).max() > 1e-2
    assert network.read(hu[..., :31], SPACING, mirrored=True).posterior.shape == (CLASSES, 16, 32, 31)


def test_windows_without_lung_are_outside_and_not_read(net: TissueUNet, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(TissueUNet, "forward", lambda *_: pytest.fail("was read"))
    reading = read(net, np.full((16, 32, 32), 40, np.float32), window=WINDOW)
    assert (reading.posterior[OUTSIDE] == 1).all()


def test_slices_with_gaps_stand_for_themselves() -> None:
    hu = np.zeros((3, 20, 20), np.float32)
    hu[1] = -900
    grid = on_grid(hu, (10.0, 1.0, 1.0))
    assert len(grid) == 15 and set(np.unique(grid)) == {-900.0, 0.0}
    assert len(np.unique(on_grid(hu, (5.0, 1.0, 1.0)))) > 2


def test_the_posterior_comes_onto_a_grid_that_begins_elsewhere() -> None:
    """A block of ground glass from 20 to 40 mm of the CT is there on the other grid too."""
    posterior = np.zeros((CLASSES, 30, 60, 60), np.float16)
    posterior[HEALTHY] = 1
    posterior[:, 10:20, 20:40, 20:40] = 0
    posterior[GROUND_GLASS, 10:20, 20:40, 20:40] = 1
    seen = NetworkReading(Reading(posterior, posterior[:1]), (slice(4, 34), slice(10, 70), slice(10, 70)))
    box = (slice(9, 34), slice(20, 60), slice(20, 60))  # 10 mm later along each axis
    found = seen.posterior_on(box, (2.0, 1.0, 1.0), (25, 20, 20), (1.5, 1.5, 1.5))[GROUND_GLASS]
    inside = np.zeros(found.shape, bool)
    middles = [(np.arange(side) + 0.5) * 1.5 + 10 for side in found.shape]
    inside[np.ix_(*((axis > 20) & (axis < 40) for axis in middles))] = True
    assert ((found > 0.5) == inside).mean() > 0.97


def test_calibration_softens_and_shifts_but_keeps_the_order_without_a_bias() -> None:
    posterior = posterior_of((HEALTHY, 0.7), (GROUND_GLASS, 0.3))
    softer = calibrated(posterior, 2.0, [0.0] * CLASSES)
    assert softer.sum(axis=0) == pytest.approx(1, abs=1e-5)
    assert 0.3 < softer[GROUND_GLASS].item() < 0.5
    bias = [0.0] * CLASSES
    bias[GROUND_GLASS] = 2.0
    assert calibrated(posterior, 1.0, bias).argmax() == GROUND_GLASS


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (((HEALTHY, 0.6), (OUTSIDE, 0.4)), HEALTHY),
        (((OUTSIDE, 0.8), (GROUND_GLASS, 0.15), (HEALTHY, 0.05)), GROUND_GLASS),
        (((OUTSIDE, 0.7), (CONSOLIDATION, 0.2), (VESSEL, 0.1)), CONSOLIDATION),
        (((OUTSIDE, 0.7), (CONSOLIDATION, 0.1), (VESSEL, 0.2)), HEALTHY),
        (((VESSEL, 0.9), (GROUND_GLASS, 0.1)), HEALTHY),
        (((CAVITY, 0.9), (HEALTHY, 0.1)), CONSOLIDATION),
        (((OUTSIDE, 1.0),), HEALTHY),
    ],
)
def test_each_voxel_of_lung_has_a_posterior(parts, expected: int) -> None:  # type: ignore[no-untyped-def]
    shares = shares_of_tissues(posterior_of(*parts), np.ones((1, 1, 1), bool))
    assert shares.sum() == pytest.approx(1)
    assert NAMED[int(shares.argmax())] == expected


def test_nothing_that_is_likely_diseased_becomes_healthy() -> None:
    rng = np.random.default_rng(0)
    posterior = rng.dirichlet(np.full(CLASSES, 0.3), (8, 8, 8)).transpose(3, 0, 1, 2).astype(np.float32)
    shares = shares_of_tissues(posterior, np.ones((8, 8, 8), bool))
    diseased = posterior[EMPHYSEMA : CAVITY + 1].sum(axis=0) > 0.5
    assert (shares[NAMED.index(HEALTHY)][diseased] < 0.5).all()
    assert not (
        vessels_of(posterior, np.ones((8, 8, 8), bool)) & (posterior[EMPHYSEMA:VESSEL].max(axis=0) > 0.5)
    ).any()


def test_several_likely_diseases_together_outweigh_healthy_lung() -> None:
    shares = np.zeros((len(NAMED), 1, 1, 3), np.float32)
    healthy, glass, net = (NAMED.index(label) for label in (HEALTHY, GROUND_GLASS, FIBROSIS))
    shares[healthy] = [0.4, 0.6, 0.0]
    shares[glass] = [0.35, 0.25, 0.0]
    shares[net] = [0.25, 0.15, 0.0]
    decided = diseased_where_likely(shares)
    assert decided.argmax(axis=0).ravel()[:2].tolist() == [glass, healthy]
    assert np.allclose(decided.sum(axis=0), shares.sum(axis=0))
    assert np.allclose(np.sort(decided, axis=0), np.sort(shares, axis=0))


def test_the_fusion_erases_no_disease() -> None:
    """Whatever the fusion makes of it: where disease is likelier than not, no voxel ends as healthy lung."""
    random = np.random.default_rng(0)
    posterior = random.dirichlet(np.full(CLASSES, 0.3), (6, 8, 10)).transpose(3, 0, 1, 2).astype(np.float32)
    shares = shares_of_tissues(posterior, np.ones((6, 8, 10), bool))
    smoothed = np.zeros_like(shares)
    smoothed[NAMED.index(HEALTHY)] = 1
    kept = disease_kept(smoothed, shares, posterior).argmax(axis=0)
    diseased = posterior[EMPHYSEMA : CAVITY + 1].sum(axis=0) > 0.5
    assert 50 < diseased.sum() < 450
    assert (kept[diseased] != NAMED.index(HEALTHY)).all()
    assert (kept[~diseased] == NAMED.index(HEALTHY)).all()


def test_airless_lung_beside_the_lungs_is_added_and_what_touches_none_is_not() -> None:
    lungs = np.zeros((20, 40, 40), bool)
    lungs[4:16, 10:30, 5:35] = True
    lungs[4:16, 18:30, 10:30] = False  # a dent in the lungs, as found
    posterior = np.zeros((CLASSES, *lungs.shape), np.float32)
    posterior[OUTSIDE] = 1
    for part in (np.s_[4:16, 10:34, 10:30], np.s_[4:16, 36:40, 10:30]):
        posterior[(slice(None), *part)] = 0
        posterior[(CONSOLIDATION, *part)] = 1
    hu = np.full(lungs.shape, 40, np.float32)
    added = dense_beside(lungs, posterior, hu, voxel_ml=0.01)
    assert added[10, 25, 20] and not (added & lungs).any()
    assert not added[:, 30:].any()  # of the wall of the chest, and what touches no lung
    assert not dense_beside(lungs, posterior, hu, voxel_ml=1e-5).any()
    assert not dense_beside(lungs, posterior, hu - 900, voxel_ml=0.01).any()


def test_airways_are_no_lung_and_cavities_have_a_least_size() -> None:
    lungs = np.zeros((10, 20, 20), bool)
    lungs[2:8, 2:10, 2:18] = True
    posterior = np.zeros((CLASSES, *lungs.shape), np.float32)
    posterior[OUTSIDE] = 1
    posterior[:, 2:8, 10:18, 2:18] = 0
    posterior[AIRWAY, 2:8, 10:18, 2:18] = 1
    assert not dense_beside(lungs, posterior, np.zeros(lungs.shape, np.float32), 0.01).any()
    posterior[:] = 0
    posterior[CAVITY, 3:6, 4:8, 4:8] = 1
    hu = np.full(lungs.shape, 40, np.float32)
    hu[3:5, 5:7, 5:7] = -950
    assert cavities_of(posterior[:, lungs], lungs, hu, 2.5).sum() == 8  # the air, not its wall
    assert cavities_of(posterior[:, lungs], lungs, hu, 2.0).sum() == 0  # 0.06 ml
    posterior[CAVITY] = 1
    hu[3:6, 4:8, 4:8] = -950
    assert cavities_of(posterior[:, lungs], lungs, hu, 1.5).sum() == 48
    assert not cavities_of(posterior[:, lungs], lungs, hu + 900, 4.0).any()
