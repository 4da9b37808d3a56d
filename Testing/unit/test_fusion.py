"""Sobel-Diffusion Fusion: noise goes, edges stay, and nothing leaves the lungs."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib.decision.fusion import FusionSettings, edge_map, fuse, keep_ratio, keep_share

SETTINGS = FusionSettings()
SHAPE = (12, 24, 32)
STEP = 16
"""Column at which the tissue changes."""


def box_mask(margin: int = 2) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[margin:-margin, margin:-margin, margin:-margin] = True
    return mask


def two_tissues() -> np.ndarray:
    """Ground glass beside healthy lung, with the noise of a scan."""
    hu = np.full(SHAPE, -860.0, np.float32)
    hu[:, :, STEP:] = -550.0
    return hu + np.random.default_rng(0).normal(0, 10, SHAPE).astype(np.float32)


def truth() -> np.ndarray:
    labels = np.zeros(SHAPE, int)
    labels[:, :, STEP:] = 1
    return labels


def noisy_posterior(mask: np.ndarray, wrong: float = 0.15) -> np.ndarray:
    """Two tissues, 0.8 to 0.2, the wrong way round in some voxels."""
    random = np.random.default_rng(1)
    labels = np.where(random.random(SHAPE) < wrong, 1 - truth(), truth())
    posterior = np.stack([np.where(labels == tissue, 0.8, 0.2) for tissue in (0, 1)])
    return (posterior * mask).astype(np.float32)


def wrong_share(posterior: np.ndarray, where: np.ndarray) -> float:
    return float((posterior.argmax(axis=0) != truth())[where].mean())


def features_of(hu: np.ndarray) -> np.ndarray:
    return np.stack([hu / 100, np.zeros_like(hu)])


def test_posteriors_still_sum_to_one_inside_and_zero_outside() -> None:
    mask, hu = box_mask(), two_tissues()
    fused = fuse(noisy_posterior(mask), edge_map(hu, features_of(hu), mask, 1.5, SETTINGS), mask, SETTINGS)
    assert fused.dtype == np.float32 and fused.min() >= 0
    assert fused.sum(axis=0)[mask] == pytest.approx(1, abs=1e-5)
    assert not fused[:, ~mask].any()


def test_the_mass_of_each_tissue_is_conserved() -> None:
    mask, hu = box_mask(), two_tissues()
    posterior = noisy_posterior(mask)
    fused = fuse(posterior, edge_map(hu, features_of(hu), mask, 1.5, SETTINGS), mask, SETTINGS)
    assert not np.allclose(fused, posterior)
    assert fused.sum(axis=(1, 2, 3)) == pytest.approx(posterior.sum(axis=(1, 2, 3)), rel=1e-4)


def test_what_is_outside_the_mask_never_comes_in() -> None:
    mask = box_mask()
    posterior = noisy_posterior(mask)
    posterior[:, ~mask] = 5.0
    fused = fuse(posterior, np.zeros(SHAPE, np.float32), mask, SETTINGS)
    clean = fuse(posterior * mask, np.zeros(SHAPE, np.float32), mask, SETTINGS)
    assert np.array_equal(fused, clean)


def test_two_lungs_do_not_mix() -> None:
    mask = box_mask(0)
    mask[:, :, STEP] = False
    posterior = np.stack([truth() == 0, truth() == 1]).astype(np.float32) * mask
    fused = fuse(posterior, np.zeros(SHAPE, np.float32), mask, SETTINGS)
    assert fused == pytest.approx(posterior, abs=1e-6)


def test_fusion_removes_noise_and_keeps_the_edge() -> None:
    mask, hu = box_mask(), two_tissues()
    posterior = noisy_posterior(mask)
    fused = fuse(posterior, edge_map(hu, features_of(hu), mask, 1.5, SETTINGS), mask, SETTINGS)
    columns = np.arange(SHAPE[2])
    within_a_voxel = (columns == STEP - 1) | (columns == STEP)
    away = mask & ~within_a_voxel
    assert wrong_share(posterior, away) > 0.1
    assert wrong_share(fused, away) < 0.02
    # At the edge itself nothing flows, so it is at least no worse than it was.
    assert wrong_share(fused, mask & within_a_voxel) <= wrong_share(posterior, mask & within_a_voxel) + 0.01


def clean_step(mask: np.ndarray) -> np.ndarray:
    return (np.stack([truth() == 0, truth() == 1]) * mask).astype(np.float32)


def test_an_edge_in_the_ct_stops_the_flow_and_no_edge_does_not() -> None:
    mask, hu = box_mask(), two_tissues()
    with_edge = fuse(clean_step(mask), edge_map(hu, features_of(hu), mask, 1.5, SETTINGS), mask, SETTINGS)
    without = fuse(clean_step(mask), np.zeros(SHAPE, np.float32), mask, SETTINGS)
    middle = (slice(4, 8), slice(8, 16), STEP - 1)
    assert with_edge[0][middle].min() > 0.97
    assert without[0][middle].max() < 0.8
    thin = without[1][4:8, 8:16]
    assert (np.diff(thin.mean(axis=(0, 1))[4:-4]) >= -1e-6).all(), "the blurred step still rises"


def test_the_features_alone_can_stop_the_flow() -> None:
    """Tissues of one density: only the texture tells where one ends."""
    mask = box_mask()
    hu = np.full(SHAPE, -600.0, np.float32)
    features = truth()[None].astype(np.float32)
    settings = FusionSettings(ct_share=0.0)
    fused = fuse(clean_step(mask), edge_map(hu, features, mask, 1.5, settings), mask, settings)
    assert fused[0][4:8, 8:16, STEP - 1].min() > 0.97


def test_the_edge_map_lies_between_zero_and_one_inside_alone() -> None:
    mask, hu = box_mask(), two_tissues()
    edges = edge_map(hu, features_of(hu), mask, 1.5, SETTINGS)
    assert edges.dtype == np.float32 and edges.shape == SHAPE
    assert edges.min() >= 0 and edges.max() <= 1 and not edges[~mask].any()
    at_step = edges[4:8, 4:-4, STEP - 1 : STEP + 1].mean()
    assert at_step > 0.8 and at_step > 4 * edges[4:8, 4:-4, 5:11].mean()


def test_the_pleura_makes_no_edge() -> None:
    mask = box_mask(4)
    hu = np.where(mask, -860.0, 60.0).astype(np.float32)
    hu[:, :, STEP:][mask[:, :, STEP:]] = -550.0
    edges = edge_map(hu, features_of(hu), mask, 1.5, SETTINGS)
    assert edges[4, 4, STEP] > 0.9
    assert edges[:, :, 4 : STEP - 2].max() < 0.01


def test_no_steps_change_nothing() -> None:
    mask = box_mask()
    posterior = noisy_posterior(mask)
    fused = fuse(posterior, np.zeros(SHAPE, np.float32), mask, FusionSettings(steps=0))
    assert fused == pytest.approx(posterior)


def test_the_largest_stable_step_does_not_swing() -> None:
    mask = box_mask()
    settings = FusionSettings(step=1 / 6, steps=60)
    fused = fuse(noisy_posterior(mask), np.zeros(SHAPE, np.float32), mask, settings)
    assert fused.min() >= -1e-6 and fused.max() <= 0.8 + 1e-6


def test_two_tissues_keep_the_ratio_they_had() -> None:
    rng = np.random.default_rng(0)
    before, after = (values / values.sum(axis=0) for values in rng.random((2, 3, 4, 4, 4)).astype(np.float32))
    before[:, 0, 0, 0] = [0, 0, 1]
    kept = keep_ratio(after, before, (0, 1))
    assert np.allclose(kept[2], after[2]) and np.allclose(kept.sum(axis=0), 1, atol=1e-6)
    inside = before[:2].sum(axis=0) > 0
    assert np.allclose((kept[0] * before[1])[inside], (kept[1] * before[0])[inside], atol=1e-5)
    assert np.isclose(kept[0, 0, 0, 0], kept[1, 0, 0, 0])


def test_a_kept_share_is_the_one_before_and_the_others_share_the_rest() -> None:
    rng = np.random.default_rng(0)
    before, after = (values / values.sum(axis=0) for values in rng.random((2, 3, 4, 4, 4)).astype(np.float32))
    before[:, 0, 0, 0], after[:, 0, 0, 0] = [0.5, 0.3, 0.2], [0, 0, 1]
    before[:, 0, 0, 1] = after[:, 0, 0, 1] = 0  # outside the lungs
    kept = keep_share(after, before, 2)
    assert np.allclose(kept[2], before[2]) and np.allclose(kept.sum(axis=0), before.sum(axis=0), atol=1e-6)
    assert np.allclose(kept[0] * after[1], kept[1] * after[0], atol=1e-6)
    assert np.allclose(kept[:, 0, 0, 0], [0.5, 0.3, 0.2])
