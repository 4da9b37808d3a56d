"""Progress as programs and people see it."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from DiffSegLungLib import progress
from DiffSegLungLib.errors import CancelledError


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_json_lines_have_the_four_fields_and_never_fall_back() -> None:
    stream = io.StringIO()
    report = progress.JsonProgress(stream)
    for stage, fraction in (
        ("lungs", -0.5),
        ("lungs", 0.4),
        ("features", 0.3),
        ("fusion", float("nan")),
        ("end", 7),
    ):
        report(stage, fraction, "line\nbreak")
    records = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [list(record) for record in records] == [["stage", "fraction", "message", "peak_mb"]] * 5
    assert [record["fraction"] for record in records] == [0.0, 0.4, 0.4, 0.4, 1.0]
    assert records[2]["stage"] == "features" and records[2]["message"] == "line\nbreak"
    assert records[0]["peak_mb"] > 1


def test_json_lines_are_flushed_at_once() -> None:
    reading, writing = os.pipe()
    with os.fdopen(writing, "w") as stream, os.fdopen(reading) as lines:
        progress.JsonProgress(stream)("lungs", 0.5)
        assert json.loads(lines.readline())["fraction"] == 0.5


def test_a_reader_that_has_gone_cancels() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stream = os.fdopen(writing, "w")
    with pytest.raises(CancelledError):
        progress.JsonProgress(stream)("lungs", 0.5)
    with pytest.raises(BrokenPipeError):
        stream.close()


def test_without_a_terminal_a_line_per_stage_and_per_tenth() -> None:
    stream = io.StringIO()
    report = progress.BarProgress(stream)
    for percent in range(101):
        report("lungs" if percent < 25 else "features", percent / 100, f"patch {percent}")
    report.close()
    lines = stream.getvalue().splitlines()
    assert 10 <= len(lines) <= 13
    assert lines[0] == "  0 % lungs: patch 0"
    assert " 25 % features: patch 25" in lines


def test_on_a_terminal_one_bar_that_ends_where_told() -> None:
    stream = Terminal()
    report = progress.BarProgress(stream)
    report("lungs", 0.5, "right")
    report("lungs", 0.2)
    report.close()
    assert " 50 %" in stream.getvalue() and "lungs: right" in stream.getvalue()
    assert " 20 %" not in stream.getvalue()
    assert "\n" not in stream.getvalue()


def test_a_part_fills_its_share_of_the_whole() -> None:
    told: list[tuple[str, float, str]] = []
    of_part = progress.part(
        lambda stage, fraction, message="": told.append((stage, fraction, message)), 0.5, 0.9
    )
    of_part("a", 0.0)
    of_part("b", 0.5, "half")
    of_part("c", 2.0)
    assert told == [("a", 0.5, ""), ("b", pytest.approx(0.7), "half"), ("c", pytest.approx(0.9), "")]


def test_silent_writes_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    progress.silent("lungs", 0.5, "message")
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


PEAK = """
from DiffSegLungLib.progress import peak_memory_mb
before = peak_memory_mb()
block = bytearray(b"x") * 100_000_000
del block
print(before, peak_memory_mb())
"""


def peaks_of_a_child() -> tuple[float, float]:
    command = [sys.executable, "-c", PEAK]
    run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    before, after = map(float, run.stdout.split())
    return before, after


@pytest.mark.skipif(sys.platform == "win32", reason="needs psutil on Windows")
def test_peak_memory_sees_what_was_given_back() -> None:
    before, after = peaks_of_a_child()
    assert 90 < after - before < 200


@pytest.mark.skipif(
    not progress.PROCESS_STATUS.exists(), reason="other systems count from the process's own start"
)
def test_peak_memory_is_not_that_of_the_parent() -> None:
    block = bytearray(b"x") * 300_000_000
    before, _ = peaks_of_a_child()
    del block
    assert before < 200
