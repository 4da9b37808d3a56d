"""The grain of a scan's noise tells how far kernel and slices blur fine lines."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from DiffSegLungLib.decision.naming import LEAST_KEPT, NamingRule, blur_warnings, lines_kept
from DiffSegLungLib.parenchyma.grain import Grain, grain_of

RULE = NamingRule()
SHAPE = (40, 60, 60)


def chest(blur: tuple[float, float, float]) -> tuple[np.ndarray, np.ndarray]:
    """HU with a lung in soft tissue, and noise blurred by so many voxels along each axis."""
    mask = np.zeros(SHAPE, bool)
    mask[10:30, 15:45, 10:30] = True
    white = np.random.default_rng(3).standard_normal(SHAPE, dtype=np.float32)
    noise = ndimage.gaussian_filter(white, blur)
    return np.where(mask, -850, 40).astype(np.float32) + 12 * noise / noise.std(), mask


def grain(blur: tuple[float, float, float]) -> Grain:
    found = grain_of(*chest(blur))
    assert found is not None
    return found


def test_a_soft_kernel_shows_within_slices_and_thick_slices_across() -> None:
    usual, soft, thick = grain((0.8, 0.4, 0.4)), grain((0.8, 1.0, 1.0)), grain((2.0, 0.4, 0.4))
    assert soft.within > usual.within + 0.2 and soft.across < usual.across + 0.05
    assert thick.across > usual.across + 0.2 and thick.within < usual.within + 0.1


def test_the_lungs_themselves_and_the_strength_of_the_noise_do_not_matter() -> None:
    hu, mask = chest((0.8, 0.6, 0.6))
    plain = grain_of(hu, mask)
    lined = np.where(mask & (np.arange(SHAPE[2]) % 4 == 0), -300.0, hu).astype(np.float32)
    louder = np.where(mask, hu, 40 + 2 * (hu - 40)).astype(np.float32)
    assert plain is not None
    for other in (grain_of(lined, mask), grain_of(louder, mask)):
        assert other is not None and other.within == pytest.approx(plain.within, abs=0.02)


def test_without_soft_tissue_or_noise_all_lines_count_as_kept() -> None:
    mask = np.ones(SHAPE, bool)
    assert grain_of(np.full(SHAPE, -850, np.float32), mask) is None
    assert lines_kept(None, RULE) == 1.0
    even = grain_of(np.full(SHAPE, 40, np.float32), np.zeros(SHAPE, bool))
    assert even is not None and lines_kept(even, RULE) == 1.0


def test_fewer_lines_are_kept_by_soft_kernels_and_thick_slices() -> None:
    usual = lines_kept(Grain(RULE.grain_within, RULE.grain_across), RULE)
    soft = lines_kept(Grain(RULE.grain_within + 0.2, RULE.grain_across), RULE)
    thick = lines_kept(Grain(RULE.grain_within, RULE.grain_across + 0.1), RULE)
    sharp = lines_kept(Grain(RULE.grain_within - 0.2, RULE.grain_across - 0.3), RULE)
    assert usual == 1.0
    assert soft < 0.9 and thick < 0.9 and sharp == 1.0
    assert lines_kept(Grain(1.0, 1.0), RULE) == LEAST_KEPT


def test_the_reader_is_told_what_blurs_the_lines() -> None:
    usual = Grain(RULE.grain_within - 0.1, RULE.grain_across - 0.1)
    assert blur_warnings(None, RULE) == [] and blur_warnings(usual, RULE) == []
    (soft,) = blur_warnings(Grain(RULE.grain_within + 0.1, usual.across), RULE)
    (thick,) = blur_warnings(Grain(usual.within, RULE.grain_across + 0.1), RULE)
    (both,) = blur_warnings(Grain(RULE.grain_within + 0.1, RULE.grain_across + 0.1), RULE)
    assert "soft kernel (its noise correlates by 0.50)" in soft and "thick slices" not in soft
    assert "by 18 % by thick slices (their noise correlates by 0.90)" in thick
    assert "kernel" in both and "slices" in both and "33 %" in both
