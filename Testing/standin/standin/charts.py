"""Paints a vtkMRMLPlotChartNode with Qt: bars, lines and points in their own colours, axes, title, legend.

Slicer draws charts with VTK; the picture here only has to show the same data.
"""

from __future__ import annotations

import math
from typing import Any

import qt
import slicer
import vtk

from .errors import complain

MARGIN_LEFT, MARGIN_RIGHT, MARGIN_TOP, MARGIN_BOTTOM = 62, 16, 34, 62
INK = "#303030"


class Series:
    """What a plot series node draws."""

    def __init__(self, node: Any) -> None:
        table = node.GetTableNode().GetTable() if node.GetTableNode() is not None else None
        self.name = node.GetName()
        self.isBar = node.GetPlotType() == slicer.vtkMRMLPlotSeriesNode.PlotTypeBar
        self.isLine = node.GetLineStyle() != slicer.vtkMRMLPlotSeriesNode.LineStyleNone
        self.color = qt.QColor.fromRgbF(*node.GetColor())
        self.lineWidth = node.GetLineWidth()
        self.markerSize = 0.0
        if node.GetMarkerStyle() != slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone:
            self.markerSize = node.GetMarkerSize()
        self.y = columnValues(table, node.GetYColumnName())
        usesX = node.GetPlotType() in (
            slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter,
            slicer.vtkMRMLPlotSeriesNode.PlotTypeScatterBar,
        )
        x = columnValues(table, node.GetXColumnName()) if usesX else []
        self.x = x or [float(index) for index in range(len(self.y))]
        self.labels = columnTexts(table, node.GetLabelColumnName())


def columnValues(table: Any, name: str | None) -> list[float]:
    column = table.GetColumnByName(name) if table is not None and name else None
    if not isinstance(column, vtk.vtkDataArray):
        return []
    return [column.GetComponent(index, 0) for index in range(column.GetNumberOfTuples())]


def columnTexts(table: Any, name: str | None) -> list[str]:
    column = table.GetColumnByName(name) if table is not None and name else None
    if column is None:
        return []
    return [column.GetVariantValue(index).ToString() for index in range(column.GetNumberOfValues())]


class Axes:
    """Maps data to pixels."""

    def __init__(self, frame: Any, chart: Any, series: list[Series]) -> None:
        self.frame = frame
        points = [(x, y) for each in series for x, y in zip(each.x, each.y, strict=False)]
        finite = [point for point in points if all(map(math.isfinite, point))]
        hasBars = any(each.isBar for each in series)
        xs = [x for x, _y in finite] or [0.0, 1.0]
        ys = [y for _x, y in finite] or [0.0, 1.0]
        pad = 0.6 if hasBars else 0.0
        self.xRange = (
            chart.GetXAxisRange() if not chart.GetXAxisRangeAuto() else (min(xs) - pad, max(xs) + pad)
        )
        self.yRange = chart.GetYAxisRange() if not chart.GetYAxisRangeAuto() else valueRange(ys, hasBars)
        self.isLog = chart.GetYAxisLogScale() and self.yRange[0] > 0

    def x(self, value: float) -> float:
        return self.frame.left() + self.frame.width() * fraction(value, self.xRange)

    def y(self, value: float) -> float:
        if self.isLog:
            low, high = map(math.log10, self.yRange)
            share = fraction(math.log10(max(value, 1e-9)), (low, high))
        else:
            share = fraction(value, self.yRange)
        return self.frame.bottom() - self.frame.height() * share

    def yTicks(self) -> list[float]:
        """Round numbers; powers of ten on a logarithmic axis."""
        if not self.isLog:
            return ticks(self.yRange)
        low, high = (math.log10(limit) for limit in self.yRange)
        return [10.0**power for power in range(math.ceil(low), math.floor(high) + 1)]


def fraction(value: float, limits: tuple[float, float]) -> float:
    return (value - limits[0]) / ((limits[1] - limits[0]) or 1.0)


def valueRange(values: list[float], fromZero: bool) -> tuple[float, float]:
    low, high = min(values), max(values)
    if fromZero:
        low, high = min(low, 0.0), max(high, 0.0)
    return low, high + 0.05 * ((high - low) or 1.0)


def ticks(limits: tuple[float, float], wanted: int = 5) -> list[float]:
    """Round numbers within the limits."""
    rough = (limits[1] - limits[0]) / wanted or 1.0
    power = 10.0 ** math.floor(math.log10(abs(rough)))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(limits[0] / step)
    return [step * index for index in range(first, math.floor(limits[1] / step) + 1)]


def paintChart(painter: Any, area: Any, chart: Any, seriesNodes: list[Any]) -> None:
    """Draw the chart into an area of the widget."""
    frame = area.adjusted(MARGIN_LEFT, MARGIN_TOP, -MARGIN_RIGHT, -MARGIN_BOTTOM)
    series = [Series(each) for each in seriesNodes]
    axes = Axes(frame, chart, series)
    painter.setRenderHint(qt.QPainter.Antialiasing)
    paintFrame(painter, axes, chart, series)
    bars = [each for each in series if each.isBar]
    for index, each in enumerate(bars):
        paintBars(painter, axes, each, index, len(bars))
    for each in series:
        if not each.isBar:
            paintLine(painter, axes, each)
    paintTitles(painter, area, frame, chart)
    if chart.GetLegendVisibility() and len(series) > 1:
        paintLegend(painter, frame, series)


def paintFrame(painter: Any, axes: Axes, chart: Any, series: list[Series]) -> None:
    painter.setPen(qt.QPen(qt.QColor("#d8d8d8"), 1))
    for value in axes.yTicks() if chart.GetGridVisibility() else ():
        painter.drawLine(qt.QLineF(axes.frame.left(), axes.y(value), axes.frame.right(), axes.y(value)))
    painter.setPen(qt.QPen(qt.QColor(INK), 1))
    painter.drawRect(axes.frame)
    for value in axes.yTicks():
        box = qt.QRectF(0, axes.y(value) - 8, axes.frame.left() - 5, 16)
        painter.drawText(box, int(qt.Qt.AlignRight | qt.Qt.AlignVCenter), f"{value:g}")
    for value, text in xLabels(axes, series):
        box = qt.QRectF(axes.x(value) - 45, axes.frame.bottom() + 3, 90, 16)
        painter.drawText(box, int(qt.Qt.AlignHCenter), text)


def xLabels(axes: Axes, series: list[Series]) -> list[tuple[float, str]]:
    labelled = next((each for each in series if each.isBar and each.labels), None)
    if labelled is not None:
        return list(zip(labelled.x, labelled.labels, strict=False))
    return [(value, f"{value:g}") for value in ticks(axes.xRange)]


def paintBars(painter: Any, axes: Axes, series: Series, index: int, count: int) -> None:
    width = 0.8 / count
    painter.setPen(qt.Qt.NoPen)
    painter.setBrush(series.color)
    for x, y in zip(series.x, series.y, strict=False):
        left, right = axes.x(x - 0.4 + index * width), axes.x(x - 0.4 + (index + 1) * width)
        top, bottom = sorted((axes.y(y), axes.y(0.0)))
        painter.drawRect(qt.QRectF(left, top, right - left, bottom - top))
    painter.setBrush(qt.Qt.NoBrush)


def paintLine(painter: Any, axes: Axes, series: Series) -> None:
    points = [qt.QPointF(axes.x(x), axes.y(y)) for x, y in zip(series.x, series.y, strict=False)]
    painter.save()
    painter.setClipRect(axes.frame)
    painter.setPen(qt.QPen(series.color, max(series.lineWidth, 1.0), qt.Qt.SolidLine, qt.Qt.FlatCap))
    if series.isLine and len(points) < 2:
        complain("vtkContext2D: Attempted to paint a line with <2 points.")
    elif series.isLine:
        painter.drawPolyline(points)
    if series.markerSize:
        painter.setBrush(series.color)
        for point in points:
            painter.drawEllipse(point, series.markerSize / 2, series.markerSize / 2)
    painter.restore()


def paintTitles(painter: Any, area: Any, frame: Any, chart: Any) -> None:
    painter.setPen(qt.QColor(INK))
    if chart.GetXAxisTitleVisibility() and chart.GetXAxisTitle():
        box = qt.QRectF(frame.left(), area.bottom() - 38, frame.width(), 18)
        painter.drawText(box, int(qt.Qt.AlignHCenter), chart.GetXAxisTitle())
    if chart.GetYAxisTitleVisibility() and chart.GetYAxisTitle():
        painter.save()
        painter.translate(14, frame.center().y())
        painter.rotate(-90)
        painter.drawText(qt.QRectF(-150, -9, 300, 18), int(qt.Qt.AlignCenter), chart.GetYAxisTitle())
        painter.restore()
    if chart.GetTitleVisibility() and chart.GetTitle():
        font = painter.font()
        font.setBold(True)
        painter.setFont(font)
        painter.drawText(qt.QRectF(0, 6, area.width(), 22), int(qt.Qt.AlignHCenter), chart.GetTitle())
        font.setBold(False)
        painter.setFont(font)


def paintLegend(painter: Any, frame: Any, series: list[Series]) -> None:
    for row, each in enumerate(series):
        top = frame.top() + 6 + 16 * row
        painter.fillRect(qt.QRectF(frame.right() - 130, top + 3, 10, 10), each.color)
        painter.setPen(qt.QColor(INK))
        painter.drawText(qt.QRectF(frame.right() - 116, top, 112, 16), int(qt.Qt.AlignVCenter), each.name)
