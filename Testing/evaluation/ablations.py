"""``make ablations``: train and fit the models that ``evaluate`` needs for its ablations by training.

python -m Testing.evaluation.ablations [--data ../shared/data] [--work ablations] [--only NAME ...]

``no-distillation`` stands beside the default model: the same stage one, then as many steps of the U-Net,
without a teacher.  ``no-warm-up`` and ``short-warm-up`` stand beside each other: both begin at random and
differ in nothing but the steps in which the teacher has a say; full length is beyond a processor.
Whatever is finished is not made again; a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load as load_tensors

from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.evaluation.command import default_data
from DiffSegLungLib.io.atomic import write_json
from DiffSegLungLib.models.format import DESCRIPTION as MODEL
from DiffSegLungLib.progress import BarProgress
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training.cli import DESCRIPTION
from DiffSegLungLib.training.options import processor
from DiffSegLungLib.training.store import Patient, load_store, spacing_of_store
from DiffSegLungLib.training.trainer import Settings, Trainer

ROOT = Path(__file__).resolve().parents[2]
FITTED_ON = ("P001", "cap001", "NLST-101287", "LIDC-IDRI-0314", "LCTSC-Test-S1-201", "LCTSC-Test-S1-103")
"""The CT that the default model's mixture was fitted on."""
STAGE_ONE = "9576914:Resources/models/second/weights.safetensors"
"""In the history of this project: the U-Net that the default model's distillation began with."""
STAGE_ONE_SHA256 = "36483e0fc8719f391348fe9eb60873eb0caaf0be97d25a0d701eaf76d6266c25"
# One rate all along: with a slower one from stage two on, the warm-up would not be all that differs.
SHORT = Settings(batch=4, steps=240, learning_rate=8e-4, learning_rate_two=8e-4)
SAVE_EVERY = 20


@dataclass(frozen=True)
class Ablation:
    """A model to train.

    Attributes:
        name: of the model, as ``DiffSegLungLib.evaluation.study`` looks for it.
        settings: of the run.
        from_stage_one: begin with the U-Net of ``STAGE_ONE`` instead of a random one.
    """

    name: str
    settings: Settings
    from_stage_one: bool = False


def ablations() -> list[Ablation]:
    """The models, the quickest first."""
    # The default model's U-Net moved in the last 140 of its 520 steps, at this rate on average; that of the
    # model before it in 102, to which this run was fitted.
    without = Settings(
        batch=8,
        steps=102,
        stage_two=0,
        distillation=0.0,
        learning_rate=5e-5,
        learning_rate_two=5e-5,
        constant_rate=True,
    )
    return [
        Ablation("no-distillation", without, from_stage_one=True),
        Ablation("short-warm-up", replace(SHORT, stage_two=96, warm_up=24)),
        Ablation("no-warm-up", replace(SHORT, stage_two=0, warm_up=1)),
    ]


def stage_one(channels: tuple[int, ...]) -> Student:
    """A student with the U-Net of stage one; its head knows nothing.

    Raises:
        MissingPartError: the project's history is not at hand, or not the expected one.
    """
    command = ["git", "-C", str(ROOT), "show", STAGE_ONE]
    content = subprocess.run(command, capture_output=True, check=False).stdout
    if hashlib.sha256(content).hexdigest() != STAGE_ONE_SHA256:
        raise MissingPartError(f"{STAGE_ONE} is not in this checkout: clone the project with its history.")
    student, prefix = Student(channels), "unet."
    tensors = load_tensors(content)
    own = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    student.unet.load_state_dict(own)
    return student


def train(ablation: Ablation, patients: list[Patient], spacing: float, run: Path) -> None:
    """Train, or go on with, one run."""
    run.mkdir(parents=True, exist_ok=True)
    write_json(run / DESCRIPTION, {"spacing_mm": spacing, "patients": [one.name for one in patients]})
    settings = ablation.settings
    torch.manual_seed(settings.seed)
    start = stage_one(settings.channels) if ablation.from_stage_one else None
    bar = BarProgress()
    try:
        Trainer(patients, settings, run, start=start).run(bar, SAVE_EVERY)
    finally:
        bar.close()


def make(ablation: Ablation, data: Path, work: Path, models: Path, threads: int) -> Path:
    """Train and fit one model, unless it is there."""
    folder, run, store = models / ablation.name, work / "runs" / ablation.name, work / "store"
    if (folder / MODEL).exists():
        return folder
    with processor(threads):
        train(ablation, load_store(store), spacing_of_store(store), run)
    sources = [str(data / "train" / f"{name}.nii.gz") for name in FITTED_ON]
    words = ["train", "fit", *sources, "--run", str(run), "--model", str(folder), "--name", ablation.name]
    _command([*words, "--licence", "not for release", "--threads", str(threads)])
    return folder


def _command(words: list[str]) -> None:
    """One ``diffseglung`` command; its message was printed where it fails."""
    if status := cli.main(words):
        raise SystemExit(status)


def main() -> None:
    """Prepare the CT, then one model after the other."""
    names = [one.name for one in ablations()]
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=default_data(), help="the real CT, as of 'evaluate'")
    parser.add_argument("--work", type=Path, default=ROOT / "ablations", help="takes store and runs")
    parser.add_argument("--models", type=Path, help="takes the models (default: WORK/models)")
    parser.add_argument("--threads", type=int, default=1, help="processor cores to use (default: 1)")
    parser.add_argument("--only", nargs="+", choices=names, default=names, help="make these")
    arguments = parser.parse_args()
    sources = [str(path) for path in sorted((arguments.data / "train").glob("*.nii.gz")) if _is_ct(path)]
    _command(["train", "prepare", *sources, "--store", str(arguments.work / "store"), "--held-back", "0"])
    models = arguments.models or arguments.work / "models"
    for ablation in ablations():
        if ablation.name in arguments.only:
            print(make(ablation, arguments.data, arguments.work, models, arguments.threads), flush=True)


def _is_ct(path: Path) -> bool:
    """Not the map of an annotation, whose name ends in an underscore and what it is."""
    return "_" not in path.name


if __name__ == "__main__":
    main()
