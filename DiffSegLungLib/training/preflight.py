"""What a fine-tuning would need and do, told before it begins."""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.errors import DiffSegLungError, UnusableInputError
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.models import store as models
from DiffSegLungLib.progress import Progress, peak_memory_mb, silent
from DiffSegLungLib.training.finetune import (
    DEFAULT_MINUTES,
    TOO_FEW,
    FinetuneRequest,
    base_settings,
    usable_sources,
)
from DiffSegLungLib.training.sources import read_persons
from DiffSegLungLib.training.split import split_patients
from DiffSegLungLib.training.store import Patient, name_of
from DiffSegLungLib.training.trainer import Settings, Trainer

AERATED_HU = (-950, -550)
"""Voxels in between are about the lungs, on a CT whose lungs nobody has found yet."""
BYTES_A_VOXEL = 5.0
"""Of the store: the compressed HU, and the decoded HU and mask, for each voxel of the lungs' box."""
BOX_OVER_LUNG = 3.5
PREPARE_SECONDS, COMPARE_SECONDS = 20.0, 240.0
"""A CT on two cores; and both models on the patients held back."""
COPIES = 9
"""Float32 copies of a whole CT that finding the lungs and segmenting hold at their peak."""
LEAST_FREE_MB = 200.0


@dataclass
class Preflight:
    """The answer.

    Attributes:
        missing: sentences on what stands in the way; empty when the run can begin.
        warnings: sentences on what is left out.
        facts: volumes, patients, patches, steps, minutes, memory_mb, disk_mb ...
    """

    missing: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> str:
        """One JSON object."""
        content = {
            "ready": not self.missing,
            "missing": self.missing,
            "warnings": self.warnings,
            **self.facts,
        }
        return json.dumps(content, indent=2, ensure_ascii=False)


def preflight(request: FinetuneRequest, progress: Progress = silent) -> Preflight:
    """Look at everything a fine-tuning needs, without beginning it.

    Args:
        request: what shall be done.
        progress: told of each CT that is read.

    Returns:
        What is missing, and what the run would take.
    """
    answer = Preflight()
    sources: list[Path] = []
    base: models.Model | None = None
    with _told(answer):
        base = models.load(request.base, choose_device(request.device))
    with _told(answer):
        sources = usable_sources(request)
    _look_at_ct(request, sources, answer, progress)
    if base is not None:
        _look_at_budget(request, base, answer)
    _look_at_disk(request, answer)
    progress("preflight", 1.0)
    return answer


class _told:
    """An error becomes a sentence of what is missing."""

    def __init__(self, answer: Preflight) -> None:
        self.answer = answer

    def __enter__(self) -> None:
        """Nothing to do."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, DiffSegLungError):
            self.answer.missing.append(str(error))
            return True
        return False


def _look_at_ct(request: FinetuneRequest, sources: list[Path], answer: Preflight, progress: Progress) -> None:
    """Read each CT; count patients and about how much lung there is."""
    persons: dict[str, str] = {}
    with _told(answer):
        persons = read_persons(request.patients)
    found, lung_mm3, largest = [], 0.0, 0
    for index, source in enumerate(sources):
        progress("preflight", index / len(sources), source.name)
        try:
            volume = load_volume(source)
        except UnusableInputError as error:
            (answer.missing if source in request.sources else answer.warnings).append(str(error))
            continue
        aerated = (volume.hu > AERATED_HU[0]) & (volume.hu < AERATED_HU[1])
        lung_mm3 += float(aerated.sum()) * float(np.prod(volume.spacing))
        largest = max(largest, volume.hu.size)
        found.append(persons.get(name_of(source), name_of(source)))
    split = split_patients(found, seed=request.seed)
    if sources and len(split) < 2:
        answer.missing.append(TOO_FEW)
    answer.facts |= {"volumes": len(found), "patients": len(split), "held_back": sum(split.values())}
    answer.facts |= {"lung_litres": round(lung_mm3 / 1e6, 1), "largest_voxels": largest}


def _look_at_budget(request: FinetuneRequest, base: models.Model, answer: Preflight) -> None:
    """Patches, steps, time and memory; one step is made to know."""
    device = choose_device(request.device)
    trial = base_settings(request, base, 10)
    second = seconds_per_step(trial, device)
    minutes = request.minutes or DEFAULT_MINUTES
    steps = request.steps or max(int(60 * minutes / second), 1)
    patch_mm3 = float(np.prod(trial.patch)) * base.spacing**3
    around = PREPARE_SECONDS * answer.facts["volumes"] + COMPARE_SECONDS
    memory = max(peak_memory_mb(), 900.0) + COPIES * 4e-6 * answer.facts["largest_voxels"]
    answer.facts |= {
        "base": base.info.name,
        "device": device,
        "patches": int(answer.facts["lung_litres"] * 1e6 / patch_mm3),
        "steps": steps,
        "seconds_per_step": round(second, 3),
        "minutes": round((steps * second + around) / 60, 1),
        "memory_mb": round(memory),
        "disk_mb": round(
            answer.facts["lung_litres"] * 1e6 / base.spacing**3 * BOX_OVER_LUNG * BYTES_A_VOXEL / 1e6
            + 5 * _size_mb(base.info.folder)
        ),
    }


def _size_mb(folder: Path) -> float:
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6


def _look_at_disk(request: FinetuneRequest, answer: Preflight) -> None:
    with _told(answer):
        place = next(one for one in (request.run_folder, *request.run_folder.parents) if one.exists())
        free = shutil.disk_usage(place).free / 1e6
        answer.facts |= {"output": str(request.target), "free_mb": round(free)}
        needed = answer.facts.get("disk_mb", 0) + LEAST_FREE_MB
        if free < needed:
            raise UnusableInputError(
                f"The disk of {place} has {free:.0f} MB free and about {needed:.0f} MB are needed: "
                "free some, or give --models or --run on another disk."
            )


def seconds_per_step(settings: Settings, device: str) -> float:
    """Time of one training step on this computer, measured on noise."""
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
