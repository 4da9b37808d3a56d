"""What was measured, written down: ``results.json``, tables as CSV, ``RESULTS.md``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.evaluation import nodules, readings, robustness, widespread
from DiffSegLungLib.evaluation.metrics import KEYS, bootstrap, mean
from DiffSegLungLib.evaluation.probe import EMBEDDING, HOUNSFIELD, probe
from DiffSegLungLib.evaluation.study import Outcome, write_json

TARGETS = {
    "healthy": 0.97,
    "ground-glass": 0.84,
    "fibrosis": 0.80,
    "emphysema": 0.80,
    "consolidation": 0.92,
    "cavity": 0.72,
}
"""DSC that the issue asks for."""
TARGET_HD95_MM, TARGET_SLICE_AUC, TARGET_PATCH_AUC, TARGET_HEALTHY_PERCENT = 8.6, 0.90, 0.95, 3.0
TARGET_FUSION_GAIN_PERCENT = 10.0
TARGET_PROBE_GAIN = 0.10
"""By which embedding and HU numbers together shall beat the HU numbers alone."""
TARGET_LUNG_DSC, TARGET_LUNG_RECALL = 0.97, 0.9

RETRAINED_MEANING = (
    "'No distillation' has the U-Net of stage one, 102 more steps without a teacher, and its bottleneck in "
    "the place of what distillation teaches. The two short trainings, from random weights, stand beside "
    "each other, not beside the rows above."
)
ROBUSTNESS_MEANING = (
    "Largest change of a class, in points of the lung, against the same scan as it is. A class may change by "
    f"{100 * robustness.RELATIVE:.0f} % of itself or by {robustness.ABSOLUTE:.0f} points, whichever is more; "
    "beyond that the result must carry a warning that the scan as it is does not have."
)
Row = dict[str, Any]


def results(outcome: Outcome) -> Row:
    """The figures under the keys that the project fixes; parts that were not run are absent."""
    summary: Row = {**outcome.facts, "seconds": round(outcome.seconds)}
    rows = outcome.rows
    if rows.get("cases"):
        summary |= _case_figures(rows["cases"])
        summary |= _probe_figures(rows["cases"])
    if rows.get("slices"):
        summary["slice_auc"] = {row["name"].split("/")[1]: row["ours"] for row in rows["slices"]}
    if rows.get("patches"):
        summary["emphysema_patches_auc"] = rows["patches"][0]["auc"]
    if rows.get("healthy"):
        summary["healthy_disease_percent"] = rows["healthy"][0]["ours"]
    if rows.get("robustness"):
        summary["robustness"] = judged(rows["robustness"])
        summary["dsc_scanned_differently"] = _changed_dice(rows["robustness"])
    if rows.get("readings"):
        summary["nodule_readings"] = _reading_figures(rows["readings"])
    if rows.get("nodules"):
        summary["nodules_of_known_truth"] = nodules.by_diameter(rows["nodules"])
    if rows.get("widespread"):
        summary["widespread_disease"] = widespread.by_spread(rows["widespread"])
    for part in ("slices", "patches", "healthy", "marked", "readings", "lungs", "dense", "kernels"):
        if rows.get(part):
            summary.setdefault("details", {})[part] = rows[part]
    return summary


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
        "baselines": _nested(cases, "baselines"),
        "ablations": _nested(cases, "ablations"),
        "qualities": _nested(cases, "qualities"),
        "cases": len(cases),
    }


def _reading_figures(rows: Sequence[Row]) -> Row:
    """Nodules that a reader called ground glass, and those in which one saw air."""
    return {
        "ground_glass": readings.called(rows, "texture", readings.GROUND_GLASS_TEXTURE),
        "air": readings.called(rows, "internal_structure", readings.AIR_WITHIN),
    }


def _probe_figures(cases: Sequence[Row]) -> Row:
    """The probe needs two hosts: one to learn from and one to be asked about."""
    cells = [row["cells"] for row in cases if "cells" in row]
    return {"probe": probe(cells)} if len({one.host for one in cells}) > 1 else {}


def _means(cases: Sequence[Row], pick: Callable[[Row], dict[str, float]]) -> dict[str, float]:
    return {key: mean(pick(row)[key] for row in cases) for key in KEYS}


def _nested(cases: Sequence[Row], part: str) -> Row:
    """Means over cases of what stands beside us."""
    summary: Row = {}
    for name in cases[0][part]:
        entries = [row[part][name] for row in cases]
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


def targets(summary: Row) -> list[tuple[str, str, str, bool]]:
    """Figure, target, measured, reached; only what was measured."""
    lines: list[tuple[str, str, str, bool]] = []

    def add(name: str, target: str, value: float, reached: bool, digits: int = 3) -> None:
        lines.append((name, target, f"{value:.{digits}f}", reached))

    if "dsc" in summary:
        for key, least in TARGETS.items():
            add(f"DSC {key}", f">= {least}", summary["dsc"][key], summary["dsc"][key] >= least)
        distance = summary["hd95_mm"]
        add("HD95, mm", f"<= {TARGET_HD95_MM}", distance, distance <= TARGET_HD95_MM, 1)
        lines += _fusion_target(summary) + _baseline_targets(summary)
    for case, value in summary.get("slice_auc", {}).items():
        add(f"slice AUC {case}", f">= {TARGET_SLICE_AUC}", value, value >= TARGET_SLICE_AUC)
    if "emphysema_patches_auc" in summary:
        value = summary["emphysema_patches_auc"]
        add("emphysema patches AUC", f">= {TARGET_PATCH_AUC}", value, value >= TARGET_PATCH_AUC)
    if "healthy_disease_percent" in summary:
        value = summary["healthy_disease_percent"]
        add(
            "disease in a healthy lung, %",
            f"<= {TARGET_HEALTHY_PERCENT}",
            value,
            value <= TARGET_HEALTHY_PERCENT,
        )
    if "probe" in summary:
        alone, density = (summary["probe"][name]["balanced_accuracy"] for name in (EMBEDDING, HOUNSFIELD))
        both = summary["probe"][f"{EMBEDDING} + {HOUNSFIELD}"]["balanced_accuracy"]
        add("probe: embedding", f">= {density:.3f}", alone, alone >= density)
        least = density + TARGET_PROBE_GAIN
        add("probe: embedding and HU numbers", f">= {least:.3f}", both, both >= least)
    lines += _lung_targets(summary.get("details", {}))
    if "robustness" in summary:
        held = sum(row["held"] for row in summary["robustness"].values())
        count = len(summary["robustness"])
        lines.append(("robustness", f"{count} of {count} held", f"{held} of {count}", held == count))
    return lines


def _lung_targets(details: Row) -> list[tuple[str, str, str, bool]]:
    """The worst agreement with an expert, and the share of dense lung held, as ``segment`` finds lungs."""
    lines = []
    if masks := details.get("lungs", []):
        worst = min(_held(row) for row in masks)
        target = f">= {TARGET_LUNG_DSC}"
        lines.append(("lungs, DSC against experts", target, f"{worst:.3f}", worst >= TARGET_LUNG_DSC))
    if lesions := [lesion for row in details.get("dense", []) for lesion in row["lesions"]]:
        held = [_held(lesion) for lesion in lesions]
        share = float(np.average(held, weights=[lesion["ml"] for lesion in lesions]))
        name = f"lungs, dense lung held (least of {len(held)} lesions {min(held):.2f})"
        lines.append((name, f">= {TARGET_LUNG_RECALL}", f"{share:.3f}", share >= TARGET_LUNG_RECALL))
    return lines


def _held(row: Row) -> float:
    return float(row[_measured_by(row)[0]])


def _fusion_target(summary: Row) -> list[tuple[str, str, str, bool]]:
    without = summary["ablations"]["no fusion"]
    gain = 100.0 * (1.0 - summary["hd95_mm"] / without["hd95_mm"])
    loss = max(without["dsc"][key] - summary["dsc"][key] for key in KEYS)
    return [
        (
            "fusion lowers HD95",
            f">= {TARGET_FUSION_GAIN_PERCENT:.0f} %",
            f"{gain:.1f} %",
            gain >= TARGET_FUSION_GAIN_PERCENT,
        ),
        ("largest loss of DSC by fusion", "<= 0", f"{loss:.3f}", loss <= 0.0005),
    ]


def _baseline_targets(summary: Row) -> list[tuple[str, str, str, bool]]:
    rows = []
    for key in KEYS:
        best = max(float(np.nan_to_num(one["dsc"][key])) for one in summary["baselines"].values())
        ours = summary["dsc"][key]
        rows.append((f"above every baseline, {key}", f"> {best:.3f}", f"{ours:.3f}", ours > best))
    return rows


# --- files -----------------------------------------------------------------------------------------------


def write_all(folder: Path, outcome: Outcome) -> Row:
    """Write every file of an evaluation into a folder; returns the summary."""
    from DiffSegLungLib.evaluation.figures import draw_all

    folder.mkdir(parents=True, exist_ok=True)
    summary = results(outcome)
    pictures = draw_all(folder, outcome.rows.get("cases", []), summary)
    write_json(folder / "results.json", summary)
    if outcome.rows.get("cases"):
        _write_csv(folder / "cases.csv", _case_rows(outcome.rows["cases"]))
    if "robustness" in summary:
        _write_csv(folder / "robustness.csv", _robustness_rows(summary["robustness"]))
    (folder / "RESULTS.md").write_text(page(summary, pictures), encoding="utf-8")
    return summary


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


def page(summary: Row, pictures: Sequence[str]) -> str:
    """``RESULTS.md``."""
    lines = [
        "# Evaluation",
        "",
        "Written by `make evaluate`. Lesions of known truth in hosts and seeds that were not tuned on,",
        "truth borrowed from others, and simpler methods on the same lungs, grid and scoring. How:",
        "`DiffSegLungLib/evaluation`; what was tried to get here: `LOG.md`. Research figures on few CT.",
        "",
        f"Commit `{summary['commit']}`, model `{summary['model']}`,",
        f"weights SHA-256 `{summary['weights_sha256']}`, hosts {', '.join(summary['hosts'])},",
        f"lesion seeds {', '.join(map(str, summary['lesion_seeds']))}, segmentation seed "
        f"{summary['segmentation_seed']}, {summary['seconds'] / 60:.0f} minutes on two processes.",
        "",
        "## Against the targets",
        "",
        *_table(("figure", "target", "measured", "reached"), _target_rows(summary)),
    ]
    if "dsc" in summary:
        lines += ["## DSC beside others", "", *_dice_table(summary), *_retrained_lines(summary)]
        lines += _distance_table(summary)
        lines += ["## DSC by quality", "", *_quality_table(summary["qualities"])]
    if "nodules_of_known_truth" in summary:
        lines += ["## Solid nodules", "", *_nodule_table(summary["nodules_of_known_truth"])]
    if "widespread_disease" in summary:
        table = _spread_table(summary["widespread_disease"])
        lines += ["## Disease that takes most of both lungs", "", *table]
    if "probe" in summary:
        lines += ["## What the features of a cell tell", "", *_probe_table(summary["probe"])]
    if "robustness" in summary:
        lines += ["## The same lung scanned differently", "", *_robustness_lines(summary)]
    lines += _detail_lines(summary.get("details", {}))
    if "nodule_readings" in summary:
        lines += ["## Readers' marks", "", *_reading_lines(summary)]
    lines += [line for picture in pictures for line in (f"![{picture}]({picture})", "")]
    return "\n".join(lines).rstrip() + "\n"


def _target_rows(summary: Row) -> list[tuple[str, ...]]:
    return [(name, target, value, "yes" if ok else "**no**") for name, target, value, ok in targets(summary)]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _number(value: float, digits: int = 3) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.{digits}f}"


def _dice_table(summary: Row) -> list[str]:
    rows = [("**DiffSegLung**", *(_number(summary["dsc"][key]) for key in KEYS))]
    spans = summary["dsc_interval_95"]
    rows.append(("95 % interval", *(f"{_number(spans[k][0])}-{_number(spans[k][1])}" for k in KEYS)))
    for part in ("baselines", "ablations"):
        for name, entry in summary[part].items():
            rows.append((name, *(_number(entry["dsc"][key]) for key in KEYS)))
    return _table(("method", *KEYS), rows)


def _retrained_lines(summary: Row) -> list[str]:
    """What the ablations that need another training are, and which could not be measured."""
    lines = []
    if summary.get("retrained"):
        models = "; ".join(f"{name} `{sha256[:12]}`" for name, sha256 in summary["retrained"].items())
        lines += [f"Trained anew by `make ablations`, weights SHA-256: {models}. {RETRAINED_MEANING}", ""]
    if missing := summary.get("not_retrained"):
        where = "their models are not in `DIFFSEGLUNG_MODELS`, and `make ablations` trains them"
        lines += [f"Not measured: {'; '.join(missing)}: {where}.", ""]
    return lines


def _quality_table(rows: Row) -> list[str]:
    body = [(name, *(_number(entry["dsc"][key]) for key in KEYS)) for name, entry in rows.items()]
    sentence = "What `--quality` changes; the time of each stands in `bench/bench.md`, beside this file."
    return [sentence, "", *_table(("quality", *KEYS), body)]


def _distance_table(summary: Row) -> list[str]:
    rows = [
        ("HD95, mm", *(_number(summary["hd95_mm_by_tissue"][key], 1) for key in KEYS)),
        ("mean absolute volume error, ml", *(_number(summary["volume_error_ml"][key], 1) for key in KEYS)),
    ]
    sentence = (
        "The normalised entropy tells wrong voxels from right ones with an area under the curve of "
        f"{summary['uncertainty_auc']:.3f}."
    )
    return [*_table(("DiffSegLung", *KEYS), rows), sentence, ""]


def _nodule_table(rows: Row) -> list[str]:
    body = [
        (name, str(row["nodules"]), _number(row["found"], 2), _number(row["dense"], 2))
        for name, row in rows.items()
    ]
    sentence = (
        f"Solid nodules of known truth, {nodules.COUNT} a host, anywhere but at the hila: the share of which "
        "at least half is called consolidation, fibrosis or cavity, and the mean share that is."
    )
    return [sentence, "", *_table(("diameter", "nodules", "found", "dense"), body)]


def _spread_table(rows: Row) -> list[str]:
    body = [
        (name, *(_number(row[key], 2) for key in ("held_least", "named", "elsewhere")))
        for name, row in rows.items()
    ]
    sentence = (
        "Spread into each host: the share that the lung mask holds (the least of the hosts), the share that "
        "has the right name, and the share of the other lung that has it too; means over the hosts."
    )
    return [sentence, "", *_table(("spread", "held", "named", "elsewhere"), body)]


def _probe_table(rows: Row) -> list[str]:
    """Balanced accuracy of the linear probe, and how much of the teacher it explains."""
    body = [
        (
            name,
            _number(row["balanced_accuracy"]),
            *(_number(row["by_tissue"][key], 2) for key in KEYS),
            _number(row["teacher_r2"], 2),
        )
        for name, row in rows.items()
    ]
    sentence = (
        f"A logistic regression on {next(iter(rows.values()))['cells']} cells of 12 mm, fitted on all hosts "
        "but one and asked about that one: share of each tissue's cells found. Last column: share of the "
        "variance of the 34 radiomic numbers of the cell that a linear map of the feature explains in the "
        "other host."
    )
    return [sentence, "", *_table(("feature", "balanced accuracy", *KEYS, "R2 of the teacher"), body)]


def _robustness_lines(summary: Row) -> list[str]:
    """Changes by lung, what was warned of, and the DSC that is left."""
    rows = list(summary["robustness"].values())
    subjects, changes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("subject", "change"))
    cells = {(row["subject"], row["change"]): _change_cell(row) for row in rows}
    body = [(change, *(cells.get((subject, change), "-") for subject in subjects)) for change in changes]
    lines = [ROBUSTNESS_MEANING, "", *_table(("change", *subjects), body)]
    warned = [
        f"- {row['subject']}, {row['change']}: {'; '.join(row['new_warnings'])}"
        for row in rows
        if row["new_warnings"]
    ]
    lines += ["Warnings that the scan as it is does not have:", "", *warned, ""] if warned else []
    dice = [(name, *(_number(row[key]) for key in KEYS)) for name, row in _dice_rows(summary)]
    if dice:
        lines += ["DSC of the lesions of known truth in the scan so changed:", ""]
        lines += _table(("change", *KEYS), dice)
    return lines


def _change_cell(row: Row) -> str:
    points = _number(row["largest_change_points"], 1)
    if row["volumes_held"]:
        return points
    return f"{points}, warned" if row["held"] else f"**{points}**"


def _dice_rows(summary: Row) -> list[tuple[str, Row]]:
    return list(summary.get("dsc_scanned_differently", {}).items())


def _detail_lines(details: Row) -> list[str]:
    """Borrowed truth."""
    sentences = [writer(row) for part, writer in _SENTENCES.items() for row in details.get(part, [])]
    return ["## Borrowed truth", "", *(f"- {one}" for one in sentences), ""] if sentences else []


def _reading_lines(summary: Row) -> list[str]:
    """Each nodule with what its readers said of it; the ground glass and the air among them."""
    rows = sorted(summary["details"]["readings"], key=lambda row: str(row["name"]))
    body = [(row["name"], *_nodule_cells(nodule)) for row in rows for nodule in row["nodules"]]
    sentence = (
        "Nodules of LIDC: texture (1 ground glass to 5 solid) and internal structure (1 soft tissue, "
        "2 fluid, 3 fat, 4 air) by each reader, and what we call the voxels that at least half of a nodule's "
        "readers marked; dense is consolidation, fibrosis or cavity. The readings name no place and were "
        "given to nodules by size and density."
    )
    shares = ("ground glass, %", "dense, %", "vessel, %", "outside lung, %")
    head = ("CT", "readers", "texture", "structure", "ml", *shares)
    figures = summary["nodule_readings"]
    return [
        *(sentence, "", *_table(head, body)),
        f"- Nodules that a reader called ground glass (texture 1): {_ground_glass(figures['ground_glass'])}.",
        f"- Nodules in which a reader saw air: {_air(figures['air'])}.",
        "",
    ]


def _nodule_cells(nodule: Row) -> tuple[str, ...]:
    unsure = "" if nodule["readings"] == nodule["readers"] else f" ({nodule['readings']} readings placed)"
    said = [" ".join(map(str, nodule[scale])) for scale in ("texture", "internal_structure")]
    shares = (nodule[f"{key}_percent"] for key in ("ground_glass", "dense", "vessel", "outside_lung"))
    return (
        f"{nodule['readers']}{unsure}",
        *said,
        _number(nodule["ml"], 1),
        *(_number(share, 0) for share in shares),
    )


def _ground_glass(figures: Row) -> str:
    if not figures["nodules"]:
        return "none in these data"
    return (
        f"{_counted(figures)}; {figures['ground_glass_percent']:.0f} % of its voxels called ground glass, "
        f"{figures['dense_percent']:.0f} % dense"
    )


def _air(figures: Row) -> str:
    if not figures["nodules"]:
        return "none in these data"
    return f"{_counted(figures)}; {figures['cavity_percent']:.0f} % of its voxels called cavity"


def _counted(figures: Row) -> str:
    names = (("readers", "reader"), ("nodules", "nodule"))
    return " of ".join(f"{figures[many]} {one if figures[many] == 1 else many}" for many, one in names)


def _slices_sentence(row: Row) -> str:
    return f"Slices of {row['name']}: AUC {row['ours']:.3f}; fixed thresholds {row['thresholds']:.3f}."


def _healthy_sentence(row: Row) -> str:
    return (
        f"{row['name']}, a healthy lung: {row['ours']:.2f} % called diseased; fixed thresholds "
        f"{row['thresholds']:.1f} % (vessels included)."
    )


def _marked_sentence(row: Row) -> str:
    return (
        f"{row['name']}: of {row['marked_ml']:.1f} ml marked by readers, {row['dense_percent']:.0f} % is "
        f"called dense tissue, {row['outside_lung_percent']:.0f} % lies outside our lungs."
    )


def _lungs_sentence(row: Row) -> str:
    figures = ", ".join(f"{row[method]:.3f} by {_LUNG_METHODS[method]}" for method in _measured_by(row))
    return f"{row['name']}: DSC of the lungs against the expert's {figures}."


def _dense_sentence(row: Row) -> str:
    parts = []
    for lesion in row["lesions"]:
        figures = ", ".join(
            f"{lesion[method]:.2f} by {_LUNG_METHODS[method]}" for method in _measured_by(lesion)
        )
        parts.append(f"{lesion['kind']} consolidation of {lesion['ml']:.0f} ml: {figures}")
    return f"{row['name']}, share of dense lung that the lung mask holds. {'; '.join(parts)}."


def _measured_by(row: Row) -> list[str]:
    return [method for method in _LUNG_METHODS if method in row]


def _patches_sentence(row: Row) -> str:
    shares = ", ".join(f"{key} {value:.0f} %" for key, value in row["mean_percent"].items())
    return (
        f"Emphysema patches, normal against moderate, severe and panlobular: AUC {row['auc']:.3f} "
        f"(LAA-950 {row['laa950_auc']:.3f}); emphysema called by class: {shares}."
    )


def _kernels_sentence(row: Row) -> str:
    parts = []
    for name, scan in row["scans"].items():
        shares = ", ".join(f"{key} {value:.1f} %" for key, value in scan["percent"].items())
        parts.append(f"{name}: {shares}")
    return f"One patient, soft and sharp kernel. {'. '.join(parts)}."


_LUNG_METHODS = {"network": "the network", "thresholds": "thresholds alone"}
_SENTENCES: dict[str, Callable[[Row], str]] = {
    "slices": _slices_sentence,
    "healthy": _healthy_sentence,
    "marked": _marked_sentence,
    "lungs": _lungs_sentence,
    "dense": _dense_sentence,
    "patches": _patches_sentence,
    "kernels": _kernels_sentence,
}
