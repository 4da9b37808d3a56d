"""Strokes that were painted since a run, spread over the whole CT.

`take` and `show` touch the scene and are quick; `compute` knows arrays alone and runs in a thread.  What a
run kept lies in a folder of its own until the scene is closed; without it the network reads the CT again.
"""

from __future__ import annotations

import atexit
import html
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import slicer
from slicer.i18n import tr as _

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.tissues import NOT_LUNG, NOT_LUNG_KEY, NOT_LUNG_NAME, OUTSIDE

from . import exchange, results
from .background import Background
from .exchange import SegmentChoice
from .measuring import LUNG_LABELS, TISSUE_LABELS
from .run import Run, newFolder, removeFolder
from .words import said

if TYPE_CHECKING:
    from DiffSegLungLib.app.spreads import Done, Spreads
    from DiffSegLungLib.io.volume import Volume

FIELD = "field.safetensors"
AGAIN = "Nothing is kept of this result's run: the network reads the CT again before the strokes are spread."


@dataclass
class Kept:
    """What is known of a result.

    Attributes:
        folder: of what its run kept.
        volume: its CT, once it was read.
        spreads: its spreads, once there is one.
    """

    folder: Path
    volume: Volume | None = None
    spreads: Spreads | None = None


_kept: dict[str, Kept] = {}
"""By the ID of the result's node."""


def keep(segmentationNode, runFolder: Path) -> None:
    """Takes what a run kept for strokes out of its folder."""
    drop(segmentationNode)
    if (runFolder / FIELD).is_file():
        folder = newFolder("Kept")
        shutil.move(runFolder / FIELD, folder / FIELD)
        _kept[segmentationNode.GetID()] = Kept(folder)


def drop(segmentationNode) -> None:
    """Forgets what is kept of a result."""
    if kept := _kept.pop(segmentationNode.GetID(), None):
        removeFolder(kept.folder)


def forgetAll() -> None:
    """Forgets what is kept of every result: the scene is closed, or Slicer ends."""
    for kept in _kept.values():
        removeFolder(kept.folder)
    _kept.clear()


atexit.register(forgetAll)


def isKept(segmentationNode) -> bool:
    """Whether strokes can be spread without reading the CT again."""
    return segmentationNode.GetID() in _kept


def readAgain(segmentationNode) -> Run:
    """The run once more, for a result that a saved scene brought back; its end keeps what strokes need.

    Raises:
        UnusableInputError: CT or lungs are gone.
    """
    volumeNode, lungNode = _inputs(segmentationNode)
    folder, manifest = newFolder(), results.manifestOf(segmentationNode)
    try:
        exchange.exportVolume(volumeNode, folder / "ct.nrrd")
        exchange.exportSegments(SegmentChoice(lungNode), volumeNode, folder / "lungs.seg.nrrd")
    except Exception:
        removeFolder(folder)
        raise
    words = ["segment", folder / "ct.nrrd", "-o", folder / "again.nrrd", "--lungs", folder / "lungs.seg.nrrd"]
    words += ["--save-field", folder / FIELD, "--progress", "json", "--seed", manifest.get("seed", 0)]
    words += ["--quality", manifest.get("parameters", {}).get("quality", "standard")]
    if name := manifest.get("model", {}).get("name"):
        words += ["--model", name]
    return Run([lambda: [str(word) for word in words]], lambda: keep(segmentationNode, folder), folder)


def _inputs(segmentationNode) -> tuple[Any, Any]:
    volumeNode = results.volumeOf(segmentationNode)
    lungNode = segmentationNode.GetNodeReference(results.LUNGS_ROLE)
    if volumeNode is None or lungNode is None:
        raise UnusableInputError(
            f"The CT or the lungs of {segmentationNode.GetName()} are gone: segment again."
        )
    return volumeNode, lungNode


def _notLung(segmentationNode) -> list[str]:
    """Segments that somebody painted with what is no lung: known by their ID, or by their name."""
    segmentation = segmentationNode.GetSegmentation()
    return [
        segmentId
        for segmentId in segmentation.GetSegmentIDs()
        if segmentId == NOT_LUNG_KEY
        or segmentation.GetSegment(segmentId).GetName().strip().lower() == NOT_LUNG_NAME.lower()
    ]


@dataclass(frozen=True)
class Taken:
    """What is spread; the user may draw on meanwhile.

    Attributes:
        kept: of the result.
        ct, labels, lungs: images on the CT's grid; of the CT None where it was read before.
        strokes: image of those of an earlier session, None without.
        drawn: uint8 (k, j, i), the labels once more.
        manifest: of the run.
    """

    kept: Kept
    ct: Any
    labels: Any
    lungs: Any
    strokes: Any
    drawn: np.ndarray
    manifest: dict[str, Any]


def take(segmentationNode) -> Taken:
    """Reads the scene.

    Raises:
        UnusableInputError: CT, lungs or segments are gone.
    """
    kept = _kept[segmentationNode.GetID()]
    volumeNode, lungNode = _inputs(segmentationNode)
    known = segmentationNode.GetSegmentation().GetSegmentIDs()
    values = {key: label for key, label in TISSUE_LABELS.items() if key in known}
    values |= dict.fromkeys(_notLung(segmentationNode), NOT_LUNG)
    drawn = exchange.labelLayers(SegmentChoice(segmentationNode), volumeNode, values).merged()
    drawn = drawn.astype(np.uint8)
    sides = exchange.labelLayers(SegmentChoice(lungNode), volumeNode, LUNG_LABELS).merged()
    ct = slicer.util.arrayFromVolume(volumeNode) if kept.volume is None else None
    stored = segmentationNode.GetNodeReference(results.STROKES_ROLE) if kept.spreads is None else None
    strokes = slicer.util.arrayFromVolume(stored) if stored else None
    return Taken(
        kept,
        None if ct is None else exchange.imageOf(ct, volumeNode),
        exchange.imageOf(drawn, volumeNode),
        exchange.imageOf(sides.astype(np.uint8), volumeNode),
        None if strokes is None else exchange.imageOf(strokes.astype(np.uint8), volumeNode),
        drawn,
        results.manifestOf(segmentationNode),
    )


@dataclass(frozen=True)
class Computed:
    """What is to be shown.

    Attributes:
        done: the spread.
        labels: uint8 (k, j, i), in the CT's own axes.
        outside: bool (k, j, i), what is no lung any more; None where nothing was painted so.
        strokes: uint8 (k, j, i), all that counted.
    """

    done: Done
    labels: np.ndarray
    outside: np.ndarray | None
    strokes: np.ndarray


def compute(taken: Taken) -> Computed:
    """Spreads what was painted.

    Raises:
        UnusableInputError: nothing was painted, or nothing of it in the lungs.
    """
    import SimpleITK as sitk

    from DiffSegLungLib.app.spreads import Spreads
    from DiffSegLungLib.io.volume import load_volume, to_input_geometry

    kept = taken.kept
    if kept.volume is None:
        kept.volume = load_volume(taken.ct)
    labels = _canonical(taken.labels, kept.volume)
    if kept.spreads is None:
        spreads = Spreads(labels, _canonical(taken.lungs, kept.volume), taken.manifest)
        spreads.load(kept.folder / FIELD, kept.volume)
        spreads.start_from_decided()
        if taken.strokes is not None:
            spreads.replay(_canonical(taken.strokes, kept.volume), kept.volume)
        kept.spreads = spreads
    done = kept.spreads.spread(labels, kept.volume)

    def shown(array: np.ndarray) -> np.ndarray:
        return sitk.GetArrayFromImage(to_input_geometry(array, kept.volume))

    outside = None
    if (done.strokes == NOT_LUNG).any():
        outside = shown((done.spread.labels == OUTSIDE) & (kept.spreads.sides > 0)) > 0
    return Computed(done, shown(done.after), outside, shown(done.strokes))


def _canonical(image, volume: Volume) -> np.ndarray:
    from DiffSegLungLib.io.label_maps import labels_on_grid

    return labels_on_grid(image, volume, "segmentation", empty=True)


def show(segmentationNode, computed: Computed) -> None:
    """Puts the labels into the scene; one undo of the Segment Editor takes them back."""
    volumeNode, lungNode = _inputs(segmentationNode)
    _saveForUndo(segmentationNode, volumeNode)
    with slicer.util.NodeModify(segmentationNode):
        for key, label in TISSUE_LABELS.items():
            _setVoxels(segmentationNode, key, computed.labels == label, volumeNode)
        for segmentId in _notLung(segmentationNode):
            _setVoxels(segmentationNode, segmentId, np.zeros_like(computed.labels), volumeNode)
    if computed.outside is not None:
        for key in LUNG_LABELS:
            if key in lungNode.GetSegmentation().GetSegmentIDs():
                lung = slicer.util.arrayFromSegmentBinaryLabelmap(lungNode, key, volumeNode) > 0
                _setVoxels(lungNode, key, lung & ~computed.outside, volumeNode)
    segmentationNode.SetAttribute(results.CORRECTED, "1")
    _storeStrokes(segmentationNode, volumeNode, computed.strokes)
    _tell(segmentationNode, computed.done.after)


def _storeStrokes(segmentationNode, volumeNode, strokes: np.ndarray) -> None:
    """A saved scene brings them back: what they gave is then not taken for painted."""
    name = f"{segmentationNode.GetName()} strokes"
    node = results.own(segmentationNode, results.STROKES_ROLE, "vtkMRMLLabelMapVolumeNode", name)
    exchange.fillVolume(strokes, volumeNode, node)
    node.SetHideFromEditors(True)


def follow(segmentationNode) -> None:
    """After an undo: manifest and stored strokes are of no spread that was taken back."""
    import SimpleITK as sitk

    from DiffSegLungLib.io.volume import to_input_geometry

    kept = _kept.get(segmentationNode.GetID())
    if kept is None or kept.spreads is None:
        return
    labels = _canonical(take(segmentationNode).labels, kept.volume)
    last = kept.spreads.last(labels)
    strokes = last.strokes if last else np.zeros_like(labels)
    image = to_input_geometry(strokes, kept.volume)
    _storeStrokes(segmentationNode, results.volumeOf(segmentationNode), sitk.GetArrayFromImage(image))
    _tell(segmentationNode, labels)


def _tell(segmentationNode, labels: np.ndarray) -> None:
    text = segmentationNode.GetNodeReference(results.MANIFEST_ROLE)
    if text is not None:
        told = _kept[segmentationNode.GetID()].spreads.manifest_of(labels)
        text.SetText(json.dumps(told, indent=2))


def told(done: Done) -> str:
    """What moved, most first, for the panel."""
    from DiffSegLungLib.app.spreads import lines_of

    lines = "".join(f"<br>{html.escape(said(line))}" for line in lines_of(done))
    return _("Your strokes moved:") + lines if lines else _("Your strokes moved nothing beside them.")


class Job:
    """A spread under way.  Call `poll` now and then; at the end `finish` shows it.

    Raises:
        UnusableInputError: CT, lungs or segments are gone.
    """

    def __init__(self, segmentationNode) -> None:
        self.node = segmentationNode
        self.readsAgain = not isKept(segmentationNode)
        self._run = readAgain(segmentationNode) if self.readsAgain else None
        self._work = None if self.readsAgain else self._begin()

    def _begin(self) -> Background:
        taken = self._taken = take(self.node)
        return Background(lambda: compute(taken))

    def poll(self) -> bool:
        """Whether it goes on.

        Raises:
            DiffSegLungError: the network could not read the CT.
        """
        if self._run is not None:
            if self._run.poll():
                return True
            run, self._run = self._run, None
            if run.error:
                raise run.error
            self._work = self._begin()
        return self._work.isRunning()

    def finish(self) -> Done:
        """Shows the result, and tells what was done."""
        computed = self._work.result()
        now = take(self.node).drawn
        drawn = now != self._taken.drawn  # meanwhile: it stays, and counts the next time
        computed.labels[drawn] = now[drawn]
        show(self.node, computed)
        return computed.done

    def cancel(self) -> None:
        """Ends it; the scene stays as it was."""
        if self._run is not None:
            self._run.cancel()


def spread(segmentationNode, processEvents: Callable[[], Any]) -> dict[str, dict[str, float]]:
    """Spreads what was painted, and waits for it.

    Returns:
        Millilitres from tissue to tissue, by their keys.

    Raises:
        DiffSegLungError: in one line what is wrong.
    """
    job = Job(segmentationNode)
    while job.poll():
        processEvents()
    moved = job.finish().spread.moved_ml
    results.measure(segmentationNode)
    return {old: dict(to) for old, to in moved.items()}


def _setVoxels(node, segmentId: str, voxels: np.ndarray, volumeNode) -> None:
    if segmentId in node.GetSegmentation().GetSegmentIDs():
        slicer.util.updateSegmentBinaryLabelmapFromArray(voxels.astype(np.uint8), node, segmentId, volumeNode)


def _saveForUndo(segmentationNode, volumeNode) -> None:
    """The Segment Editor's history takes the strokes as they are; without a window there is none."""
    if slicer.util.mainWindow() is None:
        return
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    if editor.segmentationNode() is not segmentationNode:
        editor.setSegmentationNode(segmentationNode)
        editor.setSourceVolumeNode(volumeNode)
    editor.saveStateForUndo()
