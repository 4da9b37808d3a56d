"""Which CT are meant by files and folders, and of which persons they are."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.files import CT_SUFFIXES, may_be_ct
from DiffSegLungLib.io.headers import is_dicom
from DiffSegLungLib.training.store import name_of


def find_ct(given: Iterable[Path]) -> list[Path]:
    """Files as they are; of a folder the CT files in it and the DICOM folders below it.

    Args:
        given: files, DICOM folders and folders of these.

    Returns:
        CT files and DICOM folders; whether each is a CT only its reading can tell.

    Raises:
        UnusableInputError: nothing is there.
    """
    found: list[Path] = []
    for path in given:
        inside = _inside(path) if path.is_dir() else [path]
        if not inside:
            raise UnusableInputError(
                f"no CT in {path}: it holds neither DICOM nor {', '.join(CT_SUFFIXES)} files"
            )
        found += inside
    return found


def _inside(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if any(is_dicom(file) for file in files):
        return [folder]
    found = [file for file in files if may_be_ct(file)]
    for below in sorted(path for path in folder.iterdir() if path.is_dir()):
        found += _inside(below)
    return found


def require_different_names(sources: Sequence[Path]) -> None:
    """The store names its files after the CT, so of two with one name the first would be lost."""
    names = Counter(name_of(source) for source in sources)
    twice = sorted(name for name, count in names.items() if count > 1)
    if twice:
        raise UnusableInputError(f"More than one CT is named {', '.join(twice)}: rename all but one.")


def read_persons(table: Path | None) -> dict[str, str]:
    """Name of a CT to its person, from a CSV with the columns ``ct`` and ``patient``.

    Raises:
        UnusableInputError: it cannot be read or lacks a column.
    """
    if table is None:
        return {}
    try:
        with table.open(newline="", encoding="utf-8-sig") as stream:
            return {name_of(Path(row["ct"])): row["patient"].strip() for row in csv.DictReader(stream)}
    except (OSError, UnicodeDecodeError, KeyError, AttributeError) as error:
        raise UnusableInputError(
            f"{table} cannot be used ({error}): give a CSV with the columns ct and patient."
        ) from error
