"""What a network is worth on patients held back: always the same patches, noise and noise levels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from DiffSegLungLib.representation.diffusion import TIMESTEPS, from_hounsfield
from DiffSegLungLib.representation.features import DOWNSAMPLING as CELL
from DiffSegLungLib.representation.features import EmbeddingPlan, embed
from DiffSegLungLib.representation.radiomics.batched import teacher_for_patches
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training.patches import build_sampler
from DiffSegLungLib.training.store import Patient

PATCHES = 48
BATCH = 8
READ_AT = (10, 50, 100)
"""Noise levels at which the embedding is read."""
RIDGE = 100.0
FOLDS = 4
LEAST_LUNG = 0.3
"""Share of a region that must be lung."""


@dataclass(frozen=True)
class HeldBack:
    """Patches of patients that were held back, and the noise that is put on them.

    Attributes:
        hu: float32 (n, z, y, x), as scanned.
        mask: float32, same shape.
        noise: float32 (n, 1, z, y, x).
        timesteps: (n,), spread evenly over all noise levels.
    """

    hu: np.ndarray
    mask: np.ndarray
    noise: torch.Tensor
    timesteps: torch.Tensor


def draw_held_back(
    patients: list[Patient], shape: tuple[int, int, int], count: int = PATCHES, seed: int = 0
) -> HeldBack:
    """Draw the patches; the same arguments give the same ones."""
    sampler = build_sampler(patients, shape, seed=seed)
    hu, mask = sampler.draw(count, np.random.default_rng(seed), augmented=False)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn((count, 1, *shape), generator=generator)
    timesteps = torch.linspace(0, TIMESTEPS - 1, count).round().long()
    return HeldBack(hu, mask, noise, timesteps[torch.randperm(count, generator=generator)])


@torch.inference_mode()
def noise_loss(student: Student, held_back: HeldBack) -> float:
    """Mean absolute error of the predicted noise."""
    student.eval()
    device = next(student.parameters()).device
    total = 0.0
    for first in range(0, len(held_back.hu), BATCH):
        rows = slice(first, first + BATCH)
        x = from_hounsfield(torch.from_numpy(held_back.hu[rows])[:, None]).to(device)
        lungs = torch.from_numpy(held_back.mask[rows])[:, None].to(device)
        noise, timesteps = held_back.noise[rows].to(device), held_back.timesteps[rows].to(device)
        predicted = student.unet(student.noised(x, lungs, noise, timesteps), timesteps)
        total += float(functional.l1_loss(predicted, noise)) * len(x)
    return total / len(held_back.hu)


def region_embeddings(student: Student, held_back: HeldBack, region: int = 16) -> np.ndarray:
    """Embeddings of the cubic regions at three noise levels, side by side; means over their lung.

    Args:
        student: the network.
        held_back: the patches.
        region: side of a region in voxels.

    Returns:
        float32 (n * regions of a patch, 3 * 128), regions in (z, y, x) order.
    """
    student.eval()
    device = next(student.parameters()).device.type
    z, y, x = (int(side) for side in held_back.hu.shape[1:])
    plan = EmbeddingPlan(window=(z, y, x), stride=(z, y, x), timesteps=READ_AT)
    parts = []
    for hu, mask in zip(held_back.hu, held_back.mask, strict=True):
        cells = embed(student, hu, mask > 0.5, lambda values: values, plan, device=device)
        share = mask.reshape(z // CELL, CELL, y // CELL, CELL, x // CELL, CELL).mean(axis=(1, 3, 5))
        side = region // CELL
        weight = np.maximum(cut_regions(share[None], side).sum(axis=(1, 2, 3)), 1e-3)
        weighted = [cut_regions((channel * share)[None], side).sum(axis=(1, 2, 3)) for channel in cells]
        parts.append(np.stack(weighted, axis=1) / weight[:, None])
    return np.concatenate(parts).astype(np.float32)


def cut_regions(patches: np.ndarray, side: int) -> np.ndarray:
    """Cut patches (n, z, y, x) into cubes (n * cubes, side, side, side), in (z, y, x) order."""
    count, *sides = patches.shape
    z, y, x = (length // side for length in sides)
    cubes = patches.reshape(count, z, side, y, side, x, side).transpose(0, 1, 3, 5, 2, 4, 6)
    return cubes.reshape(-1, side, side, side)


def teacher_r2(student: Student, held_back: HeldBack, region: int = 16) -> float:
    """How much of the 34 teacher numbers a linear map reads off the embedding.

    Args:
        student: the network.
        held_back: the patches.
        region: side of a region in voxels.

    Returns:
        The share of each number's variance that a ridge regression explains in regions it was not fitted on
        (0 where it explains none), mean over the numbers; NaN with too few regions.
    """
    from sklearn.linear_model import Ridge
    from sklearn.metrics import r2_score
    from sklearn.model_selection import KFold, cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    hu, mask = cut_regions(held_back.hu, region), cut_regions(held_back.mask, region)
    kept = mask.mean(axis=(1, 2, 3)) >= LEAST_LUNG
    if kept.sum() < 4 * FOLDS:
        return float("nan")
    teacher = teacher_for_patches(hu[kept], mask[kept] > 0.5)
    embeddings = region_embeddings(student, held_back, region)[kept]
    # Whole runs of patches are left out, so that regions of one patch lie on one side.
    folds = KFold(FOLDS, shuffle=False)
    model = make_pipeline(StandardScaler(), Ridge(alpha=RIDGE))
    varied = teacher.std(axis=0) > 1e-9
    guessed = cross_val_predict(model, embeddings, teacher[:, varied], cv=folds)
    explained = r2_score(teacher[:, varied], guessed, multioutput="raw_values")
    return float(np.clip(explained, 0.0, 1.0).mean())
