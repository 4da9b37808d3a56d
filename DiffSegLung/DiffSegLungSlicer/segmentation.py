"""One segmentation, from the nodes that the user chose to the nodes that hold the result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import slicer

from DiffSegLungLib.app.commands import SegmentRequest, segment_to_files
from DiffSegLungLib.errors import UnusableInputError

from . import exchange, results, sequences, spreading
from .childProcess import ProgressRecord
from .exchange import SegmentChoice
from .parameters import ConsoleParameters
from .run import OnProgress, Run, newFolder, removeFolder


@dataclass(frozen=True)
class Parameters(ConsoleParameters):
    """How to segment.

    Attributes:
        model: name or folder of a model; empty for the one that is shipped.
        quality: ``fast``, ``standard`` or ``best``.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of all that is random; the same seed gives the same labels.
    """

    model: str = ""
    quality: str = "standard"
    device: str = "auto"
    seed: int = 0


@dataclass
class SegmentationJob:
    """What is to be segmented, and where the result goes.

    Attributes:
        volumeNode: the CT.
        segmentationNode: gets the segments; None makes a new node.
        lungs: a lung mask to use instead of finding the lungs.
        regions: lobes or other regions to measure.
        parameters: how.
        browserNode: segments all time points of the sequence that the CT is a part of.
    """

    volumeNode: Any
    segmentationNode: Any
    lungs: SegmentChoice | None
    regions: SegmentChoice | None
    parameters: Parameters
    browserNode: Any = None

    def __post_init__(self) -> None:
        exchange.requireCt(self.volumeNode)
        if self.segmentationNode is not None and self.segmentationNode in self._masks():
            raise UnusableInputError(
                f"{self.segmentationNode.GetName()} is both mask and result: choose another segmentation."
            )
        if self.segmentationNode is not None:
            results.requireRoom(self.segmentationNode, self.volumeNode)
        self._volumes = [self.volumeNode]
        if self.browserNode is not None:
            self._volumes = sequences.volumesOf(self.browserNode, self.volumeNode)
        self._folder = newFolder()

    def _masks(self) -> list:
        return [choice.node for choice in (self.lungs, self.regions) if choice]

    def start(self, onProgress: OnProgress | None) -> Run:
        """Runs in child processes; returns at once."""
        commands = [self._command(step) for step in range(len(self._volumes))]
        return Run(commands, self.commit, self._folder, onProgress)

    def runHere(self, onProgress: OnProgress | None) -> Any:
        """Runs in this process, and returns the segmentation node; the window stands still meanwhile."""
        report = onProgress or (lambda record: None)

        def progress(stage: str, fraction: float, message: str = "") -> None:
            report(ProgressRecord(stage, fraction, message))

        try:
            for step in range(len(self._volumes)):
                segment_to_files(self._request(step), progress)
            return self.commit()
        finally:
            removeFolder(self._folder)

    def _command(self, step: int) -> Callable[[], list[str]]:
        return lambda: commandLine(self._request(step))

    def _request(self, step: int) -> SegmentRequest:
        """Writes what one command reads."""
        folder, volume = self._stepFolder(step), self._volumes[step]
        folder.mkdir(exist_ok=True)
        exchange.exportVolume(volume, folder / "ct.nrrd")
        return SegmentRequest(
            source=folder / "ct.nrrd",
            output=folder / "segmentation.seg.nrrd",
            lungs=self._exportedLungs(step, folder / "given-lungs.seg.nrrd"),
            save_lungs=folder / "lungs.seg.nrrd",
            save_field=None if self.browserNode else folder / spreading.FIELD,
            uncertainty=folder / "uncertainty.nrrd",
            measures=folder / "measures.csv",
            manifest=folder / "manifest.json",
            **{**asdict(self.parameters), "model": self.parameters.model or None},
        )

    def _stepFolder(self, step: int) -> Path:
        return self._folder / f"{step:04d}"

    def _exportedLungs(self, step: int, path: Path) -> Path | None:
        choice = sequences.atTimePoint(self.lungs, self.browserNode, step)
        if choice is None:
            return None
        exchange.exportSegments(choice, self._volumes[step], path)
        return path

    def commit(self) -> Any:
        """Takes the finished files into the scene; what the user has removed meanwhile is done without.

        Returns:
            The segmentation node.

        Raises:
            UnusableInputError: the CT has been removed from the scene meanwhile.
        """
        if not _isInScene(self.volumeNode):
            raise UnusableInputError("The CT was removed while it was segmented: load it and segment again.")
        if self.regions and not _isInScene(self.regions.node):
            self.regions = None
        isNew = not _isInScene(self.segmentationNode)
        node = self._newNode() if isNew else self.segmentationNode
        try:
            self._fill(node)
        except Exception:
            if isNew:
                sequences.removeSequences(node)  # nothing half-written stays in the scene
                results.removeAll(node)
            raise
        return node

    def _newNode(self) -> Any:
        name = slicer.mrmlScene.GenerateUniqueName(f"{self.volumeNode.GetName()} lung pathology")
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
        node.CreateDefaultDisplayNodes()
        return node

    def _fill(self, node) -> None:
        folders = [self._stepFolder(step) for step in range(len(self._volumes))]
        if self.browserNode is not None:
            sequences.store(node, self.browserNode, self.volumeNode, folders, self.regions)
        else:
            results.store(node, self.volumeNode, folders[0], self.regions)
            spreading.keep(node, folders[0])
        results.measure(node, fresh=True)


def _isInScene(node) -> bool:
    return node is not None and node.GetScene() is slicer.mrmlScene


def commandLine(request: SegmentRequest) -> list[str]:
    """The request as the command line takes it."""
    words = ["segment", str(request.source)]
    for field in fields(request):
        value = getattr(request, field.name)
        if field.name != "source" and value is not None and value is not False:
            option = f"--{field.name.replace('_', '-')}"
            words += [option] if value is True else [option, str(value)]
    return [*words, "--progress", "json"]
