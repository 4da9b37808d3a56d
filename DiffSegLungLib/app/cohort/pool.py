"""Hands jobs to workers and outlives workers that die: the case is tried again, the others go on."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from types import FrameType
from typing import Any, NoReturn, Protocol

from DiffSegLungLib.app.cohort.jobs import (
    OUR_FAULT,
    Job,
    Outcome,
    failure,
    limit_threads,
    run_job,
    write_record,
)
from DiffSegLungLib.io.files import ours_alone

PATIENCE_S = 10.0
"""Seconds a worker has to remove its unfinished files before it is killed."""


class Pool(Protocol):
    """Workers of any kind."""

    def is_free(self) -> bool:
        """Whether one more job can be started now."""

    def start(self, job: Job) -> None:
        """Give a job to a free worker."""

    def wait(self) -> list[tuple[Job, Outcome | None]]:
        """Wait until at least one job has ended; None for one whose worker died."""

    def close(self) -> None:
        """End all workers and what they do."""


def run_jobs(jobs: Sequence[Job], pool: Pool, retries: int, told: Callable[[Outcome], None]) -> None:
    """Run every job to an outcome.

    Args:
        jobs: each case once.
        pool: the workers; closed in the end, whatever happens.
        retries: how often a case is tried again whose worker died.
        told: each outcome, once a case.
    """
    waiting, attempts, running = deque(jobs), Counter[str](), 0
    try:
        while waiting or running:
            while waiting and pool.is_free():
                job = waiting.popleft()
                attempts[job.case] += 1
                pool.start(job)
                running += 1
            for job, outcome in pool.wait():
                running -= 1
                tried = attempts[job.case]
                if outcome is None and tried <= retries:
                    waiting.append(job)
                else:
                    told(replace(outcome or _lost(job, tried), attempts=tried))
    finally:
        pool.close()


def _lost(job: Job, attempts: int) -> Outcome:
    reason = f"Its worker died {attempts} times, perhaps for want of memory: give fewer workers."
    outcome = failure(job, reason, OUR_FAULT)
    write_record(job, outcome)
    return outcome


class LocalPool:
    """Processes of this computer, each of which keeps its packages loaded from case to case.

    Args:
        workers: how many cases at a time.
        threads: of each worker.
    """

    def __init__(self, workers: int, threads: int) -> None:
        self._workers = [_Worker(threads) for _ in range(workers)]

    def is_free(self) -> bool:
        """See `Pool`."""
        return any(worker.job is None for worker in self._workers)

    def start(self, job: Job) -> None:
        """See `Pool`."""
        next(worker for worker in self._workers if worker.job is None).start(job)

    def wait(self) -> list[tuple[Job, Outcome | None]]:
        """See `Pool`."""
        busy = [worker for worker in self._workers if worker.job is not None]
        ready = set(wait([thing for worker in busy for thing in worker.signs]))
        return [worker.finish() for worker in busy if ready.intersection(worker.signs)]

    def close(self) -> None:
        """See `Pool`."""
        for worker in self._workers:
            worker.ask_to_end()
        for worker in self._workers:
            worker.end()


class _Worker:
    """One process, started when it first gets a job and again after it died."""

    job: Job | None = None

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._process: Any = None

    @property
    def signs(self) -> list[Any]:
        """What becomes ready when the job has ended or the process has."""
        return [self._connection, self._process.sentinel]

    def start(self, job: Job) -> None:
        if self._process is None:
            context = multiprocessing.get_context("spawn")  # a fork of threads that compute would hang
            self._connection, far_end = context.Pipe()
            self._process = context.Process(target=_work, args=(far_end, self._threads), daemon=True)
            self._process.start()
            far_end.close()
        self.job = job
        with suppress(OSError):  # it died between two jobs; `finish` finds out
            self._connection.send(job)

    def finish(self) -> tuple[Job, Outcome | None]:
        job, self.job = self.job, None
        assert job is not None
        try:
            return job, self._connection.recv()
        except (EOFError, OSError):
            self._process.join()
            self._process = None
            return job, None

    def ask_to_end(self) -> None:
        if self._process is not None:
            self._process.terminate()

    def end(self) -> None:
        if self._process is not None:
            self._process.join(PATIENCE_S)
            self._process.kill()
            self._process.join()


def _work(connection: Connection, threads: int) -> None:
    """A worker's life: a job in, an outcome out, until nobody asks any more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches all processes; the first one decides
    signal.signal(signal.SIGTERM, _unwind)
    os.dup2(sys.stderr.fileno(), 1)  # standard output belongs to the progress records
    try:
        limit_threads(threads)
        with ours_alone():
            while True:
                connection.send(run_job(connection.recv()))
    except (EOFError, OSError, KeyboardInterrupt):
        return


def _unwind(number: int, frame: FrameType | None) -> NoReturn:
    """A request to end removes unfinished files on its way out."""
    raise KeyboardInterrupt
