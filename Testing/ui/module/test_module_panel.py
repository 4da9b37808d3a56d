"""The panel without a run: what is chosen, how a result is shown, followed, edited and handed on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.tissues import REPORTED
from Testing.ui.module import steps

EYE, TISSUE, ML, PERCENT, OPACITY = range(5)


def addVolume(voxels: np.ndarray, name: str, className: str = "vtkMRMLScalarVolumeNode") -> Any:
    import slicer

    return slicer.util.addVolumeFromArray(voxels, np.diag([-2.0, -2.0, 3.0, 1.0]), name, className)


# --- what is chosen --------------------------------------------------------------------------------------


def test_without_a_ct_the_button_says_what_is_missing(panel: Any) -> None:
    assert not panel.ui.applyButton.enabled
    assert panel.ui.applyButton.toolTip == "Load a chest CT and choose it."
    steps.click(panel.ui.applyButton)
    assert not panel.logic.isRunning()
    assert not panel.ui.errorLabel.isVisibleTo(panel.parent)


def test_a_loaded_ct_is_chosen_on_entering(panel: Any, phantom: Any) -> None:
    import standin

    standin.enterModule("Data")
    standin.enterModule("DiffSegLung")
    assert panel.ui.inputSelector.currentNode() is phantom
    assert panel.ui.applyButton.enabled
    assert "healthy and diseased" in panel.ui.applyButton.toolTip


def test_what_is_no_ct_is_not_chosen(panel: Any) -> None:
    """A label map, an MR image and an uncertainty of ours; the user may still choose them."""
    import standin

    standin.enterModule("Data")
    wide = np.linspace(-1000, 1000, 4 * 5 * 6).reshape(4, 5, 6).astype(np.int16)
    addVolume(wide, "labels", "vtkMRMLLabelMapVolumeNode")
    mr = addVolume(np.abs(wide), "MR")
    addVolume(wide, "ours").SetAttribute("DiffSegLung.role", "DiffSegLung.uncertainty")
    standin.enterModule("DiffSegLung")
    assert panel.ui.inputSelector.currentNode() is None
    assert not panel.ui.applyButton.enabled
    panel.ui.inputSelector.setCurrentNode(mr)
    assert panel.ui.applyButton.enabled


def test_removing_the_ct_disables_the_button(panel: Any, chestVolume: Any, scene: Any) -> None:
    panel.ui.inputSelector.setCurrentNode(chestVolume)
    assert panel.ui.applyButton.enabled
    scene.RemoveNode(chestVolume)
    assert not panel.ui.applyButton.enabled


def test_an_unusable_ct_is_one_red_line(panel: Any) -> None:
    """A picture of grey values 0 to 255 is no CT; the library says so."""
    grey = np.random.default_rng(0).integers(0, 256, (24, 40, 40)).astype(np.int16)
    panel.ui.inputSelector.setCurrentNode(addVolume(grey, "grey <values>"))
    before = steps.nodeIds()
    steps.click(panel.ui.applyButton)
    steps.waitUntil(lambda: panel._run is None)
    label = panel.ui.errorLabel
    assert label.isVisibleTo(panel.parent)
    assert "Hounsfield" in label.text
    assert "\n" not in label.text
    assert "c62828" in label.styleSheet
    assert steps.nodeIds() == before
    assert steps.temporaryFolders() == []
    assert panel.ui.applyButton.text == "Segment lung pathology"


def test_lungs_segment_is_asked_for_where_lungs_are_given(panel: Any, phantom: Any, pieces: Any) -> None:
    selector = panel.ui.lungsSegmentSelector
    assert not selector.isVisibleTo(panel.parent)
    panel.ui.lungsSelector.setCurrentNode(pieces)
    assert selector.isVisibleTo(panel.parent)
    assert [selector.itemText(n) for n in range(selector.count)] == [
        "all segments",
        "right lung",
        "left lung",
    ]
    selector.setCurrentIndex(2)
    assert panel._parameterNode.lungsSegment == "left lung"


def test_a_segment_of_other_lungs_is_forgotten(panel: Any, phantom: Any, pieces: Any) -> None:
    """The list shows all segments, so all are meant."""
    other = steps.addSegments(phantom, {"both": steps.RIGHT_PIECE}, "other lungs")
    panel.ui.lungsSelector.setCurrentNode(pieces)
    panel.ui.lungsSegmentSelector.setCurrentIndex(2)
    assert panel._parameterNode.lungsSegment == "left lung"
    panel.ui.lungsSelector.setCurrentNode(other)
    assert panel.ui.lungsSegmentSelector.currentText == "all segments"
    assert panel._parameterNode.lungsSegment == ""


def test_result_as_its_own_mask_is_refused(shown: Any, result: Any, phantom: Any) -> None:
    shown.ui.inputSelector.setCurrentNode(phantom)
    shown.ui.lungsSelector.setCurrentNode(result)
    steps.click(shown.ui.applyButton)
    assert "both mask and result" in shown.ui.errorLabel.text
    assert not shown.logic.isRunning()


# --- how it is shown -------------------------------------------------------------------------------------


def test_eye_hides_a_tissue(shown: Any, result: Any) -> None:
    import qt

    item, view = steps.cell(shown, "consolidation", EYE), result.GetDisplayNode()
    assert item.checkState() == qt.Qt.Checked
    item.setCheckState(qt.Qt.Unchecked)
    assert not view.GetSegmentVisibility("consolidation")
    assert view.GetSegmentVisibility("healthy")
    item.setCheckState(qt.Qt.Checked)
    assert view.GetSegmentVisibility("consolidation")


@pytest.mark.parametrize(("typed", "share"), [("30", 0.3), ("12,5 %", 0.125), ("900", 1.0), ("-4", 0.0)])
def test_opacity_of_one_tissue(shown: Any, result: Any, typed: str, share: float) -> None:
    view = result.GetDisplayNode()
    others = view.GetSegmentOpacity2DFill("healthy")
    steps.cell(shown, "consolidation", OPACITY).setText(typed)
    assert view.GetSegmentOpacity2DFill("consolidation") == pytest.approx(share)
    assert view.GetSegmentOpacity3D("consolidation") == pytest.approx(share)
    assert view.GetSegmentOpacity2DFill("healthy") == others
    assert steps.cell(shown, "consolidation", OPACITY).text() == f"{100 * share:.0f} %"


def test_opacity_that_is_no_number_is_put_back(shown: Any) -> None:
    before = steps.cell(shown, "consolidation", OPACITY).text()
    steps.cell(shown, "consolidation", OPACITY).setText("much")
    assert steps.cell(shown, "consolidation", OPACITY).text() == before


def test_opacity_of_all(shown: Any, result: Any) -> None:
    shown.ui.opacitySlider.value = 0.25
    assert result.GetDisplayNode().GetOpacity2DFill() == pytest.approx(0.25)


def test_outline(shown: Any, result: Any) -> None:
    steps.click(shown.ui.outlineCheckBox)
    assert not result.GetDisplayNode().GetVisibility2DFill()
    assert result.GetDisplayNode().GetVisibility2DOutline()
    steps.click(shown.ui.outlineCheckBox)
    assert result.GetDisplayNode().GetVisibility2DFill()


def test_lung_window_and_back(panel: Any, phantom: Any, result: Any) -> None:
    view = phantom.GetDisplayNode()
    view.AutoWindowLevelOff()
    view.SetWindowLevel(333, 44)
    steps.show(panel, result)
    assert (view.GetWindow(), view.GetLevel()) == (1500, -600)
    assert panel.ui.lungWindowCheckBox.checked
    steps.click(panel.ui.lungWindowCheckBox)
    assert (view.GetWindow(), view.GetLevel(), view.GetAutoWindowLevel()) == (333, 44, 0)
    steps.click(panel.ui.lungWindowCheckBox)
    assert (view.GetWindow(), view.GetLevel()) == (1500, -600)


def test_automatic_window_comes_back(panel: Any, phantom: Any, result: Any) -> None:
    view = phantom.GetDisplayNode()
    view.AutoWindowLevelOn()
    steps.show(panel, result)
    assert not view.GetAutoWindowLevel()
    steps.click(panel.ui.lungWindowCheckBox)
    assert view.GetAutoWindowLevel()


def test_uncertainty_is_laid_over(shown: Any, result: Any) -> None:
    import slicer

    from DiffSegLungSlicer import results

    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    layer = result.GetNodeReference(results.UNCERTAINTY_ROLE)
    steps.click(shown.ui.uncertaintyCheckBox)
    assert {view.GetForegroundVolumeID() for view in views} == {layer.GetID()}
    assert {view.GetForegroundOpacity() for view in views} == {0.6}
    values = slicer.util.arrayFromVolume(layer)
    assert 0 <= values.min() < values.max() <= 1
    steps.click(shown.ui.uncertaintyCheckBox)
    assert {view.GetForegroundVolumeID() for view in views} == {None}


def test_surfaces_are_made_on_request(shown: Any, result: Any) -> None:
    assert not result.GetSegmentation().ContainsRepresentation("Closed surface")
    steps.click(shown.ui.show3DButton)
    surface = result.GetClosedSurfaceInternalRepresentation("consolidation")
    assert surface.GetNumberOfPoints() > 100


@pytest.mark.parametrize("key", ["consolidation", "healthy"])
def test_click_goes_to_the_tissue(shown: Any, result: Any, phantom: Any, key: str) -> None:
    import qt
    import slicer

    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, 0, 0, 0)
    table, item = shown.ui.tissueTable, steps.cell(shown, key, TISSUE)
    where = table.visualItemRect(item).center()
    qt.QTest.mouseClick(table.viewport(), qt.Qt.LeftButton, qt.Qt.NoModifier, where)
    middles = [
        slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3, 3]
        for view in slicer.util.getNodesByClass("vtkMRMLSliceNode")
    ]
    assert len(middles) == 3
    for middle in middles:
        assert middle == pytest.approx(middles[0])
    i, j, k, _one = np.rint(np.linalg.inv(ijkToRas(phantom)) @ [*middles[0], 1]).astype(int)
    assert steps.voxelsOf(result, key, phantom)[k, j, i]


def ijkToRas(volume: Any) -> np.ndarray:
    import slicer
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return np.asarray(slicer.util.arrayFromVTKMatrix(matrix))


def test_click_on_an_absent_tissue_stays(shown: Any) -> None:
    import slicer

    from DiffSegLungSlicer import results

    absent = [key for key, ml, percent in results.tissueRows(shown._parameterNode.segmentation) if ml == 0]
    assert absent
    row = [tissue.key for tissue in REPORTED].index(absent[0])
    view = slicer.util.getNode("vtkMRMLSliceNodeRed")
    before = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()).copy()
    shown.ui.tissueTable.cellClicked.emit(row, TISSUE)
    assert np.array_equal(slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS()), before)
    assert not shown.ui.errorLabel.isVisibleTo(shown.parent)


@pytest.mark.parametrize(
    ("button", "role"),
    [
        ("histogramButton", "HISTOGRAM_ROLE"),
        ("sharesButton", "SHARES_ROLE"),
        ("profileButton", "PROFILE_ROLE"),
    ],
)
def test_charts(shown: Any, result: Any, button: str, role: str) -> None:
    import slicer

    from DiffSegLungSlicer import results

    shown.ui.measuresGroupBox.collapsed = False
    steps.click(getattr(shown.ui, button))
    chart = result.GetNodeReference(getattr(results, role))
    assert slicer.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
    selection = slicer.app.applicationLogic().GetSelectionNode()
    assert selection.GetActivePlotChartID() == chart.GetID()
    (view,) = slicer.util.getNodesByClass("vtkMRMLPlotViewNode")
    assert view.GetPlotChartNodeID() == chart.GetID()
    names = [chart.GetNthPlotSeriesNode(n).GetName() for n in range(chart.GetNumberOfPlotSeriesNodes())]
    tissues = [tissue.name for tissue in REPORTED]
    assert names == (tissues[::-1] if role == "SHARES_ROLE" else tissues)  # the uppermost is drawn first


def test_bars_are_stacked(result: Any) -> None:
    """What a line leaves in sight above the next one is its tissue's share of the region."""
    from DiffSegLungSlicer import results

    chart = result.GetNodeReference(results.SHARES_ROLE)
    series = [chart.GetNthPlotSeriesNode(n) for n in range(chart.GetNumberOfPlotSeriesNodes())]
    tops = {}
    for each in series:
        assert each.GetXColumnName() == "position" and each.GetLabelColumnName() == "region"
        column = each.GetTableNode().GetTable().GetColumnByName(each.GetYColumnName())
        count = column.GetNumberOfValues()
        tops[each.GetYColumnName()] = [column.GetValue(row) for row in range(1, count, 3)]
    assert list(tops) == [tissue.key for tissue in REPORTED][::-1]
    heights = np.array([*tops.values(), [0.0] * len(tops["healthy"])])
    rows = results.shareRows(result)
    expected = [[shares[key] for _name, shares in rows] for key in tops]
    assert np.allclose(heights[:-1] - heights[1:], expected, atol=0.011)
    assert np.allclose(tops[series[0].GetYColumnName()], 100.0, atol=0.05)
    assert chart.GetXAxisTitle().startswith("1 whole lung, 2 right lung, 3 left lung")
    assert chart.GetYAxisRange() == (0.0, 100.0) and not chart.GetYAxisRangeAuto()


def test_histogram_counts_each_voxel(result: Any, phantom: Any) -> None:
    """The millilitres of a tissue's histogram are those of its voxels within the axis."""
    import slicer

    from DiffSegLungSlicer import results

    table = result.GetNodeReference(results.HISTOGRAM_TABLE_ROLE).GetTable()
    hu = slicer.util.arrayFromVolume(phantom)
    for key in ("healthy", "consolidation"):
        inside = hu[steps.voxelsOf(result, key, phantom)]
        inside = inside[(inside >= -1030) & (inside <= 200)]
        column = table.GetColumnByName(key)
        values = [column.GetValue(row) for row in range(table.GetNumberOfRows())]
        assert min(values) == results.LEAST_ML  # of an empty bin: the axis is logarithmic
        total = sum(value for value in values if value > results.LEAST_ML)
        assert total == pytest.approx(inside.size * 2.5**3 / 1000, abs=0.5)


# --- copies, files, other modules --------------------------------------------------------------------------


def test_copy_is_a_spreadsheet(shown: Any, result: Any) -> None:
    import qt

    from DiffSegLungSlicer import results

    shown.ui.measuresGroupBox.collapsed = False
    steps.click(shown.ui.copyMeasuresButton)
    lines = [line.split("\t") for line in qt.QApplication.clipboard().text().splitlines()]
    assert lines[0] == ["Region", "whole lung", "right lung", "left lung"]
    assert {len(line) for line in lines} == {4}
    volumes = {line[0]: float(line[1]) for line in lines[1:] if line[0].endswith("[ml]")}
    assert volumes["Consolidation [ml]"] == pytest.approx(
        millilitres(results.tissueRows(result))["consolidation"]
    )


def millilitres(rows: list[tuple[str, float, float]]) -> dict[str, float]:
    return {key: ml for key, ml, percent in rows}


def test_citation_is_copied(panel: Any, module: Any) -> None:
    import qt

    from DiffSegLungSlicer.InstallationSection import CITATION

    panel.ui.aboutCollapsibleButton.collapsed = False
    steps.click(panel.ui.copyCitationButton)
    text = qt.QApplication.clipboard().text()
    assert text == f"{CITATION}, {module.HOMEPAGE}"
    assert "2605.11758" in text


def test_edit_opens_the_segment_editor(panel: Any, result: Any, phantom: Any, slicerWindow: Any) -> None:
    import slicer

    from DiffSegLungSlicer import results

    slicerWindow("DiffSegLung")
    steps.show(panel, result)
    steps.click(panel.ui.editButton)
    assert slicer.app.moduleManager().currentModule() == "SegmentEditor"
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert editor.segmentationNode() is result
    assert editor.sourceVolumeNode() is phantom
    slicer.util.selectModule("DiffSegLung")
    assert panel.ui.segmentationSelector.currentNode() is result
    steps.click(panel.ui.editLungsButton)
    lungs = result.GetNodeReference(results.LUNGS_ROLE)
    assert editor.segmentationNode() is lungs
    assert lungs.GetDisplayNode().GetVisibility()


def test_report_is_written_and_opened(shown: Any, phantom: Any, tmp_path: Path) -> None:
    import qt
    import standin

    phantom.SetName("CT / 1: Grün")
    standin.answers.give(qt.QFileDialog.getExistingDirectory, str(tmp_path))
    steps.click(shown.ui.reportButton)
    assert shown.ui.errorLabel.text == ""
    assert {"report.html", "report.pdf", "measures.csv"} <= {file.name for file in tmp_path.iterdir()}
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    # A volume is often called after the patient; a report names nobody unless asked to.
    assert "Grün" not in (tmp_path / "report.html").read_text(encoding="utf-8")
    (address,) = standin.openedUrls
    assert address == (tmp_path / "report.html").as_uri()
    assert steps.temporaryFolders() == []


def test_report_without_a_folder_is_none(shown: Any) -> None:
    import qt
    import standin

    standin.answers.give(qt.QFileDialog.getExistingDirectory, "")
    steps.click(shown.ui.reportButton)
    assert standin.openedUrls == []


def test_dicom_needs_the_database(shown: Any) -> None:
    assert not shown.ui.dicomButton.enabled
    assert "did not come from the DICOM database" in shown.ui.dicomButton.toolTip


def test_check_tells_device_and_weights(panel: Any) -> None:
    panel.ui.optionsGroupBox.collapsed = False
    steps.click(panel.ui.checkButton)
    assert not panel.ui.checkButton.enabled
    steps.waitUntil(lambda: panel.ui.checkButton.enabled)
    assert panel.ui.deviceLabel.text
    log = panel.ui.logText.toPlainText()
    assert "ready" in log
    assert panel.ui.deviceLabel.text in log
    assert "torch" in log
    assert "SHA-256" in log


# --- corrections -------------------------------------------------------------------------------------------


def rowsOf(node: Any) -> dict[str, float]:
    from DiffSegLungSlicer import results

    return millilitres(results.tissueRows(node))


def test_an_edit_is_measured_and_said(shown: Any, result: Any, phantom: Any) -> None:
    """A slab of consolidation is called fibrosis by hand, as the Segment Editor's Paint does."""
    from DiffSegLungSlicer import results

    before, said = rowsOf(result), steps.cell(shown, "fibrosis", ML).text()
    assert "corrected" not in shown.ui.resultLabel.text
    dense, fibrosis = (steps.voxelsOf(result, key, phantom) for key in ("consolidation", "fibrosis"))
    moved = dense & (np.arange(dense.shape[0]) > np.median(np.argwhere(dense)[:, 0]))[:, None, None]
    steps.setVoxels(result, "consolidation", dense & ~moved, phantom)
    steps.setVoxels(result, "fibrosis", fibrosis | moved, phantom)
    steps.waitUntil(lambda: results.isCorrected(result), 3)
    after, ml = rowsOf(result), moved.sum() * 2.5**3 / 1000
    assert after["fibrosis"] - before["fibrosis"] == pytest.approx(ml, abs=0.011)
    assert before["consolidation"] - after["consolidation"] == pytest.approx(ml, abs=0.011)
    assert after["healthy"] == before["healthy"]
    assert steps.cell(shown, "fibrosis", ML).text() != said
    assert "corrected by hand" in shown.ui.resultLabel.text


def test_looking_is_not_correcting(shown: Any, result: Any) -> None:
    """Surfaces, visibility and a measurement on request change no segment."""
    from DiffSegLungSlicer import results

    before = rowsOf(result)
    steps.click(shown.ui.show3DButton)
    result.GetDisplayNode().SetSegmentVisibility("healthy", False)
    steps.goOn(1.5)
    shown.logic.measures(result)
    assert not results.isCorrected(result)
    assert rowsOf(result) == before
    assert "corrected" not in shown.ui.resultLabel.text


def test_erasing_everything_is_said(shown: Any, result: Any, scene: Any) -> None:
    """The user removes all tissues: one line, no exception."""
    for segmentId in list(result.GetSegmentation().GetSegmentIDs()):
        result.GetSegmentation().RemoveSegment(segmentId)
    steps.waitUntil(lambda: "none of its segments left" in shown.ui.errorLabel.text, 3)


def test_removing_the_result_empties_the_panel(shown: Any, result: Any, scene: Any) -> None:
    scene.RemoveNode(result)
    steps.goOn(0.1)
    assert not shown.ui.resultsCollapsibleButton.enabled
    assert shown.ui.resultLabel.text == "No result yet."
    assert not shown.ui.warningsLabel.isVisibleTo(shown.parent)
