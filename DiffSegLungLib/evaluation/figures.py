"""Pictures of an evaluation: the cases with truth and result, and DSC beside the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.evaluation.metrics import KEYS
from DiffSegLungLib.tissues import BY_KEY, TISSUES

WINDOW_HU = (-1050.0, 50.0)


def draw_all(folder: Path, cases: Sequence[dict[str, Any]], summary: dict[str, Any]) -> None:
    """Draw the older painted lesions, where they were measured."""
    if cases:
        draw_cases(folder / "cases.png", cases)
        draw_dice(folder / "dsc.png", summary)


def draw_cases(path: Path, cases: Sequence[dict[str, Any]]) -> None:
    """One row a case: the host, the host with lesions, the truth, our labels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3 * len(cases)), layout="constrained")
    axes = figure.subplots(len(cases), 4, squeeze=False)
    ordered = sorted(cases, key=lambda case: (case["host"], case["seed"]))
    for row, case in zip(axes, ordered, strict=True):
        plane = case["slice"]
        for place, (title, hu, labels) in zip(
            row,
            (
                (f"{case['host']}, as scanned", plane["before"], None),
                (f"painted lesions, seed {case['seed']}", plane["hu"], None),
                ("truth", plane["hu"], plane["truth"]),
                ("DiffSegLung", plane["hu"], plane["labels"]),
            ),
            strict=True,
        ):
            place.imshow(hu, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
            if labels is not None:
                place.imshow(_coloured(labels))
            place.set_title(title, fontsize=8)
            place.set_axis_off()
    figure.savefig(path, dpi=70)


def _coloured(labels: np.ndarray) -> np.ndarray:
    """RGBA overlay of the diseases."""
    colours = np.zeros((len(TISSUES) + 1, 4))
    for tissue in TISSUES:
        alpha = 0.5 if tissue.is_disease else 0.0
        colours[tissue.label] = (*(value / 255 for value in tissue.colour), alpha)
    return colours[labels]


def draw_dice(path: Path, summary: dict[str, Any]) -> None:
    """Bars of DSC by tissue: ours with its interval, and each baseline."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    methods = {"DiffSegLung": summary["dsc"]} | {
        name: one["dsc"] for name, one in summary["baselines"].items() if "dsc" in one
    }
    width = 0.8 / len(methods)
    for number, (name, dice) in enumerate(methods.items()):
        places = np.arange(len(KEYS)) + (number - len(methods) / 2 + 0.5) * width
        values = np.nan_to_num([dice[key] for key in KEYS])
        axes.bar(places, values, width, label=name, color="black" if number == 0 else None)
    axes.set_xticks(np.arange(len(KEYS)), [BY_KEY[key].name for key in KEYS], fontsize=8)
    axes.set_ylabel("DSC")
    axes.set_ylim(0, 1)
    axes.legend(fontsize=7, ncols=2, loc="upper right")
    figure.savefig(path, dpi=80)


def draw_patches(path: Path, stacks: dict[str, np.ndarray], count: int = 8) -> None:
    """Middle slices of stacks of patches (n, z, y, x), a row for each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 * count, 1.7 * len(stacks)), layout="constrained")
    axes = figure.subplots(len(stacks), 1, squeeze=False)[:, 0]
    for place, (title, stack) in zip(axes, stacks.items(), strict=True):
        line = np.concatenate(list(stack[:count, stack.shape[1] // 2]), axis=1)
        place.imshow(line, cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1])
        place.set_title(title, fontsize=9, loc="left")
        place.set_axis_off()
    figure.savefig(path, dpi=80)
