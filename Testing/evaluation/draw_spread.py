"""Draws Resources/Screenshots/spread.png: a result, one stroke, and what it spread to.

python Testing/evaluation/draw_spread.py DATA/train/P002.nii.gz DATA/readings/P002_A.json

The stroke is that of the simulated reader: in the largest error, as long and as broad as a brush paints.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from DiffSegLungLib import segment
from DiffSegLungLib.evaluation.readings import load_reading, truth_of
from DiffSegLungLib.evaluation.simulated_reader import next_stroke
from DiffSegLungLib.tissues import BY_LABEL, HEALTHY, VESSEL

PICTURE = Path(__file__).resolve().parents[2] / "Resources" / "Screenshots" / "spread.png"
WINDOW_HU = (-1200.0, 200.0)
MARGIN = 12


def overlay(hu: np.ndarray, labels: np.ndarray, opacity: float = 0.45) -> np.ndarray:
    """RGB of a slice with its tissues over it; healthy lung and vessels as they are."""
    low, high = WINDOW_HU
    picture = np.repeat(np.clip((hu - low) / (high - low), 0, 1)[..., None], 3, axis=2)
    for label, tissue in BY_LABEL.items():
        if label not in (HEALTHY, VESSEL):
            where = labels == label
            picture[where] = (1 - opacity) * picture[where] + opacity * np.array(tissue.colour) / 255
    return picture


def main(ct: str, reading: str) -> None:
    """Segment, paint one stroke, spread, draw."""
    result = segment(ct)
    truth = truth_of(load_reading(Path(reading)), result.volume.hu, result.volume.spacing)
    strokes = np.zeros_like(result.label_array)
    stroke = next_stroke(truth, result.label_array, strokes, result.volume.spacing)
    assert stroke is not None
    strokes[stroke.z][stroke.pixels] = stroke.label
    after = result.correct(strokes).label_array
    rows, columns = np.nonzero(result.label_array[stroke.z])
    box = np.s_[
        max(rows.min() - MARGIN, 0) : rows.max() + MARGIN,
        max(columns.min() - MARGIN, 0) : columns.max() + MARGIN,
    ]
    hu, place = result.volume.hu[stroke.z][box], stroke.z
    shown = {
        "as it was segmented": result.label_array[place][box],
        "one stroke": strokes[place][box],
        "spread": after[place][box],
    }
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    for axis, (title, labels) in zip(figure.subplots(1, 3), shown.items(), strict=True):
        axis.imshow(overlay(hu, labels, 0.9 if title == "one stroke" else 0.45), aspect="equal")
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(PICTURE, dpi=90)


if __name__ == "__main__":
    main(*sys.argv[1:])
