"""Widgets that have a scene and choose its nodes: qMRMLWidget, node selectors, number widgets."""

from __future__ import annotations

from typing import Any

import ctk
import qt
import slicer
import vtk
from ctkwidgets.rows import rowLayout
from pythonqt.observing import Observers, whileAlive
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, stored
from qt import Property, Signal


@standinWidget
class qMRMLWidget(Setters, qt.QWidget):
    """A widget that hands the scene on to its children, along the connections of the `.ui` file."""

    mrmlSceneChanged = Signal(object)
    _scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@standinWidget
class qSlicerWidget(qMRMLWidget):
    """The same, for Slicer's own modules."""


class SceneObserver:
    """Calls a widget's method after each change of the scene's nodes; `watch` follows one scene at a time."""

    EVENTS = ("NodeAddedEvent", "NodeRemovedEvent", "EndCloseEvent", "EndImportEvent", "EndBatchProcessEvent")

    def __init__(self, changed: Any) -> None:
        self._changed = whileAlive(changed)
        self._observers = Observers(self._onEvent)
        self._scene: Any = None

    def watch(self, scene: Any) -> None:
        self._scene = scene
        events = [getattr(slicer.vtkMRMLScene, name) for name in self.EVENTS] if scene is not None else []
        self._observers.watch((scene, event) for event in events)

    def _onEvent(self) -> None:
        if not (self._scene.IsClosing() or self._scene.IsImporting() or self._scene.IsBatchProcessing()):
            self._changed(None, None)


class SceneHolder:
    """Knows the scene."""

    _scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene


class SceneFollower(SceneHolder):
    """Is made anew when nodes come and go."""

    _observer: Any = None

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        if self._observer is None:
            self._observer = SceneObserver(self._refresh)
        self._observer.watch(scene)
        self._refresh()

    def _refresh(self) -> None:
        raise NotImplementedError  # abstract: each subclass has its own


class NodeSelection(SceneFollower, Setters, qt.QWidget):
    """What node selectors have in common: which nodes of the scene they offer."""

    nodeTypes = stored("nodeTypes", "QStringList", (), "_refresh")
    hideChildNodeTypes = stored("hideChildNodeTypes", "QStringList", (), "_refresh")
    showHidden = stored("showHidden", bool, False, "_refresh")
    showChildNodeTypes = stored("showChildNodeTypes", bool, True, "_refresh")
    noneEnabled = stored("noneEnabled", bool, False, "_refresh")
    noneDisplay = stored("noneDisplay", str, "None", "_refresh")
    addEnabled = stored("addEnabled", bool, True)
    removeEnabled = stored("removeEnabled", bool, True)
    editEnabled = stored("editEnabled", bool, False)
    renameEnabled = stored("renameEnabled", bool, False)
    selectNodeUponCreation = stored("selectNodeUponCreation", bool, True)
    interactionNodeSingletonTag = stored("interactionNodeSingletonTag", str, "")
    sizeAdjustPolicy = stored("sizeAdjustPolicy", int, 0)
    _enumProperties = ("sizeAdjustPolicy",)
    _attributes: tuple[tuple[str, str, Any], ...] = ()

    def addAttribute(self, nodeType: str, name: str, value: Any = None) -> None:
        """Offer nodes of that type only if they have the attribute (and that value)."""
        self.removeAttribute(nodeType, name)
        self._attributes = (*self._attributes, (nodeType, name, value))
        self._refresh()

    def removeAttribute(self, nodeType: str, name: str) -> None:
        self._attributes = tuple(each for each in self._attributes if each[:2] != (nodeType, name))
        self._refresh()

    def _sceneNodes(self) -> list[Any]:
        count = self._scene.GetNumberOfNodes() if self._scene is not None else 0
        return [self._scene.GetNthNode(index) for index in range(count)]

    def nodes(self) -> list[Any]:
        """The nodes on offer, in the scene's order."""
        return [node for node in self._sceneNodes() if self._isOffered(node)]

    def _isOfType(self, node: Any) -> bool:
        className = node.GetClassName()
        if className in self.hideChildNodeTypes:
            return False
        if not self.showChildNodeTypes:
            return className in self.nodeTypes
        return any(node.IsA(each) for each in self.nodeTypes)

    def _isOffered(self, node: Any) -> bool:
        wanted = [each[1:] for each in self._attributes if each[0] == node.GetClassName()]
        return (
            self._isOfType(node)
            and (self.showHidden or not node.GetHideFromEditors())
            and all(hasAttribute(node, name, value) for name, value in wanted)
        )


def hasAttribute(node: Any, name: str, value: Any) -> bool:
    found = node.GetAttribute(name)
    return found is not None and (value is None or found == str(value))


@standinWidget
class qMRMLNodeComboBox(NodeSelection):
    """A combo box of nodes, with entries that make, rename and delete nodes."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)
    _comboBox: Any = None
    _current: Any = None
    _baseNames: Any = None
    _labels: Any = None
    _nodeObservers: Any = None
    _offered: tuple[Any, ...] = ()
    _requested: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._comboBox = qt.QComboBox()
        self._baseNames, self._labels = {}, {}
        self._nodeObservers = Observers(self._onNodeModified)
        rowLayout(self, self._comboBox)
        self._comboBox.activated.connect(self._onActivated)
        self._refresh()

    # ---- the current node

    def currentNode(self) -> Any:
        return self._current

    def setCurrentNode(self, node: Any) -> None:
        """Choose a node (or its ID). A node that is not on offer is the same as none, as in Slicer."""
        if isinstance(node, str):
            node = self._scene.GetNodeByID(node) if self._scene is not None and node else None
        if self._scene is None:
            self._requested = node
        self._choose(node if node in self._offered else None)

    def setCurrentNodeID(self, nodeID: str) -> None:
        self.setCurrentNode(nodeID or None)

    def setCurrentNodeIndex(self, index: int) -> None:
        self.setCurrentNode(self.nodeFromIndex(index))

    def _getCurrentNodeID(self) -> str:
        return self._current.GetID() if self._current is not None else ""

    currentNodeID = Property(str, _getCurrentNodeID, setCurrentNodeID)

    def nodeCount(self) -> int:
        return len(self._offered)

    def nodeFromIndex(self, index: int) -> Any:
        return self._offered[index] if 0 <= index < len(self._offered) else None

    def _choose(self, node: Any) -> None:
        before, self._current = self._current, node
        self._showCurrent()
        if node is not before:
            self.currentNodeChanged.emit(node)
            self.currentNodeIDChanged.emit(self._getCurrentNodeID())

    def _showCurrent(self) -> None:
        self._comboBox.setCurrentIndex(self._comboBox.findData(self._getCurrentNodeID()))

    # ---- the list

    def setMRMLScene(self, scene: Any) -> None:
        """Offer the scene's nodes. Without "None", the first of those that it has already becomes current."""
        if scene is self._scene:
            return
        hadNodes = bool(self._offered)
        super().setMRMLScene(scene)
        if not hadNodes:
            first = None if self.noneEnabled else self.nodeFromIndex(0)
            self.setCurrentNode(self._requested if self._requested is not None else first)
        self._requested = None

    def _refresh(self) -> None:
        """Fill the combo box. A node that is added later does not become current, as in Slicer."""
        if self._comboBox is None:
            return
        before, self._offered = self._offered, tuple(self.nodes())
        self._comboBox.clear()
        self._comboBox.setPlaceholderText(self._prompt())
        if self.noneEnabled:
            self._comboBox.addItem(self.noneDisplay, "")
        for node in self._offered:
            self._comboBox.addItem(node.GetName(), node.GetID())
        self._addActions()
        candidates = [node for node in self._sceneNodes() if self._isOfType(node)]
        self._nodeObservers.watch((node, vtk.vtkCommand.ModifiedEvent) for node in candidates)
        self._choose(self._current if self._current in self._offered else self._neighbour(before))

    def _neighbour(self, before: tuple[Any, ...]) -> Any:
        """What Qt's combo box makes current when the current row goes: the row above it, if there is one."""
        rows = (None, *before) if self.noneEnabled else before
        row = rows.index(self._current) if self._current in rows else 0
        above = rows[row - 1] if row > 0 else None
        return above if above in self._offered else None

    def _prompt(self) -> str:
        return f"Select a {self._label(self.nodeTypes[0])}" if self.nodeTypes else "Select a node"

    def _label(self, nodeType: str) -> str:
        return str(self._labels.get(nodeType, nodeType.removeprefix("vtkMRML").removesuffix("Node")))

    def _addActions(self) -> None:
        if self.renameEnabled and self._current is not None:
            self._comboBox.addItem("Rename current node…", "rename")
        if self.removeEnabled and self._current is not None:
            self._comboBox.addItem("Delete current node", "delete")
        for nodeType in self.nodeTypes if self.addEnabled else ():
            self._comboBox.addItem(f"Create new {self._label(nodeType)}", "create " + nodeType)

    def _onNodeModified(self) -> None:
        """A node's name, or what the filters look at, may have changed."""
        if tuple(self.nodes()) != self._offered:
            self._refresh()
            return
        for node in self._offered:
            row = self._comboBox.findData(node.GetID())
            if self._comboBox.itemText(row) != node.GetName():
                self._comboBox.setItemText(row, node.GetName())
                if node is self._current:
                    self.currentNodeRenamed.emit(node.GetName())

    def _onActivated(self, row: int) -> None:
        action = self._comboBox.itemData(row)
        self._showCurrent()
        if action == "rename":
            self.renameCurrentNode()
        elif action == "delete":
            self.removeCurrentNode()
        elif action.startswith("create "):
            self.addNode(action.removeprefix("create "))
        else:
            self.setCurrentNodeID(action)
            self.nodeActivated.emit(self._current)

    # ---- what the user can do with nodes

    def setBaseName(self, name: str, nodeType: str = "") -> None:
        self._baseNames[nodeType] = name

    baseName = Property(str, lambda self: self._baseNames.get("", ""), setBaseName)

    def setNodeTypeLabel(self, label: str, nodeType: str) -> None:
        self._labels[nodeType] = label
        self._refresh()

    def nodeTypeLabel(self, nodeType: str) -> str:
        return self._label(nodeType)

    def addNode(self, nodeType: str = "") -> Any:
        """Make a node, as "Create new ..." does."""
        nodeType = nodeType or self.nodeTypes[0]
        name = self._baseNames.get(nodeType) or self._baseNames.get("") or self._label(nodeType)
        node = self._scene.CreateNodeByClass(nodeType)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(name))
        for kind, attribute, value in self._attributes:
            if kind == nodeType:
                node.SetAttribute(attribute, str(value or ""))
        node = self._scene.AddNode(node)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAdded.emit(node)
        self.nodeAddedByUser.emit(node)
        return node

    def removeCurrentNode(self) -> None:
        if self._current is not None:
            self.nodeAboutToBeRemoved.emit(self._current)
            self._scene.RemoveNode(self._current)

    def renameCurrentNode(self) -> None:
        answer = qt.QInputDialog.getText(self, "Rename", "New name:")
        name = answer[0] if isinstance(answer, tuple) else answer
        if self._current is not None and name:
            self._current.SetName(name)

    def editCurrentNode(self) -> None:
        self.nodeAboutToBeEdited.emit(self._current)

    def comboBox(self) -> Any:
        return self._comboBox


@standinWidget
class qMRMLCheckableNodeComboBox(NodeSelection):
    """A combo box in which several nodes can be checked."""

    checkedNodesChanged = Signal()
    _comboBox: Any = None
    _checked: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._checked = set()
        self._comboBox = ctk.ctkCheckableComboBox()
        rowLayout(self, self._comboBox)
        self._comboBox.checkedIndexesChanged.connect(self._onChecked)

    def _refresh(self) -> None:
        if self._comboBox is None:
            return
        self._comboBox.blockSignals(True)
        self._comboBox.clear()
        for row, node in enumerate(self.nodes()):
            self._comboBox.addItem(node.GetName(), node.GetID())
            self._check(row, node.GetID() in self._checked)
        self._comboBox.blockSignals(False)

    def _check(self, row: int, checked: bool) -> None:
        state = qt.Qt.Checked if checked else qt.Qt.Unchecked
        self._comboBox.setCheckState(self._comboBox.model().index(row, 0), state)

    def _onChecked(self) -> None:
        self._checked = {self._comboBox.itemData(index.row()) for index in self._comboBox.checkedIndexes()}
        self.checkedNodesChanged.emit()

    def checkedNodes(self) -> tuple[Any, ...]:
        return tuple(node for node in self.nodes() if node.GetID() in self._checked)

    def uncheckedNodes(self) -> tuple[Any, ...]:
        return tuple(node for node in self.nodes() if node.GetID() not in self._checked)

    def allChecked(self) -> bool:
        return not self.uncheckedNodes()

    def noneChecked(self) -> bool:
        return not self.checkedNodes()

    def checkState(self, node: Any) -> Any:
        return qt.Qt.Checked if node.GetID() in self._checked else qt.Qt.Unchecked

    def setCheckState(self, node: Any, state: Any) -> None:
        row = self._comboBox.findData(node.GetID())
        if row >= 0:
            self._check(row, state == qt.Qt.Checked)


@standinWidget
class qMRMLSliderWidget(SceneHolder, ctk.ctkSliderWidget):
    """A slider that may show the scene's units."""

    quantity = stored("quantity", str, "")
    unitAwareProperties = stored("unitAwareProperties", int, 0)


@standinWidget
class qMRMLSpinBox(SceneHolder, ctk.ctkDoubleSpinBox):
    """A spin box that may show the scene's units."""

    quantity = stored("quantity", str, "")
    unitAwareProperties = stored("unitAwareProperties", int, 0)


@standinWidget
class qMRMLRangeWidget(SceneHolder, ctk.ctkRangeWidget):
    """A range that may show the scene's units."""

    quantity = stored("quantity", str, "")
    unitAwareProperties = stored("unitAwareProperties", int, 0)


@standinWidget
class qMRMLCollapsibleButton(ctk.ctkCollapsibleButton):
    """A collapsible button that hands the scene on."""

    mrmlSceneChanged = Signal(object)
    _scene: Any = None

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)
