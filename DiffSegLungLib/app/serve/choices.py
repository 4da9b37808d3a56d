"""The series of a DICOM folder as the page offers them: nothing in a title tells who it is, or when."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path

from DiffSegLungLib.io.acquisition import acquired_on
from DiffSegLungLib.io.series import Series, list_series

SEVERAL_STUDIES = (
    "CT of {count} studies lie in this folder: other points in time, or other patients. Choose a series from "
    "the list; studies are numbered by their dates, the earliest first, and those without a date come last."
)


def series_of(source: Path) -> tuple[Series, ...]:
    """The series of a DICOM folder that are long enough for a chest, each once; none of a file.

    Raises:
        UnusableInputError: a file may not be read, or there is no axial CT.
    """
    return unique(list_series(source).full) if source.is_dir() else ()


def unique(series: Sequence[Series]) -> tuple[Series, ...]:
    """Each UID once: of one UID and two grids the larger, which comes first."""
    return tuple({each.uid: each for each in reversed(series)}.values())[::-1]


def studies_of(series: Sequence[Series]) -> list[str]:
    """The studies' UIDs in the order of their dates, those without a date last."""
    first: dict[str, date] = {}
    for each in series:
        day = acquired_on([each.files[0].path]) or date.max
        first[each.study] = min(day, first.get(each.study, date.max))
    return sorted(first, key=lambda study: (first[study], study))


def choices(series: Sequence[Series]) -> list[dict[str, str]]:
    """Title and value (the UID) of each entry of the list, study by study."""
    studies = studies_of(series)
    if len(studies) < 2:
        return [{"title": f"series {each.text}", "value": each.uid} for each in series]
    ordered = sorted(series, key=lambda each: studies.index(each.study))
    return [
        {"title": f"study {studies.index(each.study) + 1}, series {each.text}", "value": each.uid}
        for each in ordered
    ]
