"""Watches a fine-tuning: keeps the best weights, ends it when nothing is gained or healthy lung drifts."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from safetensors.torch import load_file, save_file

from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.request import FinetuneRequest
from DiffSegLungLib.training.run_files import BEST, CHECKPOINT, SAMPLES, STOP

PATIENCE = 4
"""Comparisons without a gain after which the run ends."""
DRIFT_POINTS = 2.0
"""Percentage points by which the disease seen in a healthy lung may grow."""
DRIFTED = "healthy lung began to drift"

OneTrainer = TypeVar("OneTrainer", bound=Any)


class Guard(ABC, Generic[OneTrainer]):
    """Called after each step.

    Args:
        request: what was asked for.
    """

    def __init__(self, request: FinetuneRequest) -> None:
        self.request = request
        self.limit_s = 60 * request.minutes if request.minutes else float("inf")
        self.last = time.monotonic()

    def __call__(self, trainer: OneTrainer, facts: dict[str, float]) -> bool:
        """After a step: true when the run shall end."""
        now = time.monotonic()
        notes = trainer.notes
        notes["seconds"] = notes.get("seconds", 0.0) + now - self.last
        self.last = now
        if "held_back" in facts:
            self._compare(trainer, facts)
            if trainer.ranks.number == 0:
                self.draw(trainer, self.request.run_folder / SAMPLES)
        if "ended" not in notes and notes["seconds"] > self.limit_s:
            notes["ended"] = "the time asked for is used up"
        return "ended" in notes or (self.request.run_folder / STOP).exists()

    @abstractmethod
    def drifted(self, trainer: OneTrainer, facts: dict[str, float]) -> str:
        """How far healthy lung has drifted, where that is too far; else an empty text."""

    @abstractmethod
    def score(self, trainer: OneTrainer, facts: dict[str, float]) -> list[float]:
        """What the averaged weights are worth; of two lists the lower one is better."""

    @abstractmethod
    def draw(self, trainer: OneTrainer, path: Path) -> None:
        """Write the picture of what the network makes of patches held back at present."""

    def _compare(self, trainer: OneTrainer, facts: dict[str, float]) -> None:
        """Keep the weights if they are the best so far."""
        notes = trainer.notes
        if how_far := self.drifted(trainer, facts):
            notes["ended"] = f"{DRIFTED}: {how_far}"
            return
        reached = self.score(trainer, facts)
        if "best_score" not in notes or reached < notes["best_score"]:
            notes |= {"best_score": reached, "best_step": trainer.step, "waited": 0}
            if trainer.ranks.number == 0:
                _keep(self.request.run_folder / BEST, trainer.average)
        else:
            notes["waited"] += 1
        if notes["waited"] >= PATIENCE:
            notes["ended"] = f"nothing was gained on the patients held back since step {notes['best_step']}"


def _keep(path: Path, network: torch.nn.Module) -> None:
    tensors = {key: value.detach().cpu().contiguous() for key, value in network.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(tensors, str(partial))


def best_weights(run: Path) -> dict[str, torch.Tensor] | None:
    """The best weights of a run; None where healthy lung drifted before any were kept."""
    if (run / BEST).exists():
        return load_file(str(run / BEST))
    if ended_because(run).startswith(DRIFTED):
        return None
    return checkpoint.load_module(run / CHECKPOINT, "average")  # the time was over before a comparison


def ended_because(run: Path) -> str:
    """Why the training of a run ended before its budget was used up; empty if it did not."""
    facts = checkpoint.load_facts(run / CHECKPOINT)
    return str(facts["notes"].get("ended", ""))


def trained_steps(run: Path) -> int:
    """Steps that a run has taken."""
    return int(checkpoint.load_facts(run / CHECKPOINT)["step"])
