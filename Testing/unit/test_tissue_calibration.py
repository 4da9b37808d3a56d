"""Temperature and bias of the network that decides, fitted on painted truth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import log_softmax

from DiffSegLungLib.representation.tissue_unet import CLASSES
from DiffSegLungLib.tissues import CAVITY, EMPHYSEMA, GROUND_GLASS, HEALTHY
from DiffSegLungLib.training.tissue_calibration import Calibration, PaintedSample, fit, reliability

VOXELS = 60_000


def drawn(sharpness: float = 1.0, shift: int | None = None) -> PaintedSample:
    """Truth drawn from a posterior that is told ``sharpness`` times too surely, one class 1.5 nats low."""
    rng = np.random.default_rng(0)
    logs = log_softmax(rng.normal(0, 2, (VOXELS, CLASSES)), axis=1)
    labels = (np.cumsum(np.exp(logs), axis=1) > rng.random((VOXELS, 1))).argmax(axis=1)
    told = sharpness * logs
    if shift is not None:
        told[:, shift] -= 1.5
    return PaintedSample(log_softmax(told, axis=1), labels)


def calibrated(sample: PaintedSample, found: Calibration) -> PaintedSample:
    return PaintedSample(
        log_softmax(sample.logs / found.temperature + np.array(found.bias), axis=1), sample.labels
    )


def test_a_posterior_that_is_true_is_left_as_it_is() -> None:
    found = fit(drawn())
    assert found.temperature == pytest.approx(1, abs=0.05)
    assert np.abs(found.bias).max() < 0.1


def test_false_certainty_is_softened() -> None:
    found = fit(drawn(sharpness=1.8))
    assert found.temperature == pytest.approx(1.8, rel=0.1)
    assert found.after < found.before - 0.05


def test_a_class_that_is_told_too_seldom_is_raised() -> None:
    found = fit(drawn(shift=GROUND_GLASS))
    others = np.delete(np.array(found.bias), GROUND_GLASS)
    assert found.bias[GROUND_GLASS] - others.mean() == pytest.approx(1.5, abs=0.2)


def test_reliability_is_a_line_after_calibration_and_was_none_before() -> None:
    sample = drawn(sharpness=1.8, shift=GROUND_GLASS)
    found = fit(sample)

    def worst(temperature: float, bias: tuple[float, ...]) -> float:
        rows = reliability(sample, temperature, bias)
        assert sum(count for *_, count in rows) == VOXELS
        return max(abs(said - true) for said, true, count in rows if count > 300)

    assert worst(found.temperature, found.bias) < 0.05 < worst(1.0, (0.0,) * CLASSES)


def test_a_class_that_was_not_painted_keeps_its_own() -> None:
    sample = drawn()
    kept = sample.labels != CAVITY
    found = fit(PaintedSample(sample.logs[kept], sample.labels[kept]))
    assert all(abs(value) < 4 for value in found.bias)
    assert found.bias[EMPHYSEMA] == pytest.approx(found.bias[HEALTHY], abs=0.2)
