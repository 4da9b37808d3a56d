"""HU calibration: trachea and blood of phantoms whose values are shifted, stretched or enhanced."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib.calibration import BLOOD_HU, TRACHEA_HU, Calibration, calibrate

SHAPE = (60, 80, 120)
SIDE_MM = 2.0


def chest(
    shift: float = 0.0, blood: float = BLOOD_HU, air: float = TRACHEA_HU
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU with two lungs, a heart between them and a trachea; its airways; its lungs."""
    random = np.random.default_rng(0)
    hu, lungs = np.full(SHAPE, blood, np.float32), np.zeros(SHAPE, np.uint8)
    lungs[5:55, 15:65, 10:40], lungs[5:55, 15:65, 80:110] = 1, 2
    hu[lungs > 0] = -860.0
    airways = np.zeros(SHAPE, bool)
    airways[45:58, 34:44, 55:65] = True
    hu[airways] = air
    hu += random.normal(0, 8, SHAPE)
    return hu + np.float32(shift), airways, lungs


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
    hu, airways, lungs = chest()
    hu[:, :, 60:] += 120.0
    assert calibrate(hu, airways, lungs, SIDE_MM).blood_hu is None


def test_a_trachea_too_dense_is_told_alone() -> None:
    found = measured(air=-900.0)
    assert found.offset_hu == 0 and found.stretch == 1
    (sentence,) = found.warnings()
    assert f"{found.trachea_hu:.0f} HU" in sentence and "calibration" in sentence


def test_air_lighter_than_air_is_a_scale_too_long() -> None:
    hu, airways, lungs = chest()
    stretched = 1.05 * (hu - BLOOD_HU) + BLOOD_HU
    found = calibrate(stretched, airways, lungs, SIDE_MM)
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
    hu, airways, lungs = chest()
    found = calibrate(hu, np.zeros_like(airways), lungs, SIDE_MM)
    assert found.trachea_hu is None and "trachea was not found" in found.warnings()[0]
    assert found.stored()["slope"] is None


def test_one_lung_alone_has_no_heart_between() -> None:
    hu, airways, lungs = chest()
    lungs[lungs == 2] = 0
    assert calibrate(hu, airways, lungs, SIDE_MM).blood_hu is None
