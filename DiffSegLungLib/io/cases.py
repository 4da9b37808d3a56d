"""What is a case: a CT file, or the DICOM files of one study.  No header but one a folder is read.

Names of files and folders are often those of patients.  So cases are called by codes, which are the same in
every run and tell nothing to who has not got the CT itself: a study's comes from its UID, a file's from its
name and a part of its content.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.duplicates import copies_of
from DiffSegLungLib.io.files import (
    CT_SUFFIXES,
    LABEL_SUFFIXES,
    SEGMENTATION_SUFFIX,
    may_be_ct,
    require_there,
    walk,
)
from DiffSegLungLib.io.headers import is_dicom
from DiffSegLungLib.io.image_files import safe_title
from DiffSegLungLib.io.series import study_of

Study = tuple[str, str]
"""Study UID and a code of the patient."""

LONGEST_CODE = 12
SAMPLE_BYTES = 1 << 16
"""Of a file's start and end, which go into its code: nobody can guess it from a name alone."""
OUR_WORD = "CT"
"""In messages it is ours, even where a folder has this name."""
MOST_TRIED = 20
"""Files of a folder that are opened to find out its study: reports and the like may come first."""


@dataclass(frozen=True)
class Case:
    """One CT of the cohort.

    Attributes:
        name: unique, safe as a folder's name; a code, unless names were to be kept.
        source: the CT file or the DICOM folder.
        relative: the source as seen from the cohort's folder; it may name a patient.
        copies: files that hold the same CT and are no cases of their own.
    """

    name: str
    source: Path
    relative: str
    copies: tuple[Path, ...] = ()

    @property
    def label(self) -> str:
        """What its owner knows it by: the path below the folder, or the folder's own name."""
        return self.relative if self.relative != "." else self.source.name


def find_cases(folder: Path, keep_names: bool = False, follow_links: bool = True) -> list[Case]:
    """All cases below a folder, in the order of their names.

    A DICOM study whose series lie in folders of their own is one case, if no other study lies among them.
    Two patients under one Study Instance UID are two cases.  A file that was made of the DICOM images beside
    it is no case of its own.

    Args:
        folder: files and sub-folders of any depth; hidden ones and segmentations do not count.
        keep_names: call cases by their path below the folder, not by a code.
        follow_links: whether links to folders count; none is entered twice.

    Raises:
        UnusableInputError: it is no folder, or there is no CT in it.
    """
    if not folder.is_dir():
        raise UnusableInputError(f"{folder}: no such folder; give the folder that holds the CTs.")
    files, studies = _walk(folder, follow_links)
    copies = copies_of(files, [place for _, place in _pairs(studies)], folder)
    found = [
        (file, _path_name(file, folder) if keep_names else file_code(file))
        for file in files
        if file not in copies
    ]
    for study, folders in studies.items():
        others = [other for uid, other in _pairs(studies) if uid != study]
        places = _places(folders, others)
        names = (_path_name(each, folder) if keep_names else f"study-{code_of(study[0])}" for each in places)
        found += list(zip(places, names, strict=True))
    if not found:
        raise UnusableInputError(
            f"{folder}: no CT in it; give a folder of {', '.join(CT_SUFFIXES)} or DICOM."
        )
    return [_with_copies(case, copies) for case in _unique(found, folder)]


def find_listed(source: Path, keep_names: bool = False) -> dict[str, Case]:
    """The CT that may be opened of a place, by the name that its owner knows it by; nothing outside it.

    What a link leads to outside the folder is left out.

    Args:
        source: a CT, a DICOM folder, or a folder of CT.
        keep_names: as in `find_cases`.

    Raises:
        UnusableInputError: it is not there, or there is no CT in it.
    """
    require_there(source)
    root = source.resolve()
    if root.is_file():
        return {root.name: file_case(root, keep_names)}
    inside = [
        case for case in find_cases(root, keep_names, False) if case.source.resolve().is_relative_to(root)
    ]
    if not inside:
        raise UnusableInputError(f"{source}: all CT in it are links that lead out; give their own folder.")
    return dict(sorted((case.label, case) for case in inside))


def listed(cases: Mapping[str, Case], label: object) -> Case:
    """The case of a label that came from elsewhere; only what was listed is opened.

    Raises:
        UnusableInputError: no such CT was listed.
    """
    if not isinstance(label, str) or label not in cases:
        raise UnusableInputError(f"{str(label)[:80]!r} is none of the listed CT: choose one from the list.")
    return cases[label]


def _with_copies(case: Case, copies: Mapping[Path, Path]) -> Case:
    own = (file for file, place in copies.items() if case.source in (place, *place.parents))
    return replace(case, copies=tuple(own)) if case.source.is_dir() else case


def _walk(folder: Path, follow_links: bool) -> tuple[list[Path], dict[Study, list[Path]]]:
    """CT files, and by study and patient the folders that hold DICOM files."""
    files: list[Path] = []
    studies: dict[Study, list[Path]] = {}
    for place, subfolders, names in walk(folder, follow_links):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        paths = [place / name for name in names if not name.startswith(".")]
        files += [path for path in paths if may_be_ct(path)]
        study = _study(path for path in paths if not path.name.lower().endswith(CT_SUFFIXES))
        if study is not None:
            studies.setdefault((study[0] or str(place), study[1]), []).append(place)
    return files, studies


def _study(paths: Iterable[Path]) -> Study | None:
    """Study and patient of the first image, empty where it tells none; None where there is no image."""
    for tried, path in enumerate(path for path in paths if path.is_file() and is_dicom(path)):
        if tried == MOST_TRIED:
            break
        study = study_of(path)
        if study is not None:
            return study
    return None


def _pairs(studies: dict[Study, list[Path]]) -> Iterator[tuple[Study, Path]]:
    return ((study, place) for study, folders in studies.items() for place in folders)


def _places(folders: list[Path], others: list[Path]) -> list[Path]:
    """The one folder that holds a study, if it holds no other study; else each of its folders."""
    common = Path(os.path.commonpath(folders))
    shared = any(other == common or common in other.parents for other in others)
    return folders if shared else [common]


def file_case(file: Path, keep_names: bool = False) -> Case:
    """The case of one file."""
    return Case(safe_title(file) if keep_names else file_code(file), file, file.name)


def file_code(file: Path) -> str:
    """What a CT file is called: the same wherever it lies, until it changes."""
    try:
        with file.open("rb") as stream:
            start, size = stream.read(SAMPLE_BYTES), file.stat().st_size
            stream.seek(max(size - SAMPLE_BYTES, 0))
            sample = start + stream.read(SAMPLE_BYTES)
    except OSError:  # reading it as a CT will say why
        size, sample = 0, b""
    name = file.name.encode("utf-8", "surrogateescape")
    return "ct-" + hashlib.sha256(b"%d\0%b\0%b" % (size, name, sample)).hexdigest()[:LONGEST_CODE]


def _path_name(path: Path, folder: Path) -> str:
    return safe_title(Path("_".join(path.relative_to(folder).parts) or path.name))


def code_of(text: str) -> str:
    """A code that is the same in every run and tells nothing to who does not know the text."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:LONGEST_CODE]


def _unique(found: list[tuple[Path, str]], folder: Path) -> list[Case]:
    """Names that are there twice get the code of their path: no number, which would depend on the others."""
    times = Counter(name.lower() for _, name in found)
    cases = []
    for source, name in found:
        relative = source.relative_to(folder).as_posix()
        unique = name if times[name.lower()] == 1 else f"{name}-{code_of(name + relative)}"
        cases.append(Case(unique, source, relative))
    return sorted(cases, key=lambda case: case.name)


def companion(case: Case, folder: Path | None, what: str) -> Path | None:
    """A case's mask in a folder of masks: of the same name, or of the name of the source.

    Args:
        case: whose mask.
        folder: where masks lie, None if none are used.
        what: for the message.

    Raises:
        UnusableInputError: there is none for this case.
    """
    if folder is None:
        return None
    for stem in (case.name, safe_title(case.source)):
        for suffix in LABEL_SUFFIXES:
            path = folder / f"{stem}{suffix}"
            if path.is_file():
                return path
    raise UnusableInputError(
        f"No {what} for this case: put {case.name}{SEGMENTATION_SUFFIX} into the folder."
    )


def write_key(path: Path, cases: Iterable[Case]) -> None:
    """Write which case is which source, for its owner's eyes; it may name patients (.csv)."""
    from DiffSegLungLib.io.atomic import write_private

    rows = io.StringIO()
    writer = csv.writer(rows, lineterminator="\n")
    writer.writerows([("case", "source"), *((case.name, case.relative) for case in cases)])
    write_private(path, rows.getvalue().encode("utf-8", "replace").decode("utf-8"))


def without_names(text: str, name: str, sources: Iterable[Path]) -> str:
    """A message as one line that calls a case's files by its name: their own may be the patient's.

    Args:
        text: what is to be said.
        name: of the case.
        sources: its CT and masks; what lies in a folder of them counts, too.
    """
    for source in sources:
        if source.is_dir():
            inside = sorted((str(path) for path in source.rglob("*")), key=len, reverse=True)
            text = _called(name, text, (path for path in inside if path in text))
        names = {str(source), source.as_posix(), source.name, safe_title(source)}
        text = _called(name, text, sorted(names - {OUR_WORD}, key=len, reverse=True))
    return " ".join(text.split())


def _called(name: str, text: str, known: Iterable[str]) -> str:
    for each in known:
        text = re.sub(rf"(?<!\w){re.escape(each)}(?!\w)", name, text)
    return text
