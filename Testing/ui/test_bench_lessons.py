"""The bench shows what a run in the real Slicer showed: what crashes it, or turns its log red."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture
def complaints(slicerApp: Any) -> Iterator[list[str]]:
    """What Slicer would log; the test looks at it, so it is not held against it."""
    import standin

    standin.forget()
    yield standin.complaints
    standin.forget()


def test_a_painter_without_end_stays_open(slicerApp: Any) -> None:
    import qt
    import standin

    pixmap = qt.QPixmap(8, 8)

    def paint() -> None:
        painter = qt.QPainter(pixmap)
        painter.fillRect(0, 0, 4, 4, qt.QColor(255, 0, 0))

    paint()
    assert len(standin.openPainters()) == 1 and "paint()" in standin.openPainters()[0]
    standin.closePainters()
    assert standin.openPainters() == []
    painter = qt.QPainter(pixmap)
    painter.end()
    assert standin.openPainters() == []


def test_a_traceback_is_kept(slicerApp: Any, complaints: list[str]) -> None:
    import sys

    import qt
    import standin

    def fail() -> None:
        raise ZeroDivisionError("in a slot")

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    button.click()
    assert isinstance(sys.last_value, ZeroDivisionError)
    standin.forget()
    assert not hasattr(sys, "last_value") and standin.slotErrors == []


def test_a_table_view_without_a_table_is_not_transposed(scene: Any, complaints: list[str]) -> None:
    import slicer

    view = slicer.qMRMLTableView()
    view.transposed = True
    assert complaints == ["qMRMLTableView::setTransposed failed: invalid node"]
    complaints.clear()
    node = scene.AddNewNodeByClass("vtkMRMLTableNode")
    view.setMRMLTableNode(node)
    assert not view.transposed
    view.transposed = True
    assert view.transposed and complaints == []


def test_a_line_of_one_point_is_a_complaint(scene: Any, complaints: list[str]) -> None:
    import qt
    import slicer
    import vtk
    from standin.charts import paintChart

    table = scene.AddNewNodeByClass("vtkMRMLTableNode")
    for name in ("x", "y"):
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        column.InsertNextValue(1.0)
        table.AddColumn(column)
    series = scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode")
    series.SetPlotType(series.PlotTypeScatter)
    series.SetAndObserveTableNodeID(table.GetID())
    series.SetXColumnName("x")
    series.SetYColumnName("y")
    chart = scene.AddNewNodeByClass("vtkMRMLPlotChartNode")
    pixmap = qt.QPixmap(200, 200)
    painter = qt.QPainter(pixmap)
    paintChart(painter, qt.QRect(0, 0, 200, 200), chart, [series])
    series.SetLineStyle(slicer.vtkMRMLPlotSeriesNode.LineStyleNone)
    paintChart(painter, qt.QRect(0, 0, 200, 200), chart, [series])
    painter.end()
    assert complaints == ["vtkContext2D: Attempted to paint a line with <2 points."]


def test_a_segmentation_beyond_its_scene_is_a_complaint(scene: Any, complaints: list[str]) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "held")
    node.CreateDefaultDisplayNodes()
    node.GetSegmentation().AddEmptySegment("a", "a")
    assert complaints == []
    scene.RemoveNode(node)
    node.GetSegmentation().AddEmptySegment("b", "b")
    assert complaints and all(
        "subject hierarchy item for segmentation node held" in each for each in complaints
    )


def test_a_folded_button_is_as_high_as_its_contents_need(slicerApp: Any) -> None:
    """Unfolded it asks for their least height; hidden ones stay hidden when it is unfolded again."""
    import ctk
    import qt

    parent = qt.QWidget()
    layout = qt.QVBoxLayout(parent)
    button = ctk.ctkCollapsibleButton()
    layout.addWidget(button)
    inner = qt.QVBoxLayout(button)
    tall, hidden = qt.QLabel("tall"), qt.QLabel("hidden")
    tall.setMinimumHeight(200)
    for label in (tall, hidden):
        inner.addWidget(label)
    hidden.visible = False
    parent.show()
    slicerApp.processEvents()
    assert button.minimumSizeHint().height() > 200
    button.collapsed = True
    slicerApp.processEvents()
    assert button.minimumSizeHint().height() < 60 and not tall.isVisible()
    button.collapsed = False
    slicerApp.processEvents()
    assert tall.isVisible() and not hidden.isVisible()
