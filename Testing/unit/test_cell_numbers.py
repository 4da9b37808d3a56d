"""Density and texture of cells: against their definitions, and the same in a window as in the whole CT."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from DiffSegLungLib.representation import cell_numbers as module
from DiffSegLungLib.representation.cell_numbers import (
    BALLS,
    CELL_NUMBERS,
    CONTEXT,
    DENSITY_NUMBERS,
    EDGES_HU,
    NEIGHBOURHOODS,
    SCALES,
    SHARES,
    WIDE_BALLS,
    cell_numbers,
    cell_numbers_by_slabs,
    density_numbers,
    inner,
    without_rim,
)
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING, from_hounsfield

CLASSES = len(EDGES_HU) + 1
TEXTURES_FROM = DENSITY_NUMBERS * len(SCALES) + CLASSES * len(NEIGHBOURHOODS)
LEVEL = CELL_NUMBERS - 2
RAISED_FROM = LEVEL - 2 * len(BALLS)
WIDE_FROM = RAISED_FROM - 2 * len(WIDE_BALLS) * len(NEIGHBOURHOODS)
FAR_OF_NOTHING = 0.005
"""Where nothing rises, the soft edge of what counts as far says so much."""


def some_ct(side: int = 32, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Two CT in HU and ragged masks, (2, 1, side, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    hu = torch.randn((2, 1, side, side, side), generator=generator) * 140 - 860
    return hu, (torch.rand(hu.shape, generator=generator) > 0.4).float()


@pytest.mark.parametrize("side", SCALES)
def test_density_numbers_equal_their_definition(side: int) -> None:
    hu, mask = some_ct()
    x = from_hounsfield(hu)
    numbers = density_numbers(x, mask, side)
    assert numbers.shape == (2, 2 + len(SHARES), 4, 4, 4)
    first, step = 8 - (side - 8) // 2, side // 8  # of the second cell along each axis
    along = slice(first, first + side, step)
    values, inside = (one[1, 0, along, along, along] for one in (x, mask))
    lung = np.sort(values[inside > 0].numpy())
    places = [round(share * (len(lung) - 1)) for share in SHARES]
    expected = [lung.mean(), lung.std(), *lung[places]]
    assert numbers[1, :, 1, 1, 1].numpy() == pytest.approx(expected, abs=1e-5)


def test_without_lung_everything_is_zero_and_finite() -> None:
    hu, mask = some_ct()
    numbers = cell_numbers(hu, torch.zeros_like(mask))
    assert torch.equal(numbers, torch.zeros_like(numbers))


def test_density_and_histogram_are_exact_hounsfield_units() -> None:
    constant = torch.full((1, 1, 40, 40, 40), -900.0)
    numbers = cell_numbers(constant, torch.ones_like(constant))[0, :, 2, 2, 2]
    assert len(numbers) == CELL_NUMBERS
    assert float(numbers[0]) == pytest.approx(100 / 700 - 1, abs=1e-6)
    assert float(numbers[1]) == pytest.approx(0, abs=1e-6)
    histogram = numbers[DENSITY_NUMBERS * len(SCALES) : TEXTURES_FROM].square()
    assert histogram[:CLASSES].numpy().argmax() == 1, "from -950 to -850 HU"
    assert float(histogram[:CLASSES].sum()) == pytest.approx(1, abs=1e-3)
    assert float(numbers[TEXTURES_FROM:LEVEL].max()) < FAR_OF_NOTHING, "no texture away from the border"
    assert float(numbers[LEVEL]) == pytest.approx(-9, abs=1e-5), "hundreds of HU"
    assert float(numbers[-1]) == 1


def test_nothing_outside_the_lungs_counts() -> None:
    hu, mask = some_ct()
    changed = torch.where(mask > 0.5, hu, torch.randn(hu.shape) * 300)
    told = (cell_numbers(one, mask) for one in (hu, changed))
    histogram = slice(DENSITY_NUMBERS * len(SCALES), None)
    before, after = told
    assert torch.allclose(before, after, atol=1e-4)
    assert float(before[:, histogram].abs().max()) > 0.1


def test_a_net_of_lines_is_told_from_a_haze_of_the_same_density() -> None:
    net = torch.full((1, 1, 40, 40, 40), -800.0)
    net[..., ::5, :, :] = net[..., :, ::5, :] = net[..., :, :, ::5] = -300.0
    haze = torch.full_like(net, float(net.mean()))
    lungs = torch.ones_like(net)
    texture = [cell_numbers(one, lungs)[0, TEXTURES_FROM:LEVEL, 2, 2, 2] for one in (net, haze)]
    assert float(texture[0].max()) > 1.5
    assert float(texture[1].max()) < FAR_OF_NOTHING


def test_lines_in_raised_tissue_are_told_apart_from_vessels_beside_it() -> None:
    """Half haze, half healthy lung with vessels: the same lines count only where they cross the haze."""
    hu = torch.full((1, 1, 64, 64, 64), -860.0)
    hu[..., :32] = -560.0
    crossed, beside = hu.clone(), hu.clone()
    crossed[:, :, ::5, ::5, :32] += 300
    beside[:, :, ::5, ::5, 32:] += 300
    lungs = torch.ones_like(hu)
    plain, inside, outside = (cell_numbers(one, lungs)[0, :, 4, 4, 4] for one in (hu, crossed, beside))
    rises = slice(RAISED_FROM, RAISED_FROM + len(BALLS))
    assert float((inside - plain)[rises].min()) > 0.2
    assert float((outside - plain)[rises].abs().max()) < 0.05


@pytest.mark.parametrize(("wall", "lumen", "place"), [(20.0, -950.0, 2), (-860.0, 30.0, 0)])
def test_what_is_as_wide_as_a_lesion_is_told(wall: float, lumen: float, place: int) -> None:
    """A lumen of 12 mm in a wall falls, a nodule of 12 mm in lung rises; a fine line does neither."""
    hu = torch.full((1, 1, 64, 64, 64), wall)
    hu[..., 28:36, 28:36, 28:36] = lumen
    lungs = torch.ones_like(hu)
    told = cell_numbers(hu, lungs)[0, :, 3:5, 3:5, 3:5].amax(dim=(1, 2, 3))
    wide = told[WIDE_FROM:RAISED_FROM].view(2 * len(WIDE_BALLS), len(NEIGHBOURHOODS))[:, 0]
    assert float(wide[place : place + 2].min()) > 0.05
    assert float(wide[2 - place : 4 - place].max()) < FAR_OF_NOTHING


def test_the_level_is_that_of_aerated_lung_around() -> None:
    """Dense tissue raises it by no more than its upper end does."""
    hu = torch.full((1, 1, 64, 64, 64), -860.0)
    hu[..., :28] = 40.0
    level = cell_numbers(hu, torch.ones_like(hu))[0, LEVEL, 4, 4, 4]
    # Seven cells along x, from voxel 8 on: 20 of 56 voxels are dense.
    assert float(level) == pytest.approx((36 * -8.6 + 20 * -6.0) / 56, abs=1e-4)


def test_a_cell_is_told_in_its_own_place() -> None:
    """A dense cell is told in its own place, and the cells beside it see it in their surroundings."""
    hu = torch.full((1, 1, 32, 32, 32), -900.0)
    hu[:, :, 8:16, 8:16, 8:16] = 0.0
    lungs = torch.ones_like(hu)
    cell, around = (density_numbers(from_hounsfield(hu), lungs, side)[0, 0] for side in (8, 24))
    assert float(cell[1, 1, 1]) == pytest.approx(1000 / 700 - 1, abs=1e-5)
    assert float(cell[0, 1, 1]) == pytest.approx(100 / 700 - 1, abs=1e-5)
    assert float(around[0, 1, 1]) > float(around[3, 3, 3]) + 0.02
    dense = DENSITY_NUMBERS * len(SCALES) + CLASSES - 1
    assert cell_numbers(hu, lungs)[0, dense].argmax() == 1 * 16 + 1 * 4 + 1


def test_a_window_with_its_context_tells_what_the_whole_ct_does() -> None:
    hu, mask = (one[:1] for one in some_ct(80))
    whole = cell_numbers(hu, mask)
    first, last = CONTEXT + 8, CONTEXT + 24
    part = (slice(None), slice(None), *[slice(first - CONTEXT, last + CONTEXT)] * 3)
    window = without_rim(cell_numbers(hu[part], mask[part]), CONTEXT // DOWNSAMPLING)
    cells = slice(first // DOWNSAMPLING, last // DOWNSAMPLING)
    assert torch.allclose(window, whole[:, :, cells, cells, cells], atol=1e-4)
    assert torch.equal(inner(hu[part]), hu[:, :, first:last, first:last, first:last])


def test_slabs_tell_what_the_whole_ct_does(monkeypatch: pytest.MonkeyPatch) -> None:
    hu, mask = (one[0, 0] for one in some_ct(48))
    whole = cell_numbers(hu[None, None], mask[None, None])[0]
    monkeypatch.setattr(module, "SLAB", 16)
    assert torch.allclose(cell_numbers_by_slabs(hu, mask), whole, atol=1e-4)
