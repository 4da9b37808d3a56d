"""What the qualities change, and that the standard is what the model was made with."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING
from DiffSegLungLib.representation.features import EmbeddingPlan, _windows, embed
from DiffSegLungLib.representation.quality import QUALITIES, STANDARD, quality_of
from DiffSegLungLib.representation.student import Student

PLAN = EmbeddingPlan()


def stride(name: str) -> tuple[int, int, int]:
    return QUALITIES[name].stride(PLAN.window, PLAN.stride, DOWNSAMPLING)


def passes(name: str) -> int:
    """How often the network runs over a lung, per noise level."""
    mask = np.ones((96, 160, 128), bool)
    windows = list(_windows(mask, replace(PLAN, stride=stride(name))))
    return len(windows) * QUALITIES[name].draws


def test_more_quality_is_more_work() -> None:
    assert list(QUALITIES) == ["fast", "standard", "best"]
    assert passes("fast") < passes("standard") < passes("best")
    assert QUALITIES["best"].draws >= 2


def test_fast_windows_do_not_overlap_and_leave_no_gap() -> None:
    assert stride("fast") == PLAN.window
    seen = np.zeros((96, 160, 128), int)
    for z, y, x in _windows(seen == 0, replace(PLAN, stride=stride("fast"))):
        seen[z : z + PLAN.window[0], y : y + PLAN.window[1], x : x + PLAN.window[2]] += 1
    assert (seen == 1).all()


def test_best_overlaps_more_along_each_axis_than_the_model_does() -> None:
    assert all(best <= own for best, own in zip(stride("best"), PLAN.stride, strict=True))
    assert stride("best")[0] < PLAN.stride[0]


@pytest.mark.parametrize("own", [(16, 24, 24), (8, 8, 16)])
def test_standard_is_the_models_own(own: tuple[int, int, int]) -> None:
    assert QUALITIES[STANDARD].stride(PLAN.window, own, DOWNSAMPLING) == own
    assert QUALITIES[STANDARD].draws == 1


@pytest.mark.parametrize("window", [(16, 32, 32), (32, 32, 32), (8, 16, 24)])
@pytest.mark.parametrize("name", QUALITIES)
def test_windows_step_by_whole_cells(name: str, window: tuple[int, int, int]) -> None:
    steps = QUALITIES[name].stride(window, window, DOWNSAMPLING)
    assert all(
        step % DOWNSAMPLING == 0 and 0 < step <= side for step, side in zip(steps, window, strict=True)
    )


def test_an_unknown_quality_is_refused() -> None:
    with pytest.raises(UnusableInputError, match="fast, standard, best"):
        quality_of("ultra")


def test_the_table_needs_no_torch() -> None:
    code = (
        "import sys, DiffSegLungLib.representation.quality; "
        "print('torch' in sys.modules, 'numpy' in sys.modules)"
    )
    root = Path(__file__).parents[2]
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    )
    assert result.stdout.split() == ["False", "False"]


@pytest.fixture(scope="module")
def small() -> tuple[Student, np.ndarray, np.ndarray]:
    torch.manual_seed(0)
    student = Student((8, 8, 8, 8), hidden=128).eval().requires_grad_(False)
    hu = np.random.default_rng(0).normal(-800, 100, (16, 40, 40)).astype(np.float32)
    return student, hu, np.ones(hu.shape, bool)


def embedded(small: tuple[Student, np.ndarray, np.ndarray], draws: int, seed: int = 5) -> np.ndarray:
    student, hu, mask = small
    plan = replace(PLAN, timesteps=(50, 100))
    return embed(student, hu, mask, lambda cells: cells[..., ::31], plan, seed, draws=draws)


def test_draws_are_averaged_and_the_first_stays_the_first(
    small: tuple[Student, np.ndarray, np.ndarray],
) -> None:
    one, two, four = (embedded(small, draws) for draws in (1, 2, 4))
    assert np.array_equal(one, embedded(small, 1))
    second = 2 * two - one  # what the second draw alone must have given
    assert not np.allclose(second, one, atol=1e-4)
    assert np.isfinite(four).all() and four.shape == one.shape


def test_draws_take_noise_out(small: tuple[Student, np.ndarray, np.ndarray]) -> None:
    """Two seeds agree better, the more draws each averages."""

    def disagreement(draws: int) -> float:
        return float(np.std(embedded(small, draws, seed=1) - embedded(small, draws, seed=2)))

    assert disagreement(4) < 0.75 * disagreement(1)
