"""The panel's choices that are no parameters of a fixed set: several CT, the model, which segment is lung."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from .choices import fillSelector, segmentsOf
from .results import tableText


class InputsSection:
    """Fills the lists, and writes what is chosen in them into the parameter node.

    Args:
        ui: the panel's widgets.
        logic: DiffSegLungLogic, which knows the models.
        onChecked: called when a CT is checked, or no longer.
    """

    def __init__(self, ui, logic, onChecked: Callable[[], None]) -> None:
        self.ui, self.logic = ui, logic
        self._parameters, self._table = None, None
        ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        ui.lungsSegmentSelector.connect("currentIndexChanged(int)", self.onLungsSegmentChosen)
        ui.severalSelector.connect("checkedNodesChanged()", onChecked)
        ui.copySeveralButton.connect("clicked(bool)", self.onCopySeveral)
        self._showTable(None)

    def checkedVolumes(self) -> list:
        """The CT that are to be segmented one after the other; empty where one alone is."""
        return list(self.ui.severalSelector.checkedNodes())

    def take(self, run):
        """Several CT are done: shows the table of all, unchecks them, returns the first segmentation."""
        for node in self.checkedVolumes():
            self.ui.severalSelector.setCheckState(node, qt.Qt.Unchecked)
        self._showTable(run.result)
        self.ui.severalGroupBox.collapsed = False
        return next((row.segmentationNode for row in run.rows if row.segmentationNode is not None), None)

    def _showTable(self, table) -> None:
        self._table = table
        self.ui.severalTable.setMRMLTableNode(table)
        self.ui.severalTable.visible = table is not None
        self.ui.copySeveralButton.visible = table is not None

    def onCopySeveral(self) -> None:
        """The table as text that a spreadsheet takes."""
        if self._table is not None:
            qt.QApplication.clipboard().setText(tableText(self._table))

    def setParameters(self, parameterNode) -> None:
        """Shows these parameters; None where there are none."""
        self._parameters = parameterNode
        if self._table is not None and self._table.GetScene() is None:  # its scene was closed
            self._showTable(None)
        self.updateModels()
        self._updateLungsSegments()

    def updateModels(self) -> None:
        """The models that there are now."""
        names = ["", *(model.name for model in self.logic.models())]
        labels = [_("shipped"), *names[1:]]
        if self._parameters and self._parameters.model not in names:  # it was removed
            self._parameters.model = ""
        fillSelector(self.ui.modelSelector, names, labels, self._parameters.model if self._parameters else "")

    def _updateLungsSegments(self) -> None:
        node = self._parameters.lungs if self._parameters else None
        ids, labels = segmentsOf(node)
        self.ui.lungsSegmentSelector.visible = node is not None
        if self._parameters and self._parameters.lungsSegment not in ids:  # of another node
            self._parameters.lungsSegment = ""
        wanted = self._parameters.lungsSegment if node else ""
        fillSelector(self.ui.lungsSegmentSelector, ids, labels, wanted)

    def onModelChosen(self, index: int) -> None:
        """The user chose a model."""
        if self._parameters and index >= 0:
            self._parameters.model = self.ui.modelSelector.itemData(index)

    def onLungsSegmentChosen(self, index: int) -> None:
        """The user chose which segment is lung."""
        if self._parameters and index >= 0:
            self._parameters.lungsSegment = self.ui.lungsSegmentSelector.itemData(index)
