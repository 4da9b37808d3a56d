"""The Slicer test bench: a Slicer application for tests, on real MRML (`slicer-core`) and PySide6.

    app = standin.start()                           # slicer.app, slicer.mrmlScene, slicer.modules
    standin.loadScriptedModule("path/MyModule.py")  # slicer.modules.mymodule
    window = standin.SlicerWindow("MyModule")       # the panel and the views
    window.screenshot("picture.png")

Put this folder's parent on `sys.path` after `import slicer`, never before (see README.md).
"""

from pythonqt.dialogs import answers, openedUrls
from pythonqt.painting import closePainters, openPainters

from .application import qSlicerApplication, restore, start
from .dicom import addDicomFolder
from .errors import complaints, forget, slotErrors
from .modules import enterModule, loadScriptedModule, reloadScriptedModule
from .window import SlicerWindow

__all__ = [
    "SlicerWindow",
    "addDicomFolder",
    "answers",
    "closePainters",
    "complaints",
    "enterModule",
    "forget",
    "loadScriptedModule",
    "openPainters",
    "openedUrls",
    "qSlicerApplication",
    "reloadScriptedModule",
    "restore",
    "slotErrors",
    "start",
]
