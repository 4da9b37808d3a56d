"""The report as a PDF for printing and filing: A4, fonts embedded, the same content as the page.

Lengths are in points (1/72 inch) from the page's top left corner.  The same input gives the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.export.report.page import CAPTIONS, WIDEST, Content, Picture

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


def pdf_bytes(content: Content, pictures: Mapping[str, Sequence[Picture]]) -> bytes:
    """The whole report.

    Args:
        content: what it says.
        pictures: the sections ``glance``, ``slices``, ``projection`` and ``charts``.
    """
    from matplotlib import rc_context
    from matplotlib.backends.backend_pdf import PdfPages

    buffer = BytesIO()
    about = {"Title": f"{content.name} - DiffSegLung report", "Creator": "DiffSegLung", "CreationDate": None}
    with rc_context({"pdf.fonttype": 42, "text.parse_math": False}), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a name in another script
        with PdfPages(buffer, metadata=about) as file:
            sheet = Sheet(file, content)
            _summary(sheet, content, pictures["glance"])
            _regions(sheet, content)
            _change(sheet, content)
            _pictures(sheet, pictures)
            _background(sheet, content)
            sheet.finish()
    return buffer.getvalue()


# --- sections --------------------------------------------------------------------------------------------


def _summary(sheet: Sheet, content: Content, glance: Sequence[Picture]) -> None:
    """Page one, to be filed by itself: warnings, main numbers and tables, pictures, and how it was made."""
    sheet.paragraph(content.name, size=TITLE, weight="bold")
    sheet.paragraph(content.introduction)
    if content.warnings:
        _warnings(sheet, content.warnings)
    _headlines(sheet, content.headlines)
    main = range(min(content.main, len(content.regions)))
    sheet.heading("Tissues", CAPTIONS["tissues"])
    _tissue_table(sheet, content, main)
    sheet.heading("Densitometry", CAPTIONS["densities"])
    _density_table(sheet, content, main)
    sheet.pictures(glance, shrunk=True)
    sheet.paragraph(f"{content.method} {content.origin}.", size=SMALL, colour=PALE)


def _regions(sheet: Sheet, content: Content) -> None:
    """The tables of all regions, where page one does not hold them."""
    if len(content.regions) <= content.main:
        return
    sheet.new_page()
    sheet.heading("Tissues by region", "")
    for chosen in _groups(content.regions):
        _tissue_table(sheet, content, chosen)
    sheet.heading("Densitometry by region", "")
    for chosen in _groups(content.regions):
        _density_table(sheet, content, chosen)


def _change(sheet: Sheet, content: Content) -> None:
    """What changed since an earlier point in time, three regions side by side."""
    change = content.change
    if change is None:
        return
    sheet.new_page()
    sheet.heading("Change since the earlier CT", f"{CAPTIONS['change']} {change.interval}")
    for first in range(0, len(change.regions), WIDEST):
        chosen = range(first, min(first + WIDEST, len(change.regions)))
        rows = [
            Row(
                [f"{row['name']}, {row['unit']}", *row["cells"][3 * chosen.start : 3 * chosen.stop]],
                swatch=row["colour"],
            )
            for row in change.rows
        ]
        names = [change.regions[index] for index in chosen]
        sheet.table(Table.of_regions(names, ("earlier", "later", "change"), first=155.0), rows)
    if change.transitions:
        sheet.heading("Which tissue became which", CAPTIONS["transitions"])
        table = Table.of_regions(change.tissue_names, ("",), first=100.0)
        sheet.table(table, [Row([name, *cells]) for name, cells in change.transitions])


def _warnings(sheet: Sheet, sentences: Sequence[str]) -> None:
    sheet.gap(4)
    with sheet.side_bar(ALARM):
        sheet.paragraph("Warnings", size=TEXT + 1, weight="bold", colour=ALARM, indent=8)
        for sentence in sentences:
            sheet.paragraph(sentence, indent=8)
    sheet.gap(4)


def _headlines(sheet: Sheet, headlines: Sequence[Mapping[str, str]]) -> None:
    width = INNER / max(len(headlines), 1)
    labels = [wrap(f"{item['label']}, {item['region']}", width - 8, SMALL) for item in headlines]
    deepest = max(len(lines) for lines in labels)
    sheet.require(30 + deepest * SMALL * LEADING)
    for index, (item, lines) in enumerate(zip(headlines, labels, strict=True)):
        x = MARGIN + index * width
        for number, line in enumerate(lines):
            sheet.text(x, 4 + number * SMALL * LEADING, line, size=SMALL, colour=PALE)
        value = f"{item['value']} {item['unit']}"
        sheet.text(x, 8 + deepest * SMALL * LEADING, value, size=HEADING, weight="bold")
        sheet.text(x, 24 + deepest * SMALL * LEADING, item["change"], size=SMALL, colour=PALE)
    changed = SMALL * LEADING if any(item["change"] for item in headlines) else 0.0
    sheet.gap(30 + deepest * SMALL * LEADING + changed)


def _groups(regions: Sequence[str]) -> Iterator[range]:
    for first in range(0, len(regions), COLUMNS):
        yield range(first, min(first + COLUMNS, len(regions)))


def _tissue_table(sheet: Sheet, content: Content, chosen: range) -> None:
    """Two columns a region, ml and %; each row's cells lie in this order."""
    rows = [
        Row(
            [row["name"], *row["cells"][2 * chosen.start : 2 * chosen.stop]],
            colour=PALE if row["absent"] else INK,
            weight="bold" if row["is_total"] else "normal",
            swatch=row["colour"],
        )
        for row in content.tissues
    ]
    names = [content.regions[index] for index in chosen]
    table = Table.of_regions(names, ("ml", "%"), first=115.0)
    sheet.table(table, rows)


def _density_table(sheet: Sheet, content: Content, chosen: range) -> None:
    rows = [
        Row([f"{row['name']}, {row['unit']}", *row["cells"][chosen.start : chosen.stop]])
        for row in content.densities
    ]
    sheet.table(Table.of_regions([content.regions[index] for index in chosen], ("",), first=150.0), rows)


def _pictures(sheet: Sheet, pictures: Mapping[str, Sequence[Picture]]) -> None:
    sheet.new_page()
    sheet.heading("Pictures", CAPTIONS["pictures"])
    for picture in pictures["slices"]:
        sheet.pictures([picture])
    sheet.heading("Seen from the front", "")
    for picture in pictures["projection"]:
        sheet.pictures([picture])
    sheet.heading("Charts", "")
    sheet.pictures(pictures["charts"])


def _background(sheet: Sheet, content: Content) -> None:
    """How the numbers came about."""
    sheet.new_page()
    sheet.heading("Method", content.method)
    for title, facts in content.facts:
        sheet.subheading(title)
        for key, value in facts:
            sheet.pair(key, value, 120.0)
    sheet.heading("Definitions", CAPTIONS["definitions"])
    for row in content.definitions:
        text = f"{row['definition']}. Source: {row['source']}."
        sheet.pair(f"{row['name']}, {row['unit']}", text, 150.0)


# --- the sheet -------------------------------------------------------------------------------------------


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


# --- text ------------------------------------------------------------------------------------------------


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
