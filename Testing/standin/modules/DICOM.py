"""Stands in for Slicer's DICOM module: a list of the database's files."""

from __future__ import annotations

from typing import Any

import qt
import slicer
from slicer.ScriptedLoadableModule import ScriptedLoadableModule, ScriptedLoadableModuleWidget


class DICOM(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent: Any) -> None:
        super().__init__(parent)
        parent.title = "DICOM"
        parent.categories = ["", "Informatics"]


class DICOMWidget(ScriptedLoadableModuleWidget):
    """The panel."""

    def setup(self) -> None:
        super().setup()
        self.fileList = qt.QListWidget()
        self.layout.addWidget(self.fileList)
        slicer.dicomDatabase.connect("databaseChanged()", self.refresh)
        self.refresh()

    def refresh(self) -> None:
        self.fileList.clear()
        self.fileList.addItems(list(slicer.dicomDatabase.allFiles()))
