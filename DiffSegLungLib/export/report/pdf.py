"""The report as a PDF for printing and filing: A4, fonts embedded, the same content as the page.

Lengths are in points (1/72 inch) from the page's top left corner.  The same input gives the same bytes.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

from DiffSegLungLib.export.report.page import CAPTIONS, WIDEST, Content, Picture
from DiffSegLungLib.export.report.sheet import (
    ALARM,
    COLUMNS,
    HEADING,
    INK,
    INNER,
    LEADING,
    MARGIN,
    PALE,
    SMALL,
    TEXT,
    TITLE,
    Row,
    Sheet,
    Table,
    wrap,
)


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
