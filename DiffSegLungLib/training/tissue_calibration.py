"""Calibration of the network that decides: one temperature and a bias a class, from painted hosts apart.

Hosts that nothing else saw are painted, the network reads them, and its log-posterior is fitted to the
painted truth by the likelihood (Guo et al. 2017, arXiv 1706.04599; here with a bias a class, too).
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import logsumexp

from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.tissue_unet import CLASSES, TissueUNet
from DiffSegLungLib.tissues import CAVITY, EMPHYSEMA
from DiffSegLungLib.training.painted_patches import LEFT_OUT, PaintedPatches, PaintPatch

PATCH = (32, 112, 112)
EVERY = 61
"""One voxel of so many is kept: neighbours say the same."""
HELD = 1e-3
"""Pull of temperature and bias towards 1 and 0, per voxel: a class that was hardly painted keeps its own."""
LEAST_SHARE = 1e-5
BINS = 10


@dataclass(frozen=True)
class PaintedSample:
    """What the network says where truth was painted.

    Attributes:
        logs: log-posterior, float64 (voxels, classes).
        labels: painted truth, int64 (voxels,).
    """

    logs: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class Calibration:
    """Temperature and bias a class, in nats, with the loss in nats a voxel before and after."""

    temperature: float
    bias: tuple[float, ...]
    before: float
    after: float


def sample_hosts(
    net: TissueUNet,
    hosts: Path,
    painter: PaintPatch,
    patches: int,
    seed: int = 0,
    progress: Progress = silent,
) -> PaintedSample:
    """Read painted patches of hosts.

    Args:
        net: in evaluation mode.
        hosts: folder of painting hosts that the network never saw.
        painter: paints them.
        patches: how many.
        seed: of what is painted.
        progress: told stage, fraction and message.
    """
    logs, labels = [], []
    painted = PaintedPatches(hosts, painter, PATCH, seed)
    for done, (hu, truth) in enumerate(islice(painted, patches)):
        progress("calibrate", done / patches, f"{done} of {patches} patches")
        with torch.inference_mode():
            posterior = net(hu[None]).tissues[0].float().log_softmax(0)
        known = np.flatnonzero((truth != LEFT_OUT).numpy())[::EVERY]
        logs.append(posterior.reshape(CLASSES, -1)[:, known].numpy().T.astype(np.float64))
        labels.append(truth.reshape(-1)[known].numpy())
    return PaintedSample(np.concatenate(logs), np.concatenate(labels))


def fit(sample: PaintedSample) -> Calibration:
    """The temperature and biases under which the painted truth is likeliest."""

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        scale, bias = values[0], values[1:]
        logs = scale * sample.logs + bias
        shares = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
        missing = shares.copy()
        missing[np.arange(len(missing)), sample.labels] -= 1.0
        gradient = np.append((missing * sample.logs).sum(axis=1).mean(), missing.mean(axis=0))
        pulled = values - np.append(1.0, np.zeros(CLASSES))
        return _loss(shares, sample.labels) + HELD / 2 * (pulled**2).sum(), gradient + HELD * pulled

    start = np.append(1.0, np.zeros(CLASSES))
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=[(0.3, 3.0)] + [(-4.0, 4.0)] * CLASSES)
    scale, bias = found.x[0], found.x[1:] - found.x[1:].mean()
    before, after = (_loss(_shares(sample, *each), sample.labels) for each in ((1.0, 0.0), (scale, bias)))
    return Calibration(float(1 / scale), tuple(float(value) for value in bias), before, after)


def reliability(
    sample: PaintedSample, temperature: float, bias: tuple[float, ...]
) -> list[tuple[float, float, int]]:
    """How often a voxel is diseased where the posterior of any disease is so high.

    Returns:
        Mean posterior, share of diseased voxels and count, of each tenth that has voxels.
    """
    shares = _shares(sample, 1 / temperature, np.array(bias))
    said = shares[:, EMPHYSEMA : CAVITY + 1].sum(axis=1)
    true = (sample.labels >= EMPHYSEMA) & (sample.labels <= CAVITY)
    bins = np.minimum((said * BINS).astype(int), BINS - 1)
    rows = []
    for tenth in range(BINS):
        inside = bins == tenth
        if inside.any():
            rows.append((float(said[inside].mean()), float(true[inside].mean()), int(inside.sum())))
    return rows


def _shares(sample: PaintedSample, scale: float, bias: np.ndarray | float) -> np.ndarray:
    logs = scale * sample.logs + bias
    shares: np.ndarray = np.exp(logs - logsumexp(logs, axis=1, keepdims=True))
    return shares


def _loss(shares: np.ndarray, labels: np.ndarray) -> float:
    """Negative log-likelihood in nats a voxel."""
    return float(-np.log(np.maximum(shares[np.arange(len(labels)), labels], LEAST_SHARE)).mean())
