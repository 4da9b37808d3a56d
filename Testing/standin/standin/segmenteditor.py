"""The Segment Editor's widget over its editor node; the effects are Slicer's, and not here."""

from __future__ import annotations

from typing import Any

import qt
import slicer
import vtk
from pythonqt.observing import Observers
from pythonqt.rules import standinWidget
from pythonqt.state import stored
from qt import Signal

from .nodewidgets import qMRMLNodeComboBox, qMRMLWidget
from .segmentwidgets import qMRMLSegmentationShow3DButton, qMRMLSegmentsTableView


@standinWidget
class qMRMLSegmentEditorWidget(qMRMLWidget):
    """The Segment Editor's selectors and segments table over a vtkMRMLSegmentEditorNode; without effects."""

    segmentationNodeChanged = Signal(object)
    sourceVolumeNodeChanged = Signal(object)
    currentSegmentIDChanged = Signal(str)
    selectedSegmentIDsChanged = Signal(object)
    segmentationNodeSelectorVisible = stored("segmentationNodeSelectorVisible", bool, True)
    sourceVolumeNodeSelectorVisible = stored("sourceVolumeNodeSelectorVisible", bool, True)
    switchToSegmentationsButtonVisible = stored("switchToSegmentationsButtonVisible", bool, True)
    addRemoveSegmentButtonsVisible = stored("addRemoveSegmentButtonsVisible", bool, True)
    autoShowSourceVolumeNode = stored("autoShowSourceVolumeNode", bool, True)
    maskingSectionVisible = stored("maskingSectionVisible", bool, True)
    specifyGeometryButtonVisible = stored("specifyGeometryButtonVisible", bool, True)
    show3DButtonVisible = stored("show3DButtonVisible", bool, True)
    undoEnabled = stored("undoEnabled", bool, True)
    maximumNumberOfUndoStates = stored("maximumNumberOfUndoStates", int, 10)
    readOnly = stored("readOnly", bool, False)
    effectColumnCount = stored("effectColumnCount", int, 2)
    unorderedEffectsVisible = stored("unorderedEffectsVisible", bool, True)
    jumpToSelectedSegmentEnabled = stored("jumpToSelectedSegmentEnabled", bool, False)
    defaultTerminologyEntry = stored("defaultTerminologyEntry", str, "")
    defaultTerminologyEntrySettingsKey = stored("defaultTerminologyEntrySettingsKey", str, "")
    _segmentations: Any = None
    _volumes: Any = None
    _table: Any = None
    _show3D: Any = None
    _editorNode: Any = None
    _observer: Any = None
    _history: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._observer = Observers(self._refresh)
        self._history = slicer.vtkSegmentationHistory()
        self._segmentations = self._selector("vtkMRMLSegmentationNode", self._onSegmentationChosen)
        self._volumes = self._selector("vtkMRMLScalarVolumeNode", self._onVolumeChosen)
        self._table, self._show3D = qMRMLSegmentsTableView(), qMRMLSegmentationShow3DButton()
        self._table.selectionMode = qMRMLSegmentsTableView.SingleSelection
        layout = qt.QFormLayout(self)
        layout.addRow("Segmentation:", self._segmentations)
        layout.addRow("Source volume:", self._volumes)
        layout.addRow(self._show3D)
        layout.addRow(self._table)
        self._table.selectionChanged.connect(self._onSegmentChosen)

    @staticmethod
    def _selector(nodeType: str, chosen: Any) -> Any:
        selector = qMRMLNodeComboBox()
        selector.nodeTypes = (nodeType,)
        selector.noneEnabled = True
        selector.currentNodeChanged.connect(chosen)
        return selector

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        for selector in (self._segmentations, self._volumes):
            selector.setMRMLScene(scene)

    # ---- the parameter node

    def mrmlSegmentEditorNode(self) -> Any:
        return self._editorNode

    def setMRMLSegmentEditorNode(self, node: Any) -> None:
        self._editorNode = node
        self._observer.watch([(node, vtk.vtkCommand.ModifiedEvent)] if node is not None else [])
        self._refresh()

    def updateWidgetFromMRML(self) -> None:
        self._refresh()

    def _refresh(self) -> None:
        segmentation = self.segmentationNode()
        self._segmentations.setCurrentNode(segmentation)
        self._volumes.setCurrentNode(self.sourceVolumeNode())
        if self._table.segmentationNode() is not segmentation:
            self._table.setSegmentationNode(segmentation)
            self._show3D.setSegmentationNode(segmentation)
        if self._table.selectedSegmentIDs() != (self.currentSegmentID(),):
            self._table.setSelectedSegmentIDs([self.currentSegmentID()])

    def _needEditorNode(self) -> Any:
        # Slicer's widget only logs an error here.
        if self._editorNode is None:
            raise RuntimeError("call setMRMLSegmentEditorNode first")
        return self._editorNode

    def segmentationNode(self) -> Any:
        return self._editorNode.GetSegmentationNode() if self._editorNode is not None else None

    def setSegmentationNode(self, node: Any) -> None:
        if node is not self._needEditorNode().GetSegmentationNode():
            self._editorNode.SetAndObserveSegmentationNode(node)
            self._history.SetSegmentation(node.GetSegmentation() if node is not None else None)
            self._chooseFirstSegment(node)
            self.segmentationNodeChanged.emit(node)

    def segmentationNodeID(self) -> str:
        node = self.segmentationNode()
        return str(node.GetID()) if node is not None else ""

    def setSegmentationNodeID(self, nodeID: str) -> None:
        self.setSegmentationNode(self._scene.GetNodeByID(nodeID) if nodeID else None)

    def _chooseFirstSegment(self, node: Any) -> None:
        if node is None:
            return
        if node.GetDisplayNode() is None:
            node.CreateDefaultDisplayNodes()
        source = node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole())
        if source is not None and self.sourceVolumeNode() is None:
            self.setSourceVolumeNode(source)
        segmentIDs = node.GetSegmentation().GetSegmentIDs()
        if segmentIDs and self.currentSegmentID() not in segmentIDs:
            self.setCurrentSegmentID(segmentIDs[0])

    def sourceVolumeNode(self) -> Any:
        return self._editorNode.GetSourceVolumeNode() if self._editorNode is not None else None

    def setSourceVolumeNode(self, node: Any) -> None:
        if node is not self._needEditorNode().GetSourceVolumeNode():
            self._editorNode.SetAndObserveSourceVolumeNode(node)
            self.sourceVolumeNodeChanged.emit(node)

    def setSourceVolumeNodeID(self, nodeID: str) -> None:
        self.setSourceVolumeNode(self._scene.GetNodeByID(nodeID) if nodeID else None)

    def currentSegmentID(self) -> str:
        return (self._editorNode.GetSelectedSegmentID() or "") if self._editorNode is not None else ""

    def setCurrentSegmentID(self, segmentID: str) -> None:
        if segmentID != self.currentSegmentID():
            self._needEditorNode().SetSelectedSegmentID(segmentID)
            self.currentSegmentIDChanged.emit(segmentID)

    # ---- what the user chooses

    def _onSegmentationChosen(self, node: Any) -> None:
        if self._editorNode is not None:
            self.setSegmentationNode(node)

    def _onVolumeChosen(self, node: Any) -> None:
        if self._editorNode is not None:
            self.setSourceVolumeNode(node)

    def _onSegmentChosen(self, *_ranges: Any) -> None:
        chosen = self._table.selectedSegmentIDs()
        if self._editorNode is not None and chosen:
            self.setCurrentSegmentID(chosen[0])

    # ---- the past

    def saveStateForUndo(self) -> None:
        """What an effect calls before it changes a segment."""
        self._history.SaveState()

    def undo(self) -> None:
        self._history.RestorePreviousState()

    def redo(self) -> None:
        self._history.RestoreNextState()

    # ---- effects: none here

    def activeEffect(self) -> None:
        return None

    def setActiveEffect(self, effect: Any) -> None:
        if effect is not None:
            raise RuntimeError("the test bench has no Segment Editor effects")

    def setActiveEffectByName(self, name: str) -> None:
        if name:
            raise RuntimeError("the test bench has no Segment Editor effects")

    def effectByName(self, _name: str) -> None:
        return None

    def availableEffectNames(self) -> tuple[str, ...]:
        return ()

    def setupViewObservations(self) -> None:
        """Effects draw in the views; there are none."""

    def removeViewObservations(self) -> None:
        """See `setupViewObservations`."""

    def installKeyboardShortcuts(self, _parent: Any = None) -> None:
        """Shortcuts choose effects; there are none."""

    def uninstallKeyboardShortcuts(self) -> None:
        """See `installKeyboardShortcuts`."""
