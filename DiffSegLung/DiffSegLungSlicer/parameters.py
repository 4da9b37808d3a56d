"""Parameters that the console gives as an object or as a dict."""

from __future__ import annotations

from dataclasses import fields
from typing import Self

from DiffSegLungLib.errors import UnusableInputError


class ConsoleParameters:
    """Base of frozen dataclasses: ``Parameters.of({"seed": 1})``."""

    @classmethod
    def of(cls, given: Self | dict | None) -> Self:
        """From what the console gives.

        Raises:
            UnusableInputError: a name that is none of the parameters.
        """
        if isinstance(given, cls):
            return given
        known = [field.name for field in fields(cls)]
        unknown = sorted(set(given or {}) - set(known))
        if unknown:
            raise UnusableInputError(f"Unknown parameters {', '.join(unknown)}: use {', '.join(known)}.")
        return cls(**(given or {}))
