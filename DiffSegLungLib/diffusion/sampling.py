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
LEAST_SIGNAL = 1e-3
"""Share of signal at which sampling begins: below it a predicted image is only the prediction's error."""


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
    denoise = {"ddim": _ddim, "dpm-solver": _dpm_solver}[method]
    parts = []
    for first in range(0, len(mask), BATCH):
        rows = slice(first, first + BATCH)
        x = denoise(student, noise[rows].to(device), lungs[rows].to(device), _noise_levels(steps))
        parts.append(to_hounsfield(x[:, 0].clamp(-1, 1)).float().cpu().numpy())
    return np.concatenate(parts)


def _noise_levels(steps: int) -> list[int]:
    """Noise levels from nearly pure noise down to the last, without repeats."""
    signal = noise_schedule().alphas_cumprod
    first = int((signal >= LEAST_SIGNAL).nonzero().max())
    levels = np.linspace(first, 0, min(max(steps, 1), first + 1)).round().astype(int)
    return [int(level) for level in levels]


def _predict(student: Student, x: torch.Tensor, lungs: torch.Tensor, level: int) -> torch.Tensor:
    timesteps = torch.full((len(x),), level, device=x.device)
    noise: torch.Tensor = student.unet(torch.cat([x, lungs], dim=1), timesteps)
    return noise


def _ddim(student: Student, x: torch.Tensor, lungs: torch.Tensor, levels: list[int]) -> torch.Tensor:
    """Equation 12 of Song et al. 2021 with sigma = 0; the image predicted stays within the HU window."""
    signal = noise_schedule().alphas_cumprod.tolist()
    for level, following in zip(levels, [*levels[1:], None], strict=True):
        now, then = signal[level], 1.0 if following is None else signal[following]
        noise = _predict(student, x, lungs, level)
        image = ((x - (1 - now) ** 0.5 * noise) / now**0.5).clamp(-1, 1)
        # The noise that fits the clamped image, else what was cut off would stay behind as grain.
        noise = (x - now**0.5 * image) / (1 - now) ** 0.5
        x = then**0.5 * image + (1 - then) ** 0.5 * noise
    return x


def _dpm_solver(student: Student, x: torch.Tensor, lungs: torch.Tensor, levels: list[int]) -> torch.Tensor:
    try:
        from diffusers import DPMSolverMultistepScheduler
    except ImportError:
        raise MissingPartError(
            "DPM-Solver++ needs the package diffusers: pip install 'diffseglung[train]', or sample with ddim."
        ) from None
    solver: Any = DPMSolverMultistepScheduler(
        num_train_timesteps=TIMESTEPS,
        trained_betas=noise_schedule().betas.numpy(),
        solver_order=2,
        algorithm_type="dpmsolver++",
        thresholding=True,
        sample_max_value=1.0,
    )
    solver.set_timesteps(timesteps=levels)
    for level in levels:
        x = solver.step(_predict(student, x, lungs, level), level, x).prev_sample
    return x
