"""The command ``batch``: its options, and a cohort from a folder of CTs to tables."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.quality import QUALITIES, STANDARD

if TYPE_CHECKING:
    from DiffSegLungLib.app.cohort.jobs import Job, Outcome
    from DiffSegLungLib.app.cohort.pool import Pool
    from DiffSegLungLib.io.cases import Case

ENGINES = ("local", "ray")
CASES_FOLDER = "cases"
MANIFEST_NAME = "batch"
GATHERING_STARTS = 0.98
THIRDS = "thirds"
HOW = ("model", "device", "quality", "seed")
"""Options that go to each case as they are."""


@dataclass(frozen=True)
class CohortRequest:
    """One call of ``batch``.

    Attributes:
        source: folder of CT files and DICOM folders, at any depth.
        output: folder that takes ``cases/``, the tables and ``batch.json``.
        engine: ``local`` or ``ray``.
        workers: cases at a time; None for one, or on Ray for as many as the cluster has room for.
        threads: of each worker; None to share the cores of this computer.
        resume: leave alone what is whole.
        shard: which part of how many, (1, 10) to (10, 10); (1, 1) for all.
        retries: how often a case is tried again whose worker died.
        lungs: folder of lung masks named as the cases, None to find the lungs.
        regions: folder of lobes named as the cases, or ``thirds`` of each lung.
        model: name or folder of the weights, None for the default.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        quality: ``fast``, ``standard`` or ``best``.
        seed: of everything random.
        report: whether each case gets a report.
        dicom: whether each DICOM case gets a DICOM segmentation and report.
        series: Series Number to take of each DICOM study, None for the one that a reader would take.
        keep_names: call cases by their files and folders, not by a code.
        key: file that tells which case is which source (.csv); it may name patients.  None for none.
        address: of a Ray cluster.
    """

    source: Path
    output: Path
    engine: str = "local"
    workers: int | None = None
    threads: int | None = None
    resume: bool = False
    shard: tuple[int, int] = (1, 1)
    retries: int = 2
    lungs: Path | None = None
    regions: Path = Path(THIRDS)
    model: str | None = None
    device: str = "auto"
    quality: str = STANDARD
    seed: int = 0
    report: bool = False
    dicom: bool = False
    series: str | None = None
    keep_names: bool = False
    key: Path | None = None
    address: str | None = None

    @property
    def suffix(self) -> str:
        """Of the names of what one part of a cohort writes."""
        return "" if self.shard == (1, 1) else "-{}-of-{}".format(*self.shard)

    @property
    def manifest_path(self) -> Path:
        """Where the account of the run lies."""
        return self.output / f"{MANIFEST_NAME}{self.suffix}.json"


@dataclass(frozen=True)
class CohortOutcome:
    """How a cohort ended.

    Attributes:
        outcomes: of the cases that were done now.
        whole_before: how many were whole already.
        status: 0 if all cases are whole; else the exit status of the failures, 1 before 3 before 2.
        files: the tables.
        copies: how many files were left out because they hold the CT of DICOM images that were done.
    """

    outcomes: tuple[Outcome, ...]
    whole_before: int
    status: int
    files: tuple[Path, ...]
    copies: int = 0

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """What failed."""
        return tuple(outcome for outcome in self.outcomes if outcome.status)

    @property
    def text(self) -> str:
        """What happened, for a terminal."""
        done = len(self.outcomes) - len(self.failures)
        lines = [f"{done} done, {self.whole_before} whole before, {len(self.failures)} failed"]
        lines += [f"  {outcome.case}: {outcome.reason}" for outcome in self.failures]
        if self.copies:
            lines.append(f"{self.copies} files left out: they hold the CT of DICOM images beside them")
        return "\n".join([*lines, *map(str, self.files)])


def run_cohort(request: CohortRequest, progress: Progress = silent) -> CohortOutcome:
    """Segment and measure every CT of a folder; a case that fails stops no other.

    Args:
        request: inputs, parameters, outputs.
        progress: told the share of cases that have ended.

    Raises:
        UnusableInputError: the folders or options cannot be used.
        MissingPartError: weights, device, Ray or another package.
    """
    import time

    from DiffSegLungLib.app.cohort.jobs import is_whole
    from DiffSegLungLib.app.cohort.pool import run_jobs
    from DiffSegLungLib.app.cohort.tables import gather, write_tables

    started = time.perf_counter()
    progress("find", 0.0, "Looking for cases")
    jobs = plan(request)
    open_jobs = [job for job in jobs if not (request.resume and is_whole(job))]
    outcomes: list[Outcome] = []
    told = _teller(outcomes, len(jobs), len(jobs) - len(open_jobs), progress)
    if open_jobs:
        run_jobs(open_jobs, _pool(request), request.retries, told)
    progress("tables", GATHERING_STARTS, "Gathering the tables")
    tables = gather(jobs)
    files = write_tables(request.output, tables, request.suffix)
    copies = sum(job.copies for job in jobs)
    before = len(jobs) - len(open_jobs)
    result = CohortOutcome(tuple(outcomes), before, _status(outcomes), tuple(files), copies)
    _write_manifest(request, result, len(jobs), time.perf_counter() - started)
    progress("done", 1.0)
    return result


def plan(request: CohortRequest) -> list[Job]:
    """The jobs of this part of the cohort, in the order of the cases' names.

    Raises:
        UnusableInputError: the input or output cannot be used.
        MissingPartError: the weights or the device.
    """
    from DiffSegLungLib.devices import choose_device
    from DiffSegLungLib.io.cases import find_cases, write_key
    from DiffSegLungLib.models.store import digest_of, verify

    _check(request)
    choose_device(request.device)
    model = digest_of(verify(request.model))
    cases = [case for case in find_cases(request.source, request.keep_names) if _is_mine(case, request.shard)]
    if request.key:
        write_key(request.key, cases)
    return [_job(case, request, model) for case in cases]


def _check(request: CohortRequest) -> None:
    from DiffSegLungLib.io.atomic import require_writable
    from DiffSegLungLib.io.files import require_suffix

    require_suffix("key", request.key, (".csv",))
    if request.dicom:
        from DiffSegLungLib.export.dicom_seg import require_highdicom

        require_highdicom()
    for folder in filter(None, (request.lungs, None if str(request.regions) == THIRDS else request.regions)):
        if not folder.is_dir():
            raise UnusableInputError(f"{folder}: no such folder; give one that holds a mask for each case.")
    source, output = request.source.resolve(), request.output.resolve()
    if output == source or source in output.parents:
        raise UnusableInputError(f"{request.output} lies in the input folder: give one elsewhere.")
    require_writable(request.manifest_path)


def _is_mine(case: Case, shard: tuple[int, int]) -> bool:
    """Parts by the case's name: each part agrees with the others also when cases are added meanwhile."""
    from DiffSegLungLib.io.cases import code_of

    return int(code_of(case.name), 16) % shard[1] == shard[0] - 1


def _job(case: Case, request: CohortRequest, model: str) -> Job:
    from DiffSegLungLib.app.cohort.jobs import Job, request_into
    from DiffSegLungLib.io.cases import companion

    lungs, regions, missing = None, request.regions, ""
    try:
        lungs = companion(case, request.lungs, "lung mask")
        if str(regions) != THIRDS:
            regions = companion(case, request.regions, "file of regions") or regions
    except UnusableInputError as error:
        missing = str(error)
    is_dicom = case.source.is_dir()
    segmenting = request_into(
        request.output.resolve() / CASES_FOLDER / case.name,
        case.source.resolve(),
        report=request.report,
        dicom=request.dicom and is_dicom,
        series=request.series if is_dicom else None,
        name=case.name,
        lungs=lungs and lungs.resolve(),
        regions=regions,
        **{option: getattr(request, option) for option in HOW},
    )
    return Job(case.name, segmenting, missing, model, len(case.copies))


def _pool(request: CohortRequest) -> Pool:
    from DiffSegLungLib.app.cohort.pool import LocalPool
    from DiffSegLungLib.devices import choose_device

    workers = request.workers or 1
    threads = request.threads or max((os.cpu_count() or 1) // workers, 1)
    if request.engine == "ray":
        from DiffSegLungLib.app.cohort.ray_pool import RayPool

        gpu = choose_device(request.device) == "cuda"
        return RayPool(request.workers, threads, gpu, request.address)
    return LocalPool(workers, threads)


def _teller(
    outcomes: list[Outcome], total: int, before: int, progress: Progress
) -> Callable[[Outcome], None]:
    """Collects outcomes and says how far the cohort is."""

    def told(outcome: Outcome) -> None:
        outcomes.append(outcome)
        failed = sum(1 for each in outcomes if each.status)
        ended = before + len(outcomes)
        message = f"{ended} of {total} cases, {failed} failed; {outcome.case} {outcome.state}"
        progress("cohort", GATHERING_STARTS * ended / total, message)

    return told


def _status(outcomes: list[Outcome]) -> int:
    """Our own fault is worth most attention, then what is missing, then unusable CTs."""
    statuses = {outcome.status for outcome in outcomes}
    return next((status for status in (1, 3, 2) if status in statuses), 0)


def _write_manifest(request: CohortRequest, result: CohortOutcome, total: int, seconds: float) -> None:
    from DiffSegLungLib.export.manifest import describe_software
    from DiffSegLungLib.io.atomic import write_json

    parameters = {name: getattr(request, name) for name in ("engine", "quality", "seed", "device", "retries")}
    write_json(
        request.manifest_path,
        {
            "software": describe_software(),
            "parameters": parameters | {"shard": list(request.shard)},
            "cases": total,
            "done": len(result.outcomes) - len(result.failures),
            "whole_before": result.whole_before,
            "copies_left_out": result.copies,
            "failed": {outcome.case: outcome.reason for outcome in result.failures},
            "tried_again": {each.case: each.attempts for each in result.outcomes if each.attempts > 1},
            "seconds": round(seconds, 3),
            "tables": [path.name for path in result.files],
        },
    )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``batch``."""
    parser.add_argument(
        "source", metavar="IN_FOLDER", type=Path, help="CT files and DICOM folders, any depth"
    )
    output_help = "takes a folder a case, tables of all, and batch.json"
    parser.add_argument("output", metavar="OUT_FOLDER", type=Path, help=output_help)
    parser.add_argument("--resume", action="store_true", help="leave alone the cases that are whole")
    _add_engine(parser)
    lungs_help = "folder of lung masks, named as the cases or as the CTs"
    parser.add_argument("--lungs", metavar="FOLDER", type=Path, help=lungs_help)
    regions_help = "folder of lobes, named as the cases or as the CTs (default: thirds of each lung)"
    parser.add_argument("--regions", metavar="FOLDER", type=Path, default=Path(THIRDS), help=regions_help)
    parser.add_argument("--model", metavar="NAME_OR_FOLDER", help="weights to use instead of the default")
    quality_help = f"as in segment (default: {STANDARD})"
    parser.add_argument("--quality", choices=tuple(QUALITIES), default=STANDARD, help=quality_help)
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda", "mps"), default="auto", help="default: auto"
    )
    parser.add_argument("--seed", metavar="N", type=_count, default=0, help="of random numbers (default: 0)")
    parser.add_argument("--report", action="store_true", help="write a report a case")
    dicom_help = "write DICOM SEG and SR for each case that is DICOM"
    parser.add_argument("--dicom", action="store_true", help=dicom_help)
    series_help = "number of the series to take of each DICOM study (default: the original with most slices)"
    parser.add_argument("--series", metavar="N", help=series_help)
    names_help = "call cases by their files and folders, which may name patients (default: codes)"
    parser.add_argument("--keep-names", action="store_true", help=names_help)
    key_help = "write which case is which source, for your eyes only; it may name patients, keep it apart"
    parser.add_argument("--key", metavar="KEY.csv", type=Path, help=key_help)
    progress_help = "a bar, one JSON object a line on standard output, or nothing (default: bar)"
    parser.add_argument("--progress", choices=("json", "bar", "none"), default="bar", help=progress_help)
    parser.set_defaults(handler=run)


def _add_engine(parser: argparse.ArgumentParser) -> None:
    engine_help = "processes of this computer, or actors of a Ray cluster (default: local)"
    parser.add_argument("--engine", choices=ENGINES, default="local", help=engine_help)
    workers_help = "cases at a time (default: 1; on Ray: what the cluster has room for)"
    parser.add_argument("--workers", metavar="N", type=_positive, help=workers_help)
    threads_help = "threads of a worker (default: the cores shared out)"
    parser.add_argument("--threads", metavar="N", type=_positive, help=threads_help)
    shard_help = "do the i-th of n parts, for job arrays: 1/10 to 10/10"
    parser.add_argument("--shard", metavar="i/n", type=_shard, default=(1, 1), help=shard_help)
    retries_help = "how often a case is tried again whose worker died (default: 2)"
    parser.add_argument("--retries", metavar="N", type=_count, default=2, help=retries_help)
    address_help = "of a running Ray cluster (default: RAY_ADDRESS, else one on this computer)"
    parser.add_argument("--address", metavar="HOST:PORT", help=address_help)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _positive(text: str) -> int:
    if _count(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not (part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a part such as 3/10")
    return int(part), int(parts)


def run(arguments: argparse.Namespace) -> int:
    """Run the cohort and say how it ended."""
    request = CohortRequest(**{field.name: getattr(arguments, field.name) for field in fields(CohortRequest)})
    if arguments.progress == "json":
        return _run_for_programs(request)
    return _run_for_people(request, with_bar=arguments.progress == "bar")


def _run_for_programs(request: CohortRequest) -> int:
    """Progress lines and then the manifest's path on standard output, and nothing else there."""
    from DiffSegLungLib.progress import JsonProgress

    records: Any = sys.stdout
    with redirect_stdout(sys.stderr):
        result = run_cohort(request, JsonProgress(records))
    print(request.manifest_path, file=records, flush=True)
    return result.status


def _run_for_people(request: CohortRequest, with_bar: bool) -> int:
    from DiffSegLungLib.progress import BarProgress

    bar = BarProgress() if with_bar else None
    try:
        result = run_cohort(request, bar or silent)
    finally:
        if bar:
            bar.close()
    print(result.text, flush=True)
    return result.status
