"""The test bench with a module's panel: parameters, scene close, reload, saving, other modules."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

EXAMPLE = Path(__file__).resolve().parents[1] / "standin" / "example" / "BenchExample.py"


@pytest.fixture
def panel(scene: Any) -> Any:
    """The example module's Widget, entered while the scene is empty."""
    import standin

    standin.loadScriptedModule(EXAMPLE)
    return standin.enterModule("BenchExample")


def test_module_is_registered(panel: Any) -> None:
    import slicer

    module = slicer.modules.benchexample
    assert module.title == "Bench example"
    assert module.path == str(EXAMPLE)
    assert slicer.modules.BenchExampleWidget is panel
    assert slicer.modules.BenchExampleInstance.parent is module
    assert slicer.util.getModule("BenchExample") is module
    assert "BenchExample" in slicer.app.moduleManager().modulesNames()


def test_missing_dependency_is_an_error(scene: Any, tmp_path: Path) -> None:
    import standin

    source = EXAMPLE.read_text(encoding="utf-8")
    source = source.replace("BenchExample", "BenchOrphan").replace('["Segmentations"]', '["NoSuchModule"]')
    (tmp_path / "BenchOrphan.py").write_text(source, encoding="utf-8")
    with pytest.raises(RuntimeError, match="NoSuchModule"):
        standin.loadScriptedModule(tmp_path / "BenchOrphan.py")
    sys.path.remove(str(tmp_path))


def test_apply_needs_a_volume(panel: Any, scene: Any) -> None:
    import slicer

    assert not panel.ui.applyButton.enabled
    volume = slicer.util.addVolumeFromArray(np.zeros((2, 2, 2)), name="zero")
    assert panel.ui.inputSelector.currentNode() is None  # as in Slicer, a new node is offered, not chosen
    panel.ui.inputSelector.setCurrentNode(volume)
    assert panel.ui.applyButton.enabled
    scene.RemoveNode(volume)
    assert panel.ui.inputSelector.currentNode() is None
    assert not panel.ui.applyButton.enabled


def test_click_makes_segments(panel: Any, chestVolume: Any) -> None:
    import qt
    import slicer

    panel.ui.inputSelector.setCurrentNode(chestVolume)
    qt.QTest.mouseClick(panel.ui.applyButton, qt.Qt.LeftButton)
    segmentation = panel.ui.outputSelector.currentNode()
    assert panel.ui.segmentsTable.displayedSegmentIDs() == ("dense",)
    mask = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, "dense", chestVolume)
    assert int(mask.sum()) == int((slicer.util.arrayFromVolume(chestVolume) > -300).sum())


@pytest.mark.parametrize(
    ("parameter", "value", "widget", "property", "shown"),
    [
        ("threshold", 120.0, "thresholdSlider", "value", 120.0),
        ("iterations", 7, "iterationsSpinBox", "value", 7),
        ("device", "cuda", "deviceComboBox", "currentText", "cuda"),
        ("show3D", True, "show3DCheckBox", "checked", True),
        ("label", "Solid", "nameLineEdit", "text", "Solid"),
    ],
)
def test_parameters_and_widgets_follow_each_other(
    panel: Any, parameter: str, value: Any, widget: str, property: str, shown: Any
) -> None:
    parameters, control = panel._parameterNode, getattr(panel.ui, widget)
    before, shownBefore = getattr(parameters, parameter), getattr(control, property)
    assert shown != shownBefore
    setattr(parameters, parameter, value)
    assert getattr(control, property) == shown
    setattr(control, property, shownBefore)
    assert getattr(parameters, parameter) == before


def test_enum_parameter_is_stored_by_name(panel: Any) -> None:
    import BenchExample

    panel.ui.sideComboBox.setCurrentIndex(1)
    assert panel._parameterNode.side is BenchExample.Side.BELOW
    assert panel._parameterNode.parameterNode.GetParameter("side") == "BELOW"


def test_stored_form_is_slicers(panel: Any, chestVolume: Any) -> None:
    node = panel._parameterNode.parameterNode
    panel._parameterNode.inputVolume = chestVolume
    panel._parameterNode.show3D = True
    panel._parameterNode.limit = 4
    assert node.GetClassName() == "vtkMRMLScriptedModuleNode"
    assert node.GetParameter("show3D") == "True"
    assert float(node.GetParameter("threshold")) == -300.0
    assert node.GetParameter("inputVolume") == ""
    assert node.GetNodeReferenceID("inputVolume") == chestVolume.GetID()
    assert node.GetParameter("limit.0") == "4"
    panel._parameterNode.limit = None
    assert node.GetParameter("limit.1") == "True"
    assert panel._parameterNode.limit is None


@pytest.mark.parametrize(
    ("parameter", "value", "error"),
    [
        ("threshold", 2000.0, ValueError),
        ("threshold", "high", TypeError),
        ("device", "abacus", ValueError),
        ("iterations", 1.5, TypeError),
    ],
)
def test_invalid_values_are_refused(panel: Any, parameter: str, value: Any, error: type[Exception]) -> None:
    before = getattr(panel._parameterNode, parameter)
    with pytest.raises(error):
        setattr(panel._parameterNode, parameter, value)
    assert getattr(panel._parameterNode, parameter) == before


def test_unknown_parameter_name_is_an_error(panel: Any) -> None:
    panel.ui.nameLineEdit.setProperty("SlicerParameterName", "nonsense")
    try:
        with pytest.raises(ValueError, match="nonsense"):
            panel._parameterNode.connectGui(panel.ui)
    finally:
        panel.ui.nameLineEdit.setProperty("SlicerParameterName", "label")


def test_disconnected_widgets_stay_still(panel: Any) -> None:
    parameters = panel._parameterNode
    panel.setParameterNode(None)
    parameters.threshold = 77.0
    assert panel.ui.thresholdSlider.value != 77.0
    panel.ui.thresholdSlider.value = 5.0
    assert parameters.threshold == 77.0


def test_scene_close_starts_anew(panel: Any, chestVolume: Any, scene: Any) -> None:
    panel._parameterNode.threshold = 50.0
    former = panel._parameterNode
    scene.Clear(0)
    assert panel._parameterNode is not None
    assert panel._parameterNode is not former
    assert panel._parameterNode.threshold == -300.0
    assert not panel.ui.applyButton.enabled


def test_saved_scene_keeps_parameters_and_voxels(
    panel: Any, chestVolume: Any, scene: Any, tmp_path: Path
) -> None:
    import slicer

    voxels = slicer.util.arrayFromVolume(chestVolume).copy()
    panel._parameterNode.inputVolume = chestVolume
    panel.onApplyButton()
    panel._parameterNode.threshold = 50.0
    panel._parameterNode.device = "cpu"
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    scene.Clear(0)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    parameters = panel.logic.getParameterNode()
    assert (parameters.threshold, parameters.device) == (50.0, "cpu")
    assert np.array_equal(slicer.util.arrayFromVolume(parameters.inputVolume), voxels)
    assert list(parameters.outputSegmentation.GetSegmentation().GetSegmentIDs()) == ["dense"]


def test_self_test_runs(panel: Any) -> None:
    import slicer

    slicer.selfTests["BenchExample"](msec=10)


def test_failing_self_test_is_seen(panel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import BenchExample
    import slicer

    def fail(self: Any) -> None:
        self.fail("as it should")

    monkeypatch.setattr(BenchExample.BenchExampleTest, "test_process", fail)
    with pytest.raises(AssertionError):
        slicer.selfTests["BenchExample"](msec=10)


def test_reload_cleans_up_and_builds_anew(panel: Any, chestVolume: Any) -> None:
    import slicer
    import standin

    reloaded = standin.reloadScriptedModule("BenchExample")
    assert panel.calls[-1] == "cleanup"
    assert reloaded is not panel
    assert reloaded.calls == ["setup"]
    assert slicer.modules.benchexample.widgetRepresentation().self() is reloaded
    reloaded.ui.thresholdSlider.value = 12.0
    assert reloaded.logic.getParameterNode().threshold == 12.0


def test_enter_and_exit(panel: Any) -> None:
    import standin

    assert panel.parent.isEntered
    standin.enterModule("Data")
    assert panel.calls[-1] == "exit"
    assert not panel.parent.isEntered


def test_unload_cleans_up(panel: Any) -> None:
    import slicer
    import standin

    slicer.app.moduleManager().unload("BenchExample")
    assert panel.calls[-1] == "cleanup"
    assert not hasattr(slicer.modules, "benchexample")
    standin.loadScriptedModule(EXAMPLE)
    assert hasattr(slicer.modules, "benchexample")


def test_window_switches_modules(slicerWindow: Callable[..., Any], panel: Any, chestVolume: Any) -> None:
    import slicer

    segmentation = panel.logic.process(chestVolume, -300, "Dense")
    slicerWindow("BenchExample")
    slicer.util.selectModule("SegmentEditor")
    assert slicer.util.selectedModule() == "SegmentEditor"
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(chestVolume)
    editor.setCurrentSegmentID("dense")
    node = editor.mrmlSegmentEditorNode()
    assert node.GetSegmentationNode() is segmentation
    assert node.GetSourceVolumeNode() is chestVolume
    assert node.GetSelectedSegmentID() == "dense"
    assert slicer.util.mainWindow() is not None


def test_without_window_no_module_can_be_selected(scene: Any) -> None:
    import slicer

    assert slicer.util.mainWindow() is None
    with pytest.raises(RuntimeError, match="main window"):
        slicer.util.selectModule("Data")


def test_show_3d_button_makes_surfaces(panel: Any, chestVolume: Any) -> None:
    import slicer

    segmentation = panel.logic.process(chestVolume, -300, "Dense")
    button = slicer.qMRMLSegmentationShow3DButton()
    assert not button.enabled
    button.setSegmentationNode(segmentation)
    assert button.enabled
    button.click()
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert segmentation.GetClosedSurfaceInternalRepresentation("dense").GetNumberOfPoints() > 0
    button.click()
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")


def test_segments_table_edits_the_node(panel: Any, chestVolume: Any) -> None:
    import qt
    import slicer

    segmentation = panel.logic.process(chestVolume, -300, "Dense")
    table = slicer.qMRMLSegmentsTableView()
    table.setSegmentationNode(segmentation)
    table.tableWidget().item(0, 0).setCheckState(qt.Qt.Unchecked)
    assert not segmentation.GetDisplayNode().GetSegmentVisibility("dense")
    table.setSelectedSegmentIDs(["dense"])
    assert table.selectedSegmentIDs() == ("dense",)
    segmentation.GetSegmentation().AddEmptySegment("other", "Other")
    assert table.segmentCount == 2


def test_subject_hierarchy_follows_the_nodes(chestVolume: Any, scene: Any) -> None:
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    assert hierarchy.GetItemByDataNode(chestVolume)
    tree = slicer.qMRMLSubjectHierarchyTreeView()
    tree.setMRMLScene(scene)
    tree.setCurrentNode(chestVolume)
    assert tree.currentNode() is chestVolume
    scene.RemoveNode(chestVolume)
    assert hierarchy.GetNumberOfItems() == 0
    assert tree.currentNode() is None
