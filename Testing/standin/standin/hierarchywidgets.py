"""Widgets that show the subject hierarchy: the tree and the combo box."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, stored
from qt import Signal

from .nodewidgets import SceneFollower


class HierarchyState(SceneFollower, Setters):
    """What the two subject hierarchy widgets have in common."""

    def subjectHierarchyNode(self) -> Any:
        if self._scene is None:
            return None
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self._scene)

    def _children(self, item: int) -> list[int]:
        """The items directly below one, those of fitting nodes only."""
        children = vtk.vtkIdList()
        self.subjectHierarchyNode().GetItemChildren(item, children, False)
        items = [children.GetId(index) for index in range(children.GetNumberOfIds())]
        return [each for each in items if self._fits(each)]

    def _fits(self, item: int) -> bool:
        node = self.subjectHierarchyNode().GetItemDataNode(item)
        types = self.nodeTypes  # type: ignore[attr-defined]
        return not types or node is None or any(node.IsA(each) for each in types)

    def _nodeOf(self, item: int) -> Any:
        return self.subjectHierarchyNode().GetItemDataNode(item) if item else None


@standinWidget
class qMRMLSubjectHierarchyTreeView(HierarchyState, qt.QTreeView):
    """The tree of the scene's items."""

    currentItemChanged = Signal(object)
    currentNodeChanged = Signal(object)
    nodeTypes = stored("nodeTypes", "QStringList", (), "_refresh")
    multiSelection = stored("multiSelection", bool, False)
    showRootItem = stored("showRootItem", bool, False)
    noneEnabled = stored("noneEnabled", bool, False)
    contextMenuEnabled = stored("contextMenuEnabled", bool, True)
    editMenuActionVisible = stored("editMenuActionVisible", bool, True)
    visibilityColumnVisible = stored("visibilityColumnVisible", bool, True)
    idColumnVisible = stored("idColumnVisible", bool, False)
    transformColumnVisible = stored("transformColumnVisible", bool, True)
    _items: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.setModel(qt.QStandardItemModel(self))
        self.selectionModel().currentChanged.connect(self._onCurrentChanged)
        self.setHeaderHidden(True)

    def _refresh(self) -> None:
        chosen = self.currentItem()
        self.model().clear()
        hierarchy = self.subjectHierarchyNode()
        if hierarchy is not None:
            self._fill(self.model().invisibleRootItem(), hierarchy.GetSceneItemID())
            self.expandAll()
            self.setCurrentItem(chosen)

    def _fill(self, row: Any, item: int) -> None:
        for child in self._children(item):
            childRow = qt.QStandardItem(self.subjectHierarchyNode().GetItemName(child))
            childRow.setData(child, qt.Qt.UserRole)
            childRow.setEditable(False)
            row.appendRow(childRow)
            self._fill(childRow, child)

    def currentItem(self) -> int:
        return int(self.currentIndex().data(qt.Qt.UserRole) or 0)

    def currentNode(self) -> Any:
        return self._nodeOf(self.currentItem())

    def setCurrentItem(self, item: int) -> None:
        flags = qt.Qt.MatchExactly | qt.Qt.MatchRecursive
        found = self.model().match(self.model().index(0, 0), qt.Qt.UserRole, item, 1, flags) if item else []
        self.setCurrentIndex(found[0] if found else qt.QModelIndex())

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentItem(self.subjectHierarchyNode().GetItemByDataNode(node) if node is not None else 0)

    def _onCurrentChanged(self, *_indexes: Any) -> None:
        self.currentItemChanged.emit(self.currentItem())
        self.currentNodeChanged.emit(self.currentNode())


@standinWidget
class qMRMLSubjectHierarchyComboBox(HierarchyState, qt.QComboBox):
    """The scene's items in a combo box."""

    currentItemChanged = Signal(object)
    nodeTypes = stored("nodeTypes", "QStringList", (), "_refresh")
    noneEnabled = stored("noneEnabled", bool, False, "_refresh")
    noneDisplay = stored("noneDisplay", str, "None", "_refresh")
    showRootItem = stored("showRootItem", bool, False)

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.currentIndexChanged.connect(lambda index: self.currentItemChanged.emit(self.currentItem()))

    def _refresh(self) -> None:
        chosen = self.currentItem()
        self.clear()
        hierarchy = self.subjectHierarchyNode()
        if self.noneEnabled:
            self.addItem(self.noneDisplay, 0)
        if hierarchy is not None:
            self._fill(hierarchy.GetSceneItemID(), 0)
        self.setCurrentItem(chosen)

    def clearSelection(self) -> None:
        self.setCurrentItem(0)

    def _fill(self, item: int, depth: int) -> None:
        for child in self._children(item):
            self.addItem("  " * depth + self.subjectHierarchyNode().GetItemName(child), child)
            self._fill(child, depth + 1)

    def currentItem(self) -> int:
        return int(self.currentData or 0)

    def setCurrentItem(self, item: int) -> None:
        self.setCurrentIndex(max(self.findData(item), 0 if self.count else -1))

    def currentNode(self) -> Any:
        return self._nodeOf(self.currentItem())

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentItem(self.subjectHierarchyNode().GetItemByDataNode(node) if node is not None else 0)
