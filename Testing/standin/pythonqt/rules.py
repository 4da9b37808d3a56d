"""The rules by which PythonQt differs from PySide6, installed on PySide6's own classes.

PythonQt, as in Slicer:

- A Qt property is an attribute: `label.text`, `button.enabled = False`; `label.text()` is a TypeError.
- A C++ object takes no attribute that its class does not have.
- `object.connect("clicked(bool)", function)` and `object.disconnect("clicked(bool)", function)`.
- Enumerators are integers.
- `name`, `className()`, `delete()`, `exec_()`, and class names as text in `findChildren`.
"""

from __future__ import annotations

import ctypes
import enum
import importlib
import inspect
import sys
import types
from collections.abc import Callable, Iterator
from typing import Any

QtCore: Any = importlib.import_module("PySide6.QtCore")
QtGui: Any = importlib.import_module("PySide6.QtGui")
QtWidgets: Any = importlib.import_module("PySide6.QtWidgets")
QtUiTools: Any = importlib.import_module("PySide6.QtUiTools")
QtTest: Any = importlib.import_module("PySide6.QtTest")
shiboken: Any = importlib.import_module("shiboken6")
QT_MODULES = (QtCore, QtGui, QtWidgets, QtUiTools, QtTest)

# C++ calls these as virtual functions; a descriptor of that name would be taken for an override.
VIRTUAL_PROPERTIES = {"sizeHint", "minimumSizeHint", "duration"}

customWidgets: dict[str, type] = {}
"""The stand-ins for widget classes of CTK and Slicer, by class name, as `.ui` files name them."""

_rawGetAttribute = QtCore.QObject.__getattribute__
_rawSetAttribute = shiboken.Shiboken.Object.__setattr__


def cppStandin(standinClass: type) -> type:
    """Class decorator: the class stands in for a C++ class, so its objects take no new attributes.
    Its own state must therefore be declared in the class body."""
    standinClass._isCppStandin = True  # type: ignore[attr-defined]
    return standinClass


def standinWidget(widgetClass: type) -> type:
    """Class decorator: like `cppStandin`, and `.ui` files know the class by its name."""
    customWidgets[widgetClass.__name__] = widgetClass
    return cppStandin(widgetClass)


def isCppClass(objectClass: type) -> bool:
    """Whether Slicer has the class in C++: Qt's own, or a stand-in. A Python subclass of one is not."""
    return objectClass.__module__.startswith("PySide6") or "_isCppStandin" in objectClass.__dict__


# ---------------------------------------------------------------------------------- properties


class PropertyAsAttribute:
    """A Qt property as a Python attribute. On the class it is the method, as `QTimer.singleShot` needs."""

    def __init__(self, name: str, method: Any) -> None:
        self.name = name
        self.method = method

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            return self.method if self.method is not None else self
        value = instance.property(self.name)
        return tuple(value) if isinstance(value, list) else value  # PythonQt gives tuples for lists

    def __set__(self, instance: Any, value: Any) -> None:
        if isinstance(value, tuple):
            value = list(value)
        if not QtCore.QObject.setProperty(instance, self.name, value):
            raise AttributeError(
                f"property {self.name!r} of {type(instance).__name__} does not take {value!r}"
            )


def qtMembers(scope: Any) -> list[Any]:
    """What a module or class of Qt holds. PySide6 makes members when first asked for, hence no vars()."""
    return [getattr(scope, name, None) for name in dir(scope) if not name.startswith("_")]


def qtObjectClasses() -> Iterator[type]:
    """Every class of Qt that is a QObject, once."""
    seen: set[type] = set()
    for module in QT_MODULES:
        for candidate in qtMembers(module):
            if inspect.isclass(candidate) and issubclass(candidate, QtCore.QObject) and candidate not in seen:
                seen.add(candidate)
                yield candidate


def exposeProperties(qtClass: Any) -> None:
    """Give the class an attribute for each of the properties that it declares itself."""
    meta = qtClass.staticMetaObject
    for index in range(meta.propertyOffset(), meta.propertyCount()):
        name = meta.property(index).name()
        if name in VIRTUAL_PROPERTIES:
            continue
        if not isinstance(inspect.getattr_static(qtClass, name, None), PropertyAsAttribute):
            setattr(qtClass, name, PropertyAsAttribute(name, getattr(qtClass, name, None)))


# --------------------------------------------------------------------- no new attributes


class Loading:
    """True while a `.ui` file loads: PySide6 then writes an attribute per named child, PythonQt does not."""

    active = False


def hasDynamicProperty(instance: Any, name: str) -> bool:
    return name in [bytes(each).decode() for each in instance.dynamicPropertyNames()]


def setAttribute(self: Any, name: str, value: Any) -> None:
    """`object.name = value`, for all of Qt's classes: a C++ object refuses what its class does not have."""
    objectClass = type(self)
    declared = any(name in vars(base) for base in objectClass.__mro__)
    if declared and isinstance(inspect.getattr_static(objectClass, name), QtCore.Property):
        PropertyAsAttribute(name, None).__set__(self, value)
    elif declared or not isCppClass(objectClass) or name.startswith("__"):  # PySide6 keeps __METAOBJECT__
        _rawSetAttribute(self, name, value)
    elif hasDynamicProperty(self, name):
        self.setProperty(name, value)
    elif not (Loading.active and isinstance(value, QtCore.QObject)):
        raise AttributeError(
            f"'{name}' does not exist on {objectClass.__name__} "
            "and creating new attributes on C++ objects is not allowed"
        )


# --------------------------------------------------------------------- connect by signature

_connections: dict[tuple[int, str], list[tuple[Any, Any]]] = {}


def parameterCount(signature: str) -> int | None:
    """The number of parameters in `clicked(bool)`; None without brackets."""
    if "(" not in signature:
        return None
    parameters = signature[signature.index("(") + 1 : signature.rindex(")")].strip()
    return parameters.count(",") + 1 if parameters else 0


def signalMethods(sender: Any, name: str) -> list[Any]:
    meta = sender.metaObject()
    methods = [meta.method(index) for index in range(meta.methodCount())]
    return [
        method
        for method in methods
        if method.methodType() == QtCore.QMetaMethod.Signal and bytes(method.name()).decode() == name
    ]


def findSignal(sender: Any, signature: str) -> Any:
    """The bound signal of that signature.

    Raises:
        ValueError: if the class has no such signal. (PythonQt only returns False, and nothing ever happens.)
    """
    name = signature.split("(")[0].strip()
    methods = signalMethods(sender, name)
    count = parameterCount(signature)
    normalized = bytes(QtCore.QMetaObject.normalizedSignature(signature)).decode()
    exact = [each for each in methods if bytes(each.methodSignature()).decode() == normalized]
    # Stand-ins' signals carry Python objects where C++ has pointers: only their number can be compared.
    ofObjects = [each for each in methods if b"PyObject" in bytes(each.methodSignature())]
    alike = [each for each in ofObjects if count is None or each.parameterCount() >= count]
    if not (exact or alike or (methods and count is None)):
        raise ValueError(f"{sender.metaObject().className()} has no signal {signature}")
    signal = getattr(sender, name)
    chosen = (exact or alike or methods)[0]
    parameters = b",".join(bytes(each) for each in chosen.parameterTypes()).decode()
    return signal if parameters == "" or "PyObject" in parameters else overload(signal, parameters)


def overload(signal: Any, parameters: str) -> Any:
    """A signal's overload with those parameters (C++ type names), or the signal if it has no other."""
    try:
        return signal[parameters]
    except (KeyError, IndexError, TypeError):
        return signal


def acceptedArguments(slot: Callable[..., Any]) -> int | None:
    """How many positional arguments the slot takes; None for any number."""
    try:
        parameters = inspect.signature(slot).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(each.kind == each.VAR_POSITIONAL for each in parameters):
        return None
    return sum(each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in parameters)


def connectBySignature(sender: Any, signature: str, slot: Callable[..., Any]) -> bool:
    """Call `slot` with as many of the signal's arguments as the signature has and the slot takes."""
    signal = findSignal(sender, signature)
    counts = [n for n in (parameterCount(signature), acceptedArguments(slot)) if n is not None]
    limit = min(counts) if counts else None

    accepted = guarded(slot)

    def call(*arguments: Any) -> None:
        accepted(*arguments[:limit])

    signal.connect(call)
    key = connectionKey(sender, signature)
    if key not in _connections:
        sender.destroyed.connect(lambda: _connections.pop(key, None))
    _connections.setdefault(key, []).append((slot, call))
    return True


def disconnectBySignature(sender: Any, signature: str, slot: Callable[..., Any] | None = None) -> bool:
    """Undo `connectBySignature`; without a slot, for all slots. False if there was nothing to undo."""
    connected = _connections.get(connectionKey(sender, signature), [])
    chosen = [pair for pair in connected if slot is None or pair[0] == slot]
    for pair in chosen[: None if slot is None else 1]:
        findSignal(sender, signature).disconnect(pair[1])
        connected.remove(pair)
    return bool(chosen)


def connectionKey(sender: Any, signature: str) -> tuple[int, str]:
    # Not id(): Python's wrapper of a C++ object may be collected and made anew.
    return int(shiboken.getCppPointer(sender)[0]), signature.split("(")[0].strip()


def isSignature(arguments: tuple[Any, ...]) -> bool:
    """PySide6's own connect() passes "2clicked(bool)", with a digit in front."""
    return bool(arguments) and isinstance(arguments[0], str) and arguments[0][:1] not in "012"


def connectMethod(self: Any, *arguments: Any) -> Any:
    if isSignature(arguments) and len(arguments) == 2 and callable(arguments[1]):
        return connectBySignature(self, arguments[0], arguments[1])
    return _rawGetAttribute(self, "connect")(*arguments)


def disconnectMethod(self: Any, *arguments: Any) -> Any:
    if isSignature(arguments):
        return disconnectBySignature(self, *arguments[:2])
    return _rawGetAttribute(self, "disconnect")(*arguments)


def getAttribute(self: Any, name: str) -> Any:
    # PySide6 treats these two names specially in C, so methods set on the class would be passed over.
    if name == "connect":
        return types.MethodType(connectMethod, self)
    if name == "disconnect":
        return types.MethodType(disconnectMethod, self)
    return _rawGetAttribute(self, name)


# --------------------------------------------------------------------- enumerators, small methods


def qtEnumerations() -> Iterator[Any]:
    for module in QT_MODULES:
        members = qtMembers(module)
        for scope in (members, *(qtMembers(each) for each in members if inspect.isclass(each))):
            for candidate in scope:
                if inspect.isclass(candidate) and issubclass(candidate, enum.Enum):
                    yield candidate


def isEqualAsInteger(self: Any, other: Any) -> bool:
    if isinstance(other, enum.Enum):
        return self is other or (type(self) is type(other) and self.value == other.value)
    return bool(self.value == other)


def makeInteger(enumeration: Any) -> None:
    """In PythonQt an enumerator compares with, and converts to, an integer."""
    if not issubclass(enumeration, int):
        enumeration.__int__ = enumeration.__index__ = lambda self: self.value
        enumeration.__eq__ = isEqualAsInteger
        enumeration.__hash__ = lambda self: hash(self.value)


def matchesClass(candidate: Any, wanted: Any) -> bool:
    if isinstance(wanted, str):
        return any(base.__name__ == wanted for base in type(candidate).__mro__)
    return isinstance(candidate, wanted)


def findChildrenOf(self: Any, wanted: Any = None, name: str = "") -> tuple[Any, ...]:
    """All descendants of a class (a class or its name) and, if given, of that object name."""
    found: list[Any] = []
    for child in self.children():
        if (wanted is None or matchesClass(child, wanted)) and (not name or child.objectName == name):
            found.append(child)
        found.extend(findChildrenOf(child, wanted, name))
    return tuple(found)


def findChildOf(self: Any, wanted: Any = None, name: str = "") -> Any:
    return next(iter(findChildrenOf(self, wanted, name)), None)


def addSmallMethods() -> None:
    base = QtCore.QObject
    base.name = property(
        lambda self: self.property("objectName"), lambda self, name: self.setObjectName(name)
    )
    base.className = lambda self: self.metaObject().className()
    base.delete = lambda self: shiboken.delete(self)
    base.findChildren = findChildrenOf
    base.findChild = findChildOf
    for runnable in (QtWidgets.QDialog, QtWidgets.QMenu, QtWidgets.QApplication, QtCore.QEventLoop):
        runnable.exec_ = runnable.exec


def guarded(slot: Any) -> Any:
    """The slot, with its exceptions given to `sys.excepthook`: who runs the event loop must not get them."""
    if not callable(slot):
        return slot

    def call(*arguments: Any) -> None:
        try:
            slot(*arguments)
        except Exception:
            sys.excepthook(*sys.exc_info())

    return call


def guardSingleShots() -> None:
    singleShot = QtCore.QTimer.singleShot
    method = singleShot.method if isinstance(singleShot, PropertyAsAttribute) else singleShot

    def guardedSingleShot(milliseconds: int, *arguments: Any) -> None:
        method(milliseconds, *arguments[:-1], guarded(arguments[-1]))

    QtCore.QTimer.singleShot = PropertyAsAttribute("singleShot", guardedSingleShot)


def keepConstantsAlive() -> None:
    """Before Python 3.12, PySide6 gives away one reference too many to None, True or False in many calls; in
    the end Python deletes them and aborts. Give them as many references as 3.12 does: enough for good."""
    if sys.version_info < (3, 12):
        for constant in (None, True, False):
            ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40


def install() -> None:
    """Put the rules on PySide6's classes, for the rest of the process."""
    addSmallMethods()
    qtClasses: list[Any] = list(qtObjectClasses())
    for qtClass in qtClasses:
        exposeProperties(qtClass)
        qtClass.__setattr__ = setAttribute
    for enumeration in qtEnumerations():
        makeInteger(enumeration)
    guardSingleShots()
    keepConstantsAlive()
    QtCore.QObject.__getattribute__ = getAttribute
