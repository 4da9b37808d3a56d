"""The loader of `.ui` files, as strict as Slicer's, and stricter where Slicer fails silently.

- A widget class that neither Qt nor the stand-ins have is an error.
- A property that the stand-in's class does not have is an error (dynamic ones carry `stdset="0"`).
- Connections that involve a stand-in are made in Python, exactly those which the file has: a node selector
  without `mrmlSceneChanged -> setMRMLScene` never gets a scene, as in Slicer.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

from . import rules
from .rules import QtCore, QtUiTools, QtWidgets

QT_NAMES = {name for module in rules.QT_MODULES for name in dir(module)} | {"Line"}


class UiFileError(RuntimeError):
    """The `.ui` file asks for something that does not exist."""


def declaredProperties(widgetClass: Any) -> set[str]:
    meta = widgetClass.staticMetaObject
    return {meta.property(index).name() for index in range(meta.propertyCount())}


def checkClasses(root: ElementTree.Element) -> None:
    unknown = {str(each.get("class")) for each in root.iter("widget")} - set(rules.customWidgets) - QT_NAMES
    if unknown:
        raise UiFileError(f"unknown widget class: {', '.join(sorted(unknown))}")


def checkProperties(root: ElementTree.Element) -> None:
    for widget in root.iter("widget"):
        widgetClass = rules.customWidgets.get(str(widget.get("class")))
        if widgetClass is None:
            continue
        for item in widget.findall("property"):
            if item.get("stdset") != "0" and item.get("name") not in declaredProperties(widgetClass):
                raise UiFileError(
                    f"{widget.get('class')} {widget.get('name')} has no property {item.get('name')}"
                )


def takeEnumProperties(root: ElementTree.Element) -> list[tuple[str, str, str]]:
    """Take the enumerators that Qt's loader cannot read (a stand-in's own) out of the tree."""
    taken = []
    for widget in root.iter("widget"):
        widgetClass = rules.customWidgets.get(str(widget.get("class")))
        for item in widget.findall("property"):
            text = item.findtext("set") or item.findtext("enum")
            name = str(item.get("name"))
            if widgetClass is not None and text and name in getattr(widgetClass, "_enumProperties", ()):
                taken.append((str(widget.get("name")), name, text))
                widget.remove(item)
    return taken


def applyEnumProperty(widget: Any, name: str, text: str) -> None:
    """Set a property to enumerators such as `ctkPathLineEdit::Dirs|ctkPathLineEdit::Files`."""
    names = [each.strip().split("::")[-1] for each in text.split("|")]
    value = 0
    for each in names:
        value |= int(getattr(type(widget), each))
    setattr(widget, name, value)


def takeConnections(root: ElementTree.Element) -> list[tuple[str, str, str, str]]:
    """Take the connections that involve a stand-in out of the tree: (sender, signal, receiver, slot)."""
    standins = {w.get("name") for w in root.iter("widget") if w.get("class") in rules.customWidgets}
    connections = root.find("connections")
    taken = []
    for item in list(connections) if connections is not None else []:
        ends = [item.findtext(tag, "") for tag in ("sender", "signal", "receiver", "slot")]
        if connections is not None and standins & {ends[0], ends[2]}:
            taken.append((ends[0], ends[1], ends[2], ends[3]))
            connections.remove(item)
    return taken


def makeConnection(widgets: dict[str, Any], ends: tuple[str, str, str, str]) -> None:
    sender, signal, receiver, slot = ends
    method = getattr(widgets.get(receiver), slot.split("(")[0], None)
    if sender not in widgets or not callable(method):
        raise UiFileError(f"cannot connect {sender}.{signal} to {receiver}.{slot}")
    try:
        rules.connectBySignature(widgets[sender], signal, method)
    except ValueError as error:
        raise UiFileError(str(error)) from error


class QUiLoader(QtUiTools.QUiLoader):
    """Qt's loader with the stand-ins for the widget classes of CTK and Slicer."""

    def load(self, source: Any, parentWidget: Any = None) -> Any:
        """The widget that the file describes.

        Args:
            source: an open QFile, or a path.
            parentWidget: the new widget's parent.

        Raises:
            UiFileError: if the file asks for a class, property or connection that does not exist.
        """
        data = bytes(source.readAll()) if hasattr(source, "readAll") else Path(source).read_bytes()
        root = ElementTree.fromstring(data)
        checkClasses(root)
        checkProperties(root)
        enumerators, connections = takeEnumProperties(root), takeConnections(root)
        widget = self._loadTree(root, parentWidget)
        widgets = {each.objectName: each for each in (widget, *widget.findChildren(QtWidgets.QWidget))}
        for name, item, text in enumerators:
            applyEnumProperty(widgets[name], item, text)
        for ends in connections:
            makeConnection(widgets, ends)
        return widget

    def _loadTree(self, root: ElementTree.Element, parentWidget: Any) -> Any:
        for widgetClass in rules.customWidgets.values():
            self.registerCustomWidget(widgetClass)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(root))
        buffer.open(QtCore.QIODevice.ReadOnly)
        rules.Loading.active = True
        try:
            widget = super().load(buffer, parentWidget)
        finally:
            rules.Loading.active = False
        if widget is None:
            raise UiFileError(self.errorString())
        return widget
