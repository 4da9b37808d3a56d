"""The parts of the evaluation, by the names that the command takes."""

from __future__ import annotations

QUICK_PARTS = ("readings", "painted", "patches")
"""What is run when nothing else is asked for."""
PARTS = (*QUICK_PARTS, "cases", "borrowed", "lungs", "robustness")
