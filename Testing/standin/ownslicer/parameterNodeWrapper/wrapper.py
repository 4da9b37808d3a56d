"""The decorator `parameterNodeWrapper`: an annotated class becomes typed access to a parameter node."""

from __future__ import annotations

import functools
import typing
from typing import Any

import qt
import slicer
import vtk

from .annotations import Default, findAnnotation, splitAnnotations
from .connectors import GuiConnector, createGuiConnector
from .serializers import Serializer, createSerializer

SlicerParameterNamePropertyName = "SlicerParameterName"


class Parameter:
    """One annotated member of the class: reads and writes its value on the wrapper's node."""

    def __init__(self, name: str, datatype: Any, owner: type) -> None:
        self.name = name
        self.datatype = datatype
        self.serializer: Serializer = createSerializer(datatype)
        self.default = self._findDefault(owner)

    def _findDefault(self, owner: type) -> Default:
        if self.name in vars(owner):
            return Default(vars(owner)[self.name])
        annotated = findAnnotation(splitAnnotations(self.datatype)[1], Default)
        return annotated if annotated is not None else Default(self.serializer.default())

    def __get__(self, wrapper: Any, owner: type | None = None) -> Any:
        if wrapper is None:
            return self
        self.ensure(wrapper.parameterNode)
        return self.serializer.read(wrapper.parameterNode, self.name)

    def __set__(self, wrapper: Any, value: Any) -> None:
        self.serializer.check(value)
        with slicer.util.NodeModify(wrapper.parameterNode):
            self.serializer.write(wrapper.parameterNode, self.name, value)

    def ensure(self, node: Any) -> None:
        """Write the default if the node has no value."""
        if not self.serializer.isIn(node, self.name):
            self.serializer.check(self.default.value)
            self.serializer.write(node, self.name, self.default.value)


class ParameterNodeWrapper:
    """The methods of a wrapped class."""

    allParameters: dict[str, Parameter] = {}
    _is_parameter_node_wrapper = True

    def __init__(self, parameterNode: Any) -> None:
        self.parameterNode = parameterNode
        self._connections: dict[int, tuple[int, dict[str, GuiConnector]]] = {}
        self._nextTag = 0
        self._updating = False
        for parameter in self.allParameters.values():
            parameter.ensure(parameterNode)

    # ---- values by name

    def _parameter(self, name: str) -> Parameter:
        if name not in self.allParameters:
            raise ValueError(f"no parameter {name!r}, only {', '.join(self.allParameters)}")
        return self.allParameters[name]

    def getValue(self, name: str) -> Any:
        return self._parameter(name).__get__(self)

    def setValue(self, name: str, value: Any) -> None:
        self._parameter(name).__set__(self, value)

    def default(self, name: str) -> Default:
        return self._parameter(name).default

    def isCached(self, name: str) -> bool:
        """Whether Slicer keeps the value at hand: it does for every type that is possible here."""
        self._parameter(name)
        return True

    @classmethod
    def dataType(cls, name: str) -> Any:
        return cls.allParameters[name].datatype

    # ---- the panel

    def connectGui(self, gui: Any) -> int:
        """Bind each widget that has the dynamic property `SlicerParameterName` to that parameter.

        Args:
            gui: a widget, or the result of `slicer.util.childWidgetVariables`.

        Returns:
            A tag for `disconnectGui`.

        Raises:
            ValueError: if there is no such parameter.
        """
        isWidget = isinstance(gui, qt.QWidget)
        widgets = gui.findChildren(qt.QWidget) if isWidget else list(vars(gui).values())
        named = {each.property(SlicerParameterNamePropertyName): each for each in widgets}
        return self.connectParametersToGui({name: each for name, each in named.items() if name})

    def connectParametersToGui(self, mapping: dict[str, Any]) -> int:
        """Bind parameters to widgets (or connectors), by name."""
        connectors = {name: self._makeConnector(name, item) for name, item in mapping.items()}
        for name, connector in connectors.items():
            connector.write(self.getValue(name))
            connector.onChanged(functools.partial(self._onWidgetChanged, name, connector))
        observer = self.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda caller, event: self._updateWidgets())
        self._nextTag += 1
        self._connections[self._nextTag] = (observer, connectors)
        return self._nextTag

    def _makeConnector(self, name: str, item: Any) -> GuiConnector:
        datatype = self._parameter(name).datatype
        return item if isinstance(item, GuiConnector) else createGuiConnector(item, datatype)

    def disconnectGui(self, guiTag: int) -> None:
        """Undo one `connectGui`."""
        if guiTag in self._connections:
            observer, connectors = self._connections.pop(guiTag)
            self.RemoveObserver(observer)
            for connector in connectors.values():
                connector.onChanged(None)

    def _onWidgetChanged(self, name: str, connector: GuiConnector) -> None:
        if not self._updating:
            self.setValue(name, connector.read())

    def _updateWidgets(self) -> None:
        if self._updating:
            return
        self._updating = True
        try:
            for _observer, connectors in list(self._connections.values()):
                for name, connector in connectors.items():
                    connector.write(self.getValue(name))
        finally:
            self._updating = False

    # ---- the node

    def StartModify(self) -> Any:
        return self.parameterNode.StartModify()

    def EndModify(self, wasModified: Any) -> None:
        self.parameterNode.EndModify(wasModified)

    def AddObserver(self, event: Any, callback: Any, priority: float = 0.0) -> int:
        return int(self.parameterNode.AddObserver(event, callback, priority))

    def RemoveObserver(self, tag: int) -> None:
        self.parameterNode.RemoveObserver(tag)

    def Modified(self) -> None:
        self.parameterNode.Modified()


def _wrap(described: type) -> type:
    hints = typing.get_type_hints(described, include_extras=True)
    reserved = [name for name in hints if hasattr(ParameterNodeWrapper, name)]
    if reserved:
        raise ValueError(f"reserved names in a parameterNodeWrapper: {', '.join(reserved)}")
    parameters = {name: Parameter(name, datatype, described) for name, datatype in hints.items()}
    members = {
        name: value for name, value in vars(described).items() if name not in ("__dict__", "__weakref__")
    }
    return type(
        described.__name__, (ParameterNodeWrapper,), {**members, **parameters, "allParameters": parameters}
    )


def parameterNodeWrapper(classtype: type | None = None) -> Any:
    """Class decorator, with or without brackets."""
    return _wrap if classtype is None else _wrap(classtype)


def isParameterNodeWrapper(classOrObject: Any) -> bool:
    """Whether the class, or the object's class, was made by `parameterNodeWrapper`."""
    return bool(getattr(classOrObject, "_is_parameter_node_wrapper", False))
