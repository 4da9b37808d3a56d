"""The two stages of training: pure diffusion, then diffusion with radiomic distillation."""

from __future__ import annotations

import copy
import hashlib
import json
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from DiffSegLungLib.diffusion import DOWNSAMPLING, TIMESTEPS, from_hounsfield
from DiffSegLungLib.distillation import TeacherHead, collapse, info_nce, pool_regions, warm_up
from DiffSegLungLib.errors import DiffSegLungError
from DiffSegLungLib.models.student import Student
from DiffSegLungLib.outputs import write_text
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.radiomics.batched import teacher_for_patches
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.distributed import Ranks, share_batch_norm
from DiffSegLungLib.training.judge import cut_regions, draw_held_back, noise_loss
from DiffSegLungLib.training.patches import PatchSampler, build_sampler
from DiffSegLungLib.training.store import Patient

COLLAPSED = 0.2
"""Spread of the embedding below which it has collapsed: all regions look alike to it."""
CACHED_PATCHES = 4096
LOG = "log.jsonl"


@dataclass(frozen=True)
class Settings:
    """What a run is made of.

    Attributes:
        channels: channels of the U-Net's levels.
        patch: patch sides in voxels, (z, y, x); multiples of ``region``.
        region: side in voxels of the cubes that teacher and student describe.
        batch: patches a step.
        steps: steps in all.
        stage_two: step at which distillation begins.
        warm_up: steps over which its weight grows.
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
        precision: ``float32``, or ``bfloat16`` where the device computes faster in it.
    """

    channels: tuple[int, ...] = (16, 32, 48, 64)
    patch: tuple[int, int, int] = (16, 32, 32)
    region: int = 16
    batch: int = 16
    steps: int = 3000
    stage_two: int = 1200
    warm_up: int = 300
    distillation: float = 0.4
    regression: float = 0.5
    learning_rate: float = 5e-4
    learning_rate_two: float = 1.5e-4
    clip: float = 1.0
    decay: float = 0.995
    seed: int = 0
    augmentation: bool = True
    hu_preserved: bool = True
    constant_rate: bool = False
    precision: str = "float32"


Watch = Callable[["Trainer", dict[str, float]], bool]
"""Called after each step with its figures; true ends the run, with a checkpoint."""


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
            _as_seen(patients, settings), settings.patch, seed=settings.seed
        )
        seen = _as_seen(held_back, settings)
        self.held_back = draw_held_back(seen, settings.patch, seed=settings.seed) if seen else None
        self._taught: dict[bytes, np.ndarray] = {}
        fresh = Student(settings.channels) if start is None else copy.deepcopy(start).requires_grad_(True)
        self.student = fresh.to(device).train()
        # torch's own signature leaves memory_format out.
        self.student.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.teacher_head = TeacherHead().to(device)
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        share_batch_norm(self.student, ranks)
        self.teacher_mean, self.teacher_deviation = self._teacher_scale()
        heads = [*self.student.head.parameters(), *self.teacher_head.parameters()]
        groups: list[dict[str, Any]] = [{"params": self.student.unet.parameters()}, {"params": heads}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self.step = 0
        self.notes: dict[str, Any] = {}
        """Kept in the checkpoint: what a watcher must remember over a stop."""
        self._stop = False

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state lies."""
        return self.folder / "checkpoint.safetensors"

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"student": self.student, "average": self.average, "teacher_head": self.teacher_head}

    def _teacher_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of the teacher's numbers over regions drawn as in training."""
        hu, mask = self.sampler.draw(96, np.random.default_rng(self.settings.seed + 1))
        numbers = self._teach(hu, mask)[self._has_lung(mask)]
        return numbers.mean(dim=0), numbers.std(dim=0).clamp(min=1e-6)

    def _regions(self, patches: np.ndarray) -> np.ndarray:
        """The cubes of the patches, (n * cubes, side, side, side)."""
        return cut_regions(patches, self.settings.region)

    def _has_lung(self, mask: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._regions(mask).mean(axis=(1, 2, 3)) >= 0.3)

    def _teach(self, hu: np.ndarray, mask: np.ndarray) -> torch.Tensor:
        """The teacher's numbers of each region, (n * cubes, 34); of a patch seen before, out of the cache."""
        keys = [
            hashlib.blake2b(one.tobytes() + lung.tobytes()).digest()
            for one, lung in zip(hu, mask, strict=True)
        ]
        new = [index for index, key in enumerate(keys) if key not in self._taught]
        if new:
            numbers = teacher_for_patches(self._regions(hu[new]), self._regions(mask[new]) > 0.5)
            parts = np.asarray(numbers, dtype=np.float32).reshape(len(new), -1, numbers.shape[-1])
            self._taught |= {keys[index]: part for index, part in zip(new, parts, strict=True)}
        found = np.concatenate([self._taught[key] for key in keys])
        for old in list(self._taught)[: max(len(self._taught) - CACHED_PATCHES, 0)]:
            del self._taught[old]
        return torch.from_numpy(found)

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
        with self._stopping_at_sigterm():
            while self.step < self.settings.steps and not self._stop:
                facts = self.train_step()
                if self.step % save_every == 0:
                    facts |= self._judge()
                self._log(facts)
                if progress is not None:
                    progress("train", self.step / self.settings.steps, _sentence(facts))
                asked = self._stop or (watch is not None and watch(self, facts))
                self._stop = self.ranks.any(asked)
                if self.step % save_every == 0 and not self._stop:
                    self.save()
            self.save()
        return self.checkpoint_path

    def _judge(self) -> dict[str, float]:
        """The averaged network's noise loss on the patients held back."""
        return {"held_back": noise_loss(self.average, self.held_back)} if self.held_back else {}

    @contextmanager
    def _stopping_at_sigterm(self) -> Iterator[None]:
        """SIGTERM asks for a stop while this lasts; only the main thread can listen to signals."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        previous = signal.signal(signal.SIGTERM, lambda *_: setattr(self, "_stop", True))
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, previous)

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
        second = self.step >= settings.stage_two
        unet_rate = settings.learning_rate_two if second else settings.learning_rate
        for group, rate in zip(self.optimiser.param_groups, (unet_rate, settings.learning_rate), strict=True):
            group["lr"] = rate * fall

    def _loss(self, hu: np.ndarray, mask: np.ndarray, weight: float) -> tuple[torch.Tensor, dict[str, float]]:
        x = from_hounsfield(torch.from_numpy(hu)[:, None]).to(self.device)
        lungs = torch.from_numpy(mask)[:, None].to(self.device)
        count = len(x) * self.ranks.count  # each rank draws for all, so that all stay in step
        timesteps = self.ranks.own(torch.randint(0, TIMESTEPS, (count,))).to(self.device)
        noise = self.ranks.own(torch.randn((count, *x.shape[1:]))).to(self.device)
        noised = self.student.noised(x, lungs, noise, timesteps)
        with self._autocast():
            predicted, embedding = self.student(noised.to(memory_format=torch.channels_last_3d), timesteps)
        predicted, embedding = predicted.float(), embedding.float()
        loss = functional.l1_loss(predicted, noise)
        facts = {"noise": float(loss.detach())}
        if weight > 0 and self._enough_regions(mask):
            distillation, more = self._distil(embedding, hu, mask, lungs)
            loss, facts = loss + weight * distillation, facts | more
        return loss, facts

    def _enough_regions(self, mask: np.ndarray) -> bool:
        """Whether the batch of all ranks has two regions of lung: one alone has nothing to be told from."""
        kept = self._has_lung(mask).sum().to(self.device, torch.float32)
        return float(self.ranks.mean(kept)) * self.ranks.count > 1.5

    def _autocast(self) -> torch.autocast:
        kind = torch.device(self.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.settings.precision == "bfloat16")

    def _distil(
        self, embedding: torch.Tensor, hu: np.ndarray, mask: np.ndarray, lungs: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """InfoNCE between regions, and the regression that keeps the teacher's numbers readable."""
        share = functional.avg_pool3d(lungs, DOWNSAMPLING)
        student = pool_regions(embedding, share, self.settings.region // DOWNSAMPLING)
        kept = self._has_lung(mask).to(self.device)
        numbers = (self._teach(hu, mask) - self.teacher_mean) / self.teacher_deviation
        numbers = numbers.clamp(-5, 5).to(self.device)
        # Every region of every rank is a negative of the others.
        student, kept = self.ranks.gather(student), self.ranks.gather(kept)
        student, numbers = student[kept], self.ranks.gather(numbers)[kept]
        contrast = info_nce(student, self.teacher_head(numbers))
        regression = functional.smooth_l1_loss(self.student.head.regress(student), numbers)
        facts = {"info_nce": float(contrast.detach()), "regression": float(regression.detach())}
        return contrast + self.settings.regression * regression, facts | collapse(student)

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
        facts |= {"split": self.split, "notes": self.notes}
        facts["teacher_mean"] = self.teacher_mean.tolist()
        facts["teacher_deviation"] = self.teacher_deviation.tolist()
        checkpoint.save(self.checkpoint_path, self._modules(), self.optimiser, self.random, facts)

    def resume(self) -> None:
        """Go back to the state of the checkpoint."""
        facts = checkpoint.load(self.checkpoint_path, self._modules(), self.optimiser, self.random)
        self.step = int(facts["step"])
        self.notes = facts.get("notes", {})
        self.teacher_mean = torch.tensor(facts["teacher_mean"])
        self.teacher_deviation = torch.tensor(facts["teacher_deviation"])
        self._forget_later_lines()

    def _forget_later_lines(self) -> None:
        """Take out of the log the steps that a killed run had taken after its last checkpoint."""
        if self.ranks.number or not (self.folder / LOG).exists():
            return
        kept = [one for one in read_log(self.folder) if one["step"] <= self.step]
        write_text(self.folder / LOG, "".join(json.dumps(one) + "\n" for one in kept))

    def _log(self, facts: dict[str, float]) -> None:
        if self.ranks.number:
            return
        with (self.folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({key: round(value, 5) for key, value in facts.items()}) + "\n")


def stored_settings(stored: dict[str, Any]) -> Settings:
    """Settings as JSON gives them back: its lists were tuples."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return Settings(**values)


def read_log(folder: Path) -> list[dict[str, float]]:
    """The figures of each step of a run; a line that a kill cut short is left out."""
    if not (folder / LOG).exists():
        return []
    lines = (folder / LOG).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]


def _sentence(facts: dict[str, float]) -> str:
    """What the reader is told of a step; a collapse at once."""
    told = {"noise": "noise loss", "info_nce": "InfoNCE"}
    words = [f"{name} {facts[key]:.3f}" for key, name in told.items() if key in facts]
    if "held_back" in facts:
        words.append(f"{facts['held_back']:.3f} on patients held back")
    if facts.get("spread", 1.0) < COLLAPSED:
        words.append("the embedding HAS COLLAPSED: a longer warm-up or a smaller weight may help")
    return ", ".join(words)


def _as_seen(patients: Sequence[Patient], settings: Settings) -> list[Patient]:
    """The patients as the network shall see them."""
    if settings.hu_preserved:
        return list(patients)
    from DiffSegLungLib.evaluation.stages import patient_normalised

    return [
        replace(one, hu=np.rint(patient_normalised(one.hu, one.mask)).astype(np.int16)) for one in patients
    ]
