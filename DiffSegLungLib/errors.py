"""The errors a user can meet: each is one line that says what, where and the remedy."""

from __future__ import annotations


class DiffSegLungError(Exception):
    """Our fault; exit status 1."""

    exit_status = 1


class UnusableInputError(DiffSegLungError):
    """Wrong use, or a file or volume that cannot be used; exit status 2."""

    exit_status = 2


class IncompleteOutputError(DiffSegLungError):
    """One output could not be made, all others were written; exit status 1."""


class MissingPartError(DiffSegLungError):
    """Weights, a package or a device is missing or damaged; exit status 3."""

    exit_status = 3


class CancelledError(DiffSegLungError):
    """The user cancelled; exit status 130."""

    exit_status = 130


_NO_MEMORY = (
    "out of memory",
    "allocate memory",
    "bad_alloc",
    "unable to allocate",
    "failed to allocate",
    "failed to map segment",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the memory of the computer or of its graphics card did not suffice.

    Python has a class for it; torch and ITK have their own, or only a sentence, and so has the system where a
    library is loaded.  An extension in C that got no memory may fail without a reason, which Python tells.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    if isinstance(error, SystemError):
        return "without exception set" in str(error)
    return isinstance(error, RuntimeError | OSError | ImportError) and any(
        sign in str(error).lower() for sign in _NO_MEMORY
    )
