"""Training of the network that decides: noise prediction and painted tissues in one pass, resumable.

A patch is painted, a low noise level drawn, and from the noisy HU the network tells the noise (the diffusion
model's task) and the tissues below it.  Most patches carry no noise or little: there the network is read.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from DiffSegLungLib.densities import AIR_HU
from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.models.storage import write_tissue_network
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.diffusion.schedule import noise_schedule
from DiffSegLungLib.representation.tissue_unet import CLASSES, Outputs, TissueUNet
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.painted_patches import LEFT_OUT, PaintedPatches, PaintPatch
from DiffSegLungLib.training.painting_hosts import hosts_of

CLASS_WEIGHTS = (0.3, 0.6, 1.5, 1.2, 1.5, 1.2, 2.5, 0.6, 0.8)
"""Rare tissues count more in the cross-entropy."""
LOW_NOISE, HIGH_NOISE = 10, 60
"""Levels of the schedule: up to the first the network is read, up to the second it learns noise alone."""
NOISE_SHARES = (0.6, 0.36)
"""Share of patches without noise and with little; the rest carries much."""
HU_SCALE = 700.0
"""x = (HU + 1000) / 700 - 1, the paper's window: 1 of the diffusion is 700 HU in every patient."""
DICE_SHARE = 0.5
LEAST_VOXELS = 50.0
"""A class with fewer voxels in a batch has no Dice."""
IGNORED = -100
SAVE_SECONDS = 240.0
REPORT_STEPS = 25


@dataclass(frozen=True)
class TissuePlan:
    """How to train.

    Attributes:
        hosts: folder of painting hosts.
        output: folder that takes checkpoint and weights.
        minutes: of this session; the second half lowers the rate.
        batch: patches a step.
        patch: (z, y, x) in voxels of 2 x 1 x 1 mm.
        rate: learning rate.
        noise_weight: of the noise loss; 0 switches it off.
        average: weight that the running mean of the weights keeps each step.
        bfloat16: compute in bfloat16 where the processor can.
        workers: processes that paint.
        device: ``cpu`` or ``cuda``.
        seed: of everything.
        steps: at most so many in this session.
        start: weights to begin with where there is no checkpoint, as ``save`` writes them.
    """

    hosts: Path
    output: Path
    minutes: float = 60.0
    batch: int = 2
    patch: tuple[int, int, int] = (32, 112, 112)
    rate: float = 4e-4
    noise_weight: float = 0.1
    average: float = 0.998
    bfloat16: bool = True
    workers: int = 1
    device: str = "cpu"
    seed: int = 0
    steps: int = 10**9
    start: Path | None = None


@dataclass
class Losses:
    """Running means of the losses, by name."""

    means: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Take in one step's losses."""
        for name, value in values.items():
            now = float(value.detach())
            self.means[name] = 0.98 * self.means.get(name, now) + 0.02 * now

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:.4f}" for name, value in self.means.items())


class TissueTrainer:
    """Trains :class:`TissueUNet`; ``run`` goes on from the checkpoint in the output folder if there is one.

    Args:
        plan: how.
        painter: paints patches.
    """

    def __init__(self, plan: TissuePlan, painter: PaintPatch) -> None:
        torch.manual_seed(plan.seed)
        self.plan, self.painter, self.step = plan, painter, 0
        self.random = np.random.default_rng(plan.seed)
        self.net = self.fresh().to(plan.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.mean = deepcopy(self.net).eval()
        self.optimiser = torch.optim.AdamW(self.net.parameters(), plan.rate, weight_decay=1e-4)
        self.schedule = noise_schedule()
        self.losses = Losses()
        plan.output.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.exists():
            self.resume()

    def fresh(self) -> TissueUNet:
        """The network that a new run begins with."""
        net = TissueUNet()
        if self.plan.start:
            weights = load_file(str(self.plan.start))
            net.load_state_dict({key: value.float() for key, value in weights.items()})
        return net

    def resume(self) -> dict[str, Any]:
        """Go back to the checkpoint; returns its facts."""
        facts = checkpoint.load(self.checkpoint, self._modules, self.optimiser, self.random)
        self.step = int(facts["step"])
        return facts

    @property
    def checkpoint(self) -> Path:
        """Where the run is kept."""
        return self.plan.output / "tissue.checkpoint.safetensors"

    @property
    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"net": self.net, "mean": self.mean}

    @property
    def weights(self) -> Path:
        """The weights to read CT with."""
        return self.plan.output / "tissue.safetensors"

    def run(self, progress: Progress = silent) -> None:
        """Train until the minutes or the steps are over.

        Raises:
            FloatingPointError: the loss is not finite.
        """
        plan, started, saved, first = self.plan, time.monotonic(), time.monotonic(), self.step
        batches = self._batches()
        while (passed := time.monotonic() - started) < 60 * plan.minutes and self.step - first < plan.steps:
            self._set_rate(self.step - first, passed / (60 * plan.minutes))
            self._one_step(*next(batches), self.step - first)
            if self.step % REPORT_STEPS == 0:
                pace = (time.monotonic() - started) / (self.step - first)
                share = min(passed / (60 * plan.minutes), 1.0)
                progress("train", share, f"step {self.step}: {self.losses}; {pace:.2f} s a step")
            if time.monotonic() - saved > SAVE_SECONDS:
                self.save()
                saved = time.monotonic()
        self.save()

    def _batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """The painter's seed follows the step, so that a resumed run paints other patches."""
        plan = self.plan
        seed = plan.seed + 1000 * self.step
        patches = PaintedPatches(plan.hosts, self.painter, plan.patch, seed, twice=True)
        workers: dict[str, Any] = {"prefetch_factor": 4} if plan.workers else {}
        return iter(DataLoader(patches, plan.batch, num_workers=plan.workers, **workers))

    def _set_rate(self, done: int, share: float) -> None:
        """Warm-up over 100 steps, then level; in the session's second half down to a thirtieth."""
        rate = self.plan.rate * min(1.0, (done + 1) / 100) * max(min(1.0, 2 * (1 - share)), 0.03)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def _one_step(self, hu: torch.Tensor, labels: torch.Tensor, done: int) -> None:
        plan = self.plan
        levels = draw_levels(len(hu), self.random).to(plan.device)
        hu, labels = hu.to(plan.device), labels.to(plan.device)
        noise = torch.randn_like(hu)
        noisy = add_noise(hu, noise, levels, self.schedule.alphas_cumprod.to(plan.device))
        with torch.autocast(torch.device(plan.device).type, torch.bfloat16, enabled=plan.bfloat16):
            outputs = self.net(noisy.to(memory_format=torch.channels_last_3d), levels)
        labels = torch.where(
            (labels == LEFT_OUT) | (levels > LOW_NOISE)[:, None, None, None], IGNORED, labels
        )
        losses = tissue_losses(outputs.tissues.float(), labels)
        total = losses["cross-entropy"] + DICE_SHARE * losses["dice"]
        noised = levels > 0
        if plan.noise_weight and noised.any():
            losses["noise"] = F.mse_loss(outputs.noise.float()[noised], noise[noised])
            total = total + plan.noise_weight * losses["noise"]
        for name, (weight, loss) in self.more_losses(noisy, levels, labels, outputs).items():
            losses[name] = loss
            total = total + weight * loss
        self._descend(total)
        self.losses.add(losses)
        self._average(done)
        self.step += 1

    def more_losses(
        self, noisy: torch.Tensor, levels: torch.Tensor, labels: torch.Tensor, outputs: Outputs
    ) -> dict[str, tuple[float, torch.Tensor]]:
        """Weight and value of each loss that a training of another kind adds; none here."""
        return {}

    def share_gradients(self) -> None:
        """What a training by several processes does before each step; nothing here."""

    def _descend(self, loss: torch.Tensor) -> None:
        if not torch.isfinite(loss):
            raise FloatingPointError(
                "the loss is not finite; train in float32 (bfloat16=False) on this processor"
            )
        self.optimiser.zero_grad()
        loss.backward()
        self.share_gradients()
        if not torch.isfinite(torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)):
            raise FloatingPointError("the gradient is not finite; train in float32 on this processor")
        self.optimiser.step()

    @torch.no_grad()
    def _average(self, done: int) -> None:
        keep = min(self.plan.average, 1 - 1 / (self.step + 2))
        for mean, now in zip(self.mean.parameters(), self.net.parameters(), strict=True):
            mean.lerp_(now, 1 - keep)

    def save(self) -> None:
        """Write checkpoint and weights (the running mean, half precision), each whole."""
        facts = {"step": self.step, "plan": {key: str(value) for key, value in asdict(self.plan).items()}}
        checkpoint.save(self.checkpoint, self._modules, self.optimiser, self.random, facts)
        with atomic_path(self.weights) as partial:
            weights = {key: value.half().contiguous() for key, value in self.mean.state_dict().items()}
            save_file(weights, str(partial), metadata={"steps": str(self.step)})

    def write_to_model(self, folder: Path) -> None:
        """Put the running mean into a model folder, as it was trained: nothing is calibrated yet."""
        weights = {key: value.half() for key, value in self.mean.state_dict().items()}
        facts = {"widths": list(self.net.widths), "steps": self.step, "hosts": hosts_of(self.plan.hosts)}
        write_tissue_network(folder, weights, {**facts, "temperature": 1.0, "bias": [0.0] * CLASSES})


def draw_levels(count: int, rng: np.random.Generator) -> torch.Tensor:
    """A noise level a patch: none, little, or much; int64 (count,)."""
    none, little = NOISE_SHARES
    kinds = rng.random(count)
    low, high = rng.integers(1, LOW_NOISE + 1, count), rng.integers(LOW_NOISE + 1, HIGH_NOISE + 1, count)
    return torch.from_numpy(np.where(kinds < none, 0, np.where(kinds < none + little, low, high)))


def add_noise(
    hu: torch.Tensor, noise: torch.Tensor, levels: torch.Tensor, left: torch.Tensor
) -> torch.Tensor:
    """q(x_t | x_0) in HU; level 0 leaves a patch as it is.

    Args:
        hu: (batch, 1, z, y, x).
        noise: of unit deviation, as ``hu``.
        levels: noise level of each patch, (batch,).
        left: share of the variance left after each level, (levels,).
    """
    share = torch.where(levels > 0, left[(levels - 1).clamp(min=0)], torch.ones_like(left[:1]))
    share = share.view(-1, 1, 1, 1, 1)
    middle = AIR_HU + HU_SCALE
    return middle + share.sqrt() * (hu - middle) + (1 - share).sqrt() * HU_SCALE * noise


def tissue_losses(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Weighted cross-entropy and mean Dice loss of the classes that are there.

    Args:
        logits: (batch, classes, z, y, x), float32.
        labels: int64 (batch, z, y, x), ``IGNORED`` where left out.
    """
    known = labels != IGNORED
    if not known.any():
        return {"cross-entropy": logits.sum() * 0.0, "dice": logits.sum() * 0.0}
    weights = torch.tensor(CLASS_WEIGHTS, device=logits.device)
    entropy = F.cross_entropy(logits, labels, weight=weights, ignore_index=IGNORED)
    shares = logits.softmax(1) * known[:, None]
    truth = F.one_hot(labels.clamp(min=0), CLASSES).movedim(-1, 1) * known[:, None]
    axes = (0, 2, 3, 4)
    there = truth.sum(axes) > LEAST_VOXELS
    overlap, sizes = (shares * truth).sum(axes), shares.sum(axes) + truth.sum(axes)
    dice = 1 - (2 * overlap + LEAST_VOXELS) / (sizes + LEAST_VOXELS)
    return {"cross-entropy": entropy, "dice": dice[there].mean() if there.any() else logits.sum() * 0.0}
