"""A sheet of A4 that takes text, tables and pictures from top to bottom; lengths in points."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.export.report.page import Content, Picture

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.backends.backend_pdf import PdfPages
    from matplotlib.figure import Figure

WIDTH, HEIGHT = 595.28, 841.89
MARGIN, TOP, BOTTOM = 40.0, 46.0, 796.0
INNER = WIDTH - 2 * MARGIN
INK, PALE, RULE, ALARM = "#1a1a1a", "#5c5c5c", "#b5b5b5", "#6b3a00"
TEXT, SMALL, HEADING, TITLE = 8.5, 7.0, 12.0, 17.0
LEADING = 1.35
GAP = 12.0
"""Between pictures side by side."""
METHOD_ROOM, LEAST_SHRUNK = 36.0, 150.0
"""Kept free below the pictures of page one, and the height that these have at least."""
COLUMNS = 8
"""Regions side by side: the lungs and the five lobes.  More of them make a second table."""
MEASURE_DPI = 720.0
"""Text is measured at ten times a point, so that rounding to pixels does not show."""


@dataclass(frozen=True)
class Row:
    """One line of a table: its cells, the first one to the left, the others to the right."""

    cells: Sequence[str]
    colour: str = INK
    weight: str = "normal"
    swatch: str | None = None


@dataclass(frozen=True)
class Table:
    """A table's head: the names over its groups of columns, the columns' own, and their right edges."""

    names: Sequence[str]
    columns: Sequence[str]
    edges: Sequence[float]

    @classmethod
    def of_regions(cls, names: Sequence[str], columns: Sequence[str], first: float) -> Table:
        """A group of columns for each region, all as wide, right of a first column as wide as given."""
        width = min((INNER - first) / (len(names) * len(columns)), 60.0)
        edges = [MARGIN + first + (index + 1) * width for index in range(len(names) * len(columns))]
        return cls(names, list(columns) * len(names), edges)

    @property
    def group(self) -> float:
        """Width of a group of columns."""
        step = self.edges[1] - self.edges[0] if len(self.edges) > 1 else 60.0
        return step * len(self.columns) / len(self.names)


class Sheet:
    """Writes from top to bottom and begins a new page where something does not fit."""

    def __init__(self, file: PdfPages, content: Content) -> None:
        self._file = file
        self._content = content
        self._number = 0
        self._figure: Figure | None = None
        self.y = TOP
        self.new_page()

    def new_page(self) -> None:
        """Begin a page, unless nothing is on this one yet."""
        from matplotlib.figure import Figure

        if self._figure is not None and self.y == TOP:
            return
        self.finish()
        self._number += 1
        self._figure = Figure(figsize=(WIDTH / 72, HEIGHT / 72), dpi=72)
        self.y = TOP
        self._draw(MARGIN, 26, self._content.notice, size=TEXT, weight="bold")
        name = shorten(self._content.name, INNER - 130, SMALL)
        self._draw(MARGIN, HEIGHT - 26, f"{name} - {self._content.notice}", size=SMALL, colour=PALE)
        self._draw(WIDTH - MARGIN, HEIGHT - 26, str(self._number), size=SMALL, colour=PALE, align="right")

    def finish(self) -> None:
        """Put the page into the file."""
        if self._figure is not None:
            self._file.savefig(self._figure)
            self._figure = None

    def require(self, height: float) -> None:
        """Begin a new page unless so much room is left."""
        if self.y + height > BOTTOM:
            self.new_page()

    def gap(self, height: float) -> None:
        """Leave some room."""
        self.y += height

    def text(self, x: float, below: float, text: str, **style: Any) -> None:
        """One line whose top lies so far below the present place, which stays."""
        self._draw(x, self.y + below, text, **style)

    def paragraph(self, text: str, *, size: float = TEXT, indent: float = 0.0, **style: Any) -> None:
        """Text over the page's width, or what is left of it."""
        for line in wrap(text, INNER - indent, size, style.get("weight", "normal")):
            self.require(size * LEADING)
            self._draw(MARGIN + indent, self.y, line, size=size, **style)
            self.y += size * LEADING

    def heading(self, title: str, introduction: str) -> None:
        """A section's title, a line under it, and what it is about."""
        self.require(110)
        self.gap(10)
        self._draw(MARGIN, self.y, title, size=HEADING, weight="bold")
        self.y += HEADING * LEADING
        self._rule(self.y, INK, 1.0)
        self.gap(4)
        if introduction:
            self.paragraph(introduction, colour=PALE)
        self.gap(3)

    def subheading(self, title: str) -> None:
        """A smaller title."""
        self.require(40)
        self.gap(6)
        self.paragraph(title, size=TEXT + 1, weight="bold")

    def pair(self, key: str, value: str, first: float) -> None:
        """A fact: its name to the left, its text to the right, both as long as they need."""
        left, right = wrap(key, first - 8, SMALL), wrap(value, INNER - first, SMALL)
        height = max(len(left), len(right)) * SMALL * LEADING + 3
        self.require(min(height, BOTTOM - TOP))
        for x, lines in ((MARGIN, left), (MARGIN + first, right)):
            for number, line in enumerate(lines):
                self._draw(x, self.y + number * SMALL * LEADING, line, size=SMALL)
        self.y += height
        self._rule(self.y - 1.5, RULE, 0.3)

    def table(self, table: Table, rows: Sequence[Row]) -> None:
        """A table that is not torn apart."""
        height = SMALL * LEADING
        self.require((len(rows) + 3) * (height + 3) + 8)
        for index, name in enumerate(table.names):
            right = table.edges[(index + 1) * len(table.columns) // len(table.names) - 1]
            for number, line in enumerate(_two_lines(name, table.group - 4)):
                self._draw(right, self.y + number * height, line, size=SMALL, weight="bold", align="right")
        self.y += 2 * height
        if any(table.columns):
            for edge, column in zip(table.edges, table.columns, strict=True):
                self._draw(edge, self.y, column, size=SMALL, colour=PALE, align="right")
            self.y += height
        self._rule(self.y, INK, 0.8)
        for row in rows:
            self._row(table, row)
        self.gap(8)

    def _row(self, table: Table, row: Row) -> None:
        style: dict[str, Any] = {"size": SMALL, "colour": row.colour, "weight": row.weight}
        self.gap(3)
        if row.swatch:
            self._box(MARGIN, self.y, 9.0, SMALL, _colour(row.swatch))
        self._draw(MARGIN + (14 if row.swatch else 0), self.y, row.cells[0], **style)
        for edge, cell in zip(table.edges, row.cells[1:], strict=True):
            self._draw(edge, self.y, cell, align="right", **style)
        self.y += SMALL * LEADING
        self._rule(self.y, RULE, 0.3)

    def pictures(self, pictures: Sequence[Picture], shrunk: bool = False) -> None:
        """Pictures side by side over the page's width, each with its caption under it.

        Args:
            pictures: one or more.
            shrunk: rather make them smaller than begin a new page, where a fair size is left.
        """
        from matplotlib.image import imread

        width = (INNER - GAP * (len(pictures) - 1)) / len(pictures)
        images = [imread(BytesIO(picture.png), format="png")[..., :3] for picture in pictures]
        captions = [wrap(picture.caption, width, SMALL) for picture in pictures]
        below = max(len(lines) for lines in captions) * SMALL * LEADING + 10
        # A tall one is made to fit a page.
        free = BOTTOM - self.y - below - METHOD_ROOM if shrunk else 0.0
        most = free if free >= LEAST_SHRUNK else BOTTOM - TOP - below
        sizes = [_fitted(image.shape[:2], width, most) for image in images]
        deepest = max(height for _, height in sizes)
        self.require(deepest + below)
        for index, (image, size, lines) in enumerate(zip(images, sizes, captions, strict=True)):
            x = MARGIN + index * (width + GAP)
            self._image(x, image, size)
            for number, line in enumerate(lines):
                self.text(x, deepest + 3 + number * SMALL * LEADING, line, size=SMALL, colour=PALE)
        self.gap(deepest + below)

    def _image(self, x: float, pixels: np.ndarray, size: tuple[float, float]) -> None:
        assert self._figure is not None
        axes = self._figure.add_axes(_relative(x, self.y, *size))
        axes.set_axis_off()
        axes.imshow(pixels, aspect="auto", interpolation="none")

    @contextmanager
    def side_bar(self, colour: str) -> Iterator[None]:
        """A bar to the left of what is written meanwhile, on its last page."""
        page, start = self._number, self.y
        yield
        top = start if self._number == page else TOP
        self._box(MARGIN, top, 3.0, self.y - top, colour)

    def _draw(
        self, x: float, y: float, text: str, *, size: float = TEXT, colour: str = INK,
        weight: str = "normal", align: str = "left",
    ) -> None:  # fmt: skip
        """One line; ``y`` is the top of its letters."""
        assert self._figure is not None
        self._figure.text(
            x / WIDTH, 1 - (y + 0.8 * size) / HEIGHT, text, ha=align, va="baseline", fontsize=size,
            color=colour, fontweight=weight, parse_math=False,
        )  # fmt: skip

    def _rule(self, y: float, colour: str, width: float) -> None:
        self._box(MARGIN, y, INNER, width, colour)

    def _box(self, x: float, y: float, width: float, height: float, colour: Any) -> None:
        from matplotlib.patches import Rectangle

        assert self._figure is not None
        left, bottom, wide, high = _relative(x, y, width, height)
        patch = Rectangle((left, bottom), wide, high, facecolor=colour, linewidth=0)
        patch.set_transform(self._figure.transFigure)
        self._figure.add_artist(patch)


def _two_lines(name: str, width: float) -> list[str]:
    lines = wrap(name, width, SMALL, "bold")
    return lines if len(lines) <= 2 else [lines[0], shorten(f"{lines[1]} {lines[2]}", width - 6, SMALL)]


def _fitted(shape: tuple[int, ...], width: float, most: float) -> tuple[float, float]:
    """Width and height of a picture (rows, columns) in a box."""
    height = width * shape[0] / shape[1]
    return (width, height) if height <= most else (width * most / height, most)


def _relative(x: float, y: float, width: float, height: float) -> tuple[float, float, float, float]:
    return x / WIDTH, 1 - (y + height) / HEIGHT, width / WIDTH, height / HEIGHT


def _colour(css: str) -> tuple[float, float, float]:
    """A colour of the page's style, ``rgb(1, 2, 3)``, as matplotlib takes it."""
    red, green, blue = (int(part) / 255 for part in css.removeprefix("rgb(").removesuffix(")").split(","))
    return red, green, blue


def wrap(text: str, width: float, size: float, weight: str = "normal") -> list[str]:
    """Break text into lines no wider than given; a word wider than a line is broken too."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if text_width(longer, size, weight) <= width:
            lines[-1] = longer
            continue
        if lines[-1]:
            lines.append("")
        *whole, lines[-1] = _pieces(word, width, size, weight)
        lines[-1:-1] = whole
    return lines


def _pieces(word: str, width: float, size: float, weight: str) -> list[str]:
    pieces = [""]
    for letter in word:
        if pieces[-1] and text_width(pieces[-1] + letter, size, weight) > width:
            pieces.append("")
        pieces[-1] += letter
    return pieces


def shorten(text: str, width: float, size: float) -> str:
    """The text, or as much of its start as fits."""
    if text_width(text, size) <= width:
        return text
    return _pieces(text, width - text_width("...", size), size, "normal")[0] + "..."


@lru_cache(maxsize=20_000)
def text_width(text: str, size: float, weight: str = "normal") -> float:
    """Width of one line."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(size=size, weight=weight)
    return _measurer().get_text_width_height_descent(text, font, False)[0] * 72.0 / MEASURE_DPI


@lru_cache(maxsize=1)
def _measurer() -> Any:
    from matplotlib.backends.backend_agg import RendererAgg

    return RendererAgg(8, 8, MEASURE_DPI)
