"""Fine-tuning of a student whose embedding a mixture decides on: diffusion, then radiomic distillation."""

from __future__ import annotations

import copy
import math
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.models import storage
from DiffSegLungLib.models import store as models
from DiffSegLungLib.progress import Progress, peak_memory_mb
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training import checkpoint, verdicts
from DiffSegLungLib.training.distributed import Ranks
from DiffSegLungLib.training.guard import DRIFT_POINTS, Guard, best_weights, trained_steps
from DiffSegLungLib.training.healthy import HealthyLung
from DiffSegLungLib.training.judge import draw_held_back, noise_loss, teacher_r2
from DiffSegLungLib.training.reference import ReferenceSettings, fit_reference
from DiffSegLungLib.training.request import FinetuneRequest
from DiffSegLungLib.training.run_files import CHECKPOINT
from DiffSegLungLib.training.store import Patient, load_store, prepare
from DiffSegLungLib.training.trainer import Settings, Trainer, stored_settings
from DiffSegLungLib.training.tuning import MOST_RISING_STEPS, Tuning, size_mb, steps_between

BATCH = 8
SLOWER_UNET = 0.3
"""Of the learning rate: that of the U-Net while the embedding is distilled."""
R2_WEIGHT = 0.5
BYTES_A_VOXEL = 5.0
"""Of the store: the compressed HU, and the decoded HU and mask, for each voxel of the lungs' box."""
BOX_OVER_LUNG = 3.5
COPIES = 9
"""Float32 copies of a whole CT that finding the lungs and segmenting hold at their peak."""

Patients = tuple[list[Patient], list[Patient]]


class StudentTuning(Tuning[Patient]):
    """See :class:`Tuning`."""

    prepare_seconds, compare_seconds = 20.0, 240.0

    @property
    def patch_mm3(self) -> float:
        """Volume of a patch."""
        return float(np.prod(self.base.plan.window)) * self.base.spacing**3

    @property
    def base_sha256(self) -> str:
        """Of the student."""
        return self.base.info.sha256

    @property
    def _store(self) -> Path:
        return self.request.run_folder / "store"

    def prepare(self, source: Path, persons: Mapping[str, str], progress: Progress) -> None:
        """Find the lungs and store them."""
        prepare([source], self._store, self.base.spacing, persons)

    def load(self, names: Iterable[str]) -> list[Patient]:
        """The stored CT of these names."""
        return load_store(self._store, names)

    def litres(self, people: Iterable[Patient]) -> float:
        """Volume of their lungs."""
        return sum(float(one.mask.sum()) for one in people) * self.base.spacing**3 / 1e6

    def settings(self, steps: int) -> Settings:
        """Gentle rates, and the network of the base model."""
        request, plan = self.request, self.base.plan
        return Settings(
            channels=tuple(self.base.description["architecture"]["channels"]),
            patch=plan.window,
            region=min(16, *plan.window),
            batch=BATCH,
            steps=steps,
            stage_two=steps // 2 if request.stage == "both" else 0,
            warm_up=max(steps // 5, 1),
            distillation=0.0 if request.stage == "diffusion" else 0.4,
            learning_rate=request.rate,
            learning_rate_two=SLOWER_UNET * request.rate,
            constant_rate=True,
            rise=min(steps // 5, MOST_RISING_STEPS),
            seed=request.seed,
            fixed_scale=not request.refit_mixture,
        )

    def stored_settings(self, stored: dict[str, Any]) -> Settings:
        """As JSON gives them back."""
        return stored_settings(stored)

    def seconds_per_step(self, device: str) -> float:
        """Measured on noise."""
        settings = self.settings(10)
        random = np.random.default_rng(0)
        shape = tuple(side + 16 for side in settings.patch)
        hu = random.normal(-850, 60, shape).astype(np.int16)
        patient = Patient("trial", hu, np.ones(shape, bool))
        with tempfile.TemporaryDirectory() as folder:
            trainer = Trainer([patient], settings, Path(folder), device)
            trainer.train_step()
            # The step after stage two has begun is the dearest, and most steps are like it.
            trainer.step = settings.stage_two + 1
            started = time.perf_counter()
            trainer.train_step()
            return time.perf_counter() - started

    def memory_mb(self, largest_voxels: int) -> float:
        """Of training and segmenting together."""
        return max(peak_memory_mb(), 900.0) + COPIES * 4e-6 * largest_voxels

    def disk_mb(self, litres: float) -> float:
        """Of the store, checkpoint and model."""
        voxels = litres * 1e6 / self.base.spacing**3 * BOX_OVER_LUNG
        return voxels * BYTES_A_VOXEL / 1e6 + 5 * size_mb(self.base.info.folder)

    def train(
        self, settings: Settings, people: Patients, progress: Progress, ranks: Ranks, device: str
    ) -> int:
        """Both stages, as far as the budget reaches."""
        state = self.request.run_folder / CHECKPOINT
        if state.exists() and checkpoint.load_facts(state)["notes"].get("ended"):
            return settings.steps
        folder = self.request.run_folder
        trainer = Trainer(people[0], settings, folder, device, people[1], ranks, self.base.student)
        guard = StudentGuard(self.request, self.base, settings)
        trainer.run(progress, steps_between(settings.steps), guard)
        return settings.steps if trainer.notes.get("ended") else trainer.step

    def training_facts(self) -> dict[str, Any]:
        """Stage, steps and what became of the mixture."""
        return {
            "stage": self.request.stage,
            "steps": trained_steps(self.request.run_folder),
            "mixture": "refitted" if self.request.refit_mixture else "of the parent",
        }

    def told(self, training: Mapping[str, Any]) -> str:
        """For the model card."""
        return f"{training['steps']} steps, stage {training['stage']}; mixture {training['mixture']}"

    def write_networks(
        self, folder: Path, facts: dict[str, Any], trained_on: list[Path], progress: Progress
    ) -> None:
        """The student with the mixture of its base, or one fitted on the CT that were trained on."""
        student = copy.deepcopy(self.base.student)
        if (weights := best_weights(self.request.run_folder)) is not None:
            student.load_state_dict(weights)
        student.eval().requires_grad_(False)
        storage.write_student(folder, {key: value.cpu() for key, value in student.state_dict().items()})
        storage.write_mixture(folder, *self._reference(student, trained_on, progress))

    def _reference(self, student: Student, sources: list[Path], progress: Progress) -> tuple[Any, Any, Any]:
        """Projection, mixture and labels."""
        base = self.base
        if not self.request.refit_mixture:
            return base.projection, base.mixture, base.labels
        settings = ReferenceSettings(base.spacing, sharpness=base.sharpness, seed=self.request.seed)
        return fit_reference(student.to("cpu"), sources, base.plan, settings, base.rule, progress)

    def figures(self, tuned: models.Model, held_back: list[Patient]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Noise loss, radiomics told, and what each calls diseased in a healthy phantom."""
        window = self.base.plan.window
        patches = draw_held_back(held_back, window)
        both = [
            {
                "noise_loss": _known(noise_loss(model.student, patches)),
                "teacher_r2": _known(teacher_r2(model.student, patches, min(16, *window))),
                # Each with its own mixture: what a reader of a healthy CT would see.
                verdicts.HEALTHY_PHANTOM: _known(HealthyLung(model).diseased_percent(model.student)),
            }
            for model in (self.base, tuned)
        ]
        return both[0], both[1]

    def judge(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """By the aims of the stage."""
        return verdicts.judge(before, after, self.request.stage)


def _known(value: float) -> float | None:
    """JSON has no name for what is no number."""
    return value if math.isfinite(value) else None


class StudentGuard(Guard[Trainer]):
    """Judges by noise and radiomics, and looks for drift in a healthy phantom.

    Args:
        request: what was asked for.
        base: the base model.
        settings: of the trainer.
    """

    def __init__(self, request: FinetuneRequest, base: models.Model, settings: Settings) -> None:
        super().__init__(request)
        self.base, self.settings = base.student, settings
        self.healthy = HealthyLung(base)
        self.at_first = self.healthy.diseased_percent(base.student)

    def drifted(self, trainer: Trainer, facts: dict[str, float]) -> str:
        """By what the base's mixture makes of a healthy phantom."""
        diseased = self.healthy.diseased_percent(trainer.average)
        if diseased <= self.at_first + DRIFT_POINTS:
            return ""
        return f"{diseased:.1f} % of a healthy phantom was called diseased, {self.at_first:.1f} % before"

    def score(self, trainer: Trainer, facts: dict[str, float]) -> list[float]:
        """See :func:`score`."""
        assert trainer.held_back is not None
        if "base_noise" not in trainer.notes:
            trainer.notes["base_noise"] = noise_loss(self.base, trainer.held_back)
        explained = float("nan")
        if self.settings.distillation > 0:
            explained = teacher_r2(trainer.average, trainer.held_back, self.settings.region)
        return score(facts["held_back"], trainer.notes["base_noise"], explained)

    def draw(self, trainer: Trainer, path: Path) -> None:
        """What the network makes of noise at present, below real patches of the patients held back."""
        from matplotlib.image import imsave

        from DiffSegLungLib.training.board import SAMPLE_COUNT, SAMPLE_STEPS, samples_picture

        held_back = trainer.held_back
        assert held_back is not None
        shown = replace(held_back, hu=held_back.hu[:SAMPLE_COUNT], mask=held_back.mask[:SAMPLE_COUNT])
        picture = samples_picture(trainer, shown, SAMPLE_STEPS)
        with atomic_path(path) as partial:
            imsave(partial, picture, cmap="gray", vmin=0, vmax=1)


def score(noise: float, base_noise: float, explained: float) -> list[float]:
    """What weights are worth; of two lists the lower one is better.

    Args:
        noise: noise loss on the patients held back.
        base_noise: the base model's; a loss above it counts before all else.
        explained: R2 of the teacher's numbers; NaN where it is not known or not asked for.
    """
    untold = R2_WEIGHT * (1 - explained) if explained == explained else 0.0
    return [float(noise > base_noise), noise + untold]
