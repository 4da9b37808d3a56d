"""Distances and boxes that the stages share."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.filters import box_around, nearest_inside, squared_distance, within


@pytest.fixture(scope="module")
def mask() -> np.ndarray:
    noise = np.random.default_rng(0).random((30, 41, 37))
    return ndimage.gaussian_filter(noise, 2) > 0.52


@pytest.mark.parametrize("radius", [1.0, 1.5, 2.0, 4.0, 5.33, 10.0, 14.0])
def test_within_is_a_ball_by_the_distance_transform(mask: np.ndarray, radius: float) -> None:
    assert np.array_equal(within(mask, radius), ndimage.distance_transform_edt(~mask) <= radius)


def test_short_squared_distances_are_exact_and_long_ones_are_far(mask: np.ndarray) -> None:
    alone = np.zeros_like(mask)
    alone[3, 4, 5] = True
    exact = np.rint(ndimage.distance_transform_edt(~alone) ** 2)
    found = squared_distance(alone, 6)
    assert np.array_equal(found[exact <= 36], exact[exact <= 36])
    assert (found[exact > 36] > 36).all()


def test_an_empty_mask_is_far_from_everything() -> None:
    assert not within(np.zeros((4, 5, 6), bool), 3.0).any()


def test_an_axis_shorter_than_the_reach_works() -> None:
    mask = np.zeros((2, 30, 1), bool)
    mask[0, 0] = True
    assert np.array_equal(within(mask, 8.0), ndimage.distance_transform_edt(~mask) <= 8.0)


def test_the_nearest_voxel_is_in_the_mask_and_as_near_as_can_be(mask: np.ndarray) -> None:
    nearest = nearest_inside(mask)
    assert mask.take(nearest).all() and np.array_equal(nearest[mask], np.flatnonzero(mask))
    steps = np.subtract(np.unravel_index(nearest, mask.shape), np.indices(mask.shape))
    assert np.linalg.norm(steps, axis=0) == pytest.approx(ndimage.distance_transform_edt(~mask))


def test_a_box_holds_the_mask_and_its_margin() -> None:
    mask = np.zeros((20, 20, 20), bool)
    mask[5:8, 1:3, 19] = True
    assert box_around(mask, 2) == (slice(3, 10), slice(0, 5), slice(17, 22))
    assert mask[box_around(mask, 0)].all()
