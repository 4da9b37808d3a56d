"""The module `qt` of Slicer's Python: all of Qt under one name, with PythonQt's rules.

Importing it changes PySide6's classes for the whole process (see `pythonqt.rules`).
"""

from __future__ import annotations

from typing import Any

from pythonqt import dialogs, rules
from pythonqt.painting import QPainter as _QPainter
from pythonqt.uiloader import QUiLoader

rules.install()
dialogs.install()

for _module in rules.QT_MODULES:
    for _name in dir(_module):
        if _name.startswith("Q") and _name not in globals():
            globals()[_name] = getattr(_module, _name)

QPainter = _QPainter
Signal = rules.QtCore.Signal
Slot = rules.QtCore.Slot
Property = rules.QtCore.Property

__all__ = [_name for _name in globals() if _name.startswith("Q")] + [
    "Property",
    "QUiLoader",
    "Signal",
    "Slot",
]


def __getattr__(name: str) -> Any:
    # For type checkers only: every name that exists is already in the module.
    raise AttributeError(f"module 'qt' has no attribute {name!r}")
