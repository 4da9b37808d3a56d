"""Pictures of read CT: the slice with most disease, its marks and our labels side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.evaluation.figures import WINDOW_HU
from DiffSegLungLib.evaluation.read_ct import OURS
from DiffSegLungLib.tissues import BY_KEY, DISEASES, TISSUES, VESSEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_INCHES, DPI = 12.0, 100
OTHER_COLOUR = (0.2, 0.85, 0.95)


def draw_readings(folder: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Draw each CT into ``CASE.png``."""
    for row in rows:
        folder.mkdir(parents=True, exist_ok=True)
        draw_reading(folder / f"{row['name'].split('/')[-1]}.png", row)


def draw_reading(path: Path, row: Mapping[str, Any]) -> None:
    """Draw one CT as it is, with the reader's marks, and with our labels; a legend below."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    plane = row["picture"]
    rows, columns = np.array(plane["hu"].shape) * plane["spacing"]
    figure = Figure(figsize=(WIDTH_INCHES, WIDTH_INCHES / 3 * rows / columns + 0.75), layout="constrained")
    case, dice = row["name"].split("/")[-1], row["scores"][plane["reader"]][OURS]["dice"]
    titles = (
        f"{case}, slice {plane['z']}",
        f"marked by reader {plane['reader']} (dashed: unsure)",
        f"DiffSegLung (Dice {dice:.2f} over all slices read)",
    )
    for axes, title in zip(figure.subplots(1, 3), titles, strict=True):
        axes.imshow(
            plane["hu"], cmap="gray", vmin=WINDOW_HU[0], vmax=WINDOW_HU[1], extent=(0, columns, rows, 0)
        )
        axes.set_title(title, fontsize=9)
        axes.set_axis_off()
    _draw_marks(figure.axes[1], plane)
    figure.axes[2].imshow(_overlay(plane["labels"]), extent=(0, columns, rows, 0), interpolation="nearest")
    patches = [Patch(color=_colour(tissue.colour), label=tissue.name) for tissue in DISEASES]
    patches += [
        Patch(color=OTHER_COLOUR, label="other mark"),
        Patch(color=_colour(TISSUES[VESSEL - 1].colour), label="vessel"),
    ]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), fontsize=8, frameon=False)
    _save(figure, path)


def _draw_marks(axes: Axes, plane: Mapping[str, Any]) -> None:
    """Ellipses in mm from the corner of the crop."""
    from matplotlib.patches import Ellipse

    top, left = np.array(plane["origin"]) * plane["spacing"]
    for mark in plane["marks"]:
        known = mark["tissue"] in BY_KEY
        outline = Ellipse(
            (mark["x"] - left, mark["y"] - top),
            2 * mark["rx"],
            2 * mark["ry"],
            angle=mark["angle"],
            fill=False,
            linewidth=1.4,
            linestyle="-" if mark["sure"] else "--",
            edgecolor=_colour(BY_KEY[mark["tissue"]].colour) if known else OTHER_COLOUR,
        )
        axes.add_patch(outline)


def _colour(colour: tuple[int, int, int]) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in colour)
    return red, green, blue


def _overlay(labels: np.ndarray) -> np.ndarray:
    """RGBA of what is diseased, and fainter of vessels."""
    colours = np.zeros((len(TISSUES) + 1, 4))
    for tissue in TISSUES:
        alpha = 0.5 if tissue.is_disease else 0.35 if tissue.label == VESSEL else 0.0
        colours[tissue.label] = (*_colour(tissue.colour), alpha)
    return colours[labels]


def _save(figure: Any, path: Path) -> None:
    """Write a PNG with a palette, a third of the size; by coverage it keeps the colours of the legend."""
    from io import BytesIO

    from PIL import Image

    buffer = BytesIO()
    figure.savefig(buffer, dpi=DPI)
    Image.open(buffer).convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE).save(path, optimize=True)
