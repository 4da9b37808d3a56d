"""What a fine-tuning is asked for, and what comes of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.models import store as models

STAGES = ("diffusion", "distillation", "both")
DEFAULT_MINUTES = 30.0
DEFAULT_RATE = 1e-4
"""An eighth of what the network that decides was trained at."""
TOO_FEW = (
    "CT of two patients at least are needed: one is held back to judge the result. Add CT of another patient."
)


@dataclass(frozen=True)
class FinetuneRequest:
    """What shall be done.

    Attributes:
        sources: CT files, DICOM folders, or folders of these; two patients at least.
        name: of the new model.
        base: name or folder of the model to begin with; the default one without it.
        store: the user's model store, which takes the new model (default: ``DIFFSEGLUNG_MODELS``).
        run: takes checkpoint and prepared CT (default: a folder beside the model to be).
        steps: how long; else ``minutes``.
        minutes: how long, about.
        rate: learning rate; the default is gentle.
        stage: ``diffusion``, ``distillation``, or ``both`` one after the other; a network that decides
            learns all at once.
        refit_mixture: fit the reference mixture anew on these CT; else the base model's is kept.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        patients: CSV with the columns ct and patient, where several CT are of one patient.
        licence: terms of the new weights.
    """

    sources: Sequence[Path]
    name: str
    base: str | None = None
    store: Path | None = None
    run: Path | None = None
    steps: int | None = None
    minutes: float | None = None
    rate: float = DEFAULT_RATE
    stage: str = "both"
    refit_mixture: bool = False
    device: str = "auto"
    seed: int = 0
    patients: Path | None = None
    licence: str = "not stated"

    @property
    def target(self) -> Path:
        """The new model's folder.

        Raises:
            MissingPartError: there is no store of the user's own.
        """
        store = self.store or models.own_store()
        if store is None:
            raise MissingPartError(
                "No model store of your own: give --models FOLDER, or set DIFFSEGLUNG_MODELS."
            )
        return store / self.name

    @property
    def run_folder(self) -> Path:
        """Where the run keeps its state."""
        return self.run or self.target.with_name(f"{self.name}.run")


@dataclass(frozen=True)
class FinetuneOutcome:
    """What came of it.

    Attributes:
        folder: the new model.
        before: figures of the base model on the patients held back.
        after: the same of the new one.
        verdict: what got better or worse, in sentences.
        left_out: CT that could not be used, and why, a line each; they name files, unlike the model.
    """

    folder: Path
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    verdict: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
