"""``evaluate strokes``: how far a few strokes take a result, on read CT and on painted disease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.evaluation.kept import Kept, fingerprint
from DiffSegLungLib.evaluation.painted import make_painted
from DiffSegLungLib.evaluation.painted_ct import as_scanned
from DiffSegLungLib.evaluation.read_ct import READ_CT, readings_of, segment_read
from DiffSegLungLib.evaluation.readings import SliceTruth, truth_of
from DiffSegLungLib.evaluation.simulated_reader import LENGTH_MM, RADIUS_MM, STROKES, curves
from DiffSegLungLib.io.atomic import write_json, write_text
from DiffSegLungLib.models.store import verify
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.tissues import HEALTHY

READ = ("P001", "P002", "cap001", "RIDERPilot-0109")
PAINTED = (
    "ground-glass crescents",
    "ground-glass mottled",
    "ground-glass along vessels",
    "fibrosis rims",
    "fibrosis honeycombing",
    "consolidation patchy",
    "consolidation nodules",
    "cavity in consolidation",
    "emphysema centrilobular",
    "emphysema paraseptal",
)
METHODS = {"spread": "DiffSegLung", "alone": "the strokes alone", "walker": "random walker over HU"}
READ_EVERY_MM = 6.0
"""Distance of the slices of a painted CT that the simulated reader looks at."""
GOAL = 0.85
"""Dice towards which half of what is lacking shall be gained by ``GOAL_STROKES``."""
GOAL_STROKES = 5
LOST = 0.005


@dataclass(frozen=True)
class CorrectionPlan:
    """What is evaluated.

    Attributes:
        data: folder of the real CT.
        model: name or folder; the default model without it.
        kept: folder of finished cases; none without it.
    """

    data: Path
    model: str | None = None
    kept: Path | None = None


def evaluate_strokes(plan: CorrectionPlan, folder: Path, progress: Progress = silent) -> dict[str, Any]:
    """Correct each case by a simulated reader; write ``strokes.json``, ``STROKES.md`` and ``strokes.png``.

    Args:
        plan: what is evaluated.
        folder: takes the files.
        progress: told of each case.
    """
    info = verify(plan.model)
    works = {name: partial(_read_case, name, plan) for name in READ}
    works |= {f"painted {kind}": partial(_painted_case, kind, plan) for kind in PAINTED}
    kept = Kept(plan.kept / f"strokes-{fingerprint([info.sha256])}") if plan.kept else None
    cases: dict[str, Any] = {}
    for number, (name, work) in enumerate(works.items()):
        progress("strokes", number / len(works), name)
        row = kept.load(name.replace(" ", "-")) if kept else None
        if row is None:
            row = work()
            if kept:
                kept.save(name.replace(" ", "-"), row)
        cases[name] = row
    found = {"model": info.name, "weights_sha256": info.sha256, "strokes": list(STROKES), "cases": cases}
    write_json(folder / "strokes.json", found)
    write_text(folder / "STROKES.md", text_of(cases))
    _draw(folder / "strokes.png", cases)
    progress("strokes", 1.0)
    return found


def _read_case(case: str, plan: CorrectionPlan) -> dict[str, Any]:
    ct = next(each for each in READ_CT if each.case == case)
    result = segment_read(ct, plan.data, plan.model)
    reading = readings_of(ct, plan.data)[0]
    return curves(result, truth_of(reading, result.volume.hu, result.volume.spacing))


def _painted_case(kind: str, plan: CorrectionPlan) -> dict[str, Any]:
    case = make_painted(kind, plan.data)
    step = max(round(READ_EVERY_MM / case.volume.spacing[0]), 1)
    diseased = np.where(case.scored & (case.truth > HEALTHY), case.truth, 0)
    truth = {
        z: SliceTruth(diseased[z], (diseased[z] > 0).astype(np.int32), ~case.scored[z])
        for z in range(0, len(diseased), step)
        if diseased[z].any()
    }
    return curves(segment(as_scanned(case), model=plan.model), truth)


def reached(every: Sequence[float]) -> bool:
    """Whether half of what was lacking to ``GOAL`` is gained by ``GOAL_STROKES``."""
    return every[GOAL_STROKES] >= every[0] + max(GOAL - every[0], 0) / 2


ABOUT = (
    "A simulated reader paints one stroke ({length:.0f} mm long, {radius:.0f} mm in radius, in the error) "
    "where the largest error on a slice is, spreads it, and looks again. Dice of any disease after so many "
    "strokes; below it the same strokes alone, and spread by a random walker over HU. Goal: half of what is "
    "lacking to {goal} by {by} strokes. A stroke lost where the Dice fell by more than 0.005. Made by "
    "`diffseglung evaluate strokes`."
)
COLUMNS = ("painted ml", "goal", "strokes that lost")


def text_of(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """The table, with what was measured and how."""
    about = ABOUT.format(length=LENGTH_MM, radius=RADIUS_MM, goal=GOAL, by=GOAL_STROKES)
    head = ["case", "method", *map(str, STROKES), *COLUMNS]
    lines = ["# Strokes that spread", "", about, "", _row(head), "|---" * len(head) + "|"]
    for case, row in cases.items():
        every = row["every"]
        lost = sum(after < before - LOST for before, after in zip(every, every[1:], strict=False))
        goal = "reached" if reached(every) else "missed"
        ours = [f"{row['painted_ml']:.1f}", goal, f"{lost} of {len(every) - 1}"]
        for key, name in METHODS.items():
            dice = [f"{value:.3f}" for value in row[key]]
            first = key == "spread"
            lines.append(_row([case if first else "", name, *dice, *(ours if first else [""] * 3)]))
    return "\n".join([*lines, ""])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _draw(path: Path, cases: Mapping[str, Mapping[str, Any]]) -> None:
    """A panel a case: Dice by strokes."""
    from matplotlib.figure import Figure

    columns = 4
    rows = -(-len(cases) // columns)
    figure = Figure(figsize=(3.2 * columns, 2.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis in axes[len(cases) :]:
        axis.set_visible(False)
    for axis, (case, row) in zip(axes, cases.items(), strict=False):
        for key, name in METHODS.items():
            axis.plot(STROKES, row[key], marker="o", markersize=3, label=name)
        axis.set_title(case, fontsize=8)
        axis.set_ylim(0, 1)
        axis.tick_params(labelsize=7)
    axes[0].legend(fontsize=6)
    axes[0].set_ylabel("Dice", fontsize=8)
    axes[0].set_xlabel("strokes", fontsize=8)
    figure.savefig(path, dpi=100)
