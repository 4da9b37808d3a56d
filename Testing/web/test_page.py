"""Somebody opens the page, segments, cancels, corrects, saves, and stops the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import psutil
import SimpleITK as sitk

from DiffSegLungLib.anatomy import WHOLE
from DiffSegLungLib.app.serve.session import UNSAVED
from DiffSegLungLib.export.correction import CORRECTED
from DiffSegLungLib.export.report import NOT_CLINICAL
from DiffSegLungLib.io.cases import file_code
from DiffSegLungLib.io.segmentations import read_segmentation
from DiffSegLungLib.quantify.measures import number_text
from DiffSegLungLib.quantify.remeasure import Measured, remeasure
from DiffSegLungLib.tissues import REPORTED
from Testing.unit.dicom_series import write_series

from .conftest import PHANTOM, Page, Server, Start, open_page

NAME = file_code(PHANTOM)
"""What is saved is called by a code: a file's name may be a patient's."""
SEEDED = "cavity"
"""A tissue that the pieces do not have, to be painted."""


def _measured(folder: Path) -> Measured:
    """The saved files, measured by the library alone."""
    return remeasure(PHANTOM, folder / f"{NAME}.seg.nrrd", lungs=folder / f"{NAME}.lungs.seg.nrrd")


def _shown(measured: Measured, tissue: str) -> list[str]:
    table = measured.measures
    percent = [number_text(table.loc[region, f"{tissue}_percent"], "%") for region in table.index[:3]]
    return [number_text(table.loc[WHOLE, f"{tissue}_ml"], "ml"), *percent]


def _save(page: Page) -> None:
    page.tab.click("#save")
    page.tab.wait_for_selector("#segment[disabled]")
    page.tab.wait_for_selector("#segment:not([disabled])")
    page.tab.wait_for_selector(".file")


def test_says_what_it_is_not_for(page: Page) -> None:
    assert page.tab.inner_text("#notice") == NOT_CLINICAL


def test_shows_the_ct_in_four_views(page: Page) -> None:
    pictures = page.tab.locator(".layout-grid-item")
    assert pictures.count() == 4
    page.wait_until(lambda: _grey_levels(page) > 50)


def _grey_levels(page: Page) -> int:
    """How many different colours the axial view has: a view without a CT is of one."""
    picture = page.tab.locator(".layout-grid-item").first.screenshot(path=None)
    pixels = page.tab.evaluate(
        """async bytes => {
            const bitmap = await createImageBitmap(new Blob([new Uint8Array(bytes)]));
            const size = [bitmap.width, bitmap.height];
            const canvas = new OffscreenCanvas(...size).getContext("2d");
            canvas.drawImage(bitmap, 0, 0);
            return new Set(new Uint32Array(canvas.getImageData(0, 0, ...size).data.buffer)).size;
        }""",
        list(picture),
    )
    return int(pixels)


def test_cancel_ends_the_computation(page: Page, server: Server) -> None:
    page.tab.click("#segment")
    page.tab.wait_for_selector("#cancel")
    page.wait_until(server.children)
    page.wait_until(lambda: "%" in page.tab.inner_text("#stage"))
    page.tab.click("#cancel")
    page.tab.wait_for_selector("#segment:not([disabled])")
    assert server.children() == []
    assert page.tab.locator("#tissues").count() == 0
    assert page.tab.locator("#error").count() == 0


def test_table_is_that_of_the_library(result: Page, saved: Path) -> None:
    _save(result)
    measured = _measured(saved)
    for tissue in REPORTED:
        assert result.row(tissue.key) == _shown(measured, tissue.key)
    assert float(result.row("consolidation")[0]) > 1
    assert float(result.row(SEEDED)[0]) < 1
    assert CORRECTED not in result.tab.inner_text("#warnings")


def test_paint_undo_redo_erase(result: Page) -> None:
    before = result.row(SEEDED)
    result.tab.click(f"#row-{SEEDED} td >> nth=1")
    result.tab.click("#tool-paint")
    result.tab.wait_for_selector("#brush", state="attached")
    result.stroke()
    result.wait_until(lambda: result.row(SEEDED) != before)
    painted = result.row(SEEDED)
    assert CORRECTED in result.tab.inner_text("#warnings")
    result.tab.click("#undo")
    result.wait_until(lambda: result.row(SEEDED) == before)
    assert CORRECTED not in result.tab.inner_text("#warnings")
    result.tab.click("#redo")
    result.wait_until(lambda: result.row(SEEDED) == painted)
    result.tab.click("#tool-erase")
    result.stroke()
    result.wait_until(lambda: float(result.row(SEEDED)[0]) < float(painted[0]))
    result.tab.click("#tool-paint")
    result.stroke()
    result.wait_until(lambda: result.row(SEEDED) == painted)
    result.tab.click("#tool-look")


def test_corrections_are_not_dropped_by_one_click(result: Page, server: Server) -> None:
    result.tab.click("#segment")
    result.tab.wait_for_selector("#error")
    assert UNSAVED in result.tab.inner_text("#error")
    assert server.children() == []
    assert float(result.row(SEEDED)[0]) > 0


def test_saved_files_hold_the_correction(result: Page, saved: Path) -> None:
    assert float(result.row(SEEDED)[0]) > 0, "painted by the test above"
    _save(result)
    assert result.tab.inner_text("#saved").endswith(str(saved))
    measured = _measured(saved)
    for tissue in REPORTED:
        assert result.row(tissue.key) == _shown(measured, tissue.key)
    file = read_segmentation(saved / f"{NAME}.seg.nrrd", measured.volume)
    assert file is not None
    assert [segment.key for segment in file.segments] == [tissue.key for tissue in REPORTED]
    image, ct = sitk.ReadImage(str(saved / f"{NAME}.seg.nrrd")), sitk.ReadImage(str(PHANTOM))
    assert image.GetSize() == ct.GetSize()
    np.testing.assert_allclose(image.GetOrigin(), ct.GetOrigin())


def test_files_come_through_the_browser(result: Page, saved: Path) -> None:
    with result.tab.expect_download() as download:
        result.tab.click(f"text={NAME}.seg.nrrd")
    assert Path(download.value.path()).read_bytes() == (saved / f"{NAME}.seg.nrrd").read_bytes()
    with result.tab.expect_popup() as popup:
        result.tab.click("text=report.html")
    popup.value.wait_for_load_state()
    text = popup.value.inner_text("body")
    assert NOT_CLINICAL in text and CORRECTED in text
    popup.value.close()
    report = saved / f"{NAME}_report"
    assert (report / "report.pdf").read_bytes().startswith(b"%PDF")
    assert (report / "measures.csv").read_text().startswith("region,lung_ml")


def test_tissue_is_hidden(result: Page) -> None:
    result.tab.click("#eye-consolidation")
    result.tab.wait_for_selector("#eye-consolidation .mdi-eye-off")
    result.tab.click("#eye-consolidation")
    result.tab.wait_for_selector("#eye-consolidation .mdi-eye")


def test_nothing_comes_from_elsewhere(result: Page, server: Server) -> None:
    elsewhere = [url for url in result.requests if not url.startswith((server.root, "data:", "blob:"))]
    assert elsewhere == []
    assert len(result.requests) > 5


def test_vtk_found_no_fault(result: Page, server: Server) -> None:
    assert "ERR|" not in server.log.read_text()


def test_folder_unusable_file_and_what_was_saved(
    start: Start, browser: Any, result: Page, saved: Path
) -> None:
    """A folder is listed; an unusable file says why; a saved correction comes back."""
    folder = saved.parent / "folder"
    folder.mkdir()
    (folder / PHANTOM.name).write_bytes(PHANTOM.read_bytes())
    (folder / "broken.nrrd").write_text("this is no CT")
    server = start(folder, "--output", saved)
    page = open_page(browser, server)
    assert page.tab.locator("#segment[disabled]").count() == 1
    _choose(page, "broken.nrrd")
    page.tab.wait_for_selector("#error")
    assert "broken" in page.tab.inner_text("#error")
    _choose(page, PHANTOM.name)
    page.tab.wait_for_selector("#tissues")
    assert page.row(SEEDED) == result.row(SEEDED)
    assert CORRECTED in page.tab.inner_text("#warnings")
    assert server.stop() == 0


def test_another_series_of_a_dicom_folder(start: Start, browser: Any, tmp_path: Path) -> None:
    """Two series: the larger one is open, the other one is chosen from the list."""
    hu = np.full((12, 40, 40), -1000.0)
    hu[:, 8:32, 6:34] = 40.0
    for number, slices in ((2, 12), (3, 9)):
        write_series(tmp_path / "PATIENT" / str(number), hu[:slices], number=number, StudyInstanceUID="1.2.3")
    server = start(tmp_path / "PATIENT")
    page = open_page(browser, server)
    page.tab.wait_for_selector(".v-select:has(#series)")
    assert "series 2 (12 slices)" in page.tab.inner_text(".v-select:has(#series)")
    page.tab.wait_for_selector("#segment:not([disabled])")
    _choose(page, "series 3 (9 slices)", of="series")
    page.wait_until(lambda: "as asked for (9)" in page.tab.inner_text("#warnings"))
    assert "series 3 (9 slices)" in page.tab.inner_text(".v-select:has(#series)")
    assert server.stop() == 0


def test_two_studies_in_one_folder(start: Start, browser: Any, tmp_path: Path) -> None:
    """Flat, as somebody copied them: none is opened unasked, both are listed by date, a click opens one."""
    hu = np.full((12, 40, 40), -1000.0)
    hu[:, 8:32, 6:34] = 40.0
    for number, slices, study, day in ((2, 12, "1.2.3", "20250301"), (3, 9, "1.2.4", "20240131")):
        write_series(tmp_path / "FLAT", hu[:slices], number=number, StudyInstanceUID=study, StudyDate=day)
    server = start(tmp_path / "FLAT")
    page = open_page(browser, server)
    page.tab.wait_for_selector(".v-select:has(#series)")
    page.wait_until(lambda: "CT of 2 studies lie in this folder" in page.tab.inner_text("#warnings"))
    assert page.tab.locator("#error").count() == 0
    assert page.tab.locator("#segment[disabled]").count() == 1, "nothing is open"
    page.tab.click(".v-select:has(#series)")
    page.tab.wait_for_selector(".v-list-item")
    titles = page.tab.locator(".v-list-item").all_inner_texts()
    assert titles == ["study 1, series 3 (9 slices)", "study 2, series 2 (12 slices)"]
    page.tab.keyboard.press("Escape")
    for title, slices in ((titles[0], 9), (titles[1], 12)):
        _choose(page, title, of="series")
        page.tab.wait_for_selector(f"#warnings:has-text('as asked for ({slices})')")
        page.tab.wait_for_selector("#segment:not([disabled])")
        assert title in page.tab.inner_text(".v-select:has(#series)")
    body = page.tab.inner_text("body")
    assert not any(day in body for day in ("2024", "2025", "0131", "0301")), "a date tells who it is"
    assert server.stop() == 0


def test_where_the_longest_series_is_unusable_the_others_are_offered(
    start: Start, browser: Any, tmp_path: Path
) -> None:
    """The longest has a gap: it is refused with its reason, and what was open is closed."""
    hu = np.full((40, 40, 40), -1000.0)
    hu[:, 8:32, 6:34] = 40.0
    write_series(tmp_path / "in" / "good", hu[:9], number=1, StudyInstanceUID="1.2.5")
    for number, slices, skip in ((2, 40, range(10, 20)), (3, 9, ())):
        tags: dict[str, Any] = {"StudyInstanceUID": "1.2.3", "skip": skip}
        write_series(tmp_path / "in" / "mixed", hu[:slices], number=number, **tags)
    server = start(tmp_path / "in")
    page = open_page(browser, server)
    _choose(page, "good")
    page.tab.wait_for_selector("#segment:not([disabled])")
    _choose(page, "mixed")
    page.tab.wait_for_selector("#error")
    assert "CT series 2: 10 or more slices are missing" in page.tab.inner_text("#error")
    assert page.tab.locator("#segment[disabled]").count() == 1
    _choose(page, "series 3 (9 slices)", of="series")
    page.tab.wait_for_selector("#segment:not([disabled])")
    assert page.tab.locator("#error").count() == 0
    _choose(page, "series 2 (30 slices)", of="series")
    page.tab.wait_for_selector("#error")
    assert page.tab.locator("#segment:not([disabled])").count() == 1, "the other one is still open"
    assert "series 3 (9 slices)" in page.tab.inner_text(".v-select:has(#series)")
    assert server.stop() == 0


def _choose(page: Page, name: str, of: str = "ct") -> None:
    page.tab.click(f".v-select:has(#{of})")
    page.tab.click(f".v-list-item:has-text('{name}')")


def test_ends_cleanly_while_computing(page: Page, server: Server) -> None:
    """Last: it stops the server."""
    page.tab.click("#segment")
    page.wait_until(server.children)
    computing = server.children()
    assert list(server.temporary.glob("diffseglung-*"))
    assert server.stop() == 0
    psutil.wait_procs(computing, timeout=10)
    assert not any(each.is_running() for each in computing)
    assert list(server.temporary.glob("diffseglung-*")) == []
