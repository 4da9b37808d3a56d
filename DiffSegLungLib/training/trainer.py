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

from DiffSegLungLib.diffusion import DOWNSAMPLING, TIMESTEPS, encode, from_hounsfield
from DiffSegLungLib.distillation import (
    CONTEXT,
    TEACHER_NUMBERS,
    TeacherHead,
    collapse,
    density_numbers,
    info_nce,
    inner,
    warm_up,
)
from DiffSegLungLib.models.student import Student
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.radiomics.batched import teacher_for_patches
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.patches import PatchSampler, build_sampler
from DiffSegLungLib.training.store import Patient

LEAST_LUNG = 0.3
"""Share of a cell that must be lung for it to be distilled."""

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


def _loss_told(facts: dict[str, float]) -> str:
    return ", ".join(f"{told} {facts[name]:.3f}" for name, told in LOSSES.items() if name in facts)


def teach(hu: np.ndarray, mask: np.ndarray, chosen: np.ndarray, region: int) -> torch.Tensor:
    """What the embedding of a cell shall tell: radiomics of cell and surroundings, and the cell's density.

    Args:
        hu: patches in HU with ``CONTEXT`` voxels around, (n, z, y, x).
        mask: lungs, as hu.
        chosen: patch and cell (z, y, x) of each cell, (cells, 4).
        region: side of the surroundings in voxels.

    Returns:
        float32 (cells, 75).
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
    wide, lungs = torch.from_numpy(hu)[:, None], torch.from_numpy(mask)[:, None]
    density = density_numbers(from_hounsfield(wide), lungs, DOWNSAMPLING)
    patch, z, y, x = torch.from_numpy(chosen).T
    return torch.cat([*parts, density[patch, :, z, y, x]], dim=1)


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
        self.sampler: PatchSampler = build_sampler(patients, self._wide_patch, seed=settings.seed)
        self.student = Student(settings.channels).to(device)
        # torch's own signature leaves memory_format out.
        self.student.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        self.teacher_head = TeacherHead().to(device)
        self.average = copy.deepcopy(self.student).requires_grad_(False)
        self.teacher_mean, self.teacher_deviation = self._teacher_scale()
        heads = [value for name, value in self.student.named_parameters() if not name.startswith("unet.")]
        heads += self.teacher_head.parameters()
        groups: list[dict[str, Any]] = [{"params": self.student.unet.parameters()}, {"params": heads}]
        self.optimiser = torch.optim.AdamW(groups, lr=settings.learning_rate)
        self.step = 0
        self._stop = False

    @property
    def checkpoint_path(self) -> Path:
        """Where the run's state lies."""
        return self.folder / "checkpoint.safetensors"

    @property
    def _wide_patch(self) -> tuple[int, int, int]:
        """The patch and what the local path sees around it."""
        z, y, x = (side + 2 * CONTEXT for side in self.settings.patch)
        return z, y, x

    def _modules(self) -> dict[str, torch.nn.Module]:
        return {"student": self.student, "average": self.average, "teacher_head": self.teacher_head}

    def _teacher_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Mean and deviation of the teacher's numbers over cells drawn as in training."""
        random = np.random.default_rng(self.settings.seed + 1)
        hu, mask = self.sampler.draw(96, random)
        numbers = teach(hu, mask, self._draw_cells(mask, 1500, random), self.settings.region)
        return numbers.mean(dim=0), numbers.std(dim=0).clamp(min=1e-6)

    def _draw_cells(self, mask: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
        """Some of the cells of a batch that hold lung: (cells, 4), patch and cell (z, y, x)."""
        share = functional.avg_pool3d(inner(torch.from_numpy(mask)[:, None]), DOWNSAMPLING)[:, 0].numpy()
        found = np.argwhere(share >= LEAST_LUNG)
        return found[np.sort(random.permutation(len(found))[:count])]

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
                    progress("train", self.step / self.settings.steps, _loss_told(facts))
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
        wide = torch.from_numpy(hu)[:, None].to(self.device)
        wide_lungs = torch.from_numpy(mask)[:, None].to(self.device)
        x, lungs = from_hounsfield(inner(wide)), inner(wide_lungs)
        timesteps = torch.randint(0, self._noisiest(), (len(x),)).to(self.device)
        noise = torch.randn(x.shape).to(self.device)
        noised = self.student.noised(x, lungs, noise, timesteps).to(memory_format=torch.channels_last_3d)
        local = self.student.local(wide, wide_lungs)
        if self._head_alone():
            with torch.no_grad():
                bottleneck = encode(self.student.unet, noised, timesteps)
            distillation, facts = self._distil(self.student.head(bottleneck, local), hu, mask)
            return weight * distillation, facts
        predicted, embedding = self.student(noised, timesteps, local)
        loss = functional.l1_loss(predicted, noise)
        facts = {"noise": float(loss.detach())}
        if weight > 0:
            distillation, more = self._distil(embedding, hu, mask)
            loss, facts = loss + weight * distillation, facts | more
        return loss, facts

    def _head_alone(self) -> bool:
        """Whether the head learns alone: a head that knows nothing yet would pull the U-Net anywhere."""
        settings = self.settings
        # The first step of stage two has no weight yet, and a loss of nothing teaches nothing.
        return settings.stage_two < self.step < settings.stage_two + settings.head_first

    def _noisiest(self) -> int:
        return min(self.settings.reading, TIMESTEPS) if self._head_alone() else TIMESTEPS

    def _distil(
        self, embedding: torch.Tensor, hu: np.ndarray, mask: np.ndarray
    ) -> tuple[torch.Tensor, dict[str, float]]:
        """InfoNCE between cells, and the regression that keeps the teacher's numbers and HU readable."""
        chosen = self._draw_cells(mask, self.settings.cells, self.random)
        numbers = (teach(hu, mask, chosen, self.settings.region) - self.teacher_mean) / self.teacher_deviation
        numbers = numbers.clamp(-5, 5).to(self.device)
        patch, z, y, x = torch.from_numpy(chosen).T.to(self.device)
        student = embedding[patch, :, z, y, x]
        contrast = info_nce(student, self.teacher_head(numbers[:, : 2 * TEACHER_NUMBERS]))
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
