"""Keeps the subject hierarchy in step with the scene: in Slicer Qt plugins do it, which are not here.

As Slicer's plugin of segmentations does, it complains where a segmentation changes that has no item: one that
was removed and that somebody still holds, or one that changes while the scene closes.
"""

from __future__ import annotations

from typing import Any

import slicer
import vtk

from .errors import complain

NODE_CLASSES = (
    "vtkMRMLVolumeNode",
    "vtkMRMLSegmentationNode",
    "vtkMRMLModelNode",
    "vtkMRMLMarkupsNode",
    "vtkMRMLTransformNode",
    "vtkMRMLTableNode",
    "vtkMRMLTextNode",
    "vtkMRMLPlotChartNode",
    "vtkMRMLPlotSeriesNode",
    "vtkMRMLSequenceNode",
    "vtkMRMLSequenceBrowserNode",
)
SEGMENTATION_EVENTS = (
    slicer.vtkSegmentation.SegmentAdded,
    slicer.vtkSegmentation.SegmentRemoved,
    slicer.vtkSegmentation.SegmentModified,
    slicer.vtkSegmentation.SegmentsOrderModified,
    slicer.vtkMRMLDisplayableNode.DisplayModifiedEvent,
)


class HierarchyKeeper:
    """Adds an item for each node that Slicer's plugins would add one for, and removes it with the node."""

    def __init__(self, scene: Any) -> None:
        self.scene = scene
        scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, self._onNodeAdded)
        scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, self._onNodeRemoved)
        scene.AddObserver(slicer.vtkMRMLScene.EndImportEvent, self._onImported)

    def _hierarchy(self) -> Any:
        return slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(self.scene)

    def _add(self, node: Any) -> None:
        hierarchy = self._hierarchy()
        wanted = not node.GetHideFromEditors() and any(node.IsA(each) for each in NODE_CLASSES)
        if wanted and hierarchy is not None and not hierarchy.GetItemByDataNode(node):
            hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeAdded(self, _caller: Any, _event: Any, node: Any) -> None:
        if not self.scene.IsImporting() and not self.scene.IsClosing():
            self._add(node)
        if node.IsA("vtkMRMLSegmentationNode"):
            for event in SEGMENTATION_EVENTS:
                node.AddObserver(event, self._onSegmentationChanged)

    def _onSegmentationChanged(self, node: Any, _event: Any) -> None:
        if node.GetScene() is not None and node.GetScene().IsImporting():
            return
        if not self._hierarchy().GetItemByDataNode(node):
            complain(
                "qSlicerSubjectHierarchySegmentationsPlugin: "
                f"Unable to find subject hierarchy item for segmentation node {node.GetName()}"
            )

    def _onImported(self, _caller: Any, _event: Any) -> None:
        for index in range(self.scene.GetNumberOfNodes()):
            self._add(self.scene.GetNthNode(index))

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _onNodeRemoved(self, _caller: Any, _event: Any, node: Any) -> None:
        if self.scene.IsClosing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
            return
        hierarchy = self._hierarchy()
        item = hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0
        if item:
            hierarchy.RemoveItem(item, False, False)
