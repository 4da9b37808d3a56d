"""The stages of one run, and the seconds each took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from DiffSegLungLib.progress import Progress

STAGES = {
    "read": "Reading the CT and the model",
    "lungs": "Finding the lungs",
    "network": "Reading the diffusion model",
    "grid": "Separating vessels from parenchyma",
    "features": "Describing each voxel with the diffusion model",
    "mixture": "Adapting the mixture to the patient",
    "fusion": "Fusing posteriors and edges",
    "labels": "Bringing the tissues onto the CT's grid",
    "measures": "Measuring",
}
"""What the user is told of each stage."""


@dataclass
class Clock:
    """Seconds a stage, for the manifest, and the user's progress."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str, fraction: float) -> Iterator[None]:
        """Time one stage that begins at ``fraction`` of the whole."""
        self.progress(name, fraction, STAGES[name])
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)
