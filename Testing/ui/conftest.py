"""The Slicer test bench for tests: one application, an empty scene for each test, and no swallowed errors.

Skipped without slicer-core or PySide6. See `Testing/standin/README.md`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).resolve().parents[1] / "standin"
REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def slicerApp() -> Any:
    """The application, `slicer.app`, in testing mode. `import standin`, `qt` and `ctk` work from here on."""
    pytest.importorskip("slicer", reason="needs slicer-core")
    pytest.importorskip("PySide6.QtUiTools", reason="needs PySide6 and its libraries", exc_type=ImportError)
    if str(BENCH) not in sys.path:
        sys.path.insert(0, str(BENCH))  # only now: before `import slicer` it would find the bench's `slicer`
    import standin

    return standin.start(testing=True)


@pytest.fixture
def scene(slicerApp: Any) -> Iterator[Any]:
    """The application's scene, empty before and after the test."""
    import slicer
    import standin

    standin.restore()
    slicer.mrmlScene.Clear(0)
    slicerApp.layoutManager().setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
    yield slicer.mrmlScene
    standin.restore()
    slicerApp.setTestingEnabled(True)
    window = slicer.util.mainWindow()
    if window is not None:
        window.dispose()
    slicerApp.moduleManager().leaveCurrent()
    slicer.mrmlScene.Clear(0)
    slicerApp.processEvents()


@pytest.fixture
def slicerWindow(scene: Any) -> Callable[..., Any]:
    """Makes the main window: `slicerWindow("MyModule")`. It is disposed of after the test."""
    import standin

    return standin.SlicerWindow


@pytest.fixture
def chestVolume(scene: Any) -> Any:
    """A box of soft tissue with two air-filled lungs and a dense spot in each, 2 x 2 x 3 mm voxels."""
    import numpy as np
    import slicer

    voxels = np.full((40, 60, 80), 40, np.int16)
    voxels[5:35, 15:45, 10:35] = voxels[5:35, 15:45, 45:70] = -850
    voxels[15:25, 25:35, 15:25] = voxels[15:25, 25:35, 55:65] = 0
    ijkToRas = np.diag([-2.0, -2.0, 3.0, 1.0])
    ijkToRas[:3, 3] = (80, 60, -60)
    volume = slicer.util.addVolumeFromArray(voxels, ijkToRas, "CT")
    volume.GetDisplayNode().AutoWindowLevelOff()
    volume.GetDisplayNode().SetWindowLevel(1400, -500)
    return volume


@pytest.fixture(autouse=True)
def noVtkErrors(capfd: pytest.CaptureFixture[str]) -> Iterator[None]:
    """VTK and Slicer log their errors and go on, Qt swallows what a slot raises: here all fail the test."""
    standin = sys.modules.get("standin")
    if standin is not None:
        standin.restore()  # another folder's tests may have put their own scene and modules in place
        standin.forget()
        standin.openedUrls.clear()
        standin.answers.clear()
    yield
    errors = capfd.readouterr().err
    assert "ERR|" not in errors, errors
    standin = sys.modules.get("standin")
    if standin is not None:
        painters = standin.openPainters()
        standin.closePainters()
        assert not standin.slotErrors, "\n".join(standin.slotErrors)
        assert not standin.complaints, "\n".join(standin.complaints)
        assert not painters, "painters without end():\n" + "\n".join(painters)
        assert not standin.answers.unused(), f"nothing asked for these answers: {standin.answers.unused()}"
