"""The main window: the module's panel at the left, the views at the right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import qt
import slicer
from pythonqt.rules import standinWidget
from qt import Property, Signal

PANEL_WIDTH = 420


@standinWidget
class qSlicerModuleSelectorToolBar(qt.QToolBar):
    """The list of modules; choosing one switches to it."""

    moduleSelected = Signal(str)
    _list: Any = None

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._list = qt.QComboBox()
        self.addWidget(qt.QLabel("Modules: "))
        self.addWidget(self._list)
        self._list.activated.connect(lambda row: self.selectModule(self._list.itemData(row)))

    def selectModule(self, name: str) -> None:
        if slicer.app.moduleManager().module(name) is None:
            raise RuntimeError(f"no module {name}")
        self._refresh(name)
        self.moduleSelected.emit(name)

    def _refresh(self, current: str) -> None:
        manager = slicer.app.moduleManager()
        self._list.clear()
        for name in sorted(manager.modulesNames()):
            self._list.addItem(manager.module(name).title, name)
        self._list.setCurrentIndex(self._list.findData(current))

    selectedModule = Property(str, lambda self: self._list.currentData or "", selectModule)


@standinWidget
class qSlicerMainWindow(qt.QMainWindow):
    """What `slicer.util.mainWindow()` finds."""

    _selector: Any = None
    _area: Any = None

    def __init__(self) -> None:
        super().__init__()
        self.setObjectName("qSlicerMainWindow")
        self.setWindowTitle("Slicer test bench")
        self._selector = qSlicerModuleSelectorToolBar()
        self.addToolBar(self._selector)
        self._selector.moduleSelected.connect(self._showModule)
        self._addPanel()
        viewport = slicer.app.layoutManager().viewport()
        self.setCentralWidget(viewport)
        viewport.show()
        self.statusBar()

    def _addPanel(self) -> None:
        self._area = qt.QScrollArea()
        self._area.setWidgetResizable(True)
        self._area.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        dock = qt.QDockWidget()
        dock.setObjectName("PanelDockWidget")
        dock.setTitleBarWidget(qt.QWidget())
        dock.setWidget(self._area)
        dock.setFixedWidth(PANEL_WIDTH)
        self.addDockWidget(qt.Qt.LeftDockWidgetArea, dock)

    def moduleSelector(self) -> Any:
        return self._selector

    def _showModule(self, name: str) -> None:
        manager = slicer.app.moduleManager()
        self._releasePanel()
        panel = manager.module(name).widgetRepresentation()
        if panel is not None:
            self._area.setWidget(panel)
            panel.show()
        manager.enter(name)

    def _releasePanel(self) -> None:
        """Take the former panel out: its module keeps it."""
        former = self._area.takeWidget()
        if former is not None:
            former.setParent(None)
            former.hide()


class SlicerWindow(qSlicerMainWindow):
    """The main window for a test. One at a time; `dispose()` it, or use it in a `with` statement."""

    def __init__(self, moduleName: str = "", size: tuple[int, int] = (1280, 800), show: bool = True) -> None:
        if slicer.util.mainWindow() is not None:
            raise RuntimeError("there is a main window already: dispose() of it")
        super().__init__()
        slicer.app.holdMainWindow(self)
        self.resize(*size)
        if show:
            self.show()
        if moduleName:
            self.moduleSelector().selectModule(moduleName)
        slicer.app.processEvents()

    def refresh(self) -> None:
        """Draw all that can be seen now."""
        slicer.app.processEvents()
        for view in slicer.app.layoutManager().renderedViews():
            if view.isVisible():
                view.forceRender()
        slicer.app.processEvents()

    def screenshot(self, path: str | Path) -> Path:
        """Write a picture of the window."""
        self.refresh()
        if not self.grab().save(str(path)):
            raise OSError(f"cannot write {path}")
        return Path(path)

    def dispose(self) -> None:
        """Leave the module and delete the window; the panel and the views live on."""
        manager = slicer.app.moduleManager()
        manager.leaveCurrent()
        self._releasePanel()
        viewport = self.takeCentralWidget()
        viewport.setParent(None)
        viewport.hide()
        self.hide()
        self.setObjectName("")
        slicer.app.holdMainWindow(None)
        self.deleteLater()
        slicer.app.processEvents()

    def __enter__(self) -> SlicerWindow:
        return self

    def __exit__(self, *_error: object) -> None:
        self.dispose()
