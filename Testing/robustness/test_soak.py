"""The short form of ``soak``: memory grows by the first cases only."""

from __future__ import annotations

import pytest

from Testing.robustness.soak import slope_mb, soak


def test_slope_is_that_of_the_second_half() -> None:
    assert (
        slope_mb([100.0 * index for index in range(10)] + [1000.0 + 0.5 * index for index in range(10)])
        == 0.5
    )
    assert slope_mb([5.0, 50.0, 90.0, 91.0, 90.0, 200.0, 91.0, 90.0]) < 40


@pytest.mark.slow
def test_thirty_cases_hold_the_memory() -> None:
    memory = soak(30)
    assert memory[-1] - memory[14] < 15, "MB over fifteen cases; the allocator's own noise is below ten"
