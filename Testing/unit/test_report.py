"""The report on a phantom whose every number is known."""

from __future__ import annotations

import base64
import json
import os
import re
import stat
import subprocess
import sys
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from PIL import Image

from DiffSegLungLib.anatomy import regions_from_sides, thirds_from_sides
from DiffSegLungLib.export.report import NOT_CLINICAL, _write, slices, write_overview, write_report
from DiffSegLungLib.export.report.change import signed_text
from DiffSegLungLib.export.report.page import (
    METHOD,
    METHOD_MIXTURE,
    METHOD_UNKNOWN,
    Picture,
    content_of,
    render,
)
from DiffSegLungLib.export.report.pdf import pdf_bytes
from DiffSegLungLib.export.report.relief import relief
from DiffSegLungLib.export.report.sheet import INNER, shorten, text_width, wrap
from DiffSegLungLib.export.report.slices import AXIAL, CORONAL, SAGITTAL, Chest, Cut
from DiffSegLungLib.quantify.comparison import Compared
from DiffSegLungLib.quantify.longitudinal import changes, transitions
from DiffSegLungLib.quantify.measures import DEFINITIONS, DENSITOMETRY, measure, number_text
from DiffSegLungLib.tissues import BY_LABEL, CONSOLIDATION, EMPHYSEMA, GROUND_GLASS, HEALTHY, REPORTED, VESSEL
from Testing.chromium import require_chromium, require_pdftotext

SPACING = (4.0, 2.0, 2.0)
SHAPE = (40, 90, 120)
HOSTILE = "<script>alert('x')</script>& $x_1$"

MANIFEST: dict[str, Any] = {
    "software": {"name": "DiffSegLung", "version": "1.2.3", "packages": {"numpy": "2.0"}},
    "input": {"name": "ct", "size": [120, 90, 40], "metadata": {"Kernel": "<b>B31f</b>"}},
    "model": {"name": "research", "sha256": "c0ffee" * 10},
    "parameters": {"timesteps": [50, 150], "fast": False},
    "seed": 7,
    "warnings": ["Slices are 4 mm thick & emphysema is under-estimated."],
    "seconds": {"lungs": 1.25},
}


@pytest.fixture(scope="module")
def phantom() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, labels and sides: two boxes of lung, a patch in each."""
    hu = np.full(SHAPE, 40.0, dtype=np.float32)
    sides = np.zeros(SHAPE, dtype=np.uint8)
    sides[5:35, 20:70, 15:50] = 1
    sides[5:35, 20:70, 70:105] = 2
    labels = np.where(sides > 0, HEALTHY, 0).astype(np.uint8)
    labels[10:14, 50:68, 20:40] = GROUND_GLASS
    labels[28:31, 50:68, 80:100] = CONSOLIDATION
    labels[20, 40:45, 20:45] = VESSEL
    for label, value in ((HEALTHY, -850.0), (GROUND_GLASS, -500.0), (CONSOLIDATION, 20.0), (VESSEL, 30.0)):
        hu[labels == label] = value
    return hu, labels, sides


@pytest.fixture(scope="module")
def written(
    phantom: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Path], pandas.DataFrame]:
    hu, labels, sides = phantom
    table = measure(labels, hu, SPACING, regions_from_sides(sides))
    folder = tmp_path_factory.mktemp("case") / "new" / "report"
    files = write_report(
        folder, hu=hu, labels=labels, spacing=SPACING, measures=table, manifest=MANIFEST, name=HOSTILE
    )
    return files, table


class Page(HTMLParser):
    """What the tests ask about a page: tags with attributes, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(written: tuple[dict[str, Path], pandas.DataFrame]) -> str:
    return written[0]["report"].read_text(encoding="utf-8")


def embedded_pictures(html: str) -> list[Image.Image]:
    found = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", html)
    return [Image.open(BytesIO(base64.b64decode(text))) for text in found]


def chest_of(labels: np.ndarray) -> Chest:
    return Chest.crop(np.full(labels.shape, -800, np.float32), labels, SPACING)


def test_a_hostile_name_and_hostile_metadata_are_escaped(written: Any) -> None:
    page = Page(read(written))
    tags = [tag for tag, _ in page.tags]
    assert "script" not in tags and "b" not in tags
    assert HOSTILE in page.text
    assert "<b>B31f</b>" in page.text


def test_the_page_stands_alone(written: Any) -> None:
    html = read(written)
    assert not re.search(r"https?://|//[a-z]+\.|@import|url\(", html)
    for tag, attributes in Page(html).tags:
        assert tag not in ("link", "iframe", "script")
        for name in ("src", "href"):
            assert str(attributes.get(name, "data:image/png;base64,")).startswith("data:image/png;base64,")


def test_every_tissue_has_its_row_with_its_numbers(written: Any) -> None:
    html, table = read(written), written[1]
    for tissue in REPORTED:
        [row] = re.findall(rf'<tr[^>]*><th scope="row"><span[^>]*></span>{tissue.name}</th>(.*?)</tr>', html)
        cells = [float(cell.replace(",", "")) for cell in re.findall(r"<td>(.*?)</td>", row)]
        expected = table[[f"{tissue.key}_ml", f"{tissue.key}_percent"]].to_numpy().ravel()
        # ml are printed without decimals from 10 ml, percentages with one.
        assert np.allclose(cells, expected, atol=0.5)
        assert ('class="absent"' in html.split(row)[0].rsplit("<tr", 1)[1]) == (expected[0] == 0)


def test_definitions_warnings_and_run_are_printed(written: Any) -> None:
    text = "\n".join(Page(read(written)).text)
    for column in (*DENSITOMETRY, "disease_percent"):
        assert DEFINITIONS[column].definition in text and DEFINITIONS[column].source in text
    assert MANIFEST["warnings"][0] in text
    assert "c0ffee" * 10 in text and "1.2.3" in text and "50, 150" in text
    assert "without vessels and airway walls" in text
    assert text.count(NOT_CLINICAL) == 2


def test_the_page_is_accessible(written: Any) -> None:
    page = Page(read(written))
    assert ("html", {"lang": "en"}) in page.tags
    images = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(images) == 11 and all(attributes["alt"] for attributes in images)
    assert all(attributes.get("scope") for tag, attributes in page.tags if tag == "th")
    assert [tag for tag, _ in page.tags].count("h1") == 1


def test_embedded_pictures_are_png_of_sensible_size(written: Any) -> None:
    pictures = embedded_pictures(read(written))
    assert len(pictures) == 11
    for picture in pictures:
        assert picture.format == "PNG"
        assert 600 <= picture.width <= 2000 and 150 <= picture.height <= 2000
        assert np.asarray(picture.convert("L")).std() > 5


def test_a_missing_manifest_and_no_warnings_are_tolerated(written: Any) -> None:
    pictures: dict[str, list[Picture]] = {"glance": [], "slices": [], "projection": [], "charts": []}
    manifests: list[dict[str, Any]] = [{}, {"warnings": None, "model": None, "software": "a text"}]
    for manifest in manifests:
        html = render(content_of("case", written[1], manifest, NOT_CLINICAL), pictures)
        assert '<section class="warnings"' not in html and "Ground-glass opacity" in html
    assert "a text" in html


def test_a_volume_without_lungs_still_gives_a_report(tmp_path: Path) -> None:
    labels = np.zeros((6, 8, 10), dtype=np.uint8)
    hu = np.zeros(labels.shape, np.float32)
    table = measure(labels, hu, SPACING, regions_from_sides(labels))
    files = write_report(
        tmp_path, hu=hu, labels=labels, spacing=SPACING, measures=table, manifest={}, name="no lungs"
    )
    assert len(embedded_pictures(files["report"].read_text(encoding="utf-8"))) >= 5


def test_a_lung_that_is_not_there_is_in_no_table(
    phantom: tuple[np.ndarray, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """Nor do thirds of the other one come into the tables of the first page in its place."""
    hu, labels, sides = phantom
    labels, sides = np.where(sides == 1, labels, 0).astype(np.uint8), np.where(sides == 1, sides, 0)
    table = measure(labels, hu, SPACING, regions_from_sides(sides) | thirds_from_sides(sides))
    files = write_report(
        tmp_path, hu=hu, labels=labels, spacing=SPACING, measures=table, manifest={}, name="one lung"
    )
    for kind in ("report", "measures", "json"):
        text = files[kind].read_text(encoding="utf-8")
        assert "right lung" in text and "left lung" not in text, kind
    content = content_of("one lung", table, {}, NOT_CLINICAL)
    assert content.main == 2 and content.regions[:2] == ["whole lung", "right lung"]
    first_page = files["report"].read_text(encoding="utf-8").split('<dl class="headlines">')[1]
    assert "third" not in first_page.split("<details")[0]


def test_the_table_reads_back_unchanged(written: Any) -> None:
    files, table = written
    again = pandas.read_csv(files["measures"], index_col="region")
    pandas.testing.assert_frame_equal(again, table, check_exact=True)


def test_nothing_is_left_beside_the_files_and_others_may_read_them(written: Any) -> None:
    files = written[0]
    assert sorted(path.name for path in files["report"].parent.iterdir()) == [
        "measures.csv",
        "report.html",
        "report.json",
        "report.pdf",
    ]
    if os.name == "posix":
        mask = os.umask(0)
        os.umask(mask)
        assert stat.S_IMODE(files["report"].stat().st_mode) == 0o666 & ~mask


def test_a_failed_write_leaves_nothing_beside(tmp_path: Path) -> None:
    target = tmp_path / "overview.png"
    target.mkdir()
    with pytest.raises(OSError):  # noqa: PT011 (which of its kinds depends on the system)
        _write(target, b"a file cannot take a folder's place")
    assert list(tmp_path.iterdir()) == [target] and target.is_dir()


def test_overview_is_one_picture_with_the_tissue_colours(phantom: Any, tmp_path: Path) -> None:
    hu, labels, sides = phantom
    table = measure(labels, hu, SPACING, regions_from_sides(sides))
    for name, given in (("with.png", table), ("without.png", None)):
        write_overview(tmp_path / name, hu, labels, SPACING, HOSTILE, given)
        picture = Image.open(tmp_path / name)
        assert picture.format == "PNG" and picture.width == 2000 and picture.height > 1000
        colours = {colour for _, colour in picture.convert("RGB").getcolors(2**24) or []}
        assert {tissue.colour for tissue in REPORTED} <= colours


def test_pictures_follow_the_radiological_convention() -> None:
    labels = np.full((4, 5, 6), HEALTHY, dtype=np.uint8)
    labels[3, 0, 5] = GROUND_GLASS  # superior, anterior, the patient's left
    chest = chest_of(labels)
    where = {
        axis: np.argwhere(slices.plane(chest.labels, Cut(axis, index)) == GROUND_GLASS)[0].tolist()
        for axis, index in ((AXIAL, 3), (CORONAL, 0), (SAGITTAL, 5))
    }
    assert where == {AXIAL: [0, 5], CORONAL: [0, 5], SAGITTAL: [0, 0]}  # row, column from the top left
    _, shares = slices.depth_shares(chest)
    assert np.argwhere(shares[GROUND_GLASS]).tolist() == [[0, 5]]
    assert shares[GROUND_GLASS][0, 5] == pytest.approx(1 / 5)


def test_pictures_keep_the_physical_aspect() -> None:
    chest = chest_of(np.full((10, 20, 30), HEALTHY, dtype=np.uint8))
    assert slices.plane_millimetres(chest, CORONAL) == (40.0, 60.0)
    assert slices.plane_millimetres(chest, SAGITTAL) == (40.0, 40.0)
    assert slices.plane_millimetres(chest, AXIAL) == (40.0, 60.0)


def test_slices_show_the_worst_and_are_spread(phantom: Any) -> None:
    hu, labels, _ = phantom
    chest = Chest.crop(hu, labels, SPACING)
    cuts = slices.choose_cuts(chest)
    shown = [cut.index + chest.origin[0] for cut in cuts if cut.axis == AXIAL]
    assert len(shown) == 4 and shown == sorted(shown, reverse=True)
    assert set(shown) & set(range(10, 14)) and set(shown) & set(range(28, 31))
    assert min(np.abs(np.diff(shown))) >= 3
    [coronal] = [cut.index + chest.origin[1] for cut in cuts if cut.axis == CORONAL]
    assert 50 <= coronal < 68
    assert cuts[0].short_title(chest) == f"Axial {shown[0] + 1}/40"


def test_overlay_paints_disease_only_and_edges_in_full_colour() -> None:
    labels = np.zeros((1, 40, 40), dtype=np.uint8)
    labels[0, 5:35, 5:35] = HEALTHY
    labels[0, 10:20, 10:20] = GROUND_GLASS
    labels[0, 24:30, 24:30] = VESSEL
    chest = Chest(np.full(labels.shape, -850, np.float32), labels, SPACING, (0, 0, 0), (1, 40, 40))
    bare = slices.bare_picture(chest, Cut(AXIAL, 0), (40, 40))
    painted = slices.overlay_picture(chest, Cut(AXIAL, 0), (40, 40))
    colour = np.array(BY_LABEL[GROUND_GLASS].colour) / 255
    assert np.allclose(painted[10, 10:20], colour) and np.allclose(painted[19, 10:20], colour)
    mixed = (1 - slices.OVERLAY_OPACITY) * bare[15, 15] + slices.OVERLAY_OPACITY * colour
    assert np.allclose(painted[15, 15], mixed)
    assert np.array_equal(painted[24:30, 24:30], bare[24:30, 24:30])
    assert np.array_equal(painted[22, 22], bare[22, 22])
    assert np.allclose(painted[5, 5:35], np.array(BY_LABEL[HEALTHY].colour) / 255)
    assert np.array_equal(painted[0], bare[0])


def test_window_is_the_lung_window() -> None:
    assert slices.windowed(np.array([-1350.0, -600.0, 150.0, 900.0])).tolist() == [0.0, 0.5, 1.0, 1.0]


def test_histogram_counts_every_voxel_once() -> None:
    labels = np.array([[[HEALTHY, HEALTHY, CONSOLIDATION, 0]]], dtype=np.uint8)
    chest = Chest(
        np.array([[[-855.0, -950.0, 35.0, -855.0]]], np.float32), labels, SPACING, (0, 0, 0), (1, 1, 4)
    )
    edges = np.array([-1000.0, -950.0, -900.0, -800.0, 100.0])
    counts = slices.histogram(chest, edges)
    assert counts[HEALTHY].tolist() == [0, 1, 1, 0]
    assert counts[CONSOLIDATION].tolist() == [0, 0, 0, 1]
    assert counts.sum() == 3


def one_ball(label: int, centre: tuple[int, int, int]) -> Chest:
    """A block of lung with a ball of one tissue in it; +x is the patient's left."""
    labels = np.zeros((40, 60, 60), np.uint8)
    labels[5:35, 5:55, 5:55] = HEALTHY
    distance = sum((axis - at) ** 2 for axis, at in zip(np.indices(labels.shape), centre, strict=True))
    labels[distance < 36] = label
    return Chest.crop(np.full(labels.shape, -800, np.float32), labels, (2.0, 2.0, 2.0))


@pytest.mark.parametrize("degrees", [0.0, 180.0])
def test_the_body_lies_where_the_viewer_expects_it(degrees: float) -> None:
    """High up in the patient's right lung: left in the picture from the front, right from behind."""
    picture = relief(one_ball(EMPHYSEMA, (28, 30, 15)), degrees)
    blue = picture[..., 2] - picture[..., 0] > 0.15
    rows, columns = np.nonzero(blue)
    assert 60 < blue.sum() < 160, "a disc of six pixels' radius"
    assert rows.mean() < picture.shape[0] / 2
    assert (columns.mean() < picture.shape[1] / 2) == (degrees == 0.0)


def test_lungs_without_disease_and_no_lungs_have_a_body_picture(tmp_path: Path) -> None:
    healthy = relief(one_ball(HEALTHY, (20, 30, 30)), 30.0)
    assert np.ptp(healthy, axis=2).max() < 0.1 and healthy.max() > 0.2, "grey lungs, no colour"
    empty = Chest.crop(np.zeros((9, 9, 9), np.float32), np.zeros((9, 9, 9), np.uint8), (2.0, 2.0, 2.0))
    assert relief(empty, 30.0).max() == 0


def test_json_holds_the_table_and_no_nan(written: Any) -> None:
    files, measures = written
    content = json.loads(files["json"].read_text(encoding="utf-8"), parse_constant=pytest.fail)
    for region, row in measures.iterrows():
        for column, value in row.items():
            found = content["measures"][region][column]
            assert found == value or (found is None and np.isnan(value))
    assert content["notice"] == NOT_CLINICAL and content["manifest"] == MANIFEST
    assert set(content["definitions"]) == set(measures.columns)


def test_scores_are_headlines_with_their_definition(phantom: Any, tmp_path: Path) -> None:
    hu, labels, sides = phantom
    table = measure(labels, hu, SPACING, regions_from_sides(sides) | thirds_from_sides(sides))
    content = content_of("case", table, MANIFEST, NOT_CLINICAL)
    [score] = [item for item in content.headlines if item["label"].startswith("Goddard-like")]
    assert (score["value"], score["unit"]) == ("0", "of 24"), "no emphysema in it"
    assert any(row["name"].startswith("Goddard-like") for row in content.definitions)


# --- the PDF ---------------------------------------------------------------------------------------------


def pdf_of(table: pandas.DataFrame, manifest: dict[str, Any] = MANIFEST, name: str = HOSTILE) -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (1400, 600), (10, 20, 30)).save(buffer, format="PNG")
    picture = Picture(buffer.getvalue(), "alternative", "A caption.")
    sections = {"glance": [picture], "slices": [picture] * 6, "projection": [picture]}
    sections["charts"] = [picture] * 2
    return pdf_bytes(content_of(name, table, manifest, NOT_CLINICAL), sections)


def pages_of(pdf: bytes) -> list[bytes]:
    return re.findall(rb"/Type /Page\b.*?/MediaBox \[ ([0-9. ]+) \]", pdf, re.DOTALL)


def test_the_pdf_is_a4_with_its_fonts_inside_and_says_no_time(written: Any) -> None:
    pdf = written[0]["pdf"].read_bytes()
    pages = pages_of(pdf)
    assert 4 <= len(pages) <= 8
    for page in pages:
        assert [float(number) for number in page.split()] == pytest.approx([0, 0, 595.28, 841.89], abs=0.1)
    assert pdf.count(b"/FontFile2") >= 2 and b"/Subtype /Type3" not in pdf
    assert b"CreationDate" not in pdf and b"ModDate" not in pdf
    assert b"/Creator (DiffSegLung)" in pdf


def text_of(pdf: bytes, folder: Path, *options: str) -> str:
    program = require_pdftotext()
    (folder / "r.pdf").write_bytes(pdf)
    command = [program, "-layout", *options, str(folder / "r.pdf"), "-"]
    return subprocess.run(command, capture_output=True, check=True).stdout.decode("utf-8")


def test_the_pdf_says_what_the_page_says(written: Any, tmp_path: Path) -> None:
    text = " ".join(text_of(written[0]["pdf"].read_bytes(), tmp_path).split())
    content = content_of(HOSTILE, written[1], MANIFEST, NOT_CLINICAL)
    assert HOSTILE in text and content.warnings[0] in text and "1.2.3" in text
    for row in content.tissues:
        assert " ".join([row["name"], *(cell for cell in row["cells"] if cell)]) in text
    for row in content.densities:
        assert " ".join([f"{row['name']}, {row['unit']}", *row["cells"]]) in text
    assert text.count(NOT_CLINICAL) >= 2 * len(pages_of(written[0]["pdf"].read_bytes()))


def test_page_one_can_be_filed_by_itself(written: Any, tmp_path: Path) -> None:
    text = " ".join(text_of(written[0]["pdf"].read_bytes(), tmp_path, "-l", "1").split())
    content = content_of(HOSTILE, written[1], MANIFEST, NOT_CLINICAL)
    for said in (NOT_CLINICAL, HOSTILE, content.warnings[0], content.method, content.origin):
        assert " ".join(said.split()) in text
    for row in content.tissues:
        assert " ".join([row["name"], *(cell for cell in row["cells"][:6] if cell)]) in text
    for row in content.densities:
        assert " ".join([f"{row['name']}, {row['unit']}", *row["cells"][:3]]) in text
    assert "most disease" in text, "the pictures' caption: they did not go to the next page"
    assert "1.2.3" in content.origin


PDF_AGAIN = """
import hashlib, sys
sys.path.insert(0, sys.argv[1])
from Testing.unit import test_report
from DiffSegLungLib.anatomy import regions_from_sides, thirds_from_sides
from DiffSegLungLib.quantify.measures import measure
import numpy as np
labels = np.ones((4, 6, 6), np.uint8)
table = measure(labels, labels - 800.0, (1.0, 1.0, 1.0), regions_from_sides(labels))
print(hashlib.sha256(test_report.pdf_of(table)).hexdigest())
"""


def test_the_same_report_has_the_same_bytes_in_every_process() -> None:
    root = Path(__file__).parents[2]
    digests = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", PDF_AGAIN, str(root)]
        digests.add(subprocess.run(command, capture_output=True, check=True, env=environment).stdout)
    assert len(digests) == 1 and len(next(iter(digests)).strip()) == 64


def test_many_regions_long_names_and_other_scripts_fit(phantom: Any, tmp_path: Path) -> None:
    hu, labels, sides = phantom
    names = ["x" * 64, "a name of many words that goes on and on", "右上葉", *(f"r{i}" for i in range(14))]
    regions = {**regions_from_sides(sides), **dict.fromkeys(names, sides == 1)}
    table = measure(labels, hu, SPACING, regions)
    manifest = {**MANIFEST, "warnings": ["word " * 400, "y" * 900]}
    pdf = pdf_of(table, manifest, name="z" * 300)
    assert len(pages_of(pdf)) >= 6
    text = text_of(pdf, tmp_path)
    for index in range(14):
        assert len(re.findall(rf"\br{index}\b", text)) >= 2, "in the table of tissues and of densities"
    assert text.count("word") == 400


@pytest.mark.parametrize("width", [60.0, 200.0, INNER])
def test_wrapped_text_keeps_every_word_and_the_width(width: float) -> None:
    text = "One two  three-four, " + "w" * 90 + " and $x_1$ <b>five</b> " * 20
    lines = wrap(text, width, 8.0)
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(text_width(line, 8.0) <= width for line in lines) and all(lines)
    assert text_width(shorten(text, width, 8.0), 8.0) <= width and shorten("a", width, 8.0) == "a"


def test_the_method_is_claimed_only_where_it_was_used(written: Any) -> None:
    table = written[1]
    assert content_of("c", table, MANIFEST, "").method == METHOD
    by_mixture = {"model": {"name": "own", "sha256": {"weights.safetensors": "c0ffee"}}}
    assert content_of("c", table, by_mixture, "").method == METHOD_MIXTURE
    assert content_of("c", table, {"software": {}}, "").method == METHOD_UNKNOWN
    assert "diffusion" not in METHOD_UNKNOWN


# --- one page, and a change ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compared(phantom: Any, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The report of a CT whose ground glass has doubled since."""
    hu, labels, sides = phantom
    table = measure(labels, hu, SPACING, regions_from_sides(sides) | thirds_from_sides(sides))
    earlier = table.copy()
    earlier[["ground-glass_ml", "ground-glass_percent"]] /= 2
    before = np.where(labels == GROUND_GLASS, HEALTHY, labels).astype(np.uint8)
    moved, interval = transitions(before, labels, 0.016), "2024-01-31 to 2024-03-01 (30 days)"
    found = Compared(changes(earlier, table), moved, ("Other lungs.",), interval)
    return write_report(
        tmp_path_factory.mktemp("compared"), hu=hu, labels=labels, spacing=SPACING, measures=table,
        manifest=MANIFEST, name="Case 7", compared=found,
    )  # fmt: skip


def printed(page: Path, paper: str, folder: Path) -> bytes:
    """The page as Chromium prints it."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    chromium = require_chromium()
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        tab.goto(page.as_uri())
        pdf = tab.pdf(format=paper)
        browser.close()
    assert isinstance(pdf, bytes)
    return pdf


@pytest.mark.parametrize("paper", ["A4", "Letter"])
def test_printed_it_is_one_page_to_be_filed(written: Any, tmp_path: Path, paper: str) -> None:
    pdf = printed(written[0]["report"], paper, tmp_path)
    assert pdf.count(b"/Type /Page\n") == 1
    text = " ".join(text_of(pdf, tmp_path).split())
    content = content_of(HOSTILE, written[1], MANIFEST, NOT_CLINICAL)
    assert text.count(NOT_CLINICAL) == 2 and content.warnings[0] in text and "1.2.3" in text
    for row in [*content.tissues, *content.densities]:
        assert row["name"] in text


def test_a_change_goes_to_a_second_page(compared: dict[str, Path], tmp_path: Path) -> None:
    pdf = printed(compared["report"], "A4", tmp_path)
    assert pdf.count(b"/Type /Page\n") == 2
    first = text_of(pdf, tmp_path, "-l", "1")
    assert "earlier" in first and "Which tissue became which" not in first


def test_the_change_is_in_page_pdf_and_json(compared: dict[str, Path], tmp_path: Path) -> None:
    whole = json.loads(compared["json"].read_text())["change"]["regions"]["whole lung"]
    doubled = whole["ground-glass_ml"]
    assert doubled["change"] == pytest.approx(doubled["earlier"]) and whole["healthy_ml"]["change"] == 0
    said = [number_text(doubled[when], "ml") for when in ("earlier", "later")]
    said.append("+" + number_text(doubled["change"], "ml"))
    pdf = " ".join(text_of(compared["pdf"].read_bytes(), tmp_path).split())
    assert "Ground-glass opacity, ml " + " ".join(said) in pdf
    page = " ".join(" ".join(Page(compared["report"].read_text()).text).split())
    assert "Ground-glass opacity ml " + " ".join(said) in page
    for text in (pdf, page):
        assert "2024-01-31 to 2024-03-01 (30 days)" in text and "Which tissue became which" in text
        assert "right lung, upper third" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [(12.3, "ml", "+12"), (-0.42, "%", "-0.4"), (0.04, "%", "0.0"), (-0.3, "HU", "0"), (np.nan, "HU", "-"),
     (-1234.0, "ml", "-1,234"), (0.26, "ml", "+0.3")],
)  # fmt: skip
def test_a_change_has_its_sign(value: float, unit: str, text: str) -> None:
    assert signed_text(value, unit) == text
