"""The first sections of ``RESULTS.md``: disease that readers marked, and painted disease."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from DiffSegLungLib.evaluation.tables import number, table
from DiffSegLungLib.tissues import DISEASES

Row = dict[str, Any]

LEAST_ML = 0.1
"""Of a tissue, for its names to be told."""
READERS = (
    "Readers marked disease on axial slices of real CT; they looked at the CT alone, never at a software's "
    "result, and are careful, but no radiologists. Sure marks are truth where they look it; unsure marks, "
    "three pixels around each, and vessels within are left out, the rest of the lungs is healthy. A lesion "
    "is found when 30 % of it is called any disease. The mean is over the CT of tuning and reported, "
    "readers of one CT first, the two of one lung as one. 'Trained on': the model saw the CT, never the "
    "marks."
)
BESIDE = (
    "Dice of any disease, readers averaged. 'Rules only' is the whole pipeline of d6e853b with a mixture "
    "that says nothing, 'no network' the same commit with the learnt embedding replaced by its mean; both "
    "and d6e853b itself are kept labels (`frozen/`, made by `freeze.py`). Thresholds are those of "
    "`baselines.py`, on our lungs."
)
PAINTED = (
    "Painted into CT that nothing was trained on, by a program that is not the one that paints for "
    "training; one host and seed each. Nothing is left out for lying near a vessel or the mediastinum. "
    "'Held' is the share of it within our lungs, 'false' the share of the healthy lung that is called "
    "diseased."
)


def read_ct_lines(summary: Row, pictures: Sequence[str]) -> list[str]:
    """Disease that readers marked: each CT, what stands beside us, names, pictures."""
    if "readings" not in summary:
        return []
    mean = summary["readings_mean_dice"]
    lines = ["## Disease that readers marked in real CT", ""]
    lines += [f"**Mean Dice of any disease: {number(mean)}.** {READERS}", "", *_score_table(summary)]
    lines += ["### Beside others on read CT", "", BESIDE, "", *_beside_table(summary)]
    lines += ["### What marked disease is called", "", *_name_table(summary)]
    lines += [line for picture in pictures for line in (f"![{picture}]({picture})", "")]
    return lines


def _readings(summary: Row) -> Iterator[tuple[str, str, Row]]:
    for case, readers in summary["readings"].items():
        for reader, figures in readers.items():
            yield case, reader, figures


def _score_table(summary: Row) -> list[str]:
    head = ("CT", "reader", "use", "trained on", "Dice", "recall", "precision", "lesions found")
    body = []
    for case, reader, row in _readings(summary):
        body.append(
            (
                case,
                reader,
                row["use"],
                "yes" if row["trained_on"] else "no",
                f"**{number(row['dice'], 2)}**",
                *(number(row[key], 2) for key in ("recall", "precision")),
                f"{row['found']} of {row['lesions']}",
                number(row["healthy_disease_percent"], 1),
                number(row["slice_auc"], 2),
                number(summary["second_reader"].get(case, {}).get(reader), 2),
            )
        )
    return table((*head, "rest called diseased, %", "slice AUC", "second reader's Dice"), body)


def _beside_table(summary: Row) -> list[str]:
    """A row a CT, a column a method; the mean last."""
    others = {name: row for name, row in summary.get("baselines", {}).items() if "readings" in row}
    body = []
    for case, readers in summary["readings"].items():
        ours = _mean(row["dice"] for row in readers.values())
        dice = [_mean(row["readings"].get(case, {}).values()) for row in others.values()]
        second = _mean(summary["second_reader"].get(case, {}).values())
        body.append((case, f"**{number(ours, 2)}**", *(number(value, 2) for value in (*dice, second))))
    means = [summary["readings_mean_dice"], *(row["readings_mean_dice"] for row in others.values())]
    body.append(("**mean**", *(f"**{number(value)}**" for value in means), "-"))
    if "healthy_disease_percent" in summary:
        healthy = [row.get("healthy_disease_percent") for row in others.values()]
        percents = [number(value, 1) for value in (summary["healthy_disease_percent"], *healthy)]
        body.append(("normal001, a healthy CT: called diseased, %", *percents, "-"))
    return table(("CT", "DiffSegLung", *others, "second reader"), body)


def _mean(values: Any) -> float:
    known = list(values)
    return float(np.mean(known)) if known else float("nan")


def _name_table(summary: Row) -> list[str]:
    names = ("outside", "healthy", *(tissue.key for tissue in DISEASES))
    body = []
    for case, reader, row in _readings(summary):
        for tissue, shares in row["named"].items():
            if row["marked_ml"][tissue] < LEAST_ML:
                continue
            cells = [f"{100 * shares[name]:.0f}" if name in shares else "" for name in names]
            body.append((case, reader, tissue, number(row["marked_ml"][tissue], 1), *cells))
    return table(("CT", "reader", "marked", "ml", *(f"{name}, %" for name in names)), body)


def painted_lines(summary: Row) -> list[str]:
    """Painted kinds, each with its row."""
    if "painted" not in summary:
        return []
    others = {name: row for name, row in summary.get("baselines", {}).items() if "painted" in row}
    figures = summary["painted_figures"]
    head = ("painted kind", "host", "Dice", "any disease", "lesions found", "held", "false, %", *others)
    body = [(*_painted_cells(kind, row), *_beside(kind, row, others)) for kind, row in figures.items()]
    version = summary["painter"]["version"]
    lines = [
        "## Painted disease",
        "",
        f"{PAINTED} Version {version} of the painter; hashes in `results.json`.",
    ]
    sentence = "Columns of other methods: Dice, or for what is no disease the false share in %."
    return [*lines, sentence, "", *table(head, body)]


def _painted_cells(kind: str, row: Row) -> list[str]:
    found = f"{100 * row['found']:.0f} % of {row['lesions']}" if row.get("lesions") else "-"
    dice = [number(row.get(key), 2) for key in ("dice", "any_dice")]
    return [kind, row["host"], *dice, found, number(row.get("held"), 2), number(row["false_percent"], 1)]


def _beside(kind: str, row: Row, others: Row) -> list[str]:
    """Other methods: Dice of disease, the false share where there is none."""
    if "dice" in row:
        return [number(other["painted"].get(kind), 2) for other in others.values()]
    return [f"{number(other['painted_false_percent'].get(kind), 1)} %" for other in others.values()]
