"""Which CT the page offers: one file, or those of the folder named on the command line, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import UnusableInputError
from ..files import CT_SUFFIXES, may_be_ct
from ..volume import is_dicom


def find_scans(source: Path) -> dict[str, Path]:
    """The CT of a place, by the name that the page shows.

    A folder's CT are its files of a known format and its sub-folders of DICOM files.  What a link leads to
    outside the folder is left out.

    Args:
        source: a CT, a DICOM folder, or a folder of CT.

    Raises:
        UnusableInputError: it is not there, or there is no CT in it.
    """
    if not source.exists():
        raise UnusableInputError(f"{source} is not there: give a CT or a folder of CT.")
    if source.is_file() or _has_dicom(source.iterdir()):
        return {source.resolve().name: source.resolve()}
    root = source.resolve()
    entries = [entry for entry in sorted(root.iterdir()) if entry.resolve().is_relative_to(root)]
    scans = {
        entry.name: entry for entry in entries if (entry.is_file() and may_be_ct(entry)) or _is_dicom(entry)
    }
    if not scans:
        known = ", ".join(CT_SUFFIXES)
        raise UnusableInputError(f"{source} holds no CT: give a folder with files in {known} or DICOM.")
    return scans


def scan_named(scans: Mapping[str, Path], name: object) -> Path:
    """The CT of a name that came from the browser; only what was listed is opened.

    Raises:
        UnusableInputError: no such CT was listed.
    """
    if not isinstance(name, str) or name not in scans:
        raise UnusableInputError(f"{str(name)[:80]!r} is none of the listed CT: choose one from the list.")
    return scans[name]


def _is_image(path: Path) -> bool:
    return path.is_file() and may_be_ct(path)


def _is_dicom(folder: Path) -> bool:
    return folder.is_dir() and _has_dicom(folder.rglob("*"))


def _has_dicom(paths: Iterable[Path]) -> bool:
    return any(is_dicom(path) for path in paths if path.is_file())
