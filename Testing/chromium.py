"""The browser of the tests: Chromium as Debian packages it, or Chrome."""

from __future__ import annotations

import os
import shutil
from typing import NoReturn

import pytest

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")


def find_chromium() -> str | None:
    """The browser of this system; None where there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def require_chromium() -> str:
    """The browser's program; without one the test is skipped, but fails in CI, which installs it."""
    found = find_chromium()
    if found is None:
        _give_up("needs Chromium: apt-get install chromium")
    return found


def require_pdftotext() -> str:
    """Poppler's program; as `require_chromium`."""
    found = shutil.which("pdftotext")
    if found is None:
        _give_up("needs pdftotext: apt-get install poppler-utils")
    return found


def _give_up(reason: str) -> NoReturn:
    if os.environ.get("CI", "").lower() in ("1", "true", "yes"):
        pytest.fail(f"{reason}; in CI nothing is skipped for want of it")
    pytest.skip(reason)
