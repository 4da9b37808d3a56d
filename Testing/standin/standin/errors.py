"""What a test would not see: exceptions that Qt and VTK swallow, and what Slicer only writes into its log."""

from __future__ import annotations

import sys
import traceback
from types import TracebackType

slotErrors: list[str] = []
"""The traceback of each exception in a slot or observer; a test should find it empty."""

complaints: list[str] = []
"""What Slicer's widgets and plugins would write into the error log; a test should find it empty."""


def recordException(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    slotErrors.append("".join(traceback.format_exception(kind, error, trace)))
    # As PythonQt does: what the frames hold lives on, an open painter for instance.
    sys.last_type, sys.last_value, sys.last_traceback = kind, error, trace
    sys.__excepthook__(kind, error, trace)


def complain(message: str) -> None:
    """What the real widget would say in red or orange; it goes on all the same."""
    complaints.append(message)
    print(message, file=sys.stderr)


def forget() -> None:
    """Begins anew: the next test shall not be blamed."""
    slotErrors.clear()
    complaints.clear()
    for name in ("last_type", "last_value", "last_traceback"):
        vars(sys).pop(name, None)


def install() -> None:
    sys.excepthook = recordException
