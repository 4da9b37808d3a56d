"""Modules as the application keeps them: the module manager, C++ modules by their logic, scripted modules."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import qt
import slicer
from pythonqt.rules import cppStandin, standinWidget
from pythonqt.state import Setters, stored
from qt import Property, Signal

from .nodewidgets import qSlicerWidget


@cppStandin
class qSlicerAbstractCoreModule(Setters, qt.QObject):
    """What Slicer knows of a module: `slicer.modules.volumes`, for instance."""

    title = stored("title", str, "")
    path = stored("path", str, "")
    categories = stored("categories", "QStringList", ())
    dependencies = stored("dependencies", "QStringList", ())
    contributors = stored("contributors", "QStringList", ())
    associatedNodeTypes = stored("associatedNodeTypes", "QStringList", ())
    helpText = stored("helpText", str, "")
    acknowledgementText = stored("acknowledgementText", str, "")
    icon = stored("icon", qt.QIcon, qt.QIcon())
    index = stored("index", int, -1)
    hidden = stored("hidden", bool, False)
    widgetRepresentationCreationEnabled = stored("widgetRepresentationCreationEnabled", bool, True)
    isInstalled = stored("isInstalled", bool, False)
    isBuiltIn = stored("isBuiltIn", bool, False)
    extensions = stored("extensions", "QVariantMap", {})
    _logic: Any = None
    _widget: Any = None
    _makeWidget: Any = None

    def __init__(self, name: str, logic: Any = None, makeWidget: Callable[[], Any] | None = None) -> None:
        super().__init__()
        self.setObjectName(name)
        self.title = name
        self._logic, self._makeWidget = logic, makeWidget

    name = Property(str, lambda self: self.objectName)
    defaultDocumentationLink = Property(str, lambda self: slicer.app.moduleDocumentationUrl(self.objectName))

    def logic(self) -> Any:
        return self._logic

    def mrmlScene(self) -> Any:
        return slicer.mrmlScene

    def widgetRepresentation(self) -> Any:
        """The module's panel, made when first asked for."""
        if self._widget is None and self.widgetRepresentationCreationEnabled:
            self._widget = self.createNewWidgetRepresentation()
        return self._widget

    def createNewWidgetRepresentation(self) -> Any:
        return self._makeWidget() if self._makeWidget is not None else None


@cppStandin
class qSlicerLoadableModule(qSlicerAbstractCoreModule):
    """A module written in C++: a logic and a panel."""


@cppStandin
class qSlicerScriptedLoadableModule(qSlicerAbstractCoreModule):
    """A module written in Python; the `parent` of the module's first class."""

    def createNewWidgetRepresentation(self) -> Any:
        widget = qSlicerScriptedLoadableModuleWidget()
        widget.setPythonSource(self.path)
        widget.setMRMLScene(slicer.mrmlScene)
        widget.setup()
        return widget


@standinWidget
class qSlicerModuleWidget(qSlicerWidget):
    """A module's panel. It is entered while it is the one that the user sees."""

    _entered = False

    isEntered = Property(bool, lambda self: self._entered)

    def setup(self) -> None:
        """Build the panel."""

    def enter(self) -> None:
        self._entered = True

    def exit(self) -> None:
        self._entered = False


@standinWidget
class qSlicerScriptedLoadableModuleWidget(qSlicerModuleWidget):
    """The panel of a scripted module; the `parent` of the module's Widget class."""

    _self: Any = None
    _source = ""

    def __init__(self, parent: Any = None) -> None:
        super().__init__(parent)
        qt.QVBoxLayout(self)

    def setPythonSource(self, path: str) -> None:
        """Make the Widget object of the module in that file, which must be imported."""
        name = Path(path).stem
        self._source = path
        widgetClass = getattr(sys.modules[name], f"{name}Widget")
        self._self = widgetClass(self)
        setattr(slicer.modules, f"{name}Widget", self._self)

    def self(self) -> Any:
        return self._self

    def reload(self) -> None:
        self.setPythonSource(self._source)
        self.setup()

    def setup(self) -> None:
        self._call("setup")

    def enter(self) -> None:
        super().enter()
        self._call("enter")

    def exit(self) -> None:
        super().exit()
        self._call("exit")

    def _call(self, method: str) -> None:
        getattr(self._self, method, lambda: None)()


@cppStandin
class qSlicerModuleManager(qt.QObject):
    """The modules by name; also stands for the factory manager."""

    moduleLoaded = Signal(str)
    moduleAboutToBeUnloaded = Signal(str)
    moduleUnloaded = Signal(str)
    _modules: Any = None
    _current = ""

    def __init__(self) -> None:
        super().__init__()
        self._modules = {}

    def add(self, module: Any) -> None:
        """Make a module known: `slicer.modules.<name in lower case>`, `slicer.moduleNames.<name>`."""
        self._modules[module.name] = module
        setattr(slicer.modules, module.name.lower(), module)
        setattr(slicer.moduleNames, module.name, module.name)
        self.moduleLoaded.emit(module.name)

    def unload(self, name: str) -> None:
        """Tell the module that it goes, then forget it."""
        self.moduleAboutToBeUnloaded.emit(name)
        del self._modules[name]
        for attribute in (name.lower(), f"{name}Instance", f"{name}Widget"):
            vars(slicer.modules).pop(attribute, None)
        vars(slicer.moduleNames).pop(name, None)
        self._current = "" if self._current == name else self._current
        self.moduleUnloaded.emit(name)

    def module(self, name: str) -> Any:
        return self._modules.get(name)

    def modulesNames(self) -> tuple[str, ...]:
        return tuple(self._modules)

    def loadedModuleNames(self) -> tuple[str, ...]:
        return tuple(self._modules)

    def factoryManager(self) -> Any:
        return self

    def isLoaded(self, name: str) -> bool:
        return name in self._modules

    def currentModule(self) -> str:
        return self._current

    def enter(self, name: str) -> None:
        """Make a module the one that the user sees: leave the former, enter this one."""
        if name not in self._modules:
            raise RuntimeError(f"no module {name}")
        self.leaveCurrent()
        self._current = name
        widget = self._modules[name].widgetRepresentation()
        if widget is not None:
            widget.enter()

    def leaveCurrent(self) -> None:
        """Leave the module that the user sees; then there is none."""
        widget = self._modules[self._current].widgetRepresentation() if self._current else None
        self._current = ""
        if widget is not None and widget.isEntered:
            widget.exit()


def importFile(path: Path) -> ModuleType:
    """Import the file under its own name, its folder being on the path as in Slicer."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"cannot import {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


def loadScriptedModule(path: str | Path) -> Any:
    """Load a scripted module from its file, as Slicer does at startup, and complete the startup.

    Its panel is made when first asked for (`slicer.modules.<name>.widgetRepresentation()`).

    Returns:
        The module object, `slicer.modules.<name in lower case>`.

    Raises:
        RuntimeError: if a module that it depends on is missing.
    """
    path = Path(path).resolve()
    manager = slicer.app.moduleManager()
    known = manager.module(path.stem)
    if known is not None and known.path == str(path):
        return known
    source = importFile(path)
    module = qSlicerScriptedLoadableModule(path.stem)
    module.path = str(path)
    instance = getattr(source, path.stem)(module)
    missing = [each for each in module.dependencies if not manager.isLoaded(each)]
    if missing:
        raise RuntimeError(f"{path.stem} depends on {', '.join(missing)}")
    module.widgetRepresentationCreationEnabled = hasattr(source, f"{path.stem}Widget")
    setattr(slicer.modules, f"{path.stem}Instance", instance)
    manager.add(module)
    if hasattr(instance, "setup"):
        instance.setup()
    slicer.app.startupCompleted.emit()
    return module


def reloadScriptedModule(name: str) -> Any:
    """What the developer's Reload button does.

    Returns:
        The new Widget object.
    """
    slicer.util.reloadScriptedModule(name)
    return getattr(slicer.modules, f"{name}Widget")


def enterModule(name: str) -> Any:
    """Switch to a module without a main window.

    Returns:
        The module's Widget object if it is a scripted one, else its panel.
    """
    slicer.app.moduleManager().enter(name)
    return slicer.util.getModuleWidget(name)
