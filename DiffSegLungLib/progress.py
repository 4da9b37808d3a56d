"""How far the work is: for programs one JSON object a line, for people a bar."""

from __future__ import annotations

import importlib
import json
import math
import sys
from pathlib import Path
from typing import Any, Protocol, TextIO

from DiffSegLungLib.errors import CancelledError

PLAIN_STEP = 0.1
"""Without a terminal a line is written per stage and per tenth: a log stays short."""

PROCESS_STATUS = Path("/proc/self/status")
MEMORY_STATUS = Path("/proc/meminfo")
"""Linux only."""


class Progress(Protocol):
    """What the long functions call; ``fraction`` is of the whole work, 0 to 1."""

    def __call__(self, stage: str, fraction: float, message: str = "") -> None: ...


def silent(stage: str, fraction: float, message: str = "") -> None:
    """Says nothing."""


def part(progress: Progress, start: float, end: float) -> Progress:
    """Progress of one part of the work: its 0 to 1 is ``start`` to ``end`` of the whole."""

    def of_part(stage: str, fraction: float, message: str = "") -> None:
        progress(stage, start + (end - start) * min(max(fraction, 0.0), 1.0), message)

    return of_part


class Rising:
    """Keeps the fraction within 0 and 1 and never lets it fall back."""

    def __init__(self) -> None:
        self.fraction = 0.0

    def __call__(self, fraction: float) -> float:
        """Returns the highest fraction so far; what is not a number is passed over."""
        if fraction > self.fraction:  # False for NaN
            self.fraction = min(float(fraction), 1.0)
        return self.fraction


class JsonProgress:
    """Writes ``{"stage", "fraction", "message", "peak_mb"}`` a line, at once.

    Args:
        stream: where the lines go; nothing else may write there meanwhile.

    Raises:
        CancelledError: on a call after the reader has gone away; nobody waits for the result.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._rising = Rising()

    def __call__(self, stage: str, fraction: float, message: str = "") -> None:
        record = {
            "stage": stage,
            "fraction": round(self._rising(fraction), 4),
            "message": message,
            "peak_mb": round(peak_memory_mb(), 1),
        }
        try:
            self._stream.write(json.dumps(record) + "\n")
            self._stream.flush()
        except BrokenPipeError as error:
            raise CancelledError("Cancelled: the program that read the progress has gone.") from error


class BarProgress:
    """A bar where the stream is a terminal, else a short line per stage and per tenth of the work.

    Args:
        stream: standard error by default, so that standard output holds the results only.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._rising = Rising()
        self._bar = self._terminal_bar() if self._stream.isatty() else None
        self._stage = ""
        self._next_line = 0.0

    def _terminal_bar(self) -> Any:
        from tqdm import tqdm

        layout = "{percentage:3.0f} %|{bar}| {elapsed} {desc}"
        return tqdm(total=1.0, file=self._stream, bar_format=layout, dynamic_ncols=True, leave=False)

    def __call__(self, stage: str, fraction: float, message: str = "") -> None:
        reached = self._rising(fraction)
        text = f"{stage}: {message}" if message else stage
        if self._bar is None:
            self._plain_line(stage, reached, text)
        else:
            self._bar.n = reached
            self._bar.set_description_str(text, refresh=True)

    def _plain_line(self, stage: str, reached: float, text: str) -> None:
        if stage == self._stage and reached < self._next_line:
            return
        self._stage, self._next_line = stage, reached + PLAIN_STEP
        print(f"{100 * reached:3.0f} % {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """Takes the bar off the screen."""
        if self._bar is not None:
            self._bar.close()


def peak_memory_mb() -> float:
    """The most memory this process has held, in MB (10^6 bytes); 0.0 where nothing can tell."""
    if PROCESS_STATUS.exists():
        return _peak_memory_mb_linux()
    try:
        resource: Any = importlib.import_module("resource")
    except ModuleNotFoundError:  # Windows
        return _peak_memory_mb_windows()
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, the others KiB
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * unit / 1e6


def free_memory_mb() -> float:
    """Memory in MB that a program can still take; infinite where nothing can tell."""
    if not MEMORY_STATUS.exists():
        return math.inf
    facts = dict(line.split(":", 1) for line in MEMORY_STATUS.read_text().splitlines() if ":" in line)
    available = facts.get("MemAvailable", "").split()
    return int(available[0]) * 1024 / 1e6 if available else math.inf


def _peak_memory_mb_linux() -> float:
    """From the kernel's high-water mark: ``getrusage`` also counts the program that started us."""
    for line in PROCESS_STATUS.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024 / 1e6
    return 0.0


def _peak_memory_mb_windows() -> float:
    try:
        psutil: Any = importlib.import_module("psutil")
    except ModuleNotFoundError:
        return 0.0
    return float(getattr(psutil.Process().memory_info(), "peak_wset", 0)) / 1e6
