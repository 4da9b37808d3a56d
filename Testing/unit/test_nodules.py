"""Solid nodules are told from vessels by what goes on around them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.parenchyma.nodules import find_nodules
from DiffSegLungLib.parenchyma.vessels import separate_vessels

SPACING = 1.5
SHAPE = (48, 48, 48)
MASK = np.ones(SHAPE, bool)
NOWHERE = np.zeros(SHAPE, bool)
MIDDLE = (24, 24, 24)


def axes() -> list[np.ndarray]:
    return [axis - 24.0 for axis in np.ogrid[:48, :48, :48]]


def soft_edge(distance_mm: np.ndarray) -> np.ndarray:
    """HU of soft tissue in lung where the distance to its surface is negative, an edge of a voxel's width."""
    share = np.clip(0.5 - distance_mm / SPACING, 0, 1)
    return (-860 + 890 * share).astype(np.float32)


def ball(radius_mm: float) -> np.ndarray:
    z, y, x = axes()
    return np.sqrt(z**2 + y**2 + x**2) * SPACING - radius_mm


def tube(radius_mm: float, towards: tuple[float, float, float]) -> np.ndarray:
    """Distance to a vessel that starts in the middle and runs one way."""
    way = np.array(towards) / np.linalg.norm(towards)
    place = np.stack(np.broadcast_arrays(*axes()), axis=-1)
    along = np.clip(place @ way, 0, None)[..., None]
    return np.linalg.norm(place - along * way, axis=-1) * SPACING - radius_mm


@pytest.mark.parametrize("radius", [4.0, 5.0, 6.5, 8.0])
def test_a_round_nodule_is_found_whole(radius: float) -> None:
    found = find_nodules(soft_edge(ball(radius)), MASK, NOWHERE, SPACING)
    true = ball(radius) < 0
    assert 2 * (found & true).sum() / (found.sum() + true.sum()) > 0.85


def test_a_vessel_that_feeds_it_does_not_hide_it() -> None:
    vessel = tube(1.5, (0.3, 1.0, 0.2))
    found = find_nodules(soft_edge(np.minimum(ball(5.0), vessel)), MASK, NOWHERE, SPACING)
    assert (found & (ball(5.0) < 0)).sum() > 0.85 * (ball(5.0) < 0).sum()
    assert not found[vessel < 0].all(), "the vessel itself is no nodule"


@pytest.mark.parametrize("radius", [2.5, 3.5, 4.5])
def test_vessels_and_the_places_where_they_part_are_none(radius: float) -> None:
    ways = ((1.0, 0.2, 0.0), (-1.0, 0.5, 0.3), (-0.3, -1.0, 0.4))
    straight = np.minimum(tube(radius, (1.0, 0.0, 0.1)), tube(radius, (-1.0, 0.0, -0.1)))
    parting = np.minimum.reduce([tube(radius, way) for way in ways])
    border = ~ndimage.binary_erosion(MASK, iterations=6)  # there a vessel is cut, and may come from a hilum
    for vessels in (straight, parting):
        assert not find_nodules(soft_edge(vessels), MASK, border, SPACING).any()


def test_at_the_hila_and_outside_the_lungs_nothing_is_looked_for() -> None:
    hu = soft_edge(ball(5.0))
    assert not find_nodules(hu, MASK, MASK, SPACING).any()
    assert not find_nodules(hu, ball(9.0) > 0, NOWHERE, SPACING).any()


def test_a_nodule_is_no_vessel_and_keeps_its_density() -> None:
    hu = soft_edge(np.minimum(ball(5.0), tube(1.5, (0.3, 1.0, 0.2))))
    parenchyma = separate_vessels(hu, np.ones(SHAPE, np.uint8), NOWHERE, SPACING)
    assert not parenchyma.vessels[MIDDLE] and parenchyma.density[MIDDLE] > 0 and parenchyma.lines[MIDDLE] == 0
    along = (24 + 3, 24 + 10, 24 + 2)
    assert parenchyma.density[along] < -700
