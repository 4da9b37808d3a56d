"""One case: segmented into a folder of its own, with a record that says whether it is whole.

The record is written last.  A job that was interrupted, or whose CT, model or parameters changed, is not
whole.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from DiffSegLungLib.app.commands import SegmentRequest, segment_to_files
from DiffSegLungLib.errors import (
    DiffSegLungError,
    IncompleteOutputError,
    UnusableInputError,
    is_out_of_memory,
)
from DiffSegLungLib.io.atomic import remove_leftovers, write_json
from DiffSegLungLib.io.cases import without_names
from DiffSegLungLib.io.files import walk
from DiffSegLungLib.progress import peak_memory_mb, silent
from DiffSegLungLib.version import __version__

RECORD = "job.json"
SEGMENTATION, MEASURES, MANIFEST = "segmentation.seg.nrrd", "measures.csv", "manifest.json"
REPORT, DICOM_SEG, DICOM_SR = "report", "segmentation.dcm", "measures.dcm"
DONE, FAILED = "done", "failed"
OUR_FAULT = 1


@dataclass(frozen=True)
class Job:
    """What one case needs; it travels to other processes and computers.

    Attributes:
        case: the case's name.
        request: the call of ``segment`` that does it; all that it writes lies in `folder`.
        missing: why it cannot be done at all, empty if it can.
        model: its digest, see ``models.ModelInfo``.
        copies: how many files of the cohort hold the same CT and were left out.
    """

    case: str
    request: SegmentRequest
    missing: str = ""
    model: str = ""
    copies: int = 0

    @property
    def folder(self) -> Path:
        """Takes everything that is written."""
        return self.request.output.parent

    @property
    def files(self) -> list[Path]:
        """What is there when it is whole, beside the record."""
        report = self.request.report
        return [*self.request.outputs.values(), *([report / "report.html"] if report else [])]


def request_into(
    folder: Path, source: Path, report: bool = False, dicom: bool = False, **options: Any
) -> SegmentRequest:
    """The call of ``segment`` that puts everything of a case into its folder, under fixed names.

    Args:
        folder: the case's.
        source: the CT.
        report: whether to write a report.
        dicom: whether to write a DICOM segmentation and report; the CT must be DICOM.
        options: fields of `SegmentRequest` that say how.
    """
    return SegmentRequest(
        source,
        folder / SEGMENTATION,
        measures=folder / MEASURES,
        dicom_seg=folder / DICOM_SEG if dicom else None,
        dicom_sr=folder / DICOM_SR if dicom else None,
        report=folder / REPORT if report else None,
        manifest=folder / MANIFEST,
        **options,
    )


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        case: the case's name.
        state: ``done`` or ``failed``.
        reason: one line, empty if done.
        status: exit status that the case alone would have had.
        seconds: of the whole job.
        peak_mb: the most memory its process has held, in MB.
        attempts: how often it was started.
    """

    case: str
    state: str
    reason: str = ""
    status: int = 0
    seconds: float = 0.0
    peak_mb: float = 0.0
    attempts: int = 1


def fingerprint(job: Job) -> dict[str, Any]:
    """What the result depends on; the source by its files' number, size and newest time of change.

    Not the device: another one changes hardly a voxel, and a cohort may go on where there is another.
    """
    from DiffSegLungLib.export.manifest import code_digest

    request = job.request
    return {
        "version": __version__,
        "code": code_digest(),
        "model": job.model,
        "quality": request.quality,
        "seed": request.seed,
        "series": request.series,
        "report": request.report is not None,
        "dicom": request.dicom_seg is not None,
        "source": _stamp(request.source),
        "lungs": _stamp(request.lungs),
        "regions": _stamp(request.regions),
    }


def _stamp(path: Path | None) -> list[int] | None:
    if path is None:
        return None
    if path.is_dir():
        facts = [os.stat(os.path.join(place, name)) for place, _, names in walk(path) for name in names]
    else:
        facts = [path.stat()] if path.exists() else []
    newest = max((fact.st_mtime_ns for fact in facts), default=0)
    return [len(facts), sum(fact.st_size for fact in facts), newest]


def read_record(job: Job) -> dict[str, Any]:
    """The job's record, empty if there is none that can be read."""
    try:
        record = json.loads((job.folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def is_whole(job: Job) -> bool:
    """Whether the job was done from this very CT in this very way, and all its files are there."""
    record = read_record(job)
    if record.get("state") != DONE or record.get("fingerprint") != fingerprint(job):
        return False
    return all(file.is_file() and file.stat().st_size > 0 for file in job.files)


def run_job(job: Job) -> Outcome:
    """Do one case and write its record; what goes wrong with the case is in the outcome, not raised."""
    started = time.perf_counter()
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / RECORD).unlink(missing_ok=True)
    remove_leftovers(job.folder)
    stamp = fingerprint(job)  # before the work: a CT that changes meanwhile is done again
    outcome = replace(_attempt(job), peak_mb=round(peak_memory_mb(), 1))
    outcome = replace(outcome, seconds=round(time.perf_counter() - started, 3))
    write_record(job, outcome, stamp)
    return outcome


def _attempt(job: Job) -> Outcome:
    try:
        if job.missing:
            raise UnusableInputError(job.missing)
        segment_to_files(job.request, silent)
    except IncompleteOutputError as error:
        return failure(job, str(error), error.exit_status, keep_files=True)
    except DiffSegLungError as error:
        return failure(job, str(error), error.exit_status)
    except Exception as error:  # noqa: BLE001 - the other cases go on
        if is_out_of_memory(error):
            return failure(job, "Not enough memory: give fewer workers.", 3)
        return failure(job, f"{type(error).__name__}: {error}. The fault is DiffSegLung's.", OUR_FAULT)
    return Outcome(job.case, DONE)


def failure(job: Job, reason: str, status: int, keep_files: bool = False) -> Outcome:
    """The outcome of a case that failed; the results of an earlier run go: they are of another CT or way.

    Args:
        job: of the case.
        reason: one line.
        status: exit status that the case alone would have had.
        keep_files: the files are of this run, and only one of them is missing.
    """
    if not keep_files:
        for file in job.files:
            file.unlink(missing_ok=True)
        shutil.rmtree(job.folder / REPORT, ignore_errors=True)
    given = (job.request.source, job.request.lungs, job.request.regions)
    return Outcome(job.case, FAILED, without_names(reason, job.case, filter(None, given)), status)


def write_record(job: Job, outcome: Outcome, stamp: dict[str, Any] | None = None) -> None:
    """Write the record of a job that has ended."""
    facts = {name: value for name, value in vars(outcome).items() if name != "attempts"}
    write_json(job.folder / RECORD, {**facts, "fingerprint": stamp or fingerprint(job)})


def limit_threads(threads: int) -> None:
    """Let this process compute with so many threads: workers on one computer share its cores."""
    import SimpleITK as sitk
    import torch

    torch.set_num_threads(threads)
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
