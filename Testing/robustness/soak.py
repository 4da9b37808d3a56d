"""Many small cases in one process: does it keep memory?  ``python -m Testing.robustness.soak [CASES]``.

Prints the memory every tenth case and the slope over the second half in MB a case; exit status 1 above LIMIT.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.pipeline import segment
from Testing.robustness.scans import image_of, phantom

CASES = 300
LIMIT_MB = 0.1
"""Most growth a case."""
BOX = (slice(16, 36), slice(18, 44), slice(10, 30))


def resident_mb() -> float:
    """What the process holds at this moment, in MB; Linux tells without another package."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024 / 1e6
    import psutil

    return float(psutil.Process().memory_info().rss) / 1e6


def one_case(number: int) -> None:
    """A small CT with noise of its own, segmented within a given mask."""
    hu = phantom().hu[BOX] + np.random.default_rng(number).normal(0, 5, (20, 26, 20))
    mask = sitk.Cast(image_of(phantom().sides[BOX] > 0), sitk.sitkUInt8)
    segment(image_of(hu), lungs=mask, device="cpu", quality="fast", seed=number)


def slope_mb(memory: list[float]) -> float:
    """MB a case over the second half, by the median of the slopes of all pairs (Theil and Sen)."""
    second = memory[len(memory) // 2 :]
    pairs = [(b - a) / (j - i) for i, a in enumerate(second) for j, b in enumerate(second) if j > i]
    return float(np.median(pairs))


def soak(cases: int) -> list[float]:
    """Memory in MB after each case."""
    memory = []
    for number in range(cases):
        one_case(number)
        gc.collect()
        memory.append(resident_mb())
        if number % 10 == 9:
            print(f"{number + 1:4d} cases  {memory[-1]:7.1f} MB", flush=True)
    return memory


def main() -> int:
    """Run and judge."""
    memory = soak(int(sys.argv[1]) if len(sys.argv) > 1 else CASES)
    slope = slope_mb(memory)
    print(f"Soak: {len(memory)} cases, {slope:+.3f} MB a case over the second half (limit {LIMIT_MB})")
    return int(slope >= LIMIT_MB)


if __name__ == "__main__":
    sys.exit(main())
