"""Several CT of the scene, one after the other, and a table of them all."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import slicer

from DiffSegLungLib.errors import CancelledError, DiffSegLungError, UnusableInputError

from . import charts, results
from .childProcess import ProgressRecord
from .run import LONG_ENOUGH, POLL_SECONDS, OnProgress, Run, State
from .segmentation import Parameters, SegmentationJob
from .words import said

ROLE = "DiffSegLung.several"
SUMMARY = ("lung_ml", *(f"{key}_percent" for key in results.TISSUE_LABELS), "disease_percent")
DENSITY = ("mean_hu", "perc15_hu", "laa950_percent", "haa_percent")


@dataclass(frozen=True)
class Row:
    """What became of one CT: a segmentation, or a sentence that says why there is none."""

    name: str
    segmentationNode: Any = None
    problem: str = ""


class Several:
    """As `Run`, for several CT.  One that fails stops no other; what is done stays when it is cancelled.

    Args:
        volumeNodes: the CT.
        parameters: for all of them.
        onProgress: told of the whole's progress.

    Attributes:
        state, error: as of `Run`.
        result: the table node of all CT, once it is done.
        rows: what became of each CT so far.
    """

    def __init__(
        self, volumeNodes: Sequence[Any], parameters: Parameters, onProgress: OnProgress | None = None
    ) -> None:
        if not volumeNodes:
            raise UnusableInputError("No CT is checked: check those that are to be segmented.")
        self.state, self.error, self.result = State.RUNNING, None, None
        self.rows: list[Row] = []
        self._waiting, self._count = list(volumeNodes), len(volumeNodes)
        self._parameters, self._onProgress = parameters, onProgress or (lambda record: None)
        self._log: list[str] = []
        self._run: Run | None = None
        self._name = ""
        self._fraction, self._started = 0.0, time.monotonic()
        self._startNext()

    @property
    def isRunning(self) -> bool:
        """Whether it has not ended yet."""
        return self.state is State.RUNNING

    @property
    def pid(self) -> int:
        """Process number of the command that runs now, 0 if none does."""
        return self._run.pid if self._run else 0

    @property
    def log(self) -> str:
        """What the commands have written, errors included."""
        return "\n".join([*self._log, *([self._run.log] if self._run else [])])

    def secondsLeft(self) -> float | None:
        """Time until the end at the pace so far; None while that cannot be told."""
        if self._fraction < LONG_ENOUGH:
            return None
        return (time.monotonic() - self._started) * (1 - self._fraction) / self._fraction

    def poll(self) -> bool:
        """Passes progress on and begins the next CT where one has ended; returns whether it goes on."""
        run = self._run
        if self.isRunning and run is not None and not run.poll() and self.isRunning:
            self._log.append(run.log)
            self._run = None
            self.rows.append(Row(self._name, run.result, str(run.error or "")))
            self._startNext()
        return self.isRunning

    def wait(self, processEvents: Callable[[], Any] = lambda: None) -> Any:
        """Returns the table node at the end.

        Raises:
            CancelledError: it was cancelled.
        """
        try:
            while self.poll():
                processEvents()
                time.sleep(POLL_SECONDS)
        except BaseException:
            self.cancel()
            raise
        if self.error:
            raise self.error
        return self.result

    def cancel(self) -> None:
        """Ends the CT that is computed, and all that wait."""
        if self.isRunning:
            if self._run:
                self._run.cancel()
            self.state = State.CANCELLED
            self.error = CancelledError("Cancelled; what was segmented before stays in the scene.")

    def _startNext(self) -> None:
        while self._waiting:
            volumeNode = self._waiting.pop(0)
            self._name = volumeNode.GetName()
            try:
                job = SegmentationJob(volumeNode, None, None, None, self._parameters)
                self._run = job.start(self._report)
                return
            except DiffSegLungError as error:
                self.rows.append(Row(self._name, None, str(error)))
        self.result = showTable(self.rows)
        self.state = State.DONE

    def _report(self, record: ProgressRecord) -> None:
        self._fraction = (len(self.rows) + record.fraction) / self._count
        message = f"{len(self.rows) + 1} of {self._count}: {self._name} {record.message}".rstrip()
        self._onProgress(ProgressRecord(record.stage, self._fraction, message, record.peakMb))


def showTable(rows: Sequence[Row]) -> Any:
    """A table node with a row a CT: the whole lungs' measures, or why there are none."""
    from DiffSegLungLib.quantify.measures import DEFINITIONS

    name = slicer.mrmlScene.GenerateUniqueName("DiffSegLung, several CT")
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
    node.SetAttribute(results.ATTRIBUTE, ROLE)
    whole = [results.wholeLung(row.segmentationNode) if row.segmentationNode else {} for row in rows]
    columns: dict[str, list] = {"CT": [row.name for row in rows]}
    columns |= {key: [row.get(key, float("nan")) for row in whole] for key in (*SUMMARY, *DENSITY)}
    columns["problem"] = [said(row.problem) for row in rows]
    charts.fillTable(node, columns)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetUseFirstColumnAsRowHeader(True)
    for key in (*SUMMARY, *DENSITY):
        node.SetColumnTitle(key, said(DEFINITIONS[key].name))
        node.SetColumnUnitLabel(key, DEFINITIONS[key].unit)
        node.SetColumnDescription(key, DEFINITIONS[key].definition)
    return node
