"""What a command reads and writes: names that fit, and no output that is an input."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path

from DiffSegLungLib.errors import UnusableInputError

CT_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
SEGMENTATION_SUFFIX = ".seg.nrrd"
LONGEST_SHOWN = 1200
"""Characters of a path in a message; a longer one is shown by its ends."""
LABEL_SUFFIXES = (SEGMENTATION_SUFFIX, ".nrrd", ".nii.gz")

_process_is_ours = False


@contextmanager
def ours_alone() -> Iterator[None]:
    """Says that the process is a command line's: standard error may be put aside while a file is read."""
    global _process_is_ours
    before, _process_is_ours = _process_is_ours, True
    try:
        yield
    finally:
        _process_is_ours = before


def is_ours_alone() -> bool:
    """Whether nobody else's words are lost with what readers write on standard error."""
    return _process_is_ours


def may_be_ct(path: Path) -> bool:
    """Whether a file's name is that of an image: neither hidden nor a segmentation."""
    name = path.name.lower()
    return name.endswith(CT_SUFFIXES) and not name.startswith(".") and not name.endswith(SEGMENTATION_SUFFIX)


def bare_name(path: Path) -> str:
    """The file's name without the suffix of a label map."""
    for suffix in LABEL_SUFFIXES:
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.stem


def require_suffix(what: str, path: Path | None, suffixes: Sequence[str]) -> None:
    """Refuses a file whose name does not say its format.

    Raises:
        UnusableInputError: the name ends in none of the suffixes.
    """
    if path and not path.name.endswith(tuple(suffixes)):
        allowed = " or ".join(suffixes)
        raise UnusableInputError(f"The name of the {what}, {path}, must end in {allowed}.")


def require_different(inputs: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Refuses to write over an input, or two things into one file.

    Raises:
        UnusableInputError: an output is an input or another output.
    """
    written = list(outputs)
    for source in inputs:
        for output in written:
            if same_file(source, output):
                raise UnusableInputError(f"Output {output} is also an input: give another name.")
    for first, second in combinations(written, 2):
        if same_file(first, second):
            raise UnusableInputError(f"Two outputs have the same name, {first}: give each its own.")


def files_below(folder: Path) -> list[Path]:
    """All files of a folder and the folders in it, sorted; a link that leads nowhere is none."""
    found = (place / name for place, _, names in walk(folder) for name in names)
    return sorted(path for path in found if path.is_file())


def walk(folder: Path, follow_links: bool = True) -> Iterator[tuple[Path, list[str], list[str]]]:
    """As `os.walk`, in the order of names; links are followed, but no folder is entered twice.

    A folder that holds a link to itself or to one above it would else have no end.
    """
    seen: set[str] = set()
    for place, subfolders, names in os.walk(folder, followlinks=follow_links):
        real = os.path.realpath(place)
        if real in seen:
            subfolders.clear()
            continue
        seen.add(real)
        # a folder before links to it: its own name is the one it is known by
        subfolders.sort(key=lambda name: (os.path.islink(os.path.join(place, name)), name))  # noqa: B023
        yield Path(place), subfolders, sorted(names)


def require_there(path: Path) -> None:
    """Refuses an input that is not there or may not be read.

    Raises:
        UnusableInputError: says which of both, and what to do.
    """
    try:
        path.stat()
    except OSError as error:
        raise UnusableInputError(f"{_short(path)}: {_REASONS.get(error.errno or 0, _NOT_THERE)}.") from None
    wanted = os.R_OK | (os.X_OK if path.is_dir() else 0)
    if not os.access(path, wanted):
        raise UnusableInputError(f"{_short(path)}: {_REASONS[errno.EACCES]}.")


_NOT_THERE = "no such file or folder; check the path"
_REASONS = {
    errno.ENAMETOOLONG: "the path is too long; give a shorter one",
    errno.ELOOP: "the link leads to itself; give the file it was made for",
    errno.EACCES: "it may not be read; ask for the right to read it, or have it copied for you",
}


def _short(path: Path) -> str:
    text = str(path)
    return text if len(text) <= LONGEST_SHOWN else f"{text[:40]}...{text[-20:]}"


def same_file(first: Path, second: Path) -> bool:
    """Whether two names mean one file, also where it is not there yet."""
    try:
        if first.exists() and second.exists():
            return first.samefile(second)
        return os.path.normcase(first.resolve()) == os.path.normcase(second.resolve())
    except (OSError, RuntimeError):  # a name too long, a link to itself: no file, so not the same one
        return False


def seen_from(folder: Path, path: Path) -> str:
    """The path as seen from a folder: both may move together."""
    try:
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()
