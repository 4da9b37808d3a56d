"""Commands of the library that run one after the other while Slicer goes on, and what follows them.

Nothing enters the scene before the last command has ended well.
"""

from __future__ import annotations

import contextlib
import enum
import logging
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import CancelledError, DiffSegLungError, MissingPartError, UnusableInputError

from .childProcess import ChildProcess, ProgressRecord

POLL_SECONDS = 0.05
LONG_ENOUGH = 0.08
"""Share of the work from which the time left can be told."""
KNOWN_ERRORS = {error.exit_status: error for error in (UnusableInputError, MissingPartError, CancelledError)}

Command = Callable[[], Sequence[str]]
OnProgress = Callable[[ProgressRecord], None]


class State(enum.Enum):
    """Where a run is.  It ends in one of the last three."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Run:
    """One or more commands in child processes.  Call `poll` now and then, or `wait`.

    Usage example:
        run = Run([lambda: ["check", "--json"]], commit=lambda: "fine", folder=newFolder())
        print(run.wait())

    Args:
        commands: each gives the arguments of one command, when its turn comes.
        commit: called when all have ended well; what it returns is the run's result.
        folder: of temporary files, removed at the end; None where there are none.
        onProgress: told of the whole run's progress.
        accepted: exit statuses of a command that ended well.

    Attributes:
        state: where the run is.
        error: why it failed.
        result: what `commit` returned.
        output: what the commands that have ended wrote on standard output.
    """

    def __init__(
        self,
        commands: Sequence[Command],
        commit: Callable[[], Any],
        folder: Path | None,
        onProgress: OnProgress | None = None,
        accepted: Sequence[int] = (0,),
    ) -> None:
        self.state, self.error, self.result = State.RUNNING, None, None
        self.output: list[str] = []
        self._log: list[str] = []
        self._accepted = tuple(accepted)
        self._waiting, self._count = list(commands), len(commands)
        self._commit, self._folder = commit, folder
        self._onProgress = onProgress or (lambda record: None)
        self._child: ChildProcess | None = None
        self._fraction, self._started = 0.0, time.monotonic()
        self._guarded(self._startNext)

    @property
    def isRunning(self) -> bool:
        """Whether it has not ended yet."""
        return self.state is State.RUNNING

    @property
    def pid(self) -> int:
        """Process number of the command that runs now, 0 if none does."""
        return self._child.pid if self._child else 0

    @property
    def log(self) -> str:
        """What the commands have written, errors included."""
        return "\n".join([*self._log, *(self._child.log if self._child else ())])

    def secondsLeft(self) -> float | None:
        """Time until the end at the pace so far; None while that cannot be told."""
        if self._fraction < LONG_ENOUGH:
            return None
        return (time.monotonic() - self._started) * (1 - self._fraction) / self._fraction

    def poll(self) -> bool:
        """Passes progress on and takes the next step where one is due.

        Returns:
            Whether the run goes on.
        """
        if self.isRunning and self._child:
            for record in self._child.newRecords():
                self._report(record)
            if self.isRunning and not self._child.isRunning():  # a callback may have cancelled it
                self._guarded(self._onCommandEnded)
        return self.isRunning

    def wait(self, processEvents: Callable[[], Any] = lambda: None) -> Any:
        """Returns the result at the end; meanwhile the window is kept alive by ``processEvents``.

        Raises:
            DiffSegLungError: it failed, or was cancelled; one line that says what, where and the remedy.
        """
        try:
            while self.poll():
                processEvents()
                time.sleep(POLL_SECONDS)
        except BaseException:  # Ctrl+C, or an error of the caller's own callback: nothing may go on unseen
            self.cancel()
            raise
        if self.error:
            raise self.error
        return self.result

    def cancel(self) -> None:
        """Ends the process and all that it started; the scene stays as it was."""
        if self.isRunning:
            if self._child:
                self._child.cancel()
            self._end(State.CANCELLED, CancelledError("Cancelled; the scene is as it was."))

    def _report(self, record: ProgressRecord) -> None:
        done = self._count - len(self._waiting) - 1
        self._fraction = (done + record.fraction) / self._count
        message = record.message
        if self._count > 1:
            message = f"{done + 1} of {self._count} {message}".rstrip()
        self._onProgress(ProgressRecord(record.stage, self._fraction, message, record.peakMb))

    def _startNext(self) -> None:
        self._child = ChildProcess(self._waiting.pop(0)())

    def _onCommandEnded(self) -> None:
        child, self._child = self._child, None
        self.output += child.output
        self._log += child.log
        if child.exitStatus not in self._accepted:
            raise KNOWN_ERRORS.get(child.exitStatus, DiffSegLungError)(child.errorMessage)
        if self._waiting:
            self._startNext()
        else:
            self.result = self._commit()
            self._end(State.DONE)

    def _guarded(self, step: Callable[[], None]) -> None:
        """A step whose error ends the run: whoever polls must never be left with a run that cannot end."""
        try:
            step()
        except DiffSegLungError as error:
            self._end(State.FAILED, error)
        except Exception as error:
            logging.exception("DiffSegLung")
            self._end(State.FAILED, DiffSegLungError(f"{type(error).__name__}: {error}. See the log."))

    def _end(self, state: State, error: DiffSegLungError | None = None) -> None:
        self.state, self.error = state, error
        if self._child:
            self._log += self._child.log
        self._child = None
        if self._folder is not None:
            removeFolder(self._folder)


def newFolder(kind: str = "") -> Path:
    """A folder of this run's own for temporary files; of another kind, for what outlives the run."""
    import slicer

    parent = Path(slicer.app.temporaryPath)
    parent.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"DiffSegLung{kind}-", dir=parent))


def removeFolder(folder: Path) -> None:
    """Removes it with all that is in it; on Windows a file may be held a moment longer."""
    with contextlib.suppress(OSError):
        shutil.rmtree(folder)
