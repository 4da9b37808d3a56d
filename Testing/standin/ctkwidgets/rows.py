"""How the parts of a widget are laid out."""

from __future__ import annotations

from typing import Any

import qt


def rowLayout(parent: Any, *widgets: Any) -> None:
    """Lay the widgets out in a row without margins."""
    layout = qt.QHBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)
