"""The two stages of training: pure diffusion, then diffusion with radiomic distillation."""

from __future__ import annotations

import copy
import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from DiffSegLungLib.errors import DiffSegLungError, UnusableInputError
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.cell_numbers import CONTEXT, cell_numbers, inner, without_rim
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING, TIMESTEPS, encode, from_hounsfield
from DiffSegLungLib.representation.distillation import (
    EMBEDDING,
    TARGETS,
    TeacherHead,
    collapse,
    info_nce,
    warm_up,
)
from DiffSegLungLib.representation.radiomics.batched import teacher_for_patches
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.distributed import Ranks, share_batch_norm
from DiffSegLungLib.training.judge import LEAST_LUNG, draw_held_back, noise_loss
from DiffSegLungLib.training.patches import PatchSampler, build_sampler
from DiffSegLungLib.training.run_files import CHECKPOINT, COLLAPSED
from DiffSegLungLib.training.steps import forget_later_steps, take_steps
from DiffSegLungLib.training.store import Patient

CACHED_CELLS = 100_000
SCALE_BATCHES, SCALE_CELLS = 6, 1500
"""Batches, and cells of them at most, over which the teacher's numbers are standardised."""
LOSSES = {"noise": "noise loss", "info_nce": "InfoNCE"}


@dataclass(frozen=True)
class Settings:
    """What a run is made of.

    Attributes:
        channels: channels of the U-Net's levels.
        patch: patch sides in voxels, (z, y, x); multiples of 8.
        region: side in voxels of the cubes around each cell that the teacher describes beside the cell.
        cells: cells of a batch that are distilled.
        batch: patches a step.
        steps: steps in all.
        stage_two: step at which distillation begins.
        warm_up: steps over which its weight grows.
        head_first: steps of stage two in which the head alone learns, on a U-Net that stays as it is.
        reading: noise level below which the head reads in those steps.
        distillation: final weight of InfoNCE.
        regression: weight, relative to InfoNCE, of predicting the teacher's numbers from the embedding.
        learning_rate: of AdamW, stage one.
        learning_rate_two: of the U-Net in stage two; the heads keep ``learning_rate``.
        clip: largest norm of the gradient.
        decay: of the moving average of the weights.
        seed: of everything random.
        augmentation: change the patches by chance, each time in another way.
        hu_preserved: give the network HU; else each patient is stretched to one mean and spread.
        constant_rate: keep the learning rates as they are; else they fall.
        rise: steps over which the learning rates rise from zero, so that a trained network is not upset by
            the optimiser's first steps, whose size knows nothing of the gradients yet.
        precision: ``float32``, or ``bfloat16`` where the device computes faster in it.
        fixed_scale: leave the head's statistics as they are: a projection and a mixture that stay were fitted
            on numbers standardised by them.
    """

    channels: tuple[int, ...] = (16, 32, 48, 64)
    patch: tuple[int, int, int] = (16, 32, 32)
    region: int = 16
    cells: int = 96
    batch: int = 16
    steps: int = 3000
    stage_two: int = 1200
    warm_up: int = 300
    head_first: int = 0
    reading: int = 120
    distillation: float = 0.4
    regression: float = 4.0
    learning_rate: float = 5e-4
    learning_rate_two: float = 1.5e-4
    clip: float = 1.0
    decay: float = 0.995
    seed: int = 0
    augmentation: bool = True
    hu_preserved: bool = True
    constant_rate: bool = False
    rise: int = 0
    precision: str = "float32"
    fixed_scale: bool = False


Watch = Callable[["Trainer", dict[str, float]], bool]
"""Called after each step with its figures; true ends the run, with a checkpoint."""


def teach(hu: np.ndarray, mask: np.ndarray, chosen: np.ndarray, region: int) -> torch.Tensor:
    """What the embedding of a cell shall tell: the radiomics of the cell and of its surroundings.

    Args:
        hu: patches in HU with ``CONTEXT`` voxels around, (n, z, y, x).
        mask: lungs, as hu.
        chosen: patch and cell (z, y, x) of each cell, (cells, 4).
        region: side of the surroundings in voxels.

    Returns:
        float32 (cells, 68).
    """
    parts = []
    for side in (DOWNSAMPLING, region):
        margin = CONTEXT - (side - DOWNSAMPLING) // 2
        boxes = [
            (patch, *(slice(margin + DOWNSAMPLING * c, margin + DOWNSAMPLING * c + side) for c in cell))
            for patch, *cell in chosen.tolist()
        ]
        cubes, insides = (np.stack([stack[box] for box in boxes]) for stack in (hu, mask > 0.5))
        parts.append(torch.from_numpy(teacher_for_patches(cubes, insides)).float())
    return torch.cat(parts, dim=1)


def lung_of_cells(mask: np.ndarray) -> torch.Tensor:
    """Share of lung in each cell of patches with ``CONTEXT`` around: (n, Z, Y, X)."""
    return functional.avg_pool3d(inner(torch.from_numpy(mask)[:, None]), DOWNSAMPLING)[:, 0]


def choose_cells(share: torch.Tensor, count: int, random: np.random.Generator) -> np.ndarray:
    """Some of the cells that hold lung: (cells, 4), patch and cell (z, y, x), in order."""
    found = np.argwhere(share.numpy() >= LEAST_LUNG)
    return found[np.sort(random.permutation(len(found))[:count])]


class Trainer:
    """One run: ``Trainer(patients, settings, folder).run()``; call it again to go on where it stopped.

    Args:
        patients: the training store.
        settings: the run's settings; a resumed run must have the same ones, but for ``steps``.
        folder: takes ``checkpoint.safetensors`` and ``log.jsonl``.
        device: where the network lives.
        held_back: patients to judge the network by, at each checkpoint.
        ranks: the processes that train together.
        start: weights to begin with, by chance without them.
    """

    def __init__(
        self,
        patients: list[Patient],
        settings: Settings,
        folder: Path,
        device: str = "cpu",
        held_back: Sequence[Patient] = (),
        ranks: Ranks = Ranks(),  # noqa: B008 (frozen)
        start: Student | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.folder, self.device, self.ranks = settings, folder, device, ranks
        self.random = np.random.default_rng(settings.seed)
        self.split = {"train": [one.name for one in patients], "held_back": [one.name for one in held_back]}
        self.sampler: PatchSampler = build_sampler(
            _as_seen(patients, settings), settings.patch, seed=settings.seed, margin=CONTEXT
        )
        seen = _as_seen(held_back, settings)
        self.held_back = draw_held_back(seen, settings.patch, seed=settings.seed) if seen else None
        self._taught: dict[tuple[bytes, bytes], torch.Tensor] = {}
        fresh = Student(settings.channels) if start is None else copy.deepcopy(start).requires_grad_(True)
        self.student = fresh.to(device).train()
        # torch's own signature leaves memory_format out.
        self.student.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.teacher_head = TeacherHead().to(device)
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        share_batch_norm(self.student, ranks)
        self.student.head.scale.train(not settings.fixed_scale)
        self.teacher_mean, self.teacher_deviation = self._teacher_scale()
        heads = [value for name, value in self.student.named_parameters() if not name.startswith("unet.")]
        heads += self.teacher_head.parameters()
        groups: list[dict[str, Any]] = [{"params": self.student.unet.parameters()}, {"params": heads}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self.step = 0
        self.notes: dict[str, Any] = {}
        """Kept in the checkpoint: what a watcher must remember over a stop."""

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state lies."""
        return self.folder / CHECKPOINT

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"student": self.student, "average": self.average, "teacher_head": self.teacher_head}

    def _teacher_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of the teacher's numbers over cells drawn as in training."""
        random = np.random.default_rng(self.settings.seed + 1)
        hu, mask = self.sampler.draw(SCALE_BATCHES * self.settings.batch, random)
        chosen = choose_cells(lung_of_cells(mask), SCALE_CELLS, random)
        numbers = teach(hu, mask, chosen, self.settings.region)
        return numbers.mean(dim=0), numbers.std(dim=0).clamp(min=1e-6)

    def _teach(self, hu: np.ndarray, mask: np.ndarray, chosen: np.ndarray) -> torch.Tensor:
        """What :func:`teach` says of the cells; of cells seen before, out of the cache."""
        if self.settings.augmentation:
            return teach(hu, mask, chosen, self.settings.region)  # no patch ever comes twice
        patches = [
            hashlib.blake2b(one.tobytes() + lung.tobytes()).digest()
            for one, lung in zip(hu, mask, strict=True)
        ]
        keys = [(patches[patch], bytes(cell)) for patch, *cell in chosen.tolist()]
        new = [index for index, key in enumerate(keys) if key not in self._taught]
        if new:
            numbers = teach(hu, mask, chosen[new], self.settings.region)
            self._taught |= {keys[index]: row for index, row in zip(new, numbers, strict=True)}
        found = torch.stack([self._taught[key] for key in keys])
        for old in list(self._taught)[: max(len(self._taught) - CACHED_CELLS, 0)]:
            del self._taught[old]
        return found

    def run(
        self, progress: Progress | None = None, save_every: int = 100, watch: Watch | None = None
    ) -> Path:
        """Train to ``settings.steps``; SIGTERM ends it at the next step, with a checkpoint.

        Args:
            progress: told the step and its loss.
            save_every: steps between checkpoints.
            watch: called after each step; it may end the run.

        Returns:
            The checkpoint's path.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint_path.exists():
            self.resume()
        take_steps(self, self.settings.steps, progress or silent, save_every, watch)
        return self.checkpoint_path

    def judged(self) -> dict[str, float]:
        """The averaged network's noise loss on the patients held back."""
        return {"held_back": noise_loss(self.average, self.held_back)} if self.held_back else {}

    def described(self, facts: dict[str, float]) -> str:
        """What the reader is told of a step; a collapse at once."""
        words = [f"{told} {facts[name]:.3f}" for name, told in LOSSES.items() if name in facts]
        if "held_back" in facts:
            words.append(f"{facts['held_back']:.3f} on patients held back")
        if facts.get("spread", 1.0) < COLLAPSED:
            words.append("the embedding HAS COLLAPSED: a longer warm-up or a smaller weight may help")
        return ", ".join(words)

    def train_step(self) -> dict[str, float]:
        """One step of the optimiser; returns its losses."""
        started = time.perf_counter()
        weight = warm_up(
            self.step, self.settings.stage_two, self.settings.warm_up, self.settings.distillation
        )
        self._set_learning_rates()
        hu, mask = self._draw()
        loss, facts = self._loss(hu, mask, weight)
        facts = self.ranks.mean_facts(facts)
        self._require_finite(facts)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        self.ranks.average_gradients(parameters)
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        self.optimiser.step()
        self._update_average()
        self.step += 1
        return {"step": self.step, **facts, "seconds": time.perf_counter() - started}

    def _draw(self) -> tuple[np.ndarray, np.ndarray]:
        """This rank's patches of the next batch."""
        batch = self.settings.batch
        if self.settings.augmentation and self.ranks.count == 1:
            return self.sampler.draw(batch, self.random)
        return self.sampler.draw(batch, self.random, self.ranks.part(batch), self.settings.augmentation)

    def _require_finite(self, facts: dict[str, float]) -> None:
        if not all(math.isfinite(value) for value in facts.values()):
            raise DiffSegLungError(
                f"The loss is no longer a number at step {self.step + 1}: the checkpoint before it is kept; "
                "start another run with a lower learning rate."
            )

    def _set_learning_rates(self) -> None:
        """The rate falls along a half cosine to a tenth; in stage two the U-Net moves more slowly."""
        settings = self.settings
        fall = 0.1 + 0.45 * (1 + np.cos(np.pi * min(self.step / settings.steps, 1.0)))
        fall = 1.0 if settings.constant_rate else fall
        fall *= min((self.step + 1) / (settings.rise + 1), 1.0)
        second = self.step >= settings.stage_two
        unet_rate = settings.learning_rate_two if second else settings.learning_rate
        for group, rate in zip(self.optimiser.param_groups, (unet_rate, settings.learning_rate), strict=True):
            group["lr"] = rate * fall

    def _loss(self, hu: np.ndarray, mask: np.ndarray, weight: float) -> tuple[torch.Tensor, dict[str, float]]:
        wide = torch.from_numpy(hu)[:, None].to(self.device)
        wide_lungs = torch.from_numpy(mask)[:, None].to(self.device)
        x, lungs = from_hounsfield(inner(wide)), inner(wide_lungs)
        count = len(x) * self.ranks.count  # each rank draws for all, so that all stay in step
        timesteps = self.ranks.own(torch.randint(0, self._noisiest(), (count,))).to(self.device)
        noise = self.ranks.own(torch.randn((count, *x.shape[1:]))).to(self.device)
        noised = self.student.noised(x, lungs, noise, timesteps).to(memory_format=torch.channels_last_3d)
        numbers = _numbers_of_window(wide, wide_lungs)  # exact: not in half precision
        with self._autocast():
            predicted, embedding = self._pass(noised, timesteps, numbers)
        embedding = embedding.float()
        loss, facts = embedding.sum() * 0.0, dict[str, float]()
        if predicted is not None:
            loss = functional.l1_loss(predicted.float(), noise)
            facts = {"noise": float(loss.detach())}
        chosen = self._choose_cells(mask) if weight > 0 else np.empty((0, 4), int)
        if len(chosen) > 1:  # one alone has nothing to be told from
            distillation, more = self._distil(embedding, hu, mask, chosen)
            loss, facts = loss + weight * distillation, facts | more
        return loss, facts

    def _pass(
        self, noised: torch.Tensor, timesteps: torch.Tensor, numbers: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Predicted noise, none where the head learns alone, and the embedding."""
        if not self._head_alone():
            return self.student(noised, timesteps, numbers)
        with torch.no_grad():
            bottleneck = encode(self.student.unet, noised, timesteps)
        return None, self.student.head(bottleneck, numbers)

    def _head_alone(self) -> bool:
        """Whether the head learns alone: a head that knows nothing yet would pull the U-Net anywhere."""
        settings = self.settings
        # The first step of stage two has no weight yet, and a loss of nothing teaches nothing.
        inside = settings.stage_two < self.step < settings.stage_two + settings.head_first
        return inside and settings.distillation > 0

    def _noisiest(self) -> int:
        return min(self.settings.reading, TIMESTEPS) if self._head_alone() else TIMESTEPS

    def _choose_cells(self, mask: np.ndarray) -> np.ndarray:
        """The cells of the batch of all ranks that are distilled; every rank chooses the same."""
        share = self.ranks.gather(lung_of_cells(mask).to(self.device)).cpu()
        return choose_cells(share, self.settings.cells, self.random)

    def _autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _distil(
        self, embedding: torch.Tensor, hu: np.ndarray, mask: np.ndarray, chosen: np.ndarray
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """InfoNCE between cells, and the regression that keeps the teacher's numbers readable."""
        head, numbers = self.student.head, self._numbers(hu, mask, chosen)
        patch, z, y, x = torch.from_numpy(chosen).T.to(self.device)
        # Every cell of every rank is a negative of the others.
        student = self.ranks.gather(embedding)[patch, :, z, y, x]
        contrast = info_nce(head.contrast(student), self.teacher_head(numbers))
        regression = functional.smooth_l1_loss(head.regress(student), numbers)
        facts = {"info_nce": float(contrast.detach()), "regression": float(regression.detach())}
        return contrast + self.settings.regression * regression, facts | collapse(student)

    def _numbers(self, hu: np.ndarray, mask: np.ndarray, chosen: np.ndarray) -> torch.Tensor:
        """Standardised numbers of the chosen cells; each rank asks the teacher about its own patches."""
        first = self.ranks.number * len(hu)
        own = (chosen[:, 0] >= first) & (chosen[:, 0] < first + len(hu))
        numbers = torch.zeros(len(chosen), TARGETS)
        if own.any():
            taught = self._teach(hu, mask, chosen[own] - [first, 0, 0, 0])
            taught = (taught - self.teacher_mean) / self.teacher_deviation
            numbers[torch.from_numpy(own)] = taught.clamp(-5, 5)
        return self.ranks.mean(numbers.to(self.device)) * self.ranks.count

    @torch.no_grad()
    def _update_average(self) -> None:
        # Early averages would drag the random start along, hence the ramp.
        decay = min(self.settings.decay, (1 + self.step) / (10 + self.step))
        for mean, now in zip(self.average.parameters(), self.student.parameters(), strict=True):
            mean.lerp_(now, 1 - decay)
        for kept, new in zip(self.average.buffers(), self.student.buffers(), strict=True):
            kept.copy_(new)

    def save(self) -> None:
        """Write the checkpoint (the first rank does)."""
        if self.ranks.number:
            return
        facts: dict[str, Any] = {"step": self.step, "settings": asdict(self.settings)}
        facts |= {"split": self.split, "notes": self.notes, "embedding": EMBEDDING}
        facts["teacher_mean"] = self.teacher_mean.tolist()
        facts["teacher_deviation"] = self.teacher_deviation.tolist()
        checkpoint.save(self.checkpoint_path, self._modules(), self.optimiser, self.random, facts)

    def resume(self) -> None:
        """Go back to the state of the checkpoint.

        Raises:
            UnusableInputError: an earlier version wrote it, whose teacher or student told other numbers.
        """
        known = checkpoint.load_facts(self.checkpoint_path)
        if (len(known["teacher_mean"]), known.get("embedding")) != (TARGETS, EMBEDDING):
            raise UnusableInputError(
                f"An earlier version began the run in {self.folder}, and this one cannot go on with it: "
                "begin again in another folder."
            )
        facts = checkpoint.load(self.checkpoint_path, self._modules(), self.optimiser, self.random)
        self.step = int(facts["step"])
        self.notes = facts.get("notes", {})
        self.teacher_mean = torch.tensor(facts["teacher_mean"])
        self.teacher_deviation = torch.tensor(facts["teacher_deviation"])
        forget_later_steps(self)


def _numbers_of_window(wide: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    """Density and texture of the cells of patches that have ``CONTEXT`` around."""
    return without_rim(cell_numbers(wide, lungs), CONTEXT // DOWNSAMPLING)


def stored_settings(stored: dict[str, Any]) -> Settings:
    """Settings as JSON gives them back: its lists were tuples."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Settings(**values)


def _as_seen(patients: Sequence[Patient], settings: Settings) -> list[Patient]:
    """The patients as the network shall see them."""
    if settings.hu_preserved:
        return list(patients)
    from DiffSegLungLib.training.patches import patient_normalised

    return [
        replace(one, hu=np.rint(patient_normalised(one.hu, one.mask)).astype(np.int16)) for one in patients
    ]
