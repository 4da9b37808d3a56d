"""Sliders, spin boxes and ranges."""

from __future__ import annotations

import math
from typing import Any

import qt
from pythonqt.rules import standinWidget
from pythonqt.state import Setters, forwarded, stored
from qt import Property, Signal

from .rows import rowLayout

SLIDER_STEPS = 10000


@standinWidget
class ctkDoubleSlider(Setters, qt.QWidget):
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
class ctkSliderWidget(Setters, qt.QWidget):
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
class ctkDoubleSpinBox(Setters, qt.QDoubleSpinBox):
    """A spin box over floating-point numbers."""

    decimalsOption = stored("decimalsOption", int, 0)
    sizeHintPolicy = stored("sizeHintPolicy", int, 0)
    invertedControls = stored("invertedControls", bool, False)


@standinWidget
class ctkRangeWidget(Setters, qt.QWidget):
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
