"""Screenshots of a real fine-tuning in the panel, driven by clicks: checked, paused, killed, finished, used.

    python Testing/ui/take_training_screenshots.py FOLDER CT CT [CT ...] [--steps N] [--store FOLDER]

The CT are any that Slicer reads, of different patients.  Needs slicer-core, PySide6 and torch; works with and
without a display.  What happens is told with its time and memory.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 3600.0
STARTED = time.monotonic()


def tell(text: str) -> None:
    print(f"{time.monotonic() - STARTED:7.0f} s  {text}", flush=True)


def wait(app: Any, until: Callable[[], bool]) -> None:
    """Lets the window live until something holds."""
    ends = time.monotonic() + LONGEST_SECONDS
    while not until():
        if time.monotonic() > ends:
            raise TimeoutError("the panel did not get there in time")
        app.processEvents()
        time.sleep(0.05)


def click(widget: Any) -> None:
    import qt

    qt.QTest.mouseClick(widget, qt.Qt.LeftButton)


class Story:
    """The steps of the tutorial.

    Args:
        app: the application.
        panel: the module's Widget.
        window: the main window.
        folder: takes the pictures.
    """

    def __init__(self, app: Any, panel: Any, window: Any, folder: Path) -> None:
        self.app, self.panel, self.window, self.folder = app, panel, window, folder
        self.ui, self.section = panel.ui, panel.trainingSection

    def shoot(self, name: str) -> None:
        self.app.processEvents()
        self.window.refresh()
        self.window.screenshot(self.folder / f"finetune-{name}.png")
        tell(f"finetune-{name}.png; {self.ui.trainingStatusLabel.text}")

    def choose(self, steps: int) -> None:
        """All volumes of the scene, a name, and a few steps."""
        import qt
        import slicer

        from DiffSegLungSlicer import display

        self.ui.inputsCollapsibleButton.collapsed = True
        self.ui.resultsCollapsibleButton.collapsed = True
        self.ui.trainingCollapsibleButton.collapsed = False
        for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
            display.useLungWindow(node)
            self.ui.trainingVolumesSelector.setCheckState(node, qt.Qt.Checked)
        self.ui.trainingNameEdit.text = "our-scanner"
        self.ui.trainingStepsSpinBox.value = steps
        self.ui.trainingAdvancedGroupBox.collapsed = False

    def check(self) -> None:
        click(self.ui.trainingCheckButton)
        wait(self.app, lambda: self.section._preflight is None)
        self.shoot("check")
        self.ui.trainingAdvancedGroupBox.collapsed = True

    def start(self) -> Any:
        """Starts or resumes; returns the job once a step more has been made."""
        from DiffSegLungLib.training.run_files import read_log

        click(self.ui.trainingStartButton)
        job = self.section._job
        if job is None:
            raise RuntimeError(self.ui.trainingErrorLabel.text)
        before = len(read_log(job.folder))
        wait(self.app, lambda: self.section._job is None or len(read_log(job.folder)) > before + 1)
        return job

    def pauseAndKill(self) -> None:
        """Paused and resumed; then ended as by a crash, and resumed."""
        import psutil

        self.start()
        click(self.ui.trainingStartButton)
        wait(self.app, lambda: self.section._job is None)
        self.shoot("paused")
        job = self.start()
        for process in [*psutil.Process(job.pid).children(recursive=True), psutil.Process(job.pid)]:
            process.kill()
        wait(self.app, lambda: self.section._job is None)
        tell(f"killed: {self.ui.trainingErrorLabel.text}")
        self.start()

    def finish(self) -> None:
        """The curves while it learns, and the comparison."""
        click(self.ui.trainingLossesButton)
        wait(self.app, lambda: self.section._job is None or self.section._job._stage != "train")
        self.shoot("running")
        wait(self.app, lambda: self.section._job is None)
        if self.ui.trainingErrorLabel.visible:
            raise RuntimeError(self.ui.trainingErrorLabel.text)
        self.shoot("finished")
        for line in self.section.logic.comparison("our-scanner")["verdict"]:
            tell(line)
        lines = [line for line in self.ui.trainingLogText.toPlainText().splitlines() if line.endswith(" MB")]
        peak = max((float(line.split()[-2]) for line in lines), default=0.0)
        tell(f"peak memory of the child {peak:.0f} MB")

    def use(self) -> None:
        """The new model segments the first CT."""
        self.ui.trainingCollapsibleButton.collapsed = True
        self.ui.inputsCollapsibleButton.collapsed = False
        self.ui.optionsGroupBox.collapsed = False
        self.ui.modelSelector.setCurrentIndex(self.ui.modelSelector.findData("our-scanner"))
        self.ui.qualitySelector.setCurrentIndex(0)
        click(self.ui.applyButton)
        wait(self.app, lambda: self.panel._run is None)
        if self.ui.errorLabel.visible:
            raise RuntimeError(self.ui.errorLabel.text)
        self.ui.resultsCollapsibleButton.collapsed = False
        self.shoot("used")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("ct", type=Path, nargs="+")
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--store", type=Path, help="keeps the new model in this folder")
    arguments = parser.parse_args()
    import slicer

    sys.path.insert(0, str(REPOSITORY / "Testing" / "standin"))
    import standin

    arguments.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["DIFFSEGLUNG_MODELS"] = str(arguments.store.resolve() if arguments.store else temporary)
        app = standin.start(testing=True)
        standin.loadScriptedModule(REPOSITORY / "DiffSegLung" / "DiffSegLung.py")
        for ct in arguments.ct:
            slicer.util.loadVolume(str(ct.resolve()))
        with standin.SlicerWindow("DiffSegLung") as window:
            story = Story(app, slicer.modules.DiffSegLungWidget, window, arguments.folder.resolve())
            story.choose(arguments.steps)
            story.check()
            story.pauseAndKill()
            story.finish()
            story.use()
    for error in standin.slotErrors:
        print(error, file=sys.stderr)
    return 1 if standin.slotErrors else 0


if __name__ == "__main__":
    sys.exit(main())
