"""The page of ``diffseglung serve`` in headless Chromium, computing for real on two small pieces of lung."""

from __future__ import annotations

import importlib.util
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import SimpleITK as sitk

from Testing.chromium import require_chromium

REPOSITORY = Path(__file__).resolve().parents[2]
PHANTOM = REPOSITORY / "DiffSegLung" / "Resources" / "SampleData" / "DiffSegLungPhantom.nrrd"
RIGHT_PIECE, LEFT_PIECE = np.s_[51:67, 70:86, 39:55], np.s_[55:63, 74:82, 88:96]
"""(z, y, x): a 40 mm cube of healthy and consolidated lung, and a 20 mm cube of healthy lung."""
PACKAGES = ("trame_slicer", "trame_rca", "trame_vuetify", "slicer", "slicer_layer_dm")
START_SECONDS = 240
"""Machines that build and test are busy."""


@dataclass
class Server:
    """A running ``diffseglung serve``.

    Attributes:
        process: of the command line.
        address: with the token.
        log: what it wrote on standard error.
        temporary: the folder in which it may put its own.
    """

    process: subprocess.Popen[str]
    address: str
    log: Path
    temporary: Path

    @property
    def root(self) -> str:
        """The address without the token."""
        return self.address.split("?")[0]

    @property
    def token(self) -> str:
        """What lets in."""
        return self.address.split("token=")[1]

    def children(self) -> list[psutil.Process]:
        """Processes that it has started and that are alive."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in found if each.status() != psutil.STATUS_ZOMBIE]

    def stop(self) -> int:
        """Asks it to end, as a system does; returns the exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


Start = Callable[..., Server]


@pytest.fixture(scope="session")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Start]:
    """Starts servers; what a test has not ended is ended afterwards."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'diffseglung[serve]'")
    servers: list[Server] = []

    def start_one(*arguments: str | Path) -> Server:
        folder = tmp_path_factory.mktemp("server")
        servers.append(start_server(folder, [str(each) for each in arguments]))
        return servers[-1]

    yield start_one
    for server in servers:
        if server.process.poll() is None:
            server.process.kill()


def start_server(folder: Path, arguments: list[str]) -> Server:
    """Starts one that keeps its own files in a folder; returns once it listens."""
    temporary, log = folder / "temporary", folder / "log.txt"
    temporary.mkdir()
    environment = {**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(REPOSITORY)}
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "DiffSegLungLib", "serve", *arguments],
            stdout=subprocess.PIPE, stderr=errors, text=True, env=environment,
        )  # fmt: skip
    assert process.stdout is not None
    line = process.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line)
    assert found, line + log.read_text()
    return Server(process, found[0], log, temporary)


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lung mask of two small pieces of the phantom's lungs, so that segmenting takes seconds."""
    ct = sitk.ReadImage(str(PHANTOM))
    mask = np.zeros(ct.GetSize()[::-1], np.uint8)
    mask[RIGHT_PIECE], mask[LEFT_PIECE] = 1, 2
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(ct)
    path = tmp_path_factory.mktemp("mask") / "pieces.nrrd"
    sitk.WriteImage(image, str(path))
    return path


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder into which the page saves."""
    return tmp_path_factory.mktemp("saved")


@pytest.fixture(scope="session")
def server(start: Start, pieces: Path, saved: Path) -> Server:
    """The phantom, with the mask of the pieces."""
    quickly = ("--quality", "fast", "--device", "cpu")
    return start(PHANTOM, "--lungs", pieces, "--output", saved, *quickly)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = require_chromium()
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


@dataclass
class Page:
    """The page as somebody uses it.

    Attributes:
        tab: playwright's.
        requests: all addresses that it asked for.
    """

    tab: Any
    requests: list[str]

    def row(self, tissue: str) -> list[str]:
        """What the table says of a tissue: ml, %, % of the right lung, % of the left."""
        return [
            self.tab.inner_text(f"#row-{tissue} .cell-{cell}") for cell in ("ml", "percent", "right", "left")
        ]

    def stroke(self) -> None:
        """Draws with the brush, in the middle of the axial view."""
        box = self.tab.locator(".layout-grid-item").first.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.tab.mouse.move(x - 30, y)
        time.sleep(0.5)  # the brush follows the mouse
        self.tab.mouse.down()
        self.tab.mouse.move(x + 30, y, steps=10)
        self.tab.mouse.up()

    def wait_until(self, condition: Callable[[], Any], seconds: float = 120.0) -> None:
        """Lets the page go on until the condition holds."""
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, (
                f"not within {seconds} s; the page says {self.tab.inner_text('body')}"
            )
            self.tab.wait_for_timeout(100)


def open_page(browser: Any, server: Server, width: int = 1500, height: int = 950) -> Page:
    """The page, as somebody opens the address that was printed."""
    tab = browser.new_context().new_page()
    tab.set_viewport_size({"width": width, "height": height})
    tab.set_default_timeout(START_SECONDS * 1000)
    page = Page(tab, [])
    tab.on("request", lambda request: page.requests.append(request.url))
    tab.goto(server.address)
    tab.wait_for_selector("#segment")
    return page


@pytest.fixture(scope="session")
def page(browser: Any, server: Server) -> Page:
    """The phantom, open."""
    page = open_page(browser, server)
    page.tab.wait_for_selector("#segment:not([disabled])")
    return page


@pytest.fixture(scope="session")
def result(page: Page) -> Page:
    """The phantom, segmented by a click."""
    page.tab.click("#segment")
    page.tab.wait_for_selector("#tissues")
    page.tab.wait_for_selector("#segment:not([disabled])")
    return page
