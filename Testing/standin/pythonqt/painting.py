"""Painters that nobody ended: PythonQt keeps them, and Qt crashes when what they paint on goes first."""

from __future__ import annotations

import traceback
from typing import Any

from .rules import QtGui

_open: dict[int, tuple[Any, str]] = {}


class QPainter(QtGui.QPainter):
    """Qt's painter; `openPainters` tells of those without `end()`, also where Python has forgotten them."""

    def __init__(self, device: Any = None) -> None:
        super().__init__()
        if device is not None:
            self.begin(device)

    def begin(self, device: Any) -> bool:
        begun = super().begin(device)
        if begun:
            # Held, as PythonQt does: it would be ended where Python frees it.
            _open[id(self)] = (self, "".join(traceback.format_stack(limit=4)[:-1]))
        return begun

    def end(self) -> bool:
        _open.pop(id(self), None)
        return super().end()


def openPainters() -> list[str]:
    """Where each painter was begun that has not been ended."""
    return [where for _painter, where in _open.values()]


def closePainters() -> None:
    """Ends them: the next test shall not be blamed."""
    for painter, _where in list(_open.values()):
        painter.end()
