"""The test bench's window: the views show the CT, the segments, the charts and tables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def pixels(view: Any) -> np.ndarray:
    """A widget's picture, (height, width, RGB)."""
    import qt

    image = view.grab().toImage().convertToFormat(qt.QImage.Format_RGB888)
    rows = np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine())
    return rows[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).astype(int)


def colored(picture: np.ndarray) -> float:
    """The fraction of pixels that are not grey."""
    return float((picture.max(axis=2) - picture.min(axis=2) > 40).mean())


@pytest.fixture
def window(slicerWindow: Callable[..., Any]) -> Any:
    """A window; skips where nothing can be rendered."""
    from standin.views import canRender

    if not canRender():
        pytest.skip("no OpenGL, not even in software")
    return slicerWindow()


@pytest.fixture
def segmentation(chestVolume: Any) -> Any:
    """Two segments over the dense spots."""
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Findings")
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(chestVolume)
    for name, color, columns in (("right", (1, 0, 0), slice(15, 25)), ("left", (0, 1, 0), slice(55, 65))):
        mask = np.zeros((40, 60, 80), np.uint8)
        mask[15:25, 25:35, columns] = 1
        node.GetSegmentation().AddEmptySegment(name, name, color)
        slicer.util.updateSegmentBinaryLabelmapFromArray(mask, node, name, chestVolume)
    return node


def sliceView(name: str) -> Any:
    import slicer

    return slicer.app.layoutManager().sliceWidget(name).sliceView()


@pytest.mark.parametrize("name", ["Red", "Green", "Yellow"])
def test_slice_view_shows_the_ct(window: Any, chestVolume: Any, name: str) -> None:
    import slicer

    window.refresh()
    assert pixels(sliceView(name)).max() < 60  # nothing yet
    slicer.util.setSliceViewerLayers(background=chestVolume, fit=True)
    widget = slicer.app.layoutManager().sliceWidget(name)
    widget.sliceController().setSliceOffsetValue({"Red": 0, "Green": 0, "Yellow": 35}[name])
    window.refresh()
    picture = pixels(sliceView(name))
    assert (picture > 200).mean() > 0.1  # soft tissue
    assert ((picture > 40) & (picture < 110)).mean() > 0.1  # lung
    assert colored(picture) < 0.01


def test_slice_view_shows_the_segments(window: Any, chestVolume: Any, segmentation: Any) -> None:
    import slicer

    slicer.util.setSliceViewerLayers(background=chestVolume, fit=True)
    window.refresh()
    picture = pixels(sliceView("Red"))
    red = picture[..., 0] - picture[..., 1] > 40
    green = picture[..., 1] - picture[..., 0] > 40
    assert 0.005 < red.mean() < 0.2
    assert 0.005 < green.mean() < 0.2
    # Radiologists' view: the patient's right side is at the left.
    assert np.nonzero(red)[1].mean() < picture.shape[1] / 2 < np.nonzero(green)[1].mean()
    segmentation.GetDisplayNode().SetVisibility(False)
    window.refresh()
    assert colored(pixels(sliceView("Red"))) < 0.001


def test_slice_offset_moves_the_slice(window: Any, chestVolume: Any, segmentation: Any) -> None:
    import slicer

    slicer.util.setSliceViewerLayers(background=chestVolume, fit=True)
    slicer.app.layoutManager().sliceWidget("Red").sliceController().setSliceOffsetValue(-50)
    window.refresh()
    assert colored(pixels(sliceView("Red"))) < 0.001  # the spots are higher up


def test_3d_view_shows_the_surfaces(window: Any, segmentation: Any) -> None:
    import slicer

    widget = slicer.app.layoutManager().threeDWidget(0)
    widget.mrmlViewNode().SetBoxVisible(False)
    widget.mrmlViewNode().SetAxisLabelsVisible(False)
    window.refresh()
    before = pixels(widget.threeDView())
    segmentation.CreateClosedSurfaceRepresentation()
    widget.threeDView().resetCamera()
    window.refresh()
    after = pixels(widget.threeDView())
    changed = np.abs(after - before).max(axis=2) > 60
    assert 0.01 < changed.mean() < 0.8
    assert (after[..., 0] - after[..., 2] > 60).any()
    assert (after[..., 1] - after[..., 2] > 60).any()


def test_chart_is_drawn_in_its_colours(window: Any, scene: Any) -> None:
    import slicer

    manager = slicer.app.layoutManager()
    chart = slicer.util.plot(np.array([[0, 1.0], [1, 3.0], [2, 2.0]]), 0, ["x", "HU"], "Density")
    assert manager.plotWidget(0).mrmlPlotViewNode().GetPlotChartNode() is chart
    series = chart.GetNthPlotSeriesNode(0)
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
    series.SetColor(1.0, 0.0, 0.0)
    window.refresh()
    picture = pixels(manager.plotWidget(0).plotView())
    red = (picture[..., 0] > 200) & (picture[..., 1] < 80)
    assert 0.1 < red.mean() < 0.7
    heights = red.sum(axis=0)
    assert heights.max() / np.median(heights[heights > 0]) == pytest.approx(1.5, rel=0.1)  # bars of 1, 3, 2
    series.SetColor(0.0, 0.0, 1.0)
    window.refresh()
    picture = pixels(manager.plotWidget(0).plotView())
    assert not ((picture[..., 0] > 200) & (picture[..., 1] < 80)).any()


def test_table_is_shown_and_edited(scene: Any) -> None:
    import slicer

    node = scene.AddNewNodeByClass("vtkMRMLTableNode", "Measures")
    slicer.util.updateTableFromArray(node, [np.array([1.5, 2.5]), np.array([3.5, 4.5])], ["a", "b"])
    view = slicer.qMRMLTableView()
    view.setMRMLTableNode(node)
    texts = [[view.model().index(row, column).data() for column in (0, 1)] for row in range(3)]
    assert texts == [["a", "b"], ["1.5", "3.5"], ["2.5", "4.5"]]
    view.model().item(1, 1).setText("9")
    assert float(node.GetCellText(0, 1)) == 9.0
    node.SetUseColumnTitleAsColumnHeader(True)
    assert view.model().rowCount() == 2


def test_layout_shows_what_it_should(window: Any, scene: Any) -> None:
    import slicer

    manager = slicer.app.layoutManager()
    heard: list[int] = []
    manager.connect("layoutChanged(int)", heard.append)
    manager.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView)
    slicer.app.processEvents()
    assert manager.sliceWidget("Red").isVisible()
    assert not manager.sliceWidget("Green").isVisible()
    assert manager.layout == slicer.vtkMRMLLayoutNode.SlicerLayoutOneUpRedSliceView
    assert heard == [manager.layout]
    assert set(manager.sliceViewNames()) >= {"Red", "Green", "Yellow"}


def test_mouse_wheel_scrolls_the_slices(window: Any, chestVolume: Any) -> None:
    import slicer

    slicer.util.setSliceViewerLayers(background=chestVolume, fit=True)
    window.refresh()
    widget = slicer.app.layoutManager().sliceWidget("Red")
    before = widget.sliceLogic().GetSliceOffset()
    interactor = widget.interactorStyle().GetInteractor()
    interactor.SetEventPosition(50, 50)
    interactor.MouseMoveEvent()
    interactor.MouseWheelForwardEvent()
    assert widget.sliceLogic().GetSliceOffset() != before


def test_screenshot_is_written(window: Any, chestVolume: Any, tmp_path: Path) -> None:
    import qt

    image = qt.QImage(str(window.screenshot(tmp_path / "window.png")))
    assert (image.width(), image.height()) == (window.width, window.height)


def test_second_window_shows_the_views_too(slicerWindow: Callable[..., Any], scene: Any) -> None:
    import slicer

    for _time in range(2):
        with slicerWindow("Data"):
            assert slicer.app.layoutManager().sliceWidget("Red").isVisible()
        assert slicer.util.mainWindow() is None
