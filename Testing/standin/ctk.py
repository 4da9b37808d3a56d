"""The module `ctk` of Slicer's Python: stand-ins for the CTK widgets that module panels use.

They have the real widgets' names, properties, signals and slots, and do their work; they look only roughly
like them.
"""

from __future__ import annotations

import math
import os
from typing import Any

import qt
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, forwarded, stored
from qt import Property, Signal

HEADER_HEIGHT = 24
SLIDER_STEPS = 10000


def rowLayout(parent: Any, *widgets: Any) -> None:
    """Lay the widgets out in a row without margins."""
    layout = qt.QHBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget)


def showContents(container: Any, visible: bool) -> None:
    for child in container.children():
        if isinstance(child, qt.QWidget):
            child.setVisible(visible)


@standinWidget
class ctkCollapsibleButton(Setters, qt.QAbstractButton):  # type: ignore[misc]
    """A button whose contents fold away; checked means unfolded."""

    contentsCollapsed = Signal(bool)
    collapsedHeight = stored("collapsedHeight", int, 10)
    contentsFrameShape = stored("contentsFrameShape", int, 0)
    contentsFrameShadow = stored("contentsFrameShadow", int, 16)
    contentsLineWidth = stored("contentsLineWidth", int, 1)
    contentsMidLineWidth = stored("contentsMidLineWidth", int, 0)
    buttonTextAlignment = stored("buttonTextAlignment", int, 0x84)
    flat = stored("flat", bool, False)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self.setText(next((each for each in arguments if isinstance(each, str)), ""))
        self.setContentsMargins(6, HEADER_HEIGHT + 4, 6, 6)
        self.setSizePolicy(qt.QSizePolicy.Minimum, qt.QSizePolicy.Preferred)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._onToggled)

    def _isCollapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _isCollapsed, setCollapsed)

    def _onToggled(self, checked: bool) -> None:
        self._fold()
        self.contentsCollapsed.emit(not checked)

    def _fold(self) -> None:
        showContents(self, self.isChecked())
        self.setMaximumHeight(16777215 if self.isChecked() else HEADER_HEIGHT)
        self.updateGeometry()
        self.update()

    def childEvent(self, event: Any) -> None:
        super().childEvent(event)
        if event.added() and not self.isChecked() and isinstance(event.child(), qt.QWidget):
            qt.QTimer.singleShot(0, self._fold)  # contents that come after `collapsed`, as in a .ui file

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        if not self.isChecked():
            self._fold()

    def hitButton(self, position: Any) -> bool:
        return bool(position.y() < HEADER_HEIGHT)

    def minimumSizeHint(self) -> Any:
        return qt.QSize(60, HEADER_HEIGHT)

    def sizeHint(self) -> Any:
        layout = self.layout()
        if layout is None or not self.isChecked():
            return self.minimumSizeHint()
        return layout.totalSizeHint().expandedTo(self.minimumSizeHint())

    def paintEvent(self, event: Any) -> None:
        painter = qt.QPainter(self)
        header = qt.QRect(0, 0, self.width, HEADER_HEIGHT)
        painter.fillRect(header, self.palette.button().color().darker(108))
        painter.setPen(self.palette.mid().color())
        painter.drawRect(0, 0, self.width - 1, max(HEADER_HEIGHT, self.height) - 1)
        painter.setPen(self.palette.buttonText().color())
        arrow = "\u25be" if self.isChecked() else "\u25b8"
        painter.drawText(header.adjusted(6, 0, 0, 0), int(qt.Qt.AlignVCenter), arrow)
        painter.drawText(header.adjusted(22, 0, 0, 0), int(qt.Qt.AlignVCenter), self.text)
        painter.end()


@standinWidget
class ctkCollapsibleGroupBox(Setters, qt.QGroupBox):  # type: ignore[misc]
    """A group box whose title has a check box that folds the contents away."""

    collapsedHeight = stored("collapsedHeight", int, 14)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(self._onToggled)

    def _isCollapsed(self) -> bool:
        return not self.isChecked()

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, _isCollapsed, setCollapsed)

    def _onToggled(self, checked: bool) -> None:
        showContents(self, checked)
        self.setMaximumHeight(16777215 if checked else HEADER_HEIGHT)


@standinWidget
class ctkDoubleSlider(Setters, qt.QWidget):  # type: ignore[misc]
    """A slider over floating-point numbers."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    rangeChanged = Signal(float, float)
    sliderPressed = Signal()
    sliderReleased = Signal()
    singleStep = stored("singleStep", float, 1.0)
    pageStep = stored("pageStep", float, 10.0)
    tickInterval = stored("tickInterval", float, 0.0)
    tracking = stored("tracking", bool, True)
    invertedAppearance = stored("invertedAppearance", bool, False)
    invertedControls = stored("invertedControls", bool, False)
    orientation = forwarded("_slider", "orientation", int)
    _slider: Any = None
    _minimum = 0.0
    _maximum = 99.0
    _value = 0.0
    _moving = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(next((each for each in arguments if isinstance(each, qt.QWidget)), None))
        self._slider = qt.QSlider(qt.Qt.Horizontal)
        self._slider.setRange(0, SLIDER_STEPS)
        self._slider.valueChanged.connect(self._onMoved)
        rowLayout(self, self._slider)

    def _onMoved(self, position: int) -> None:
        if not self._moving and math.isfinite(self._maximum - self._minimum):
            fraction = position / SLIDER_STEPS
            self.setValue(self._minimum + fraction * (self._maximum - self._minimum))

    def _moveHandle(self) -> None:
        span = self._maximum - self._minimum
        fraction = (self._value - self._minimum) / span if 0 < span < math.inf else 0.0
        self._moving = True
        self._slider.setValue(round(fraction * SLIDER_STEPS))
        self._moving = False

    def setValue(self, value: float) -> None:
        value = min(max(float(value), self._minimum), self._maximum)
        if value != self._value:
            self._value = value
            self._moveHandle()
            self.valueIsChanging.emit(value)
            self.valueChanged.emit(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self._minimum, self._maximum = float(minimum), max(float(minimum), float(maximum))
        self.rangeChanged.emit(self._minimum, self._maximum)
        self.setValue(self._value)
        self._moveHandle()

    def setMinimum(self, minimum: float) -> None:
        self.setRange(minimum, max(float(minimum), self._maximum))

    def setMaximum(self, maximum: float) -> None:
        self.setRange(min(float(maximum), self._minimum), maximum)

    minimum = Property(float, lambda self: self._minimum, setMinimum)
    maximum = Property(float, lambda self: self._maximum, setMaximum)
    value = Property(float, lambda self: self._value, setValue)


@standinWidget
class ctkSliderWidget(Setters, qt.QWidget):  # type: ignore[misc]
    """A slider with a spin box. With `tracking` off, the value changes when the handle is let go."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    rangeChanged = Signal(float, float)
    pageStep = stored("pageStep", float, 10.0)
    tickInterval = stored("tickInterval", float, 0.0)
    tracking = stored("tracking", bool, True)
    invertedAppearance = stored("invertedAppearance", bool, False)
    invertedControls = stored("invertedControls", bool, False)
    synchronizeSiblings = stored("synchronizeSiblings", int, 0)
    spinBoxAlignment = stored("spinBoxAlignment", int, 0)
    popupSlider = stored("popupSlider", bool, False)
    decimals = forwarded("_spinBox", "decimals", int)
    singleStep = forwarded("_spinBox", "singleStep", float)
    prefix = forwarded("_spinBox", "prefix", str)
    suffix = forwarded("_spinBox", "suffix", str)
    spinBoxVisible = Property(
        bool,
        lambda self: not self._spinBox.isHidden(),
        lambda self, visible: self._spinBox.setVisible(visible),
    )
    orientation = forwarded("_slider", "orientation", int)
    _slider: Any = None
    _spinBox: Any = None
    _moving = False
    _value = 0.0

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._slider = qt.QSlider(qt.Qt.Horizontal)
        self._spinBox = qt.QDoubleSpinBox()
        self._slider.setRange(0, SLIDER_STEPS)
        self._spinBox.setRange(0, 99)
        rowLayout(self, self._slider, self._spinBox)
        self._slider.valueChanged.connect(self._onSliderMoved)
        self._slider.sliderReleased.connect(self._settle)
        self._spinBox.valueChanged.connect(self._onSpinBoxChanged)

    def _onSliderMoved(self, position: int) -> None:
        if not self._moving:
            self._spinBox.setValue(self.minimum + (self.maximum - self.minimum) * position / SLIDER_STEPS)

    def _onSpinBoxChanged(self, value: float) -> None:
        self._moveHandle()
        self.valueIsChanging.emit(value)
        if self.tracking or not self._slider.isSliderDown():
            self._settle()

    def _settle(self) -> None:
        if self._spinBox.value != self._value:
            self._value = self._spinBox.value
            self.valueChanged.emit(self._value)

    def _moveHandle(self) -> None:
        span = self.maximum - self.minimum
        fraction = (self._spinBox.value - self.minimum) / span if 0 < span < math.inf else 0.0
        self._moving = True
        self._slider.setValue(round(fraction * SLIDER_STEPS))
        self._moving = False

    def setValue(self, value: float) -> None:
        self._spinBox.setValue(value)

    def setRange(self, minimum: float, maximum: float) -> None:
        self._spinBox.setRange(minimum, maximum)
        self.rangeChanged.emit(minimum, maximum)
        self._moveHandle()

    def setMinimum(self, minimum: float) -> None:
        self.setRange(minimum, max(minimum, self.maximum))

    def setMaximum(self, maximum: float) -> None:
        self.setRange(min(maximum, self.minimum), maximum)

    def reset(self) -> None:
        self.setValue(0.0)

    def spinBox(self) -> Any:
        return self._spinBox

    minimum = Property(float, lambda self: self._spinBox.minimum, setMinimum)
    maximum = Property(float, lambda self: self._spinBox.maximum, setMaximum)
    value = Property(float, lambda self: self._value, setValue)


@standinWidget
class ctkDoubleSpinBox(Setters, qt.QDoubleSpinBox):  # type: ignore[misc]
    """A spin box over floating-point numbers."""

    decimalsOption = stored("decimalsOption", int, 0)
    sizeHintPolicy = stored("sizeHintPolicy", int, 0)
    invertedControls = stored("invertedControls", bool, False)


@standinWidget
class ctkComboBox(Setters, qt.QComboBox):  # type: ignore[misc]
    """A combo box with a text for "nothing chosen"."""

    defaultText = stored("defaultText", str, "")
    defaultIcon = stored("defaultIcon", qt.QIcon, qt.QIcon())
    forceDefault = stored("forceDefault", bool, False)
    elideMode = stored("elideMode", int, 3)
    scrollWheelEffect = stored("scrollWheelEffect", int, 0)


@standinWidget
class ctkCheckableComboBox(Setters, qt.QComboBox):  # type: ignore[misc]
    """A combo box whose items have check boxes."""

    checkedIndexesChanged = Signal()

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self.model().dataChanged.connect(self._onDataChanged)
        self.model().rowsInserted.connect(self._onRowsInserted)

    def _onDataChanged(self, _first: Any, _last: Any, roles: Any = ()) -> None:
        if not roles or qt.Qt.CheckStateRole in roles:
            self.checkedIndexesChanged.emit()

    def _onRowsInserted(self, _parent: Any, first: int, last: int) -> None:
        for row in range(first, last + 1):
            item = self.model().item(row)
            item.setCheckable(True)
            item.setCheckState(qt.Qt.Unchecked)

    def checkableModel(self) -> Any:
        return self.model()

    def checkedIndexes(self) -> tuple[Any, ...]:
        indexes = [self.model().index(row, 0) for row in range(self.count)]
        return tuple(each for each in indexes if self.checkState(each) == qt.Qt.Checked)

    def allChecked(self) -> bool:
        return len(self.checkedIndexes()) == self.count

    def noneChecked(self) -> bool:
        return not self.checkedIndexes()

    def checkState(self, index: Any) -> Any:
        return self.model().itemFromIndex(index).checkState()

    def setCheckState(self, index: Any, state: Any) -> None:
        self.model().itemFromIndex(index).setCheckState(state)


@standinWidget
class ctkCheckBox(Setters, qt.QCheckBox):  # type: ignore[misc]
    """A check box that may show an icon."""

    indicatorIcon = stored("indicatorIcon", qt.QIcon, qt.QIcon())
    indicatorIconSize = stored("indicatorIconSize", qt.QSize, qt.QSize())


@standinWidget
class ctkPushButton(Setters, qt.QPushButton):  # type: ignore[misc]
    """A push button whose text and icon can be aligned."""

    buttonTextAlignment = stored("buttonTextAlignment", int, 0x84)
    iconAlignment = stored("iconAlignment", int, 0x81)
    elideMode = stored("elideMode", int, 3)


@standinWidget
class ctkMenuButton(Setters, qt.QPushButton):  # type: ignore[misc]
    """A push button with a menu behind an arrow."""

    showMenuButton = stored("showMenuButton", bool, True)


@standinWidget
class ctkCheckablePushButton(Setters, qt.QPushButton):  # type: ignore[misc]
    """A push button with a check box that may make it a toggle button."""

    checkBoxToggled = Signal(bool)
    buttonTextAlignment = stored("buttonTextAlignment", int, 0x84)
    checkBoxControlsButton = stored("checkBoxControlsButton", bool, True)
    checkBoxControlsButtonToggleState = stored("checkBoxControlsButtonToggleState", bool, True)
    checkBoxUserCheckable = stored("checkBoxUserCheckable", bool, True)
    _checkState = 0

    def _setCheckState(self, state: Any) -> None:
        changed = int(state) != self._checkState
        self._checkState = int(state)
        if self.checkBoxControlsButton and self.checkBoxControlsButtonToggleState:
            self.setCheckable(self._checkState != 0)
        if changed:
            self.checkBoxToggled.emit(self._checkState != 0)

    checkState = Property(int, lambda self: self._checkState, _setCheckState)


@standinWidget
class ctkPathLineEdit(Setters, qt.QWidget):  # type: ignore[misc]
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
class ctkDirectoryButton(Setters, qt.QWidget):  # type: ignore[misc]
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


@standinWidget
class ctkRangeWidget(Setters, qt.QWidget):  # type: ignore[misc]
    """Two numbers, the lower never above the upper, within a range."""

    valuesChanged = Signal(float, float)
    valuesAreChanging = Signal(float, float)
    minimumValueChanged = Signal(float)
    maximumValueChanged = Signal(float)
    rangeChanged = Signal(float, float)
    tracking = stored("tracking", bool, True)
    symmetricMoves = stored("symmetricMoves", bool, False)
    _low: Any = None
    _high: Any = None
    _updating = False

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        self._low, self._high = qt.QDoubleSpinBox(), qt.QDoubleSpinBox()
        rowLayout(self, self._low, self._high)
        for box in (self._low, self._high):
            box.setRange(0, 99)
        self._high.setValue(99)
        self._low.valueChanged.connect(lambda value: self._onChanged(self.minimumValueChanged, value))
        self._high.valueChanged.connect(lambda value: self._onChanged(self.maximumValueChanged, value))

    def _onChanged(self, signal: Any, value: float) -> None:
        if self._updating:
            return
        if self._low.value > self._high.value:
            other = self._high if signal is not self.maximumValueChanged else self._low
            other.setValue(value)
            return
        signal.emit(value)
        self.valuesChanged.emit(self._low.value, self._high.value)

    def setRange(self, minimum: float, maximum: float) -> None:
        for box in (self._low, self._high):
            box.setRange(minimum, maximum)
        self.rangeChanged.emit(minimum, maximum)

    def setValues(self, low: float, high: float) -> None:
        before = self._low.value, self._high.value
        self._updating = True
        self._low.setValue(min(low, high))
        self._high.setValue(max(low, high))
        self._updating = False
        after = self._low.value, self._high.value
        if after != before:
            self.valuesChanged.emit(*after)

    def _forBoth(self, name: str, value: Any) -> None:
        setattr(self._low, name, value)
        setattr(self._high, name, value)

    minimumValue = Property(float, lambda self: self._low.value, lambda self, v: self._low.setValue(v))
    maximumValue = Property(float, lambda self: self._high.value, lambda self, v: self._high.setValue(v))
    minimum = Property(float, lambda self: self._low.minimum, lambda self, v: self._forBoth("minimum", v))
    maximum = Property(float, lambda self: self._low.maximum, lambda self, v: self._forBoth("maximum", v))
    decimals = Property(int, lambda self: self._low.decimals, lambda self, v: self._forBoth("decimals", v))
    singleStep = Property(
        float, lambda self: self._low.singleStep, lambda self, v: self._forBoth("singleStep", v)
    )
    suffix = Property(str, lambda self: self._low.suffix, lambda self, v: self._forBoth("suffix", v))
    prefix = Property(str, lambda self: self._low.prefix, lambda self, v: self._forBoth("prefix", v))


@standinWidget
class ctkDoubleRangeSlider(ctkRangeWidget):
    """Two handles on one slider."""


@standinWidget
class ctkColorPickerButton(Setters, qt.QPushButton):  # type: ignore[misc]
    """A button that shows and asks for a colour."""

    colorChanged = Signal(qt.QColor)
    colorNameChanged = Signal(str)
    displayColorName = stored("displayColorName", bool, True)
    dialogOptions = stored("dialogOptions", int, 0)
    colorName = stored("colorName", str, "")
    _color: Any = None

    def setColor(self, color: Any) -> None:
        if self._color is None or color != self._color:
            self._color = qt.QColor(color)
            self.setText(self._color.name() if self.displayColorName else "")
            self.colorChanged.emit(self._color)

    color = Property(qt.QColor, lambda self: self._color or qt.QColor(), setColor)


@standinWidget
class ctkFittedTextBrowser(Setters, qt.QTextBrowser):  # type: ignore[misc]
    """A text browser as high as its text, which may fold."""

    collapsed = stored("collapsed", bool, True)
    collapsible = stored("collapsible", bool, False)
    collapsibleText = stored("collapsibleText", str, "")
    showMoreText = stored("showMoreText", str, "More...")
    showLessText = stored("showLessText", str, "Show less")


@standinWidget
class ctkExpandableWidget(Setters, qt.QFrame):  # type: ignore[misc]
    """A frame that the user can make higher."""

    orientations = stored("orientations", int, 3)
    sizeGripMargins = stored("sizeGripMargins", qt.QSize, qt.QSize())


@standinWidget
class ctkSearchBox(Setters, qt.QLineEdit):  # type: ignore[misc]
    """A line to type a search in."""

    showSearchIcon = stored("showSearchIcon", bool, True)
    alwaysShowClearIcon = stored("alwaysShowClearIcon", bool, False)
    defaultText = stored("defaultText", str, "")


@standinWidget
class ctkMessageBox(Setters, qt.QMessageBox):  # type: ignore[misc]
    """A message box that can remember its answer: "don't show this again"."""

    dontShowAgain = stored("dontShowAgain", bool, False)
    dontShowAgainVisible = stored("dontShowAgainVisible", bool, False)
    dontShowAgainSettingsKey = stored("dontShowAgainSettingsKey", str, "")


class ctkWidgetsUtils:
    """Helpers for pictures of widgets."""

    @staticmethod
    def grabWidget(widget: Any, _size: Any = None) -> Any:
        return widget.grab().toImage()
