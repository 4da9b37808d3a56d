"""Labels, volumes and sides follow the patient, not the file; hypothesis draws the grids."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from DiffSegLungLib.anatomy import regions_from_sides
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.io.volume import Volume, load_volume, to_input_geometry
from DiffSegLungLib.lungs.lungs import segment_lungs
from DiffSegLungLib.quantify.measures import measure
from DiffSegLungLib.tissues import EMPHYSEMA, HEALTHY
from Testing.robustness.scans import SIDE, chest, phantom

FEW = settings(max_examples=60, deadline=None, derandomize=True)
FEWER = settings(
    max_examples=8, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)  # each looks for the lungs

sizes = st.tuples(*[st.integers(8, 14)] * 3)
spacings = st.tuples(*[st.floats(0.1, 10.0)] * 3)
angles = st.tuples(*[st.floats(-180.0, 180.0)] * 3)
flips = st.tuples(*[st.booleans()] * 3)
orders = st.permutations((0, 1, 2))


def random_ct(size: tuple[int, ...], seed: int) -> np.ndarray:
    """Air and tissue without any symmetry, (z, y, x)."""
    hu = np.random.default_rng(seed).integers(-1000, 400, size).astype(np.float32)
    hu[0, 0, 0] = -1000
    return hu


def oblique(degrees: tuple[float, ...], flip: tuple[bool, ...]) -> list[float]:
    axes = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
    return (axes * np.where(flip, -1.0, 1.0)).ravel().tolist()


def stored(image: sitk.Image, order: tuple[int, ...], flip: tuple[bool, ...]) -> sitk.Image:
    """The same patient in space; only the file's axes differ."""
    return sitk.Flip(sitk.PermuteAxes(image, [int(axis) for axis in order]), list(flip))


def counts(volume: Volume) -> dict[int, float]:
    """Millilitres of two labels made from HU."""
    labels = np.where(volume.hu < -500, EMPHYSEMA, np.where(volume.hu < 0, HEALTHY, 0)).astype(np.uint8)
    table = measure(
        labels, volume.hu, volume.spacing, regions_from_sides((labels > 0).astype(np.uint8)), volume.voxel_ml
    )
    whole = table.loc["whole lung"]
    return {HEALTHY: whole["healthy_ml"], EMPHYSEMA: whole["emphysema_ml"]}


@FEW
@given(sizes, spacings, angles, flips, st.integers(0, 99))
def test_any_grid_comes_back_voxel_by_voxel(
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    degrees: tuple[float, ...],
    flip: tuple[bool, ...],
    seed: int,
) -> None:
    image = sitk.GetImageFromArray(random_ct(size, seed))
    image.SetSpacing(spacing)
    image.SetOrigin((12.5, -300.0, 4000.0))
    image.SetDirection(oblique(degrees, flip))
    volume = load_volume(image)
    back = to_input_geometry(volume.hu, volume)
    assert np.array_equal(sitk.GetArrayFromImage(back), sitk.GetArrayFromImage(image))
    assert back.GetSpacing() == image.GetSpacing() and back.GetOrigin() == image.GetOrigin()
    assert np.allclose(back.GetDirection(), image.GetDirection(), atol=1e-12)
    assert volume.voxel_ml == pytest.approx(np.prod(spacing) / 1000)


@FEW
@given(sizes, spacings, angles, orders, flips, st.integers(0, 99))
def test_volumes_do_not_depend_on_how_the_scan_is_stored(
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    degrees: tuple[float, ...],
    order: tuple[int, ...],
    flip: tuple[bool, ...],
    seed: int,
) -> None:
    image = sitk.GetImageFromArray(random_ct(size, seed))
    image.SetSpacing(spacing)
    image.SetDirection(oblique(degrees, (False, False, False)))
    here, there = counts(load_volume(image)), counts(load_volume(stored(image, order, flip)))
    assert there == pytest.approx(here)
    array = sitk.GetArrayViewFromImage(image)
    by_hand = np.count_nonzero(array < -500) * np.prod(spacing) / 1000
    assert here[EMPHYSEMA] == pytest.approx(by_hand)


@FEW
@given(sizes, spacings, angles, orders, flips)
def test_a_mask_stored_otherwise_is_the_same_mask(
    size: tuple[int, ...],
    spacing: tuple[float, ...],
    degrees: tuple[float, ...],
    order: tuple[int, ...],
    flip: tuple[bool, ...],
) -> None:
    image = sitk.GetImageFromArray(random_ct(size, 1))
    image.SetSpacing(spacing)
    image.SetDirection(oblique(degrees, (False, False, False)))
    mask = sitk.Cast(image < -300, sitk.sitkUInt8) + sitk.Cast(image > 100, sitk.sitkUInt8) * 7
    volume = load_volume(image)
    assert np.array_equal(load_mask(stored(mask, order, flip), volume), load_mask(mask, volume))


@FEW
@given(spacings, st.floats(0.2, 5.0))
def test_volume_goes_with_the_third_power_of_size(spacing: tuple[float, ...], factor: float) -> None:
    sides = np.array(spacing)
    if not ((sides * factor).min() >= 0.1 and (sides * factor).max() <= 10):
        return
    image = sitk.GetImageFromArray(random_ct((9, 10, 11), 2))
    image.SetSpacing(spacing)
    small = counts(load_volume(image))
    image.SetSpacing((sides * factor).tolist())
    large = counts(load_volume(image))
    assert large == pytest.approx({label: ml * factor**3 for label, ml in small.items()})


@FEWER
@given(orders, flips)
def test_right_stays_right_however_the_chest_is_stored(
    order: tuple[int, ...], flip: tuple[bool, ...]
) -> None:
    volume = load_volume(stored(chest(), order, flip))
    found = segment_lungs(volume.hu, volume.spacing).sides
    plain = load_volume(chest())
    expected = segment_lungs(plain.hu, plain.spacing).sides
    assert np.array_equal(found, expected)


def test_the_sides_are_those_of_the_phantom() -> None:
    """By hand: the right lung lies at small x; its volume is its voxels times 2.5 mm cubed."""
    volume = load_volume(chest())
    found = segment_lungs(volume.hu, volume.spacing).sides
    truth = phantom().sides
    for side in (1, 2):
        both = np.count_nonzero((found == side) & (truth == side))
        assert 2 * both / (np.count_nonzero(found == side) + np.count_nonzero(truth == side)) > 0.9
    right_ml = np.count_nonzero(truth == 1) * SIDE**3 / 1000
    assert np.count_nonzero(found == 1) * volume.voxel_ml == pytest.approx(right_ml, rel=0.1)
