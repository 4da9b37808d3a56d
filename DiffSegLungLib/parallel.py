"""Independent pieces of work on as many threads as torch may use: NumPy and SciPy let go of Python."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

Result = TypeVar("Result")

_OWN = threading.local()
"""``share``: of torch's threads, in a thread that runs a task."""


class _TorchThreads:
    """Torch's number of threads, which is one for the whole process, while some callers share it out.

    A thread that sets its number sets it for all threads that are yet to come.  So whoever begins to share
    while others do must not ask torch for the whole.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sharing, self._whole = 0, 0

    def count(self) -> int:
        """The whole number, whatever share of it is set at present."""
        with self._lock:
            return self._whole if self._sharing else _of_a_new_thread()

    @contextmanager
    def shared(self) -> Iterator[None]:
        """While some threads are set to a share; in the end the caller's own number is restored."""
        import torch

        with self._lock:
            self._whole = self._whole if self._sharing else _of_a_new_thread()
            self._sharing += 1
        try:
            yield
        finally:
            with self._lock:
                self._sharing -= 1
                torch.set_num_threads(_own_share() or self._whole)  # also of threads that are yet to come


_TORCH_THREADS = _TorchThreads()


def _of_a_new_thread() -> int:
    """The number that was set last: a thread that is older than that keeps its own."""
    import torch

    found: list[int] = []
    asking = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    asking.start()
    asking.join()
    return found[0]


def threads() -> int:
    """Threads that may be used: torch's number, by ``OMP_NUM_THREADS`` or a caller; of a task its share."""
    return _own_share() or _TORCH_THREADS.count()


def _own_share() -> int:
    """Of the task that this thread runs; 0 where it runs none."""
    return int(getattr(_OWN, "share", 0))


def run_all(tasks: Sequence[Callable[[], Result]]) -> list[Result]:
    """Run tasks side by side, and return what they give in their order.

    Torch's own threads are shared out among the tasks: were each to take them all, they would wait for each
    other.  The first error is raised, once all tasks have ended.
    """
    workers = min(threads(), len(tasks))
    if workers < 2:
        return [task() for task in tasks]
    share = max((_own_share() or _TORCH_THREADS.count()) // workers, 1)
    with _TORCH_THREADS.shared(), ThreadPoolExecutor(workers, initializer=_take, initargs=(share,)) as pool:
        futures = [pool.submit(task) for task in tasks]
    return [future.result() for future in futures]


def _take(share: int) -> None:
    """A worker's part of torch's threads."""
    import torch

    torch.get_num_threads()  # a thread's first question sets what is valid then: asked later, it undid this
    torch.set_num_threads(share)
    _OWN.share = share
