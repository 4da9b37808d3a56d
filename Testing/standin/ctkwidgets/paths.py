"""Widgets for files and folders."""

from __future__ import annotations

import os
from typing import Any

import qt
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, forwarded, stored
from qt import Property, Signal

from .rows import rowLayout


@standinWidget
class ctkPathLineEdit(Setters, qt.QWidget):
    """A line for a path, with a button that browses for one."""

    Dirs, Files, Drives, Executable = 0x1, 0x2, 0x4, 0x80
    Readable, Writable, Hidden = 0x10, 0x20, 0x100
    _enumProperties = ("filters", "options", "sizeAdjustPolicy")
    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    filters = stored("filters", int, 0x3, "_validate")
    options = stored("options", int, 0)
    nameFilters = stored("nameFilters", "QStringList", ())
    label = stored("label", str, "")
    settingKey = stored("settingKey", str, "")
    sizeAdjustPolicy = stored("sizeAdjustPolicy", int, 0)
    minimumContentsLength = stored("minimumContentsLength", int, 0)
    showBrowseButton = forwarded("_button", "visible", bool)
    showHistoryButton = stored("showHistoryButton", bool, True)
    _line: Any = None
    _button: Any = None
    _valid = False

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._line = qt.QLineEdit()
        self._button = qt.QToolButton()
        self._button.setText("…")
        rowLayout(self, self._line, self._button)
        self._line.textChanged.connect(self._onTextChanged)
        self._button.clicked.connect(self.browse)

    def _onTextChanged(self, path: str) -> None:
        self._validate()
        self.currentPathChanged.emit(path)

    def _validate(self) -> None:
        wanted = int(self.filters)
        path = self._line.text
        valid = bool(wanted & self.Dirs and os.path.isdir(path)) or bool(
            wanted & self.Files and os.path.isfile(path)
        )
        if valid != self._valid:
            self._valid = valid
            self.validInputChanged.emit(valid)

    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)

    currentPath = Property(str, lambda self: self._line.text, setCurrentPath)

    def browse(self) -> None:
        if int(self.filters) & self.Files:
            answer = qt.QFileDialog.getOpenFileName(self, "Select a file", self._line.text)
            path = answer[0] if isinstance(answer, tuple) else answer
        else:
            path = qt.QFileDialog.getExistingDirectory(self, "Select a directory", self._line.text)
        if path:
            self.setCurrentPath(path)

    def addCurrentPathToHistory(self) -> None:
        if self.settingKey and self._line.text:
            settings = qt.QSettings()
            history = [each for each in settings.value(self.settingKey, []) or [] if each != self._line.text]
            settings.setValue(self.settingKey, [self._line.text, *history][:10])


@standinWidget
class ctkDirectoryButton(Setters, qt.QWidget):
    """A button that shows, and browses for, a directory."""

    _enumProperties = ("acceptMode", "options")
    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    caption = stored("caption", str, "")
    acceptMode = stored("acceptMode", int, 0)
    options = stored("options", int, 1)
    displayAbsolutePath = stored("displayAbsolutePath", bool, True)
    _button: Any = None
    _directory = "."

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self._button = qt.QPushButton()
        rowLayout(self, self._button)
        self._button.clicked.connect(self.browse)
        self._button.setText(self._directory)
        self.setDirectory(next((each for each in arguments if isinstance(each, str)), self._directory))

    def setDirectory(self, directory: str) -> None:
        absolute = os.path.abspath(directory)
        if absolute != os.path.abspath(self._directory):
            self._directory = absolute
            self._button.setText(absolute)
            self.directoryChanged.emit(absolute)

    directory = Property(str, lambda self: self._directory, setDirectory)

    def browse(self) -> None:
        chosen = qt.QFileDialog.getExistingDirectory(self, self.caption, self._directory)
        if chosen:
            self.setDirectory(chosen)
            self.directorySelected.emit(self._directory)
