"""Training of the network that decides: losses, noise, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffSegLungLib.representation.diffusion.schedule import noise_schedule
from DiffSegLungLib.representation.tissue_unet import CLASSES, TissueUNet
from DiffSegLungLib.training.painted_patches import LEFT_OUT
from DiffSegLungLib.training.painting_hosts import PaintingHost, depth_below_pleura
from DiffSegLungLib.training.tissue_training import (
    HIGH_NOISE,
    IGNORED,
    LOW_NOISE,
    TissuePlan,
    TissueTrainer,
    add_noise,
    draw_levels,
    tissue_losses,
)


def half_and_half(host: PaintingHost, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A painter that is quick: the upper half is consolidated, a corner is left out."""
    hu, labels = host.hu.astype(np.float32), host.lungs.astype(np.uint8)
    upper = host.lungs & (np.arange(hu.shape[1])[None, :, None] < hu.shape[1] // 2)
    hu[upper], labels[upper] = 40.0, 5
    labels[:, :2] = LEFT_OUT
    return hu + rng.normal(0, 10, hu.shape).astype(np.float32), labels


@pytest.fixture
def plan(tmp_path: Path) -> TissuePlan:
    lungs = np.zeros((16, 48, 48), bool)
    lungs[:, 8:40, 8:40] = True
    none = np.zeros_like(lungs)
    hosts = tmp_path / "hosts"
    hosts.mkdir()
    hu = np.where(lungs, -850, 30).astype(np.int16)
    PaintingHost(hu, lungs, none, none, none, depth_below_pleura(lungs)).save(hosts / "one_100.npz")
    return TissuePlan(hosts, tmp_path / "run", patch=(8, 32, 32), workers=0, bfloat16=False, steps=2)


def test_a_run_learns_saves_and_goes_on(plan: TissuePlan) -> None:
    first = TissueTrainer(replace(plan, steps=12, rate=3e-3), half_and_half)
    before = first.net.tissues.weight.detach().clone()
    first.run()
    assert first.step == 12 and not torch.equal(before, first.net.tissues.weight)
    again = TissueTrainer(replace(plan, steps=3), half_and_half)
    assert again.step == 12
    assert torch.equal(again.net.tissues.weight, first.net.tissues.weight)
    again.run()
    assert again.step == 15


def test_a_run_may_begin_with_the_weights_of_another(plan: TissuePlan, tmp_path: Path) -> None:
    first = TissueTrainer(plan, half_and_half)
    first.run()
    other = TissueTrainer(replace(plan, output=tmp_path / "other", start=first.weights), half_and_half)
    assert other.step == 0
    assert torch.allclose(other.net.tissues.weight, first.mean.tissues.weight, atol=1e-3)


def test_noise_keeps_hounsfield_units_and_level_zero_changes_nothing() -> None:
    hu = torch.full((3, 1, 8, 32, 32), -800.0)
    noise = torch.randn(hu.shape, generator=torch.Generator().manual_seed(0))
    left = noise_schedule().alphas_cumprod
    noisy = add_noise(hu, noise, torch.tensor([0, 1, LOW_NOISE]), left)
    assert torch.equal(noisy[0], hu[0])
    deviations = [float(noisy[number].std()) for number in (1, 2)]
    expected = [700 * float((1 - left[level - 1]).sqrt()) for level in (1, LOW_NOISE)]
    assert deviations == pytest.approx(expected, rel=0.03)
    assert float(noisy[2].mean()) == pytest.approx(
        -800 + 500 * (1 - float(left[LOW_NOISE - 1].sqrt())), abs=3
    )


def test_levels_are_none_little_or_much() -> None:
    levels = draw_levels(4000, np.random.default_rng(0)).numpy()
    assert levels.min() == 0 and levels.max() == HIGH_NOISE
    assert 0.57 < (levels == 0).mean() < 0.63
    assert 0.33 < ((levels > 0) & (levels <= LOW_NOISE)).mean() < 0.39


def test_what_is_left_out_has_no_say() -> None:
    labels = torch.randint(0, CLASSES, (1, 4, 8, 8))
    labels[:, :, :4] = IGNORED
    logits = torch.zeros(1, CLASSES, 4, 8, 8, requires_grad=True)
    losses = tissue_losses(logits, labels)
    (losses["cross-entropy"] + losses["dice"]).backward()
    assert logits.grad is not None
    assert not logits.grad[:, :, :, :4].any() and logits.grad[:, :, :, 4:].any()


def test_the_right_answer_costs_nothing_and_nothing_known_is_no_loss() -> None:
    labels = torch.randint(0, CLASSES, (1, 8, 16, 16))
    right = 40.0 * torch.nn.functional.one_hot(labels, CLASSES).movedim(-1, 1).float()
    losses = tissue_losses(right, labels)
    assert float(losses["cross-entropy"]) < 1e-4 and float(losses["dice"]) < 1e-3
    unknown = tissue_losses(right, torch.full_like(labels, IGNORED))
    assert float(unknown["cross-entropy"]) == 0.0


def test_a_loss_that_is_not_finite_stops_the_run(plan: TissuePlan) -> None:
    trainer = TissueTrainer(plan, half_and_half)
    torch.nn.init.constant_(trainer.net.tissues.bias, float("nan"))
    with pytest.raises(FloatingPointError, match="float32"):
        trainer.run()


def test_the_noise_level_reaches_the_network() -> None:
    net = TissueUNet((8, 8, 8)).eval()
    for name, weights in net.named_parameters():
        if name.endswith("level.weight"):
            torch.nn.init.normal_(weights)
    hu = torch.full((1, 1, 8, 32, 32), -800.0)
    plain, noisy = (net(hu, torch.tensor([level])).noise for level in (0, 10))
    assert not torch.allclose(plain, noisy)
    assert torch.equal(plain, net(hu).noise)
