"""Lung masks on a small thorax of known truth, and on real CT where it is present."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.lungs.chest_wall import dense_in_bays
from DiffSegLungLib.lungs.lungs import LEFT, RIGHT, lungs_from_mask, segment_lungs

SIZE_MM = (220.0, 200.0, 280.0)


def thorax(
    spacing: tuple[float, float, float], touching: bool = False, wall_lesion: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """HU and truth (0, 1 right, 2 left) of two ellipsoid lungs in a body with airways, ribs and bowel gas."""
    axes = [
        (np.arange(round(size / s)) + 0.5) * s - size / 2 for size, s in zip(SIZE_MM, spacing, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    hu = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), -1000, np.float32)
    hu[np.broadcast_to((y / 90) ** 2 + (x / 132) ** 2 < 1, hu.shape)] = 40
    gap = 45 if touching else 60
    truth = np.zeros(hu.shape, np.uint8)
    truth[((z - 10) / 85) ** 2 + (y / 68) ** 2 + ((x + gap) / 48) ** 2 < 1] = RIGHT
    truth[(truth == 0) & (((z - 10) / 85) ** 2 + (y / 66) ** 2 + ((x - gap) / 46) ** 2 < 1)] = LEFT
    hu[truth > 0] = -830
    if wall_lesion:
        hu[(((z - 10) / 22) ** 2 + ((y - 56) / 20) ** 2 + ((x + 62) / 20) ** 2 < 1) & (truth == RIGHT)] = 45
    if not touching:
        hu[np.broadcast_to((y**2 + x**2 < 8**2) & (z > 15), hu.shape)] = -1000  # trachea
        for outward in (-1, 1):  # main bronchi, from the carina down to the lungs
            along = np.clip(x * outward, 0, 16)
            hu[(y**2 + (z - 15 + along) ** 2 < 5**2) & (x * outward >= 0) & (x * outward < 16)] = -1000
    hu[((z + 95) / 12) ** 2 + ((y + 25) / 20) ** 2 + ((x - 60) / 20) ** 2 < 1] = -1000  # bowel
    return hu + np.random.default_rng(0).normal(0, 20, hu.shape).astype(np.float32), truth


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_finds_right_and_left_lung_without_airways_bowel_or_outside_air() -> None:
    hu, truth = thorax((2.5, 1.5, 1.5))
    lungs = segment_lungs(hu, (2.5, 1.5, 1.5))
    assert dice(lungs.sides == RIGHT, truth == RIGHT) > 0.96
    assert dice(lungs.sides == LEFT, truth == LEFT) > 0.96
    assert not (lungs.mask & lungs.airways).any()
    carina = hu.shape[0] // 2 + 20  # 50 mm above the middle: inside the trachea
    assert lungs.airways[carina, hu.shape[1] // 2, hu.shape[2] // 2]
    assert not lungs.mask[:10].any(), "bowel gas below the lungs was taken as lung"
    assert lungs.warnings == ()
    assert lungs.sides.dtype == np.uint8 and lungs.sides.shape == hu.shape


@pytest.mark.parametrize("cut_mm", [0.0, 40.0])
def test_lungs_that_hold_hardly_more_than_gas_are_neither_bowel_nor_room(cut_mm: float) -> None:
    """Vessels cross them, however emphysematous they are, and where the field of view cuts them too."""
    spacing = (2.5, 1.5, 1.5)
    hu, truth = thorax(spacing)
    vessels = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=hu.shape), 3.0)
    hu[(truth > 0) & (vessels < 2.0 * vessels.std())] -= 145
    seen = slice(round(cut_mm / spacing[2]), None)
    hu, truth = hu[..., seen], truth[..., seen]
    lungs = segment_lungs(hu, spacing)
    assert float(np.median(hu[truth > 0])) < -970
    assert dice(lungs.mask, truth > 0) > 0.95
    assert not lungs.mask[:10].any(), "bowel gas below the lungs was taken as lung"


def test_touching_lungs_are_cut_between_right_and_left() -> None:
    hu, truth = thorax((2.5, 2.0, 2.0), touching=True)
    lungs = segment_lungs(hu, (2.5, 2.0, 2.0))
    assert dice(lungs.sides == RIGHT, truth == RIGHT) > 0.95
    assert dice(lungs.sides == LEFT, truth == LEFT) > 0.95


@pytest.mark.parametrize("side", [RIGHT, LEFT])
def test_a_ct_cut_to_one_lung_has_one_lung(side: int) -> None:
    """The room beside it tells which; it is not cut in two."""
    hu, truth = thorax((2.5, 2.0, 2.0))
    middle = hu.shape[2] // 2
    seen = slice(0, middle) if side == RIGHT else slice(middle, None)
    lungs = segment_lungs(hu[..., seen], (2.5, 2.0, 2.0))
    assert dice(lungs.sides == side, truth[..., seen] == side) > 0.95
    assert np.isin(lungs.sides, [0, side]).all()
    other = "left" if side == RIGHT else "right"
    assert any(f"no {other} lung was found" in warning for warning in lungs.warnings)


def test_volume_does_not_depend_on_the_spacing() -> None:
    litres = []
    for spacing in ((1.5, 1.5, 1.5), (5.0, 1.0, 1.0)):
        hu, _ = thorax(spacing)
        litres.append(segment_lungs(hu, spacing).mask.sum() * np.prod(spacing) / 1e6)
    assert litres[0] == pytest.approx(litres[1], rel=0.02)


def test_dense_lesion_at_the_chest_wall_is_recovered_and_reported() -> None:
    hu, truth = thorax((2.0, 2.0, 2.0), wall_lesion=True)
    lungs = segment_lungs(hu, (2.0, 2.0, 2.0))
    lesion = (hu > -100) & (truth == RIGHT)
    assert lesion.sum() * 8e-3 > 15
    assert lungs.mask[lesion].mean() > 0.7
    assert any("right lung" in warning for warning in lungs.warnings)


def base_lesion(hu: np.ndarray, truth: np.ndarray, value: float) -> np.ndarray:
    """A ball of 12 mm radius on the base of the right lung, where rays to the chest wall do not look."""
    z, y, x = np.meshgrid(*(2.0 * (np.arange(n) + 0.5 - n / 2) for n in hu.shape), indexing="ij", sparse=True)
    ball = (((z + 64) / 12) ** 2 + ((y - 10) / 12) ** 2 + ((x + 55) / 12) ** 2 < 1) & (truth == RIGHT)
    hu[ball] = value
    return ball


def test_a_nodule_at_the_base_is_lung() -> None:
    hu, truth = thorax((2.0, 2.0, 2.0))
    plain = segment_lungs(hu, (2.0, 2.0, 2.0)).mask
    lesion = base_lesion(hu, truth, 40)
    assert lesion.sum() * 8e-3 > 5
    found = segment_lungs(hu, (2.0, 2.0, 2.0))
    assert found.mask[lesion].mean() > 0.8
    assert not (found.mask & ~plain & ~lesion).sum() * 8e-3 > 0.5, "diaphragm was taken for lung"


def bay() -> tuple[np.ndarray, np.ndarray]:
    """HU and one lung on the working grid, with a bay of soft tissue of 24 mm in its base."""
    sides = np.zeros((40, 40, 40), np.uint8)
    sides[10:30, 5:35, 5:35] = RIGHT
    sides[10:20, 12:24, 12:24] = 0
    return np.where(sides > 0, -830.0, 40.0).astype(np.float32), sides


@pytest.mark.parametrize(("value", "is_lung"), [(40, True), (-60, False), (160, False)])
def test_a_bay_of_fat_or_contrast_medium_is_no_lung(value: float, is_lung: bool) -> None:
    work, sides = bay()
    work[10:20, 12:24, 12:24] = value
    assert (dense_in_bays(work, sides, sides > 0)[14:19, 13:23, 13:23] == RIGHT).mean() == is_lung


def test_an_artery_in_a_bay_beside_a_bronchus_is_no_lung() -> None:
    work, sides = bay()
    work[5:13, 17:19, 17:19] = -1000  # the bronchus
    assert not dense_in_bays(work, sides, sides > 0).any()


def test_cropped_to_the_lungs_gives_the_same_lungs() -> None:
    hu, _ = thorax((2.0, 2.0, 2.0))
    whole = segment_lungs(hu, (2.0, 2.0, 2.0)).mask
    box = tuple(slice(max(0, where.min() - 8), where.max() + 9) for where in np.nonzero(whole))
    assert dice(segment_lungs(hu[box], (2.0, 2.0, 2.0)).mask, whole[box]) > 0.99


def test_partly_imaged_lungs_are_reported() -> None:
    hu, _ = thorax((2.0, 2.0, 2.0))
    lungs = segment_lungs(hu[hu.shape[0] // 2 - 10 :], (2.0, 2.0, 2.0))
    assert any("first slice" in warning for warning in lungs.warnings)


def test_a_lost_lung_is_reported() -> None:
    hu, truth = thorax((2.0, 2.0, 2.0))
    low = np.arange(hu.shape[0])[:, None, None] < hu.shape[0] // 2 + 5
    hu[(truth == LEFT) & low] = 30  # the lower half of the left lung is opaque
    warnings = segment_lungs(hu, (2.0, 2.0, 2.0)).warnings
    assert any("left lung" in warning for warning in warnings)


@pytest.mark.parametrize("value", [-1000.0, 40.0])
def test_no_lungs_is_one_clear_error(value: float) -> None:
    with pytest.raises(UnusableInputError, match="no lungs were found.*--lungs"):
        segment_lungs(np.full((40, 40, 40), value, np.float32), (3.0, 3.0, 3.0))


def test_a_given_mask_is_kept_exactly() -> None:
    hu, truth = thorax((2.5, 2.0, 2.0))
    labelled = lungs_from_mask(truth, hu, (2.5, 2.0, 2.0))
    np.testing.assert_array_equal(labelled.sides, truth)
    unlabelled = lungs_from_mask(truth > 0, hu, (2.5, 2.0, 2.0))
    np.testing.assert_array_equal(unlabelled.mask, truth > 0)
    assert dice(unlabelled.sides == RIGHT, truth == RIGHT) > 0.99
    swapped = lungs_from_mask(np.where(truth > 0, 3 - truth, 0).astype(np.uint8), hu, (2.5, 2.0, 2.0))
    assert dice(swapped.sides == RIGHT, truth == RIGHT) > 0.99


@pytest.mark.parametrize("side", [RIGHT, LEFT])
@pytest.mark.parametrize("label", [1, 2, 5])
def test_a_given_mask_of_one_lung_is_that_lung_whole(side: int, label: int) -> None:
    """In a CT of both lungs, and in one that was cut to it, whatever label was drawn with."""
    hu, truth = thorax((2.5, 2.0, 2.0))
    middle = hu.shape[2] // 2
    for seen in (slice(None), slice(0, middle) if side == RIGHT else slice(middle, None)):
        drawn = (truth[..., seen] == side).astype(np.uint8)
        lungs = lungs_from_mask(label * drawn, hu[..., seen], (2.5, 2.0, 2.0))
        np.testing.assert_array_equal(lungs.sides, side * drawn)
        other = "left" if side == RIGHT else "right"
        assert any(f"no {other} lung was found or given" in warning for warning in lungs.warnings)


@pytest.mark.parametrize("mask", [np.zeros((30, 30, 30), bool), np.ones((30, 30, 31), bool)])
def test_an_unusable_mask_is_refused(mask: np.ndarray) -> None:
    with pytest.raises(UnusableInputError, match="lung mask"):
        lungs_from_mask(mask, np.zeros((30, 30, 30), np.float32), (2.0, 2.0, 2.0))


def real_data() -> Path:
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    return Path(os.environ.get("DIFFSEGLUNG_DATA", beside))


@pytest.mark.parametrize("case", ["ct/LCTSC-Test-S1-102", "train/LCTSC-Test-S1-201"])
def test_agrees_with_the_experts(case: str) -> None:
    import SimpleITK

    ct, expert = real_data() / f"{case}.nii.gz", real_data() / f"{case}_lungmask.nii.gz"
    if not ct.is_file() or not expert.is_file():
        pytest.skip(f"no real CT at {ct} (set DIFFSEGLUNG_DATA)")
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(ct), SimpleITK.sitkFloat32), "LPS")
    truth = SimpleITK.GetArrayFromImage(SimpleITK.DICOMOrient(SimpleITK.ReadImage(str(expert)), "LPS")) > 0
    lungs = segment_lungs(SimpleITK.GetArrayFromImage(image), image.GetSpacing()[::-1])
    assert dice(lungs.mask, truth) > 0.965
    right_x, left_x = (np.nonzero((lungs.sides == side).any(axis=(0, 1)))[0].mean() for side in (RIGHT, LEFT))
    assert right_x < left_x


def test_a_mask_thinner_than_any_erosion_is_named_by_its_half() -> None:
    """One block of lung, too small to be split: it has no core left after a few millimetres."""
    hu = np.full((12, 24, 24), 40.0, np.float32)
    mask = np.zeros(hu.shape, np.uint8)
    mask[4:8, 8:12, 15:19] = 1
    found = lungs_from_mask(mask, hu, (1.0, 1.0, 1.0))
    assert np.array_equal(found.sides, 2 * mask)


def test_named_sides_are_kept_and_doubted() -> None:
    """Whoever named the sides is believed, also for one lung alone; the wrong way round is said."""
    hu = np.full((20, 30, 60), 40.0, np.float32)
    mask = np.zeros(hu.shape, np.uint8)
    mask[4:16, 8:22, 6:20] = 2
    alone = lungs_from_mask(mask, hu, (2.0, 2.0, 2.0), sides_are_named=True)
    assert np.array_equal(alone.sides, mask)
    mask[4:16, 8:22, 40:54] = 1
    swapped = lungs_from_mask(mask, hu, (2.0, 2.0, 2.0), sides_are_named=True)
    assert np.array_equal(swapped.sides, mask)
    assert any("lies to the left of the left one" in warning for warning in swapped.warnings)
    believed = lungs_from_mask(np.where(mask > 0, 3 - mask, 0).astype(np.uint8), hu, (2.0, 2.0, 2.0), True)
    assert not any("lies to the left" in warning for warning in believed.warnings)
