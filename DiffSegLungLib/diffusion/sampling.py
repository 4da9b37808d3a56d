"""Generation: lung texture drawn from noise inside a lung mask, by DDIM or DPM-Solver++."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from DiffSegLungLib.diffusion.schedule import TIMESTEPS, noise_schedule
from DiffSegLungLib.diffusion.unet import to_hounsfield
from DiffSegLungLib.errors import MissingPartError

if TYPE_CHECKING:
    from DiffSegLungLib.models.student import Student

METHODS = ("ddim", "dpm-solver")
BATCH = 16


@torch.inference_mode()
def sample(
    student: Student, mask: np.ndarray, steps: int = 50, method: str = "dpm-solver", seed: int = 0
) -> np.ndarray:
    """Draw patches of CT for given lungs.

    Args:
        student: the trained network.
        mask: lungs, (n, z, y, x), sides of the training patches; above 0.5 is lung.
        steps: denoising steps, at most 250.
        method: ``dpm-solver`` (DPM-Solver++ of second order, Lu et al. 2022; needs diffusers) or ``ddim``
            (Song et al. 2021, without noise).
        seed: of the noise; the same seed gives the same patches, in any batch.

    Returns:
        float32 HU (n, z, y, x).
    """
    device = next(student.parameters()).device
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((len(mask), 1, *mask.shape[1:]), generator=generator)
    lungs = torch.from_numpy(np.asarray(mask > 0.5, dtype=np.float32))[:, None]
    student.eval()
    parts = []
    for first in range(0, len(mask), BATCH):
        rows = slice(first, first + BATCH)
        x = _denoise(student, noise[rows].to(device), lungs[rows].to(device), _solver(method, steps))
        parts.append(to_hounsfield(x[:, 0].clamp(-1, 1)).float().cpu().numpy())
    return np.concatenate(parts)


def _denoise(student: Student, x: torch.Tensor, lungs: torch.Tensor, solver: Any) -> torch.Tensor:
    for timestep in solver.timesteps:
        timesteps = torch.full((len(x),), int(timestep), device=x.device)
        noise = student(torch.cat([x, lungs], dim=1), timesteps)[0]
        stepped = solver.step(noise, timestep, x)
        x = stepped[0] if isinstance(stepped, tuple) else stepped.prev_sample
    return x


def _solver(method: str, steps: int) -> Any:
    """A scheduler with this project's noise schedule, its steps set."""
    solver = _ddim() if method == "ddim" else _dpm_solver()
    solver.set_timesteps(min(steps, TIMESTEPS))
    return solver


def _ddim() -> Any:
    from monai.networks.schedulers import DDIMScheduler

    # The window keeps x within [-1, 1]: clipping the prediction of x_0 steadies the noisiest steps.
    return DDIMScheduler(num_train_timesteps=TIMESTEPS, schedule="cosine", clip_sample=True)


def _dpm_solver() -> Any:
    try:
        from diffusers import DPMSolverMultistepScheduler
    except ImportError:
        raise MissingPartError(
            "DPM-Solver++ needs the package diffusers: pip install 'diffseglung[train]', or sample with ddim."
        ) from None
    betas = noise_schedule().betas.numpy()
    # Thresholding for the same reason as in DDIM; without it the first steps, nearly pure noise, run away.
    return DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS,
        trained_betas=betas,
        solver_order=2,
        algorithm_type="dpmsolver++",
        thresholding=True,
        sample_max_value=1.0,
    )
