"""Steps that the tests of the module share: click, wait, look at the scene and at the processes."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[3]
MODULE = REPOSITORY / "DiffSegLung" / "DiffSegLung.py"
PHANTOM = REPOSITORY / "DiffSegLung" / "Resources" / "SampleData" / "DiffSegLungPhantom.nrrd"
FAST = {"quality": "fast", "device": "cpu"}
"""As little work as there is: parameters of `DiffSegLungLogic.process`."""
RIGHT_PIECE = np.s_[51:67, 70:86, 39:55]
"""(k, j, i) of a 40 mm cube in the phantom's right lung: healthy and consolidated, all of it lung."""
LEFT_PIECE = np.s_[55:63, 74:82, 88:96]
"""A 20 mm cube of healthy lung at the other side."""


def click(widget: Any) -> None:
    """Clicks as a mouse does: nothing happens where the widget is disabled.

    A panel that is in no window has no place to aim at: there the button is told.
    """
    import qt

    if widget.isVisible():
        qt.QTest.mouseClick(widget, qt.Qt.LeftButton)
    else:
        widget.click()


def waitUntil(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Lets Slicer go on until the condition holds.

    Raises:
        AssertionError: it does not hold in time.
    """
    import slicer

    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} s"
        slicer.app.processEvents()
        time.sleep(0.02)


def goOn(seconds: float) -> None:
    """Lets Slicer go on for a while."""
    end = time.monotonic() + seconds
    waitUntil(lambda: time.monotonic() > end, seconds + 60)


def nodeIds() -> set[str]:
    """All nodes of the scene."""
    import slicer

    return {slicer.mrmlScene.GetNthNode(n).GetID() for n in range(slicer.mrmlScene.GetNumberOfNodes())}


def countNodes() -> dict[str, int]:
    """How many nodes of each class the scene has."""
    import slicer

    names = [
        slicer.mrmlScene.GetNthNode(n).GetClassName() for n in range(slicer.mrmlScene.GetNumberOfNodes())
    ]
    return {name: names.count(name) for name in set(names)}


def temporaryFolders() -> list[Path]:
    """Folders of runs that have not been removed."""
    import slicer

    return list(Path(slicer.app.temporaryPath).glob("DiffSegLung-*"))


def family(pid: int) -> list[Any]:
    """A process and all that it started."""
    import psutil

    parent = psutil.Process(pid)
    return [parent, *parent.children(recursive=True)]


def isGone(process: Any) -> bool:
    """Whether a process has ended; whoever inherited it may not have asked for its status yet."""
    import psutil

    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def addSegments(volume: Any, pieces: dict[str, Any], name: str = "drawn") -> Any:
    """A segmentation on the volume's grid.

    Args:
        volume: the CT.
        pieces: for each segment's name the (k, j, i) index, or mask, of its voxels; the ID is the same.
        name: of the node.
    """
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.CreateDefaultDisplayNodes()
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    for segmentId, index in pieces.items():
        node.GetSegmentation().AddEmptySegment(segmentId, segmentId)
        voxels = np.zeros(slicer.util.arrayFromVolume(volume).shape, np.uint8)
        voxels[index] = 1
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels, node, segmentId, volume)
    return node


def addPieces(volume: Any) -> Any:
    """A lung mask of two small pieces of the phantom's lungs, so that segmenting takes seconds."""
    return addSegments(volume, {"right lung": RIGHT_PIECE, "left lung": LEFT_PIECE}, "pieces")


def voxelsOf(node: Any, segmentId: str, volume: Any) -> np.ndarray:
    """The segment as a mask (k, j, i) on the volume's grid."""
    import slicer

    return np.asarray(slicer.util.arrayFromSegmentBinaryLabelmap(node, segmentId, volume)) > 0


def setVoxels(node: Any, segmentId: str, voxels: np.ndarray, volume: Any) -> None:
    """Draws a segment anew, as an effect of the Segment Editor does."""
    import slicer

    slicer.util.updateSegmentBinaryLabelmapFromArray(voxels.astype(np.uint8), node, segmentId, volume)


@contextlib.contextmanager
def finishedJob(
    files: Sequence[Path], volume: Any, segmentation: Any = None, regions: Any = None, browser: Any = None
) -> Iterator[Any]:
    """A segmentation whose run has ended well: it has the files of an earlier one, and is to be committed.

    Args:
        files: folder of the files that a run leaves, for each time point.
        volume: the CT.
        segmentation: gets the result; None for a new node.
        regions: to measure, as `DiffSegLungLogic.process` takes them.
        browser: of the sequence, None for a single CT.
    """
    from DiffSegLungSlicer.exchange import SegmentChoice
    from DiffSegLungSlicer.run import removeFolder
    from DiffSegLungSlicer.segmentation import Parameters, SegmentationJob

    job = SegmentationJob(volume, segmentation, None, SegmentChoice.of(regions), Parameters(), browser)
    try:
        for step, folder in enumerate(files):
            shutil.copytree(folder, job._stepFolder(step))
        yield job
    finally:
        removeFolder(job._folder)


@contextlib.contextmanager
def finishedRun(files: Sequence[Path], volume: Any, segmentation: Any = None) -> Iterator[Any]:
    """A run whose one command has just ended well; its next `poll` takes the files into the scene."""
    from DiffSegLungSlicer.run import Run

    with finishedJob(files, volume, segmentation) as job:
        yield Run([lambda: ["check", "--json"]], job.commit, None, accepted=(0, 3))


def commitFiles(files: Path, volume: Any, segmentation: Any = None, regions: Any = None) -> Any:
    """The segmentation node that such a job makes."""
    with finishedJob([files], volume, segmentation, regions) as job:
        return job.commit()


def show(panel: Any, node: Any) -> None:
    """The user chooses a result in the panel."""
    from DiffSegLungSlicer import display

    display.showResult(node)
    panel.ui.segmentationSelector.setCurrentNode(node)
    assert panel._parameterNode.segmentation is node


def cell(panel: Any, key: str, column: int) -> Any:
    """The table's item of a tissue: column 0 eye, 1 name, 2 ml, 3 percent, 4 opacity."""
    from DiffSegLungLib.tissues import REPORTED

    return panel.ui.tissueTable.item([tissue.key for tissue in REPORTED].index(key), column)
