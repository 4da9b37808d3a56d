"""The layout manager: Slicer's own layout logic says which views there are and how they are arranged."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from typing import Any

import qt
import slicer
import vtk
from pythonqt.observing import whileAlive
from pythonqt.rules import cppStandin
from qt import Property, Signal

from .datawidgets import qMRMLPlotWidget, qMRMLTableWidget
from .views import qMRMLSliceWidget, qMRMLThreeDWidget


def makeSliceWidget(node: Any) -> Any:
    logic = slicer.vtkMRMLSliceLogic()
    application = slicer.app.applicationLogic()
    logic.SetMRMLApplicationLogic(application)
    application.GetSliceLogics().AddItem(logic)
    logic.SetMRMLScene(slicer.mrmlScene)
    logic.SetSliceNode(node)  # not AddSliceNode: that resets the orientation
    return qMRMLSliceWidget(logic)


def makeThreeDWidget(node: Any) -> Any:
    logic = slicer.vtkMRMLViewLogic()
    application = slicer.app.applicationLogic()
    logic.SetMRMLApplicationLogic(application)
    application.GetViewLogics().AddItem(logic)
    logic.SetMRMLScene(slicer.mrmlScene)
    label = node.GetLayoutLabel()
    logic.AddViewNode(node.GetLayoutName())  # names the logic; resets the node that the layout made
    node.SetLayoutLabel(label)
    logic.SetMRMLScene(None)
    logic.SetMRMLScene(slicer.mrmlScene)  # finds the layout's node by that name
    return qMRMLThreeDWidget(logic, node)


def makePlotWidget(node: Any) -> Any:
    widget = qMRMLPlotWidget()
    widget.setMRMLPlotViewNode(node)
    return widget


def makeTableWidget(node: Any) -> Any:
    widget = qMRMLTableWidget()
    widget.setMRMLTableViewNode(node)
    return widget


FACTORIES: dict[str, Callable[[Any], Any]] = {
    "vtkMRMLSliceNode": makeSliceWidget,
    "vtkMRMLViewNode": makeThreeDWidget,
    "vtkMRMLPlotViewNode": makePlotWidget,
    "vtkMRMLTableViewNode": makeTableWidget,
}


@cppStandin
class qMRMLLayoutManager(qt.QObject):
    """Makes a widget for each view of the layout and arranges them in the viewport."""

    layoutChanged = Signal(int)
    _logic: Any = None
    _widgets: Any = None
    _viewport: Any = None
    _arranged: tuple[int, str] = (-1, "")
    _pauses = 0

    def __init__(self) -> None:
        super().__init__()
        self._widgets = {}
        self._viewport = qt.QWidget()
        qt.QVBoxLayout(self._viewport).setContentsMargins(0, 0, 0, 0)
        self._logic = slicer.vtkMRMLLayoutLogic()
        self._logic.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        self._logic.SetMRMLScene(slicer.mrmlScene)
        self._node().AddObserver(vtk.vtkCommand.ModifiedEvent, whileAlive(self._onLayoutModified))
        self.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)

    def _node(self) -> Any:
        return self._logic.GetLayoutNode()

    # ---- the layout

    def setLayout(self, layout: int) -> None:
        self._node().SetViewArrangement(layout)
        self._onLayoutModified()

    layout = Property(int, lambda self: self._node().GetViewArrangement(), setLayout)

    def layoutLogic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def viewport(self) -> Any:
        return self._viewport

    def _onLayoutModified(self) -> None:
        wanted = self._node().GetViewArrangement(), self._node().GetCurrentLayoutDescription() or ""
        if wanted == self._arranged:
            return
        self._arranged = wanted
        for node in self._viewNodes():
            if viewKey(node) not in self._widgets and node.GetClassName() in FACTORIES:
                self._widgets[viewKey(node)] = FACTORIES[node.GetClassName()](node)
        self._arrange(wanted[1])
        self.layoutChanged.emit(wanted[0])

    def _viewNodes(self) -> list[Any]:
        nodes = self._logic.GetViewNodes()
        return [nodes.GetItemAsObject(index) for index in range(nodes.GetNumberOfItems())]

    def _arrange(self, description: str) -> None:
        """Rebuild the viewport as the layout's description says."""
        for widget in self._widgets.values():
            widget.setParent(None)
        place = self._viewport.layout()
        while place.count():
            place.takeAt(0).widget().deleteLater()
        if description:
            place.addWidget(self._build(ElementTree.fromstring(description)))

    def _build(self, element: ElementTree.Element) -> Any:
        """A view's widget, or the splitter, tabs or grid of a nested layout."""
        if element.tag == "view":
            key = str(element.get("class")), str(element.get("singletontag"))
            widget = self._widgets.get(key) or qt.QWidget()
            widget.show()
            return widget
        items = [(item, self._build(item[0])) for item in element.findall("item") if len(item)]
        kind = element.get("type", "horizontal")
        if kind == "tab":
            return inTabs(items)
        return inGrid(items) if kind == "grid" else inSplitter(items, kind)

    # ---- the views

    def viewWidget(self, node: Any) -> Any:
        return self._widgets.get(viewKey(node))

    def viewWidgets(self) -> tuple[Any, ...]:
        return tuple(self._widgets.values())

    def _ofClass(self, className: str) -> list[Any]:
        return [widget for key, widget in self._widgets.items() if key[0] == className]

    def _at(self, className: str, index: int) -> Any:
        found = self._ofClass(className)
        return found[index] if 0 <= index < len(found) else None

    def sliceViewNames(self) -> tuple[str, ...]:
        return tuple(key[1] for key in self._widgets if key[0] == "vtkMRMLSliceNode")

    def sliceWidget(self, name: str) -> Any:
        return self._widgets.get(("vtkMRMLSliceNode", name))

    def threeDWidget(self, index: int | str) -> Any:
        if isinstance(index, str):
            return self._widgets.get(("vtkMRMLViewNode", index))
        return self._at("vtkMRMLViewNode", index)

    def plotWidget(self, index: int) -> Any:
        return self._at("vtkMRMLPlotViewNode", index)

    def tableWidget(self, index: int) -> Any:
        return self._at("vtkMRMLTableViewNode", index)

    threeDViewCount = Property(int, lambda self: len(self._ofClass("vtkMRMLViewNode")))
    plotViewCount = Property(int, lambda self: len(self._ofClass("vtkMRMLPlotViewNode")))
    tableViewCount = Property(int, lambda self: len(self._ofClass("vtkMRMLTableViewNode")))

    def mrmlSliceLogics(self) -> Any:
        return slicer.app.applicationLogic().GetSliceLogics()

    def mrmlViewLogics(self) -> Any:
        return slicer.app.applicationLogic().GetViewLogics()

    def activeThreeDRenderer(self) -> Any:
        widget = self.threeDWidget(0)
        return widget.threeDView().renderer() if widget is not None else None

    def activeMRMLThreeDViewNode(self) -> Any:
        widget = self.threeDWidget(0)
        return widget.mrmlViewNode() if widget is not None else None

    def resetSliceViews(self) -> None:
        for name in self.sliceViewNames():
            self.sliceWidget(name).sliceLogic().FitSliceToAll()

    def resetThreeDViews(self) -> None:
        for widget in self._ofClass("vtkMRMLViewNode"):
            widget.threeDView().resetFocalPoint()

    # ---- rendering

    def renderedViews(self) -> list[Any]:
        """The slice and 3D views (the bench's own)."""
        return [
            widget.viewWidget()
            for key, widget in self._widgets.items()
            if key[0] in ("vtkMRMLSliceNode", "vtkMRMLViewNode")
        ]

    def pauseRender(self) -> None:
        for view in self.renderedViews():
            view.pauseRender()

    def resumeRender(self) -> None:
        for view in self.renderedViews():
            view.resumeRender()

    def setRenderPaused(self, paused: bool) -> None:
        if paused:
            self.pauseRender()
        else:
            self.resumeRender()


def viewKey(node: Any) -> tuple[str, str]:
    return node.GetClassName(), node.GetLayoutName()


def inSplitter(items: list[tuple[ElementTree.Element, Any]], kind: str) -> Any:
    splitter = qt.QSplitter(qt.Qt.Vertical if kind == "vertical" else qt.Qt.Horizontal)
    for _item, widget in items:
        splitter.addWidget(widget)
    splitter.setSizes([1000] * len(items))
    return splitter


def inTabs(items: list[tuple[ElementTree.Element, Any]]) -> Any:
    tabs = qt.QTabWidget()
    for item, widget in items:
        tabs.addTab(widget, item.get("name") or item[0].get("singletontag") or "")
    return tabs


def inGrid(items: list[tuple[ElementTree.Element, Any]]) -> Any:
    container = qt.QWidget()
    grid = qt.QGridLayout(container)
    grid.setContentsMargins(0, 0, 0, 0)
    for item, widget in items:
        grid.addWidget(widget, int(item.get("row", 0)), int(item.get("column", 0)))
    return container
