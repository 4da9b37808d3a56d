"""What a command reads and writes: names that fit, and no output that is an input."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from itertools import combinations
from pathlib import Path

from .errors import UnusableInputError

CT_SUFFIXES = (".nrrd", ".nhdr", ".nii", ".nii.gz", ".mha", ".mhd")
SEGMENTATION_SUFFIX = ".seg.nrrd"
LABEL_SUFFIXES = (SEGMENTATION_SUFFIX, ".nrrd", ".nii.gz")


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


def require_places(outputs: Iterable[Path], folder: Path | None) -> None:
    """Finds out before the long work that the files, and a folder for the report, can be written.

    Raises:
        UnusableInputError: nothing can be written there, or the folder is a file.
    """
    from .outputs import require_writable

    for path in outputs:
        require_writable(path)
    if folder and folder.exists() and not folder.is_dir():
        raise UnusableInputError(f"Report {folder} is a file: give the name of a folder.")


def same_file(first: Path, second: Path) -> bool:
    """Whether two names mean one file, also where it is not there yet."""
    if first.exists() and second.exists():
        return first.samefile(second)
    return os.path.normcase(first.resolve()) == os.path.normcase(second.resolve())


def seen_from(folder: Path, path: Path) -> str:
    """The path as seen from a folder: both may move together."""
    try:
        return Path(os.path.relpath(path.resolve(), folder)).as_posix()
    except ValueError:  # another drive of Windows
        return path.resolve().as_posix()
