"""Figures, axes and letters in pixels, for the pictures of the report."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.tissues import BY_LABEL

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100

LETTER_WIDTH = 0.8
"""Of a letter in pixels, as a share of its size in points."""

INK = "#1a1a1a"
PAPER = "white"

Box = tuple[float, float, float, float]
"""Left, top, width and height in pixels, from the figure's top left corner."""


def new_figure(width: float, height: float, colour: str) -> Figure:
    """A figure of a size in pixels, without a window."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(round(width) / DPI, round(height) / DPI), dpi=DPI, facecolor=colour)
    FigureCanvasAgg(figure)
    return figure


def png_bytes(figure: Figure) -> bytes:
    """The figure as PNG."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def relative_box(figure: Figure, box: Box) -> Box:
    """A box in pixels as shares of the figure, from its lower left corner."""
    width, height = figure.get_size_inches() * DPI
    left, top, wide, high = box
    return left / width, 1 - (top + high) / height, wide / width, high / height


def add_axes(figure: Figure, box: Box) -> Axes:
    """Bare axes in a box."""
    axes = figure.add_axes(relative_box(figure, box))
    axes.set_axis_off()
    return axes


def add_chart(figure: Figure, box: Box, title: str) -> Axes:
    """Axes of a chart with its title."""
    axes = figure.add_axes(relative_box(figure, box))
    axes.set_title(title, fontsize=13, fontweight="bold", loc="left", color=INK)
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=10.5)
    return axes


def show_picture(axes: Axes, picture: np.ndarray) -> None:
    """One pixel of the picture on one pixel of the figure, so that edges stay crisp."""
    axes.imshow(picture, interpolation="none", aspect="auto", vmin=0, vmax=1)


def fill_box(figure: Figure, box: Box, colour: Any) -> None:
    """A box of one colour."""
    from matplotlib.patches import Rectangle

    left, bottom, width, height = relative_box(figure, box)
    patch = Rectangle((left, bottom), width, height, color=colour, zorder=0, linewidth=0)
    patch.set_transform(figure.transFigure)
    figure.add_artist(patch)


def write_text(
    figure: Figure, at: tuple[float, float], text: str, *, size: float, align: str = "left",
    colour: str = INK, weight: str = "normal",
) -> None:  # fmt: skip
    """Text in a figure, at a point in pixels."""
    x, y, _, _ = relative_box(figure, (*at, 0, 0))
    # A name is not a formula: "$" must stay a dollar sign.
    figure.text(
        x, y, text, ha=align, va="center", fontsize=size, color=colour, fontweight=weight, parse_math=False
    )


def draw_lettering(
    axes: Axes, x: float, y: float, text: str, ha: str, va: str, *, size: float = 13.0
) -> None:
    """Text on a picture, legible on any ground."""
    from matplotlib.patheffects import withStroke

    label = axes.text(
        x, y, text, ha=ha, va=va, fontsize=size, color="white", transform=axes.transAxes, parse_math=False
    )
    label.set_path_effects([withStroke(linewidth=2.5, foreground="black")])


def colour_of(label: int) -> tuple[float, float, float]:
    """A tissue's colour, each channel from 0 to 1."""
    red, green, blue = BY_LABEL[label].colour
    return red / 255, green / 255, blue / 255


def is_light(colour: tuple[int, int, int]) -> bool:
    """Whether dark letters show on a colour."""
    red, green, blue = colour
    return 0.299 * red + 0.587 * green + 0.114 * blue > 130
