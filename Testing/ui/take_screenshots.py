"""Screenshots of the running panel: real MRML, a real segmentation, driven by clicks.

    python Testing/ui/take_screenshots.py CT FOLDER

The CT is any that Slicer reads.  Needs slicer-core and PySide6; works with and without a display.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LONGEST_SECONDS = 1200.0


def wait(app: Any, until: Callable[[], bool]) -> None:
    """Lets the window live until something holds."""
    ends = time.monotonic() + LONGEST_SECONDS
    while not until():
        if time.monotonic() > ends:
            raise TimeoutError("the panel did not get there in time")
        app.processEvents()
        time.sleep(0.05)


def segment_by_click(app: Any, panel: Any, shoot: Callable[[str], None]) -> None:
    """Starts by a click, cancels midway, starts again, and waits for the result."""
    import qt

    button = panel.ui.applyButton
    qt.QTest.mouseClick(button, qt.Qt.LeftButton)
    wait(app, lambda: panel.ui.progressBar.value > 300)
    shoot("running")
    qt.QTest.mouseClick(button, qt.Qt.LeftButton)
    wait(app, lambda: not panel.logic.isRunning())
    qt.QTest.mouseClick(button, qt.Qt.LeftButton)
    wait(app, lambda: not panel.logic.isRunning() and not panel.ui.progressWidget.visible)
    if panel.ui.errorLabel.visible:
        raise RuntimeError(panel.ui.errorLabel.text)


def show_everything(app: Any, panel: Any, shoot: Callable[[str], None]) -> None:
    """One picture of the result, one of its largest lesion in 3D, one of uncertainty and histogram."""
    import qt

    ui = panel.ui
    ui.inputsCollapsibleButton.collapsed = False
    shoot("result")
    qt.QTest.mouseClick(ui.show3DButton, qt.Qt.LeftButton)
    ui.inputsCollapsibleButton.collapsed = True
    ui.measuresGroupBox.collapsed = False
    rows = {ui.tissueTable.item(row, 1).text(): row for row in range(ui.tissueTable.rowCount)}
    ui.tissueTable.cellClicked.emit(rows["Ground-glass opacity"], 1)
    app.layoutManager().threeDWidget(0).threeDView().resetFocalPoint()
    shoot("lesion")
    ui.uncertaintyCheckBox.checked = True
    qt.QTest.mouseClick(ui.histogramButton, qt.Qt.LeftButton)
    shoot("histogram")
    ui.uncertaintyCheckBox.checked = False
    qt.QTest.mouseClick(ui.sharesButton, qt.Qt.LeftButton)
    shoot("shares")


def report_and_reopen(panel: Any, shoot: Callable[[str], None], folder: Path) -> None:
    """Writes the report by a click; saves the scene as one file, closes it and opens it again.

    Raises:
        RuntimeError: something is missing in the report, or is not as before in the scene.
    """
    import qt
    import slicer
    import standin

    from DiffSegLungSlicer import results

    standin.answers.give(qt.QFileDialog.getExistingDirectory, str(folder))
    qt.QTest.mouseClick(panel.ui.reportButton, qt.Qt.LeftButton)
    pages = [folder / name for name in ("report.html", "report.pdf", "measures.csv")]
    if missing := [page.name for page in pages if not page.is_file() or not page.stat().st_size]:
        raise RuntimeError(f"the report lacks {', '.join(missing)}: {panel.ui.errorLabel.text}")
    before = results.tissueRows(panel._parameterNode.segmentation)
    slicer.util.saveScene(str(folder / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    slicer.util.loadScene(str(folder / "scene.mrb"))
    node = panel._parameterNode.segmentation
    if not results.isResult(node) or results.tissueRows(node) != before:
        raise RuntimeError("the scene that was opened again is not the one that was saved")
    shoot("reopened")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("ct", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    import slicer

    sys.path.insert(0, str(REPOSITORY / "Testing" / "standin"))
    import standin

    app = standin.start(testing=True)
    standin.loadScriptedModule(REPOSITORY / "DiffSegLung" / "DiffSegLung.py")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    slicer.util.loadVolume(str(arguments.ct.resolve()))
    with standin.SlicerWindow("DiffSegLung") as window:
        panel = slicer.modules.DiffSegLungWidget

        def shoot(name: str) -> None:
            app.processEvents()
            window.refresh()
            window.screenshot(arguments.folder / f"panel-{name}.png")

        segment_by_click(app, panel, shoot)
        show_everything(app, panel, shoot)
        with tempfile.TemporaryDirectory() as folder:
            report_and_reopen(panel, shoot, Path(folder))
    found = [*standin.slotErrors, *standin.complaints]
    for error in found:
        print(error, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
