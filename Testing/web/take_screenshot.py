"""Takes the picture of the page that the documentation shows.

    python -m Testing.web.take_screenshot CT FOLDER OUT.png

FOLDER: of ``diffseglung serve --output``; the CT is segmented first unless its result lies there.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from .conftest import find_chromium, open_page, start_server

SETTLED_MS = 40_000
"""For the 3D view, which is drawn without a graphics card."""
SEGMENTED_MS = 3_600_000


def take_screenshot(ct: Path, folder: Path, out: Path) -> None:
    """Opens the page in Chromium and photographs it."""
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as driver:
        server = start_server(Path(temporary), [str(ct), "--output", str(folder)])
        try:
            chromium = driver.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
            tab = open_page(chromium, server, width=1600, height=1000).tab
            tab.wait_for_selector("#segment:not([disabled])")
            if not tab.locator("#tissues").count():
                tab.click("#segment")
            tab.wait_for_selector("#tissues", timeout=SEGMENTED_MS)
            tab.wait_for_timeout(SETTLED_MS)
            tab.screenshot(path=out)
            chromium.close()
        finally:
            try:
                server.stop()
            except subprocess.TimeoutExpired:
                server.process.kill()


if __name__ == "__main__":
    take_screenshot(*map(Path, sys.argv[1:4]))
