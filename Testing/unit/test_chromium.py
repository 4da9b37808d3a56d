"""A browser that is not there skips its tests on a desk, and fails them in CI."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest

from Testing.chromium import require_chromium, require_pdftotext

PARTS = pytest.mark.parametrize("required", [require_chromium, require_pdftotext])


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda program: None)


@PARTS
def test_on_a_desk_it_is_skipped(required: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="apt-get install"):
        required()


@PARTS
def test_in_ci_it_fails(required: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="in CI nothing is skipped"):
        required()
