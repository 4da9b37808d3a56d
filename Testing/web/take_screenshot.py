"""Walks through the page by clicks on a CT of full size, checks each step, and leaves pictures of it.

    python -m Testing.web.take_screenshot CT FOLDER PICTURES

FOLDER: empty, for ``diffseglung serve --output``.  PICTURES: takes ``serve-running.png``, ``serve.png``,
``serve-paint.png`` and ``serve-report.png``.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

from Testing.chromium import find_chromium

from .conftest import Page, Server, open_page, start_server

SETTLED_MS = 20_000
"""For the 3D view, which is drawn without a graphics card."""
SEGMENTED_MS = 3_600_000
PAINTED = "cavity"
"""P001 has none: what is painted is what the table shows."""


def take_screenshots(ct: Path, folder: Path, pictures: Path) -> None:
    """Opens, cancels, segments, corrects and saves in Chromium; a step that fails is an error."""
    pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        server = start_server(Path(temporary), [str(ct), "--output", str(folder)])
        try:
            chromium = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            page = open_page(chromium, server, width=1600, height=1000)
            page.tab.wait_for_selector("#segment:not([disabled])")
            _cancel(page, server, pictures)
            _segment(page, pictures)
            _correct(page, pictures)
            _save(page, folder, pictures)
            chromium.close()
        finally:
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                server.process.kill()


def _cancel(page: Page, server: Server, pictures: Path) -> None:
    """Waits until half is done, photographs it, and cancels."""
    page.tab.click("#segment")
    seen: list[str] = []
    page.wait_until(lambda: _percent(page, seen) >= 50, SEGMENTED_MS / 1000)
    print(f"progress seen: {len(set(seen))} states, from {seen[0]!r} to {seen[-1]!r}")
    page.tab.screenshot(path=pictures / "serve-running.png")
    page.tab.click("#cancel")
    page.tab.wait_for_selector("#segment:not([disabled])")
    assert server.children() == [] and page.tab.locator("#error, #tissues").count() == 0
    print("cancelled: no process is left")


def _percent(page: Page, seen: list[str]) -> float:
    stage = page.tab.inner_text("#stage")
    seen.append(stage)
    number = stage.removesuffix(" %").rpartition(" ")[2]
    return float(number) if stage.endswith("%") else 0.0


def _segment(page: Page, pictures: Path) -> None:
    started = time.monotonic()
    page.tab.click("#segment")
    page.tab.wait_for_selector("#tissues", timeout=SEGMENTED_MS)
    print(f"segmented in {time.monotonic() - started:.0f} s: {_table(page)}")
    page.tab.wait_for_timeout(SETTLED_MS)
    page.tab.screenshot(path=pictures / "serve.png")


def _table(page: Page) -> dict[str, Any]:
    rows = page.tab.locator("#tissues tbody tr").all()
    return {row.get_attribute("id").removeprefix("row-"): row.inner_text().split("\n")[-1] for row in rows}


def _correct(page: Page, pictures: Path) -> None:
    before = page.row(PAINTED)
    page.tab.click(f"#row-{PAINTED} td >> nth=1")
    page.tab.click("#tool-paint")
    page.stroke()
    page.wait_until(lambda: page.row(PAINTED) != before)
    painted = page.row(PAINTED)
    page.tab.wait_for_timeout(SETTLED_MS / 10)
    page.tab.screenshot(path=pictures / "serve-paint.png")
    page.tab.click("#undo")
    page.wait_until(lambda: page.row(PAINTED) == before)
    page.tab.click("#redo")
    page.wait_until(lambda: page.row(PAINTED) == painted)
    page.tab.click("#tool-erase")
    page.stroke()
    page.wait_until(lambda: page.row(PAINTED) != painted)
    page.tab.click("#undo")
    page.wait_until(lambda: page.row(PAINTED) == painted)
    print(f"{PAINTED}: {before} painted {painted}; undone, redone, erased, undone")


def _save(page: Page, folder: Path, pictures: Path) -> None:
    page.tab.click("#save")
    page.tab.wait_for_selector(".file", timeout=SEGMENTED_MS)
    print(f"saved: {sorted(path.name for path in folder.rglob('*') if path.is_file())}")
    with page.tab.expect_popup() as popup:
        page.tab.click("text=report.html")
    popup.value.wait_for_load_state()
    popup.value.screenshot(path=pictures / "serve-report.png")


if __name__ == "__main__":
    take_screenshots(*map(Path, sys.argv[1:4]))
