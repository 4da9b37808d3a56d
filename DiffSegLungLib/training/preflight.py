"""What a fine-tuning would need and do, told before it begins."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.errors import DiffSegLungError, UnusableInputError
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.models import store as models
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.training.finetune import planned_steps, usable_sources
from DiffSegLungLib.training.request import TOO_FEW, FinetuneRequest
from DiffSegLungLib.training.sources import read_persons
from DiffSegLungLib.training.split import split_patients
from DiffSegLungLib.training.store import name_of
from DiffSegLungLib.training.tuning import Tuning
from DiffSegLungLib.training.tuning_kinds import tuning_of

AERATED_HU = (-950, -550)
"""Voxels in between are about the lungs, on a CT whose lungs nobody has found yet."""
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
    tuning: Tuning[Any] | None = None
    with _told(answer):
        tuning = tuning_of(request, models.load(request.base, choose_device(request.device)))
    with _told(answer):
        sources = usable_sources(request)
    _look_at_ct(request, sources, answer, progress)
    if tuning is not None:
        _look_at_budget(tuning, answer)
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


def _look_at_budget(tuning: Tuning[Any], answer: Preflight) -> None:
    """Patches, steps, time and memory; one step is made to know."""
    device = choose_device(tuning.request.device)
    second = tuning.seconds_per_step(device)
    steps = planned_steps(tuning, device, second)
    around = tuning.prepare_seconds * answer.facts["volumes"] + tuning.compare_seconds
    answer.facts |= {
        "base": tuning.base.info.name,
        "device": device,
        "patches": int(answer.facts["lung_litres"] * 1e6 / tuning.patch_mm3),
        "steps": steps,
        "seconds_per_step": round(second, 3),
        "minutes": round((steps * second + around) / 60, 1),
        "memory_mb": round(tuning.memory_mb(answer.facts["largest_voxels"])),
        "disk_mb": round(tuning.disk_mb(answer.facts["lung_litres"])),
    }


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
