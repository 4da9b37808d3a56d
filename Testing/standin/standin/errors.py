"""Exceptions that Qt and VTK swallow: raised in a slot or an observer, they never reach the test."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

slotErrors: list[str] = []
"""The traceback of each exception in a slot or observer; a test should find it empty."""


def recordException(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    slotErrors.append("".join(traceback.format_exception(kind, error, trace)))
    sys.__excepthook__(kind, error, trace)


def install() -> None:
    sys.excepthook = recordException
