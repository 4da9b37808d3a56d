"""A command of the library in a process of its own: it reports progress, and it can be ended at once.

Slicer's window stays alive meanwhile, and a crash of the computation does not take Slicer along.
"""

from __future__ import annotations

import collections
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import DiffSegLungLib

LOG_LINES = 1000
CANCELLED = 130

# Wherever this process has found the library: in the source tree beside the module, installed within it.
LIBRARY_PARENT = Path(DiffSegLungLib.__file__).resolve().parents[1]
ENDING_SECONDS, READING_SECONDS = 1.0, 0.2
"""How long an end is waited for: Slicer must not hang where a process cannot be ended."""


@dataclass(frozen=True)
class ProgressRecord:
    """One line of ``--progress json``: where the work is, how far (0 to 1), and the peak memory in MB."""

    stage: str
    fraction: float
    message: str = ""
    peakMb: float = 0.0


class ChildProcess:
    """``python -m DiffSegLungLib ARGUMENTS`` beside this process.

    Usage example:
        child = ChildProcess(["segment", "ct.nrrd", "-o", "ct.seg.nrrd", "--progress", "json"])
        while child.isRunning():
            for record in child.newRecords():
                print(record.stage, record.fraction)

    Attributes:
        log: the last lines that the child wrote, its errors included, its progress not.
        output: of these, what it wrote on standard output.
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self.log: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self.output: collections.deque[str] = collections.deque(maxlen=LOG_LINES)
        self._records: queue.SimpleQueue[ProgressRecord] = queue.SimpleQueue()
        self._errorLine = ""
        self._cancelled = False
        self._process = subprocess.Popen(
            [pythonExecutable(), "-m", "DiffSegLungLib", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=childEnvironment(os.environ),
            encoding="utf-8",
            errors="replace",
            **_ownGroup(),
        )
        self._readers = [
            self._startReader(self._process.stdout, self._onOutput),
            self._startReader(self._process.stderr, self._onError),
        ]

    @staticmethod
    def _startReader(stream: IO[str] | None, handle) -> threading.Thread:
        # A thread a stream: a pipe that nobody empties would stop the child.
        def read() -> None:
            for line in stream or ():
                handle(line.rstrip("\r\n"))

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        return reader

    def _onOutput(self, line: str) -> None:
        record = _parseRecord(line)
        if record:
            self._records.put(record)
        elif line.strip():
            self.output.append(line)
            self.log.append(line)

    def _onError(self, line: str) -> None:
        if line.strip():
            self._errorLine = line
            self.log.append(line)

    def isRunning(self) -> bool:
        """False once the process has ended and all that it wrote has been read."""
        return self._process.poll() is None or any(reader.is_alive() for reader in self._readers)

    def newRecords(self) -> list[ProgressRecord]:
        """The progress since the last call, oldest first."""
        records = []
        while not self._records.empty():
            records.append(self._records.get())
        return records

    @property
    def pid(self) -> int:
        """Process number of the child; on Slicer that of its launcher."""
        return self._process.pid

    @property
    def exitStatus(self) -> int | None:
        """As the command line defines it (0 done, 2 unusable input, ...); None while it runs."""
        return CANCELLED if self._cancelled else self._process.returncode

    @property
    def errorMessage(self) -> str:
        """Why it failed, in one line that a user understands."""
        prefix = "diffseglung: error: "
        for line in reversed(list(self.log)):
            if line.startswith(prefix):
                return line[len(prefix) :]
        status = self._process.returncode
        ended = f"was ended by signal {-status}" if status and status < 0 else f"ended with status {status}"
        hint = f" Its last words: {self._errorLine}" if self._errorLine else ""
        return f"The computing process {ended}; the computer may be short of memory.{hint}"

    def cancel(self) -> None:
        """Ends the process and all that it started, at once.  Returns when it is gone, or soon."""
        if self.isRunning():  # perhaps without its launcher: whoever holds the pipes is still computing
            self._cancelled = True
            _killTree(self._process)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(ENDING_SECONDS)
        for reader in self._readers:  # they end with the pipes, which a stray process may hold
            reader.join(READING_SECONDS)


def pythonExecutable() -> str:
    """Slicer's Python for the command line; outside of Slicer the one that runs this."""
    return shutil.which("PythonSlicer") or sys.executable


def childEnvironment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment in which the child finds the library, and writes what it has to say at once."""
    paths = [str(LIBRARY_PARENT), *filter(None, [environment.get("PYTHONPATH")])]
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(paths),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
    }


def _ownGroup() -> dict:
    """Options of Popen that put the child and its own children into a group that can be ended as one.

    Slicer's PythonSlicer is a launcher: ending it alone would leave the real Python computing.
    """
    if os.name == "nt":
        return {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _killTree(process: subprocess.Popen) -> None:
    if os.name == "nt":
        command = ["taskkill", "/F", "/T", "/PID", str(process.pid)]
        with contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                command,
                capture_output=True,
                check=False,
                timeout=ENDING_SECONDS,
                creationflags=subprocess.CREATE_NO_WINDOW,
            )
        return
    with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
        os.killpg(process.pid, signal.SIGKILL)


def _parseRecord(line: str) -> ProgressRecord | None:
    """The progress that a line tells of, or None if it is other output."""
    try:
        fields = json.loads(line)
        return ProgressRecord(
            str(fields["stage"]),
            min(max(float(fields["fraction"]), 0.0), 1.0),
            str(fields.get("message", "")),
            float(fields.get("peak_mb", 0.0)),
        )
    except (ValueError, KeyError, TypeError):
        return None
