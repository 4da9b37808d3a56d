"""What the figures are asked to reach, and which of them do."""

from __future__ import annotations

from typing import Any

import numpy as np

from DiffSegLungLib.evaluation.metrics import KEYS
from DiffSegLungLib.evaluation.probe import EMBEDDING, HOUNSFIELD

LUNG_METHODS = {"network": "the network", "thresholds": "thresholds alone"}

TARGETS = {
    "healthy": 0.97,
    "ground-glass": 0.84,
    "fibrosis": 0.80,
    "emphysema": 0.80,
    "consolidation": 0.92,
    "cavity": 0.72,
}
"""DSC of the older painted lesions."""
TARGET_HD95_MM, TARGET_SLICE_AUC, TARGET_PATCH_AUC, TARGET_HEALTHY_PERCENT = 8.6, 0.90, 0.95, 3.0
TARGET_FUSION_GAIN_PERCENT = 10.0
TARGET_PROBE_GAIN = 0.10
"""By which embedding and HU numbers together shall beat the HU numbers alone."""
TARGET_LUNG_DSC, TARGET_LUNG_RECALL = 0.97, 0.9


WITHOUT_LEARNING = ("thresholds", "thresholds after opening")
EARLIER = ("d6e853b", "rules only", "no network")
"""An earlier state of this project and parts of it: no other methods."""
Line = tuple[str, str, str, bool]
"""Figure, target, measured, reached."""
Row = dict[str, Any]


def targets(summary: Row) -> list[Line]:
    """Only what was measured; read CT first."""
    lines = _reading_targets(summary)
    if "dsc" in summary:
        lines += _older_targets(summary) + _fusion_target(summary) + _baseline_targets(summary)
    for case, value in summary.get("slice_auc", {}).items():
        lines.append(_at_least(f"slice AUC {case}", TARGET_SLICE_AUC, value))
    if "emphysema_patches_auc" in summary:
        value = summary["emphysema_patches_auc"]
        lines.append(_at_least("emphysema patches AUC", TARGET_PATCH_AUC, value))
    if "healthy_disease_percent" in summary:
        value, most = summary["healthy_disease_percent"], TARGET_HEALTHY_PERCENT
        lines.append(("disease in a healthy lung, %", f"<= {most}", f"{value:.3f}", value <= most))
    lines += _probe_targets(summary) + _lung_targets(summary.get("details", {}))
    if "robustness" in summary:
        held = sum(row["held"] for row in summary["robustness"].values())
        count = len(summary["robustness"])
        lines.append(("robustness", f"{count} of {count} held", f"{held} of {count}", held == count))
    return lines


def _at_least(name: str, least: float, value: float, shown: str = "") -> Line:
    return name, f">= {shown or least}", f"{value:.3f}", value >= least


def _reading_targets(summary: Row) -> list[Line]:
    """Above what needs no learning, and as good as a second reader."""
    lines = []
    ours = summary.get("readings_mean_dice")
    rivals = {
        name: row["readings_mean_dice"]
        for name, row in summary.get("baselines", {}).items()
        if name in WITHOUT_LEARNING and np.isfinite(row.get("readings_mean_dice", np.nan))
    }
    if ours is not None and rivals:
        best = max(rivals, key=lambda name: float(rivals[name]))
        title = f"read CT, mean Dice, above {best}"
        lines.append((title, f"> {rivals[best]:.3f}", f"{ours:.3f}", ours > rivals[best]))
    for case, readers in summary.get("second_reader", {}).items():
        other = float(np.mean(list(readers.values())))
        own = float(np.mean([summary["readings"][case][reader]["dice"] for reader in readers]))
        lines.append(_at_least(f"{case}, Dice beside a second reader", other, own, f"{other:.3f}"))
    return lines


def _older_targets(summary: Row) -> list[Line]:
    rows = [
        _at_least(f"older painted, DSC {key}", least, summary["dsc"][key]) for key, least in TARGETS.items()
    ]
    distance, most = summary["hd95_mm"], TARGET_HD95_MM
    return [*rows, ("older painted, HD95, mm", f"<= {most}", f"{distance:.1f}", distance <= most)]


def _probe_targets(summary: Row) -> list[Line]:
    if "probe" not in summary:
        return []
    alone, density = (summary["probe"][name]["balanced_accuracy"] for name in (EMBEDDING, HOUNSFIELD))
    both = summary["probe"][f"{EMBEDDING} + {HOUNSFIELD}"]["balanced_accuracy"]
    least = density + TARGET_PROBE_GAIN
    return [
        _at_least("probe: embedding", density, alone, f"{density:.3f}"),
        _at_least("probe: embedding and HU numbers", least, both, f"{least:.3f}"),
    ]


def _lung_targets(details: Row) -> list[Line]:
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
    return float(row[measured_by(row)[0]])


def measured_by(row: Row) -> list[str]:
    """The methods by which lungs were found there."""
    return [method for method in LUNG_METHODS if method in row]


def _fusion_target(summary: Row) -> list[Line]:
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


def _baseline_targets(summary: Row) -> list[Line]:
    rows = []
    for key in KEYS:
        rivals = [
            row["dsc"][key]
            for name, row in summary["baselines"].items()
            if name not in EARLIER and "dsc" in row
        ]
        best, ours = max(float(np.nan_to_num(value)) for value in rivals), summary["dsc"][key]
        rows.append(
            (f"older painted, above every baseline, {key}", f"> {best:.3f}", f"{ours:.3f}", ours > best)
        )
    return rows
