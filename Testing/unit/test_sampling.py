"""Sampling: on a distribution whose noise is known exactly, both solvers give it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from DiffSegLungLib.representation.diffusion import noise_schedule, sampling
from DiffSegLungLib.representation.diffusion.sampling import densities_of, sample
from DiffSegLungLib.representation.student import Student

MEAN, DEVIATION = -0.5, 0.3
"""In the network's units: -650 +- 210 HU."""


class Oracle(torch.nn.Module):
    """The noise that the best of all networks would predict of normally distributed voxels."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def unet(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The expected noise, given the noised voxel."""
        signal = noise_schedule().alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
        variance = signal * DEVIATION**2 + 1 - signal
        return (1 - signal).sqrt() * (x[:, :1] - signal.sqrt() * MEAN) / variance


# The noise that DDIM puts in at eta = 1 is a little too small for images that vary.
@pytest.mark.parametrize(("method", "steps", "error"), [("ddim", 250, 0.025), ("dpm-solver", 50, 0.04)])
def test_a_known_distribution_comes_back(method: str, steps: int, error: float) -> None:
    if method == "dpm-solver":
        pytest.importorskip("diffusers", reason="DPM-Solver++ is diffusers'")
    oracle: Student = Oracle()  # type: ignore[assignment]
    hu = sample(oracle, np.ones((4, 16, 16, 16)), steps, method)
    x = (hu + 1000) / 700 - 1
    assert x.mean() == pytest.approx(MEAN, abs=0.01)
    assert x.std() == pytest.approx(DEVIATION, abs=error)


def test_the_seed_decides_and_the_window_holds() -> None:
    torch.manual_seed(0)
    student = Student((8, 8, 8, 8))
    for parameter in student.parameters():  # untrained, its last layer is all zero
        torch.nn.init.normal_(parameter, std=0.1)
    mask = np.ones((2, 16, 16, 16))
    first, second = (sample(student, mask, 3, "ddim", seed=1) for _ in range(2))
    assert np.array_equal(first, second) and first.shape == mask.shape
    assert not np.array_equal(first, sample(student, mask, 3, "ddim", seed=2))
    assert first.min() >= -1000 and first.max() <= 400
    other = mask.copy()
    other[:, :, :8] = 0
    assert not np.array_equal(first, sample(student, other, 3, "ddim", seed=1)), "the lungs are looked at"


@pytest.mark.parametrize("method", ["ddim", "dpm-solver"])
def test_a_patch_does_not_depend_on_its_batch(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if method == "dpm-solver":
        pytest.importorskip("diffusers", reason="DPM-Solver++ is diffusers'")
    oracle: Student = Oracle()  # type: ignore[assignment]
    mask = np.ones((3, 8, 8, 8))
    whole = sample(oracle, mask, 5, method)
    monkeypatch.setattr(sampling, "BATCH", 2)
    assert sample(oracle, mask, 5, method) == pytest.approx(whole, abs=0.1)
    assert np.abs(whole[0] - whole[1]).mean() > 20


class AnyDensity(Oracle):
    """A network that takes every density for as likely as any other, with a deviation of ``DEVIATION``."""

    def unet(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The expected noise around the mean of each patch, in and around the lungs."""
        signal = noise_schedule().alphas_cumprod[timesteps].view(-1, 1, 1, 1, 1)
        noised, lungs = x[:, :1], x[:, 1:] > 0.5
        dims = (1, 2, 3, 4)
        inside, around = (
            (noised * where).sum(dims, keepdim=True) / where.sum(dims, keepdim=True).clamp(min=1)
            for where in (lungs, ~lungs)
        )
        variance = signal * DEVIATION**2 + 1 - signal
        return (1 - signal).sqrt() * (noised - torch.where(lungs, inside, around)) / variance


def test_sampling_begins_at_the_densities_given() -> None:
    mask = np.zeros((2, 32, 32, 32))
    mask[:, :, :16] = 1
    wanted = np.array([[-800.0, -100.0], [-600.0, 50.0]])
    network: Student = AnyDensity()  # type: ignore[assignment]
    found = densities_of(sample(network, mask, 20, "ddim", densities=wanted), mask)
    assert found == pytest.approx(wanted, abs=100)  # the noise that they are put under has a mean, too
    plain = densities_of(sample(network, mask, 20, "ddim"), mask)
    assert np.abs(plain - wanted).max() > 150, "from noise alone it knows nothing of them"


def test_densities_are_those_in_and_around_the_lungs() -> None:
    hu, mask = np.full((2, 8, 8, 8), -850.0), np.ones((2, 8, 8, 8))
    mask[0, 4:], hu[0, 4:6], hu[0, 6:] = 0, 100.0, 2000.0
    assert densities_of(hu, mask) == pytest.approx(np.array([[-850.0, 250.0], [-850.0, 0.0]]))
