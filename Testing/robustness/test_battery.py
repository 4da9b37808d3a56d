"""The battery: each case of ``cases.CASES`` through the real command line with the shipped weights."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from DiffSegLungLib.app import cli
from Testing.robustness.battery import Case, Outcome, command_for, digest, judge
from Testing.robustness.cases import CASES, PLAIN

ROOT = Path(__file__).resolve().parents[2]
FEWEST_CASES = 80


@pytest.fixture
def folder() -> Iterator[Path]:
    """Open to every user, unlike ``tmp_path``: some cases run as somebody else."""
    place = Path(tempfile.mkdtemp(prefix="diffseglung-"))
    place.chmod(0o755)
    (place / "out").mkdir()
    yield place
    for path in place.rglob("*"):
        if path.is_dir() and not path.is_symlink():
            path.chmod(0o755)
    shutil.rmtree(place)


def run(case: Case, folder: Path, capture: pytest.CaptureFixture[str]) -> Outcome:
    """Run one case; ITK's own lines on standard error would be caught, too."""
    source = case.make(folder)
    before, command = digest(source), command_for(case, source, folder)
    capture.readouterr()
    if case.within:
        status, error = _in_a_process(case, command)
    else:
        status = cli.main(command)
        error = capture.readouterr().err
    assert digest(source) == before, "the input was changed"
    return Outcome(folder, source, status, error)


def _in_a_process(case: Case, command: list[str]) -> tuple[int, str]:
    if not shutil.which(case.within[0]):
        pytest.skip(f"needs {case.within[0]}")
    words = [*case.within, sys.executable, "-m", "DiffSegLungLib", *command]
    done = subprocess.run(words, capture_output=True, text=True, cwd=ROOT, env={**os.environ})
    return done.returncode, done.stderr


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    """The unchanged chest, which others are compared with."""
    folder = tmp_path_factory.mktemp("plain")
    source = PLAIN.make(folder)
    assert cli.main(command_for(PLAIN, source, folder)) == 0
    return Outcome(folder, source, 0, "")


QUICK = [case for case in CASES if not case.is_slow]
SLOW = [case for case in CASES if case.is_slow]


@pytest.mark.parametrize("case", QUICK, ids=lambda case: case.name)
def test_refusal(case: Case, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    judge(case, run(case, folder, capfd))


@pytest.mark.slow
@pytest.mark.parametrize("case", SLOW, ids=lambda case: case.name)
def test_result(case: Case, folder: Path, plain: Outcome, capfd: pytest.CaptureFixture[str]) -> None:
    judge(case, replace(run(case, folder, capfd), plain=plain))


def test_there_are_enough_cases_and_each_has_a_name_of_its_own() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names)) and len(names) >= FEWEST_CASES
