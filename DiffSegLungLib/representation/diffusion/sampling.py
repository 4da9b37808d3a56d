"""Generation: lung texture drawn from noise inside a lung mask, by DDIM or DPM-Solver++."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.representation.diffusion.schedule import TIMESTEPS, noise_schedule
from DiffSegLungLib.representation.diffusion.unet import (
    HU_MAXIMUM,
    HU_MINIMUM,
    from_hounsfield,
    to_hounsfield,
)

if TYPE_CHECKING:
    from DiffSegLungLib.representation.student import Student

METHODS = ("ddim", "dpm-solver")
BATCH = 16
LEAST_SIGNAL = 1e-3
"""Share of signal at which sampling begins: below it a predicted image is only the prediction's error."""
LEAST_SIGNAL_OF_DENSITY = 0.016
"""The same where the lungs' density is given: above that much noise a small network errs in it by 80 HU."""


@torch.inference_mode()
def sample(
    student: Student,
    mask: np.ndarray,
    steps: int = 50,
    method: str = "dpm-solver",
    seed: int = 0,
    densities: np.ndarray | None = None,
) -> np.ndarray:
    """Draw patches of CT for given lungs.

    Each step takes some noise out and puts fresh noise in, so that what the network did wrong is forgotten; a
    path without fresh noise drifts away from any CT where the network is small.

    Args:
        student: the trained network.
        mask: lungs, (n, z, y, x), sides of the training patches; above 0.5 is lung.
        steps: denoising steps, at most 250.
        method: ``dpm-solver`` (DPM-Solver++ of second order for the stochastic equation, Lu et al. 2022;
            needs diffusers) or ``ddim`` (Song et al. 2021, with the noise of their eta = 1).
        seed: of the noise; the same seed gives the same patches, in any batch.
        densities: HU in and around the lungs of each patch, (n, 2), as :func:`densities_of` measures them in
            CT; sampling then begins at lungs of even density under much noise instead of at noise alone.

    Returns:
        float32 HU (n, z, y, x).
    """
    device = next(student.parameters()).device
    lungs = torch.from_numpy(np.asarray(mask > 0.5, dtype=np.float32))[:, None]
    levels = _noise_levels(steps, LEAST_SIGNAL if densities is None else LEAST_SIGNAL_OF_DENSITY)
    start = _noise(lungs.shape, seed, TIMESTEPS)
    if densities is not None:
        even = from_hounsfield(_even_lungs(lungs, densities))
        start = noise_schedule().add_noise(even, start, torch.full((len(mask),), levels[0]))
    student.eval()
    denoise = {"ddim": _ddim, "dpm-solver": _dpm_solver}[method]
    parts = []
    for first in range(0, len(mask), BATCH):
        rows = slice(first, first + BATCH)
        fresh = _FreshNoise(lungs.shape, rows, seed, device)
        x = denoise(student, start[rows].to(device), lungs[rows].to(device), levels, fresh)
        parts.append(to_hounsfield(x[:, 0].clamp(-1, 1)).float().cpu().numpy())
    return np.concatenate(parts)


def densities_of(hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Mean HU in and around the lungs of each patch, within the network's window: (n, 2).

    Args:
        hu: patches, (n, z, y, x).
        mask: their lungs; above 0.5 is lung.  A patch that is all lung is given soft tissue around.
    """
    hu, inside = np.clip(hu, HU_MINIMUM, HU_MAXIMUM), mask > 0.5
    around = [one[~lung].mean() if (~lung).any() else 0.0 for one, lung in zip(hu, inside, strict=True)]
    return np.stack([[one[lung].mean() for one, lung in zip(hu, inside, strict=True)], around], axis=1)


def _even_lungs(lungs: torch.Tensor, densities: np.ndarray) -> torch.Tensor:
    """HU of lungs of even density in even surroundings, as lungs."""
    inside, around = torch.from_numpy(np.asarray(densities, np.float32)).T[:, :, None, None, None, None]
    return torch.where(lungs > 0.5, inside, around)


def _noise(shape: Sequence[int], seed: int, level: int) -> torch.Tensor:
    """Noise of one level for all patches."""
    # A generator mixes its seed well: neighbours are as unlike as any two.
    return torch.randn(tuple(shape), generator=torch.Generator().manual_seed(seed * (TIMESTEPS + 1) + level))


class _FreshNoise:
    """The noise that goes in at each level, for some of the patches; the same in any batch."""

    def __init__(self, shape: Sequence[int], rows: slice, seed: int, device: torch.device) -> None:
        self.shape, self.rows, self.seed, self.device = shape, rows, seed, device

    def __call__(self, level: int) -> torch.Tensor:
        return _noise(self.shape, self.seed, level)[self.rows].to(self.device)


def _noise_levels(steps: int, least_signal: float = LEAST_SIGNAL) -> list[int]:
    """Noise levels from the first with so much signal down to the last, without repeats."""
    signal = noise_schedule().alphas_cumprod
    first = int((signal >= least_signal).nonzero().max())
    levels = np.linspace(first, 0, min(max(steps, 1), first + 1)).round().astype(int)
    return [int(level) for level in levels]


def _predict(student: Student, x: torch.Tensor, lungs: torch.Tensor, level: int) -> torch.Tensor:
    timesteps = torch.full((len(x),), level, device=x.device)
    noise: torch.Tensor = student.unet(torch.cat([x, lungs], dim=1), timesteps)
    return noise


def _ddim(
    student: Student, x: torch.Tensor, lungs: torch.Tensor, levels: list[int], fresh: _FreshNoise
) -> torch.Tensor:
    """Equations 12 and 16 of Song et al. 2021, eta = 1; the image predicted stays within the HU window."""
    signal = noise_schedule().alphas_cumprod.tolist()
    for level, following in zip(levels, [*levels[1:], None], strict=True):
        now, then = signal[level], 1.0 if following is None else signal[following]
        noise = _predict(student, x, lungs, level)
        image = ((x - (1 - now) ** 0.5 * noise) / now**0.5).clamp(-1, 1)
        # The noise that fits the clamped image, else what was cut off would stay behind as grain.
        noise = (x - now**0.5 * image) / (1 - now) ** 0.5
        new = (1 - then) / (1 - now) * (1 - now / then)  # variance of the noise that goes in
        x = then**0.5 * image + (1 - then - new) ** 0.5 * noise
        x = x + new**0.5 * fresh(level)
    return x


def _dpm_solver(
    student: Student, x: torch.Tensor, lungs: torch.Tensor, levels: list[int], fresh: _FreshNoise
) -> torch.Tensor:
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
        algorithm_type="sde-dpmsolver++",
        thresholding=True,
        sample_max_value=1.0,
    )
    solver.set_timesteps(timesteps=levels)
    for level in levels:
        noise = _predict(student, x, lungs, level)
        x = solver.step(noise, level, x, variance_noise=fresh(level)).prev_sample
    return x
