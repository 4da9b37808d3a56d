"""HU calibration: air and blood of phantoms whose values are shifted, stretched or enhanced."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib.lungs.aorta import find_aorta
from DiffSegLungLib.lungs.calibration import BLOOD_HU, OUTSIDE_HU, TRACHEA_HU, Calibration, calibrate

SHAPE = (60, 80, 120)
SIDE_MM = 2.0
AORTA = 52, 70, 6
"""Its middle, y and x, and its radius in voxels."""
Chest = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def chest(
    shift: float = 0.0, blood: float = BLOOD_HU, air: float = TRACHEA_HU, around: float | None = None
) -> Chest:
    """HU with two lungs, a heart between them and a trachea; its airways; its outside air; its lungs."""
    random = np.random.default_rng(0)
    hu, lungs = np.full(SHAPE, blood, np.float32), np.zeros(SHAPE, np.uint8)
    lungs[5:55, 15:65, 10:40], lungs[5:55, 15:65, 80:110] = 1, 2
    hu[lungs > 0] = -860.0
    airways, outside = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    airways[45:58, 34:44, 55:65] = True
    hu[airways] = air
    if around is not None:
        outside[:, :12] = True
        hu[outside] = around
    hu += random.normal(0, 8, SHAPE)
    return hu + np.float32(shift), airways, outside, lungs


def with_aorta(aorta: float = BLOOD_HU, slices: int = 60, mirrored: bool = False) -> Chest:
    """The chest with fat and a spine behind the heart, and an aorta in its uppermost slices."""
    hu, airways, outside, lungs = chest()
    fat = slice(None), slice(44, None), slice(40, 80)
    middle, random = 119 - AORTA[1] if mirrored else AORTA[1], np.random.default_rng(1)
    hu[fat] = -90.0
    hu[:, 58:72, 52:67] = 400.0
    y, x = np.indices(SHAPE[1:])
    hu[60 - slices :, np.hypot(y - AORTA[0], x - middle) <= AORTA[2]] = aorta
    hu[fat] += random.normal(0, 8, hu[fat].shape)
    return hu, airways, outside, lungs


def measured(**changes: float) -> Calibration:
    return calibrate(*chest(**changes), SIDE_MM)


def test_a_ct_in_hounsfield_units_is_left_alone() -> None:
    found = measured()
    assert found.offset_hu == 0 and found.warnings() == []
    assert found.trachea_hu == pytest.approx(TRACHEA_HU, abs=8)
    assert found.blood_hu == pytest.approx(BLOOD_HU, abs=2)
    assert found.slope == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize("shift", [-40.0, -25.0, 25.0, 40.0])
def test_a_shift_that_both_show_is_taken_off_and_told(shift: float) -> None:
    found = measured(shift=shift)
    assert found.offset_hu == pytest.approx(shift, abs=6)
    (sentence,) = found.warnings()
    assert ("too high" if shift > 0 else "too low") in sentence and "\n" not in sentence


@pytest.mark.parametrize("changes", [{"air": -930.0}, {"blood": 75.0}, {"air": -940.0, "blood": 15.0}])
def test_what_only_one_of_them_shows_is_no_shift(changes: dict[str, float]) -> None:
    assert measured(**changes).offset_hu == 0


def test_contrast_medium_is_no_reference() -> None:
    found = measured(blood=250.0, shift=30.0)
    assert found.blood_hu is None and found.slope is None and found.offset_hu == 0


def test_uneven_blood_is_no_reference() -> None:
    hu, airways, outside, lungs = chest()
    hu[:, :, 60:] += 120.0
    assert calibrate(hu, airways, outside, lungs, SIDE_MM).blood_hu is None


def test_a_trachea_too_dense_is_told_alone() -> None:
    found = measured(air=-900.0)
    assert found.offset_hu == 0 and found.stretch == 1
    (sentence,) = found.warnings()
    assert f"{found.trachea_hu:.0f} HU" in sentence and "calibration" in sentence


def test_air_lighter_than_air_is_a_scale_too_long() -> None:
    hu, airways, outside, lungs = chest()
    stretched = 1.05 * (hu - BLOOD_HU) + BLOOD_HU
    found = calibrate(stretched, airways, outside, lungs, SIDE_MM)
    assert found.offset_hu == 0 and found.stretch == pytest.approx(1.05, abs=0.006)
    np.testing.assert_allclose(found.corrected(stretched), hu, atol=8)
    (sentence,) = found.warnings()
    assert "5." in sentence and "too long" in sentence and "calibration" in sentence


def test_the_correction_makes_no_leap() -> None:
    lung = np.full(1, -860.0, np.float32)
    corrected = [measured(air=air).corrected(lung)[0] for air in np.arange(-980.0, -1030.0, -2.0)]
    assert np.abs(np.diff(corrected)).max() < 8 and corrected[-1] - corrected[0] > 30


def test_where_nothing_is_wrong_nothing_is_copied() -> None:
    hu = chest()[0]
    assert Calibration(-978.0, 42.0).corrected(hu) is hu


def test_without_a_trachea_it_is_told() -> None:
    hu, airways, outside, lungs = chest()
    found = calibrate(hu, np.zeros_like(airways), outside, lungs, SIDE_MM)
    assert found.trachea_hu is None and "trachea was not found" in found.warnings()[0]
    assert found.stored()["slope"] is None


def test_one_lung_alone_has_no_heart_between() -> None:
    hu, airways, outside, lungs = chest()
    lungs[lungs == 2] = 0
    assert calibrate(hu, airways, outside, lungs, SIDE_MM).blood_hu is None


# --- outside air -----------------------------------------------------------------------------------------


def test_outside_air_is_reported_and_changes_nothing_where_nothing_is_wrong() -> None:
    found = measured(around=-995.0)
    assert found.outside_hu == pytest.approx(-997, abs=2)
    assert found.offset_hu == 0 and found.stretch == 1 and found.warnings() == []
    assert measured().outside_hu is None, "there is none"


def test_padding_is_no_air() -> None:
    hu, airways, outside, lungs = chest(around=-995.0)
    hu[:, :12, 30:] = -1024.0
    assert calibrate(hu, airways, outside, lungs, SIDE_MM).outside_hu == pytest.approx(-997, abs=2)
    hu[:, :12] = -1024.0
    assert calibrate(hu, airways, outside, lungs, SIDE_MM).outside_hu is None


def test_clothes_and_blankets_are_no_air() -> None:
    hu, airways, outside, lungs = chest(around=-995.0)
    hu[:, 3:12, 20:] += 60.0
    assert calibrate(hu, airways, outside, lungs, SIDE_MM).outside_hu == pytest.approx(-997, abs=2)


@pytest.mark.parametrize("around", [-1030.0, -1045.0])
def test_air_that_is_cut_off_says_nothing(around: float) -> None:
    hu, airways, outside, lungs = chest(around=around)
    found = calibrate(np.clip(hu, -1024, 3000), airways, outside, lungs, SIDE_MM)
    assert found.outside_hu is None and found.offset_hu == 0


def test_outside_air_forbids_a_shift_upwards_that_it_does_not_show() -> None:
    assert measured(air=TRACHEA_HU + 25, blood=BLOOD_HU + 25).offset_hu == pytest.approx(25, abs=6)
    assert measured(air=TRACHEA_HU + 25, blood=BLOOD_HU + 25, around=OUTSIDE_HU).offset_hu == 0
    assert measured(shift=25.0, around=OUTSIDE_HU).offset_hu == pytest.approx(25, abs=6)


def test_outside_air_cannot_forbid_a_shift_downwards() -> None:
    """Many files end at -1000 HU."""
    found = measured(air=TRACHEA_HU - 25, blood=BLOOD_HU - 25, around=OUTSIDE_HU)
    assert found.offset_hu == pytest.approx(-25, abs=6)


@pytest.mark.parametrize("shift", [0.0, 30.0])
def test_outside_air_stands_in_for_the_trachea(shift: float) -> None:
    hu, airways, outside, lungs = chest(shift=shift, around=OUTSIDE_HU)
    found = calibrate(hu, np.zeros_like(airways), outside, lungs, SIDE_MM)
    assert found.trachea_hu is None and found.slope == pytest.approx(1, abs=0.01)
    assert found.offset_hu == pytest.approx(shift, abs=4)
    (sentence,) = found.warnings()
    assert ("HU too high by outside air" if shift else "trachea was not found") in sentence


# --- the aorta -------------------------------------------------------------------------------------------


def test_the_aorta_is_found_where_it_lies() -> None:
    hu, _, _, lungs = with_aorta()
    inside = find_aorta(hu, lungs, SIDE_MM)
    z, y, x = np.nonzero(inside)
    assert len(np.unique(z)) * SIDE_MM > 50
    assert np.hypot(y - AORTA[0], x - AORTA[1]).max() <= AORTA[2]


def test_the_aorta_is_reported_beside_the_heart() -> None:
    found = calibrate(*with_aorta(aorta=BLOOD_HU + 5), SIDE_MM)
    assert found.aorta_hu == pytest.approx(BLOOD_HU + 5, abs=2)
    assert found.blood_hu == pytest.approx(BLOOD_HU, abs=2)
    assert found.stored()["aorta_hu"] == pytest.approx(found.aorta_hu, abs=0.001)


@pytest.mark.parametrize(
    "phantom",
    [with_aorta(slices=0), with_aorta(slices=36), with_aorta(mirrored=True), with_aorta(aorta=250.0)],
    ids=["none", "too short", "on the right", "with contrast medium"],
)
def test_no_aorta_is_found_where_none_is_sure(phantom: Chest) -> None:
    assert calibrate(*phantom, SIDE_MM).aorta_hu is None


def test_no_aorta_is_found_without_spine_or_lung() -> None:
    hu, _, _, lungs = chest()
    assert not find_aorta(hu, lungs, SIDE_MM).any()
    assert not find_aorta(hu, np.zeros_like(lungs), SIDE_MM).any()


def test_the_aorta_stands_in_for_an_uneven_heart() -> None:
    hu, airways, outside, lungs = with_aorta()
    hu[:, 15:44, 64:80] += 70.0
    assert calibrate(hu, airways, outside, lungs, SIDE_MM).blood_hu == pytest.approx(BLOOD_HU, abs=2)


def test_heart_and_aorta_that_differ_have_contrast_medium() -> None:
    found = calibrate(*with_aorta(aorta=BLOOD_HU + 40), SIDE_MM)
    assert found.aorta_hu == pytest.approx(BLOOD_HU + 40, abs=2) and found.blood_hu is None


def test_the_manifest_holds_every_reference() -> None:
    stored = measured(around=-995.0).stored()
    assert set(stored) == {
        "trachea_hu",
        "blood_hu",
        "outside_hu",
        "aorta_hu",
        "offset_hu",
        "stretch",
        "slope",
    }
    assert stored["outside_hu"] == pytest.approx(-997, abs=2) and stored["aorta_hu"] is None
