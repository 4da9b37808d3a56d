"""Sampling: on a distribution whose noise is known exactly, both solvers give it back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from DiffSegLungLib.diffusion import noise_schedule
from DiffSegLungLib.diffusion.sampling import sample
from DiffSegLungLib.models.student import Student

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


@pytest.mark.parametrize(("method", "steps", "error"), [("ddim", 250, 0.02), ("dpm-solver", 50, 0.04)])
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
