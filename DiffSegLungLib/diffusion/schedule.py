"""The forward process: 250 steps of the cosine schedule (Nichol and Dhariwal 2021, equation 17)."""

from __future__ import annotations

from monai.networks.schedulers import DDPMScheduler

TIMESTEPS = 250
"""Steps of the forward process."""


def noise_schedule(timesteps: int = TIMESTEPS) -> DDPMScheduler:
    """The noise schedule; its ``add_noise(x, noise, t)`` is q(x_t | x_0) of Ho et al. 2020, equation 4.

    Nothing is clipped while sampling: the window already keeps x within [-1, 1], and a clipped
    prediction would bend the densities at both ends of it.
    """
    return DDPMScheduler(num_train_timesteps=timesteps, schedule="cosine", clip_sample=False)
