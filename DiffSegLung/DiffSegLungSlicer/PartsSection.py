"""Parts of the panel's sections: errors in the panel's own line, and what is painted."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from DiffSegLungLib.errors import DiffSegLungError
from DiffSegLungLib.tissues import BY_KEY

from .words import said

BAR_WIDTH, BAR_HEIGHT, BAR_LABEL = 270, 18, 95


def referenceText() -> str:
    """What healthy adults have, by whom it was found; as rich text."""
    lines = (
        _("LAA-950 of 92 non-smokers: mean 2.0 %, SD 2.7, at -950 HU and below ({source})").format(
            source=_link("Zach 2012", "10.1097/RLI.0b013e318262292e")
        ),
        _("LAA-950 of 564 Chinese adults: median 0.19 %, quartiles 0.03 and 0.43 ({source})").format(
            source=_link("Cheng 2019", "10.2147/COPD.S187596")
        ),
        _("HAA of 696 never-smokers, 54 to 93 years: median 4.3 %, range 2.7 to 17.8 ({source})").format(
            source=_link("Easthausen 2020", "10.1111/resp.13783")
        ),
    )
    head = _(
        "<b>In healthy adults</b>, full inspiration. Scanner, kernel, slice thickness, age and size move "
        "these numbers; they are no limits of the normal."
    )
    return head + "<ul>" + "".join(f"<li>{line}</li>" for line in lines) + "</ul>"


def _link(name: str, doi: str) -> str:
    return f'<a href="https://doi.org/{doi}">{name}</a>'


class Reported:
    """Shows an error in the panel's line instead of a pop-up.

    Where the work takes a while, the wait cursor is shown and the buttons that started it rest: events are
    processed meanwhile, and a second click must not start it again.
    """

    def __init__(self, showError: Callable[[str], None], buttons=None) -> None:
        self._showError, self._buttons = showError, buttons

    def __enter__(self) -> None:
        self._showError("")
        if self._buttons is not None:
            self._buttons.enabled = False
            slicer.app.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))

    def __exit__(self, kind, error, trace) -> bool:
        if self._buttons is not None:
            self._buttons.enabled = True
            slicer.app.restoreOverrideCursor()
        if not isinstance(error, Exception):
            return False
        known = isinstance(error, DiffSegLungError)
        if not known:
            logging.exception("DiffSegLung", exc_info=error)
        unknown = _("{kind}: {error}. See the log.").format(kind=type(error).__name__, error=error)
        self._showError(str(error) if known else unknown)
        return True


def swatch(colour: tuple[int, int, int]):
    pixmap = qt.QPixmap(14, 14)
    pixmap.fill(qt.QColor(*colour))
    return pixmap


def paintShares(rows: list[tuple[str, dict[str, float]]]):
    """A picture with one stacked bar a region.

    Args:
        rows: name of the region, and percent of each tissue by its key.
    """
    pixmap = qt.QPixmap(BAR_WIDTH, BAR_HEIGHT * max(len(rows), 1))
    pixmap.fill(qt.QColor(0, 0, 0, 0))
    painter = qt.QPainter(pixmap)
    try:
        for index, (name, shares) in enumerate(rows):
            _paintBar(painter, index * BAR_HEIGHT, name, shares)
    finally:  # Slicer crashes at its end where a painter was left open
        painter.end()
    return pixmap


def _paintBar(painter, top: int, name: str, shares: dict[str, float]) -> None:
    left = float(BAR_LABEL)
    painter.setPen(qt.QColor(110, 110, 110))
    painter.drawText(0, top + BAR_HEIGHT - 5, said(name))
    for key, percent in shares.items():
        if not math.isfinite(percent):  # of a region without lung
            continue
        right = left + (BAR_WIDTH - BAR_LABEL) * percent / 100
        width = round(right) - round(left)
        painter.fillRect(round(left), top + 2, width, BAR_HEIGHT - 4, qt.QColor(*BY_KEY[key].colour))
        left = right
