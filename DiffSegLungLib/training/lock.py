"""One run at a time in a folder; the lock goes with the process, however it ends."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from DiffSegLungLib.errors import UnusableInputError

FILE = "run.lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder while this lasts.

    Raises:
        UnusableInputError: another run holds it, or nothing can be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = (folder / FILE).open("a+b")
    except OSError as error:
        reason = error.strerror or str(error)
        raise UnusableInputError(f"Cannot write into {folder}: {reason}. Choose another folder.") from error
    with stream:
        try:
            _lock(stream)
        except OSError:
            raise UnusableInputError(
                f"Another run is at work in {folder}: wait for it, stop it, or give another name."
            ) from None
        yield


def _lock(stream: IO[bytes]) -> None:
    """The system frees the lock when the process is gone, also after a kill."""
    if sys.platform == "win32":
        msvcrt: Any = __import__("msvcrt")
        stream.seek(0)
        msvcrt.locking(stream.fileno(), msvcrt.LK_NBLCK, 1)
    else:
        fcntl: Any = __import__("fcntl")
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
