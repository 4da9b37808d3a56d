"""The whole evaluation from one call: every task on two processes, then one summary.

A task is one call that returns plain numbers; tasks do not depend on each other, so their order is free.
What a task measured is kept, so that a run that was stopped goes on.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.evaluation import (
    borrowed,
    lung_masks,
    nodule_readings,
    nodules,
    painted_ct,
    read_ct,
    robustness,
    widespread,
)
from DiffSegLungLib.evaluation.frozen import FrozenLabels
from DiffSegLungLib.evaluation.hosts import REPORTED, REPORTED_SEEDS, TUNING, TUNING_SEEDS, HostFile
from DiffSegLungLib.evaluation.kept import Kept, fingerprint
from DiffSegLungLib.evaluation.known_truth import run_case
from DiffSegLungLib.evaluation.parts import QUICK_PARTS
from DiffSegLungLib.evaluation.read_ct import ReadCt
from DiffSegLungLib.models.store import list_models, load
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.progress import Progress, silent

WORKERS = 2
FROZEN = Path(__file__).resolve().parents[2] / "Testing" / "evaluation" / "frozen"
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
        tuning: tuning CT, hosts and seeds instead of the reported ones.
        parts: some of ``command.PARTS``.
        model: name or folder of the weights; the shipped ones without it.
        kept: folder that finished tasks are kept in; none without it.
        frozen: folder of the labels of an earlier state.
    """

    data: Path
    tuning: bool = False
    parts: tuple[str, ...] = QUICK_PARTS
    model: str | None = None
    kept: Path | None = None
    frozen: Path = FROZEN

    @property
    def hosts(self) -> tuple[HostFile, ...]:
        """The hosts that the older lesions are placed into."""
        return TUNING if self.tuning else REPORTED

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the older lesions."""
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


Rows = dict[str, dict[str, Any]]
"""What a task measured: a row of each part that it serves."""


@dataclass(frozen=True)
class Task:
    """One call of the evaluation.

    Attributes:
        name: tells it from every other task.
        call: returns what it measured, by part.
    """

    name: str
    call: Callable[[], Rows]


def run_study(plan: Plan, progress: Progress = silent) -> Outcome:
    """Run every task of the plan that is not kept already.

    Raises:
        MissingPartError: the real CT are not at hand, or frozen labels are damaged.
    """
    if not (plan.data / f"{borrowed.HEALTHY_CASE}.nii.gz").exists():
        raise MissingPartError(
            f"no real CT in {plan.data}: set DIFFSEGLUNG_DATA to the folder that holds ct/"
        )
    started = time.perf_counter()
    outcome = Outcome(plan, facts=describe(plan))
    tasks, kept = all_tasks(plan), _kept(plan, outcome.facts)
    for done, (name, rows) in enumerate(_results(tasks, kept), start=1):
        for part, row in rows.items():
            outcome.rows.setdefault(part, []).append(row)
        progress("evaluate", done / len(tasks), f"{name}: {done} of {len(tasks)} done")
    outcome.seconds = time.perf_counter() - started
    return outcome


def _kept(plan: Plan, facts: dict[str, Any]) -> Kept | None:
    """Where the results of this source, these weights and these data are kept."""
    if plan.kept is None:
        return None
    weights = [facts["weights_sha256"], *facts["retrained"].values()]
    frozen = plan.frozen / "manifest.json"
    known = frozen.read_text(encoding="utf-8") if frozen.exists() else ""
    return Kept(plan.kept / fingerprint([*weights, str(plan.data.resolve()), known]))


def _results(tasks: Iterable[Task], kept: Kept | None) -> Iterator[tuple[str, Rows]]:
    """Name and rows of each task, those that are kept first."""
    waiting = []
    for task in tasks:
        rows = kept.load(task.name) if kept else None
        if rows is None:
            waiting.append(task)
        else:
            yield task.name, rows
    with ProcessPoolExecutor(WORKERS, get_context("spawn"), _one_thread) as pool:
        futures: dict[Future[Rows], Task] = {pool.submit(_run, task, kept): task for task in waiting}
        try:
            for future in as_completed(futures):
                yield futures[future].name, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _run(task: Task, kept: Kept | None) -> Rows:
    """Keeps what it found at once: another task may fail before anybody asks for this one."""
    rows = task.call()
    if kept:
        kept.save(task.name, rows)
    return rows


def describe(plan: Plan) -> dict[str, Any]:
    """Commit, checksum of the weights, seeds, and which CT with readings the model was trained on."""
    model = load(plan.model)
    cases = [ct.case for ct in read_ct.read_ct(plan.data)] if (plan.data / "readings").exists() else []
    return {
        "commit": _commit(),
        "model": model.info.name,
        "weights_sha256": model.info.sha256,
        "hosts": [host.name for host in plan.hosts],
        "lesion_seeds": list(plan.seeds),
        "segmentation_seed": 0,
        "retrained": {name: model.info.sha256 for name, model in retrained().items()},
        "not_retrained": sorted(set(RETRAINED) - set(retrained())),
        "trained_on": read_ct.trained_on(cases, model.description),
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


# --- tasks -----------------------------------------------------------------------------------------------


def all_tasks(plan: Plan) -> list[Task]:
    """All tasks, the long ones first."""
    makers: dict[str, Callable[[Plan], list[Task]]] = {
        "cases": _case_tasks,
        "robustness": _robustness_tasks,
        "readings": _reading_tasks,
        "painted": _painted_tasks,
        "borrowed": _borrowed_tasks,
        "lungs": _lung_tasks,
        "patches": lambda plan: [_task("patches", "patches", _patches, plan.data, plan.model)],
    }
    return [task for part, make in makers.items() if part in plan.parts for task in make(plan)]


def _task(part: str, name: str, call: Callable[..., dict[str, Any]], *arguments: Any) -> Task:
    """A task that measures one row of one part."""
    return Task(f"{part}: {name}", partial(_one_row, part, call, *arguments))


def _one_row(part: str, call: Callable[..., dict[str, Any]], *arguments: Any) -> Rows:
    return {part: call(*arguments)}


def _reading_tasks(plan: Plan) -> list[Task]:
    """Each CT is segmented once and scored for every table that it is in."""
    frozen = FrozenLabels(plan.frozen)
    tasks = [
        Task(f"readings: {ct.case}", partial(_read_ct, ct, plan.data, plan.model, frozen))
        for ct in read_ct.read_ct(plan.data, plan.tuning)
    ]
    healthy = Task("healthy", partial(_healthy, plan.data, plan.model, frozen))
    return tasks if plan.tuning else [*tasks, healthy]


def _read_ct(ct: ReadCt, data: Path, model: str | None, frozen: FrozenLabels) -> Rows:
    result = read_ct.segment_read(ct, data, model)
    rows = {"readings": read_ct.score_ct(ct, result, read_ct.readings_of(ct, data), frozen)}
    if ct.name in borrowed.SLICE_CASES:
        rows["slices"] = borrowed.slice_auc(ct.name, data, result)
    return rows


def _healthy(data: Path, model: str | None, frozen: FrozenLabels) -> Rows:
    result = segment(borrowed.file_of(borrowed.HEALTHY_CASE, data), model=model)
    others = {**read_ct.rivals(result), **frozen.labels(borrowed.HEALTHY_CASE.split("/")[-1])}
    return {"healthy": borrowed.healthy_lung(result, others)}


def _painted_tasks(plan: Plan) -> list[Task]:
    frozen = FrozenLabels(plan.frozen)
    return [
        _task("painted", kind, painted_ct.score_kind, kind, plan.data, plan.model, frozen)
        for kind in painted_ct.KINDS
    ]


def _case_tasks(plan: Plan) -> list[Task]:
    """The older painted lesions, nodules, and disease that takes most of the lungs."""
    tasks = [
        _task("cases", f"{host.name}, {seed}", _case, host, seed, plan.data, plan.model, plan.frozen)
        for host in plan.hosts
        for seed in plan.seeds
    ]
    one = (plan.seeds[0], plan.data, plan.model)
    tasks += [_task("nodules", host.name, _nodules, host, *one) for host in plan.hosts]
    return tasks + [_task("widespread", host.name, widespread.score, host, *one) for host in plan.hosts]


def _robustness_tasks(plan: Plan) -> list[Task]:
    """Every change of every lung, lung by lung: hosts with lesions, then lungs diseased as they are."""
    names = [None, *robustness.CHANGES]
    data, model = plan.data, plan.model
    tasks: list[Task] = []
    for host in plan.hosts:
        for name in names:
            title, one = f"{host.name}, {name}", (name, host, plan.seeds[0], data, model)
            tasks.append(_task("robustness", title, _change_host, *one))
    for ct in borrowed.SLICE_CASES:
        tasks += [_task("robustness", f"{ct}, {name}", _change_ct, name, ct, data, model) for name in names]
    return tasks


def _borrowed_tasks(plan: Plan) -> list[Task]:
    data, model = plan.data, plan.model
    tasks = [
        _task("marked", marked[0], borrowed.marked_lesion, *marked, data, model) for marked in borrowed.MARKED
    ]
    tasks += [
        _task("nodule_readings", name, nodule_readings.score, name, data, model)
        for name in nodule_readings.cases(data)
    ]
    return [*tasks, _task("kernels", "kernels", borrowed.kernel_pair, data, model)]


def _lung_tasks(plan: Plan) -> list[Task]:
    data, model = plan.data, plan.model
    tasks = [_task("lungs", name, _expert_mask, name, data, model) for name in lung_masks.EXPERT_MASKS]
    return tasks + [
        _task("dense", f"{host.name}, {seed}", _dense_lung, host, seed, data, model)
        for host in plan.hosts
        for seed in plan.seeds
    ]


def _case(host: HostFile, seed: int, data: Path, model_name: str | None, frozen: Path) -> dict[str, Any]:
    labels = FrozenLabels(frozen).labels(older_name(host, seed))
    return run_case(host, seed, data, load(model_name), retrained(), labels)


def older_name(host: HostFile, seed: int) -> str:
    """What the frozen labels of a case of older painted lesions are called."""
    return f"older_{host.name.split('/')[-1]}_{seed}"


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
