"""The command ``train``: prepare CT, train, and make a model folder of the run.

Only this module's functions import the training, so that ``train --help`` stays quick.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.errors import CancelledError, UnusableInputError
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.training.options import (
    add_action,
    add_threads,
    channel_count,
    count,
    held_back_share,
    interrupt_as_termination,
    length_mm,
    processor,
    reported,
    seed,
)
from DiffSegLungLib.training.run_files import CHECKPOINT

if TYPE_CHECKING:
    from DiffSegLungLib.representation.features import EmbeddingPlan
    from DiffSegLungLib.representation.student import Student
    from DiffSegLungLib.training.store import Patient
    from DiffSegLungLib.training.trainer import Settings, Watch

DESCRIPTION = "training.json"
"""Beside the checkpoint: the store's spacing and patients, which the checkpoint does not hold."""
SETTINGS = ("channels", "batch", "steps", "stage_two", "warm_up", "head_first", "seed", "precision")
"""The trainer's settings that are options."""
ABLATIONS: dict[str, dict[str, Any]] = {
    "hu-preservation": {"hu_preserved": False},
    "distillation": {"distillation": 0.0},
    "warm-up": {"stage_two": 0, "warm_up": 1},
    "augmentation": {"augmentation": False},
}
"""What can be left out, and the settings that leave it out; one noise level alone is an option of 'fit'."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``prepare``, ``run``, ``report``, ``fit``, ``lungs``, ``hosts`` and ``tissues`` to the parser."""
    from DiffSegLungLib.training import tissue_cli

    actions = parser.add_subparsers(metavar="ACTION", required=True)
    _add_prepare(actions)
    _add_run(actions)
    _add_report(actions)
    _add_fit(actions)
    _add_lungs(actions)
    tissue_cli.add_hosts(actions)
    tissue_cli.add_tissues(actions)
    tissue_cli.add_calibrate(actions)


def run(arguments: argparse.Namespace) -> int:
    """Carry out the action that was asked for; returns the exit status.

    Raises:
        DiffSegLungError: unusable input, something missing, or stopped before the end.
    """
    with reported(arguments.progress) as progress:
        written: Path = arguments.action(arguments, progress)
    print(written, flush=True)
    return 0


def _add_prepare(actions: Any) -> None:
    parser = add_action(actions, "prepare", "Find the lungs in CT and store them at one spacing.")
    sources_help = "CT files, DICOM folders, or folders of these"
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help=sources_help)
    parser.add_argument("--store", metavar="FOLDER", type=Path, required=True, help="takes a file a CT")
    parser.add_argument(
        "--spacing", metavar="MM", type=length_mm, default=1.5, help="voxel side (default: 1.5)"
    )
    persons_help = "CSV with columns ct and patient, where several CT are of one patient"
    parser.add_argument("--patients", metavar="TABLE.csv", type=Path, help=persons_help)
    share_help = "share of the patients that is not trained on (default: 0.2; 0 for none)"
    parser.add_argument("--held-back", metavar="SHARE", type=held_back_share, default=0.2, help=share_help)
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of the choice of patients")
    parser.set_defaults(action=_prepare)


def _prepare(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.training.sources import find_ct, read_persons, require_different_names
    from DiffSegLungLib.training.split import describe_split, read_split, split_patients, write_split
    from DiffSegLungLib.training.store import load_store, prepare, stored_megabytes

    persons = read_persons(arguments.patients)
    sources = find_ct(arguments.sources)
    require_different_names(sources)
    _require_writable(arguments.store)
    for index, source in enumerate(sources):
        progress("prepare", index / len(sources), source.name)
        _prepare_or_leave_out(
            source, arguments, lambda one: prepare([one], arguments.store, arguments.spacing, persons)
        )
    patients = load_store(arguments.store)
    known = read_split(arguments.store)
    split = split_patients((one.person for one in patients), arguments.held_back, arguments.seed, known)
    write_split(arguments.store, split, arguments.seed)
    size = stored_megabytes(arguments.store)
    progress("prepare", 1.0, f"{len(patients)} CT, {size:.1f} MB; {describe_split(split)}")
    return Path(arguments.store)


def _prepare_or_leave_out(
    source: Path, arguments: argparse.Namespace, prepare: Callable[[Path], object]
) -> None:
    """A file that was named must be a CT; in a folder what is none (a label map, a scout) is left out."""
    try:
        prepare(source)
    except UnusableInputError as error:
        if source in arguments.sources:
            raise
        print(f"diffseglung: warning: left out: {error}", file=sys.stderr)


def _add_run(actions: Any) -> None:
    summary = "Train on a store; the same command goes on where a run was stopped."
    parser = add_action(actions, "run", summary)
    parser.add_argument("--store", metavar="FOLDER", type=Path, required=True, help="made by 'prepare'")
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="takes checkpoint and log")
    parser.add_argument("--steps", metavar="N", type=count, help="steps in all; may grow on resuming")
    parser.add_argument("--stage-two", metavar="N", type=count, help="step at which distillation begins")
    parser.add_argument("--warm-up", metavar="N", type=count, help="steps over which its weight grows")
    head_help = "steps of distillation in which the head alone learns (default: none)"
    parser.add_argument("--head-first", metavar="N", type=count, help=head_help)
    parser.add_argument("--batch", metavar="N", type=count, help="patches a step")
    channels_help = "channels of the four levels, multiples of 8"
    parser.add_argument("--channels", metavar="N", type=channel_count, nargs=4, help=channels_help)
    unet_help = "begin with this model's U-Net instead of stage one; the head begins anew"
    parser.add_argument("--unet", metavar="MODEL", help=unet_help)
    parser.add_argument("--seed", metavar="N", type=seed, help="of everything random")
    precision_help = "of the network; bfloat16 is faster on graphics cards (default: float32)"
    parser.add_argument("--precision", choices=("float32", "bfloat16"), help=precision_help)
    without_help = f"leave out, for an ablation: {', '.join(ABLATIONS)}"
    parser.add_argument(
        "--without", metavar="PART", nargs="+", choices=ABLATIONS, default=[], help=without_help
    )
    board_help = "also write scalars and sample pictures for TensorBoard into the run's folder"
    parser.add_argument("--tensorboard", action="store_true", help=board_help)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), default="auto")
    add_threads(parser)
    parser.add_argument("--save-every", metavar="N", type=count, default=100, help="steps (default: 100)")
    parser.set_defaults(action=_run)


def _run(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.devices import choose_device
    from DiffSegLungLib.training.distributed import joined
    from DiffSegLungLib.training.store import load_store, spacing_of_store
    from DiffSegLungLib.training.trainer import Trainer

    patients, held_back = _split_store(load_store(arguments.store), arguments.store)
    settings = _settings(arguments)
    spacing = spacing_of_store(arguments.store)
    _require_writable(arguments.run)
    with (
        joined(choose_device(arguments.device)) as (ranks, device),
        processor(arguments.threads),
        interrupt_as_termination(),
    ):
        if ranks.number == 0:
            _describe_run(arguments.run, spacing, [one.name for one in patients])
        watch = _board(arguments, progress) if arguments.tensorboard and ranks.number == 0 else None
        start = _with_unet_of(arguments.unet, settings) if arguments.unet else None
        trainer = Trainer(patients, settings, arguments.run, device, held_back, ranks, start)
        written = trainer.run(silent if ranks.number else progress, arguments.save_every, watch)
    if trainer.step < settings.steps:
        raise CancelledError(f"Stopped at step {trainer.step}: the same command goes on from {written}.")
    return written


def _with_unet_of(model: str, settings: Settings) -> Student:
    """A student whose U-Net is a model's and whose head knows nothing yet."""
    import torch

    from DiffSegLungLib.models import store as models
    from DiffSegLungLib.representation.student import Student

    base = models.load(model)
    channels = tuple(base.description["architecture"]["channels"])
    if channels != settings.channels:
        told = " ".join(str(width) for width in channels)
        raise UnusableInputError(f"The U-Net of {model} has other channels: give --channels {told}.")
    torch.manual_seed(settings.seed)
    student = Student(channels)
    student.unet.load_state_dict(base.student.unet.state_dict())
    return student


def _split_store(patients: list[Patient], store: Path) -> tuple[list[Patient], list[Patient]]:
    """Patients to train on, and those held back, as the store has them split."""
    from DiffSegLungLib.training.split import read_split

    split = read_split(store)
    held_back = [one for one in patients if split.get(one.person, False)]
    return [one for one in patients if one not in held_back], held_back


def _board(arguments: argparse.Namespace, progress: Progress) -> Watch:
    from DiffSegLungLib.training.board import Board

    return Board(arguments.run, arguments.save_every)


def _settings(arguments: argparse.Namespace) -> Settings:
    """The options given; where none is, the checkpoint's setting, else the default."""
    from DiffSegLungLib.training.trainer import Settings

    given = {name: getattr(arguments, name) for name in SETTINGS if getattr(arguments, name) is not None}
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    for part in arguments.without:
        given |= ABLATIONS[part]
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


def _describe_run(folder: Path, spacing: float, patients: list[str]) -> None:
    """Write ``training.json``; a resumed run must have the data it began with."""
    from DiffSegLungLib.io.atomic import write_json

    facts = {"spacing_mm": spacing, "patients": patients}
    if (folder / CHECKPOINT).exists() and _run_facts(folder) not in ({}, facts):
        raise UnusableInputError(f"The run in {folder} began with other CT: give its store or another --run.")
    write_json(folder / DESCRIPTION, facts)


def _run_facts(folder: Path) -> dict[str, Any]:
    with suppress(FileNotFoundError):
        facts: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        return facts
    return {}


def _add_report(actions: Any) -> None:
    parser = add_action(actions, "report", "Draw how a run went: losses, embedding, samples.")
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="of 'train run'")
    store_help = "the store of the run; with it the embedding and samples are drawn too"
    parser.add_argument("--store", metavar="FOLDER", type=Path, help=store_help)
    output_help = "takes report.html and its pictures (default: the run's folder)"
    parser.add_argument("-o", "--output", metavar="FOLDER", type=Path, help=output_help)
    add_threads(parser)
    parser.set_defaults(action=_report)


def _report(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.training.report import write_run_report

    if not _stored_settings(arguments.run):
        raise UnusableInputError(f"No {CHECKPOINT} in {arguments.run}: run 'diffseglung train run' first.")
    with processor(arguments.threads):
        return write_run_report(arguments.run, arguments.store, arguments.output or arguments.run, progress)


def _add_fit(actions: Any) -> None:
    parser = add_action(actions, "fit", "Fit the reference mixture and write a model folder.")
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help="the CT that were trained on")
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="of 'train run'")
    parser.add_argument("--model", metavar="FOLDER", type=Path, required=True, help="the model to write")
    parser.add_argument("--name", required=True, help="what 'segment --model' shall take")
    licence_help = "terms of the weights, as the training data allow (default: not stated)"
    parser.add_argument("--licence", default="not stated", help=licence_help)
    parser.add_argument("--spacing", metavar="MM", type=length_mm, help="voxel side (default: the run's)")
    timesteps_help = "noise levels the embedding is read at; one for an ablation (default: 10 50 100)"
    parser.add_argument("--timesteps", metavar="T", type=count, nargs="+", help=timesteps_help)
    add_threads(parser)
    parser.set_defaults(action=_fit)


def _fit(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.io.atomic import write_text
    from DiffSegLungLib.models.format import DESCRIPTION as MODEL_DESCRIPTION
    from DiffSegLungLib.training.reference import ReferenceSettings, write_model

    settings, spacing = _finished_run(arguments)
    if (arguments.model / MODEL_DESCRIPTION).exists():
        raise UnusableInputError(f"{arguments.model} holds a model already: give another folder.")
    _require_writable(arguments.model)
    facts = _model_facts(arguments)
    checkpoint = arguments.run / CHECKPOINT
    reference = ReferenceSettings(spacing=spacing)
    plan = plan_for(settings["patch"], arguments.timesteps)
    with processor(arguments.threads):
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


def plan_for(patch: tuple[int, int, int], timesteps: Sequence[int] | None = None) -> EmbeddingPlan:
    """Windows as large as the training patches, since normalisation looks at the whole window."""
    from DiffSegLungLib.representation.diffusion import TIMESTEPS
    from DiffSegLungLib.representation.features import EmbeddingPlan

    read_at = tuple(timesteps or EmbeddingPlan().timesteps)
    if max(read_at) >= TIMESTEPS:
        raise UnusableInputError(f"Noise levels lie from 1 to {TIMESTEPS - 1}, not {max(read_at)}.")
    z, y, x = (min(step, side) for step, side in zip(EmbeddingPlan().stride, patch, strict=True))
    return EmbeddingPlan(window=patch, stride=(z, y, x), timesteps=read_at)


def _model_facts(arguments: argparse.Namespace) -> dict[str, Any]:
    from DiffSegLungLib.tissues import TISSUES
    from DiffSegLungLib.version import __version__

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


def _add_lungs(actions: Any) -> None:
    summary = "Train the lung network; the same command goes on where a run was stopped."
    parser = add_action(actions, "lungs", summary)
    sources_help = "CT files; NAME_lungmask.nii.gz beside NAME.nii.gz is taken as its lung mask"
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help=sources_help)
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="takes checkpoint and log")
    parser.add_argument(
        "--model", metavar="FOLDER", type=Path, help="a model that gets the network at the end"
    )
    parser.add_argument("--steps", metavar="N", type=count, help="steps in all; may grow on resuming")
    parser.add_argument("--seed", metavar="N", type=seed, help="of everything random")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    add_threads(parser)
    parser.add_argument("--save-every", metavar="N", type=count, default=50, help="steps (default: 50)")
    parser.set_defaults(action=_lungs)


def _lungs(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.devices import choose_device
    from DiffSegLungLib.models.store import find
    from DiffSegLungLib.training import lungs
    from DiffSegLungLib.training.sources import require_different_names

    model = find(str(arguments.model)) if arguments.model else None
    require_different_names(arguments.sources)
    _require_writable(arguments.run)
    names = [source.name.split(".")[0] for source in arguments.sources]
    settings = lungs.stored_settings(arguments.run, names)
    given = {
        name: getattr(arguments, name) for name in ("steps", "seed") if getattr(arguments, name) is not None
    }
    with processor(arguments.threads), interrupt_as_termination():
        progress("prepare", 0.0, "Finding the lungs of the CT")
        patients = lungs.load_patients(arguments.sources)
        trainer = lungs.LungTrainer(
            patients, replace(settings, **given), arguments.run, choose_device(arguments.device)
        )
        written = trainer.run(progress, arguments.save_every)
    if trainer.step < trainer.settings.steps:
        raise CancelledError(f"Stopped at step {trainer.step}: the same command goes on from {written}.")
    return lungs.write_to_model(arguments.run, model) if model else written


def _require_writable(folder: Path) -> None:
    from DiffSegLungLib.io.atomic import require_writable

    require_writable(folder / DESCRIPTION)
