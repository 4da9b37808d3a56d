"""The command ``check CT``: what a folder or file holds, before the long work.

``check CT --json`` prints one object::

    {"usable": true, "problem": "" or "sentence", "warnings": ["sentence", ...],
     "series": [{"number": "4", "uid": "1.2.3", "slices": 300, "thickness_mm": "1.25", "kernel": "B31f",
                 "taken": true}, ...]}

``series`` is empty for a file.  ``taken`` is the series that ``segment`` reads without ``--series``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.files import require_there
from DiffSegLungLib.io.series import Listing, choose_series, list_series

TITLES = ("", "number", "slices", "mm", "kernel", "UID")
COLUMNS = "{:<1} {:<7} {:>6} {:>6}  {:<9} {}"


@dataclass(frozen=True)
class CheckedSeries:
    """One series of a DICOM folder; the module's docstring says what each field means."""

    number: str
    uid: str
    slices: int
    thickness_mm: str
    kernel: str
    taken: bool

    @property
    def text(self) -> str:
        """One line."""
        thickness = _short(self.thickness_mm) or "-"
        facts = (self.number or "-", self.slices, thickness, self.kernel or "-", self.uid)
        return COLUMNS.format("*" * self.taken, *facts)


def _short(number: str) -> str:
    """A number of DICOM without the zeros that some scanners write behind it."""
    try:
        return f"{float(number):g}"
    except ValueError:
        return number


@dataclass(frozen=True)
class CtReport:
    """What ``check CT`` found."""

    usable: bool
    problem: str
    warnings: list[str]
    series: list[CheckedSeries]

    def as_json(self) -> str:
        """One JSON object, as the module's docstring describes it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def as_text(self) -> str:
        """For people."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterable[str]:
        if self.series:
            yield COLUMNS.format(*TITLES)
            yield from (each.text for each in self.series)
            yield "* is read; --series NUMBER or --series UID takes another one." if self.usable else ""
        yield from (f"Warning: {warning}" for warning in self.warnings)
        yield "This CT can be segmented." if self.usable else self.problem


def check_ct(source: Path, series: str | None = None) -> CtReport:
    """Look at a CT: list the series of a DICOM folder, and read the one that would be taken.

    Args:
        source: a CT file or a DICOM folder.
        series: as in ``segment``.

    Raises:
        UnusableInputError: there is no such file, or a folder without any axial CT.
    """
    from DiffSegLungLib.io.volume import load_volume

    require_there(source)
    listing = list_series(source) if source.is_dir() else Listing((), 0)
    try:
        taken = choose_series(listing, series, source.name)[0] if listing.series else None
        warnings, problem = list(load_volume(source, series).warnings), ""
    except UnusableInputError as error:
        taken, warnings, problem = None, [], str(error)
    listed = [
        CheckedSeries(each.number, each.uid, each.slices, each.thickness_mm, each.kernel, each is taken)
        for each in listing.series
    ]
    return CtReport(not problem, problem, warnings, listed)
