"""The application object, `slicer.app`, over a real MRML scene and the real logics of Slicer's modules."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import tempfile
import types
from pathlib import Path
from typing import Any

import qt
import slicer
import vtk
from pythonqt.rules import cppStandin
from qt import Property, Signal

from . import errors, launcher
from .dicom import ctkDICOMDatabase
from .fileio import qSlicerCoreIOManager
from .hierarchy import HierarchyKeeper
from .modules import loadScriptedModule, qSlicerLoadableModule, qSlicerModuleManager

BENCH = Path(__file__).resolve().parents[1]
DOCUMENTATION = "https://slicer.readthedocs.io/en/latest/"
LOGICS = {
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Plots": "vtkSlicerPlotsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "Units": "vtkSlicerUnitsLogic",
}


def slicerVersion() -> tuple[int, int, int]:
    """The version of Slicer that slicer-core was built from: major, minor, patch (or revision)."""
    parts = importlib.metadata.version("slicer-core").split(".")
    return int(parts[0]), int(parts[1]), int(parts[2])


@cppStandin
class qSlicerApplication(qt.QApplication):
    """The running Slicer, without a main window until one is made."""

    startupCompleted = Signal()
    _testing = True
    _folder: Any = None
    _startupEnvironment: Any = None
    _scene: Any = None
    _logic: Any = None
    _remoteIO: Any = None
    _dataIO: Any = None
    _moduleManager: Any = None
    _ioManager: Any = None
    _layoutManager: Any = None
    _hierarchy: Any = None
    _dicomDatabase: Any = None
    _modules: Any = None
    _moduleNames: Any = None
    _commandOptions: Any = None
    _mainWindow: Any = None

    def __init__(self, testing: bool = True) -> None:
        super().__init__(["Slicer"])
        self._testing = testing
        self._folder = tempfile.TemporaryDirectory(prefix="slicer-bench-")
        self._startupEnvironment = qt.QProcessEnvironment.systemEnvironment()
        launcher.install(Path(self.temporaryPath) / "bin")
        self._useOwnSettings()
        self._makeScene()
        self._moduleManager = qSlicerModuleManager()
        self._ioManager = qSlicerCoreIOManager()
        self._dicomDatabase = ctkDICOMDatabase()
        self._modules = types.ModuleType("slicer.modules")
        self._moduleNames = types.SimpleNamespace()
        self._commandOptions = types.SimpleNamespace(runPythonAndExit=False)

    def _useOwnSettings(self) -> None:
        self.setOrganizationName("NA-MIC")
        self.setOrganizationDomain("www.na-mic.org")
        self.setApplicationName("Slicer")
        major, minor, _patch = slicerVersion()
        self.setApplicationVersion(f"{major}.{minor}.0")
        qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, self.temporaryPath)
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)

    def _makeScene(self) -> None:
        self._scene, self._logic = slicer.vtkMRMLScene(), slicer.vtkSlicerApplicationLogic()
        scene, logic = self._scene, self._logic
        logic.SetTemporaryPath(self.temporaryPath)
        logic.SetMRMLScene(scene)
        logic.GetColorLogic().SetMRMLScene(scene)
        logic.GetColorLogic().AddDefaultColorNodes()
        logic.SetSliceLogics(vtk.vtkCollection())
        logic.SetViewLogics(vtk.vtkCollection())
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        scene.AddNode(crosshair)
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
        self._connectDataIO(scene, logic)

    def _connectDataIO(self, scene: Any, logic: Any) -> None:
        """The cache folder and data transfer, without which a scene bundle cannot be read."""
        self._remoteIO, self._dataIO = slicer.vtkMRMLRemoteIOLogic(), slicer.vtkDataIOManagerLogic()
        for each in (self._remoteIO, self._dataIO):
            each.SetMRMLScene(scene)
            each.SetMRMLApplicationLogic(logic)
        cache = Path(self.temporaryPath) / "RemoteIO"
        cache.mkdir(exist_ok=True)
        self._remoteIO.GetCacheManager().SetRemoteCacheDirectory(str(cache))
        self._dataIO.SetAndObserveDataIOManager(self._remoteIO.GetDataIOManager())
        self._remoteIO.AddDataIOToScene()

    def loadModules(self) -> None:
        """Give every C++ module its logic, then load the bench's own scripted modules."""
        from .layout import qMRMLLayoutManager
        from .panels import PANELS

        self._addLoadableModule("Colors", self._logic.GetColorLogic())
        for name, className in LOGICS.items():
            self._addLoadableModule(name, getattr(slicer, className)(), PANELS.get(name))
        self._moduleManager.add(qSlicerLoadableModule("Data", None, PANELS["Data"]))
        self._hierarchy = HierarchyKeeper(self._scene)
        self._layoutManager = qMRMLLayoutManager()
        for path in sorted((BENCH / "modules").glob("*.py")):
            loadScriptedModule(path)

    def _addLoadableModule(self, name: str, logic: Any, makePanel: Any = None) -> None:
        self._logic.SetModuleLogic(name, logic)
        logic.SetMRMLApplicationLogic(self._logic)
        if name != "Terminologies":  # with a scene it would look for files that only the application has
            logic.SetMRMLScene(self._scene)
        self._moduleManager.add(qSlicerLoadableModule(name, logic, makePanel))

    # ---- the parts

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def moduleLogic(self, name: str) -> Any:
        return self._logic.GetModuleLogic(name)

    def layoutManager(self) -> Any:
        return self._layoutManager

    def moduleManager(self) -> Any:
        return self._moduleManager

    def coreIOManager(self) -> Any:
        return self._ioManager

    def ioManager(self) -> Any:
        return self._ioManager

    def dicomDatabase(self) -> Any:
        return self._dicomDatabase

    def commandOptions(self) -> Any:
        return self._commandOptions

    def testingEnabled(self) -> bool:
        return bool(self._testing)

    def setTestingEnabled(self, testing: bool) -> None:
        """The bench's own: tests of what the user sees switch the testing mode off for a while."""
        self._testing = testing

    def holdMainWindow(self, window: Any) -> None:
        """The bench's own: Python would delete a window that nobody holds."""
        self._mainWindow = window

    # ---- settings, environment

    def settings(self) -> Any:
        return qt.QSettings()

    def userSettings(self) -> Any:
        return qt.QSettings()

    def revisionUserSettings(self) -> Any:
        return qt.QSettings()

    def startupEnvironment(self) -> Any:
        """The environment before Slicer's launcher changed it: without PythonSlicer on the path."""
        return self._startupEnvironment

    def environment(self) -> Any:
        return qt.QProcessEnvironment.systemEnvironment()

    temporaryPath = Property(str, lambda self: self._folder.name)
    slicerHome = Property(str, lambda self: self._folder.name)
    cachePath = Property(str, lambda self: self._remoteIO.GetCacheManager().GetRemoteCacheDirectory())
    slicerUserSettingsFilePath = Property(str, lambda self: qt.QSettings().fileName())
    majorVersion = Property(int, lambda self: slicerVersion()[0])
    minorVersion = Property(int, lambda self: slicerVersion()[1])
    revision = Property(str, lambda self: str(slicerVersion()[2]))
    repositoryRevision = Property(str, lambda self: str(slicerVersion()[2]))
    os = Property(str, lambda self: {"win32": "win", "darwin": "macosx"}.get(sys.platform, "linux"))
    arch = Property(str, lambda self: "amd64")
    platform = Property(str, lambda self: f"{self.os}-{self.arch}")
    documentationBaseUrl = Property(str, lambda self: DOCUMENTATION)
    isInstalled = Property(bool, lambda self: True)

    def moduleDocumentationUrl(self, name: str) -> str:
        return f"{DOCUMENTATION}user_guide/modules/{name.lower()}.html"

    # ---- rendering, the end

    def pauseRender(self) -> None:
        self._layoutManager.pauseRender()

    def resumeRender(self) -> None:
        self._layoutManager.resumeRender()

    def setRenderPaused(self, paused: bool) -> None:
        self._layoutManager.setRenderPaused(paused)

    def restart(self) -> None:
        raise RuntimeError("the module asks for a restart of Slicer")

    def openSettingsDialog(self, _page: str = "") -> None:
        raise RuntimeError("the bench has no settings dialog")


def extendSlicerPackage() -> None:
    """Make `slicer.ScriptedLoadableModule` and its like importable: Slicer's own, from the source tree that
    SLICER_SOURCE_DIR names, or the bench's small versions."""
    source = os.environ.get("SLICER_SOURCE_DIR", "")
    folder = Path(source) / "Base/Python/slicer" if source else BENCH / "ownslicer"
    if not (folder / "ScriptedLoadableModule.py").is_file():
        raise FileNotFoundError(f"SLICER_SOURCE_DIR is no Slicer source tree: {source}")
    if str(folder) not in slicer.__path__:
        slicer.__path__.append(str(folder))


def publishWidgets() -> None:
    """Put the stand-ins for Slicer's C++ classes into the package `slicer`."""
    names = (
        "nodewidgets",
        "hierarchywidgets",
        "segmentwidgets",
        "segmenteditor",
        "datawidgets",
        "modules",
        "fileio",
        "layout",
        "views",
        "window",
    )
    for name in names:
        for className, value in vars(importlib.import_module(f"standin.{name}")).items():
            if className.startswith(("qMRML", "qSlicer")):
                setattr(slicer, className, value)
    slicer.qSlicerApplication = qSlicerApplication


def publishCoreLibraries() -> None:
    """Slicer's own Python files import MRML by the names of the application's extension modules."""
    for name in ("MRMLCore", "MRMLLogic", "MRMLDisplayableManager"):
        library = importlib.import_module(f"slicer_core.{name}")
        sys.modules.setdefault(f"{name}Python", library)


def restore() -> None:
    """Point `slicer.app`, `slicer.mrmlScene` and `slicer.modules` to the bench (again)."""
    app = qt.QApplication.instance()
    slicer.app, slicer.mrmlScene = app, app.mrmlScene()
    slicer.modules = sys.modules["slicer.modules"] = app._modules
    slicer.moduleNames = app._moduleNames
    slicer.dicomDatabase = app.dicomDatabase()


def start(testing: bool = True) -> qSlicerApplication:
    """Start the application, once per process; a second call returns the same one.

    Args:
        testing: Slicer's testing mode, in which message boxes are only logged.

    Raises:
        RuntimeError: if another QApplication runs already.
    """
    running = qt.QApplication.instance()
    if running is not None and not isinstance(running, qSlicerApplication):
        raise RuntimeError("another QApplication runs in this process")
    if running is not None:
        running.setTestingEnabled(testing)
        restore()
        return running
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    app = qSlicerApplication(testing)
    restore()
    publishCoreLibraries()
    extendSlicerPackage()
    publishWidgets()
    errors.install()
    app.loadModules()
    return app
