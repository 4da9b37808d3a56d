"""The two stages of training: pure diffusion, then diffusion with radiomic distillation."""

from __future__ import annotations

import copy
import json
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from DiffSegLungLib.diffusion import DOWNSAMPLING, TIMESTEPS, from_hounsfield
from DiffSegLungLib.distillation import TeacherHead, collapse, info_nce, pool_regions, warm_up
from DiffSegLungLib.models.student import Student
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.radiomics.batched import teacher_for_patches
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.patches import PatchSampler, build_sampler
from DiffSegLungLib.training.store import Patient


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


class Trainer:
    """One run: ``Trainer(patients, settings, folder).run()``; call it again to go on where it stopped.

    Args:
        patients: the training store.
        settings: the run's settings; a resumed run must have the same ones, but for ``steps``.
        folder: takes ``checkpoint.safetensors`` and ``log.jsonl``.
        device: where the network lives.
    """

    def __init__(
        self, patients: list[Patient], settings: Settings, folder: Path, device: str = "cpu"
    ) -> None:
        torch.manual_seed(settings.seed)
        self.settings, self.folder, self.device = settings, folder, device
        self.random = np.random.default_rng(settings.seed)
        self.sampler: PatchSampler = build_sampler(patients, settings.patch, seed=settings.seed)
        self.student = Student(settings.channels).to(device)
        # torch's own signature leaves memory_format out.
        self.student.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.teacher_head = TeacherHead().to(device)
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_mean, self.teacher_deviation = self._teacher_scale()
        heads = [*self.student.head.parameters(), *self.teacher_head.parameters()]
        groups: list[dict[str, Any]] = [{"params": self.student.unet.parameters()}, {"params": heads}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self.step = 0
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
        """Cut patches (n, z, y, x) into cubes (n * cubes, side, side, side), in (z, y, x) order."""
        side = self.settings.region
        count, *sides = patches.shape
        z, y, x = (length // side for length in sides)
        cubes = patches.reshape(count, z, side, y, side, x, side).transpose(0, 1, 3, 5, 2, 4, 6)
        return cubes.reshape(-1, side, side, side)

    def _has_lung(self, mask: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self._regions(mask).mean(axis=(1, 2, 3)) >= 0.3)

    def _teach(self, hu: np.ndarray, mask: np.ndarray) -> torch.Tensor:
        numbers = teacher_for_patches(self._regions(hu), self._regions(mask) > 0.5)
        return torch.from_numpy(np.asarray(numbers, dtype=np.float32))

    def run(self, progress: Progress | None = None, save_every: int = 100) -> Path:
        """Train to ``settings.steps``; SIGTERM ends it at the next step, with a checkpoint.

        Returns:
            The checkpoint's path.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint_path.exists():
            self.resume()
        with self._stopping_at_sigterm():
            while self.step < self.settings.steps and not self._stop:
                facts = self.train_step()
                self._log(facts)
                if self.step % save_every == 0:
                    self.save()
                if progress is not None:
                    progress("train", self.step / self.settings.steps, f"noise loss {facts['noise']:.3f}")
            self.save()
        return self.checkpoint_path

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
        hu, mask = self.sampler.draw(self.settings.batch, self.random)
        loss, facts = self._loss(hu, mask, weight)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in self.optimiser.param_groups for p in group["params"]]
        torch.nn.utils.clip_grad_norm_(parameters, self.settings.clip)
        self.optimiser.step()
        self._update_average()
        self.step += 1
        return {"step": self.step, **facts, "seconds": time.perf_counter() - started}

    def _set_learning_rates(self) -> None:
        """The rate falls along a half cosine to a tenth; in stage two the U-Net moves more slowly."""
        settings = self.settings
        fall = 0.1 + 0.45 * (1 + np.cos(np.pi * min(self.step / settings.steps, 1.0)))
        second = self.step >= settings.stage_two
        unet_rate = settings.learning_rate_two if second else settings.learning_rate
        for group, rate in zip(self.optimiser.param_groups, (unet_rate, settings.learning_rate), strict=True):
            group["lr"] = rate * fall

    def _loss(self, hu: np.ndarray, mask: np.ndarray, weight: float) -> tuple[torch.Tensor, dict[str, float]]:
        x = from_hounsfield(torch.from_numpy(hu)[:, None]).to(self.device)
        lungs = torch.from_numpy(mask)[:, None].to(self.device)
        timesteps = torch.randint(0, TIMESTEPS, (len(x),)).to(self.device)
        noise = torch.randn(x.shape).to(self.device)
        noised = self.student.noised(x, lungs, noise, timesteps)
        predicted, embedding = self.student(noised.to(memory_format=torch.channels_last_3d), timesteps)
        loss = functional.l1_loss(predicted, noise)
        facts = {"noise": float(loss.detach())}
        if weight > 0:
            distillation, more = self._distil(embedding, hu, mask, lungs)
            loss, facts = loss + weight * distillation, facts | more
        return loss, facts

    def _distil(
        self, embedding: torch.Tensor, hu: np.ndarray, mask: np.ndarray, lungs: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """InfoNCE between regions, and the regression that keeps the teacher's numbers readable."""
        share = functional.avg_pool3d(lungs, DOWNSAMPLING)
        student = pool_regions(embedding, share, self.settings.region // DOWNSAMPLING)
        kept = self._has_lung(mask).to(self.device)
        numbers = (self._teach(hu, mask) - self.teacher_mean) / self.teacher_deviation
        numbers = numbers.clamp(-5, 5).to(self.device)[kept]
        student = student[kept]
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
        """Write the checkpoint."""
        facts: dict[str, Any] = {"step": self.step, "settings": asdict(self.settings)}
        facts["teacher_mean"] = self.teacher_mean.tolist()
        facts["teacher_deviation"] = self.teacher_deviation.tolist()
        checkpoint.save(self.checkpoint_path, self._modules(), self.optimiser, self.random, facts)

    def resume(self) -> None:
        """Go back to the state of the checkpoint."""
        facts = checkpoint.load(self.checkpoint_path, self._modules(), self.optimiser, self.random)
        self.step = int(facts["step"])
        self.teacher_mean = torch.tensor(facts["teacher_mean"])
        self.teacher_deviation = torch.tensor(facts["teacher_deviation"])

    def _log(self, facts: dict[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a", encoding="utf-8") as log:
            log.write(json.dumps({key: round(value, 5) for key, value in facts.items()}) + "\n")
