"""How a value is shown in, and read from, a widget of the panel.

As in Slicer, a connector serves exact widget classes, and sets the widget's range and choices itself.
"""

from __future__ import annotations

import enum
import math
import pathlib
from collections.abc import Callable
from typing import Any

import ctk
import qt
import slicer

from .annotations import (
    Choice,
    Decimals,
    Maximum,
    Minimum,
    SingleStep,
    WithinRange,
    findAnnotation,
    splitAnnotations,
    unionMembers,
)

INTEGER_LIMIT = 2**31


class GuiConnector:
    """A property of a widget and the signal that says that it changed."""

    propertyName = ""
    signalName = ""

    def __init__(self, widget: Any, datatype: Any) -> None:
        self._widget = widget
        self.datatype, self.annotations = splitAnnotations(datatype)
        self._callback: Callable[[], None] | None = None
        self.prepare()

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        raise NotImplementedError  # abstract: each subclass has its own

    def prepare(self) -> None:
        """Set the widget's range or choices; for subclasses."""

    def widget(self) -> Any:
        return self._widget

    def onChanged(self, callback: Callable[[], None] | None) -> None:
        """Call that function when the user changes the widget; None ends it."""
        if callback is not None and self._callback is None:
            self._signal().connect(self._onSignal)
        elif callback is None and self._callback is not None:
            self._signal().disconnect(self._onSignal)
        self._callback = callback

    def _signal(self) -> Any:
        return getattr(self._widget, self.signalName)

    def _onSignal(self, *_arguments: Any) -> None:
        if self._callback is not None:
            self._callback()

    def read(self) -> Any:
        return getattr(self._widget, self.propertyName)

    def write(self, value: Any) -> None:
        setattr(self._widget, self.propertyName, value)


_connectors: list[type[GuiConnector]] = []


def parameterNodeGuiConnector(connector: type[GuiConnector]) -> type[GuiConnector]:
    """Class decorator: the connector is tried for widgets named by `SlicerParameterName`."""
    _connectors.append(connector)
    return connector


def createGuiConnector(widget: Any, datatype: Any) -> GuiConnector:
    """The connector between a widget and a parameter of that type.

    Raises:
        RuntimeError: if there is none.
    """
    plain = splitAnnotations(datatype)[0]
    for connector in _connectors:
        if connector.canRepresent(widget, plain):
            return connector(widget, datatype)
    raise RuntimeError(f"no connection between {datatype} and a {type(widget).__name__}")


@parameterNodeGuiConnector
class BoolConnector(GuiConnector):
    """Check boxes and checkable buttons."""

    propertyName, signalName = "checked", "toggled"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype is bool and type(widget) in (
            qt.QCheckBox,
            ctk.ctkCheckBox,
            qt.QPushButton,
            ctk.ctkCheckablePushButton,
        )

    def prepare(self) -> None:
        if not self._widget.checkable:
            self._widget.checkable = True


class NumberConnector(GuiConnector):
    """Sets the range, step and decimals of a widget for numbers."""

    propertyName, signalName = "value", "valueChanged"
    boundedWidgets: tuple[Any, ...] = ()
    unbounded: tuple[float, float] = (-math.inf, math.inf)

    def prepare(self) -> None:
        limits = self._limits()
        if type(self._widget) in self.boundedWidgets and not all(map(math.isfinite, limits)):
            raise RuntimeError(f"a {type(self._widget).__name__} needs a range")
        self._widget.minimum, self._widget.maximum = self._clip(limits)
        step = findAnnotation(self.annotations, SingleStep)
        if step is not None:
            self._widget.singleStep = step.value

    def _limits(self) -> tuple[float, float]:
        within = findAnnotation(self.annotations, WithinRange)
        if within is not None:
            return within.minimum, within.maximum
        minimum, maximum = (
            findAnnotation(self.annotations, Minimum),
            findAnnotation(self.annotations, Maximum),
        )
        return minimum.minimum if minimum else -math.inf, maximum.maximum if maximum else math.inf

    def _clip(self, limits: tuple[float, float]) -> tuple[float, float]:
        low, high = self.unbounded
        return max(limits[0], low), min(limits[1], high)


@parameterNodeGuiConnector
class IntConnector(NumberConnector):
    """Spin box and slider for whole numbers."""

    boundedWidgets = (qt.QSlider,)
    unbounded = (-INTEGER_LIMIT, INTEGER_LIMIT - 1)

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype is int and type(widget) in (qt.QSlider, qt.QSpinBox)


@parameterNodeGuiConnector
class FloatConnector(NumberConnector):
    """Spin boxes and sliders for floating-point numbers."""

    boundedWidgets = (ctk.ctkSliderWidget, slicer.qMRMLSliderWidget)

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype in (float, int) and type(widget) in (
            qt.QDoubleSpinBox,
            ctk.ctkSliderWidget,
            ctk.ctkDoubleSlider,
            ctk.ctkDoubleSpinBox,
            slicer.qMRMLSliderWidget,
            slicer.qMRMLSpinBox,
        )

    def prepare(self) -> None:
        decimals = findAnnotation(self.annotations, Decimals)
        if type(self._widget) is not ctk.ctkDoubleSlider:
            if self.datatype is int:
                self._widget.decimals = 0
            elif decimals is not None:
                self._widget.decimals = decimals.value
        super().prepare()

    def read(self) -> float | int:
        value = super().read()
        return int(value) if self.datatype is int else float(value)


class ComboBoxConnector(GuiConnector):
    """A combo box: fills it with labels, reads and writes the value behind the label."""

    signalName = "currentIndexChanged"
    choices: list[Any]

    def labels(self) -> list[str]:
        return [str(each) for each in self.choices]

    def fill(self) -> None:
        self._widget.clear()
        self._widget.addItems(self.labels())

    def read(self) -> Any:
        return self.choices[self._widget.currentIndex]

    def write(self, value: Any) -> None:
        if value not in self.choices:
            raise ValueError(f"{value!r} is none of {self.choices}")
        self._widget.currentIndex = self.choices.index(value)


@parameterNodeGuiConnector
class ChoiceConnector(ComboBoxConnector):
    """A combo box for a type annotated with `Choice`."""

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype in (int, float, str, bool) and type(widget) in (qt.QComboBox, ctk.ctkComboBox)

    def prepare(self) -> None:
        choice = findAnnotation(self.annotations, Choice)
        if choice is None:
            raise RuntimeError("a combo box needs the annotation Choice")
        self.choices = list(choice.choices)
        self.fill()


@parameterNodeGuiConnector
class EnumConnector(ComboBoxConnector):
    """A combo box for an enumeration; its method `label`, if any, names the items."""

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        isEnumeration = isinstance(datatype, type) and issubclass(datatype, enum.Enum)
        return isEnumeration and type(widget) in (qt.QComboBox, ctk.ctkComboBox)

    def prepare(self) -> None:
        self.choices = list(self.datatype)
        self.fill()

    def labels(self) -> list[str]:
        label = getattr(self.datatype, "label", lambda each: each.name)
        return [label(each) for each in self.choices]


@parameterNodeGuiConnector
class LineEditConnector(GuiConnector):
    """A line of text."""

    propertyName, signalName = "text", "textChanged"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype is str and type(widget) is qt.QLineEdit

    def write(self, value: Any) -> None:
        if value != self._widget.text:  # writing moves the cursor
            self._widget.text = value


@parameterNodeGuiConnector
class LabelConnector(GuiConnector):
    """A label: shows the value, never changes it."""

    propertyName = "text"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype is str and type(widget) is qt.QLabel

    def onChanged(self, callback: Callable[[], None] | None) -> None:
        self._callback = callback


@parameterNodeGuiConnector
class TextEditConnector(GuiConnector):
    """Several lines of text."""

    signalName = "textChanged"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype is str and type(widget) is qt.QTextEdit

    def read(self) -> str:
        return str(self._widget.toPlainText())

    def write(self, value: str) -> None:
        if value != self.read():
            self._widget.setPlainText(value)


class PathConnector(GuiConnector):
    """A widget for a path."""

    def read(self) -> Any:
        return self.datatype(super().read())

    def write(self, value: Any) -> None:
        super().write(str(value))


@parameterNodeGuiConnector
class PathLineEditConnector(PathConnector):
    """A line for a path."""

    propertyName, signalName = "currentPath", "currentPathChanged"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype in (pathlib.Path, pathlib.PurePath) and type(widget) is ctk.ctkPathLineEdit


@parameterNodeGuiConnector
class DirectoryButtonConnector(PathConnector):
    """A button for a directory."""

    propertyName, signalName = "directory", "directoryChanged"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        return datatype in (pathlib.Path, pathlib.PurePath) and type(widget) is ctk.ctkDirectoryButton


@parameterNodeGuiConnector
class NodeConnector(GuiConnector):
    """A node selector; it offers nodes of the parameter's class."""

    signalName = "currentNodeChanged"

    @staticmethod
    def canRepresent(widget: Any, datatype: Any) -> bool:
        classes = nodeClasses(datatype)
        return bool(classes) and type(widget) is slicer.qMRMLNodeComboBox

    def prepare(self) -> None:
        self._widget.nodeTypes = tuple(each().GetClassName() for each in nodeClasses(self.datatype))

    def read(self) -> Any:
        return self._widget.currentNode()

    def write(self, value: Any) -> None:
        self._widget.setCurrentNode(value)


def nodeClasses(datatype: Any) -> list[Any]:
    """The node classes of a type: itself, or the members of a union. Empty if anything else is in it."""
    members = [each for each in unionMembers(datatype) or (datatype,) if each is not type(None)]
    areNodes = [isinstance(each, type) and issubclass(each, slicer.vtkMRMLNode) for each in members]
    return members if all(areNodes) else []
