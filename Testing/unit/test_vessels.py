"""What shape tells: lines, vessels, cavities and small regions, on small made lungs of known truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.decision.raised_regions import drop_small_or_superficial
from DiffSegLungLib.decision.regions import RegionSettings
from DiffSegLungLib.filters import masked_mean, masked_opening, masked_share
from DiffSegLungLib.parenchyma.cavities import find_cavities
from DiffSegLungLib.parenchyma.vessels import Parenchyma, mediastinal_distance, separate_vessels
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY

MM = 1.5
SIDE = 48
LUNG_HU = -860.0


def distances(centre: tuple[float, float, float] = (24, 24, 24), side: int = SIDE) -> np.ndarray:
    """Distance of each voxel from ``centre`` in mm."""
    grid = np.indices((side,) * 3, dtype=np.float32)
    return np.asarray(MM * np.sqrt(sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))))


def lung(side: int = SIDE, noise: float = 12.0) -> np.ndarray:
    grain = np.random.default_rng(0).normal(0, noise, (side,) * 3)
    return (LUNG_HU + grain).astype(np.float32)


def one_lung(side: int = SIDE, margin: int = 3) -> np.ndarray:
    """The right lung, as a box amid chest wall."""
    sides = np.zeros((side,) * 3, np.uint8)
    inside = slice(margin, side - margin)
    sides[inside, inside, inside] = 1
    return sides


def add_tube(hu: np.ndarray, y: float, x: float, diameter: float, value: float) -> np.ndarray:
    """Paint a tube along z, with partial volume; return where it is."""
    grid = np.indices(hu.shape[1:], dtype=np.float32)
    away = MM * np.hypot(grid[0] - y, grid[1] - x)
    share = np.clip((diameter / 2 - away) / MM + 0.5, 0, 1)
    hu += share * (value - hu)
    return np.broadcast_to(share > 0.5, hu.shape)


# --- filters ---------------------------------------------------------------------------------------------


def test_an_opening_takes_a_thin_tube_and_leaves_a_block() -> None:
    mask = one_lung() > 0
    hu = np.full(mask.shape, LUNG_HU, np.float32)
    hu[:, 10:12, 10:12] = 0.0
    block = np.zeros_like(mask)
    block[20:32, 20:32, 20:32] = True
    hu[block] = 0.0
    opened = masked_opening(hu, mask, 2)
    assert opened[24, 10, 10] == LUNG_HU
    assert (opened[block] == 0).all()
    assert (opened[mask] <= hu[mask]).all()


def test_a_rounded_opening_is_that_by_a_cube_and_a_cross() -> None:
    hu, mask = lung(noise=80.0), one_lung() > 0
    footprint = ndimage.binary_dilation(np.pad(np.ones((3, 3, 3), bool), 1))
    expected = ndimage.grey_opening(hu, footprint=footprint)
    deep = ndimage.binary_erosion(mask, iterations=5)
    np.testing.assert_array_equal(masked_opening(hu, mask, 2, rounded=True)[deep], expected[deep])


def test_an_opening_does_not_see_the_chest_wall() -> None:
    mask = one_lung() > 0
    hu = np.where(mask, LUNG_HU, 60.0).astype(np.float32)
    assert (masked_opening(hu, mask, 2)[mask] == LUNG_HU).all()
    # A dark outside must not eat into the lung's rim either.
    hu = np.where(mask, LUNG_HU, -1000.0).astype(np.float32)
    assert (masked_opening(hu, mask, 2)[mask] == LUNG_HU).all()


def test_a_masked_mean_is_of_the_mask_alone() -> None:
    mask = one_lung() > 0
    hu = np.where(mask, LUNG_HU, 300.0).astype(np.float32)
    mean = masked_mean(hu, mask, 3.0)
    assert mean.dtype == np.float32
    assert mean[mask] == pytest.approx(LUNG_HU, abs=0.1)


def test_the_share_of_the_mask_is_one_deep_inside_and_half_at_its_face() -> None:
    mask = np.zeros((40, 40, 40), bool)
    mask[:20] = True
    share = masked_share(mask, 2.0)
    assert share[10, 20, 20] == pytest.approx(1, abs=1e-3)
    assert share[19:21, 20, 20].mean() == pytest.approx(0.5, abs=1e-3)
    assert share[30, 20, 20] == pytest.approx(0, abs=1e-3)


# --- vessels ---------------------------------------------------------------------------------------------

NO_AIRWAYS = np.zeros((SIDE,) * 3, bool)


def separate(hu: np.ndarray, sides: np.ndarray) -> Parenchyma:
    return separate_vessels(hu, sides, NO_AIRWAYS, MM)


@pytest.mark.parametrize("diameter", [2.5, 3.0, 4.5])
def test_small_vessels_are_found(diameter: float) -> None:
    hu, sides = lung(), one_lung()
    tube = add_tube(hu, 24, 24, diameter, 0.0) & (sides > 0)
    found = separate(hu, sides)
    inner = tube.copy()
    inner[:6] = inner[-6:] = False
    assert found.vessels[inner].mean() > 0.9
    beyond = ndimage.binary_dilation(tube, iterations=3)
    assert not found.vessels[~beyond].any()


def test_the_density_between_vessels_is_that_of_the_lung() -> None:
    hu, sides = lung(), one_lung()
    for y, x in ((12, 12), (12, 30), (30, 12), (32, 32), (22, 22)):
        add_tube(hu, y, x, 3.0, 20.0)
    found = separate(hu, sides)
    mask = sides > 0
    assert hu[mask].std() > 60
    assert found.density[mask] == pytest.approx(LUNG_HU, abs=60)
    assert float(np.median(found.density[mask])) == pytest.approx(LUNG_HU, abs=10)


def test_lines_are_what_rises_above_the_surroundings() -> None:
    hu, sides = lung(noise=0), one_lung()
    add_tube(hu, 24, 24, 3.0, 0.0)
    lines = separate(hu, sides).lines
    assert lines.min() >= 0 and not lines[sides == 0].any()
    assert lines[24, 24, 24] > 300
    assert lines[24, 8:16, 8:16].max() < 1


def test_consolidation_is_no_vessel() -> None:
    hu, sides = lung(), one_lung()
    consolidation = distances() < 10
    hu[consolidation] = 20.0
    found = separate(hu, sides)
    assert found.vessels[distances() < 8].mean() < 0.01
    assert found.density[distances() < 7] == pytest.approx(20, abs=80)


def test_consolidation_at_the_chest_wall_is_no_vessel() -> None:
    sides = one_lung()
    hu = np.where(sides > 0, lung(), 50.0).astype(np.float32)
    consolidation = (distances((24, 24, 3)) < 15) & (sides > 0)
    hu[consolidation] = 20.0
    found = separate(hu, sides)
    core = ndimage.binary_erosion(consolidation, iterations=2, border_value=0)
    assert found.vessels[core].mean() < 0.02


def test_ground_glass_is_no_vessel_though_vessels_cross_it() -> None:
    hu, sides = lung(), one_lung()
    glass = distances() < 18
    hu[glass] += 260.0
    add_tube(hu, 24, 24, 3.0, 20.0)
    found = separate(hu, sides)
    aside = glass & (distances() < 14) & (np.indices(hu.shape)[2] < 20)
    assert found.vessels[aside].mean() < 0.02
    assert found.density[aside] == pytest.approx(-600, abs=60)


def test_a_ground_glass_of_twelve_millimetres_is_no_vessel() -> None:
    hu, away = lung(), distances()
    hu += 260.0 * np.clip((6.0 - away) / 3.0 + 0.5, 0, 1)  # its rim fades over two voxels
    found = separate(hu, one_lung())
    assert not found.vessels[away < 4].any()
    assert np.median(found.density[away < 3.5]) > -700.0


def test_where_vessels_part_is_no_ground_glass() -> None:
    hu = lung()
    grid = np.indices(hu.shape, dtype=np.float32)
    for tilt in (-0.6, 0.0, 0.6):  # three vessels of 5 mm that meet in the middle
        away = MM * np.hypot(
            grid[1] - 24, (grid[2] - 24 - tilt * np.maximum(grid[0] - 24, 0)) / np.hypot(1, tilt)
        )
        share = np.clip((2.5 - away) / MM + 0.5, 0, 1)
        hu += share * (40.0 - hu)
    found = separate(hu, one_lung())
    assert (found.density[one_lung() > 0] < -720.0).mean() > 0.995


def test_the_chest_wall_makes_no_vessels() -> None:
    sides = one_lung()
    hu = np.where(sides > 0, lung(), 50.0).astype(np.float32)
    found = separate(ndimage.gaussian_filter(hu, 0.7), sides)
    assert found.vessels[sides > 0].mean() < 0.02
    assert not found.vessels[sides == 0].any()
    deep = ndimage.binary_erosion(sides > 0, iterations=2)
    assert found.density[deep] == pytest.approx(LUNG_HU, abs=80)


def lungs_with_strand(
    x: float, airways_at: int | None, width: float = 12.0, density: float = -500.0
) -> tuple[Parenchyma, np.ndarray]:
    """Two lungs, and in the right one a strand of raised density, as thick as a lobar vessel by default."""
    sides = np.zeros((SIDE,) * 3, np.uint8)
    sides[3:-3, 3:-3, 3:34], sides[3:-3, 3:-3, 38:45] = 1, 2
    hu = lung()
    strand = add_tube(hu, 24, x, width, density) & (sides > 0)
    airways = np.zeros_like(NO_AIRWAYS)
    if airways_at is not None:
        airways[:, airways_at, 35:37] = True
    return separate_vessels(hu, sides, airways, MM), strand


@pytest.mark.parametrize("airways_at", [None, 24])
def test_a_thin_strand_at_the_hilum_is_no_disease(airways_at: int | None) -> None:
    found, strand = lungs_with_strand(28, airways_at)
    assert found.vessels[strand].mean() > 0.8
    assert float(np.median(found.density[strand])) == pytest.approx(LUNG_HU, abs=60)


@pytest.mark.parametrize(("width", "is_vessel"), [(22.0, True), (30.0, False)])
def test_the_vessels_of_a_hilum_are_no_consolidation_but_what_is_thicker_is(
    width: float, is_vessel: bool
) -> None:
    found, strand = lungs_with_strand(22, 24, width, 40.0)
    within = ndimage.binary_erosion(strand, iterations=2)
    assert found.vessels[within].mean() > 0.9 if is_vessel else found.vessels[within].mean() < 0.1


def test_a_round_mass_at_the_hilum_is_no_vessel() -> None:
    """A cube as wide as the thickest vessels does not fit into it."""
    sides = np.zeros((SIDE,) * 3, np.uint8)
    sides[3:-3, 3:-3, 3:34], sides[3:-3, 3:-3, 38:45] = 1, 2
    z, y, x = np.ogrid[:SIDE, :SIDE, :SIDE]
    mass = (z - 24) ** 2 + (y - 24) ** 2 + (x - 20) ** 2 <= (15 / MM) ** 2
    hu = lung()
    hu[mass] = 40.0
    airways = np.zeros_like(NO_AIRWAYS)
    airways[:, 24, 35:37] = True
    within = ndimage.binary_erosion(mass, iterations=2)
    assert separate_vessels(hu, sides, airways, MM).vessels[within].mean() < 0.1


def test_the_same_strand_in_the_periphery_may_be_disease() -> None:
    found, strand = lungs_with_strand(12, 24)
    assert found.vessels[strand].mean() < 0.1
    assert float(np.median(found.density[strand])) == pytest.approx(-500, abs=60)


def test_the_distance_to_the_mediastinum_is_measured_between_the_lungs() -> None:
    sides = np.zeros((6, 10, 40), np.uint8)
    sides[:, :, 2:15], sides[:, :, 25:38] = 1, 2
    distance = mediastinal_distance(sides, 2.0)
    assert distance[3, 5, 14] == pytest.approx(2.0)
    assert distance[3, 5, 5] == pytest.approx(20.0)
    assert distance[3, 5, 30] == pytest.approx(12.0)
    assert distance[3, 5, 20] == 0


def test_one_lung_alone_has_no_mediastinum() -> None:
    assert np.isinf(mediastinal_distance(one_lung(), MM)).all()


# --- cavities --------------------------------------------------------------------------------------------


def cavity(wall_mm: float, lumen_mm: float = 7.0) -> np.ndarray:
    hu, away = lung(), distances()
    hu[away < lumen_mm + wall_mm] = 20.0
    hu[away < lumen_mm] = -990.0
    return hu


def test_air_within_a_thick_wall_is_a_cavity() -> None:
    found = find_cavities(cavity(6.0), one_lung() > 0, NO_AIRWAYS, MM)
    lumen = distances() < 7
    overlap = 2 * (found & lumen).sum() / (found.sum() + lumen.sum())
    assert overlap > 0.8
    assert not found[distances() > 8.5].any(), "the wall keeps its own tissue"


@pytest.mark.parametrize("wall_mm", [0.0, 1.0])
def test_a_bulla_is_no_cavity(wall_mm: float) -> None:
    assert not find_cavities(cavity(wall_mm), one_lung() > 0, NO_AIRWAYS, MM).any()


def test_air_that_opens_into_the_airways_is_no_cavity() -> None:
    hu, mask = cavity(6.0), one_lung() > 0
    airways = NO_AIRWAYS.copy()
    bronchus = add_tube(hu, 24, 24, 7.5, -990.0)
    airways[:18] = bronchus[:18]
    mask &= ~airways
    assert not find_cavities(hu, mask, airways, MM).any()


def test_air_that_opens_widely_into_the_lung_is_no_cavity() -> None:
    hu = cavity(6.0)
    grid = np.indices(hu.shape)
    hu[(grid[2] > 24) & (distances() < 14)] = LUNG_HU
    assert not find_cavities(hu, one_lung() > 0, NO_AIRWAYS, MM).any()


def test_a_bronchus_is_no_cavity() -> None:
    hu = lung()
    add_tube(hu, 24, 24, 12.0, 0.0)
    add_tube(hu, 24, 24, 7.0, -990.0)
    assert not find_cavities(hu, one_lung() > 0, NO_AIRWAYS, MM).any()


def test_a_tiny_lumen_is_no_cavity() -> None:
    assert not find_cavities(cavity(6.0, lumen_mm=2.0), one_lung() > 0, NO_AIRWAYS, MM).any()


def test_healthy_and_emphysematous_lungs_have_no_cavities() -> None:
    hu = lung()
    hu[distances() < 15] = -980.0
    assert not find_cavities(hu, one_lung() > 0, NO_AIRWAYS, MM).any()


def test_consolidation_without_air_has_no_cavity() -> None:
    hu = lung()
    hu[distances() < 15] = 20.0
    assert not find_cavities(hu, one_lung() > 0, NO_AIRWAYS, MM).any()


# --- regions ---------------------------------------------------------------------------------------------

ORDER = (HEALTHY, EMPHYSEMA, GROUND_GLASS, FIBROSIS, CONSOLIDATION)


def posterior_with(label: int, where: np.ndarray) -> np.ndarray:
    """Healthy everywhere but for ``label`` in some voxels, where healthy is the second choice."""
    posterior = np.zeros((len(ORDER), *where.shape), np.float32)
    posterior[ORDER.index(HEALTHY)] = np.where(where, 0.3, 0.9)
    posterior[ORDER.index(label)] = np.where(where, 0.6, 0.0)
    posterior[ORDER.index(GROUND_GLASS)] += 0.1
    return posterior


def kept(
    label: int, where: np.ndarray, settings: RegionSettings | None = None, slice_mm: float = MM
) -> np.ndarray:
    mask = one_lung() > 0
    posterior = posterior_with(label, where)
    result = drop_small_or_superficial(posterior, ORDER, mask, MM, slice_mm, settings or RegionSettings())
    assert result[:, mask].sum(axis=0) == pytest.approx(1, abs=1e-5)
    return np.asarray(np.array(ORDER)[result.argmax(axis=0)] == label)


@pytest.mark.parametrize("label", [EMPHYSEMA, GROUND_GLASS, FIBROSIS, CONSOLIDATION])
def test_small_regions_go_and_large_regions_stay(label: int) -> None:
    large, small = distances() < 15, distances((10, 10, 10)) < 1.6
    result = kept(label, large | small)
    assert result[large].all()
    assert not result[small].any()


def test_the_least_size_is_what_the_settings_say() -> None:
    ball = distances() < 6
    millilitres = float(ball.sum()) * MM**3 / 1000
    assert kept(EMPHYSEMA, ball, RegionSettings(emphysema_ml=0.9 * millilitres))[ball].all()
    assert not kept(EMPHYSEMA, ball, RegionSettings(emphysema_ml=1.1 * millilitres)).any()


def test_raised_tissues_are_counted_together() -> None:
    """The ground glass around a consolidation is part of the lesion, however thin."""
    core, rim = distances() < 15, (distances() >= 15) & (distances() < 16)
    posterior = posterior_with(CONSOLIDATION, core)
    posterior[ORDER.index(GROUND_GLASS)][rim] = 5.0
    result = drop_small_or_superficial(posterior, ORDER, one_lung() > 0, MM, MM, RegionSettings())
    assert (np.array(ORDER)[result.argmax(axis=0)][rim] == GROUND_GLASS).all()


def test_a_film_along_the_pleura_is_no_disease() -> None:
    mask = one_lung() > 0
    film = mask & ~ndimage.binary_erosion(mask)
    assert film.sum() * MM**3 / 1000 > 1
    assert not kept(GROUND_GLASS, film).any()


def test_thick_slices_ask_for_more_depth() -> None:
    mask = one_lung() > 0
    layer = mask & ~ndimage.binary_erosion(mask, iterations=4)
    settings = RegionSettings(depth_mm=4.0, depth_slices=1.5)
    assert kept(GROUND_GLASS, layer, settings)[layer].all()
    assert not kept(GROUND_GLASS, layer, settings, slice_mm=6.0).any()
