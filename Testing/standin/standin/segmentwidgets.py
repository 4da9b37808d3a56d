"""Widgets for segmentations: the segments table, the segment selector, "Show 3D"."""

from __future__ import annotations

from typing import Any

import ctk
import qt
import slicer
import vtk
from ctkwidgets.rows import rowLayout
from pythonqt.observing import Observers
from pythonqt.rules import standinWidget
from pythonqt.state import stored
from qt import Property, Signal

from .nodewidgets import qMRMLNodeComboBox, qMRMLWidget

SEGMENT_EVENTS = ("SegmentAdded", "SegmentRemoved", "SegmentModified", "ContainedRepresentationNamesModified")
VISIBLE, COLOR, OPACITY, NAME, STATUS = range(5)


def segmentationEvents(node: Any) -> list[tuple[Any, Any]]:
    """The events after which a segmentation may look different.

    The node passes its segments' events on when it has prepared their display, so it is the one to observe.
    """
    if node is None:
        return []
    events = [getattr(slicer.vtkSegmentation, name) for name in SEGMENT_EVENTS]
    events += [vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent]
    return [(node, event) for event in events]


@standinWidget
class qMRMLSegmentsTableView(qMRMLWidget):
    """The table of segments: visibility, colour, opacity, name, status."""

    selectionChanged = Signal(object, object)
    segmentAboutToBeModified = Signal(str)
    selectionMode = stored("selectionMode", int, 3, "_onLayoutChanged")
    headerVisible = stored("headerVisible", bool, True, "_onLayoutChanged")
    visibilityColumnVisible = stored("visibilityColumnVisible", bool, True, "_onLayoutChanged")
    colorColumnVisible = stored("colorColumnVisible", bool, True, "_onLayoutChanged")
    opacityColumnVisible = stored("opacityColumnVisible", bool, True, "_onLayoutChanged")
    statusColumnVisible = stored("statusColumnVisible", bool, False, "_onLayoutChanged")
    layerColumnVisible = stored("layerColumnVisible", bool, False)
    readOnly = stored("readOnly", bool, False)
    filterBarVisible = stored("filterBarVisible", bool, False)
    textFilter = stored("textFilter", str, "", "_refresh")
    jumpToSelectedSegmentEnabled = stored("jumpToSelectedSegmentEnabled", bool, False)
    useTerminologySelector = stored("useTerminologySelector", bool, True)
    useTerminologySelectorSettingsKey = stored("useTerminologySelectorSettingsKey", str, "")
    terminologySelectorOptionVisible = stored("terminologySelectorOptionVisible", bool, False)
    terminologySelectorAutoDisable = stored("terminologySelectorAutoDisable", bool, True)
    _enumProperties = ("selectionMode",)
    NoSelection, SingleSelection, MultiSelection, ExtendedSelection = 0, 1, 2, 3
    _table: Any = None
    _node: Any = None
    _observer: Any = None
    _hidden: tuple[str, ...] = ()
    _filling = False

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._observer = Observers(self._refresh)
        self._table = qt.QTableWidget(0, 5)
        self._table.setHorizontalHeaderLabels(["", "Color", "Opacity", "Name", "Status"])
        self._table.verticalHeader().setVisible(False)
        self._table.horizontalHeader().setSectionResizeMode(NAME, qt.QHeaderView.Stretch)
        self._table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        for column, width in ((VISIBLE, 28), (COLOR, 40), (OPACITY, 56)):
            self._table.setColumnWidth(column, width)
        rowLayout(self, self._table)
        self._table.itemChanged.connect(self._onItemChanged)
        self._table.itemSelectionChanged.connect(self._onSelectionChanged)
        self._onLayoutChanged()

    segmentCount = Property(int, lambda self: self._table.rowCount)

    def segmentationNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node
        self._observer.watch(segmentationEvents(node))
        self._refresh()

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        if scene is None:
            self.setSegmentationNode(None)

    def tableWidget(self) -> Any:
        return self._table

    # ---- the rows

    def displayedSegmentIDs(self) -> tuple[str, ...]:
        return tuple(self.segmentIDForRow(row) for row in range(self._table.rowCount))

    def segmentIDForRow(self, row: int) -> str:
        return str(self._table.item(row, NAME).data(qt.Qt.UserRole))

    def rowForSegmentID(self, segmentID: str) -> int:
        return self.displayedSegmentIDs().index(segmentID) if segmentID in self.displayedSegmentIDs() else -1

    def hideSegments(self) -> tuple[str, ...]:
        return self._hidden

    def setHideSegments(self, segmentIDs: Any) -> None:
        self._hidden = tuple(segmentIDs)
        self._refresh()

    def _onLayoutChanged(self) -> None:
        if self._table is None:
            return
        self._table.horizontalHeader().setVisible(self.headerVisible)
        for column, shown in (
            (VISIBLE, self.visibilityColumnVisible),
            (COLOR, self.colorColumnVisible),
            (OPACITY, self.opacityColumnVisible),
            (STATUS, self.statusColumnVisible),
        ):
            self._table.setColumnHidden(column, not shown)
        self._table.setSelectionMode(qt.QAbstractItemView.SelectionMode(int(self.selectionMode)))

    def _refresh(self) -> None:
        if self._table is None or self._filling:
            return
        self._filling = True
        chosen = self.selectedSegmentIDs()
        segmentIDs = self._segmentIDs()
        self._table.setRowCount(len(segmentIDs))
        for row, segmentID in enumerate(segmentIDs):
            self._fillRow(row, segmentID)
        self._filling = False
        if chosen != self.selectedSegmentIDs():
            self.setSelectedSegmentIDs(chosen)

    def _segmentIDs(self) -> list[str]:
        if self._node is None:
            return []
        segmentation = self._node.GetSegmentation()
        wanted = self.textFilter.lower()
        return [
            each
            for each in segmentation.GetSegmentIDs()
            if each not in self._hidden and wanted in segmentation.GetSegment(each).GetName().lower()
        ]

    def _fillRow(self, row: int, segmentID: str) -> None:
        segment = self._node.GetSegmentation().GetSegment(segmentID)
        display = self._node.GetDisplayNode()
        items = [qt.QTableWidgetItem() for _ in range(5)]
        shown = display is None or display.GetSegmentVisibility(segmentID)
        items[VISIBLE].setCheckState(qt.Qt.Checked if shown else qt.Qt.Unchecked)
        items[COLOR].setBackground(qt.QColor.fromRgbF(*segment.GetColor()))
        items[OPACITY].setText(f"{display.GetSegmentOpacity3D(segmentID):.2f}" if display is not None else "")
        items[NAME].setText(segment.GetName())
        for column, item in enumerate(items):
            item.setData(qt.Qt.UserRole, segmentID)
            self._table.setItem(row, column, item)

    def _onItemChanged(self, item: Any) -> None:
        if self._filling or self._node is None:
            return
        segmentID, display = item.data(qt.Qt.UserRole), self._node.GetDisplayNode()
        if item.column() == VISIBLE and display is not None:
            display.SetSegmentVisibility(segmentID, item.checkState() == qt.Qt.Checked)
        elif item.column() == OPACITY and display is not None:
            display.SetSegmentOpacity3D(segmentID, float(item.text()))
        elif item.column() == NAME:
            self.segmentAboutToBeModified.emit(segmentID)
            self._node.GetSegmentation().GetSegment(segmentID).SetName(item.text())

    # ---- the selection

    def _onSelectionChanged(self) -> None:
        if not self._filling:
            self.selectionChanged.emit(None, None)

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        rows = sorted(index.row() for index in self._table.selectionModel().selectedRows(NAME))
        return tuple(self.segmentIDForRow(row) for row in rows if self._table.item(row, NAME) is not None)

    def setSelectedSegmentIDs(self, segmentIDs: Any) -> None:
        model, selection = self._table.model(), qt.QItemSelection()
        for row in range(self._table.rowCount):
            if self.segmentIDForRow(row) in segmentIDs:
                selection.select(model.index(row, 0), model.index(row, STATUS))
        self._table.selectionModel().select(selection, qt.QItemSelectionModel.ClearAndSelect)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def showOnlySelectedSegments(self) -> None:
        chosen = self.selectedSegmentIDs()
        for segmentID in self.displayedSegmentIDs():
            self._node.GetDisplayNode().SetSegmentVisibility(segmentID, segmentID in chosen)

    def jumpSlices(self) -> None:
        """Centre the slice views on the first selected segment."""
        chosen = self.selectedSegmentIDs()
        if chosen:
            center = self._node.GetSegmentCenterRAS(chosen[0])
            slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *center)


@standinWidget
class qMRMLSegmentSelectorWidget(qMRMLWidget):
    """A node selector for segmentations and a combo box for the segments of the chosen one."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)
    segmentSelectionChanged = Signal(object)
    nodeActivated = Signal(object)
    noneEnabled = stored("noneEnabled", bool, False, "_onNoneEnabled")
    segmentationNodeSelectorVisible = stored("segmentationNodeSelectorVisible", bool, True, "_onVisible")
    selectNodeUponCreation = stored("selectNodeUponCreation", bool, True)
    horizontalLayout = stored("horizontalLayout", bool, True)
    multiSelection = stored("multiSelection", bool, False)
    _nodes: Any = None
    _segments: Any = None
    _observer: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._observer = Observers(self._refresh)
        self._nodes, self._segments = qMRMLNodeComboBox(), qt.QComboBox()
        self._nodes.nodeTypes = ("vtkMRMLSegmentationNode",)
        self._nodes.addEnabled = False
        rowLayout(self, self._nodes, self._segments)
        self._nodes.currentNodeChanged.connect(self._onNodeChanged)
        self._segments.currentIndexChanged.connect(self._onSegmentChanged)

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        self._nodes.setMRMLScene(scene)

    def _onNoneEnabled(self) -> None:
        self._nodes.noneEnabled = self.noneEnabled

    def _onVisible(self) -> None:
        self._nodes.setVisible(self.segmentationNodeSelectorVisible)

    def currentNode(self) -> Any:
        return self._nodes.currentNode()

    def setCurrentNode(self, node: Any) -> None:
        self._nodes.setCurrentNode(node)

    def currentNodeID(self) -> str:
        return str(self._nodes.currentNodeID)

    def setCurrentNodeID(self, nodeID: str) -> None:
        self._nodes.setCurrentNodeID(nodeID)

    def currentSegmentID(self) -> str:
        return str(self._segments.currentData or "")

    def setCurrentSegmentID(self, segmentID: str) -> None:
        self._segments.setCurrentIndex(self._segments.findData(segmentID or ""))

    def selectedSegmentIDs(self) -> tuple[str, ...]:
        return (self.currentSegmentID(),) if self.currentSegmentID() else ()

    def _onNodeChanged(self, node: Any) -> None:
        self._observer.watch(segmentationEvents(node))
        self._refresh()
        self.currentNodeChanged.emit(node)

    def _refresh(self) -> None:
        node, chosen = self.currentNode(), self.currentSegmentID()
        self._segments.blockSignals(True)
        self._segments.clear()
        if self.noneEnabled or node is None:
            self._segments.addItem("None", "")
        for segmentID in node.GetSegmentation().GetSegmentIDs() if node is not None else ():
            self._segments.addItem(node.GetSegmentation().GetSegment(segmentID).GetName(), segmentID)
        self._segments.setCurrentIndex(max(self._segments.findData(chosen), 0))
        self._segments.blockSignals(False)
        if self.currentSegmentID() != chosen:
            self._onSegmentChanged()

    def _onSegmentChanged(self, *_index: Any) -> None:
        self.currentSegmentChanged.emit(self.currentSegmentID())
        self.segmentSelectionChanged.emit(self.selectedSegmentIDs())


@standinWidget
class qMRMLSegmentationShow3DButton(ctk.ctkMenuButton):
    """Makes and shows the closed surfaces of a segmentation; checked while they exist."""

    locked = stored("locked", bool, False, "_refresh")
    _node: Any = None
    _observer: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._observer = Observers(self._refresh)
        self.setText("Show 3D")
        self.setCheckable(True)
        self.setEnabled(False)
        self.toggled.connect(self._onToggled)

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is None:
            self.setSegmentationNode(None)

    def segmentationNode(self) -> Any:
        return self._node

    def setSegmentationNode(self, node: Any) -> None:
        self._node = node
        self._observer.watch(segmentationEvents(node))
        self._refresh()

    def _refresh(self) -> None:
        segmentation = self._node.GetSegmentation() if self._node is not None else None
        self.setEnabled(
            segmentation is not None and not self.locked and segmentation.GetNumberOfSegments() > 0
        )
        if segmentation is not None:
            self.blockSignals(True)
            self.setChecked(segmentation.ContainsRepresentation(self._surfaces()))
            self.blockSignals(False)

    @staticmethod
    def _surfaces() -> str:
        return str(slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName())

    def _onToggled(self, shown: bool) -> None:
        if self._node is None:
            return
        with slicer.util.NodeModify(self._node):
            if not shown:
                self._node.GetSegmentation().RemoveRepresentation(self._surfaces())
            elif self._node.GetSegmentation().CreateRepresentation(self._surfaces()):
                display = self._node.GetDisplayNode()
                display.SetPreferredDisplayRepresentationName3D(self._surfaces())
                display.SetVisibility(True)
                display.SetVisibility3D(True)
