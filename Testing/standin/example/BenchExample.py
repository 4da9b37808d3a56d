"""A small scripted module, after Slicer's template: the test bench is tested with it.

It thresholds a volume into a segmentation.
"""

from __future__ import annotations

import enum
from typing import Annotated, Any

import numpy as np
import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Side(enum.Enum):
    """Which voxels to take."""

    ABOVE = 1
    BELOW = 2


class BenchExample(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        self.parent.title = _("Bench example")
        self.parent.categories = ["Testing"]
        self.parent.dependencies = ["Segmentations"]


@parameterNodeWrapper
class BenchExampleParameterNode:  # the decorator gives it a constructor that takes the node
    """The module's parameters."""

    inputVolume: vtkMRMLScalarVolumeNode
    outputSegmentation: vtkMRMLSegmentationNode
    threshold: Annotated[float, WithinRange(-1000, 1000)] = -300.0
    iterations: Annotated[int, WithinRange(0, 9)] = 2
    device: Annotated[str, Choice(["auto", "cpu", "cuda"])] = "auto"
    side: Side = Side.ABOVE
    show3D: bool = False
    label: str = "Dense"
    limit: int | None = None


class BenchExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel."""

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic: Any = None
        self._parameterNode: Any = None
        self._guiTag: int | None = None
        self.calls: list[str] = []

    def setup(self) -> None:
        super().setup()
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/BenchExample.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = BenchExampleLogic()
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.initializeParameterNode()
        self.calls.append("setup")

    def cleanup(self) -> None:
        self.calls.append("cleanup")
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        self.calls.append("enter")
        self.initializeParameterNode()

    def exit(self) -> None:
        self.calls.append("exit")
        self.setParameterNode(None)

    def onSceneStartClose(self, _caller: Any, _event: Any) -> None:
        self.setParameterNode(None)

    def onSceneEndClose(self, _caller: Any, _event: Any) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        self.setParameterNode(self.logic.getParameterNode())
        if not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def setParameterNode(self, parameterNode: Any) -> None:
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._guiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateApply)
        self._parameterNode = parameterNode
        if parameterNode is not None:
            self._guiTag = parameterNode.connectGui(self.ui)
            self.addObserver(parameterNode, vtk.vtkCommand.ModifiedEvent, self.updateApply)
        self.updateApply()

    def updateApply(self, _caller: Any = None, _event: Any = None) -> None:
        self.ui.applyButton.enabled = self._parameterNode is not None and bool(
            self._parameterNode.inputVolume
        )

    def onApplyButton(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("Failed to compute results."), waitCursor=True):
            parameters = self._parameterNode
            segmentation = self.logic.process(parameters.inputVolume, parameters.threshold, parameters.label)
            parameters.outputSegmentation = segmentation
            self.ui.segmentsTable.setSegmentationNode(segmentation)


class BenchExampleLogic(ScriptedLoadableModuleLogic):
    """The work."""

    def getParameterNode(self) -> Any:
        return BenchExampleParameterNode(super().getParameterNode())  # type: ignore[call-arg]

    def process(self, volume: Any, threshold: float, label: str) -> Any:
        """A segmentation of the voxels above the threshold (HU)."""
        if volume is None:
            raise ValueError("No volume")
        segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Example")
        segmentation.CreateDefaultDisplayNodes()
        segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        segmentID = segmentation.GetSegmentation().AddEmptySegment("dense", label, (1.0, 0.5, 0.0))
        mask = (slicer.util.arrayFromVolume(volume) > threshold).astype(np.uint8)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, segmentID, volume)
        return segmentation


class BenchExampleTest(ScriptedLoadableModuleTest):
    """The self-test."""

    def test_process(self) -> None:
        self.delayDisplay("Starting the test")
        voxels = np.full((4, 5, 6), -900, np.int16)
        voxels[1:3, 1:3, 1:3] = 0
        volume = slicer.util.addVolumeFromArray(voxels)
        segmentation = BenchExampleLogic().process(volume, -300, "Dense")
        mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "dense", volume)
        assert int(mask.sum()) == 8
