"""Strokes that are spread in the page: taken back, saved, and spread once more after reopening."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.export.correction import CORRECTED, is_corrected
from DiffSegLungLib.io.cases import file_code

from .conftest import PHANTOM, RIGHT_PIECE, Page, Server, Start, open_page

NAME = file_code(PHANTOM)
PAINTED = "fibrosis"


@pytest.fixture(scope="module")
def own_server(start: Start, tmp_path_factory: pytest.TempPathFactory) -> tuple[Server, Path]:
    """One with a single piece of lung, amid which the brush paints, that saves into a folder of its own."""
    folder = tmp_path_factory.mktemp("spread")
    ct = sitk.ReadImage(str(PHANTOM))
    mask = np.zeros(ct.GetSize()[::-1], np.uint8)
    mask[RIGHT_PIECE] = 1
    image = sitk.GetImageFromArray(mask)
    image.CopyInformation(ct)
    sitk.WriteImage(image, str(folder / "piece.nrrd"))
    saved = folder / "saved"
    saved.mkdir()
    return start(*arguments(saved)), saved


def arguments(saved: Path) -> tuple[str | Path, ...]:
    """Of the server."""
    lungs = ("--lungs", saved.with_name("piece.nrrd"))
    return PHANTOM, *lungs, "--output", saved, "--quality", "fast", "--device", "cpu"


@pytest.fixture(scope="module")
def segmented(own_server: tuple[Server, Path], browser: Any) -> Iterator[Page]:
    """The page with a result."""
    page = open_page(browser, own_server[0])
    page.tab.click("#segment")
    page.tab.wait_for_selector("#tissues", timeout=90_000)
    yield page
    page.tab.close()


def ml(page: Page, tissue: str) -> str:
    """The table has no left lung here."""
    return str(page.tab.inner_text(f"#row-{tissue} .cell-ml", timeout=20_000))


def spread(page: Page) -> None:
    page.tab.wait_for_selector("#spread:not([disabled])")
    page.tab.click("#spread")
    page.tab.wait_for_selector("#moved", timeout=90_000)
    page.tab.wait_for_selector("#segment:not([disabled])", timeout=90_000)


def paint(page: Page, tissue: str = PAINTED) -> None:
    page.tab.click(f"#row-{tissue} td >> nth=1")
    page.tab.click("#tool-paint")
    page.tab.wait_for_selector("#brush", state="attached")
    before = ml(page, tissue)
    page.stroke()
    page.wait_until(lambda: ml(page, tissue) != before)


def test_nothing_painted_cannot_be_spread(segmented: Page) -> None:
    segmented.tab.wait_for_selector("#spread[disabled]", state="attached")
    assert segmented.tab.locator("#moved").count() == 0


def test_a_stroke_is_spread_and_one_undo_takes_it_back(segmented: Page) -> None:
    paint(segmented)
    painted = ml(segmented, PAINTED)
    spread(segmented)
    segmented.wait_until(lambda: float(ml(segmented, PAINTED)) >= float(painted))
    assert "to Fibrosis" in segmented.tab.inner_text("#moved")
    assert CORRECTED in segmented.tab.inner_text("#warnings")
    assert segmented.tab.locator("#error").count() == 0
    after = ml(segmented, PAINTED)
    assert after != painted, "it reached beyond the stroke"
    segmented.tab.click("#undo")
    segmented.wait_until(lambda: ml(segmented, PAINTED) == painted)
    segmented.wait_until(lambda: segmented.tab.locator("#moved").count() == 0)
    segmented.tab.click("#redo")
    segmented.wait_until(lambda: ml(segmented, PAINTED) == after)
    segmented.tab.wait_for_selector("#moved")


def test_a_corrected_result_says_so_when_it_is_saved(
    segmented: Page, own_server: tuple[Server, Path]
) -> None:
    segmented.tab.click("#save")
    segmented.tab.wait_for_selector(".file", timeout=90_000)
    manifest = json.loads((own_server[1] / f"{NAME}.manifest.json").read_text(encoding="utf-8"))
    assert is_corrected(manifest) and manifest["correction"]["strokes_ml"][PAINTED] > 0
    assert CORRECTED in (own_server[1] / f"{NAME}_report" / "report.html").read_text(encoding="utf-8")
    assert not list(own_server[1].glob("*.safetensors")), "what strokes need is not saved"


def test_a_saved_result_is_spread_after_the_network_has_read_again(
    segmented: Page, own_server: tuple[Server, Path], start: Start, browser: Any
) -> None:
    own_server[0].stop()
    saved = own_server[1]
    page = open_page(browser, start(*arguments(saved)))
    page.tab.wait_for_selector("#tissues", timeout=90_000)
    assert page.tab.locator("#moved").count() == 0
    assert CORRECTED in page.tab.inner_text("#warnings")
    before = ml(page, PAINTED)
    assert float(before) > 0, "as it was saved"
    paint(page, "emphysema")
    spread(page)
    assert page.tab.locator("#error").count() == 0
    assert "to Emphysema" in page.tab.inner_text("#moved")
    assert float(ml(page, PAINTED)) <= float(before)
    page.tab.close()
