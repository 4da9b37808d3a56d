"""How much the patches that a model generates are like real ones of patients that were held back.

Frechet and MMD distances are taken between features of **this model's own encoder**.  They order generators
that one model judges, and are not comparable with Inception-based FID, nor between models.  SSIM and PSNR
compare a patch with the real patch of the same lungs; texture drawn anew never lies on the real one, so they
stay low.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import linalg, ndimage

from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.atomic import write_json
from DiffSegLungLib.models.store import load
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.diffusion.sampling import METHODS, densities_of, sample
from DiffSegLungLib.training.judge import HeldBack, draw_held_back, region_embeddings
from DiffSegLungLib.training.split import read_split
from DiffSegLungLib.training.store import Patient, load_store

COMPONENTS = 16
"""Principal components of the features: as many as some hundred regions can tell a covariance of."""
BLOCK = 8
WINDOW_HU = 1400.0
AERATED_HU = -700.0
OURS = {"dpm-solver": "DiffSegLung, DPM-Solver++", "ddim": "DiffSegLung, DDIM"}


@dataclass(frozen=True)
class GenerationPlan:
    """What is evaluated.

    Attributes:
        store: a training store with patients held back.
        model: name or folder; the default model without it.
        patches: how many are drawn; even.
        steps: denoising steps.
        methods: ``dpm-solver``, ``ddim`` or both.
        seed: of everything random.
    """

    store: Path
    model: str | None = None
    patches: int = 64
    steps: int = 30
    methods: tuple[str, ...] = METHODS
    seed: int = 0


def evaluate_generation(plan: GenerationPlan, folder: Path, progress: Progress = silent) -> dict[str, Any]:
    """Generate, compare, and write ``generation.json``, ``generation.png`` and ``generated.png``.

    ``generation.png`` shows pixels of the store's CT beside what was made; ``generated.png`` shows none.

    Args:
        plan: what is evaluated.
        folder: takes the files.
        progress: told of each generator.

    Returns:
        Figures by generator.
    """
    from DiffSegLungLib.evaluation.figures import draw_patches

    model = load(plan.model)
    train, held_back = _patients(plan.store)
    shape = model.plan.window
    real = draw_held_back(held_back, shape, plan.patches, plan.seed)
    other = draw_held_back(held_back, shape, plan.patches, plan.seed + 1)
    learnt = draw_held_back(train, shape, plan.patches, plan.seed)
    made = _sampled(model, real, learnt, plan, progress)
    made["noise with the CT's spectrum"] = spectral_noise(learnt, real.mask, plan.seed)
    copied = {"shuffled blocks": shuffled_blocks(learnt.hu, plan.seed), "other real patches": other.hu}
    basis = _Basis(model, learnt)
    figures = {}
    for name, hu in (made | copied).items():
        progress("generate", 0.9, name)
        mask = other.mask if name == "other real patches" else real.mask
        figures[name] = compare(hu, mask, real, basis)
    result = _described(model, plan, held_back) | {"generators": figures}
    result["lung_hu"] = {"real, held back": density(real.hu, real.mask)}
    result["lung_hu"] |= {name: density(hu, real.mask) for name, hu in made.items()}
    write_json(folder / "generation.json", result)
    draw_patches(folder / "generation.png", {"real, held back": real.hu} | made | copied)
    draw_patches(folder / "generated.png", made)
    progress("generate", 1.0)
    return result


def _sampled(
    model: Model, real: HeldBack, learnt: HeldBack, plan: GenerationPlan, progress: Progress
) -> dict[str, np.ndarray]:
    """Patches of each method in the lungs held back; their densities are those of lungs trained on."""
    densities, made = densities_of(learnt.hu, learnt.mask), {}
    for number, method in enumerate(plan.methods):
        progress("generate", 0.9 * number / len(plan.methods), f"{plan.patches} patches by {method}")
        made[OURS[method]] = sample(model.student, real.mask, plan.steps, method, plan.seed, densities)
    return made


def _described(model: Model, plan: GenerationPlan, held_back: list[Patient]) -> dict[str, Any]:
    return {
        "features": "this model's own encoder; not comparable with Inception FID",
        "model": model.info.name,
        "weights_sha256": model.info.sha256,
        "patches": plan.patches,
        "held_back": sorted({one.person for one in held_back}),
        "steps": plan.steps,
        "seed": plan.seed,
    }


def density(hu: np.ndarray, mask: np.ndarray) -> dict[str, float | None]:
    """Mean and deviation of the lungs' HU within the window, and the grain of aerated lung.

    Grain is the deviation, in HU, from a Gaussian mean of one voxel, where that mean is below -700 HU and no
    surface is near; None without such lung.
    """
    hu, inside = np.clip(hu, -1000, 400), mask > 0.5
    smooth = np.stack([ndimage.gaussian_filter(one, 1.0) for one in hu])
    deep = np.stack([ndimage.binary_erosion(one, iterations=2) for one in inside]) & (smooth < AERATED_HU)
    return {
        "mean": round(float(hu[inside].mean()), 1),
        "deviation": round(float(hu[inside].std()), 1),
        "grain": round(float((hu - smooth)[deep].std()), 1) if deep.any() else None,
    }


def _patients(store: Path) -> tuple[list[Patient], list[Patient]]:
    split = read_split(store)
    patients = load_store(store)
    held_back = [one for one in patients if split.get(one.person, False)]
    train = [one for one in patients if one not in held_back]
    if not held_back or not train:
        raise UnusableInputError(
            f"{store} holds no patient back: prepare it with CT of several patients and --held-back 0.2."
        )
    return train, held_back


# --- simple generators -----------------------------------------------------------------------------------


def spectral_noise(learnt: HeldBack, mask: np.ndarray, seed: int = 0) -> np.ndarray:
    """Gaussian noise whose mean power at each spatial frequency is that of real patches.

    Args:
        learnt: real patches to learn mean and spectrum from.
        mask: lungs, (n, z, y, x); outside them is the mean of what lies there in real patches.
        seed: of the noise.

    Returns:
        float32 HU (n, z, y, x).
    """
    inside, outside = (float(learnt.hu[where].mean()) for where in (learnt.mask > 0.5, learnt.mask <= 0.5))
    filled = np.where(learnt.mask > 0.5, learnt.hu - inside, 0.0)
    share = max(float((learnt.mask > 0.5).mean()), 1e-6)
    power = (np.abs(np.fft.fftn(filled, axes=(1, 2, 3))) ** 2).mean(axis=0) / share
    white = np.random.default_rng(seed).standard_normal(mask.shape)
    shaped = np.fft.fftn(white, axes=(1, 2, 3)) * np.sqrt(power / white[0].size)
    noise = np.fft.ifftn(shaped, axes=(1, 2, 3)).real
    return np.where(mask > 0.5, inside + noise, outside).clip(-1000, 400).astype(np.float32)


def shuffled_blocks(hu: np.ndarray, seed: int = 0) -> np.ndarray:
    """Real patches cut into blocks of 8 voxels that change places, in and between patches."""
    count, *sides = hu.shape
    z, y, x = (length // BLOCK for length in sides)
    blocks = hu.reshape(count, z, BLOCK, y, BLOCK, x, BLOCK).transpose(0, 1, 3, 5, 2, 4, 6)
    blocks = blocks.reshape(-1, BLOCK, BLOCK, BLOCK)
    mixed = blocks[np.random.default_rng(seed).permutation(len(blocks))]
    back = mixed.reshape(count, z, y, x, BLOCK, BLOCK, BLOCK).transpose(0, 1, 4, 2, 5, 3, 6)
    return back.reshape(hu.shape).clip(-1000, 400)


# --- distances -------------------------------------------------------------------------------------------


class _Basis:
    """Features of regions: this model's embedding, on the principal components of real patches."""

    def __init__(self, model: Model, learnt: HeldBack) -> None:
        self.student = model.student
        self.region = min(16, *model.plan.window)
        features = region_embeddings(self.student, learnt, self.region)
        self.mean = features.mean(axis=0)
        _, scale, rows = np.linalg.svd(features - self.mean, full_matrices=False)
        kept = min(COMPONENTS, len(rows))
        spread = np.maximum(scale[:kept], 1e-9) / max(len(features) - 1, 1) ** 0.5
        self.matrix = rows[:kept].T / spread

    def __call__(self, hu: np.ndarray, mask: np.ndarray, like: HeldBack) -> np.ndarray:
        seen = HeldBack(np.asarray(hu, np.float32), mask, like.noise, like.timesteps)
        return (region_embeddings(self.student, seen, self.region) - self.mean) @ self.matrix


def compare(hu: np.ndarray, mask: np.ndarray, real: HeldBack, basis: Any) -> dict[str, float]:
    """Figures of one generator's patches against the real ones."""
    features, wanted = basis(hu, mask, real), basis(real.hu, real.mask, real)
    first, second = (np.clip((values + 1000) / WINDOW_HU, 0, 1) for values in (hu, real.hu))
    return {
        "frechet_own_encoder": round(frechet_distance(features, wanted), 4),
        "mmd_own_encoder": round(squared_mmd(features, wanted), 5),
        "ssim": round(structural_similarity(first, second), 4),
        "psnr_db": round(signal_to_noise(first, second), 2),
    }


def frechet_distance(first: np.ndarray, second: np.ndarray) -> float:
    """Frechet distance of two Gaussians fitted to features, (n, dimensions) (Heusel et al. 2017)."""
    gap = first.mean(axis=0) - second.mean(axis=0)
    one, other = np.cov(first, rowvar=False), np.cov(second, rowvar=False)
    root = linalg.sqrtm(one @ other).real
    return float(gap @ gap + np.trace(one + other - 2 * root))


def squared_mmd(first: np.ndarray, second: np.ndarray) -> float:
    """Squared maximum mean discrepancy, unbiased, Gaussian kernel of the median distance (Gretton 2012)."""
    both = np.concatenate([first, second])
    squares = ((both[:, None] - both[None]) ** 2).sum(axis=-1)
    kernel = np.exp(-squares / np.median(squares[squares > 0]))
    n, m = len(first), len(second)
    own = (kernel[:n, :n].sum() - n) / (n * (n - 1)) + (kernel[n:, n:].sum() - m) / (m * (m - 1))
    return float(own - 2 * kernel[:n, n:].mean())


def structural_similarity(first: np.ndarray, second: np.ndarray) -> float:
    """Mean SSIM of patches (n, z, y, x) in [0, 1], in 3D."""
    import torch
    from monai.metrics import SSIMMetric

    pair = (torch.from_numpy(np.asarray(one, np.float32))[:, None] for one in (first, second))
    similarities: Any = SSIMMetric(spatial_dims=3, data_range=1.0, win_size=7)(*pair)
    return float(similarities.mean())


def signal_to_noise(first: np.ndarray, second: np.ndarray) -> float:
    """Mean peak signal-to-noise ratio in dB of patches in [0, 1]; 100 dB at most."""
    errors = np.maximum(((first - second) ** 2).mean(axis=(1, 2, 3)), 1e-10)
    return float((-10 * np.log10(errors)).mean())
