"""Widgets for tables and charts: real nodes of the scene, shown and edited."""

from __future__ import annotations

from typing import Any

import qt
import vtk
from ctkwidgets.rows import rowLayout
from pythonqt.observing import Observers
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, stored
from qt import Property, Signal

from .charts import paintChart
from .errors import complain


@standinWidget
class qMRMLTableView(Setters, qt.QTableView):
    """Shows a vtkMRMLTableNode; what the user types is written into it."""

    mrmlSceneChanged = Signal(object)
    selectionChanged = Signal()
    firstRowLocked = stored("firstRowLocked", bool, False, "_refresh")
    firstColumnLocked = stored("firstColumnLocked", bool, False, "_refresh")
    _scene: Any = None
    _node: Any = None
    _observer: Any = None
    _viewNode: Any = None
    _viewObserver: Any = None
    _filling = False
    _transposed = False

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._observer, self._viewObserver = Observers(self._refresh), Observers(self._followView)
        self.setModel(qt.QStandardItemModel(self))
        self.model().itemChanged.connect(self._onItemChanged)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def _hasNode(self, method: str) -> bool:
        if self._node is None:
            complain(f"qMRMLTableView::{method} failed: invalid node")
        return self._node is not None

    def _isTransposed(self) -> bool:
        return self._hasNode("transposed") and self._transposed

    def setTransposed(self, transposed: bool) -> None:
        """Refused as long as there is no table, as in Slicer: the `.ui` file cannot set it."""
        if self._hasNode("setTransposed"):
            self._transposed = transposed
            self._refresh()

    transposed = Property(bool, _isTransposed, setTransposed)

    def tableModel(self) -> Any:
        return self.model()

    def mrmlTableNode(self) -> Any:
        return self._node

    def setMRMLTableNode(self, node: Any) -> None:
        self._node = node
        self._observer.watch([(node, vtk.vtkCommand.ModifiedEvent)] if node is not None else [])
        self._refresh()

    def mrmlTableViewNode(self) -> Any:
        return self._viewNode

    def setMRMLTableViewNode(self, viewNode: Any) -> None:
        """Follow the table that a view node shows."""
        self._viewNode = viewNode
        self._viewObserver.watch([(viewNode, vtk.vtkCommand.ModifiedEvent)])
        self._followView()

    def _followView(self) -> None:
        if self._viewNode.GetTableNode() is not self._node:
            self.setMRMLTableNode(self._viewNode.GetTableNode())

    def _refresh(self) -> None:
        self._filling = True
        self.model().clear()
        for row, texts in enumerate(self._texts()):
            for column, text in enumerate(texts):
                self.model().setItem(row, column, self._item(row, column, text))
        self._fillHeaders()
        self._filling = False

    def _fillHeaders(self) -> None:
        """Titles with their units along one side, the first column, where it is a header, along the other."""
        model = self.model()
        ofColumns, ofRows = model.setHorizontalHeaderLabels, model.setVerticalHeaderLabels
        if self._transposed:
            ofColumns, ofRows = ofRows, ofColumns
        if self._titlesAreHeader():
            ofColumns(self._titles()[self._firstColumn() :])
        if self._firstColumn():
            rows = range(self._node.GetNumberOfRows())
            ofRows([self._node.GetCellText(row, 0) for row in rows])

    def _firstColumn(self) -> int:
        """The first column that is shown as cells: Slicer can show column 0 as the rows' header."""
        return int(self._node is not None and bool(self._node.GetUseFirstColumnAsRowHeader()))

    def _titlesAreHeader(self) -> bool:
        """Slicer shows the column titles either as the header or as the first row."""
        return self._node is not None and bool(self._node.GetUseColumnTitleAsColumnHeader())

    def _titles(self) -> list[str]:
        names = [self._node.GetColumnName(index) for index in range(self._node.GetNumberOfColumns())]
        units = [self._node.GetColumnUnitLabel(name) for name in names]
        titles = [self._node.GetColumnTitle(name) or name for name in names]
        return [f"{title} [{unit}]" if unit else title for title, unit in zip(titles, units, strict=True)]

    def _texts(self) -> list[list[str]]:
        if self._node is None:
            return []
        rows = range(self._node.GetNumberOfRows())
        columns = range(self._firstColumn(), self._node.GetNumberOfColumns())
        texts = [[self._node.GetCellText(row, column) for column in columns] for row in rows]
        if not self._titlesAreHeader():
            texts = [self._titles()[self._firstColumn() :], *texts]
        return [list(each) for each in zip(*texts, strict=True)] if self._transposed else texts

    def _item(self, row: int, column: int, text: str) -> Any:
        item = qt.QStandardItem(text)
        locked = (self.firstRowLocked and row == 0) or (self.firstColumnLocked and column == 0)
        item.setEditable(not (locked or self._node.GetLocked()))
        return item

    def _onItemChanged(self, item: Any) -> None:
        if self._filling or self._node is None:
            return
        row, column = (item.column(), item.row()) if self._transposed else (item.row(), item.column())
        row -= 0 if self._titlesAreHeader() else 1
        column += self._firstColumn()
        if row < 0:
            self._node.SetColumnTitle(self._node.GetColumnName(column), item.text())
        else:
            self._node.SetCellText(row, column, item.text())

    def copySelection(self) -> None:
        """Copy the selected cells to the clipboard, as tab-separated text."""
        cells = sorted((index.row(), index.column()) for index in self.selectedIndexes())
        rows = sorted({row for row, _column in cells})
        lines = [
            "\t".join(self.model().item(*cell).text() for cell in cells if cell[0] == row) for row in rows
        ]
        qt.QApplication.clipboard().setText("\n".join(lines))


@standinWidget
class qMRMLPlotView(Setters, qt.QWidget):
    """Paints the chart that a vtkMRMLPlotViewNode shows."""

    mrmlSceneChanged = Signal(object)
    dataSelected = Signal(object, object)
    _scene: Any = None
    _viewNode: Any = None
    _observer: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._observer = Observers(self._follow)
        self.setMinimumSize(160, 120)

    def mrmlScene(self) -> Any:
        return self._scene

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene
        self.mrmlSceneChanged.emit(scene)

    def mrmlPlotViewNode(self) -> Any:
        return self._viewNode

    def setMRMLPlotViewNode(self, viewNode: Any) -> None:
        self._viewNode = viewNode
        self._follow()

    def _follow(self) -> None:
        """Observe the view, its chart, the chart's series and their tables: all that changes the picture."""
        tables = [each.GetTableNode() for each in self._series()]
        shown = [self._viewNode, self._chart(), *self._series(), *tables]
        self._observer.watch((node, vtk.vtkCommand.ModifiedEvent) for node in shown if node is not None)
        self.update()

    def _chart(self) -> Any:
        return self._viewNode.GetPlotChartNode() if self._viewNode is not None else None

    def _series(self) -> list[Any]:
        chart = self._chart()
        count = chart.GetNumberOfPlotSeriesNodes() if chart is not None else 0
        found = [chart.GetNthPlotSeriesNode(index) for index in range(count)]
        return [each for each in found if each is not None]

    def fitToContent(self) -> None:
        self.update()

    def paintEvent(self, _event: Any) -> None:
        painter = qt.QPainter(self)
        painter.fillRect(self.rect, qt.QColor(255, 255, 255))
        if self._chart() is not None:
            paintChart(painter, self.rect, self._chart(), self._series())
        painter.end()


@standinWidget
class qMRMLPlotWidget(qt.QWidget):
    """A plot view with its controller."""

    _view: Any = None
    _controller: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._view, self._controller = qMRMLPlotView(), qt.QLabel("P")
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(0)
        layout.addWidget(self._controller)
        layout.addWidget(self._view, 1)

    def plotView(self) -> Any:
        return self._view

    def plotController(self) -> Any:
        return self._controller

    def viewWidget(self) -> Any:
        return self._view

    def mrmlPlotViewNode(self) -> Any:
        return self._view.mrmlPlotViewNode()

    def setMRMLPlotViewNode(self, viewNode: Any) -> None:
        self._view.setMRMLPlotViewNode(viewNode)

    def setMRMLScene(self, scene: Any) -> None:
        self._view.setMRMLScene(scene)


@standinWidget
class qMRMLTableWidget(qt.QWidget):
    """A table view with its controller."""

    _view: Any = None
    _controller: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._view, self._controller = qMRMLTableView(), qt.QLabel("T")
        rowLayout(self, self._view)

    def tableView(self) -> Any:
        return self._view

    def tableController(self) -> Any:
        return self._controller

    def viewWidget(self) -> Any:
        return self._view

    def mrmlTableViewNode(self) -> Any:
        return self._view.mrmlTableViewNode()

    def setMRMLTableViewNode(self, viewNode: Any) -> None:
        self._view.setMRMLTableViewNode(viewNode)
