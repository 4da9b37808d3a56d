"""The command ``finetune``: its options, and what it prints."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.training.options import (
    add_progress,
    add_threads,
    count,
    interrupt_as_termination,
    processor,
    reported,
    seed,
)
from DiffSegLungLib.training.request import DEFAULT_RATE, STAGES

if TYPE_CHECKING:
    from DiffSegLungLib.training.finetune import FinetuneRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``finetune``."""
    sources_help = "CT files, DICOM folders, or folders of these; of two patients at least"
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help=sources_help)
    parser.add_argument("--name", required=True, help="of the new model: what 'segment --model' shall take")
    base_help = "model to begin with (default: the one that 'segment' takes)"
    parser.add_argument("--base", metavar="NAME_OR_FOLDER", help=base_help)
    store_help = "your model store, takes the new model (default: DIFFSEGLUNG_MODELS)"
    parser.add_argument("--models", dest="store", metavar="FOLDER", type=Path, help=store_help)
    run_help = "takes checkpoint and prepared CT (default: NAME.run beside the model)"
    parser.add_argument("--run", metavar="FOLDER", type=Path, help=run_help)
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--steps", metavar="N", type=count, help="steps in all")
    budget.add_argument("--minutes", metavar="M", type=_minutes, help="training time (default: 30)")
    rate_help = "learning rate (default: 0.0001); a lower one keeps more of the base"
    parser.add_argument("--rate", metavar="R", type=_rate, default=DEFAULT_RATE, help=rate_help)
    stage_help = (
        "what is trained: the diffusion, the radiomic distillation, or one after the other; "
        "a network that decides learns all at once"
    )
    parser.add_argument("--stage", choices=STAGES, default="both", help=stage_help)
    refit_help = (
        "fit the reference mixture on these CT; they must show every tissue (default: keep the base's)"
    )
    parser.add_argument("--refit-mixture", action="store_true", help=refit_help)
    patients_help = "CSV with columns ct and patient, where several CT are of one patient"
    parser.add_argument("--patients", metavar="TABLE.csv", type=Path, help=patients_help)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of everything random (default: 0)")
    licence_help = "terms of the new weights (default: not stated)"
    parser.add_argument("--licence", default="not stated", help=licence_help)
    preflight_help = "say as JSON what it would take and what is missing, and do nothing"
    parser.add_argument("--preflight", action="store_true", help=preflight_help)
    add_threads(parser)
    add_progress(parser)


def run(arguments: argparse.Namespace) -> int:
    """Fine-tune, or say what it would take; returns the exit status."""
    from DiffSegLungLib.training.finetune import FinetuneRequest

    names = [one.name for one in fields(FinetuneRequest)]
    request = FinetuneRequest(**{name: getattr(arguments, name) for name in names})
    return _preflight(request, arguments) if arguments.preflight else _finetune(request, arguments)


def _preflight(request: FinetuneRequest, arguments: argparse.Namespace) -> int:
    from DiffSegLungLib.training.preflight import preflight

    with processor(arguments.threads):
        answer = preflight(request)
    print(answer.as_json(), flush=True)
    return UnusableInputError.exit_status if answer.missing else 0


def _finetune(request: FinetuneRequest, arguments: argparse.Namespace) -> int:
    from DiffSegLungLib.training.finetune import finetune

    with (
        reported(arguments.progress) as progress,
        processor(arguments.threads),
        interrupt_as_termination(),
    ):
        outcome = finetune(request, progress)
    if not outcome.verdict:  # another process of torchrun than the first, which says it
        return 0
    if arguments.progress != "json":  # programs find it in model.json; their last line is the folder
        print("\n".join([*outcome.verdict, *(f"Left out: {line}" for line in outcome.left_out)]))
    print(outcome.folder, flush=True)
    return 0


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0 < rate <= 0.1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a learning rate: give a number like 0.0001")
    return rate


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = 0.0
    if not 0 < minutes <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes")
    return minutes
