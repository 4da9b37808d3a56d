"""What this machine is and what it can do at most: a big matrix product and a big copy, in the same run."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

SIDE = 2048
COPY_FLOATS = 64_000_000
REPEATS = 3
LONG_SECONDS = 5.0


def cpu_seconds(work: Callable[[], object], repeats: int = REPEATS) -> float:
    """Least processor time of some calls, of all threads: other programs hardly enter."""
    work()
    best = float("inf")
    for _ in range(repeats):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def wall_and_cpu_seconds(work: Callable[[], object]) -> tuple[float, float]:
    """Clock and processor time of one call; of the second where the first, which warms up, is short."""
    seconds = (0.0, 0.0)
    for _ in range(2):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        seconds = time.perf_counter() - wall, time.process_time() - cpu
        if seconds[1] > LONG_SECONDS:
            break
    return seconds


@torch.inference_mode()
def peaks() -> dict[str, float]:
    """GFLOP and GB a second of processor time: of one core, whatever the number of threads."""
    found = {}
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        # Without instructions of its own bfloat16 is emulated; a smaller product tells as much.
        side = SIDE if kind == torch.float32 or _has_bf16() else SIDE // 8
        matrix = torch.ones((side, side), dtype=kind)
        found[f"{name}_gflops"] = 2 * side**3 / cpu_seconds(partial(torch.matmul, matrix, matrix)) / 1e9
    source = torch.ones(COPY_FLOATS)
    target = torch.empty_like(source)
    found["copy_gbps"] = 2 * 4 * COPY_FLOATS / cpu_seconds(lambda: target.copy_(source)) / 1e9
    return {name: round(value, 1) for name, value in found.items()}


def _has_bf16() -> bool:
    from DiffSegLungLib.representation.features import bfloat16_pays

    return bfloat16_pays()


def describe() -> dict[str, Any]:
    """The machine, without names of people or folders."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "bfloat16": _has_bf16(),
        "load": [round(load, 1) for load in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none: GPU code unmeasured",
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    if not facts.exists():
        return platform.processor()
    names = [line.split(":")[1] for line in facts.read_text().splitlines() if line.startswith("model name")]
    return names[0].strip() if names else platform.processor()
