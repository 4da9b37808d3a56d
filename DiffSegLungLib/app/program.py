"""The program's name and its exit statuses."""

from __future__ import annotations

PROGRAM = "diffseglung"
DONE, OUR_FAULT, WRONG_USE, CANCELLED = 0, 1, 2, 130
