"""Independent pieces of work on as many threads as torch may use: NumPy and SciPy let go of Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Result = TypeVar("Result")


def threads() -> int:
    """Threads that may be used: torch's number, which ``OMP_NUM_THREADS`` and the caller set."""
    import torch

    return torch.get_num_threads()


def run_all(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run tasks side by side, and return what they give in their order.

    The first error is raised, once all tasks have ended.
    """
    workers = min(threads(), len(tasks))
    if workers < 2:
        return [task() for task in tasks]
    with ThreadPoolExecutor(workers) as pool:
        futures = [pool.submit(task) for task in tasks]
    return [future.result() for future in futures]
