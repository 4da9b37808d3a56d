"""What each command does with its arguments; it returns the exit status."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

from DiffSegLungLib.app.program import DONE, PROGRAM
from DiffSegLungLib.errors import MissingPartError, UnusableInputError


def run_segment(arguments: argparse.Namespace) -> int:
    """Segments one CT."""
    from DiffSegLungLib.app.commands import SegmentRequest, segment_to_files

    request = _request(SegmentRequest, arguments)
    if arguments.progress == "json":
        _work_for_programs(segment_to_files, request)
    else:
        _work_for_people(segment_to_files, request, with_bar=arguments.progress == "bar")
    return DONE


def _request(kind: type[Any], arguments: argparse.Namespace) -> Any:
    """A command's request, a dataclass, filled from the arguments of the same names."""
    from dataclasses import fields

    return kind(**{field.name: getattr(arguments, field.name) for field in fields(kind)})


def run_measure(arguments: argparse.Namespace) -> int:
    """Measures a segmentation, beside an earlier one if that is given."""
    from DiffSegLungLib.app.measure_command import MeasureRequest, measure_to_files
    from DiffSegLungLib.quantify.comparison import CompareRequest
    from DiffSegLungLib.quantify.longitudinal import changes_text

    earlier = _request(CompareRequest, arguments)
    measured, compared = measure_to_files(_request(MeasureRequest, arguments), earlier)
    for warning in measured.warnings:
        print(f"{PROGRAM}: warning: {warning}", file=sys.stderr)
    _print_measures(measured.measures)
    if compared:
        print(changes_text(compared.changes), flush=True)
    return DONE


def _print_measures(measures: Any) -> None:
    """The table on standard output, and the scores whose zones were measured."""
    from DiffSegLungLib.quantify.measures import table_text
    from DiffSegLungLib.quantify.scores import scores

    _set_encoding(sys.stdout, errors="replace")
    print("\n".join([table_text(measures), *(score.text for score in scores(measures))]), flush=True)


def run_correct(arguments: argparse.Namespace) -> int:
    """Spreads strokes over the CT of a segmentation."""
    from DiffSegLungLib.app.correct_command import CorrectRequest, correct_to_files

    request = _request(CorrectRequest, arguments)
    if arguments.progress == "json":
        _work_for_programs(correct_to_files, request)
        return DONE
    result = _work_for_people(correct_to_files, request, with_bar=arguments.progress == "bar")
    for sentence in result.manifest["warnings"]:
        print(f"{PROGRAM}: warning: {sentence}", file=sys.stderr)
    return DONE


def _work_for_programs(work: Callable[..., Any], request: Any) -> None:
    """Progress lines and then the manifest's path on standard output, and nothing else there."""
    from DiffSegLungLib.progress import JsonProgress

    records = sys.stdout
    _set_encoding(records, errors="surrogateescape")
    with redirect_stdout(sys.stderr):  # what libraries print must not get between the records
        work(request, JsonProgress(records))
    print(request.manifest_path, file=records, flush=True)


def _work_for_people(work: Callable[..., Any], request: Any, with_bar: bool) -> Any:
    """A bar or lines on standard error, then the table of measures on standard output."""
    from DiffSegLungLib.progress import BarProgress, silent

    bar = BarProgress() if with_bar else None
    try:
        result = work(request, bar or silent)
    finally:
        if bar:
            bar.close()
    _print_measures(result.measures)
    return result


def _set_encoding(stream: Any, errors: str) -> None:
    """UTF-8 whatever the system's code page says; a stream put there by a test may not offer it."""
    if hasattr(stream, "reconfigure"):
        stream.reconfigure(encoding="utf-8", errors=errors)


def run_list_models(arguments: argparse.Namespace) -> int:
    """Lists the weights that are installed."""
    from DiffSegLungLib.app.commands import models_table

    print(models_table())
    return DONE


def run_verify_models(arguments: argparse.Namespace) -> int:
    """Checks the weights' checksums."""
    from DiffSegLungLib.app.commands import verify_models

    verify_models(arguments.model, report=print)
    return DONE


def run_remove_model(arguments: argparse.Namespace) -> int:
    """Deletes a model of the user's own store."""
    from DiffSegLungLib.models.store import remove

    print(f"Removed {remove(arguments.model)}")
    return DONE


def run_check(arguments: argparse.Namespace) -> int:
    """Says whether this computer, or a CT, is fit to segment."""
    if arguments.source is not None:
        return _check_ct(arguments)
    if arguments.series is not None:
        raise UnusableInputError("--series is of a DICOM folder: give the folder, too.")
    from DiffSegLungLib.app.check import check

    with redirect_stdout(sys.stderr):  # what libraries print when they are loaded is no part of the answer
        report = check(arguments.model)
    _set_encoding(sys.stdout, errors="replace")
    print(report.as_json() if arguments.json else report.as_text(), flush=True)
    return DONE if report.ready else MissingPartError.exit_status


def _check_ct(arguments: argparse.Namespace) -> int:
    from DiffSegLungLib.app.check_ct import check_ct

    report = check_ct(arguments.source, arguments.series)
    _set_encoding(sys.stdout, errors="replace")
    print(report.as_json() if arguments.json else report.as_text(), flush=True)
    return DONE if report.usable else UnusableInputError.exit_status


def run_phantom(arguments: argparse.Namespace) -> int:
    """Writes a synthetic CT."""
    from DiffSegLungLib.app.commands import phantom_to_files

    phantom_to_files(arguments.output, arguments.truth, arguments.spacing, arguments.seed, arguments.lesions)
    return DONE


def run_serve(arguments: argparse.Namespace) -> int:
    """Serves the page in the browser."""
    from DiffSegLungLib.app.serve import ServeRequest, serve

    serve(_request(ServeRequest, arguments))
    return DONE


def run_train(arguments: argparse.Namespace) -> int:
    """Trains weights."""
    from DiffSegLungLib.training.cli import run

    return int(run(arguments) or DONE)


def run_finetune(arguments: argparse.Namespace) -> int:
    """Lets a model go on learning on the user's own CT."""
    from DiffSegLungLib.training.finetune_cli import run

    return run(arguments)
