"""Files that appear only once they are complete, and places that can be written to."""

from __future__ import annotations

import errno
import hashlib
import importlib
import json
import os
import platform
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.files import LONGEST_SHOWN

PathLike = str | os.PathLike[str]

LONGEST_END = 60
"""Characters of a name that its unfinished file keeps: file systems take 255 in all."""
OLD_SECONDS = 86_400
_PARTIAL = ".partial-"
_COMPUTER = hashlib.sha256(platform.node().encode()).hexdigest()[:6]


@contextmanager
def atomic_path(path: PathLike) -> Iterator[Path]:
    """Lends a name beside the target to write to; the target appears when the block ends well.

    The lent name ends as the target's name does, so that writers find their format in the suffix.
    A missing folder is created.  After an error or a cancellation nothing is left behind.

    Args:
        path: where the complete file shall appear; an existing file is replaced.

    Yields:
        The name to write to.

    Raises:
        UnusableInputError: the file cannot be written there, or the disk is full.
    """
    target = Path(path)
    partial = target.with_name(f"{_PARTIAL}{_mark()}-{target.name[-LONGEST_END:]}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(target.parent)
        yield partial
        _flush_to_disk(partial)
        os.replace(partial, target)
    except OSError as error:
        raise _cannot_write(target, error) from error
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def _cannot_write(target: Path, error: OSError) -> UnusableInputError:
    reason, name = error.strerror or str(error), str(target)
    if len(name) > LONGEST_SHOWN:
        name = f"{name[:40]}...{name[-20:]}"
    remedy = "Choose a folder that is writable and has space, and try again."
    if error.errno == errno.ENAMETOOLONG:
        remedy = "Give a shorter name."
    return UnusableInputError(f"Cannot write {name}: {reason}. {remedy}")


def _mark() -> str:
    """Computer, process and a random part: who writes here."""
    return f"{_COMPUTER}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


def remove_leftovers(folder: Path) -> None:
    """Removes unfinished files that nobody writes any more: their process was killed, or they are a day old.

    Another process may be writing into the same folder at this moment, perhaps from another computer.
    """
    for path in folder.glob(f"{_PARTIAL}*"):
        with suppress(OSError):
            if _is_left(path):
                path.unlink()


def _is_left(path: Path) -> bool:
    """A process of this computer can be asked for; of another one the age must tell."""
    computer, process, *_ = [*path.name.removeprefix(_PARTIAL).split("-"), ""]
    if computer == _COMPUTER and process.isdecimal() and os.name != "nt":  # there, to ask is to end it
        return not _is_alive(int(process))
    return time.time() - path.stat().st_mtime > OLD_SECONDS


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    return True


def _flush_to_disk(path: Path) -> None:
    """Makes sure that the content is on the disk before the name is: a crash never leaves a short file."""
    with path.open("rb+") as stream:
        os.fsync(stream.fileno())


def write_together(writers: Mapping[Path, Callable[[Path], None]]) -> None:
    """Writes several files; none appears before all are complete, the first listed appears last.

    Args:
        writers: for each file, the function that writes it to the path it is given.

    Raises:
        UnusableInputError: one of the files cannot be written; then none appears.
    """
    if not writers:
        return
    with _turn_in(next(iter(writers)).parent) as take_turn, ExitStack() as stack:
        for path, write in writers.items():
            write(stack.enter_context(atomic_path(path)))
        take_turn()


@contextmanager
def _turn_in(folder: Path) -> Iterator[Callable[[], None]]:
    """Lends a function that waits until no other process renames files in the folder; held until the end.

    Two runs with one output would else leave the labels of the one beside the manifest of the other.  Where
    the file system or Windows knows no lock of a folder, there is none.
    """
    with ExitStack() as stack:

        def take_turn() -> None:
            with suppress(ImportError, OSError):
                fcntl: Any = importlib.import_module("fcntl")
                handle = os.open(folder, os.O_RDONLY)
                stack.callback(os.close, handle)
                fcntl.flock(handle, fcntl.LOCK_EX)

        yield take_turn


def require_writable(path: PathLike) -> None:
    """Finds out before the long work, not after it, that a file cannot be written.

    Raises:
        UnusableInputError: the path is a folder, or nothing can be written beside it.
    """
    target = Path(path)
    if os.path.isdir(target):  # unlike Path's, False for a name that is too long
        raise UnusableInputError(f"Cannot write {target}: it is a folder. Give the name of a file.")
    probe = target.with_name(f"{_PARTIAL}{_mark()}-probe")
    with atomic_path(probe) as partial:
        partial.touch()
    probe.unlink(missing_ok=True)
    try:
        os.lstat(target)  # the name itself: free, taken, or too long for this file system
    except FileNotFoundError:
        return
    except OSError as error:
        raise _cannot_write(target, error) from None


def write_text(path: PathLike, text: str) -> None:
    """Writes text as UTF-8 with plain line ends; see `atomic_path` for errors."""
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_private(path: PathLike, text: str) -> None:
    """Writes text that only its owner may read, such as names of patients; see `atomic_path` for errors."""
    with atomic_path(path) as partial:
        partial.touch(mode=0o600)
        partial.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: PathLike, content: Any) -> None:
    """Writes JSON that people can read and compare: indented, in the given order; see `atomic_path`.

    Raises:
        ValueError: a number is not finite; JSON has no name for it.
    """
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def require_places(outputs: Iterable[Path], folder: Path | None) -> None:
    """Finds out before the long work that the files, and a folder for the report, can be written.

    Raises:
        UnusableInputError: nothing can be written there, or the folder is a file.
    """
    for path in outputs:
        require_writable(path)
    if folder and os.path.exists(folder) and not os.path.isdir(folder):
        raise UnusableInputError(f"Report {folder} is a file: give the name of a folder.")
