"""The whole evaluation from one call: every task on two processes, then one summary.

A task is one call that returns plain numbers; tasks do not depend on each other, so their order is free.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.evaluation import borrowed, lung_masks, nodules, readings, robustness, widespread
from DiffSegLungLib.evaluation.hosts import (
    REPORTED,
    REPORTED_SEEDS,
    TUNING,
    TUNING_SEEDS,
    HostFile,
)
from DiffSegLungLib.evaluation.known_truth import run_case
from DiffSegLungLib.models import Model, list_models, load
from DiffSegLungLib.progress import Progress, silent

WORKERS = 2
RETRAINED = {
    "no distillation": "no-distillation",
    "short training, warm-up": "short-warm-up",
    "short training, no warm-up": "no-warm-up",
}
"""Ablations that need another training, and the models of the user's store that ``make ablations`` trains."""


@dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        data: folder of the real CT.
        tuning: tuning hosts and seeds instead of the reported ones.
        parts: ``cases``, ``borrowed``, ``lungs`` and ``robustness``, or some of them.
        model: name or folder of the weights; the shipped ones without it.
    """

    data: Path
    tuning: bool = False
    parts: tuple[str, ...] = ("cases", "borrowed", "lungs", "robustness")
    model: str | None = None

    @property
    def hosts(self) -> tuple[HostFile, ...]:
        """The hosts that lesions are placed into."""
        return TUNING if self.tuning else REPORTED

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the lesions."""
        return TUNING_SEEDS if self.tuning else REPORTED_SEEDS


@dataclass
class Outcome:
    """Everything that was measured.

    Attributes:
        plan: what was run.
        rows: what each task returned, by part.
        seconds: wall time.
        facts: commit, checksum of the weights, seeds.
    """

    plan: Plan
    rows: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    seconds: float = 0.0
    facts: dict[str, Any] = field(default_factory=dict)


Task = tuple[str, Callable[[], dict[str, Any]]]


def run_study(plan: Plan, progress: Progress = silent) -> Outcome:
    """Run every task of the plan.

    Raises:
        MissingPartError: the real CT are not at hand.
    """
    if not (plan.data / f"{borrowed.HEALTHY_CASE}.nii.gz").exists():
        raise MissingPartError(
            f"no real CT in {plan.data}: set DIFFSEGLUNG_DATA to the folder that holds ct/"
        )
    started = time.perf_counter()
    outcome = Outcome(plan, facts=describe(plan))
    tasks = _tasks(plan)
    with ProcessPoolExecutor(WORKERS, initializer=_one_thread) as pool:
        futures = {pool.submit(task): part for part, task in tasks}
        for done, future in enumerate(as_completed(futures), start=1):
            outcome.rows.setdefault(futures[future], []).append(future.result())
            progress("evaluate", done / len(tasks), f"{futures[future]}: {done} of {len(tasks)} done")
    outcome.seconds = time.perf_counter() - started
    return outcome


def describe(plan: Plan) -> dict[str, Any]:
    """Commit, checksum of the weights and seeds."""
    model = load(plan.model)
    return {
        "commit": _commit(),
        "model": model.info.name,
        "weights_sha256": model.info.sha256,
        "hosts": [host.name for host in plan.hosts],
        "lesion_seeds": list(plan.seeds),
        "segmentation_seed": 0,
        "retrained": {name: model.info.sha256 for name, model in retrained().items()},
        "not_retrained": sorted(set(RETRAINED) - set(retrained())),
    }


def _commit() -> str:
    """The commit of the source tree, marked where files differ from it."""
    folder = Path(__file__).resolve().parent
    command = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _one_thread() -> None:
    """One thread a process: two processes fill two cores."""
    import torch

    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)


def _tasks(plan: Plan) -> list[Task]:
    """All tasks, the long ones first."""
    tasks: list[Task] = []
    if "cases" in plan.parts:
        for host in plan.hosts:
            tasks += [("cases", partial(_case, host, seed, plan.data, plan.model)) for seed in plan.seeds]
        tasks += [
            ("nodules", partial(_nodules, host, plan.seeds[0], plan.data, plan.model)) for host in plan.hosts
        ]
        tasks += [
            ("widespread", partial(widespread.score, host, plan.seeds[0], plan.data, plan.model))
            for host in plan.hosts
        ]
    if "robustness" in plan.parts:
        tasks += [("robustness", task) for task in _robustness_tasks(plan)]
    if "borrowed" in plan.parts:
        tasks += _borrowed_tasks(plan)
    if "lungs" in plan.parts:
        data, model = plan.data, plan.model
        tasks += [("lungs", partial(_expert_mask, name, data, model)) for name in lung_masks.EXPERT_MASKS]
        for host in plan.hosts:
            tasks += [("dense", partial(_dense_lung, host, seed, data, model)) for seed in plan.seeds]
    return tasks


def _robustness_tasks(plan: Plan) -> list[Callable[[], dict[str, Any]]]:
    """Every change of every lung, lung by lung: hosts with lesions, then lungs diseased as they are."""
    names = [None, *robustness.CHANGES]
    seed, data, model = plan.seeds[0], plan.data, plan.model
    tasks: list[Callable[[], dict[str, Any]]] = []
    for host in plan.hosts:
        tasks += [partial(_change_host, name, host, seed, data, model) for name in names]
    tasks += [partial(_change_ct, name, ct, data, model) for ct in borrowed.SLICE_CASES for name in names]
    return tasks


def _borrowed_tasks(plan: Plan) -> list[Task]:
    data, model = plan.data, plan.model
    tasks: list[Task] = [
        ("slices", partial(borrowed.slice_auc, name, data, model)) for name in borrowed.SLICE_CASES
    ]
    tasks.append(("healthy", partial(borrowed.healthy_lung, data, model)))
    for name, suffix, votes in borrowed.MARKED:
        tasks.append(("marked", partial(borrowed.marked_lesion, name, suffix, votes, data, model)))
    tasks += [("readings", partial(readings.score, name, data, model)) for name in readings.cases(data)]
    tasks.append(("kernels", partial(borrowed.kernel_pair, data, model)))
    tasks.append(("patches", partial(_patches, data, model)))
    return tasks


def _case(host: HostFile, seed: int, data: Path, model_name: str | None) -> dict[str, Any]:
    return run_case(host, seed, data, load(model_name), retrained())


def retrained() -> dict[str, Model]:
    """Models trained with a part left out, by the name of the ablation; those that the user has.

    Raises:
        MissingPartError: one is there, but damaged or of another version.
    """
    mine = {info.name for info in list_models()}
    return {row: load(name) for row, name in RETRAINED.items() if name in mine}


def _change_host(
    name: str | None, host: HostFile, seed: int, data: Path, model: str | None
) -> dict[str, Any]:
    return robustness.run_change(name, robustness.with_lesions(host, seed, data), model)


def _change_ct(name: str | None, ct: str, data: Path, model: str | None) -> dict[str, Any]:
    return robustness.run_change(name, robustness.as_it_is(ct, data), model)


def _expert_mask(name: str, data: Path, model_name: str | None) -> dict[str, Any]:
    return lung_masks.expert_mask(name, data, load(model_name))


def _dense_lung(host: HostFile, seed: int, data: Path, model_name: str | None) -> dict[str, Any]:
    return lung_masks.dense_lung(host, seed, data, load(model_name))


def _nodules(host: HostFile, seed: int, data: Path, model_name: str | None) -> dict[str, Any]:
    return nodules.score(host, seed, data, load(model_name))


def _patches(data: Path, model_name: str | None) -> dict[str, Any]:
    return borrowed.emphysema_patches(data, load(model_name))


def write_json(path: Path, content: Any) -> None:
    """Write plain numbers; NaN becomes null, so that every reader can read them."""
    path.write_text(json.dumps(_plain(content), indent=2) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return None if value != value else round(float(value), 5)
    return value.item() if hasattr(value, "item") else value
