"""What the battery shares, and its last line: how many were tried and how many held."""

from __future__ import annotations

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """``N tried, N held``, the line that ``make robustness`` ends with."""

    def here(outcome: str) -> set[str]:
        reports = terminalreporter.stats.get(outcome, [])
        return {each.nodeid for each in reports if "Testing/robustness" in getattr(each, "nodeid", "")}

    held, broken = here("passed"), here("failed") | here("error")
    held -= broken
    skipped = len(here("skipped"))
    if held or broken:
        left_out = f", {skipped} not possible on this computer" if skipped else ""
        terminalreporter.write_line(f"Robustness: {len(held | broken)} tried, {len(held)} held{left_out}")
