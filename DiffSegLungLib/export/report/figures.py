"""The pictures of the report, drawn without a window and without pyplot's global state."""

from __future__ import annotations

from collections.abc import Sequence
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.anatomy import LEFT, RIGHT, WHOLE
from DiffSegLungLib.densities import LOW_ATTENUATION_HU
from DiffSegLungLib.export.report import slices
from DiffSegLungLib.export.report.drawing import (
    INK,
    LETTER_WIDTH,
    PAPER,
    Box,
    add_axes,
    add_chart,
    colour_of,
    draw_lettering,
    fill_box,
    is_light,
    new_figure,
    png_bytes,
    show_picture,
    write_text,
)
from DiffSegLungLib.export.report.relief import FRONT, GRID_MM, VIEWS, relief
from DiffSegLungLib.export.report.slices import CORONAL, Chest, Cut
from DiffSegLungLib.quantify.measures import DEFINITIONS, number_text
from DiffSegLungLib.tissues import DISEASES, REPORTED, TISSUES

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PAIR_WIDTH = 1400
GLANCE_WIDTH, GLANCE_ROWS = 1150, (330, 265)
"""Of the picture on the PDF's first page, and the most height of its rows; narrow, so that it can be read."""
OVERVIEW_WIDTH = 2000
GAP = 8
SCALE_BAR_MM = 50.0
MINIMUM_DEPTH_MM = 20.0
NOT_CLINICAL = "Research use only. Not for clinical use."

HISTOGRAM_EDGES = np.arange(-1050.0, 151.0, 10.0)

HISTOGRAM_DECADES = 4
"""Powers of ten below the peak that the histogram shows: a lesion of a few ml beside litres of lung."""
HISTOGRAM_SHARE = 0.62
"""Share of the chart's height that the histogram takes; the tissues' ranges are above."""


def pair_png(chest: Chest, cut: Cut) -> bytes:
    """One slice twice as PNG: the bare CT, and the same with the tissues."""
    # One scale for all planes: a lesion has the same size wherever it is seen.
    widest = max(slices.plane_millimetres(chest, axis)[1] for axis in range(3))
    shape = _scaled(chest, cut.axis, (PAIR_WIDTH - GAP) / 2 / widest)
    figure = new_figure(PAIR_WIDTH, shape[0], "black")
    _draw_pair(figure, chest, cut, ((PAIR_WIDTH - GAP) // 2 - shape[1], 0), shape, lettering=1.5)
    return png_bytes(figure)


def projection_png(chest: Chest) -> bytes:
    """The share of the lung's depth taken by each disease, seen from the front, as PNG."""
    width = (PAIR_WIDTH - GAP * (len(DISEASES) - 1)) / len(DISEASES)
    figure = new_figure(PAIR_WIDTH, _projection_height(chest, width), "black")
    _draw_projections(figure, chest, (0, 0), width)
    return png_bytes(figure)


def relief_png(chest: Chest) -> bytes:
    """Disease in three dimensions, from the front and from behind, as PNG."""
    pictures = [relief(chest, degrees) for degrees, _, _ in VIEWS.values()]
    width = (PAIR_WIDTH - GAP) // 2
    rows, columns = pictures[0].shape[:2]
    height = round(rows * width / columns)
    figure = new_figure(PAIR_WIDTH, height, "black")
    for index, title in enumerate(VIEWS):
        _draw_body(figure, pictures[index], title, (index * (width + GAP), 0, width, height), 18)
    return png_bytes(figure)


def glance_png(chest: Chest, cuts: Sequence[Cut]) -> bytes:
    """What page one shows: cuts with the tissues and the body from the front, then projections and histogram.

    Args:
        chest: the cropped volume.
        cuts: to be shown side by side.
    """
    body = relief(chest, VIEWS[FRONT][0])
    millimetres = [slices.plane_millimetres(chest, cut.axis) for cut in cuts]
    millimetres.append((body.shape[0] * GRID_MM, body.shape[1] * GRID_MM))
    free = GLANCE_WIDTH - GAP * len(cuts)
    scale = min(
        free / sum(wide for _, wide in millimetres), GLANCE_ROWS[0] / max(high for high, _ in millimetres)
    )
    height = round(max(high for high, _ in millimetres) * scale)
    figure = new_figure(GLANCE_WIDTH, height + GAP + GLANCE_ROWS[1], PAPER)
    fill_box(figure, (0, 0, GLANCE_WIDTH, height), "black")
    left = (free - sum(wide for _, wide in millimetres) * scale) / 2
    for cut, (high, wide) in zip(cuts, millimetres, strict=False):
        shape = (max(int(high * scale), 1), max(int(wide * scale), 1))
        axes = add_axes(figure, (round(left), (height - shape[0]) // 2, shape[1], shape[0]))
        show_picture(axes, slices.overlay_picture(chest, cut, shape))
        _annotate_plane(axes, cut, shape, chest, 0.75)
        left += shape[1] + GAP
    high, wide = (int(side * scale) for side in millimetres[-1])
    _draw_body(figure, body, FRONT, (round(left), (height - high) // 2, wide, high), 13)
    tile = (GLANCE_WIDTH * 0.6 - 4 * GAP) / len(DISEASES)
    _draw_projections(figure, chest, (0, height + GAP), tile, 8)
    box = (GLANCE_WIDTH * 0.665, height + 40, GLANCE_WIDTH * 0.325, GLANCE_ROWS[1] - 82)
    _draw_histogram(figure, chest, box, named=False)  # the table beside it names the colours
    return png_bytes(figure)


def histogram_png(chest: Chest) -> bytes:
    """The HU histogram of the lungs as PNG."""
    figure = new_figure(PAIR_WIDTH // 2, 520, PAPER)
    _draw_histogram(figure, chest, (80, 48, PAIR_WIDTH // 2 - 100, 400))
    return png_bytes(figure)


def bars_png(measures: pandas.DataFrame) -> bytes:
    """The stacked bar of tissue shares per region as PNG."""
    height = max(520, 150 + 90 * len(measures))
    figure = new_figure(PAIR_WIDTH // 2, height, PAPER)
    _draw_bars(figure, measures, (130, 48, PAIR_WIDTH // 2 - 250, height - 120))
    return png_bytes(figure)


def overview_png(chest: Chest, title: str, measures: pandas.DataFrame | None) -> bytes:
    """Everything on one page as PNG: slices beside the bare CT, projection, charts and legend."""
    cuts = slices.choose_cuts(chest)
    axial, others = cuts[:-2], cuts[-2:]
    rows = [axial[start : start + 2] for start in range(0, len(axial), 2)] + [others]
    scale = min(_row_scale(chest, row) for row in rows)
    heights = [max(_scaled(chest, cut.axis, scale)[0] for cut in row) for row in rows]
    bottom = 70 + sum(heights) + GAP * len(heights)
    tile = (OVERVIEW_WIDTH - GAP * (len(DISEASES) - 1)) / len(DISEASES)
    projections = _projection_height(chest, tile)
    figure = new_figure(OVERVIEW_WIDTH, bottom + projections + 480, PAPER)
    _heading(figure, title)
    _draw_rows(figure, chest, rows, heights, scale)
    _draw_projections(figure, chest, (0, bottom), tile)
    _draw_charts(figure, chest, measures, bottom + projections)
    return png_bytes(figure)


def _heading(figure: Figure, title: str) -> None:
    write_text(figure, (16, 22), title, size=17, weight="bold")
    write_text(figure, (16, 50), f"Lung window: level -600, width 1500 HU. {NOT_CLINICAL}", size=11.5)


def _draw_rows(
    figure: Figure, chest: Chest, rows: Sequence[Sequence[Cut]], heights: Sequence[int], scale: float
) -> None:
    top = 70
    for row, height in zip(rows, heights, strict=True):
        fill_box(figure, (0, top, OVERVIEW_WIDTH, height), "black")
        widths = [2 * _scaled(chest, cut.axis, scale)[1] + GAP for cut in row]
        space = max((OVERVIEW_WIDTH - sum(widths)) // (len(row) + 1), 0)
        left = space
        for cut, width in zip(row, widths, strict=True):
            shape = _scaled(chest, cut.axis, scale)
            _draw_pair(figure, chest, cut, (left, top + (height - shape[0]) // 2), shape)
            left += width + space
        top += height + GAP


def _draw_charts(figure: Figure, chest: Chest, measures: pandas.DataFrame | None, top: float) -> None:
    _draw_histogram(figure, chest, (90, top + 60, 590, 330))
    if measures is None:
        _draw_legend(figure, None, (780, top + 60))
        return
    shown = measures.loc[[name for name in (WHOLE, RIGHT, LEFT) if name in measures.index] or measures.index]
    _draw_bars(figure, shown, (800, top + 60, 480, 330))
    _draw_legend(figure, shown.iloc[0], (1450, top + 60))


def _draw_pair(
    figure: Figure,
    chest: Chest,
    cut: Cut,
    corner: tuple[int, int],
    shape: tuple[int, int],
    lettering: float = 1.0,
) -> None:
    left, top = corner
    for index, paint in enumerate((slices.bare_picture, slices.overlay_picture)):
        box = (left + index * (shape[1] + GAP), top, shape[1], shape[0])
        axes = add_axes(figure, box)
        show_picture(axes, paint(chest, cut, shape))
        _annotate_plane(axes, cut, shape, chest, lettering)


def _annotate_plane(axes: Axes, cut: Cut, shape: tuple[int, int], chest: Chest, size: float) -> None:
    left, right, top, bottom = slices.PLANE_LETTERS[cut.axis]
    draw_lettering(axes, 0.012, 0.5, left, "left", "center", size=13 * size)
    draw_lettering(axes, 0.988, 0.5, right, "right", "center", size=13 * size)
    draw_lettering(axes, 0.5, 0.985, top, "center", "top", size=13 * size)
    draw_lettering(axes, 0.5, 0.015, bottom, "center", "bottom", size=13 * size)
    title = cut.short_title(chest)
    crowded = len(title) * LETTER_WIDTH * 11 * size > shape[1] / 2  # it would run into the upper letter
    draw_lettering(axes, 0.012, 0.985 - crowded * 20 * size / shape[0], title, "left", "top", size=11 * size)
    _scale_bar(axes, shape, slices.plane_millimetres(chest, cut.axis)[1], 11 * size)


def _scale_bar(axes: Axes, shape: tuple[int, int], width_mm: float, size: float) -> None:
    length = SCALE_BAR_MM / width_mm
    if length > 0.8:
        return
    x, y = 0.985 - length, 14 / shape[0]
    for width, colour in ((5.5, "black"), (2.5, "white")):
        style: dict[str, Any] = {"color": colour, "linewidth": width, "solid_capstyle": "butt"}
        axes.plot([x, x + length], [y, y], transform=axes.transAxes, **style)
    draw_lettering(axes, x + length / 2, y + 7 / shape[0], "5 cm", "center", "bottom", size=size)


def _draw_body(figure: Figure, picture: np.ndarray, title: str, box: Box, size: float) -> None:
    """A view of the lungs in three dimensions, with the patient's sides."""
    _, left, right = VIEWS[title]
    axes = add_axes(figure, box)
    show_picture(axes, np.clip(slices.resample_colour(picture, (int(box[3]), int(box[2]))), 0, 1))
    draw_lettering(axes, 0.02, 0.98, title, "left", "top", size=0.8 * size)
    draw_lettering(axes, 0.02, 0.5, left, "left", "center", size=size)
    draw_lettering(axes, 0.98, 0.5, right, "right", "center", size=size)


def _projection_height(chest: Chest, width: float) -> int:
    return _pixels(chest, CORONAL, width)[0] + 78


def _draw_projections(
    figure: Figure, chest: Chest, corner: tuple[float, float], width: float, size: float = 12.5
) -> None:
    left, top = corner
    shape = _pixels(chest, CORONAL, width)
    depth, shares = slices.depth_shares(chest)
    # Along the rim the lung is a few voxels deep and partial volume is all of it: not to set the scale.
    deep = depth * chest.spacing[CORONAL] >= MINIMUM_DEPTH_MM
    limit = _round_up(max(float(share[deep].max(initial=0.0)) for share in shares.values()))
    total = len(DISEASES) * (width + GAP) - GAP
    fill_box(figure, (left, top, total, _projection_height(chest, width)), "black")
    for index, tissue in enumerate(DISEASES):
        x = left + index * (width + GAP)
        picture = _projection_picture(depth, shares[tissue.label], limit, np.array(tissue.colour) / 255)
        axes = add_axes(figure, (round(x), round(top) + 30, shape[1], shape[0]))
        show_picture(axes, slices.resample_colour(picture, shape))
        draw_lettering(axes, 0.02, 0.99, "R", "left", "top")
        draw_lettering(axes, 0.98, 0.99, "L", "right", "top")
        write_text(figure, (x + 8, top + 16), tissue.name, size=size, colour="white", weight="bold")
        _draw_ramp(figure, (x + 8, top + shape[0] + 40, width - 16, 10), np.array(tissue.colour) / 255, limit)


def _projection_picture(depth: np.ndarray, share: np.ndarray, limit: float, colour: np.ndarray) -> np.ndarray:
    amount = np.clip(share / limit, 0, 1)[..., None]
    lung = np.where((depth > 0)[..., None], 0.16, 0.0) * np.ones(3)
    return lung * (1 - amount) + colour * amount


def _draw_ramp(figure: Figure, box: Box, colour: np.ndarray, limit: float) -> None:
    steps = np.linspace(0, 1, 128)[None, :, None]
    axes = add_axes(figure, box)
    axes.imshow(0.16 * (1 - steps) + colour * steps, aspect="auto")
    write_text(figure, (box[0], box[1] + 22), "0 %", size=10.5, colour="white")
    text = f"{100 * limit:.0f} %{'' if limit == 1 else ' or more'}"
    write_text(figure, (box[0] + box[2], box[1] + 22), text, size=10.5, colour="white", align="right")


def _draw_histogram(figure: Figure, chest: Chest, box: Box, named: bool = True) -> None:
    axes = add_chart(figure, box, "HU histogram of the lungs, by tissue")
    counts = slices.histogram(chest, HISTOGRAM_EDGES) * float(np.prod(chest.spacing)) / 1000.0
    peak = max(float(counts.max()), 1e-3)
    floor = peak / 10.0**HISTOGRAM_DECADES
    # Side by side, not stacked: on a logarithmic axis the height of a stacked part would mean nothing.
    for tissue in TISSUES:
        values, colour = np.maximum(counts[tissue.label], floor), colour_of(tissue.label)
        axes.stairs(values, HISTOGRAM_EDGES, baseline=floor, fill=True, color=colour, alpha=0.30, linewidth=0)
        axes.stairs(values, HISTOGRAM_EDGES, baseline=None, color=colour, linewidth=1.6)
    axes.set_yscale("log")
    top = floor * (peak / floor) ** (1 / HISTOGRAM_SHARE)
    axes.set(xlim=(HISTOGRAM_EDGES[0], HISTOGRAM_EDGES[-1]), ylim=(floor, top))
    axes.axvline(LOW_ATTENUATION_HU, ymax=HISTOGRAM_SHARE, color=INK, linewidth=1.2, linestyle="--")
    axes.text(-957, peak, "-950", ha="right", va="top", rotation=90, fontsize=10)
    _draw_bands(axes, named)
    axes.set_yticks([tick for tick in axes.get_yticks() if floor <= tick <= peak])
    axes.set_yticks([], minor=True)
    axes.set_xlabel("HU", fontsize=11)
    axes.set_ylabel("ml per 10 HU, logarithmic", fontsize=11)


def _draw_bands(axes: Axes, named: bool) -> None:
    """The plausible density range of each tissue, as bars above the histogram, with or without its name."""
    free = 1 - HISTOGRAM_SHARE
    above = axes.get_xaxis_transform()  # HU along x, share of the chart along y
    for index, tissue in enumerate(reversed(REPORTED)):
        y = HISTOGRAM_SHARE + free * (0.16 + 0.145 * index)
        low, high = max(tissue.prior.low, HISTOGRAM_EDGES[0]), min(tissue.prior.high, HISTOGRAM_EDGES[-1])
        colour = colour_of(tissue.label)
        axes.plot([low, high], [y, y], color=colour, linewidth=6, solid_capstyle="butt", transform=above)
        if not named:
            continue
        at_right = high < -250
        x, align = (high + 12, "left") if at_right else (low - 12, "right")
        axes.text(x, y, tissue.name, ha=align, va="center", fontsize=9.5, transform=above)


def _draw_bars(figure: Figure, measures: pandas.DataFrame, box: Box) -> None:
    axes = add_chart(figure, box, "Share of the parenchyma, %")
    positions = [float(index) for index in range(len(measures))]
    left = np.zeros(len(measures))
    for tissue in REPORTED:
        shares = measures[f"{tissue.key}_percent"].fillna(0).to_numpy()
        axes.barh(positions, shares, left=left, height=0.6, color=colour_of(tissue.label), edgecolor="white")
        for y, x, share in zip(positions, left, shares, strict=True):
            if share >= 6:
                colour = "black" if is_light(tissue.colour) else "white"
                middle = x + share / 2
                axes.text(middle, y, f"{share:.0f}", ha="center", va="center", color=colour, fontsize=11)
        left = left + shares
    for y, share in zip(positions, measures["disease_percent"], strict=True):
        axes.text(101.5, y, f"diseased\n{number_text(share, '%')} %", ha="left", va="center", fontsize=11)
    axes.set(xlim=(0, 100), ylim=(len(measures) - 0.5, -0.5))
    axes.set_yticks(positions, [_label(str(name)) for name in measures.index], fontsize=11, parse_math=False)


def _label(name: str) -> str:
    """A region's name in at most three short lines."""
    lines = wrap(name, width=13, break_long_words=True)
    return "\n".join(lines[:3]) + ("..." if len(lines) > 3 else "")


def _draw_legend(figure: Figure, row: pandas.Series | None, corner: tuple[float, float]) -> None:
    left, top = corner
    if row is not None:
        write_text(figure, (left, top - 18), str(row.name).capitalize(), size=13, weight="bold")
        write_text(figure, (left + 410, top - 18), "ml", size=12, align="right")
        write_text(figure, (left + 500, top - 18), "%", size=12, align="right")
    for index, tissue in enumerate(REPORTED):
        y = top + 20 + 34 * index
        fill_box(figure, (left, y - 10, 26, 20), colour_of(tissue.label))
        write_text(figure, (left + 40, y), tissue.name, size=13)
        if row is not None:
            write_text(
                figure, (left + 410, y), number_text(row[f"{tissue.key}_ml"], "ml"), size=13, align="right"
            )
            share = number_text(row[f"{tissue.key}_percent"], "%")
            write_text(figure, (left + 500, y), share, size=13, align="right")
    if row is not None:
        _draw_densities(figure, row, (left, top + 34 * len(REPORTED) + 34))


def _draw_densities(figure: Figure, row: pandas.Series, corner: tuple[float, float]) -> None:
    left, top = corner
    for index, column in enumerate(("lung_ml", "mean_hu", "perc15_hu", "laa950_percent", "haa_percent")):
        definition = DEFINITIONS[column]
        y = top + 26 * index
        write_text(figure, (left, y), definition.name, size=12)
        text = f"{number_text(row[column], definition.unit)} {definition.unit}"
        write_text(figure, (left + 500, y), text, size=12, align="right")


def _row_scale(chest: Chest, row: Sequence[Cut]) -> float:
    width_mm = sum(2 * slices.plane_millimetres(chest, cut.axis)[1] for cut in row)
    return (OVERVIEW_WIDTH - GAP * (2 * len(row) - 1)) / width_mm


def _scaled(chest: Chest, axis: int, scale: float) -> tuple[int, int]:
    height_mm, width_mm = slices.plane_millimetres(chest, axis)
    return max(int(height_mm * scale), 1), max(int(width_mm * scale), 1)


def _pixels(chest: Chest, axis: int, width: float) -> tuple[int, int]:
    """Pixel size of a picture of that plane as wide as given, at most half as high again."""
    height_mm, width_mm = slices.plane_millimetres(chest, axis)
    return _scaled(chest, axis, min(width / width_mm, 1.5 * width / height_mm))


def _round_up(share: float) -> float:
    return next((limit for limit in (0.1, 0.25, 0.5) if share <= limit), 1.0)
