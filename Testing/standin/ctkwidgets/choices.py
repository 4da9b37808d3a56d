"""Combo boxes, check boxes and buttons."""

from __future__ import annotations

from typing import Any

import qt
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, stored
from qt import Property, Signal


@standinWidget
class ctkComboBox(Setters, qt.QComboBox):
    """A combo box with a text for "nothing chosen"."""

    defaultText = stored("defaultText", str, "")
    defaultIcon = stored("defaultIcon", qt.QIcon, qt.QIcon())
    forceDefault = stored("forceDefault", bool, False)
    elideMode = stored("elideMode", int, 3)
    scrollWheelEffect = stored("scrollWheelEffect", int, 0)


@standinWidget
class ctkCheckableComboBox(Setters, qt.QComboBox):
    """A combo box whose items have check boxes."""

    checkedIndexesChanged = Signal()

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.model().dataChanged.connect(self._onDataChanged)
        self.model().rowsInserted.connect(self._onRowsInserted)

    def _onDataChanged(self, _first: Any, _last: Any, roles: Any = ()) -> None:
        if not roles or qt.Qt.CheckStateRole in roles:
            self.checkedIndexesChanged.emit()

    def _onRowsInserted(self, _parent: Any, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)
            item.setCheckState(qt.Qt.Unchecked)

    def checkableModel(self) -> Any:
        return self.model()

    def checkedIndexes(self) -> tuple[Any, ...]:
        indexes = [self.model().index(row, 0) for row in range(self.count)]
        return tuple(each for each in indexes if self.checkState(each) == qt.Qt.Checked)

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count

    def noneChecked(self) -> bool:
        return not self.checkedIndexes()

    def checkState(self, index: Any) -> Any:
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index: Any, state: Any) -> None:
        self.model().itemFromIndex(index).setCheckState(state)


@standinWidget
class ctkCheckBox(Setters, qt.QCheckBox):
    """A check box that may show an icon."""

    indicatorIcon = stored("indicatorIcon", qt.QIcon, qt.QIcon())
    indicatorIconSize = stored("indicatorIconSize", qt.QSize, qt.QSize())


@standinWidget
class ctkPushButton(Setters, qt.QPushButton):
    """A push button whose text and icon can be aligned."""

    buttonTextAlignment = stored("buttonTextAlignment", int, 0x84)
    iconAlignment = stored("iconAlignment", int, 0x81)
    elideMode = stored("elideMode", int, 3)


@standinWidget
class ctkMenuButton(Setters, qt.QPushButton):
    """A push button with a menu behind an arrow."""

    showMenuButton = stored("showMenuButton", bool, True)


@standinWidget
class ctkCheckablePushButton(Setters, qt.QPushButton):
    """A push button with a check box that may make it a toggle button."""

    checkBoxToggled = Signal(bool)
    buttonTextAlignment = stored("buttonTextAlignment", int, 0x84)
    checkBoxControlsButton = stored("checkBoxControlsButton", bool, True)
    checkBoxControlsButtonToggleState = stored("checkBoxControlsButtonToggleState", bool, True)
    checkBoxUserCheckable = stored("checkBoxUserCheckable", bool, True)
    _checkState = 0

    def _setCheckState(self, state: Any) -> None:
        changed = int(state) != self._checkState
        self._checkState = int(state)
        if self.checkBoxControlsButton and self.checkBoxControlsButtonToggleState:
            self.setCheckable(self._checkState != 0)
        if changed:
            self.checkBoxToggled.emit(self._checkState != 0)

    checkState = Property(int, lambda self: self._checkState, _setCheckState)


@standinWidget
class ctkColorPickerButton(Setters, qt.QPushButton):
    """A button that shows and asks for a colour."""

    colorChanged = Signal(qt.QColor)
    colorNameChanged = Signal(str)
    displayColorName = stored("displayColorName", bool, True)
    dialogOptions = stored("dialogOptions", int, 0)
    colorName = stored("colorName", str, "")
    _color: Any = None

    def setColor(self, color: Any) -> None:
        if self._color is None or color != self._color:
            self._color = qt.QColor(color)
            self.setText(self._color.name() if self.displayColorName else "")
            self.colorChanged.emit(self._color)

    color = Property(qt.QColor, lambda self: self._color or qt.QColor(), setColor)
