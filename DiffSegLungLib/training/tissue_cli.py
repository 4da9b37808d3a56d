"""``train hosts``, ``tissues``, ``calibrate``: the network that decides, from CT to a model with it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.training.options import add_action, add_threads, count, processor, seed

SHALLOW = "haze that the program finds is no disease but shallow breath or gravity: these CT, by name"


def add_hosts(actions: Any) -> None:
    """The action ``hosts``."""
    parser = add_action(actions, "hosts", "Bring CT onto the grid of the network, to paint disease into.")
    parser.add_argument("sources", metavar="CT", nargs="+", type=Path, help="files or DICOM folders")
    parser.add_argument("--hosts", metavar="FOLDER", type=Path, required=True, help="takes three files a CT")
    readings_help = "readers' marks, NAME_READER.json: what they mark is left out of the loss"
    parser.add_argument("--readings", metavar="FOLDER", type=Path, help=readings_help)
    parser.add_argument("--shallow", metavar="NAME", nargs="*", default=(), help=SHALLOW)
    parser.add_argument("--phantoms", metavar="N", type=count, help="so many beside them, whole")
    parser.set_defaults(action=_hosts)


def add_tissues(actions: Any) -> None:
    """The action ``tissues``."""
    summary = "Train the network that decides; the same command goes on where a run was stopped."
    parser = add_action(actions, "tissues", summary)
    parser.add_argument("--hosts", metavar="FOLDER", type=Path, required=True, help="of 'train hosts'")
    parser.add_argument("--run", metavar="FOLDER", type=Path, required=True, help="takes the checkpoint")
    parser.add_argument("--minutes", metavar="N", type=count, default=60, help="at most (default: 60)")
    parser.add_argument("--steps", metavar="N", type=count, help="at most so many in this session")
    parser.add_argument("--batch", metavar="N", type=count, default=2, help="patches a step (default: 2)")
    parser.add_argument("--workers", metavar="N", type=count, default=1, help="that paint (default: 1)")
    parser.add_argument("--start", metavar="WEIGHTS", type=Path, help="begin with these instead of at random")
    parser.add_argument("--no-noise", action="store_true", help="leave the noise prediction out of the loss")
    parser.add_argument("--float32", action="store_true", help="where bfloat16 does not stay finite")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of everything random")
    model_help = "a model that gets the network at the end"
    parser.add_argument("--model", metavar="FOLDER", type=Path, help=model_help)
    add_threads(parser)
    parser.set_defaults(action=_tissues)


def add_calibrate(actions: Any) -> None:
    """The action ``calibrate``."""
    summary = "Calibrate a model's network on painted hosts that it never saw."
    parser = add_action(actions, "calibrate", summary)
    parser.add_argument("--hosts", metavar="FOLDER", type=Path, required=True, help="kept from training")
    parser.add_argument("--model", metavar="FOLDER", type=Path, required=True, help="whose network it is")
    parser.add_argument("--patches", metavar="N", type=count, default=120, help="to paint (default: 120)")
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of what is painted")
    add_threads(parser)
    parser.set_defaults(action=_calibrate)


def _hosts(arguments: argparse.Namespace, progress: Progress) -> Path:
    from DiffSegLungLib.training.phantom_hosts import write_phantoms
    from DiffSegLungLib.training.sources import require_different_names

    require_different_names(arguments.sources)
    arguments.hosts.mkdir(parents=True, exist_ok=True)
    for done, source in enumerate(arguments.sources):
        progress("hosts", done / len(arguments.sources), source.name)
        name = source.name.split(".")[0]
        _write_hosts(source, name, arguments.hosts, arguments.readings, name in arguments.shallow)
    if arguments.phantoms:
        write_phantoms(arguments.hosts, arguments.phantoms)
    return Path(arguments.hosts)


def _write_hosts(source: Path, name: str, folder: Path, readings: Path | None, shallow: bool) -> None:
    from DiffSegLungLib.models.store import load
    from DiffSegLungLib.training.own_hosts import segmented
    from DiffSegLungLib.training.painting_hosts import ZOOMS, prepare

    volume, labels, airways = segmented(source, load(), silent)
    marks = [mark for file in _readings_of(name, readings) for mark in json.loads(file.read_text())["marks"]]
    for zoom in ZOOMS:
        host = prepare(volume, labels, airways, marks, zoom, dense_only=shallow)
        host.save(folder / f"{name}_{round(100 * zoom)}.npz")


def _readings_of(name: str, folder: Path | None) -> list[Path]:
    return sorted(folder.glob(f"{name}_?.json")) if folder else []


def _require_hosts(folder: Path) -> None:
    if not any(folder.glob("*.npz")):
        raise UnusableInputError(f"{folder} holds no hosts: make them with 'diffseglung train hosts'.")


def _tissues(arguments: argparse.Namespace, progress: Progress = silent) -> Path:
    from DiffSegLungLib.devices import choose_device
    from DiffSegLungLib.training.painting import Painter
    from DiffSegLungLib.training.tissue_training import TissuePlan, TissueTrainer

    _require_hosts(arguments.hosts)
    plan = TissuePlan(
        hosts=arguments.hosts,
        output=arguments.run,
        minutes=arguments.minutes,
        batch=arguments.batch,
        workers=arguments.workers,
        noise_weight=0.0 if arguments.no_noise else TissuePlan.noise_weight,
        bfloat16=not arguments.float32,
        device=choose_device(arguments.device),
        seed=arguments.seed,
        steps=arguments.steps or TissuePlan.steps,
        start=arguments.start,
    )
    with processor(arguments.threads):
        trainer = TissueTrainer(plan, Painter(arguments.seed))
        trainer.run(progress)
    if arguments.model:
        trainer.write_to_model(arguments.model)
    return trainer.weights


def _calibrate(arguments: argparse.Namespace, progress: Progress = silent) -> Path:
    from DiffSegLungLib.models.storage import write_calibration
    from DiffSegLungLib.models.store import load
    from DiffSegLungLib.training.painting import Painter
    from DiffSegLungLib.training.painting_hosts import hosts_of
    from DiffSegLungLib.training.tissue_calibration import fit, reliability, sample_hosts

    _require_hosts(arguments.hosts)
    model = load(str(arguments.model))
    if model.tissues is None:
        raise UnusableInputError(
            f"{arguments.model} has no network that decides: give it one with 'diffseglung train tissues'."
        )
    with processor(arguments.threads):
        sample = sample_hosts(
            model.tissues.unet,
            arguments.hosts,
            Painter(arguments.seed),
            arguments.patches,
            arguments.seed,
            progress,
        )
    found = fit(sample)
    rows = [[round(value, 4) for value in row] for row in reliability(sample, found.temperature, found.bias)]
    hosts = hosts_of(arguments.hosts)
    write_calibration(arguments.model, {**asdict(found), "hosts": hosts, "reliability": rows})
    return Path(arguments.model)
