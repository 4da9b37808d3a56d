"""The module on the test bench: its panel, the phantom, and the files of one real run.

Segmenting really takes time, so most tests take the files that one run has left; those that need a run of
their own give it two small pieces of lung.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from Testing.ui.module import steps


@pytest.fixture
def module(scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module's file, imported by the bench as Slicer does.  Its models are not those of the next test."""
    if not os.environ.get("DIFFSEGLUNG_MODELS"):
        monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(tmp_path / "models"))
    return _load()


def _load() -> Any:
    import standin

    standin.loadScriptedModule(steps.MODULE)
    return sys.modules["DiffSegLung"]


@pytest.fixture
def panel(module: Any) -> Iterator[Any]:
    """The module's Widget, entered while the scene is empty. No run outlives the test."""
    import slicer
    import standin

    widget = standin.enterModule("DiffSegLung")
    yield widget
    slicer.modules.DiffSegLungWidget.logic.cancel()


@pytest.fixture
def phantom(module: Any) -> Any:
    """The sample phantom, as a user loads it."""
    import slicer

    return slicer.util.loadVolume(str(steps.PHANTOM))


@pytest.fixture
def pieces(phantom: Any) -> Any:
    """A lung mask that makes a run short."""
    return steps.addPieces(phantom)


@pytest.fixture(scope="session")
def runFiles(slicerApp: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of one real run of the command line, as the module calls it."""
    import slicer

    _load()
    from DiffSegLungSlicer.childProcess import childEnvironment, pythonExecutable
    from DiffSegLungSlicer.exchange import SegmentChoice
    from DiffSegLungSlicer.segmentation import Parameters, SegmentationJob, commandLine

    volume = slicer.util.loadVolume(str(steps.PHANTOM))
    lungs = SegmentChoice.of(steps.addPieces(volume))
    job = SegmentationJob(volume, None, lungs, None, Parameters(**steps.FAST))
    command = [pythonExecutable(), "-m", "DiffSegLungLib", *commandLine(job._request(0))]
    done = subprocess.run(
        command, env=childEnvironment(os.environ), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    slicer.mrmlScene.Clear(0)
    return Path(job._folder.rename(tmp_path_factory.mktemp("run") / "files") / "0000")


@pytest.fixture
def result(phantom: Any, runFiles: Path) -> Any:
    """The segmentation of the phantom's two pieces, as a run leaves it in the scene."""
    return steps.commitFiles(runFiles, phantom)


@pytest.fixture
def shown(panel: Any, result: Any) -> Any:
    """The panel with this result chosen."""
    steps.show(panel, result)
    return panel
