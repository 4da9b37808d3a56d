"""The command ``train``: prepare CT, train, and make a model folder of the run.

Only this module's functions import the training, so that ``train --help`` stays quick.
"""

from __future__ import annotations

import argparse
import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.errors import CancelledError, UnusableInputError
from DiffSegLungLib.progress import Progress

if TYPE_CHECKING:
    from DiffSegLungLib.features import EmbeddingPlan
    from DiffSegLungLib.training.trainer import Settings

CHECKPOINT = "checkpoint.safetensors"
DESCRIPTION = "training.json"
"""Beside the checkpoint: the store's spacing and patients, which the checkpoint does not hold."""
SETTINGS = ("channels", "batch", "steps", "stage_two", "warm_up", "seed")
"""The trainer's settings that are options."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``prepare``, ``run``, ``fit`` and ``lungs`` to the parser of ``train``."""
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_prepare(actions)
    _add_run(actions)
    _add_fit(actions)
    _add_lungs(actions)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the action that was asked for; returns the exit status.

    Raises:
        DiffSegLungError: unusable input, something missing, or stopped before the end.
    """
    with _reported(arguments.progress) as progress:
        written: Path = arguments.action(arguments, progress)
    print(written, flush=True)
    return 0


@contextmanager
def _reported(kind: str) -> Iterator[Progress]:
    """Progress as ``segment`` shows it: JSON lines on standard output, or a bar on standard error."""
    import sys

    from DiffSegLungLib.progress import BarProgress, JsonProgress, silent

    if kind == "json":
        records = sys.stdout
        with redirect_stdout(sys.stderr):  # what libraries print must not get between the records
            yield JsonProgress(records)
        return
    bar = BarProgress() if kind == "bar" else None
    try:
        yield bar or silent
    finally:
        if bar:
            bar.close()


# --- prepare ---------------------------------------------------------------------------------------------


def _add_prepare(actions: Any) -> None:
    parser = _add_action(actions, "prepare", "Find the lungs in CT and store them at one spacing.")
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help="CT files or DICOM folders")
    parser.add_argument("--store", metavar="FOLDER", type=Path, required=True, help="takes a file a CT")
    parser.add_argument(
        "--spacing", metavar="MM", type=_length, default=1.5, help="voxel side (default: 1.5)"
    )
    parser.set_defaults(action=_prepare)


def _prepare(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.training.store import prepare

    _require_different_names(arguments.sources)
    _require_writable(arguments.store)
    for index, source in enumerate(arguments.sources):
        progress("prepare", index / len(arguments.sources), source.name)
        prepare([source], arguments.store, arguments.spacing)
    progress("prepare", 1.0, f"{len(arguments.sources)} CT")
    return Path(arguments.store)


def _require_different_names(sources: Sequence[Path]) -> None:
    """The store names its files after the CT, so of two with one name the first would be lost."""
    names = Counter(source.name.split(".")[0] for source in sources)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise UnusableInputError(f"More than one CT is named {', '.join(twice)}: rename all but one.")


# --- run -------------------------------------------------------------------------------------------------


def _add_run(actions: Any) -> None:
    summary = "Train on a store; the same command goes on where a run was stopped."
    parser = _add_action(actions, "run", summary)
    parser.add_argument("--store", metavar="FOLDER", type=Path, required=True, help="made by 'prepare'")
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="takes checkpoint and log")
    parser.add_argument("--steps", metavar="N", type=_count, help="steps in all; may grow on resuming")
    parser.add_argument("--stage-two", metavar="N", type=_count, help="step at which distillation begins")
    parser.add_argument("--warm-up", metavar="N", type=_count, help="steps over which its weight grows")
    parser.add_argument("--batch", metavar="N", type=_count, help="patches a step")
    channels_help = "channels of the four levels, multiples of 8"
    parser.add_argument("--channels", metavar="N", type=_channels, nargs=4, help=channels_help)
    parser.add_argument("--seed", metavar="N", type=_seed, help="of everything random")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    _add_threads(parser)
    parser.add_argument("--save-every", metavar="N", type=_count, default=100, help="steps (default: 100)")
    parser.set_defaults(action=_run)


def _run(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.pipeline import choose_device
    from DiffSegLungLib.training.store import load_store
    from DiffSegLungLib.training.trainer import Trainer

    patients = load_store(arguments.store)
    settings = _settings(arguments)
    _require_writable(arguments.run)
    _describe_run(arguments.run, _spacing_of_store(arguments.store), [one.name for one in patients])
    with _processor(arguments.threads), _interrupt_as_termination():
        trainer = Trainer(patients, settings, arguments.run, choose_device(arguments.device))
        written = trainer.run(progress, arguments.save_every)
    if trainer.step < settings.steps:
        raise CancelledError(f"Stopped at step {trainer.step}: the same command goes on from {written}.")
    return written


def _settings(arguments: argparse.Namespace) -> Settings:
    """The options given; where none is, the checkpoint's setting, else the default."""
    from DiffSegLungLib.training.trainer import Settings

    given = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    stored = _stored_settings(arguments.run)
    for name, value in given.items():
        if name != "steps" and stored.get(name, value) != value:
            raise UnusableInputError(
                f"The run in {arguments.run} has {name.replace('_', '-')} {stored[name]}, not {value}: "
                "leave the option out to go on, or give another --run folder."
            )
    return Settings(**(stored | given))


def _stored_settings(folder: Path) -> dict[str, Any]:
    from DiffSegLungLib.training.checkpoint import load_facts

    if not (folder / CHECKPOINT).exists():
        return {}
    stored = load_facts(folder / CHECKPOINT)["settings"]
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def _spacing_of_store(folder: Path) -> float:
    import numpy as np

    found = set()
    for file in folder.glob("*.npz"):
        with np.load(file, allow_pickle=False) as stored:
            found.add(float(json.loads(str(stored["facts"]))["spacing_mm"]))
    if len(found) > 1:
        raise UnusableInputError(f"{folder} mixes spacings of {sorted(found)} mm: prepare all CT with one.")
    return found.pop()


def _describe_run(folder: Path, spacing: float, patients: list[str]) -> None:
    """Write ``training.json``; a resumed run must have the data it began with."""
    from DiffSegLungLib.outputs import write_json

    facts = {"spacing_mm": spacing, "patients": patients}
    if (folder / CHECKPOINT).exists() and _run_facts(folder) not in ({}, facts):
        raise UnusableInputError(f"The run in {folder} began with other CT: give its store or another --run.")
    write_json(folder / DESCRIPTION, facts)


def _run_facts(folder: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        facts: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        return facts
    return {}


@contextmanager
def _processor(threads: int | None) -> Iterator[None]:
    """Use so many cores; numbers too small to matter become 0, since they slow the processor down."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        torch.set_flush_denormal(False)


@contextmanager
def _interrupt_as_termination() -> Iterator[None]:
    """Ctrl+C ends a run as SIGTERM does: after the step, with a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python sets signal handlers in the main thread only
        return
    previous = signal.signal(signal.SIGINT, lambda *_: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


# --- fit -------------------------------------------------------------------------------------------------


def _add_fit(actions: Any) -> None:
    parser = _add_action(actions, "fit", "Fit the reference mixture and write a model folder.")
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help="the CT that were trained on")
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="of 'train run'")
    parser.add_argument("--model", metavar="FOLDER", type=Path, required=True, help="the model to write")
    parser.add_argument("--name", required=True, help="what 'segment --model' shall take")
    licence_help = "terms of the weights, as the training data allow (default: not stated)"
    parser.add_argument("--licence", default="not stated", help=licence_help)
    parser.add_argument("--spacing", metavar="MM", type=_length, help="voxel side (default: the run's)")
    _add_threads(parser)
    parser.set_defaults(action=_fit)


def _fit(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.models import DESCRIPTION as MODEL_DESCRIPTION
    from DiffSegLungLib.outputs import write_text
    from DiffSegLungLib.training.reference import ReferenceSettings, write_model

    settings, spacing = _finished_run(arguments)
    if (arguments.model / MODEL_DESCRIPTION).exists():
        raise UnusableInputError(f"{arguments.model} holds a model already: give another folder.")
    _require_writable(arguments.model)
    facts = _model_facts(arguments)
    checkpoint = arguments.run / CHECKPOINT
    reference = ReferenceSettings(spacing=spacing)
    plan = _plan_for(settings["patch"])
    with _processor(arguments.threads):
        write_model(arguments.model, checkpoint, arguments.sources, facts, plan, reference, progress)
    write_text(arguments.model / "MODEL_CARD.md", _model_card(facts, spacing))
    return Path(arguments.model)


def _finished_run(arguments: argparse.Namespace) -> tuple[dict[str, Any], float]:
    """Settings and spacing of the run that shall become a model."""
    settings = _stored_settings(arguments.run)
    if not settings:
        raise UnusableInputError(f"No {CHECKPOINT} in {arguments.run}: run 'diffseglung train run' first.")
    spacing = arguments.spacing or _run_facts(arguments.run).get("spacing_mm")
    if spacing is None:
        raise UnusableInputError(f"No {DESCRIPTION} in {arguments.run} tells the spacing: give --spacing.")
    return settings, float(spacing)


def _plan_for(patch: tuple[int, int, int]) -> EmbeddingPlan:
    """Windows as large as the training patches, since normalisation looks at the whole window."""
    from DiffSegLungLib.features import EmbeddingPlan

    z, y, x = (min(step, side) for step, side in zip(EmbeddingPlan().stride, patch, strict=True))
    return EmbeddingPlan(window=patch, stride=(z, y, x))


def _model_facts(arguments: argparse.Namespace) -> dict[str, Any]:
    from DiffSegLungLib import __version__
    from DiffSegLungLib.tissues import TISSUES

    sources = [source.name for source in arguments.sources]
    return {
        "name": arguments.name,
        "version": __version__,
        "licence": arguments.licence,
        "tissues": {tissue.key: tissue.label for tissue in TISSUES},
        "training_data": {
            "trained_on": _run_facts(arguments.run).get("patients", sources),
            "fitted_on": sources,
        },
        "metrics": {},
    }


def _model_card(facts: dict[str, Any], spacing: float) -> str:
    """The little that is known of a new model; whoever gives it away has to complete it."""
    data = facts["training_data"]
    lines = [
        f"# Model card: {facts['name']}",
        "",
        "Research weights; not for clinical use. Accuracy: not measured.",
        "",
        f"- made with DiffSegLung {facts['version']}, voxels of {spacing:g} mm",
        f"- licence: {facts['licence']}",
        f"- network trained on: {', '.join(data['trained_on'])}",
        f"- mixture fitted on: {', '.join(data['fitted_on'])}",
        "",
        "To complete before this model is given away: source and terms of each CT, and what none showed.",
    ]
    return "\n".join(lines) + "\n"


# --- lungs -----------------------------------------------------------------------------------------------


def _add_lungs(actions: Any) -> None:
    summary = "Train the lung network; the same command goes on where a run was stopped."
    parser = _add_action(actions, "lungs", summary)
    sources_help = "CT files; NAME_lungmask.nii.gz beside NAME.nii.gz is taken as its lung mask"
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help=sources_help)
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="takes checkpoint and log")
    parser.add_argument(
        "--model", metavar="FOLDER", type=Path, help="a model that gets the network at the end"
    )
    parser.add_argument("--steps", metavar="N", type=_count, help="steps in all; may grow on resuming")
    parser.add_argument("--seed", metavar="N", type=_seed, help="of everything random")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    _add_threads(parser)
    parser.add_argument("--save-every", metavar="N", type=_count, default=50, help="steps (default: 50)")
    parser.set_defaults(action=_lungs)


def _lungs(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.models import find
    from DiffSegLungLib.pipeline import choose_device
    from DiffSegLungLib.training import lungs

    model = find(str(arguments.model)) if arguments.model else None
    _require_different_names(arguments.sources)
    _require_writable(arguments.run)
    names = [source.name.split(".")[0] for source in arguments.sources]
    settings = lungs.stored_settings(arguments.run, names)
    given = {
        name: getattr(arguments, name) for name in ("steps", "seed") if getattr(arguments, name) is not None
    }
    with _processor(arguments.threads), _interrupt_as_termination():
        progress("prepare", 0.0, "Finding the lungs of the CT")
        patients = lungs.load_patients(arguments.sources)
        trainer = lungs.LungTrainer(
            patients, replace(settings, **given), arguments.run, choose_device(arguments.device)
        )
        written = trainer.run(progress, arguments.save_every)
    if trainer.step < trainer.settings.steps:
        raise CancelledError(f"Stopped at step {trainer.step}: the same command goes on from {written}.")
    return lungs.write_to_model(arguments.run, model) if model else written


# --- arguments -------------------------------------------------------------------------------------------


def _add_action(actions: Any, name: str, summary: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=summary, description=summary)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    progress_help = "a bar, one JSON object a line on standard output, or nothing (default: bar)"
    parser.add_argument("--progress", choices=("json", "bar", "none"), default="bar", help=progress_help)
    return parser


def _add_threads(parser: argparse.ArgumentParser) -> None:
    # More than are idle is far worse than fewer: the threads wait for the one that shares its core.
    threads_help = "processor cores to use; no more than are idle (default: all)"
    parser.add_argument("--threads", metavar="N", type=_count, help=threads_help)


def _require_writable(folder: Path) -> None:
    from DiffSegLungLib.outputs import require_writable

    require_writable(folder / DESCRIPTION)


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seed(text: str) -> int:
    if not text.isdecimal() or int(text) >= 2**32:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 to {2**32 - 1}")
    return int(text)


def _channels(text: str) -> int:
    if _count(text) % 8:
        raise argparse.ArgumentTypeError(f"{text!r} is not a multiple of 8")
    return int(text)


def _length(text: str) -> float:
    try:
        length = float(text)
    except ValueError:
        length = 0.0
    if not 0.3 <= length <= 5.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a length from 0.3 to 5 mm")
    return length
