"""What the first run in the real Slicer showed; the bench shows each fault as Slicer does."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib import tissues
from DiffSegLungLib.export import segmentation_file
from Testing.ui.module import steps

# --- one lung ----------------------------------------------------------------------------------------------


@pytest.fixture
def oneLungFiles(runFiles: Path, tmp_path: Path) -> Path:
    """What a run leaves of a mask of one lung: nothing of the left one."""
    folder = tmp_path / "one lung"
    shutil.copytree(runFiles, folder)
    keepRightLung(folder / "lungs.seg.nrrd", segmentation_file.LUNG_SEGMENTS)
    keepRightLung(folder / "segmentation.seg.nrrd", None)
    return folder


def keepRightLung(path: Path, segments: Any) -> None:
    image = sitk.ReadImage(str(path))
    labels = sitk.GetArrayFromImage(image)
    kept = np.zeros_like(labels)
    kept[steps.RIGHT_PIECE] = labels[steps.RIGHT_PIECE]
    changed = sitk.GetImageFromArray(kept)
    changed.CopyInformation(image)
    segmentation_file.write_segmentation(path, changed, *([segments] if segments else []))


def test_a_lung_that_is_not_there_is_no_row_of_the_shares(
    panel: Any, phantom: Any, oneLungFiles: Path
) -> None:
    """Its percent is undefined; it made a chart of NaN and left a painter open."""
    import slicer

    from DiffSegLungSlicer import results

    node = steps.commitFiles(oneLungFiles, phantom)
    steps.show(panel, node)
    assert [name for name, _shares in results.shareRows(node)] == ["whole lung", "right lung"]
    assert panel.ui.sharesLabel.isVisibleTo(panel.parent)
    assert float(steps.cell(panel, "healthy", 3).text()) > 0
    table = node.GetNodeReference(results.SHARES_TABLE_ROLE)
    columns = [table.GetColumnName(index) for index in range(1, table.GetNumberOfColumns())]
    assert np.isfinite([slicer.util.arrayFromTableColumn(table, name) for name in columns]).all()


@pytest.mark.parametrize("lacking", [float("nan"), float("inf")])
def test_shares_that_are_no_numbers_are_not_painted(module: Any, lacking: float) -> None:
    from DiffSegLungSlicer.ResultSection import paintShares

    picture = paintShares([("left lung", {"healthy": lacking, "emphysema": 40.0}), ("right lung", {})])
    assert not picture.isNull()


def test_the_button_comes_back_whatever_the_result_does(
    panel: Any, phantom: Any, runFiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error while the result is shown is one red line, and never a button that stays on Cancel."""
    from DiffSegLungSlicer import display

    panel.ui.inputSelector.setCurrentNode(phantom)
    monkeypatch.setattr(display, "showResult", raiseZeroDivision)
    with steps.finishedRun([runFiles], phantom) as run:
        panel._run = run
        panel._updateButton()
        assert panel.ui.applyButton.text == "Cancel"
        steps.waitUntil(lambda: panel._run is None or panel.onTick())
        monkeypatch.undo()
    assert panel.ui.applyButton.text == "Segment lung pathology"
    assert panel.ui.applyButton.enabled
    assert "ZeroDivisionError" in panel.ui.errorLabel.text


def raiseZeroDivision(*_arguments: Any) -> None:
    raise ZeroDivisionError("no picture")


# --- models ------------------------------------------------------------------------------------------------


def test_a_half_made_model_is_no_model(panel: Any, tmp_path: Path) -> None:
    """A fine-tuning writes into a hidden folder, which may stay behind where it was killed."""
    from DiffSegLungLib.errors import MissingPartError
    from DiffSegLungLib.models import store as models

    store = tmp_path / "models"
    shutil.copytree(models.find(), store / ".ours.partial")
    panel.trainingSection.refresh()
    selector = panel.ui.trainingModelSelector
    assert [selector.itemText(index) for index in range(selector.count)] == []
    assert all(not info.folder.name.startswith(".") for info in models.list_models())
    with pytest.raises(MissingPartError):
        panel.trainingSection.logic.verify(".ours.partial")


# --- the panel's house ------------------------------------------------------------------------------------


def assertNothingOverlaps(section: Any) -> None:
    """Each part of a section has the height that it needs, and none lies over another."""
    layout = section.layout()
    parts = [layout.itemAt(index).widget() for index in range(layout.count())]
    shown = [part for part in parts if part is not None and part.isVisibleTo(section)]
    for above, below in itertools.pairwise(shown):
        assert above.geometry.bottom() < below.geometry.top(), (above.name, below.name)
    assert section.height >= section.minimumSizeHint().height()


def test_the_result_has_room_also_after_a_reload(panel: Any, result: Any, slicerWindow: Any) -> None:
    """The shares lay over the table's last rows."""
    import standin

    slicerWindow("DiffSegLung")
    steps.show(panel, result)
    steps.goOn(0.3)
    assertNothingOverlaps(panel.ui.resultsCollapsibleButton)
    reloaded = standin.reloadScriptedModule("DiffSegLung")
    steps.goOn(0.3)
    assert reloaded.ui.sharesLabel.isVisible()
    assertNothingOverlaps(reloaded.ui.resultsCollapsibleButton)
    reloaded.ui.resultsCollapsibleButton.collapsed = True
    steps.goOn(0.3)
    assert reloaded.ui.resultsCollapsibleButton.height < 60


def test_measures_are_shown_a_column_a_region(shown: Any) -> None:
    """A table view without a table refuses to be transposed, and says so in the log."""
    assert shown.ui.measuresTable.transposed
    model = shown.ui.measuresTable.model()
    assert model.columnCount() == 3 and model.rowCount() > 15


def test_opacity_follows_the_display(shown: Any, result: Any) -> None:
    """Others change it too: the Segmentations module, a script, a saved scene."""
    view = result.GetDisplayNode()
    assert shown.ui.opacitySlider.value == pytest.approx(view.GetOpacity2DFill())
    view.SetOpacity2DFill(0.9)
    assert shown.ui.opacitySlider.value == pytest.approx(0.9)
    assert view.GetOpacity2DFill() == pytest.approx(0.9)


def test_eyes_and_outline_follow_the_display(shown: Any, result: Any) -> None:
    import qt

    view = result.GetDisplayNode()
    view.SetSegmentVisibility("consolidation", False)
    assert steps.cell(shown, "consolidation", 0).checkState() == qt.Qt.Unchecked
    view.SetVisibility2DFill(False)
    assert shown.ui.outlineCheckBox.checked


# --- charts and scene -------------------------------------------------------------------------------------


def test_a_curve_of_one_point_is_not_drawn(panel: Any, slicerWindow: Any) -> None:
    """VTK makes an error of it at each refresh."""
    from DiffSegLungSlicer import display, losses

    window = slicerWindow("DiffSegLung")
    log = [{"step": 1.0, "noise": 0.3, "held_back": 0.2, "info_nce": 2.0, "regression": 1.0}]
    for chart in losses.show("ours", log):
        display.showChart(chart)
        window.refresh()
    log += [{"step": step, "noise": 0.2} for step in (2.0, 3.0)]
    (chart,) = losses.show("ours", log)
    display.showChart(chart)
    window.refresh()
    assert [chart.GetNthPlotSeriesNode(n).GetName() for n in range(chart.GetNumberOfPlotSeriesNodes())] == [
        "training, mean of 20"
    ]
    log.append({"step": 4.0, "noise": 0.2, "held_back": 0.1, "info_nce": 1.0, "regression": 1.0})
    assert [chart.GetNumberOfPlotSeriesNodes() for chart in losses.show("ours", log)] == [2, 2]


def test_closing_the_scene_is_silent(panel: Any, phantom: Any, runFiles: Path, slicerWindow: Any) -> None:
    """A segmentation that somebody holds beyond its scene has no item in the subject hierarchy any more."""
    import gc
    import weakref

    import slicer

    slicerWindow("DiffSegLung")
    with steps.finishedRun([runFiles], phantom) as run:
        panel._run = panel.logic._run = run
        steps.waitUntil(lambda: panel._run is None or panel.onTick())
    node = panel._parameterNode.segmentation
    held = [weakref.ref(each) for each in (node, node.GetNodeReference("DiffSegLung.lungs"))]
    steps.click(panel.ui.editLungsButton)
    slicer.util.selectModule("DiffSegLung")
    del node, run
    slicer.mrmlScene.Clear(0)
    steps.goOn(0.2)
    gc.collect()
    assert [reference() for reference in held] == [None, None], "nobody may hold what was closed"
    assert not panel.ui.resultsCollapsibleButton.enabled


# --- where the views go -----------------------------------------------------------------------------------


def assertPlanesGoThrough(place: Any, node: Any) -> None:
    """Each plane holds the place, and its middle is still that of the lungs."""
    import slicer

    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    middle = (np.array(bounds[::2]) + bounds[1::2]) / 2
    views = slicer.util.getNodesByClass("vtkMRMLSliceNode")
    assert len(views) == 3 and place is not None
    for view in views:
        across, down, normal, origin = slicer.util.arrayFromVTKMatrix(view.GetSliceToRAS())[:3].T
        assert normal @ (np.array(place) - origin) == pytest.approx(0.0, abs=0.01)
        assert [across @ (middle - origin), down @ (middle - origin)] == pytest.approx([0.0, 0.0], abs=0.01)


def test_views_go_to_the_largest_disease(panel: Any, phantom: Any, result: Any) -> None:
    """Not to the middle of both lungs, which is the mediastinum."""
    from DiffSegLungSlicer import results

    steps.show(panel, result)
    volumes = {key: ml for key, ml, _percent in results.tissueRows(result) if key != "healthy"}
    largest = max(volumes, key=lambda key: volumes[key])
    assert volumes[largest] > 0
    assertPlanesGoThrough(results.largestPiece(result, largest), result)


def test_views_go_through_the_right_lung_where_nothing_is_diseased(
    panel: Any, phantom: Any, result: Any
) -> None:
    from DiffSegLungSlicer import display, results

    empty = np.zeros_like(steps.voxelsOf(result, "healthy", phantom))
    for tissue in tissues.DISEASES:
        if tissue.key in result.GetSegmentation().GetSegmentIDs():
            steps.setVoxels(result, tissue.key, empty, phantom)
    panel.logic.measures(result)
    display.showResult(result)
    assertPlanesGoThrough(results.largestPiece(result, "right-lung", ofLungs=True), result)


@pytest.mark.parametrize(
    ("card", "atOnce"), [("llvmpipe (LLVM 15.0.6, 256 bits)", False), ("NVIDIA GeForce RTX 3060/PCIe", True)]
)
def test_surfaces_at_once_only_with_a_graphics_card(
    panel: Any, result: Any, monkeypatch: pytest.MonkeyPatch, card: str, atOnce: bool
) -> None:
    from DiffSegLungSlicer import display

    monkeypatch.setattr(display, "graphicsCard", lambda: card)
    steps.show(panel, result)
    assert result.GetSegmentation().ContainsRepresentation("Closed surface") is atOnce
    assert panel.ui.show3DButton.checked is atOnce
