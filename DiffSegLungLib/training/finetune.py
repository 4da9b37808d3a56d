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
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.errors import CancelledError, UnusableInputError
from DiffSegLungLib.io.atomic import require_writable, write_json
from DiffSegLungLib.models import store as models
from DiffSegLungLib.progress import Progress, part, silent
from DiffSegLungLib.training.before_after import finish
from DiffSegLungLib.training.distributed import Ranks, joined
from DiffSegLungLib.training.lock import locked
from DiffSegLungLib.training.request import DEFAULT_MINUTES, TOO_FEW, FinetuneOutcome, FinetuneRequest
from DiffSegLungLib.training.run_files import PLAN, STOP
from DiffSegLungLib.training.sources import find_ct, read_persons, require_different_names
from DiffSegLungLib.training.split import describe_split, read_split, split_patients, write_split
from DiffSegLungLib.training.store import name_of
from DiffSegLungLib.training.tuning import CannotServeError, OnePrepared, Tuning
from DiffSegLungLib.training.tuning_kinds import tuning_of

People = tuple[list[OnePrepared], list[OnePrepared]]
"""To train on, and held back."""


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
    device = choose_device(request.device)
    tuning = tuning_of(request, models.load(request.base, device))
    sources = usable_sources(request)
    with joined(device) as (ranks, own_device):
        if ranks.number:
            return _train_along(tuning, sources, ranks, own_device)
        with locked(request.run_folder):
            (request.run_folder / STOP).unlink(missing_ok=True)
            people, left_out = _prepared(tuning, sources, part(progress, 0.0, 0.15))
            settings = _settings(tuning, sources)
            ranks.wait()
            _train(tuning, settings, people, part(progress, 0.15, 0.8), ranks, own_device)
            trained, held_back = (_of(sources, some) for some in people)
            outcome = finish(tuning, (trained, held_back), people, part(progress, 0.8, 1.0))
            return replace(outcome, left_out=tuple(left_out))


def _train_along(tuning: Tuning[Any], sources: list[Path], ranks: Ranks, device: str) -> FinetuneOutcome:
    """What the other processes of ``torchrun`` do: they train, and leave all files to the first."""
    ranks.wait()  # until the first has prepared the CT
    split = read_split(tuning.request.run_folder / "store")
    people = tuning.load(name_of(source) for source in sources)
    _train(tuning, _settings(tuning, sources), _parted(people, split), silent, ranks, device)
    return FinetuneOutcome(tuning.request.target)


def _of(sources: list[Path], people: list[Any]) -> list[Path]:
    """The files of these CT."""
    names = {one.name for one in people}
    return [source for source in sources if name_of(source) in names]


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
    tuning: Tuning[OnePrepared], sources: list[Path], progress: Progress
) -> tuple[People[OnePrepared], list[str]]:
    """The CT to train on and those held back; and of each that was left out why."""
    request = tuning.request
    persons = read_persons(request.patients)
    if len({persons.get(name_of(one), name_of(one)) for one in sources}) < 2:
        raise UnusableInputError(TOO_FEW)  # told before the long work; DICOM may show it only after
    usable: list[str] = []
    left_out: list[str] = []
    for index, source in enumerate(sources):
        place = f"CT {index + 1} of {len(sources)}"
        progress("prepare", index / len(sources), place)
        try:
            share = part(progress, index / len(sources), (index + 1) / len(sources))
            tuning.prepare(source, persons, _named(share, place))
            usable.append(name_of(source))
        except UnusableInputError as error:
            if source in request.sources and not isinstance(error, CannotServeError):
                raise
            left_out.append(str(error))
            progress("prepare", index / len(sources), f"left out: {error}")
    people = _split(tuning, usable, left_out)
    progress("prepare", 1.0, describe_split(read_split(request.run_folder / "store")).split(" (")[0])
    return people, left_out


def _named(progress: Progress, place: str) -> Progress:
    """What is done to a CT belongs to the stage that prepares."""
    return lambda stage, fraction, message="": progress("prepare", fraction, f"{place}: {message or stage}")


def _split(tuning: Tuning[OnePrepared], usable: list[str], left_out: list[str]) -> People[OnePrepared]:
    """Hold some patients back, those of an earlier split again."""
    without = f" Left out: {'; '.join(left_out)}" if left_out else ""
    if not usable:
        raise UnusableInputError(f"None of the CT given can be used.{without}")
    store = tuning.request.run_folder / "store"
    people = tuning.load(usable)
    seed = tuning.request.seed
    split = split_patients((one.person for one in people), seed=seed, known=read_split(store))
    if len(split) < 2:
        raise UnusableInputError(f"{TOO_FEW}{without}")
    write_split(store, split, seed)
    return _parted(people, split)


def _parted(people: list[OnePrepared], split: Mapping[str, bool]) -> People[OnePrepared]:
    """Those to train on, and those held back."""
    held_back = [one for one in people if split[one.person]]
    return [one for one in people if not split[one.person]], held_back


def _settings(tuning: Tuning[Any], sources: list[Path]) -> Any:
    """As stored by an interrupted run, which must have been of the same CT and base; else new ones."""
    request = tuning.request
    plan = request.run_folder / PLAN
    ct = sorted(name_of(one) for one in sources)
    asked = {"base": tuning.base_sha256, "stage": request.stage, "rate": request.rate, "ct": ct}
    if plan.exists():
        stored = json.loads(plan.read_text(encoding="utf-8"))
        if {key: stored.get(key) for key in asked} != asked:
            raise UnusableInputError(
                f"The run in {request.run_folder} began with another base model, stage, rate or other CT: "
                "repeat what it began with, or give another --name or --run."
            )
        return tuning.stored_settings(stored["settings"])
    settings_now = tuning.settings(planned_steps(tuning, choose_device(request.device)))
    write_json(plan, {**asked, "settings": asdict(settings_now)})
    return settings_now


def planned_steps(tuning: Tuning[Any], device: str, second: float | None = None) -> int:
    """The steps asked for, or as many as the minutes allow; ``second`` a step takes, if it is known."""
    request = tuning.request
    if request.steps is not None:
        return request.steps
    minutes = request.minutes or DEFAULT_MINUTES
    return max(int(60 * minutes / (second or tuning.seconds_per_step(device))), 1)


# --- the training ----------------------------------------------------------------------------------------


def _train(
    tuning: Tuning[OnePrepared],
    settings: Any,
    people: People[OnePrepared],
    progress: Progress,
    ranks: Ranks,
    device: str,
) -> None:
    """Train until the budget is used up or nothing is gained.

    Raises:
        CancelledError: it was stopped before.
    """
    reached = tuning.train(settings, people, progress, ranks, device)
    if ranks.number == 0 and reached < settings.steps:  # the first alone knows of its clock
        raise CancelledError(f"Stopped at step {reached}: the same command goes on from there.")


__all__ = ["FinetuneOutcome", "FinetuneRequest", "finetune"]
