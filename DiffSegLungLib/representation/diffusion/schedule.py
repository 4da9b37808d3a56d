"""The forward process: 250 steps of the cosine schedule (Nichol and Dhariwal 2021, equation 17)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

TIMESTEPS = 250
"""Steps of the forward process."""

OFFSET = 0.008
"""``s`` of their section 3.2."""
LARGEST_BETA = 0.999
"""Where they clip beta, to avoid a singular last step."""


@dataclass(frozen=True)
class NoiseSchedule:
    """How much noise each step adds.

    Attributes:
        betas: float32 (timesteps,), variance of the noise of each step.
        alphas_cumprod: float32 (timesteps,), share of the image's variance that is left after each step.
    """

    betas: torch.Tensor
    alphas_cumprod: torch.Tensor

    @property
    def num_train_timesteps(self) -> int:
        """Number of steps."""
        return len(self.betas)

    def add_noise(self, x: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """q(x_t | x_0) of Ho et al. 2020, equation 4.

        Args:
            x: images, (batch, ...).
            noise: unit noise, as x.
            timesteps: noise level of each image, (batch,).
        """
        signal = self.alphas_cumprod.to(x.device, x.dtype)[timesteps.to(x.device)]
        signal = signal.view(-1, *[1] * (x.ndim - 1))
        return signal.sqrt() * x + (1 - signal).sqrt() * noise


def noise_schedule(timesteps: int = TIMESTEPS) -> NoiseSchedule:
    """The noise schedule."""
    time = torch.linspace(0, timesteps, timesteps + 1) / timesteps
    level = torch.cos((time + OFFSET) / (1 + OFFSET) * math.pi * 0.5) ** 2
    level = level / level[0].item()
    betas = (1.0 - level[1:] / level[:-1]).clip(0.0, LARGEST_BETA)
    return NoiseSchedule(betas, torch.cumprod(1.0 - betas, dim=0))
