"""``diffseglung segment`` in a process of its own: the page stays alive, and cancelling ends it at once."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import CancelledError, DiffSegLungError

LIBRARY_PARENT = Path(__file__).resolve().parents[3]
ERROR_PREFIX = "diffseglung: error: "
KEPT_LINES = 50

OnProgress = Callable[[str, float, str], None]
"""Told stage, fraction of the whole (0 to 1) and message."""


class Computation:
    """One run of a command that reports its progress as JSON lines.

    Usage example:
        computation = Computation(["segment", "ct.nrrd", "-o", "ct.seg.nrrd", "--progress", "json"])
        await computation.run(on_progress)      # elsewhere: computation.cancel()
    """

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._process: asyncio.subprocess.Process | None = None
        self._errors: deque[str] = deque(maxlen=KEPT_LINES)
        self._cancelled = False

    async def run(self, on_progress: OnProgress) -> None:
        """Starts the process and returns when it has ended well.

        Raises:
            CancelledError: `cancel` was called.
            DiffSegLungError: it failed; the message is its own.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "DiffSegLungLib", *self._arguments,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=_child_environment(), **_own_group(),
        )  # fmt: skip
        try:
            if self._cancelled:  # while it was being started
                self.cancel()
            await asyncio.gather(self._read_progress(on_progress), self._read_errors())
            status = await self._process.wait()
        finally:
            self._kill()  # nothing goes on computing after an error here
        if self._cancelled:
            raise CancelledError("Cancelled.")
        if status:
            raise DiffSegLungError(self._reason(status))

    def cancel(self) -> None:
        """Ends the process and all that it started, at once."""
        self._cancelled = True
        self._kill()

    def _kill(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if os.name == "nt":
            subprocess.run(
                ["taskkill", "/F", "/T", "/PID", str(process.pid)], capture_output=True, check=False
            )
            return
        with contextlib.suppress(ProcessLookupError):  # it ended by itself meanwhile
            os.killpg(process.pid, signal.SIGKILL)

    async def _read_progress(self, on_progress: OnProgress) -> None:
        assert self._process and self._process.stdout
        async for line in self._process.stdout:
            with contextlib.suppress(ValueError, KeyError, TypeError):  # other output: the manifest's path
                record = json.loads(line)
                on_progress(str(record["stage"]), float(record["fraction"]), str(record["message"]))

    async def _read_errors(self) -> None:
        assert self._process and self._process.stderr
        async for line in self._process.stderr:
            self._errors.append(line.decode("utf-8", "replace").strip())

    def _reason(self, status: int) -> str:
        for line in self._errors:
            if line.startswith(ERROR_PREFIX):
                return line.removeprefix(ERROR_PREFIX)
        ended = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        return f"The computing process {ended}; the computer may be short of memory."


def _child_environment() -> dict[str, str]:
    """The environment in which the child finds the library that runs here, wherever it was found."""
    paths = [str(LIBRARY_PARENT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONIOENCODING": "utf-8"}


def _own_group() -> dict[str, Any]:
    """Options that put the child and its own children into a group that can be ended as one."""
    if os.name == "nt":
        return {"creationflags": getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0)}
    return {"start_new_session": True}
