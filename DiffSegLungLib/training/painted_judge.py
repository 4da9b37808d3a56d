"""What a network that decides is worth on patients held back: always the same painted patches.

Painted truth is nobody's annotation: it tells what was painted.  The same places without paint tell whether
the network still says of a patient's own lung what its base said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from DiffSegLungLib.representation.diffusion.schedule import noise_schedule
from DiffSegLungLib.representation.features import precision
from DiffSegLungLib.representation.network import TissueNetwork
from DiffSegLungLib.representation.tissue_unet import CLASSES, Outputs
from DiffSegLungLib.tissues import CAVITY, EMPHYSEMA, HEALTHY, TISSUES, VESSEL
from DiffSegLungLib.training.painted_patches import LEFT_OUT
from DiffSegLungLib.training.painting import Painter
from DiffSegLungLib.training.steady_patches import SteadyPatches
from DiffSegLungLib.training.tissue_training import LOW_NOISE, add_noise

PATCHES, PLAIN_PATCHES = 24, 8
"""Patches that are painted; and the first of them, which are also read as they are and with noise."""
OWN_SEED = 7919
"""Added to the run's: neither places nor textures are those that the network is trained on."""
LEAST_VOXELS = 250
"""Half a millilitre: a tissue that was painted less has no Dice."""
DISEASES = {tissue.key: tissue.label for tissue in TISSUES if EMPHYSEMA <= tissue.label <= CAVITY}
DISEASED = slice(EMPHYSEMA, CAVITY + 1)

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class PaintedTruth:
    """Painted patches of patients held back.

    Attributes:
        hu: float32 (patches, z, y, x), painted.
        labels: uint8, as painted; ``LEFT_OUT`` where nobody knows.
        plain: float32 (plain patches, z, y, x), HU of the first ones before they were painted.
        lungs: bool, of the plain ones.
        base_says: uint8, classes of the plain ones as the base names them.
    """

    hu: np.ndarray
    labels: np.ndarray
    plain: np.ndarray
    lungs: np.ndarray
    base_says: np.ndarray


def paint_truth(
    files: Sequence[Path], base: TissueNetwork, shape: Triple, seed: int, count: int = PATCHES
) -> PaintedTruth:
    """Paint the patches; the same arguments give the same ones.

    Args:
        files: of the hosts held back, at true size.
        base: says what the plain patches show.
        shape: of a patch, (z, y, x).
        seed: of the run.
        count: of patches.
    """
    own = seed + OWN_SEED
    painter = Painter(own)
    drawn = SteadyPatches(files, painter, shape, own)
    painted, before = [], []
    for number in range(count):
        rng = np.random.default_rng((own, number))
        before.append(drawn.draw(number, rng))
        painted.append(painter(before[-1], rng))
    plain = np.stack([one.hu.astype(np.float32) for one in before[:PLAIN_PATCHES]])
    return PaintedTruth(
        np.stack([hu.astype(np.float32) for hu, _ in painted]),
        np.stack([labels.astype(np.uint8) for _, labels in painted]),
        plain,
        np.stack([one.lungs for one in before[:PLAIN_PATCHES]]),
        np.stack([classes(base, hu) for hu in plain]),
    )


def classes(network: TissueNetwork, hu: np.ndarray) -> np.ndarray:
    """The likeliest class of each voxel of a patch, calibrated; uint8 (z, y, x)."""
    logits = _read(network, torch.from_numpy(hu)[None, None]).tissues[0].float().cpu()
    calibrated = logits / network.temperature + torch.tensor(network.bias)[:, None, None, None]
    return calibrated.argmax(0).numpy().astype(np.uint8)


@torch.inference_mode()
def _read(network: TissueNetwork, hu: torch.Tensor, levels: torch.Tensor | None = None) -> Outputs:
    device = next(network.unet.parameters()).device
    fast = precision(device.type) == "bfloat16"
    values = hu.to(device, memory_format=torch.channels_last_3d)
    with torch.autocast(device.type, torch.bfloat16, enabled=fast):
        outputs: Outputs = network.unet(values, None if levels is None else levels.to(device))
    return outputs


def figures(network: TissueNetwork, truth: PaintedTruth) -> dict[str, Any]:
    """What a network is worth.

    Args:
        network: with its calibration.
        truth: painted patches.

    Returns:
        ``dice`` of each painted disease (None where too little was painted) and ``mean_dice``;
        ``noise_loss``; of unpainted lung, in percent of what the base says, ``healthy_now_diseased_percent``
        and ``diseased_now_healthy_percent``.
    """
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    for hu, labels in zip(truth.hu, truth.labels, strict=True):
        known = labels != LEFT_OUT
        counts += _crossed(labels[known], classes(network, hu)[known])
    dice = {key: _dice(counts, label) for key, label in DISEASES.items()}
    known_dice = [value for value in dice.values() if value is not None]
    return {
        "dice": dice,
        "mean_dice": float(np.mean(known_dice)) if known_dice else None,
        "noise_loss": noise_error(network, truth),
        **_changes(network, truth),
    }


def _crossed(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """Voxels of each true class that were said to be of each class."""
    pairs = truth.astype(np.int64) * CLASSES + said
    return np.bincount(pairs, minlength=CLASSES * CLASSES).reshape(CLASSES, CLASSES)


def _dice(counts: np.ndarray, label: int) -> float | None:
    there, said = counts[label].sum(), counts[:, label].sum()
    return float(2 * counts[label, label] / (there + said)) if there >= LEAST_VOXELS else None


def _changes(network: TissueNetwork, truth: PaintedTruth) -> dict[str, float | None]:
    """How much of the unpainted lung went from healthy to diseased, and back."""
    counts = np.zeros((CLASSES, CLASSES), np.int64)
    for hu, before, lungs in zip(truth.plain, truth.base_says, truth.lungs, strict=True):
        counts += _crossed(before[lungs], classes(network, hu)[lungs])
    healthy, diseased = counts[[HEALTHY, VESSEL]], counts[DISEASED]
    back = diseased[:, [HEALTHY, VESSEL]].sum()
    return {
        "healthy_now_diseased_percent": _percent(healthy[:, DISEASED].sum(), healthy.sum()),
        "diseased_now_healthy_percent": _percent(back, diseased.sum()),
    }


def _percent(some: np.integer[Any], whole: np.integer[Any]) -> float | None:
    return 100.0 * float(some) / float(whole) if whole >= LEAST_VOXELS else None


def noise_error(network: TissueNetwork, truth: PaintedTruth) -> float:
    """Mean squared error of the noise predicted in the plain patches, at the levels of reading."""
    left, total = noise_schedule().alphas_cumprod, 0.0
    for number, patch in enumerate(truth.plain):
        hu = torch.from_numpy(patch)[None, None]
        noise = torch.randn(hu.shape, generator=torch.Generator().manual_seed(number))
        levels = torch.tensor([1 + number % LOW_NOISE])
        predicted = _read(network, add_noise(hu, noise, levels, left), levels).noise.float().cpu()
        total += float(F.mse_loss(predicted, noise))
    return total / len(truth.plain)


def picture(network: TissueNetwork, truth: PaintedTruth, count: int) -> np.ndarray:
    """Painted patches, what was painted, and what the network says; RGB float (rows, columns, 3)."""
    from DiffSegLungLib.export.report.slices import windowed

    middle = truth.hu.shape[1] // 2
    grey = windowed(truth.hu[:count, middle])[..., None] * np.ones(3)
    painted = np.where(truth.labels == LEFT_OUT, 0, truth.labels)[:count, middle]
    said = np.stack([classes(network, hu)[middle] for hu in truth.hu[:count]])
    rows = [grey, _coloured(grey, painted), _coloured(grey, said)]
    return np.concatenate([np.concatenate(list(row), axis=1) for row in rows]).astype(np.float32)


def _coloured(grey: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Diseases in their colours over the CT."""
    coloured = grey.copy()
    for tissue in TISSUES:
        if tissue.key in DISEASES:
            where = labels == tissue.label
            coloured[where] = 0.5 * grey[where] + 0.5 * np.array(tissue.colour) / 255.0
    return coloured
