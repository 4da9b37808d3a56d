"""What was measured, written down: ``results.json``, tables as CSV, ``RESULTS.md``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from DiffSegLungLib.evaluation import nodule_readings, nodules, painted_ct, read_ct, robustness, widespread
from DiffSegLungLib.evaluation.earlier import load_results, with_earlier
from DiffSegLungLib.evaluation.kept import write_json
from DiffSegLungLib.evaluation.metrics import KEYS, bootstrap, mean
from DiffSegLungLib.evaluation.page import page
from DiffSegLungLib.evaluation.probe import Cells, probe
from DiffSegLungLib.evaluation.read_ct import OURS
from DiffSegLungLib.evaluation.study import Outcome

Row = dict[str, Any]


DETAILS = ("slices", "patches", "healthy", "marked", "nodule_readings", "lungs", "dense", "kernels")


def results(outcome: Outcome) -> Row:
    """The figures under the keys that the project fixes; parts that were not run are absent."""
    facts = {name: value for name, value in outcome.facts.items() if name != "trained_on"}
    summary: Row = {**facts, "seconds": round(outcome.seconds)}
    summary |= _reading_figures(outcome) | _painted_figures(outcome.rows.get("painted", []))
    if cases := outcome.rows.get("cases", []):
        summary |= _case_figures(cases) | _probe_figures(cases)
    if baselines := _baselines(outcome.rows):
        summary["baselines"] = baselines
    return summary | _other_figures(outcome.rows)


def _reading_figures(outcome: Outcome) -> Row:
    """Read CT: by case and reader, the mean, and the other reader."""
    rows = outcome.rows.get("readings", [])
    if not rows:
        return {}
    return {
        "readings_mean_dice": read_ct.mean_dice(rows, OURS),
        "readings": read_ct.figures_by_case(rows, outcome.facts["trained_on"]),
        "second_reader": read_ct.second_reader(rows),
    }


def _painted_figures(rows: Sequence[Row]) -> Row:
    """Painted kinds: Dice by kind, every figure of each, and what tells the painter and its truth."""
    if not rows:
        return {}
    figures = {row["kind"]: {"host": row["host"], **row["scores"][OURS]} for row in painted_ct.in_order(rows)}
    facts = painted_ct.painted_facts(rows)
    return {"painted": painted_ct.dice_by_kind(rows), "painted_figures": figures, "painter": facts}


def _baselines(rows: Mapping[str, Sequence[Row]]) -> Row:
    """What stands beside us: on older painted lesions, on read CT, on painted kinds, in a healthy lung."""
    read, painted = rows.get("readings", []), rows.get("painted", [])
    result: Row = _nested(rows["cases"], "baselines") if rows.get("cases") else {}
    for name in read_ct.methods_of(read):
        entry = {"readings_mean_dice": read_ct.mean_dice(read, name), "readings": read_ct.dice_of(read, name)}
        result.setdefault(name, {}).update(entry)
    for name in dict.fromkeys(name for row in painted for name in row["scores"] if name != OURS):
        dice = painted_ct.dice_by_kind(painted, name)
        false = {
            row["kind"]: row["scores"][name]["false_percent"] for row in painted if name in row["scores"]
        }
        result.setdefault(name, {}).update({"painted": dice, "painted_false_percent": false})
    for row in rows.get("healthy", []):
        for name, percent in row["others"].items():
            result.setdefault(name, {})["healthy_disease_percent"] = percent
    return result


def _other_figures(rows: Mapping[str, Sequence[Row]]) -> Row:
    """What was measured before there were readings of disease."""
    summary: Row = {}
    if rows.get("slices"):
        summary["slice_auc"] = {row["name"].split("/")[1]: row["ours"] for row in rows["slices"]}
    if rows.get("patches"):
        summary["emphysema_patches_auc"] = rows["patches"][0]["auc"]
    if rows.get("healthy"):
        summary["healthy_disease_percent"] = rows["healthy"][0]["ours"]
    if rows.get("robustness"):
        summary["robustness"] = judged(rows["robustness"])
        summary["dsc_scanned_differently"] = _changed_dice(rows["robustness"])
    if rows.get("nodule_readings"):
        summary["nodule_readings"] = _nodule_figures(rows["nodule_readings"])
    if rows.get("nodules"):
        summary["nodules_of_known_truth"] = nodules.by_diameter(rows["nodules"])
    if rows.get("widespread"):
        summary["widespread_disease"] = widespread.by_spread(rows["widespread"])
    details = {part: rows[part] for part in DETAILS if rows.get(part)}
    return summary | ({"details": details} if details else {})


def _case_figures(cases: Sequence[Row]) -> Row:
    return {
        "dsc": _means(cases, lambda row: row["dsc"]),
        "dsc_interval_95": {key: bootstrap(row["dsc"][key] for row in cases) for key in KEYS},
        "hd95_mm": mean(value for row in cases for value in row["hd95_mm"].values()),
        "hd95_mm_by_tissue": _means(cases, lambda row: row["hd95_mm"]),
        "hd95_mm_interval_95": bootstrap(mean(row["hd95_mm"].values()) for row in cases),
        "volume_error_ml": _means(
            cases, lambda row: {key: abs(pair[1]) for key, pair in row["volumes"].items()}
        ),
        "uncertainty_auc": mean(row["calibration"]["auc"] for row in cases),
        "ablations": _nested(cases, "ablations"),
        "qualities": _nested(cases, "qualities"),
        "cases": len(cases),
    }


def _nodule_figures(rows: Sequence[Row]) -> Row:
    """Nodules that a reader called ground glass, and those in which one saw air."""
    return {
        "ground_glass": nodule_readings.called(rows, "texture", nodule_readings.GROUND_GLASS_TEXTURE),
        "air": nodule_readings.called(rows, "internal_structure", nodule_readings.AIR_WITHIN),
    }


def _probe_figures(cases: Sequence[Row]) -> Row:
    """The probe needs two hosts: one to learn from and one to be asked about."""
    cells = [Cells(**row["cells"]) for row in cases if "cells" in row]
    return {"probe": probe(cells)} if len({one.host for one in cells}) > 1 else {}


def _means(cases: Sequence[Row], pick: Callable[[Row], dict[str, float]]) -> dict[str, float]:
    return {key: mean(pick(row)[key] for row in cases) for key in KEYS}


def _nested(cases: Sequence[Row], part: str) -> Row:
    """Means over cases of what stands beside us."""
    summary: Row = {}
    for name in cases[0][part]:
        entries = [row[part][name] for row in cases if name in row[part]]
        dice = [entry.get("dsc", entry) for entry in entries]
        summary[name] = {"dsc": {key: mean(one[key] for one in dice) for key in KEYS}}
        distances = [value for entry in entries for value in entry.get("hd95_mm", {}).values()]
        if distances:
            summary[name]["hd95_mm"] = mean(distances)
    return summary


def judged(rows: Sequence[Row]) -> Row:
    """Each change of each lung's scan against that scan as it is, by lung and change."""
    order = list(robustness.CHANGES)
    result: Row = {}
    for subject in dict.fromkeys(row["subject"] for row in sorted(rows, key=lambda row: str(row["subject"]))):
        own = {row["name"]: row for row in rows if row["subject"] == subject}
        for name in sorted(set(own) - {robustness.AS_IT_IS}, key=order.index):
            verdict = robustness.judge(own[name], own[robustness.AS_IT_IS])
            result[f"{subject}, {name}"] = {"subject": subject, "change": name, **verdict}
    return result


def _changed_dice(rows: Sequence[Row]) -> Row:
    """DSC by tissue, mean over the lungs of known truth, for each change of the scan."""
    result = {}
    for name in (robustness.AS_IT_IS, *robustness.CHANGES):
        known = [row for row in rows if row["name"] == name and "dsc" in row]
        if known:
            result[name] = _means(known, lambda row: row["dsc"])
    return result


# --- files -----------------------------------------------------------------------------------------------


PICTURES = "pictures"
"""Folder of the pictures of read CT, below that of the page."""


def write_all(folder: Path, outcome: Outcome) -> Row:
    """Write every file of an evaluation into a folder, beside what an earlier left; return the summary."""
    from DiffSegLungLib.evaluation.figures import draw_all
    from DiffSegLungLib.evaluation.reading_figures import draw_readings

    folder.mkdir(parents=True, exist_ok=True)
    summary = with_earlier(results(outcome), load_results(folder))
    for baseline in summary.get("baselines", {}).values():
        baseline.setdefault("dsc", dict.fromkeys(KEYS, float("nan")))
        baseline.setdefault("readings_mean_dice", float("nan"))
    draw_readings(folder / PICTURES, outcome.rows.get("readings", []))
    draw_all(folder, outcome.rows.get("cases", []), summary)
    write_json(folder / "results.json", summary)
    if outcome.rows.get("cases"):
        _write_csv(folder / "cases.csv", _case_rows(outcome.rows["cases"]))
    if "robustness" in summary:
        _write_csv(folder / "robustness.csv", _robustness_rows(summary["robustness"]))
    (folder / "RESULTS.md").write_text(page(summary, _pictures(folder, summary)), encoding="utf-8")
    return summary


def _pictures(folder: Path, summary: Row) -> list[str]:
    """Paths below the folder of the pictures that are there, of the read CT in the order of their figures."""
    names = [f"{PICTURES}/{case}.png" for case in summary.get("readings", {})] + ["cases.png", "dsc.png"]
    return [name for name in names if (folder / name).exists()]


def _write_csv(path: Path, rows: Sequence[Row]) -> None:
    import pandas

    pandas.DataFrame(rows).to_csv(path, index=False, float_format="%.4f")


def _case_rows(cases: Sequence[Row]) -> list[Row]:
    rows = []
    for case in cases:
        methods = {"DiffSegLung": case["dsc"], **case["baselines"]}
        methods |= {name: entry["dsc"] for name, entry in case["ablations"].items()}
        methods |= {f"quality {name}": entry["dsc"] for name, entry in case["qualities"].items()}
        for method, dice in methods.items():
            for key in KEYS:
                row = {"host": case["host"], "seed": case["seed"], "method": method, "tissue": key}
                row["dsc"] = dice[key]
                if method == "DiffSegLung":
                    row["hd95_mm"] = case["hd95_mm"][key]
                    row["true_ml"], row["error_ml"] = case["volumes"][key]
                rows.append(row)
    return rows


def _robustness_rows(judged_rows: Row) -> list[Row]:
    kept = ("subject", "change", "held", "volumes_held")
    return [{**{key: row[key] for key in kept}, **row["changes"]} for row in judged_rows.values()]
