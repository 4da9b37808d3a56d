"""What fine-tuning needs to know of a kind of network; the base model says which kind it is.

``StudentTuning`` is of models whose mixture decides on the embedding of a student, ``TissueTuning`` of models
whose diffusion U-Net decides.  All else, from the CT to the comparison, is the same for both.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.models import store as models
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.training.distributed import Ranks
from DiffSegLungLib.training.request import FinetuneRequest

CHECKS = 10
"""Comparisons with the patients held back in a run."""
LEAST_STEPS_BETWEEN, MOST_STEPS_BETWEEN = 20, 100
"""A comparison takes as long as some ten steps."""
MOST_RISING_STEPS = 50
"""Over which the rate rises: the optimiser's first steps, whose size knows no gradients yet, would upset a
trained network."""


class CannotServeError(UnusableInputError):
    """A CT that can be read but not learnt from; it is named and left out."""


class Prepared(Protocol):
    """A CT that was prepared for a run."""

    @property
    def name(self) -> str:
        """What it is called in the run."""

    @property
    def person(self) -> str:
        """Whom it shows."""


OnePrepared = TypeVar("OnePrepared", bound=Prepared)


class Tuning(ABC, Generic[OnePrepared]):
    """How the networks of one kind are fine-tuned.

    Args:
        request: what was asked for.
        base: the model to begin with.

    Attributes:
        prepare_seconds: time a CT takes before the training, on two cores.
        compare_seconds: time that the comparison takes at the end.
    """

    prepare_seconds: float
    compare_seconds: float

    def __init__(self, request: FinetuneRequest, base: models.Model) -> None:
        self.request, self.base = request, base

    @property
    @abstractmethod
    def patch_mm3(self) -> float:
        """Volume of a patch."""

    @property
    @abstractmethod
    def base_sha256(self) -> str:
        """Checksum of the weights that go on learning."""

    @abstractmethod
    def prepare(self, source: Path, persons: Mapping[str, str], progress: Progress) -> None:
        """Prepare a CT in the run's store; what is there already is not made again.

        Raises:
            UnusableInputError: it cannot be used.
        """

    @abstractmethod
    def load(self, names: Iterable[str]) -> list[OnePrepared]:
        """The prepared CT of these names."""

    @abstractmethod
    def litres(self, people: Iterable[OnePrepared]) -> float:
        """Volume of their lungs."""

    @abstractmethod
    def settings(self, steps: int) -> Any:
        """A dataclass with ``steps``: how to train so long."""

    @abstractmethod
    def stored_settings(self, stored: dict[str, Any]) -> Any:
        """The same as JSON gives it back."""

    @abstractmethod
    def seconds_per_step(self, device: str) -> float:
        """Time of a step on this computer; one is made to know."""

    @abstractmethod
    def memory_mb(self, largest_voxels: int) -> float:
        """Memory at the peak, after a step was made; the largest CT has so many voxels."""

    @abstractmethod
    def disk_mb(self, litres: float) -> float:
        """Disk that run and model take, for so much lung."""

    @abstractmethod
    def train(
        self,
        settings: Any,
        people: tuple[list[OnePrepared], list[OnePrepared]],
        progress: Progress,
        ranks: Ranks,
        device: str,
    ) -> int:
        """Train on the first, judged by the others; returns the step that was reached."""

    @abstractmethod
    def training_facts(self) -> dict[str, Any]:
        """What ``model.json`` says of the training."""

    @abstractmethod
    def told(self, training: Mapping[str, Any]) -> str:
        """The same for the model card, in a line."""

    @abstractmethod
    def write_networks(
        self, folder: Path, facts: dict[str, Any], trained_on: list[Path], progress: Progress
    ) -> None:
        """Write the weights into the new model's folder, and into ``facts`` what is to be known of them."""

    @abstractmethod
    def figures(
        self, tuned: models.Model, held_back: list[OnePrepared]
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """What base and new model are worth on the patients held back."""

    @abstractmethod
    def judge(self, before: dict[str, Any], after: dict[str, Any]) -> list[str]:
        """What the figures say, in sentences; the first one sums up."""


def steps_between(steps: int) -> int:
    """Steps between two comparisons of a run of so many."""
    return min(max(steps // CHECKS, LEAST_STEPS_BETWEEN), MOST_STEPS_BETWEEN, steps)


def size_mb(folder: Path) -> float:
    """Of the files in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) / 1e6
