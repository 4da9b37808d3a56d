"""Real runs: started and cancelled by the one button, from the console, in this process; processes end."""

from __future__ import annotations

import html
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.errors import CancelledError, UnusableInputError
from DiffSegLungLib.export.segmentation_file import tissue_terminology
from DiffSegLungLib.tissues import REPORTED
from Testing.ui.module import steps

START = "Segment lung pathology"
KEYS = [tissue.key for tissue in REPORTED]


@pytest.fixture
def ready(panel: Any, phantom: Any, pieces: Any) -> Any:
    """The panel with everything chosen for a short run."""
    panel.ui.inputSelector.setCurrentNode(phantom)
    panel.ui.lungsSelector.setCurrentNode(pieces)
    panel.ui.qualitySelector.setCurrentIndex(0)
    panel.ui.deviceSelector.setCurrentIndex(1)
    assert panel._parameterNode.quality.value == "fast"
    assert panel._parameterNode.device.value == "cpu"
    return panel


def startAndGoHalfway(panel: Any) -> list[Any]:
    """Clicks and waits until the library has begun; returns the processes."""
    steps.click(panel.ui.applyButton)
    assert panel.ui.applyButton.text == "Cancel"
    assert panel.ui.progressWidget.isVisibleTo(panel.parent)
    steps.waitUntil(lambda: panel.ui.progressBar.value > 0)
    processes = steps.family(panel._run.pid)
    assert len(processes) > 1, "the launcher should have started the real Python"
    return processes


def assertIdle(panel: Any) -> None:
    assert panel.ui.applyButton.text == START
    assert not panel.ui.progressWidget.isVisibleTo(panel.parent)
    assert not panel.logic.isRunning()
    assert steps.temporaryFolders() == []


def assertLeftNothing(panel: Any, processes: list[Any]) -> None:
    steps.waitUntil(lambda: all(map(steps.isGone, processes)), 10)
    assertIdle(panel)


def test_cancel_then_again_and_go_elsewhere(ready: Any, scene: Any, phantom: Any) -> None:
    """The whole life of the button, and a run that ends while the user is in another module."""
    import standin

    from DiffSegLungSlicer import results

    panel, before = ready, steps.nodeIds()
    processes = startAndGoHalfway(panel)
    assert "Finding the lungs" in panel.ui.statusLabel.text or "%" in panel.ui.statusLabel.text
    assert "lungs" in panel.ui.logText.toPlainText()
    steps.click(panel.ui.applyButton)
    assertLeftNothing(panel, processes)
    assert steps.nodeIds() == before
    assert not panel.ui.errorLabel.isVisibleTo(panel.parent)

    processes = startAndGoHalfway(panel)
    with pytest.raises(UnusableInputError, match="A segmentation is running"):
        panel.logic.process(phantom)
    standin.enterModule("Data")
    steps.waitUntil(lambda: panel._run is None, 240)
    assertLeftNothing(panel, processes)
    standin.enterModule("DiffSegLung")
    node = panel.ui.segmentationSelector.currentNode()
    assert results.isResult(node)
    assert panel.ui.resultsCollapsibleButton.enabled
    assertIsComplete(node, phantom)
    assertTableTells(panel, node)


def assertIsComplete(node: Any, volume: Any) -> None:
    """Segments as the table of tissues has them; all that belongs to them hangs on the node."""
    import slicer

    from DiffSegLungSlicer import exchange, results

    segments = node.GetSegmentation()
    assert list(segments.GetSegmentIDs()) == KEYS
    for tissue in REPORTED:
        segment = segments.GetSegment(tissue.key)
        assert segment.GetName() == tissue.name
        assert segment.GetColor() == pytest.approx([channel / 255 for channel in tissue.colour], abs=1e-3)
        assert exchange.terminologyOf(segment) == tissue_terminology(tissue).entry
    assert results.volumeOf(node) is volume
    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    lungs = node.GetNodeReference(results.LUNGS_ROLE)
    parents = {hierarchy.GetItemParent(hierarchy.GetItemByDataNode(each)) for each in (node, lungs, volume)}
    assert len(parents) == 1
    assert list(lungs.GetSegmentation().GetSegmentIDs()) == ["right-lung", "left-lung"]
    assert not lungs.GetDisplayNode().GetVisibility()
    assert node.GetDisplayNode().GetVisibility()
    for role, className in (
        (results.UNCERTAINTY_ROLE, "vtkMRMLScalarVolumeNode"),
        (results.MEASURES_ROLE, "vtkMRMLTableNode"),
        (results.HISTOGRAM_ROLE, "vtkMRMLPlotChartNode"),
        (results.SHARES_ROLE, "vtkMRMLPlotChartNode"),
        (results.MANIFEST_ROLE, "vtkMRMLTextNode"),
    ):
        assert node.GetNodeReference(role).IsA(className)
    right = steps.voxelsOf(lungs, "right-lung", volume)
    assert right[steps.RIGHT_PIECE].all()
    assert right.sum() == right[steps.RIGHT_PIECE].size


def assertTableTells(panel: Any, node: Any) -> None:
    """What is read in the panel is what was measured."""
    from DiffSegLungSlicer import results

    rows = results.tissueRows(node)
    assert [key for key, ml, percent in rows] == KEYS
    assert sum(percent for key, ml, percent in rows) == pytest.approx(100, abs=0.1)
    for key, ml, percent in rows:
        assert float(steps.cell(panel, key, 2).text().replace(",", "")) == pytest.approx(ml, abs=0.51)
        assert float(steps.cell(panel, key, 3).text()) == pytest.approx(percent, abs=0.051)
    warnings = results.manifestOf(node)["warnings"]
    assert warnings, "two small pieces of lung should look suspicious"
    for warning in warnings:
        assert html.escape(warning) in panel.ui.warningsLabel.text
    assert panel.ui.warningsLabel.isVisibleTo(panel.parent)


def test_closing_the_scene_ends_the_run(ready: Any, scene: Any) -> None:
    processes = startAndGoHalfway(ready)
    scene.Clear(0)
    assertLeftNothing(ready, processes)
    assert not ready.ui.applyButton.enabled
    assert not ready.ui.resultsCollapsibleButton.enabled
    steps.goOn(0.5)
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 0


def test_reload_ends_the_run(ready: Any, phantom: Any) -> None:
    import standin

    processes = startAndGoHalfway(ready)
    panel = standin.reloadScriptedModule("DiffSegLung")
    assertLeftNothing(panel, processes)
    assert panel is not ready
    assert panel.ui.inputSelector.currentNode() is phantom
    processes = startAndGoHalfway(panel)
    steps.click(panel.ui.applyButton)
    assertLeftNothing(panel, processes)


def test_cancel_ends_the_launchers_child(module: Any, phantom: Any, tmp_path: Path) -> None:
    """Ending the launcher alone would leave the real Python computing."""
    from DiffSegLungSlicer.childProcess import CANCELLED, ChildProcess

    child = ChildProcess(["segment", str(steps.PHANTOM), "-o", str(tmp_path / "a.seg.nrrd")])
    steps.waitUntil(lambda: len(steps.family(child.pid)) > 1)
    processes = steps.family(child.pid)
    child.cancel()
    assert child.exitStatus == CANCELLED
    assert not child.isRunning()
    steps.waitUntil(lambda: all(map(steps.isGone, processes)), 10)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals")
def test_a_child_that_dies_is_one_line_and_the_panel_goes_on(ready: Any) -> None:
    """As the system does when memory runs out: kill -9 of launcher and Python in the middle of the work."""
    before = steps.nodeIds()
    processes = startAndGoHalfway(ready)
    for process in reversed(processes):
        process.kill()
    steps.waitUntil(lambda: ready._run is None, 30)
    assertLeftNothing(ready, processes)
    assert "ended by signal 9; the computer may be short of memory" in ready.ui.errorLabel.text
    assert "\n" not in ready.ui.errorLabel.text.strip() and ready.ui.errorLabel.isVisibleTo(ready.parent)
    assert steps.nodeIds() == before
    processes = startAndGoHalfway(ready)
    assert not ready.ui.errorLabel.isVisibleTo(ready.parent)
    steps.click(ready.ui.applyButton)
    assertLeftNothing(ready, processes)


@pytest.mark.skipif(os.name == "nt", reason="Windows needs a job object for this")
def test_cancel_ends_the_child_of_a_dead_launcher(ready: Any) -> None:
    """Somebody ended the launcher alone: the real Python computes on, and must not outlive the click."""
    processes = startAndGoHalfway(ready)
    processes[0].kill()
    steps.waitUntil(lambda: steps.isGone(processes[0]), 10)
    assert not all(map(steps.isGone, processes[1:]))
    steps.click(ready.ui.applyButton)
    assertLeftNothing(ready, processes)


def test_run_that_is_not_waited_for_can_be_cancelled(module: Any, phantom: Any, pieces: Any) -> None:
    before = steps.nodeIds()
    run = module.DiffSegLungLogic().process(
        phantom, lungs=pieces, parameters=steps.FAST, waitForCompletion=False
    )
    processes = steps.family(run.pid)
    assert run.poll()
    run.cancel()
    assert not run.isRunning
    with pytest.raises(CancelledError):
        run.wait()
    steps.waitUntil(lambda: all(map(steps.isGone, processes)), 10)
    assert steps.nodeIds() == before
    assert steps.temporaryFolders() == []


def test_child_and_this_process_give_the_same(module: Any, phantom: Any, pieces: Any) -> None:
    """From the console, blocking; one segment of the given segmentation is lung."""
    logic, found = module.DiffSegLungLogic(), []
    for inProcess in (False, True):
        fractions: list[float] = []
        node = logic.process(
            phantom,
            lungs=(pieces, "right lung"),
            parameters=steps.FAST,
            inProcess=inProcess,
            onProgress=lambda record, seen=fractions: seen.append(record.fraction),
        )
        assert fractions == sorted(fractions)
        assert fractions[-1] == 1.0
        assert len(fractions) > 5
        assert steps.temporaryFolders() == []
        found.append([steps.voxelsOf(node, key, phantom) for key in KEYS])
    for key, fromChild, fromHere in zip(KEYS, *found, strict=True):
        assert np.array_equal(fromChild, fromHere), key
    outside = np.any(found[0], axis=0)
    outside[steps.RIGHT_PIECE] = False
    assert not outside.any(), "only one segment was lung"
    assert found[0][KEYS.index("healthy")].any()
    assert found[0][KEYS.index("consolidation")].any()


def test_all_time_points_by_a_click(ready: Any, phantom: Any) -> None:
    """Two time points run one after the other; at the second the consolidation has gone."""
    import slicer

    from DiffSegLungSlicer import results

    scans = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "follow-up")
    scans.SetDataNodeAtValue(phantom, "0")
    hu = slicer.util.arrayFromVolume(phantom)
    hu[hu > -200] = -850  # outside the two pieces it does not matter
    slicer.util.arrayFromVolumeModified(phantom)
    scans.SetDataNodeAtValue(phantom, "1")
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(scans.GetID())
    logic = slicer.modules.sequences.logic()
    logic.UpdateProxyNodesFromSequences(browser)
    volume = browser.GetProxyNode(scans)
    ready.ui.inputSelector.setCurrentNode(volume)
    assert ready.ui.allTimePointsCheckBox.isVisibleTo(ready.parent)
    ready.ui.allTimePointsCheckBox.checked = True
    processes = startAndGoHalfway(ready)
    steps.waitUntil(lambda: ready._run is None, 240)
    assertLeftNothing(ready, processes)
    assert not ready.ui.errorLabel.isVisibleTo(ready.parent), ready.ui.errorLabel.text
    node = ready._parameterNode.segmentation
    consolidated = []
    for step in range(2):
        browser.SetSelectedItemNumber(step)
        logic.UpdateProxyNodesFromSequences(browser)
        consolidated.append(steps.voxelsOf(node, "consolidation", volume).any())
    assert consolidated == [True, False]
    assert node.GetNodeReference(results.TIME_TABLE_ROLE).GetNumberOfRows() == 2
