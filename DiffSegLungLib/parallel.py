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

    Torch's own threads are shared out among the tasks: were each to take them all, they would wait for each
    other.  The first error is raised, once all tasks have ended.
    """
    workers = min(threads(), len(tasks))
    if workers < 2:
        return [task() for task in tasks]
    import torch

    count = torch.get_num_threads()
    share = max(count // workers, 1)
    try:
        with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(share,)) as pool:
            futures = [pool.submit(task) for task in tasks]
    finally:
        torch.set_num_threads(count)  # a thread sets it for all threads that are yet to come
    return [future.result() for future in futures]
