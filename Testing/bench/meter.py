"""Time, processor time and memory of each stage of a run, from the progress that the pipeline tells."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")
RESET_PEAK = "5"
"""Written to ``CLEAR`` it sets the kernel's high-water mark of this process back to the present."""
SAMPLE_SECONDS = 0.05
MOST_SAMPLES = 300


@dataclass
class StageFigures:
    """What one stage took.

    Attributes:
        seconds: by the clock on the wall.
        cpu_seconds: of all threads, user and system; what other programs do hardly enters.
        peak_mb: the most memory the process held meanwhile, 10^6 bytes.
        gflop: floating-point operations of torch, where they are counted.
    """

    seconds: float
    cpu_seconds: float
    peak_mb: float
    gflop: float = 0.0


@dataclass
class StageMeter:
    """A progress (``progress.py``) that closes a stage when the next is told.

    Attributes:
        figures: the stages in their order; ``start`` is what came before the first.
        memory: seconds since the start, MB held, stage: one sample every 50 ms.
        flops: operations so far, where they are counted.
    """

    figures: dict[str, StageFigures] = field(default_factory=dict)
    memory: list[tuple[float, float, str]] = field(default_factory=list)
    flops: Callable[[], int] = lambda: 0
    _stage: str = "start"

    def __post_init__(self) -> None:
        self._began = time.perf_counter() - _age_of_process()
        self._wall, self._cpu, self._gflop = self._began, 0.0, 0.0
        self._ended = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def __call__(self, stage: str, fraction: float, message: str = "") -> None:
        """Told by the pipeline; a new stage ends the one before it."""
        if stage != self._stage:
            self._close()
            self._stage = stage

    def end(self) -> None:
        """Close the last stage."""
        self._close()
        self._ended.set()

    def _close(self) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        gflop = self.flops() / 1e9
        before = self.figures.get(self._stage, StageFigures(0.0, 0.0, 0.0))
        self.figures[self._stage] = StageFigures(
            round(before.seconds + wall - self._wall, 3),
            round(before.cpu_seconds + cpu - self._cpu, 3),
            max(before.peak_mb, _status_mb("VmHWM")),
            round(before.gflop + gflop - self._gflop, 3),
        )
        self._wall, self._cpu, self._gflop = wall, cpu, gflop
        CLEAR.write_text(RESET_PEAK)

    def _sample(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            seconds = time.perf_counter() - self._began
            self.memory.append((round(seconds, 2), _status_mb("VmRSS"), self._stage))

    def report(self) -> dict[str, Any]:
        """All of it, for JSON."""
        total = {
            "seconds": round(sum(stage.seconds for stage in self.figures.values()), 2),
            "cpu_seconds": round(sum(stage.cpu_seconds for stage in self.figures.values()), 2),
            "peak_mb": max(stage.peak_mb for stage in self.figures.values()),
        }
        stages = {name: vars(stage) for name, stage in self.figures.items()}
        thinned = self.memory[:: max(len(self.memory) // MOST_SAMPLES, 1)]
        return {"stages": stages, "total": total, "memory": thinned}


def _status_mb(key: str) -> float:
    for line in STATUS.read_text().splitlines():
        if line.startswith(key + ":"):
            return round(int(line.split()[1]) * 1024 / 1e6, 1)
    return 0.0


def _age_of_process() -> float:
    """Seconds since this process began: the imports count, a user waits for them too."""
    started = int(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / os.sysconf(
        "SC_CLK_TCK"
    )
    return float(Path("/proc/uptime").read_text().split()[0]) - started
