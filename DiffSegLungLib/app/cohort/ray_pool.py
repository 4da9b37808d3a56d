"""The same jobs on a Ray cluster: an actor a worker, lost nodes made good.

The cohort's folders must lie where every node sees them under the same path, and DiffSegLung be installed on
each node.
"""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from typing import Any

from DiffSegLungLib.app.cohort.jobs import Job, Outcome, limit_threads, run_job
from DiffSegLungLib.errors import MissingPartError

QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing about a cohort leaves the cluster
}
STARTS = 3
"""A busy computer may not start Ray's processes within the half minute that Ray gives them."""
ANSWER_SECONDS = 10


class _Actor:
    """What lives on the cluster; keeps its packages loaded from case to case."""

    def __init__(self, threads: int) -> None:
        limit_threads(threads)

    def run(self, job: Job) -> Outcome:
        """Do one case."""
        return run_job(job)


class RayPool:
    """Actors of a Ray cluster.

    Args:
        workers: how many cases at a time; None for as many as the cluster has graphics cards, or cores for.
        threads: cores of each worker.
        gpu: whether each worker holds a graphics card of its own.
        address: of a running cluster; None for ``RAY_ADDRESS``, else for one on this computer alone.

    Raises:
        MissingPartError: Ray is not installed, or the cluster cannot be reached or is too small.
    """

    def __init__(self, workers: int | None, threads: int, gpu: bool, address: str | None = None) -> None:
        if find_spec("ray") is None:
            raise MissingPartError("The engine ray needs the package ray: pip install 'diffseglung[ray]'")
        for name, value in QUIET.items():
            os.environ.setdefault(name, value)
        import ray

        self._ray = ray
        self._started = not ray.is_initialized()
        if self._started:
            _connect(ray, workers, threads, address)
        self._actor: Any = ray.remote(num_cpus=threads, num_gpus=int(gpu), max_restarts=0)(_Actor)
        self._threads = threads
        self._most = workers or _places(ray.cluster_resources(), threads, gpu)
        self._free: list[Any] = []
        self._running: dict[Any, tuple[Any, Job]] = {}

    def is_free(self) -> bool:
        """See `pool.Pool`."""
        return len(self._running) < self._most

    def start(self, job: Job) -> None:
        """See `pool.Pool`; a new actor goes wherever the cluster has room."""
        actor = self._free.pop() if self._free else self._actor.remote(self._threads)
        self._running[actor.run.remote(job)] = actor, job

    def wait(self) -> list[tuple[Job, Outcome | None]]:
        """See `pool.Pool`."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1)
        return [self._finish(reference) for reference in ready]

    def _finish(self, reference: Any) -> tuple[Job, Outcome | None]:
        actor, job = self._running.pop(reference)
        try:
            outcome: Outcome = self._ray.get(reference)
        except self._ray.exceptions.RayError:  # the actor, its process or its node is gone
            self._ray.kill(actor)
            return job, None
        self._free.append(actor)
        return job, outcome

    def close(self) -> None:
        """See `pool.Pool`."""
        for actor in [*self._free, *(actor for actor, _ in self._running.values())]:
            self._ray.kill(actor)
        if self._started:
            self._ray.shutdown()


def _connect(ray: Any, workers: int | None, threads: int, address: str | None) -> None:
    where = address or os.environ.get("RAY_ADDRESS")
    if where:
        _require_answer(where)
    alone = {} if where else {"num_cpus": (workers or 1) * threads, "include_dashboard": False}
    if not where:
        os.environ.setdefault("RAY_AUTH_MODE", "disabled")  # else Ray leaves a token in the home folder
    for attempt in range(1, STARTS + 1):
        try:
            ray.init(address=where, log_to_driver=False, logging_level="ERROR", **alone)
            return
        except Exception as error:  # where a node starts too slowly Ray raises this very class
            ray.shutdown()
            if where or attempt == STARTS:
                raise _unreachable(where, error) from error


def _require_answer(where: str) -> None:
    """Ray itself tries for many minutes where nobody answers.

    Raises:
        MissingPartError: nothing listens there; other kinds of address are left to Ray.
    """
    host, _, port = where.removeprefix("ray://").rpartition(":")
    if not (host and port.isdecimal()):
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise _unreachable(where, error) from error


def _unreachable(where: str | None, error: Exception) -> MissingPartError:
    reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
    remedy = "start one there, or check --address" if where else "close other programs, or use --engine local"
    return MissingPartError(f"No Ray cluster at {where or 'this computer'}: {reason}; {remedy}.")


def _places(resources: dict[str, float], threads: int, gpu: bool) -> int:
    """How many workers a cluster has room for.

    Raises:
        MissingPartError: not even for one.
    """
    room = int(resources.get("GPU", 0)) if gpu else int(resources.get("CPU", 0)) // threads
    if room < 1:
        wanted = "a graphics card" if gpu else f"{threads} free cores"
        raise MissingPartError(f"The Ray cluster has no node with {wanted}: add one, or change --device.")
    return room
