"""Containers that fold their contents away."""

from __future__ import annotations

from typing import Any

import qt
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, stored
from qt import Property, Signal

HEADER_HEIGHT = 24
LARGEST_HEIGHT = 16777215


class Folding:
    """How CTK hides the children of a folded widget, and knows which of them were hidden by somebody else.

    Nothing is hidden before the widget is created, and a child that is shown meanwhile is hidden again.
    """

    _forcing = False
    _wasCreated = False

    def _fits(self, child: Any) -> None:
        """Shows or hides a child as the fold and its own visibility ask."""
        if not self.testAttribute(qt.Qt.WA_WState_Created):  # type: ignore[attr-defined]
            return
        wanted = child.property("visibilityToParent") is not False
        visible = wanted and self.isChecked()  # type: ignore[attr-defined]
        self._forcing = True
        if child.testAttribute(qt.Qt.WA_WState_Created) or not visible:
            child.setVisible(visible)
        if wanted:
            child.setAttribute(qt.Qt.WA_WState_ExplicitShowHide, False)
        self._forcing = False

    def _fitAll(self) -> None:
        for child in self.children():  # type: ignore[attr-defined]
            if isinstance(child, qt.QWidget):
                self._fits(child)

    def _adopt(self, child: Any) -> None:
        hidden = child.testAttribute(qt.Qt.WA_WState_Hidden)
        if hidden and child.testAttribute(qt.Qt.WA_WState_ExplicitShowHide):
            child.setProperty("visibilityToParent", False)
        child.installEventFilter(self)
        self._fits(child)

    def _showWith(self, show: Any, visible: bool) -> None:
        """`setVisible` of the widget; its children's own events are not those of somebody else."""
        self._forcing = True
        show(visible)
        self._forcing = False
        if not self._wasCreated and self.testAttribute(qt.Qt.WA_WState_Created):  # type: ignore[attr-defined]
            self._wasCreated = True
            self._fitAll()

    def _onChild(self, child: Any, event: Any) -> None:
        if self._forcing or not isinstance(child, qt.QWidget):
            return
        if event.type() == qt.QEvent.ShowToParent:
            child.setProperty("visibilityToParent", True)
            self._fits(child)
        elif event.type() == qt.QEvent.HideToParent:
            child.setProperty("visibilityToParent", False)


@standinWidget
class ctkCollapsibleButton(Setters, Folding, qt.QAbstractButton):
    """A button whose contents fold away; checked means unfolded."""

    contentsCollapsed = Signal(bool)
    collapsedHeight = stored("collapsedHeight", int, 14)
    contentsFrameShape = stored("contentsFrameShape", int, 0)
    contentsFrameShadow = stored("contentsFrameShadow", int, 16)
    contentsLineWidth = stored("contentsLineWidth", int, 1)
    contentsMidLineWidth = stored("contentsMidLineWidth", int, 0)
    buttonTextAlignment = stored("buttonTextAlignment", int, 0x84)
    flat = stored("flat", bool, False)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self.setText(next((each for each in arguments if isinstance(each, str)), ""))
        self.setContentsMargins(0, HEADER_HEIGHT, 0, 0)
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
        self.setMaximumHeight(LARGEST_HEIGHT if checked else HEADER_HEIGHT + self.collapsedHeight)
        self._fitAll()
        self.updateGeometry()
        self.contentsCollapsed.emit(not checked)

    def childEvent(self, event: Any) -> None:
        if event.added() and isinstance(event.child(), qt.QWidget):
            self._adopt(event.child())
        super().childEvent(event)

    def setVisible(self, visible: bool) -> None:
        self._showWith(super().setVisible, visible)

    def eventFilter(self, child: Any, event: Any) -> bool:
        self._onChild(child, event)
        return False

    def hitButton(self, position: Any) -> bool:
        return bool(position.y() < HEADER_HEIGHT)

    def _headerSize(self) -> Any:
        return qt.QSize(60, HEADER_HEIGHT)

    def minimumSizeHint(self) -> Any:
        if not self.isChecked():
            return self._headerSize() + qt.QSize(0, self.collapsedHeight)
        return super().minimumSizeHint().expandedTo(self._headerSize())

    def sizeHint(self) -> Any:
        folded = self._headerSize() + qt.QSize(0, self.collapsedHeight)
        if not self.isChecked() or self.layout() is None:
            return folded
        return self.layout().totalSizeHint().expandedTo(folded)

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
class ctkCollapsibleGroupBox(Setters, Folding, qt.QGroupBox):
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
        self._fitAll()
        self.setMaximumHeight(LARGEST_HEIGHT if checked else HEADER_HEIGHT + self.collapsedHeight)

    def childEvent(self, event: Any) -> None:
        if event.added() and isinstance(event.child(), qt.QWidget):
            self._adopt(event.child())
        super().childEvent(event)

    def setVisible(self, visible: bool) -> None:
        self._showWith(super().setVisible, visible)

    def eventFilter(self, child: Any, event: Any) -> bool:
        self._onChild(child, event)
        return False


@standinWidget
class ctkExpandableWidget(Setters, qt.QFrame):
    """A frame that the user can make higher."""

    orientations = stored("orientations", int, 3)
    sizeGripMargins = stored("sizeGripMargins", qt.QSize, qt.QSize())
