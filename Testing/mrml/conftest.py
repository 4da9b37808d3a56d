"""A real MRML scene (slicer-core) for each test; an error that VTK logs fails the test."""

from __future__ import annotations

import types
from collections.abc import Iterator
from typing import Any

import pytest


class LogicHolder:
    """Stands where Slicer's application keeps a module: `slicer.util` asks it for the module's logic."""

    def __init__(self, logic: Any) -> None:
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


MODULE_LOGICS = {
    "Volumes": "vtkSlicerVolumesLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Tables": "vtkSlicerTablesLogic",
}


@pytest.fixture
def scene() -> Iterator[Any]:
    """An empty vtkMRMLScene with the module logics that `slicer.util` needs; also `slicer.mrmlScene`."""
    slicer = pytest.importorskip("slicer", reason="needs slicer-core")
    application_logic = slicer.vtkSlicerApplicationLogic()
    slicer.mrmlScene = slicer.vtkMRMLScene()
    application_logic.SetMRMLScene(slicer.mrmlScene)
    colour_logic = application_logic.GetColorLogic()
    colour_logic.SetMRMLScene(slicer.mrmlScene)
    colour_logic.AddDefaultColorNodes()
    application_logic.SetModuleLogic("Colors", colour_logic)
    slicer.modules = types.SimpleNamespace()
    for module, logic_class in MODULE_LOGICS.items():
        logic = getattr(slicer, logic_class)()
        logic.SetMRMLApplicationLogic(application_logic)
        if module != "Terminologies":  # with a scene it would look for files that only the application has
            logic.SetMRMLScene(slicer.mrmlScene)
        application_logic.SetModuleLogic(module, logic)
        setattr(slicer.modules, module.lower(), LogicHolder(logic))
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(True)


@pytest.fixture(autouse=True)
def no_vtk_errors(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """VTK writes its errors to standard error and goes on; here they fail the test."""
    yield
    errors = capfd.readouterr().err
    assert "ERR|" not in errors, errors
