"""Containers that fold their contents away."""

from __future__ import annotations

from typing import Any

import qt
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, stored
from qt import Property, Signal

HEADER_HEIGHT = 24


def showContents(container: Any, visible: bool) -> None:
    for child in container.children():
        if isinstance(child, qt.QWidget):
            child.setVisible(visible)


@standinWidget
class ctkCollapsibleButton(Setters, qt.QAbstractButton):
    """A button whose contents fold away; checked means unfolded."""

    contentsCollapsed = Signal(bool)
    collapsedHeight = stored("collapsedHeight", int, 10)
    contentsFrameShape = stored("contentsFrameShape", int, 0)
    contentsFrameShadow = stored("contentsFrameShadow", int, 16)
    contentsLineWidth = stored("contentsLineWidth", int, 1)
    contentsMidLineWidth = stored("contentsMidLineWidth", int, 0)
    buttonTextAlignment = stored("buttonTextAlignment", int, 0x84)
    flat = stored("flat", bool, False)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self.setText(next((each for each in arguments if isinstance(each, str)), ""))
        self.setContentsMargins(6, HEADER_HEIGHT + 4, 6, 6)
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._onToggled)

    def _isCollapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _isCollapsed, setCollapsed)

    def _onToggled(self, checked: bool) -> None:
        self._fold()
        self.contentsCollapsed.emit(not checked)

    def _fold(self) -> None:
        showContents(self, self.isChecked())
        self.setMaximumHeight(16777215 if self.isChecked() else HEADER_HEIGHT)
        self.updateGeometry()
        self.update()

    def childEvent(self, event: Any) -> None:
        super().childEvent(event)
        if event.added() and not self.isChecked() and isinstance(event.child(), qt.QWidget):
            qt.QTimer.singleShot(0, self._fold)  # contents that come after `collapsed`, as in a .ui file

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        if not self.isChecked():
            self._fold()

    def hitButton(self, position: Any) -> bool:
        return bool(position.y() < HEADER_HEIGHT)

    def minimumSizeHint(self) -> Any:
        return qt.QSize(60, HEADER_HEIGHT)

    def sizeHint(self) -> Any:
        layout = self.layout()
        if layout is None or not self.isChecked():
            return self.minimumSizeHint()
        return layout.totalSizeHint().expandedTo(self.minimumSizeHint())

    def paintEvent(self, event: Any) -> None:
        painter = qt.QPainter(self)
        header = qt.QRect(0, 0, self.width, HEADER_HEIGHT)
        painter.fillRect(header, self.palette.button().color().darker(108))
        painter.setPen(self.palette.mid().color())
        painter.drawRect(0, 0, self.width - 1, max(HEADER_HEIGHT, self.height) - 1)
        painter.setPen(self.palette.buttonText().color())
        arrow = "\u25be" if self.isChecked() else "\u25b8"
        painter.drawText(header.adjusted(6, 0, 0, 0), int(qt.Qt.AlignVCenter), arrow)
        painter.drawText(header.adjusted(22, 0, 0, 0), int(qt.Qt.AlignVCenter), self.text)
        painter.end()


@standinWidget
class ctkCollapsibleGroupBox(Setters, qt.QGroupBox):
    """A group box whose title has a check box that folds the contents away."""

    collapsedHeight = stored("collapsedHeight", int, 14)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._onToggled)

    def _isCollapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _isCollapsed, setCollapsed)

    def _onToggled(self, checked: bool) -> None:
        showContents(self, checked)
        self.setMaximumHeight(16777215 if checked else HEADER_HEIGHT)


@standinWidget
class ctkExpandableWidget(Setters, qt.QFrame):
    """A frame that the user can make higher."""

    orientations = stored("orientations", int, 3)
    sizeGripMargins = stored("sizeGripMargins", qt.QSize, qt.QSize())
