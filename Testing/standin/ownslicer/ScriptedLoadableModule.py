"""The four base classes of a scripted module, after Slicer's contract for them."""

from __future__ import annotations

import importlib
import unittest
from pathlib import Path
from typing import Any

import ctk
import qt
import slicer

__all__ = [
    "ScriptedLoadableModule",
    "ScriptedLoadableModuleLogic",
    "ScriptedLoadableModuleTest",
    "ScriptedLoadableModuleWidget",
]


class ScriptedLoadableModule:
    """Describes the module: title, category, help. `parent` is the module object of the application."""

    def __init__(self, parent: Any) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__
        parent.title = parent.helpText = parent.acknowledgementText = ""
        parent.categories = parent.dependencies = parent.contributors = []
        self._setIcon()
        if not hasattr(slicer, "selfTests"):
            slicer.selfTests = {}
        slicer.selfTests[self.moduleName] = self.runTest

    def _setIcon(self) -> None:
        for suffix in (".svg", ".png"):
            icon = Path(self.resourcePath("Icons")) / (self.moduleName + suffix)
            if icon.is_file():
                self.parent.icon = qt.QIcon(str(icon))
                return

    def resourcePath(self, filename: str) -> str:
        """The absolute path of a file in the module's `Resources` folder."""
        return str(Path(self.parent.path).parent / "Resources" / filename)

    def getDefaultModuleDocumentationLink(self, docPage: str | None = None) -> str:
        """A sentence in HTML that links to the module's page in Slicer's documentation."""
        if docPage:
            url = slicer.app.documentationBaseUrl + docPage
        else:
            url = slicer.app.moduleDocumentationUrl(self.moduleName)
        return f'<p>For more information see the <a href="{url}">online documentation</a>.</p>'

    def runTest(self, msec: int = 100, **options: Any) -> None:
        """Run the module's `<name>Test` class.

        Raises:
            AssertionError: if the module has no such class, or the test fails.
        """
        module = importlib.import_module(type(self).__module__)
        testClass = getattr(module, f"{self.moduleName}Test", None)
        if testClass is None:
            raise AssertionError(f"{module.__name__} has no class {self.moduleName}Test")
        test = testClass()
        test.messageDelay = msec
        test.runTest(**options)


class ScriptedLoadableModuleWidget:
    """Builds the module's panel inside `parent`, the widget that the application provides."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Widget")
        toBool = slicer.util.toBool
        self.developerMode = slicer.util.settingsValue("Developer/DeveloperMode", False, converter=toBool)
        self.parent = parent if parent else self._makeParent()
        self.layout = self.parent.layout()
        if not parent:
            self.setup()
            self.parent.show()
        slicer.app.moduleManager().connect(
            "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
        )

    @staticmethod
    def _makeParent() -> Any:
        parent = slicer.qMRMLWidget()
        parent.setLayout(qt.QVBoxLayout())
        parent.setMRMLScene(slicer.mrmlScene)
        return parent

    def resourcePath(self, filename: str) -> str:
        """The absolute path of a file in the module's `Resources` folder."""
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Build the panel. A module's own `setup` calls this first."""
        if self.developerMode:
            self._addDeveloperSection()

    def cleanup(self) -> None:
        """Called before the module is unloaded or reloaded; for the module to override."""

    def _onModuleAboutToBeUnloaded(self, moduleName: str) -> None:
        if moduleName == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect(
                "moduleAboutToBeUnloaded(QString)", self._onModuleAboutToBeUnloaded
            )

    def _addDeveloperSection(self) -> None:
        self.reloadCollapsibleButton = ctk.ctkCollapsibleButton()
        self.reloadCollapsibleButton.text = "Reload && Test"
        self.layout.addWidget(self.reloadCollapsibleButton)
        self.reloadButton = qt.QPushButton("Reload")
        self.reloadButton.connect("clicked()", self.onReload)
        self.testButton = qt.QPushButton("Reload and Test")
        self.testButton.connect("clicked()", self.onReloadAndTest)
        row = qt.QHBoxLayout(self.reloadCollapsibleButton)
        row.addWidget(self.reloadButton)
        row.addWidget(self.testButton)

    def onReload(self) -> None:
        """Load the source anew and rebuild the panel."""
        slicer.util.reloadScriptedModule(self.moduleName)

    def onReloadAndTest(self, **options: Any) -> None:
        """Reload, then run the module's test."""
        with slicer.util.tryWithErrorDisplay("Reload and Test failed."):
            self.onReload()
            slicer.selfTests[self.moduleName](**options)


class ScriptedLoadableModuleLogic:
    """The module's work, without widgets. Its parameters live in a node of the scene."""

    def __init__(self, parent: Any = None) -> None:
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """The module's parameter node, made if the scene has none."""
        node = self._singletonNode() if self.isSingletonParameterNode else None
        if node is None and not self.isSingletonParameterNode:
            node = next(iter(self.getAllParameterNodes()), None)
        return node if node is not None else slicer.mrmlScene.AddNode(self.createParameterNode())

    def _singletonNode(self) -> Any:
        node = slicer.mrmlScene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is not None:
            node.SetAttribute("ModuleName", self.moduleName)  # closing the scene takes it away
        return node

    def getAllParameterNodes(self) -> list[Any]:
        """Every parameter node of this module in the scene."""
        nodes = slicer.util.getNodesByClass("vtkMRMLScriptedModuleNode")
        return [node for node in nodes if node.GetAttribute("ModuleName") == self.moduleName]

    def createParameterNode(self) -> Any:
        """A new parameter node, not yet in the scene."""
        node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
        node.UnRegister(None)
        if self.isSingletonParameterNode:
            node.SetSingletonTag(self.moduleName)
        node.SetAttribute("ModuleName", self.moduleName)
        node.SetName(slicer.mrmlScene.GenerateUniqueName(self.moduleName))
        return node


class ScriptedLoadableModuleTest(unittest.TestCase):
    """The module's self-test. `runTest` runs every method with "test" in its name, unless overridden."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.messageDelay = 100
        self.moduleTestNames = [
            name for name in dir(self) if "test" in name and callable(getattr(self, name))
        ]

    def runTest(self) -> None:
        self.setUpClass()
        for name in self.moduleTestNames:
            self.setUp()
            getattr(self, name)()
            self.tearDown()
        self.tearDownClass()

    def delayDisplay(self, message: str, requestedDelay: int | None = None, msec: int | None = None) -> None:
        """Log the message, show it for `messageDelay` milliseconds, and let the application work."""
        slicer.util.delayDisplay(message, self.messageDelay)
