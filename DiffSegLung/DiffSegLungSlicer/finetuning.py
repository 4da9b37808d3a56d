"""A fine-tuning, from the nodes that the user chose to a model in the user's own store.

It is the command ``finetune`` in a child process.  What it needs lies in its run folder, so that it can go on
when the scene, the panel or Slicer itself is gone; scene and run know nothing of each other.
"""

from __future__ import annotations

import contextlib
import enum
import json
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import CancelledError, DiffSegLungError, MissingPartError, UnusableInputError
from DiffSegLungLib.io.atomic import write_json
from DiffSegLungLib.models import store as models
from DiffSegLungLib.training.lock import locked
from DiffSegLungLib.training.run_files import LOG, PLAN, STOP, TRAINING_STAGE, read_log

from . import ownModels
from .childProcess import ProgressRecord
from .parameters import ConsoleParameters
from .run import POLL_SECONDS, OnProgress, Run, newFolder
from .run import State as RunState
from .trainingSources import PATIENTS, Sources

REQUEST = "request.json"
"""In the run folder: what was asked for."""
ENDING_SECONDS = 2.0


@dataclass(frozen=True)
class Parameters(ConsoleParameters):
    """How to fine-tune.

    Attributes:
        name: of the new model.
        base: name or folder of the model to begin with; empty for the one that is shipped.
        minutes: how long to train, about.
        steps: how many steps, instead; 0 where the minutes count.
        stage: ``diffusion``, ``distillation`` or ``both``.
        refitMixture: fit the reference mixture on these CT, which must show every tissue.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of all that is random.
    """

    name: str = ""
    base: str = ""
    minutes: float = 30.0
    steps: int = 0
    stage: str = "both"
    refitMixture: bool = False
    device: str = "auto"
    seed: int = 0

    def words(self) -> list[str]:
        """As the command line takes them."""
        budget = ["--steps", str(self.steps)] if self.steps else ["--minutes", str(self.minutes)]
        words = ["--name", self.name, *budget, "--stage", self.stage, "--device", self.device]
        words += ["--seed", str(self.seed), *(["--base", self.base] if self.base else [])]
        return [*words, "--refit-mixture"] if self.refitMixture else words


class State(enum.Enum):
    """Where a fine-tuning is; it can go on from `PAUSED`, and from `FAILED` where there is a checkpoint."""

    RUNNING = "running"
    PAUSED = "paused"
    DONE = "done"
    FAILED = "failed"


class Job:
    """A fine-tuning at work; call `poll` now and then, or `wait`.

    Args:
        name: of the model; its run folder holds the request.
        onProgress: told of each step.

    Attributes:
        onProgress: the same; another may take its place.
        pausing: whether it was asked to stop.
    """

    def __init__(self, name: str, onProgress: OnProgress | None = None) -> None:
        self.name, self.onProgress, self.pausing = name, onProgress, False
        self.folder = ownModels.runFolder(name)
        self._stage = ""
        words = json.loads((self.folder / REQUEST).read_text(encoding="utf-8"))["words"]
        self._run = Run([lambda: [*words, "--progress", "json"]], self._commit, None, self._onRecord)

    @property
    def state(self) -> State:
        """Where it is."""
        if isinstance(self._run.error, CancelledError):  # by the stop file, or ended
            return State.PAUSED
        return {RunState.RUNNING: State.RUNNING, RunState.DONE: State.DONE}.get(self._run.state, State.FAILED)

    @property
    def error(self) -> DiffSegLungError | None:
        """Why it failed."""
        return self._run.error if self.state is State.FAILED else None

    @property
    def result(self) -> Path | None:
        """The new model's folder, once it is done."""
        return self._run.result

    @property
    def pid(self) -> int:
        """Process number of the child, 0 if none runs."""
        return self._run.pid

    @property
    def log(self) -> str:
        """What the command has written, errors included."""
        return self._run.log

    def secondsLeft(self) -> float | None:
        """Time until the end at the pace so far; None while that cannot be told."""
        return self._run.secondsLeft()

    def poll(self) -> bool:
        """Passes progress on; returns whether it goes on."""
        if not self._run.isRunning:
            return False
        goesOn = self._run.poll()
        if isinstance(self._run.error, (UnusableInputError, MissingPartError)):
            _forgetUnbegun(self.folder)
        return goesOn

    def wait(self, processEvents: Callable[[], Any] = lambda: None) -> Path:
        """Returns the new model's folder at the end.

        Raises:
            DiffSegLungError: it failed, in one line; CancelledError: it was paused and can go on.
        """
        try:
            while self.poll():
                processEvents()
                time.sleep(POLL_SECONDS)
        except BaseException:  # Ctrl+C: the last whole checkpoint stays
            self.end()
            raise
        if self._run.error:
            raise self._run.error
        return self._run.result

    def pause(self) -> None:
        """Ends it at the next step with a checkpoint; before and after the training at once."""
        self.pausing = self._run.isRunning
        if self.pausing and self._stage == TRAINING_STAGE:
            (self.folder / STOP).touch()
        else:
            self._run.cancel()  # nothing where it has ended

    def end(self) -> None:
        """Pauses, and returns when the process is gone; one that lingers goes on from its last checkpoint."""
        self.pause()
        ends = time.monotonic() + ENDING_SECONDS
        while self.poll() and time.monotonic() < ends:
            time.sleep(POLL_SECONDS)
        self._run.cancel()

    def _onRecord(self, record: ProgressRecord) -> None:
        self._stage = record.stage
        if self.onProgress is not None:
            self.onProgress(record)
        if self.pausing and record.stage != TRAINING_STAGE:  # nobody looks at the stop file there
            self._run.cancel()

    def _commit(self) -> Path:
        """Of the run only its log is kept: the exported CT and what was made of them are patients' data."""
        for path in self.folder.iterdir():
            if path.name != LOG:
                _remove(path)
        return ownModels.use() / self.name


_current: Job | None = None


def current() -> Job | None:
    """The fine-tuning of this Slicer, whoever began it; None before the first."""
    return _current


def begin(parameters: Parameters, sources: Sources, onProgress: OnProgress | None = None) -> Job:
    """Writes the CT and starts.

    Raises:
        UnusableInputError: another runs, the name cannot be used, or the CT cannot.
    """
    _requireNone()
    _requireName(parameters.name)
    sources.require()
    folder = ownModels.runFolder(parameters.name)
    with locked(folder):
        try:
            written = sources.write(folder)
            words = ["finetune", *map(str, written), *parameters.words()]
            words += ["--models", str(ownModels.use()), "--run", str(folder)]
            words += ["--patients", str(folder / PATIENTS)]
            write_json(folder / REQUEST, {"parameters": asdict(parameters), "words": words})
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    return _start(parameters.name, onProgress)


def resume(name: str, onProgress: OnProgress | None = None) -> Job:
    """Goes on from the last whole checkpoint.

    Raises:
        UnusableInputError: another runs, or there is nothing to resume.
    """
    _requireNone()
    if name not in {each["name"] for each in unfinished()}:
        raise UnusableInputError(f"There is no unfinished run {name!r}: start one.")
    with locked(ownModels.runFolder(name)):
        pass  # another Slicer may be at work there
    return _start(name, onProgress)


def _start(name: str, onProgress: OnProgress | None) -> Job:
    global _current
    _current = Job(name, onProgress)
    return _current


def _requireNone() -> None:
    if _current is not None and _current.poll():
        raise UnusableInputError(
            f"The fine-tuning {_current.name!r} is running: wait for it, pause it or stop it first."
        )


def _requireName(name: str) -> None:
    """The library says more; here only what would harm before it is asked."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise UnusableInputError(f"{name!r} is no name for a model: use letters, digits, - and _.")
    if name in {info.name for info in models.list_models()}:
        raise UnusableInputError(f"There is a model {name!r} already: give another name.")
    if name in {each["name"] for each in unfinished()}:
        raise UnusableInputError(f"There is an unfinished run {name!r}: resume it, or give another name.")


def unfinished() -> list[dict]:
    """Runs in the user's store that can be resumed, also after a crash: name, step, steps, parameters."""
    found = []
    for file in sorted(ownModels.use().glob(f"*{ownModels.RUN_SUFFIX}/{REQUEST}")):
        folder, name = file.parent, file.parent.name.removesuffix(ownModels.RUN_SUFFIX)
        with contextlib.suppress(OSError, ValueError, KeyError):
            parameters = json.loads(file.read_text(encoding="utf-8"))["parameters"]
            log = read_log(folder)
            step = int(log[-1]["step"]) if log else 0
            steps = _plannedSteps(folder)
            found.append({"name": name, "step": step, "steps": steps, "parameters": parameters})
    return found


def _plannedSteps(folder: Path) -> int:
    """0 where the training has not begun."""
    if not (folder / PLAN).exists():
        return 0
    return int(json.loads((folder / PLAN).read_text(encoding="utf-8"))["settings"]["steps"])


def discard(name: str) -> None:
    """Deletes an unfinished run with all that it has learnt.

    Raises:
        UnusableInputError: it runs, here or elsewhere, or it cannot be deleted.
    """
    folder = ownModels.runFolder(name)
    if not (folder / REQUEST).exists():
        raise UnusableInputError(f"There is no unfinished run {name!r}.")
    with locked(folder):
        pass
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise UnusableInputError(f"Cannot remove {folder}: {error.strerror}. Check rights.") from error


def _forgetUnbegun(folder: Path) -> None:
    """A run that was refused before its first checkpoint leaves nothing to resume."""
    if (folder / REQUEST).exists() and not (folder / PLAN).exists():
        with contextlib.suppress(UnusableInputError), locked(folder):
            (folder / REQUEST).unlink()
        if not (folder / REQUEST).exists():
            shutil.rmtree(folder, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
        return
    with contextlib.suppress(OSError):  # Windows may hold a file a moment longer
        path.unlink()


def preflightRun(parameters: Parameters, sources: Sources) -> Run:
    """Its result is a dict: ready, missing (sentences), warnings, volumes, patches, steps, minutes ...

    Raises:
        UnusableInputError: there is no CT, or only one.
    """
    sources.require()
    folder = newFolder()

    def command() -> Sequence[str]:
        written = sources.write(folder)
        words = ["finetune", *map(str, written), *parameters.words(), "--models", str(ownModels.use())]
        return [*words, "--patients", str(folder / PATIENTS), "--preflight"]

    def answer() -> dict:
        try:
            return json.loads("\n".join(run.output))
        except ValueError:  # the words themselves were refused
            raise UnusableInputError(run.log.strip().splitlines()[-1]) from None

    run = Run([command], answer, folder, accepted=(0, UnusableInputError.exit_status))
    return run  # `answer` reads it once it has ended
