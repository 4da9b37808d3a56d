"""The network that decides goes on learning on a researcher's own CT, and forgets nothing of its base.

The CT that the base was trained on are not at hand.  What is kept of them:

- The painter is shipped: every kind of disease is painted into the new CT, as it was into the old ones, so no
  tissue falls out of use.  It is the tissues that are replayed, not the patients.
- Where nothing was painted the frozen base teaches its posterior (learning without forgetting, Li and Hoiem,
  arXiv 1606.09282): also in the patient's own disease, which the painted truth leaves out.  Where disease was
  painted the truth is known, and the base's mistakes there shall be unlearned.
- The rate is low, and the weights that are kept are the mean over the run, the base's among them: such means
  hold what a model knew of other data (Wortsman et al., arXiv 2109.01903).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

from DiffSegLungLib.errors import DiffSegLungError
from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.features import precision
from DiffSegLungLib.representation.network import TissueNetwork
from DiffSegLungLib.representation.tissue_unet import Outputs, TissueUNet
from DiffSegLungLib.tissues import CAVITY, EMPHYSEMA
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.distributed import Ranks
from DiffSegLungLib.training.guard import DRIFT_POINTS, Guard
from DiffSegLungLib.training.painted_judge import PaintedTruth, figures, picture
from DiffSegLungLib.training.painted_patches import PaintPatch
from DiffSegLungLib.training.painting import Painter
from DiffSegLungLib.training.run_files import CHECKPOINT
from DiffSegLungLib.training.steady_patches import SteadyPatches
from DiffSegLungLib.training.steps import forget_later_steps, take_steps
from DiffSegLungLib.training.tissue_training import LOW_NOISE, Losses, TissuePlan, TissueTrainer

KEEP = 0.5
"""Weight of the base's posterior beside the painted truth."""
MOST_PAINTERS = 8
SHOWN = 4
"""Patches of the sample picture."""
LOSSES = {"noise": "noise loss", "cross-entropy": "cross-entropy", "dice": "Dice loss", "kept": "from base"}

Batch = tuple[torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TunerSettings:
    """What a run is made of.

    Attributes:
        steps: in all.
        rate: of AdamW.
        rise: steps over which the rate rises.
        patch: (z, y, x) in voxels of 2 x 1 x 1 mm.
        batch: patches a step.
        keep: weight of the base's posterior.
        seed: of everything random.
    """

    steps: int
    rate: float
    rise: int
    patch: tuple[int, int, int]
    batch: int = 2
    keep: float = KEEP
    seed: int = 0


@dataclass
class LossesOfStep(Losses):
    """Those of the last step; of a loss that had nothing to look at, those of the last step that had."""

    last: dict[str, float] = field(default_factory=dict)

    def add(self, values: dict[str, torch.Tensor]) -> None:
        """Take in one step's losses."""
        self.last |= {name: float(value.detach()) for name, value in values.items()}


def painters(device: str) -> int:
    """Processes that paint: each needs a core of its own, and a graphics card waits for several."""
    if device.startswith("cuda"):
        return min(max((os.cpu_count() or 2) - 1, 1), MOST_PAINTERS)
    return 1 if torch.get_num_threads() > 1 else 0


class TissueTuner(TissueTrainer):
    """Goes on from a base; the same arguments go on from the checkpoint in the folder.

    Every patch, noise and level comes again as in an unbroken run.  On a processor so do the weights, bit for
    bit without a process that paints beside; with one, patches lie elsewhere in memory, and sums are rounded
    otherwise.

    Args:
        base: the network to begin with; it stays as it is.
        hosts: files of the hosts that are painted.
        settings: of the run.
        folder: takes checkpoint and log.
        truth: painted patches held back, to judge by.
        device: where the network lives.
        ranks: the processes that train together.
        painter: paints patches; that of the library without it.
    """

    def __init__(
        self,
        base: TissueNetwork,
        hosts: Sequence[Path],
        settings: TunerSettings,
        folder: Path,
        truth: PaintedTruth | None = None,
        device: str = "cpu",
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
        painter: PaintPatch | None = None,
    ) -> None:
        teacher = deepcopy(base.unet).to(device)
        self.base, self.hosts, self.settings = replace(base, unet=teacher), hosts, settings
        self.folder, self.truth, self.ranks = folder, truth, ranks
        self.notes: dict[str, Any] = {}
        """Kept in the checkpoint: what a watcher must remember over a stop."""
        self._last_losses: dict[str, float] = {}
        plan = TissuePlan(
            folder,
            folder,
            batch=settings.batch,
            patch=settings.patch,
            rate=settings.rate,
            bfloat16=precision(torch.device(device).type) == "bfloat16",
            workers=painters(device),
            device=device,
            seed=settings.seed,
        )
        super().__init__(plan, painter or Painter(settings.seed))
        self.losses: LossesOfStep = LossesOfStep(last=self._last_losses)
        self.batches: Iterator[Batch] | None = None

    @property
    def checkpoint(self) -> Path:
        """Where the run is kept."""
        return self.folder / CHECKPOINT

    @property
    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"net": self.net, "average": self.mean}

    @property
    def average(self) -> TissueUNet:
        """The mean of the weights."""
        return self.mean

    def fresh(self) -> TissueUNet:
        """The base's weights."""
        return deepcopy(self.base.unet).requires_grad_(True)

    def run(
        self, progress: Progress = silent, save_every: int = 100, watch: Guard[TissueTuner] | None = None
    ) -> None:
        """Train to ``settings.steps``; SIGTERM or the watcher ends it at the next step, with a checkpoint."""
        take_steps(self, self.settings.steps, progress, save_every, watch)

    def train_step(self) -> dict[str, float]:
        """One step; its losses."""
        started = time.perf_counter()
        if self.batches is None:
            self.batches = self._batches()
        self._set_rate(self.step, 0.0)
        self._learn(next(self.batches))
        return {"step": self.step, **self.losses.last, "seconds": time.perf_counter() - started}

    def _learn(self, batch: Batch) -> None:
        """A step on a batch; where bfloat16 does not stay finite this one and all later ones in float32.

        Raises:
            DiffSegLungError: float32 does not stay finite, either; the weights are as they were.
        """
        try:
            self._one_step(*batch, self.step)
        except FloatingPointError as error:
            if self.plan.bfloat16 and self.ranks.count == 1:
                self.plan = replace(self.plan, bfloat16=False)
                return self._learn(batch)
            raise DiffSegLungError(
                f"The loss is no longer a number at step {self.step + 1}: the checkpoint before it is kept; "
                "start another run with a lower --rate."
            ) from error

    def judged(self) -> dict[str, float]:
        """The mean weights on the patients held back; a figure that is not known is left out."""
        if self.truth is None:
            return {}
        found = figures(self.network(), self.truth)
        known = {
            "held_back": found["noise_loss"],
            "held_back_dice": found["mean_dice"],
            "drift": found["healthy_now_diseased_percent"],
        }
        return {key: value for key, value in known.items() if value is not None}

    def network(self) -> TissueNetwork:
        """The mean weights with the base's calibration."""
        return replace(self.base, unet=self.average)

    def described(self, facts: dict[str, float]) -> str:
        """What the reader is told of a step."""
        words = [f"{told} {facts[name]:.3f}" for name, told in LOSSES.items() if name in facts]
        if "held_back_dice" in facts:
            words.append(f"Dice {facts['held_back_dice']:.3f} on patients held back")
        return ", ".join(words)

    def save(self) -> None:
        """Write the checkpoint (the first rank does)."""
        if self.ranks.number:
            return
        facts = {"step": self.step, "notes": self.notes, "losses": self.losses.last}
        checkpoint.save(self.checkpoint, self._modules, self.optimiser, self.random, facts)

    def resume(self) -> dict[str, Any]:
        """Go back to the state of the checkpoint."""
        facts = super().resume()
        self.notes, self._last_losses = facts["notes"], facts["losses"]
        forget_later_steps(self)
        return facts

    def _batches(self) -> Iterator[Batch]:
        """From the step that comes next on; each rank paints its own part."""
        settings = self.settings
        patches = SteadyPatches(self.hosts, self.painter, settings.patch, settings.seed)
        own = self.ranks.part(settings.batch)
        numbers = (
            list(range(step * settings.batch, (step + 1) * settings.batch))[own]
            for step in range(self.step, settings.steps)
        )
        workers = self.plan.workers
        loader = DataLoader(
            patches,
            batch_sampler=numbers,  # type: ignore[arg-type]  # it is gone through once
            num_workers=workers,
            # Else it would draw of the numbers that the noise is made of, and a resumed run once more.
            generator=torch.Generator().manual_seed(settings.seed),
            # A worker forked off threads of torch or ITK would hang.
            multiprocessing_context="spawn" if workers else None,
        )
        return iter(loader)

    def _set_rate(self, done: int, share: float) -> None:
        """It rises and then stays: the mean of the weights takes the place of a fall."""
        rate = self.settings.rate * min((done + 1) / (self.settings.rise + 1), 1.0)
        for group in self.optimiser.param_groups:
            group["lr"] = rate

    def more_losses(
        self, noisy: torch.Tensor, levels: torch.Tensor, labels: torch.Tensor, outputs: Outputs
    ) -> dict[str, tuple[float, torch.Tensor]]:
        """How far the posterior is from the base's where no disease was painted."""
        read = (levels <= LOW_NOISE)[:, None, None, None]
        kept = read & ~((labels >= EMPHYSEMA) & (labels <= CAVITY))
        if not (self.settings.keep and kept.any()):
            return {}
        with (
            torch.no_grad(),
            torch.autocast(noisy.device.type, torch.bfloat16, enabled=self.plan.bfloat16),
        ):
            taught = self.base.unet(noisy.to(memory_format=torch.channels_last_3d), levels).tissues
        own, taught = outputs.tissues.float().log_softmax(1), taught.float().log_softmax(1)
        distance = F.kl_div(own, taught, reduction="none", log_target=True).sum(1)
        return {"kept": (self.settings.keep, distance[kept].mean())}

    def share_gradients(self) -> None:
        """The mean over the ranks."""
        self.ranks.average_gradients(self.net.parameters())


class TissueGuard(Guard[TissueTuner]):
    """Judges by painted patches, and looks for drift in the unpainted lung of the patients held back."""

    def drifted(self, trainer: TissueTuner, facts: dict[str, float]) -> str:
        """By what the base calls healthy there."""
        drift = facts.get("drift", 0.0)
        if drift <= DRIFT_POINTS:
            return ""
        return f"{drift:.1f} % of the lung that the base calls healthy was called diseased"

    def score(self, trainer: TissueTuner, facts: dict[str, float]) -> list[float]:
        """Painted disease that is missed, then noise."""
        return [1 - facts.get("held_back_dice", 0.0), facts["held_back"]]

    def draw(self, trainer: TissueTuner, path: Path) -> None:
        """Painted patches, what was painted, and what the network says."""
        from matplotlib.image import imsave

        assert trainer.truth is not None
        shown = picture(trainer.network(), trainer.truth, SHOWN)
        with atomic_path(path) as partial:
            imsave(partial, shown)
