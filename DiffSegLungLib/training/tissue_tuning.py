"""Fine-tuning of the network that decides: own CT become hosts, and disease is painted into them."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.models import store as models
from DiffSegLungLib.progress import Progress, peak_memory_mb
from DiffSegLungLib.representation.network import TissueNetwork
from DiffSegLungLib.tissues import HEALTHY
from DiffSegLungLib.training import checkpoint, verdicts
from DiffSegLungLib.training.distributed import Ranks
from DiffSegLungLib.training.guard import best_weights, trained_steps
from DiffSegLungLib.training.own_hosts import OwnHost, load_hosts, prepare_host
from DiffSegLungLib.training.painted_judge import PATCHES, PaintedTruth, figures, paint_truth
from DiffSegLungLib.training.painting_hosts import GRID
from DiffSegLungLib.training.request import FinetuneRequest
from DiffSegLungLib.training.run_files import CHECKPOINT
from DiffSegLungLib.training.steady_patches import OPEN_HOSTS
from DiffSegLungLib.training.tissue_tuner import TissueGuard, TissueTuner, TunerSettings, painters
from DiffSegLungLib.training.tuning import MOST_RISING_STEPS, Tuning, size_mb, steps_between

PATCH = (32, 112, 112)
"""Voxels, (z, y, x): 64 x 112 x 112 mm."""
PAINT_SECONDS = 0.5
"""A patch takes so long on one core."""
HOST_MB, WORKER_MB = 115.0, 400.0
"""Memory of a host that is open, and of a process that paints."""
STORED_MB_A_LITRE = 10.0
"""Disk of the three sizes of a host."""
COPIES = 9
"""Float32 copies of a whole CT that segmenting holds at its peak."""
CHECKPOINT_COPIES = 12
"""Of the half-precision weights: four of twice their size in the checkpoint, and the best ones."""

Hosts = tuple[list[OwnHost], list[OwnHost]]


class TissueTuning(Tuning[OwnHost]):
    """See :class:`Tuning`.

    Raises:
        UnusableInputError: a stage or another mixture is asked for, of which this network knows nothing.
    """

    prepare_seconds, compare_seconds = 90.0, 300.0

    def __init__(self, request: FinetuneRequest, base: models.Model) -> None:
        super().__init__(request, base)
        if request.stage != "both" or request.refit_mixture:
            raise UnusableInputError(
                f"The model {base.info.name} is decided by a network that learns noise and tissues at once, "
                "without a mixture: train both, and refit no mixture (no --stage, no --refit-mixture)."
            )

    @property
    def network(self) -> TissueNetwork:
        """The base's."""
        assert self.base.tissues is not None
        return self.base.tissues

    @property
    def patch_mm3(self) -> float:
        """Volume of a patch."""
        return float(np.prod(self.settings(1).patch) * np.prod(GRID))

    @property
    def base_sha256(self) -> str:
        """Of the network that decides."""
        return str(self.base.description["sha256"][models.TISSUES])

    @property
    def _hosts(self) -> Path:
        return self.request.run_folder / "hosts"

    def prepare(self, source: Path, persons: Mapping[str, str], progress: Progress) -> None:
        """Segment with the base, and store what is not diseased at the three sizes of a host."""
        prepare_host(source, self._hosts, self.base, persons, progress)

    def load(self, names: Iterable[str]) -> list[OwnHost]:
        """The hosts of these names; of a CT that cannot serve there are none."""
        return load_hosts(self._hosts, names)

    def litres(self, people: Iterable[OwnHost]) -> float:
        """Volume of their lungs."""
        return sum(one.lung_ml for one in people) / 1000.0

    def settings(self, steps: int) -> TunerSettings:
        """A low rate that rises first."""
        rise = min(steps // 5, MOST_RISING_STEPS)
        return TunerSettings(steps, self.request.rate, rise, PATCH, seed=self.request.seed)

    def stored_settings(self, stored: dict[str, Any]) -> TunerSettings:
        """As JSON gives them back."""
        return TunerSettings(**stored | {"patch": tuple(stored["patch"])})

    def seconds_per_step(self, device: str) -> float:
        """Measured on noise, without painting; where no process paints beside, that is added."""
        settings = self.settings(2)
        shape = (settings.batch, 1, *settings.patch)
        hu = torch.normal(-850.0, 60.0, shape, generator=torch.Generator().manual_seed(0))
        labels = torch.full((settings.batch, *settings.patch), HEALTHY)
        with tempfile.TemporaryDirectory() as folder:
            trainer = TissueTuner(self.network, [], settings, Path(folder), device=device)
            trainer.batches = itertools.repeat((hu, labels))
            trainer.train_step()
            step = trainer.train_step()["seconds"]
        painting, workers = settings.batch * PAINT_SECONDS, trainer.plan.workers
        return max(step, painting / workers) if workers else step + painting

    def memory_mb(self, largest_voxels: int) -> float:
        """Of a step with its hosts, or of segmenting, whichever needs more."""
        workers = painters(choose_device(self.request.device))
        hosts = OPEN_HOSTS * HOST_MB * max(workers, 1) + WORKER_MB * workers
        return max(peak_memory_mb(), 900.0) + max(hosts, COPIES * 4e-6 * largest_voxels)

    def disk_mb(self, litres: float) -> float:
        """Of the hosts, the checkpoint and the model."""
        weights = (self.base.info.folder / models.TISSUES).stat().st_size / 1e6
        return litres * STORED_MB_A_LITRE + CHECKPOINT_COPIES * weights + size_mb(self.base.info.folder)

    def train(
        self, settings: TunerSettings, people: Hosts, progress: Progress, ranks: Ranks, device: str
    ) -> int:
        """Paint and learn, as far as the budget reaches."""
        folder = self.request.run_folder
        state = folder / CHECKPOINT
        if state.exists() and checkpoint.load_facts(state)["notes"].get("ended"):
            return settings.steps
        files = [file for one in people[0] for file in one.files]
        network = replace(self.network, unet=self.network.unet.to(device))
        truth = self._truth(people[1], settings)
        trainer = TissueTuner(network, files, settings, folder, truth, device, ranks)
        trainer.run(progress, steps_between(settings.steps), TissueGuard(self.request))
        return settings.steps if trainer.notes.get("ended") else trainer.step

    def _truth(self, held_back: list[OwnHost], settings: TunerSettings) -> PaintedTruth:
        """True sizes alone: patients as they are."""
        files = [one.true_size for one in held_back]
        return paint_truth(files, self.network, settings.patch, settings.seed, PATCHES)

    def training_facts(self) -> dict[str, Any]:
        """Steps and rate."""
        return {"steps": trained_steps(self.request.run_folder), "rate": self.request.rate}

    def told(self, training: Mapping[str, Any]) -> str:
        """For the model card."""
        return (
            f"{training['steps']} steps at a rate of {training['rate']:g} on disease painted into these CT "
            "(painted truth is nobody's annotation); calibration of the parent"
        )

    def write_networks(
        self, folder: Path, facts: dict[str, Any], trained_on: list[Path], progress: Progress
    ) -> None:
        """The tuned network beside what else the base has.

        Temperature and bias are the base's: they were fitted on CT that nothing else saw, and here every CT
        was trained on or chose the best weights.
        """
        for name in (models.WEIGHTS, models.MIXTURE):
            shutil.copyfile(self.base.info.folder / name, folder / name)
        weights = best_weights(self.request.run_folder) or self.network.unet.state_dict()
        halves = {key: value.half().cpu().contiguous() for key, value in weights.items()}
        save_file(halves, str(folder / models.TISSUES))
        form = dict(self.base.description["tissue_network"])
        form.pop("hosts", None)  # names of CT, and not of these
        steps = form.get("fine_tuned_steps", 0) + trained_steps(self.request.run_folder)
        facts["tissue_network"] = form | {"fine_tuned_steps": steps}

    def figures(self, tuned: models.Model, held_back: list[OwnHost]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Painted disease, noise, and what of unpainted lung is named anew."""
        assert tuned.tissues is not None
        truth = self._truth(held_back, self.settings(1))
        return figures(self.network, truth), figures(tuned.tissues, truth)

    def judge(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """By painted disease, each tissue, noise and drift."""
        return verdicts.judge_tissues(before, after)
