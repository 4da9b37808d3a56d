"""The errors a user can meet: each is one line that says what, where and the remedy."""

from __future__ import annotations


class DiffSegLungError(Exception):
    """Our fault; exit status 1."""

    exit_status = 1


class UnusableInputError(DiffSegLungError):
    """Wrong use, or a file or volume that cannot be used; exit status 2."""

    exit_status = 2


class MissingPartError(DiffSegLungError):
    """Weights, a package or a device is missing or damaged; exit status 3."""

    exit_status = 3


class CancelledError(DiffSegLungError):
    """The user cancelled; exit status 130."""

    exit_status = 130
