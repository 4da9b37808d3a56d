"""Several CT by one click: a list with check boxes, one progress, a table of them all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.errors import CancelledError, UnusableInputError
from Testing.ui.module import steps


@pytest.fixture
def small(phantom: Any) -> Any:
    """The phantom at the size of a small child, whose lungs take less time."""
    phantom.SetSpacing(1.1, 1.1, 1.1)
    phantom.SetName("child")
    return phantom


@pytest.fixture
def grey(module: Any) -> Any:
    """A picture of grey values, which is no CT."""
    import slicer

    values = np.random.default_rng(0).integers(0, 256, (24, 40, 40)).astype(np.int16)
    return slicer.util.addVolumeFromArray(values, np.diag([-2.0, -2.0, 3.0, 1.0]), "grey")


def check(panel: Any, *nodes: Any) -> None:
    import qt

    panel.ui.severalGroupBox.collapsed = False
    for node in nodes:
        panel.ui.severalSelector.setCheckState(node, qt.Qt.Checked)


def test_one_that_fails_stops_no_other(panel: Any, grey: Any, small: Any) -> None:
    """From the click to the table; the one that could be segmented is shown."""
    import qt
    import slicer

    from DiffSegLungSlicer import results

    check(panel, grey, small)
    assert panel.ui.applyButton.text == "Segment 2 CT"
    panel.ui.qualitySelector.setCurrentIndex(0)
    panel.ui.deviceSelector.setCurrentIndex(1)
    steps.click(panel.ui.applyButton)
    assert panel.ui.applyButton.text == "Cancel"
    said: list[str] = []

    def isDone() -> bool:
        said.append(panel.ui.statusLabel.text)
        return panel._run is None

    steps.waitUntil(isDone, 500)
    assert any("2 of 2: child" in text for text in said)
    table = panel.ui.severalTable.mrmlTableNode()
    columns = {table.GetColumnName(n): n for n in range(table.GetNumberOfColumns())}
    cells = {table.GetCellText(row, 0): row for row in range(table.GetNumberOfRows())}
    assert list(cells) == ["grey", "child"]
    assert "Hounsfield" in table.GetCellText(cells["grey"], columns["problem"])
    node = panel._parameterNode.segmentation
    assert results.isResult(node) and results.volumeOf(node) is small
    shown = float(table.GetCellText(cells["child"], columns["healthy_percent"]))
    assert shown == pytest.approx(results.wholeLung(node)["healthy_percent"], abs=0.01)
    assert table.GetCellText(cells["child"], columns["problem"]) == ""
    assert panel.ui.severalTable.isVisibleTo(panel.parent)
    assert panel.ui.applyButton.text == "Segment lung pathology"
    assert steps.temporaryFolders() == []
    steps.click(panel.ui.copySeveralButton)
    assert qt.QApplication.clipboard().text().splitlines()[0].split("\t")[1:] == ["grey", "child"]
    slicer.mrmlScene.Clear(0)
    assert not panel.ui.severalTable.isVisibleTo(panel.parent)


def test_cancel_ends_all_of_them(panel: Any, grey: Any, phantom: Any) -> None:
    check(panel, phantom, grey)
    before = steps.nodeIds()
    steps.click(panel.ui.applyButton)
    steps.waitUntil(lambda: panel.ui.progressBar.value > 0)
    run, processes = panel._run, steps.family(panel._run.pid)
    steps.click(panel.ui.applyButton)
    steps.waitUntil(lambda: all(map(steps.isGone, processes)), 10)
    assert isinstance(run.error, CancelledError) and not run.isRunning
    assert steps.nodeIds() == before
    assert not panel.ui.errorLabel.isVisibleTo(panel.parent)


def test_none_is_refused(module: Any) -> None:
    with pytest.raises(UnusableInputError, match="No CT is checked"):
        module.DiffSegLungLogic().processSeveral([])


def test_from_the_console_all_may_fail(module: Any, grey: Any) -> None:
    """Also one that is refused before it starts; the table says why of each."""
    import slicer

    hollow = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    table = module.DiffSegLungLogic().processSeveral([hollow, grey], steps.FAST)
    problems = [table.GetCellText(row, table.GetNumberOfColumns() - 1) for row in range(2)]
    assert "no voxels" in problems[0] and "Hounsfield" in problems[1]
