"""Small panels of Slicer's own C++ modules, enough to switch to them and choose their node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
import slicer

from .hierarchywidgets import qMRMLSubjectHierarchyTreeView
from .modules import qSlicerModuleWidget
from .nodewidgets import qMRMLNodeComboBox
from .segmentwidgets import qMRMLSegmentationShow3DButton, qMRMLSegmentsTableView


def makePanel(*rows: Any) -> Any:
    """A panel with these widgets below each other, all in the scene."""
    panel = qSlicerModuleWidget()
    layout = qt.QVBoxLayout(panel)
    for row in rows:
        layout.addWidget(row)
        row.setMRMLScene(slicer.mrmlScene)
    panel.setMRMLScene(slicer.mrmlScene)
    return panel


def nodeSelector(nodeType: str) -> Any:
    selector = qMRMLNodeComboBox()
    selector.nodeTypes = (nodeType,)
    return selector


def segmentationsPanel() -> Any:
    selector, table = nodeSelector("vtkMRMLSegmentationNode"), qMRMLSegmentsTableView()
    button = qMRMLSegmentationShow3DButton()
    selector.currentNodeChanged.connect(table.setSegmentationNode)
    selector.currentNodeChanged.connect(button.setSegmentationNode)
    return makePanel(selector, button, table)


PANELS: dict[str, Callable[[], Any]] = {
    "Data": lambda: makePanel(qMRMLSubjectHierarchyTreeView()),
    "Volumes": lambda: makePanel(nodeSelector("vtkMRMLVolumeNode")),
    "Models": lambda: makePanel(nodeSelector("vtkMRMLModelNode")),
    "Tables": lambda: makePanel(nodeSelector("vtkMRMLTableNode")),
    "Segmentations": segmentationsPanel,
}
