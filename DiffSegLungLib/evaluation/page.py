"""``RESULTS.md``: read CT first, painted lesions second, the older measurements behind."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from DiffSegLungLib.evaluation import nodules, reading_page, robustness
from DiffSegLungLib.evaluation.metrics import KEYS
from DiffSegLungLib.evaluation.tables import number, table
from DiffSegLungLib.evaluation.targets import LUNG_METHODS, measured_by, targets

RETRAINED_MEANING = (
    "'No distillation' has the U-Net of stage one, 102 more steps without a teacher, and its bottleneck in "
    "the place of what distillation teaches. The two short trainings, from random weights, stand beside "
    "each other, not beside the rows above."
)
ROBUSTNESS_MEANING = (
    "Largest change of a class, in points of the lung, against the same scan as it is. A class may change by "
    f"{100 * robustness.RELATIVE:.0f} % of itself or by {robustness.ABSOLUTE:.0f} points, whichever is more; "
    "beyond that the result must carry the warning of this very change (`robustness.EXPECTED`), which the "
    "scan as it is does not have; any other is chance."
)
Row = dict[str, Any]


def page(summary: Row, pictures: Sequence[str]) -> str:
    """``RESULTS.md``.

    Args:
        summary: ``results.json``.
        pictures: paths below the folder of the page.
    """
    own = [name for name in pictures if "/" not in name]
    lines = [
        "# Evaluation",
        "",
        "Written by `make evaluate` and `make evaluate-all`. First what counts: disease that readers marked",
        "in real CT. Then painted disease, called painted in every table. Simpler methods and an earlier",
        "state stand beside each.",
        "How: `DiffSegLungLib/evaluation`; what was tried to get here: `LOG.md`. Research figures on few CT.",
        "",
        f"Commit `{summary['commit']}`, model `{summary['model']}`,",
        f"weights SHA-256 `{summary['weights_sha256']}`, segmentation seed {summary['segmentation_seed']}.",
        *_time_lines(summary),
        "",
        *_carried_lines(summary),
        *reading_page.read_ct_lines(summary, [name for name in pictures if "/" in name]),
        *reading_page.painted_lines(summary),
        "## Against the targets",
        "",
        *table(("figure", "target", "measured", "reached"), _target_rows(summary)),
        *_older_lines(summary),
    ]
    if "robustness" in summary:
        lines += ["## The same lung scanned differently", "", *_robustness_lines(summary)]
    lines += _detail_lines(summary.get("details", {}))
    if "nodule_readings" in summary:
        lines += ["## Readers' marks of nodules", "", *_reading_lines(summary)]
    lines += [line for picture in own for line in (f"![{picture}]({picture})", "")]
    return "\n".join(lines).rstrip() + "\n"


def _time_lines(summary: Row) -> list[str]:
    seconds = summary["seconds"]
    return [f"It took {seconds / 60:.0f} minutes on two processes, without what was kept."] if seconds else []


def _carried_lines(summary: Row) -> list[str]:
    """Which figures are of an earlier run."""
    by_commit: dict[str, list[str]] = {}
    for name, commit in summary.get("carried_over", {}).items():
        by_commit.setdefault(commit, []).append(f"`{name}`")
    return [
        f"Not measured in this run, but at commit `{commit}`, by the model of then: {', '.join(names)}.\n"
        for commit, names in by_commit.items()
    ]


def _older_lines(summary: Row) -> list[str]:
    """The lesions that this project painted before, where their truth leaves out what is hard."""
    lines: list[str] = []
    if "dsc" in summary:
        lines += ["## Older painted lesions: DSC beside others", "", _older_sentence(summary), ""]
        lines += [*_dice_table(summary), *_retrained_lines(summary), *_distance_table(summary)]
        lines += ["## Older painted lesions: DSC by quality", "", *_quality_table(summary["qualities"])]
    if "nodules_of_known_truth" in summary:
        lines += ["## Painted solid nodules", "", *_nodule_table(summary["nodules_of_known_truth"])]
    if "widespread_disease" in summary:
        spread = _spread_table(summary["widespread_disease"])
        lines += ["## Older painted disease that takes most of both lungs", "", *spread]
    if "probe" in summary:
        lines += [
            "## What the features of a cell tell of older painted lesions",
            "",
            *_probe_table(summary["probe"]),
        ]
    return lines


def _older_sentence(summary: Row) -> str:
    return (
        "Round lesions away from vessels and hila, which are left out of the score: easier than disease is. "
        f"Hosts {', '.join(summary['hosts'])}, lesion seeds {', '.join(map(str, summary['lesion_seeds']))}."
    )


def _target_rows(summary: Row) -> list[tuple[str, ...]]:
    return [(name, target, value, "yes" if ok else "**no**") for name, target, value, ok in targets(summary)]


def _dice_table(summary: Row) -> list[str]:
    rows = [("**DiffSegLung**", *(number(summary["dsc"][key]) for key in KEYS))]
    spans = summary["dsc_interval_95"]
    rows.append(("95 % interval", *(f"{number(spans[k][0])}-{number(spans[k][1])}" for k in KEYS)))
    for part in ("baselines", "ablations"):
        for name, entry in summary[part].items():
            if "dsc" in entry:
                rows.append((name, *(number(entry["dsc"][key]) for key in KEYS)))
    return table(("method", *KEYS), rows)


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
    body = [(name, *(number(entry["dsc"][key]) for key in KEYS)) for name, entry in rows.items()]
    sentence = "What `--quality` changes; the time of each stands in `bench/bench.md`, beside this file."
    return [sentence, "", *table(("quality", *KEYS), body)]


def _distance_table(summary: Row) -> list[str]:
    rows = [
        ("HD95, mm", *(number(summary["hd95_mm_by_tissue"][key], 1) for key in KEYS)),
        ("mean absolute volume error, ml", *(number(summary["volume_error_ml"][key], 1) for key in KEYS)),
    ]
    sentence = (
        "The normalised entropy tells wrong voxels from right ones with an area under the curve of "
        f"{summary['uncertainty_auc']:.3f}."
    )
    return [*table(("DiffSegLung", *KEYS), rows), sentence, ""]


def _nodule_table(rows: Row) -> list[str]:
    body = [
        (name, str(row["nodules"]), number(row["found"], 2), number(row["dense"], 2))
        for name, row in rows.items()
    ]
    sentence = (
        f"Solid nodules of known truth, {nodules.COUNT} a host, anywhere but at the hila: the share of which "
        "at least half is called consolidation, fibrosis or cavity, and the mean share that is."
    )
    return [sentence, "", *table(("diameter", "nodules", "found", "dense"), body)]


def _spread_table(rows: Row) -> list[str]:
    body = [
        (name, *(number(row[key], 2) for key in ("held_least", "named", "elsewhere")))
        for name, row in rows.items()
    ]
    sentence = (
        "Spread into each host: the share that the lung mask holds (the least of the hosts), the share that "
        "has the right name, and the share of the other lung that has it too; means over the hosts."
    )
    return [sentence, "", *table(("spread", "held", "named", "elsewhere"), body)]


def _probe_table(rows: Row) -> list[str]:
    """Balanced accuracy of the linear probe, and how much of the teacher it explains."""
    body = [
        (
            name,
            number(row["balanced_accuracy"]),
            *(number(row["by_tissue"][key], 2) for key in KEYS),
            number(row["teacher_r2"], 2),
        )
        for name, row in rows.items()
    ]
    sentence = (
        f"A logistic regression on {next(iter(rows.values()))['cells']} cells of 12 mm, fitted on all hosts "
        "but one and asked about that one: share of each tissue's cells found. Last column: share of the "
        "variance of the 34 radiomic numbers of the cell that a linear map of the feature explains in the "
        "other host."
    )
    return [sentence, "", *table(("feature", "balanced accuracy", *KEYS, "R2 of the teacher"), body)]


def _robustness_lines(summary: Row) -> list[str]:
    """Changes by lung, what was warned of, and the DSC that is left."""
    rows = list(summary["robustness"].values())
    subjects, changes = (list(dict.fromkeys(row[key] for row in rows)) for key in ("subject", "change"))
    cells = {(row["subject"], row["change"]): _change_cell(row) for row in rows}
    body = [(change, *(cells.get((subject, change), "-") for subject in subjects)) for change in changes]
    lines = [ROBUSTNESS_MEANING, "", *table(("change", *subjects), body)]
    warned = [
        f"- {row['subject']}, {row['change']}: {'; '.join(row['new_warnings'])}"
        for row in rows
        if row["new_warnings"]
    ]
    lines += ["Warnings that the scan as it is does not have:", "", *warned, ""] if warned else []
    dice = [(name, *(number(row[key]) for key in KEYS)) for name, row in _dice_rows(summary)]
    if dice:
        lines += ["DSC of the lesions of known truth in the scan so changed:", ""]
        lines += table(("change", *KEYS), dice)
    return lines


def _change_cell(row: Row) -> str:
    points = number(row["largest_change_points"], 1)
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
    rows = sorted(summary["details"]["nodule_readings"], key=lambda row: str(row["name"]))
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
        *(sentence, "", *table(head, body)),
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
        number(nodule["ml"], 1),
        *(number(share, 0) for share in shares),
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
    figures = ", ".join(f"{row[method]:.3f} by {LUNG_METHODS[method]}" for method in measured_by(row))
    return f"{row['name']}: DSC of the lungs against the expert's {figures}."


def _dense_sentence(row: Row) -> str:
    parts = []
    for lesion in row["lesions"]:
        figures = ", ".join(
            f"{lesion[method]:.2f} by {LUNG_METHODS[method]}" for method in measured_by(lesion)
        )
        parts.append(f"{lesion['kind']} consolidation of {lesion['ml']:.0f} ml: {figures}")
    return f"{row['name']}, share of dense lung that the lung mask holds. {'; '.join(parts)}."


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


_SENTENCES: dict[str, Callable[[Row], str]] = {
    "slices": _slices_sentence,
    "healthy": _healthy_sentence,
    "marked": _marked_sentence,
    "lungs": _lungs_sentence,
    "dense": _dense_sentence,
    "patches": _patches_sentence,
    "kernels": _kernels_sentence,
}
