"""Tables and charts of the scene."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import slicer
import vtk


@dataclass(frozen=True)
class Line:
    """One line of a chart.

    Attributes:
        table: the table node that holds its points.
        column: the table's column with its heights.
        name: as the legend has it.
        colour: 8-bit red, green, blue.
    """

    table: Any
    column: str
    name: str
    colour: tuple[int, int, int]


def fillTable(node, columns: Mapping[str, Sequence]) -> None:
    """Replaces all columns of a table node; a column is of texts or of numbers."""
    modified = node.StartModify()
    node.RemoveAllColumns()
    for name, values in columns.items():
        array = vtk.vtkStringArray() if values and isinstance(values[0], str) else vtk.vtkDoubleArray()
        array.SetName(name)
        for value in values:
            array.InsertNextValue(value)
        node.AddColumn(array)
    node.EndModify(modified)
    node.Modified()


def fillChart(chart, x: str, lines: Sequence[Line], lineWidth: float) -> None:
    """Draws lines over the column `x` of their tables; one of a single point is left out, VTK refuses it."""
    drawn = [line for line in lines if line.table.GetNumberOfRows() > 1]
    for index, line in enumerate(drawn):
        series = chart.GetNthPlotSeriesNode(index)
        if series is None:
            name = f"{line.table.GetName()} {line.column}"
            series = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
            chart.AddAndObservePlotSeriesNodeID(series.GetID())
        series.SetName(line.name)
        series.SetPlotType(series.PlotTypeScatter)
        series.SetAndObserveTableNodeID(line.table.GetID())
        series.SetXColumnName(x)
        series.SetYColumnName(line.column)
        series.SetLabelColumnName("region" if line.table.GetColumnIndex("region") >= 0 else "")
        series.SetMarkerStyle(series.MarkerStyleNone)
        series.SetLineWidth(lineWidth)
        series.SetColor(*(channel / 255 for channel in line.colour))
    for index in reversed(range(len(drawn), chart.GetNumberOfPlotSeriesNodes())):
        slicer.mrmlScene.RemoveNode(chart.GetNthPlotSeriesNode(index))


def describeChart(chart, title: str, xTitle: str, yTitle: str) -> None:
    """Titles of a chart and of its axes; the legend is shown."""
    chart.SetTitle(title)
    chart.SetXAxisTitle(xTitle)
    chart.SetYAxisTitle(yTitle)
    chart.SetLegendVisibility(True)
