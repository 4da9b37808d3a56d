"""Work on several threads: the same results in the same order."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pytest
import torch

from DiffSegLungLib import filters
from DiffSegLungLib.parallel import run_all, threads


def use(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr("DiffSegLungLib.parallel.threads", lambda: count)
    monkeypatch.setattr(filters, "threads", lambda: count)


@pytest.mark.parametrize("count", [1, 2, 8])
def test_results_keep_the_order_of_the_tasks(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    use(monkeypatch, count)

    def slowly(number: int) -> int:
        time.sleep(0.02 * (3 - number))
        return number

    assert run_all([partial(slowly, number) for number in range(4)]) == [0, 1, 2, 3]


def test_tasks_run_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, 2)
    both = threading.Barrier(2, timeout=10)  # broken unless two wait at once
    assert sorted(run_all([both.wait, both.wait])) == [0, 1]


def test_torchs_threads_are_shared_out_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, 2)
    before, both = torch.get_num_threads(), threading.Barrier(2, timeout=10)

    def seen() -> int:
        both.wait()
        return torch.get_num_threads()

    torch.set_num_threads(4)
    try:
        assert run_all([seen, seen]) == [2, 2]
        assert torch.get_num_threads() == 4
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 4
    finally:
        torch.set_num_threads(before)


def test_two_callers_leave_torchs_threads_as_they_were() -> None:
    """The second begins while the first has shared them out, in a thread that has not asked torch before."""
    before, events = torch.get_num_threads(), [threading.Event() for _ in range(4)]
    first_works, first_ends, second_works, second_ends = events

    def held(works: threading.Event, ends: threading.Event) -> int:
        works.set()
        assert ends.wait(60)
        return torch.get_num_threads()

    torch.set_num_threads(4)
    try:
        with ThreadPoolExecutor(2) as callers:
            first = callers.submit(run_all, [partial(held, first_works, first_ends)] * 2)
            assert first_works.wait(60)
            second = callers.submit(run_all, [partial(held, second_works, second_ends)] * 2)
            assert second_works.wait(60)
            first_ends.set()
            assert first.result() == [2, 2]
            second_ends.set()
            assert second.result() == [2, 2]
        with ThreadPoolExecutor(1) as later:
            assert later.submit(torch.get_num_threads).result() == 4
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_task_shares_out_its_own_part() -> None:
    before = torch.get_num_threads()

    def inner() -> tuple[int, list[int], int]:
        return threads(), run_all([threads] * 2), torch.get_num_threads()

    torch.set_num_threads(8)
    try:
        assert run_all([inner] * 4) == [(2, [1, 1], 2)] * 4
        assert (threads(), torch.get_num_threads()) == (8, 8)
    finally:
        torch.set_num_threads(before)


def test_an_error_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, 2)

    def fine() -> int:
        return 0

    def broken() -> int:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        run_all([fine, broken])


@pytest.mark.parametrize("radius", [1, 3])
def test_the_opening_does_not_depend_on_the_threads(monkeypatch: pytest.MonkeyPatch, radius: int) -> None:
    random = np.random.default_rng(0)
    values, mask = random.normal(size=(23, 20, 21)).astype(np.float32), random.random((23, 20, 21)) > 0.3
    use(monkeypatch, 1)
    alone = filters.masked_opening(values, mask, radius)
    use(monkeypatch, 5)
    assert np.array_equal(alone, filters.masked_opening(values, mask, radius))


def test_a_known_share_changes_nothing() -> None:
    random = np.random.default_rng(0)
    values, mask = random.normal(size=(9, 10, 11)).astype(np.float32), random.random((9, 10, 11)) > 0.3
    share = filters.masked_share(mask, 1.5)
    assert np.array_equal(
        filters.masked_mean(values, mask, 1.5), filters.masked_mean(values, mask, 1.5, share)
    )
