"""Fine-tuning: a model goes on learning on one's own CT, without labels, and becomes a model of its own.

    from DiffSegLungLib.training.finetune import FinetuneRequest, finetune

    outcome = finetune(FinetuneRequest(sources=(folder,), name="our-scanner", minutes=30))

The base model is never changed.  Part of the patients is held back; on them both models are compared, and
what got worse is said.  A run that was stopped or killed goes on with the same call.  ``torchrun`` trains on
several graphics cards: ``torchrun --nproc-per-node 2 -m DiffSegLungLib finetune ...``.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.errors import CancelledError, MissingPartError, UnusableInputError
from DiffSegLungLib.io.atomic import atomic_path, require_writable, write_json
from DiffSegLungLib.models import store as models
from DiffSegLungLib.progress import Progress, part, silent
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.distributed import Ranks, joined
from DiffSegLungLib.training.healthy import HealthyLung
from DiffSegLungLib.training.judge import noise_loss, teacher_r2
from DiffSegLungLib.training.lock import locked
from DiffSegLungLib.training.run_files import BEST, CHECKPOINT, PLAN, SAMPLES, STOP
from DiffSegLungLib.training.sources import find_ct, read_persons, require_different_names
from DiffSegLungLib.training.split import describe_split, read_split, split_patients, write_split
from DiffSegLungLib.training.store import Patient, load_store, name_of, prepare
from DiffSegLungLib.training.trainer import Settings, Trainer, stored_settings

STAGES = ("diffusion", "distillation", "both")
DEFAULT_MINUTES = 30.0
BATCH = 8
CHECKS = 10
"""Comparisons with the patients held back in a run."""
LEAST_STEPS_BETWEEN, MOST_STEPS_BETWEEN = 20, 100
"""A comparison takes as long as some ten steps."""
MOST_RISING_STEPS = 50
PATIENCE = 4
"""Comparisons without a gain after which the run ends."""
DRIFT_POINTS = 2.0
"""Percentage points by which the disease seen in a healthy lung may grow."""
R2_WEIGHT = 0.5
DRIFTED = "healthy lung began to drift"


@dataclass(frozen=True)
class FinetuneRequest:
    """What shall be done.

    Attributes:
        sources: CT files, DICOM folders, or folders of these; two patients at least.
        name: of the new model.
        base: name or folder of the model to begin with; the default one without it.
        store: the user's model store, which takes the new model (default: ``DIFFSEGLUNG_MODELS``).
        run: takes checkpoint and prepared CT (default: a folder beside the model to be).
        steps: how long; else ``minutes``.
        minutes: how long, about.
        stage: ``diffusion``, ``distillation``, or ``both`` one after the other.
        refit_mixture: fit the reference mixture anew on these CT; else the base model's is kept.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        seed: of everything random.
        patients: CSV with the columns ct and patient, where several CT are of one patient.
        licence: terms of the new weights.
    """

    sources: Sequence[Path]
    name: str
    base: str | None = None
    store: Path | None = None
    run: Path | None = None
    steps: int | None = None
    minutes: float | None = None
    stage: str = "both"
    refit_mixture: bool = False
    device: str = "auto"
    seed: int = 0
    patients: Path | None = None
    licence: str = "not stated"

    @property
    def target(self) -> Path:
        """The new model's folder.

        Raises:
            MissingPartError: there is no store of the user's own.
        """
        store = self.store or models.own_store()
        if store is None:
            raise MissingPartError(
                "No model store of your own: give --models FOLDER, or set DIFFSEGLUNG_MODELS."
            )
        return store / self.name

    @property
    def run_folder(self) -> Path:
        """Where the run keeps its state."""
        return self.run or self.target.with_name(f"{self.name}.run")


@dataclass(frozen=True)
class FinetuneOutcome:
    """What came of it.

    Attributes:
        folder: the new model.
        before: figures of the base model on the patients held back.
        after: the same of the new one.
        verdict: what got better or worse, in sentences.
    """

    folder: Path
    before: dict[str, Any] = field(default_factory=dict)
    after: dict[str, Any] = field(default_factory=dict)
    verdict: tuple[str, ...] = ()


def finetune(request: FinetuneRequest, progress: Progress = silent) -> FinetuneOutcome:
    """Fine-tune a model; the same request goes on where an earlier one was stopped or killed.

    Args:
        request: what shall be done.
        progress: told of every stage.

    Returns:
        The new model's folder and how it compares.

    Raises:
        UnusableInputError: CT, name or folder cannot be used.
        MissingPartError: the base model or a device is missing.
        CancelledError: stopped by SIGTERM or the file ``stop``; a checkpoint is left.
    """
    from DiffSegLungLib.training.before_after import finish

    device = choose_device(request.device)
    base = models.load(request.base, device)
    sources = usable_sources(request)
    with joined(device) as (ranks, own_device):
        if ranks.number:
            return _train_along(request, base, sources, ranks, own_device)
        with locked(request.run_folder):
            (request.run_folder / STOP).unlink(missing_ok=True)
            people = _prepared(request, sources, base.spacing, part(progress, 0.0, 0.15))
            settings = _settings(request, base, sources)
            ranks.wait()
            _train(request, base, settings, people, part(progress, 0.15, 0.8), ranks, own_device)
            student = _best_student(request.run_folder, base)
            names = {one.name for one in people[1]}
            split = (
                [source for source in sources if name_of(source) not in names],
                [source for source in sources if name_of(source) in names],
            )
            return finish(request, base, student, split, people, part(progress, 0.8, 1.0))


def _train_along(
    request: FinetuneRequest, base: models.Model, sources: list[Path], ranks: Ranks, device: str
) -> FinetuneOutcome:
    """What the other processes of ``torchrun`` do: they train, and leave all files to the first."""
    ranks.wait()  # until the first has prepared the CT
    store = request.run_folder / "store"
    split = read_split(store)
    patients = load_store(store, [name_of(source) for source in sources])
    settings = _settings(request, base, sources)
    _train(request, base, settings, _parted(patients, split), silent, ranks, device)
    return FinetuneOutcome(request.target)


# --- what is asked for -----------------------------------------------------------------------------------


def usable_sources(request: FinetuneRequest) -> list[Path]:
    """The CT, after the checks that need no reading of them."""
    require_free_name(request)
    sources = find_ct(request.sources)
    require_different_names(sources)
    require_writable(request.target.with_name(f".{request.name}.probe"))
    return sources


def require_free_name(request: FinetuneRequest) -> None:
    """The new model must not take the place of one that is there.

    Raises:
        UnusableInputError: the name is none, taken, or would lie among the shipped models.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,60}", request.name) or request.name.endswith(".run"):
        raise UnusableInputError(f"{request.name!r} is no name for a model: use letters, digits, - and _.")
    if request.target.parent.resolve() in [one.resolve() for one in models.shipped_folders()]:
        raise UnusableInputError(f"{request.target.parent} holds the shipped models: give another --models.")
    taken = request.name in {info.name for info in models.list_models()}
    if taken or (request.target / models.DESCRIPTION).exists():
        raise UnusableInputError(f"There is a model {request.name!r} already: give another --name.")


def _prepared(
    request: FinetuneRequest, sources: list[Path], spacing: float, progress: Progress
) -> tuple[list[Patient], list[Patient]]:
    """The patients to train on, and those held back."""
    store = request.run_folder / "store"
    persons = read_persons(request.patients)
    if len({persons.get(name_of(one), name_of(one)) for one in sources}) < 2:
        raise UnusableInputError(TOO_FEW)  # told before the long work; DICOM may show it only after
    usable = []
    for index, source in enumerate(sources):
        progress("prepare", index / len(sources), f"CT {index + 1} of {len(sources)}")
        try:
            prepare([source], store, spacing, persons)
            usable.append(name_of(source))
        except UnusableInputError as error:
            if source in request.sources:
                raise
            progress("prepare", index / len(sources), f"left out: {error}")
    if not usable:
        raise UnusableInputError(f"No CT with lungs among the {len(sources)} files given.")
    patients = load_store(store, usable)
    split = split_patients((one.person for one in patients), seed=request.seed, known=read_split(store))
    if len(split) < 2:
        raise UnusableInputError(TOO_FEW)
    write_split(store, split, request.seed)
    progress("prepare", 1.0, describe_split(split).split(" (")[0])
    return _parted(patients, split)


def _parted(patients: list[Patient], split: Mapping[str, bool]) -> tuple[list[Patient], list[Patient]]:
    """Those to train on, and those held back."""
    held_back = [one for one in patients if split[one.person]]
    return [one for one in patients if not split[one.person]], held_back


TOO_FEW = (
    "CT of two patients at least are needed: one is held back to judge the result. Add CT of another patient."
)


def base_settings(request: FinetuneRequest, base: models.Model, steps: int) -> Settings:
    """The trainer's settings: gentle rates, and the network of the base model."""
    both = steps // 2 if request.stage == "both" else 0
    return Settings(
        channels=tuple(base.description["architecture"]["channels"]),
        patch=base.plan.window,
        region=min(16, *base.plan.window),
        batch=BATCH,
        steps=steps,
        stage_two=both,
        warm_up=max(steps // 5, 1),
        distillation=0.0 if request.stage == "diffusion" else 0.4,
        learning_rate=1e-4,
        learning_rate_two=3e-5,
        constant_rate=True,
        rise=min(steps // 5, MOST_RISING_STEPS),
        seed=request.seed,
        fixed_scale=not request.refit_mixture,
    )


def _settings(request: FinetuneRequest, base: models.Model, sources: list[Path]) -> Settings:
    """As stored by an interrupted run, which must have been of the same CT and base; else new ones."""
    from DiffSegLungLib.training.preflight import seconds_per_step

    plan = request.run_folder / PLAN
    asked = {"base": base.info.sha256, "stage": request.stage, "ct": sorted(name_of(one) for one in sources)}
    if plan.exists():
        stored = json.loads(plan.read_text(encoding="utf-8"))
        if {key: stored[key] for key in asked} != asked:
            raise UnusableInputError(
                f"The run in {request.run_folder} began with another base model, stage or other CT: "
                "repeat what it began with, or give another --name or --run."
            )
        return stored_settings(stored["settings"])
    steps = request.steps
    if steps is None:
        minutes = request.minutes or DEFAULT_MINUTES
        trial = base_settings(request, base, 10)
        steps = max(int(60 * minutes / seconds_per_step(trial, choose_device(request.device))), 1)
    settings_now = base_settings(request, base, steps)
    write_json(plan, {**asked, "settings": asdict(settings_now)})
    return settings_now


# --- the training ----------------------------------------------------------------------------------------


def _train(
    request: FinetuneRequest,
    base: models.Model,
    settings: Settings,
    people: tuple[list[Patient], list[Patient]],
    progress: Progress,
    ranks: Ranks,
    device: str,
) -> None:
    """Train until the budget is used up or nothing is gained; raises CancelledError where it was stopped."""
    state = request.run_folder / CHECKPOINT
    if state.exists() and checkpoint.load_facts(state)["notes"].get("ended"):
        return
    patients, held_back = people
    trainer = Trainer(patients, settings, request.run_folder, device, held_back, ranks, base.student)
    guard = Guard(request, base, settings)
    every = min(max(settings.steps // CHECKS, LEAST_STEPS_BETWEEN), MOST_STEPS_BETWEEN, settings.steps)
    trainer.run(progress, every, guard)
    first = ranks.number == 0  # it alone knows of its clock
    if first and trainer.step < settings.steps and not trainer.notes.get("ended"):
        raise CancelledError(f"Stopped at step {trainer.step}: the same command goes on from there.")


class Guard:
    """Watches a fine-tuning: keeps the best weights, ends it when nothing is gained or healthy lung drifts.

    Args:
        request: what was asked for.
        base: the base model.
        settings: of the trainer.
    """

    def __init__(self, request: FinetuneRequest, base: models.Model, settings: Settings) -> None:
        self.request, self.settings = request, settings
        self.base = base.student
        self.healthy = HealthyLung(base)
        self.at_first = self.healthy.diseased_percent(base.student)
        self.limit_s = 60 * request.minutes if request.minutes else float("inf")
        self.last = time.monotonic()

    def __call__(self, trainer: Trainer, facts: dict[str, float]) -> bool:
        """After a step: true when the run shall end."""
        now = time.monotonic()
        notes = trainer.notes
        notes["seconds"] = notes.get("seconds", 0.0) + now - self.last
        self.last = now
        if "held_back" in facts:
            self._compare(trainer, facts["held_back"])
            if trainer.ranks.number == 0:
                _draw_samples(self.request.run_folder / SAMPLES, trainer)
        if "ended" not in notes and notes["seconds"] > self.limit_s:
            notes["ended"] = "the time asked for is used up"
        return "ended" in notes or (self.request.run_folder / STOP).exists()

    def _compare(self, trainer: Trainer, noise: float) -> None:
        """Keep the weights if they are the best so far."""
        notes = trainer.notes
        diseased = self.healthy.diseased_percent(trainer.average)
        if diseased > self.at_first + DRIFT_POINTS:
            notes["ended"] = (
                f"{DRIFTED}: {diseased:.1f} % of a healthy phantom was called diseased, "
                f"{self.at_first:.1f} % before"
            )
            return
        reached = self._score(trainer, noise)
        if "best_score" not in notes or reached < notes["best_score"]:
            notes |= {"best_score": reached, "best_step": trainer.step, "waited": 0}
            if trainer.ranks.number == 0:
                _keep(self.request.run_folder / BEST, trainer.average)
        else:
            notes["waited"] += 1
        if notes["waited"] >= PATIENCE:
            notes["ended"] = f"nothing was gained on the patients held back since step {notes['best_step']}"

    def _score(self, trainer: Trainer, noise: float) -> list[float]:
        """The averaged weights' :func:`score` on the patients held back."""
        assert trainer.held_back is not None
        if "base_noise" not in trainer.notes:
            trainer.notes["base_noise"] = noise_loss(self.base, trainer.held_back)
        explained = float("nan")
        if self.settings.distillation > 0:
            explained = teacher_r2(trainer.average, trainer.held_back, self.settings.region)
        return score(noise, trainer.notes["base_noise"], explained)


def score(noise: float, base_noise: float, explained: float) -> list[float]:
    """What weights are worth; of two lists the lower one is better.

    Args:
        noise: noise loss on the patients held back.
        base_noise: the base model's; a loss above it counts before all else.
        explained: R2 of the teacher's numbers; NaN where it is not known or not asked for.
    """
    untold = R2_WEIGHT * (1 - explained) if explained == explained else 0.0
    return [float(noise > base_noise), noise + untold]


def _draw_samples(path: Path, trainer: Trainer) -> None:
    """What the network makes of noise at present, below real patches of the patients held back."""
    from matplotlib.image import imsave

    from DiffSegLungLib.training.board import SAMPLE_COUNT, SAMPLE_STEPS, samples_picture

    held_back = trainer.held_back
    assert held_back is not None
    shown = replace(held_back, hu=held_back.hu[:SAMPLE_COUNT], mask=held_back.mask[:SAMPLE_COUNT])
    picture = samples_picture(trainer, shown, SAMPLE_STEPS)
    with atomic_path(path) as partial:
        imsave(partial, picture, cmap="gray", vmin=0, vmax=1)


def _keep(path: Path, student: Student) -> None:
    tensors = {key: value.detach().cpu().contiguous() for key, value in student.state_dict().items()}
    with atomic_path(path) as partial:
        save_file(tensors, str(partial))


def _best_student(run: Path, base: models.Model) -> Student:
    """The best weights of the run; the base model's where healthy lung drifted before any were kept."""
    import copy

    student = copy.deepcopy(base.student)
    if (run / BEST).exists():
        student.load_state_dict(load_file(str(run / BEST)))
    elif not ended_because(run).startswith(DRIFTED):  # the time was over before the first comparison
        student.load_state_dict(checkpoint.load_module(run / CHECKPOINT, "average"))
    return student.eval().requires_grad_(False)


def ended_because(run: Path) -> str:
    """Why the training of a run ended before its budget was used up; empty if it did not."""
    facts = checkpoint.load_facts(run / CHECKPOINT)
    return str(facts["notes"].get("ended", ""))


def trained_steps(run: Path) -> int:
    """Steps that a run has taken."""
    return int(checkpoint.load_facts(run / CHECKPOINT)["step"])


__all__ = ["STAGES", "FinetuneOutcome", "FinetuneRequest", "finetune"]
