"""The module `ctk` of Slicer's Python: stand-ins for the CTK widgets that module panels use.

They have the real widgets' names, properties, signals and slots, and do their work; they look only roughly
like them.
"""

from __future__ import annotations

from typing import Any

from ctkwidgets.choices import (
    ctkCheckableComboBox,
    ctkCheckablePushButton,
    ctkCheckBox,
    ctkColorPickerButton,
    ctkComboBox,
    ctkMenuButton,
    ctkPushButton,
)
from ctkwidgets.containers import (
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkExpandableWidget,
)
from ctkwidgets.numbers import (
    ctkDoubleRangeSlider,
    ctkDoubleSlider,
    ctkDoubleSpinBox,
    ctkRangeWidget,
    ctkSliderWidget,
)
from ctkwidgets.paths import (
    ctkDirectoryButton,
    ctkPathLineEdit,
)
from ctkwidgets.texts import (
    ctkFittedTextBrowser,
    ctkMessageBox,
    ctkSearchBox,
)

__all__ = [
    "ctkCheckBox",
    "ctkCheckableComboBox",
    "ctkCheckablePushButton",
    "ctkCollapsibleButton",
    "ctkCollapsibleGroupBox",
    "ctkColorPickerButton",
    "ctkComboBox",
    "ctkDirectoryButton",
    "ctkDoubleRangeSlider",
    "ctkDoubleSlider",
    "ctkDoubleSpinBox",
    "ctkExpandableWidget",
    "ctkFittedTextBrowser",
    "ctkMenuButton",
    "ctkMessageBox",
    "ctkPathLineEdit",
    "ctkPushButton",
    "ctkRangeWidget",
    "ctkSearchBox",
    "ctkSliderWidget",
    "ctkWidgetsUtils",
]


class ctkWidgetsUtils:
    """Helpers for pictures of widgets."""

    @staticmethod
    def grabWidget(widget: Any, _size: Any = None) -> Any:
        return widget.grab().toImage()
