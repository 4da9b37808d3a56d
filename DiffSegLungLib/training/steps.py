"""The loop of a run: steps, their log, checkpoints, and an end at any step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from DiffSegLungLib.io.atomic import write_text
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.signals import handled
from DiffSegLungLib.training.distributed import Ranks
from DiffSegLungLib.training.run_files import LOG, TRAINING_STAGE, read_log


class Stepping(Protocol):
    """What trains one step at a time."""

    folder: Path
    ranks: Ranks
    step: int

    def train_step(self) -> dict[str, float]:
        """One step; its figures."""

    def judged(self) -> dict[str, float]:
        """Figures on the patients held back; empty without any."""

    def described(self, facts: dict[str, float]) -> str:
        """What the reader is told of a step."""

    def save(self) -> None:
        """Write the checkpoint."""


OneTrainer = TypeVar("OneTrainer", bound=Stepping)


def take_steps(
    trainer: OneTrainer,
    steps: int,
    progress: Progress,
    save_every: int,
    watch: Callable[[OneTrainer, dict[str, float]], bool] | None,
) -> None:
    """Train to so many steps; SIGTERM ends it at the next one, with a checkpoint.

    Args:
        trainer: goes on from its own step.
        steps: in all.
        progress: told of each step.
        save_every: steps between checkpoints.
        watch: called after each step; true ends the run.
    """
    asked: list[bool] = []
    with handled(lambda *_: asked.append(True), "SIGTERM"):
        while trainer.step < steps:
            facts = trainer.train_step()
            if trainer.step % save_every == 0:
                facts |= trainer.judged()
            log_step(trainer, facts)
            progress(TRAINING_STAGE, trainer.step / steps, trainer.described(facts))
            if trainer.ranks.any(bool(asked) or (watch is not None and watch(trainer, facts))):
                break
            if trainer.step % save_every == 0:
                trainer.save()
        trainer.save()


def log_step(trainer: Stepping, facts: dict[str, float]) -> None:
    """Add a step to the log; the first rank does."""
    if trainer.ranks.number:
        return
    with (trainer.folder / LOG).open("a", encoding="utf-8") as log:
        log.write(json.dumps({key: round(value, 5) for key, value in facts.items()}) + "\n")


def forget_later_steps(trainer: Stepping) -> None:
    """Take out of the log the steps that a killed run had taken after its last checkpoint."""
    if trainer.ranks.number or not (trainer.folder / LOG).exists():
        return
    kept = [one for one in read_log(trainer.folder) if one["step"] <= trainer.step]
    write_text(trainer.folder / LOG, "".join(json.dumps(one) + "\n" for one in kept))
