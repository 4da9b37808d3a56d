"""Two points in time: known changes, by numbers and on a phantom that moved and grew."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import SimpleITK as sitk
from scipy import ndimage

from DiffSegLungLib.anatomy import LEFT, WHOLE, regions_from_sides
from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.segmentation_file import write_segmentation
from DiffSegLungLib.io.volume import load_volume, to_input_geometry
from DiffSegLungLib.quantify.longitudinal import change_warnings, changes, overlap, read_measures, transitions
from DiffSegLungLib.quantify.measures import measure
from DiffSegLungLib.tissues import CONSOLIDATION, GROUND_GLASS, HEALTHY
from Testing.unit.dicom_series import write_series

SPACING = 3.0


class Thorax:
    """Two ellipsoid lungs in a body, with a ball of ground glass in the left one.

    Args:
        radius_mm: of the ball.
        density: HU of the ball, and ``label`` what it is.
        shift_mm: how far the whole patient lies along (z, y, x).
    """

    def __init__(
        self,
        radius_mm: float,
        density: float = -500.0,
        label: int = GROUND_GLASS,
        shift_mm: tuple[float, float, float] = (0, 0, 0),
    ) -> None:
        z, y, x = (
            (np.indices((64, 64, 80))[axis] - (32, 32, 40)[axis]) * SPACING - shift_mm[axis]
            for axis in range(3)
        )
        body = (y / 85) ** 2 + (x / 115) ** 2 < 1
        right = (z / 75) ** 2 + (y / 55) ** 2 + ((x + 48) / 36) ** 2 < 1
        left = (z / 75) ** 2 + (y / 55) ** 2 + ((x - 48) / 36) ** 2 < 1
        ball = left & (z**2 + y**2 + (x - 48) ** 2 < radius_mm**2)
        # Vessels: without structure of its own a lung gives a registration nothing to hold on to.
        vessels = (right | left) & (((z + 2 * y) % 40 < 4) & ((x + y) % 36 < 5))
        self.hu = np.where(body, 40.0, -1000.0)
        self.hu[right | left] = -850.0
        self.hu[vessels] = -100.0
        self.hu[ball] = density
        self.hu = ndimage.gaussian_filter(self.hu, 0.6) + np.random.default_rng(0).normal(0, 8, self.hu.shape)
        self.sides = np.where(right, 1, np.where(left, 2, 0)).astype(np.uint8)
        self.labels = np.where(self.sides > 0, HEALTHY, 0).astype(np.uint8)
        self.labels[ball] = label
        self.measures = measure(self.labels, self.hu, (SPACING,) * 3, regions_from_sides(self.sides))

    def write(self, folder: Path) -> tuple[str, str, str]:
        """CT, tissues and lungs as files."""
        folder.mkdir()
        names = tuple(str(folder / name) for name in ("ct.nrrd", "tissues.seg.nrrd", "lungs.nrrd"))
        sitk.WriteImage(placed(self.hu.astype(np.int16)), names[0])
        write_segmentation(names[1], placed(self.labels))
        sitk.WriteImage(placed(self.sides), names[2])
        return names[0], names[1], names[2]


def placed(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((SPACING,) * 3)
    return image


def ball_ml(radius_mm: float) -> float:
    """What the ball really takes on the grid."""
    thorax = Thorax(radius_mm)
    return float(np.count_nonzero(thorax.labels == GROUND_GLASS)) * SPACING**3 / 1000


def test_the_change_is_later_minus_earlier() -> None:
    before, after = Thorax(15), Thorax(24)
    table = changes(before.measures, after.measures)
    grown = table.loc[(LEFT, "ground-glass_ml")]
    assert grown["change"] == pytest.approx(ball_ml(24) - ball_ml(15))
    assert grown["change_percent"] == pytest.approx(100 * (ball_ml(24) / ball_ml(15) - 1))
    assert table.loc[(LEFT, "healthy_ml"), "change"] == pytest.approx(-grown["change"])
    assert table.loc[("right lung", "ground-glass_ml"), "change"] == 0
    assert np.isnan(table.loc[(WHOLE, "mean_hu"), "change_percent"]), "a density has no ratio"
    assert table.loc[(WHOLE, "mean_hu"), "change"] > 0
    assert np.isnan(table.loc[("right lung", "ground-glass_ml"), "change_percent"]), "from nothing"


def test_a_table_that_was_written_compares_to_the_last_digit(tmp_path: Path) -> None:
    measures = Thorax(15).measures
    measures.to_csv(tmp_path / "m.csv")
    table = changes(read_measures(tmp_path / "m.csv"), measures)
    assert (table["change"].dropna() == 0).all() and table["change"].notna().sum() > 20


def test_other_inspiration_and_other_regions_are_said() -> None:
    measures = Thorax(15).measures
    larger = measures.copy()
    larger.loc[WHOLE, "lung_ml"] *= 1.2
    assert "20 % larger" in change_warnings(measures, larger)[0]
    assert change_warnings(measures, measures) == []
    assert "left lung" in change_warnings(measures, measures.drop(LEFT))[0]


def test_transitions_count_every_voxel_of_the_lungs_once() -> None:
    before, after = Thorax(24), Thorax(15, label=CONSOLIDATION)
    voxel = SPACING**3 / 1000
    table = transitions(before.labels, after.labels, voxel)
    assert table.to_numpy().sum() == pytest.approx((before.sides > 0).sum() * voxel)
    assert table.loc["ground-glass", "consolidation"] == pytest.approx(ball_ml(15))
    assert table.loc["ground-glass", "healthy"] == pytest.approx(ball_ml(24) - ball_ml(15))
    with pytest.raises(UnusableInputError, match="two grids"):
        transitions(before.labels[1:], after.labels, voxel)


@pytest.mark.parametrize("kind", ["rigid", "affine", "deformable"])
def test_registration_finds_a_patient_who_moved(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deformable one, too, must not stretch the lesion out of the smaller one that it was."""
    pytest.importorskip("itk", reason="registration needs ITKElastix: pip install itk-elastix")
    from DiffSegLungLib.quantify import registration
    from DiffSegLungLib.quantify.registration import bring_onto

    monkeypatch.setattr(registration, "ITERATIONS", 50)  # enough for so small a thorax
    before, after = Thorax(15, shift_mm=(9, -12, 6)), Thorax(24)
    volumes = [
        load_volume(thorax.write(tmp_path / name)[0]) for name, thorax in (("a", before), ("b", after))
    ]
    assert overlap(before.labels, after.labels) < 0.85
    moved = bring_onto(volumes[1], after.labels, volumes[0], before.labels, kind)
    assert moved.dtype == np.uint8 and set(np.unique(moved)) == {0, HEALTHY, GROUND_GLASS}
    assert overlap(moved, after.labels) > 0.96
    table = transitions(moved, after.labels, SPACING**3 / 1000)
    grown = ball_ml(24) - ball_ml(15)
    assert table.loc["healthy", "ground-glass"] == pytest.approx(grown, rel=0.15)
    assert table.loc["ground-glass", "ground-glass"] == pytest.approx(ball_ml(15), rel=0.15)


def test_the_command_line_compares_tables_and_registered_segmentations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("itk", reason="registration needs ITKElastix: pip install itk-elastix")
    before, after = Thorax(15, shift_mm=(0, -6, 6)), Thorax(24)
    earlier, later = before.write(tmp_path / "a"), after.write(tmp_path / "b")
    words = ["measure", later[0], later[1], "--lungs", later[2], "--changes", str(tmp_path / "c.csv")]
    registered = ["--compare", earlier[1], "--earlier-ct", earlier[0], "--earlier-lungs", earlier[2]]
    registered += ["--register", "rigid", "--transitions", str(tmp_path / "t.csv")]
    assert cli.main([*words, *registered]) == 0
    assert "Change, whole lung" in capsys.readouterr().out
    table = pandas.read_csv(tmp_path / "c.csv", index_col=["region", "measure"])
    grown = ball_ml(24) - ball_ml(15)
    assert table.loc[(WHOLE, "ground-glass_ml"), "change"] == pytest.approx(grown)
    became = pandas.read_csv(tmp_path / "t.csv", index_col="earlier")
    assert became.loc["healthy", "ground-glass"] == pytest.approx(grown, rel=0.15)
    before.measures.to_csv(tmp_path / "m.csv")
    assert cli.main([*words, "--compare", str(tmp_path / "m.csv")]) == 0
    again = pandas.read_csv(tmp_path / "c.csv", index_col=["region", "measure"])
    assert again.loc[(WHOLE, "ground-glass_ml"), "change"] == pytest.approx(grown)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--compare", "nowhere.csv"], "no such file"),
        (["--changes", "c.csv"], "give the earlier measures with --compare"),
        (["--compare", "m.csv", "--register", "rigid"], "A table cannot be registered"),
        (["--earlier-series", "3"], "give the earlier measures with --compare"),
        (["--compare", "m.csv", "--earlier-series", "3"], "A table cannot be registered"),
        (["--compare", "s.nrrd"], "give --earlier-ct"),
        (["--compare", "s.nrrd", "--earlier-ct", "ct.nrrd", "--transitions", "t.csv"], "give --register"),
        (["--compare", "m.csv", "--changes", "m.csv"], "is also an input"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path,
    words: list[str],
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("m.csv", "s.nrrd", "ct.nrrd"):
        (tmp_path / name).write_bytes(b"x")
    assert cli.main(["measure", "ct.nrrd", "s.nrrd", *words]) == 2
    assert sentence in capsys.readouterr().err


# --- in the report --------------------------------------------------------------------------------


def as_dicom(thorax: Thorax, folder: Path, day: str, **options: Any) -> tuple[str, str, str]:
    """CT as a DICOM series made on a day; tissues and lungs as files on its grid."""
    tags: dict[str, Any] = {"PixelSpacing": [SPACING] * 2, "AcquisitionDate": day, **options}
    write_series(folder / "ct", thorax.hu[16:48], step=(0, 0, SPACING), **tags)
    volume = load_volume(folder / "ct")
    write_segmentation(folder / "tissues.seg.nrrd", to_input_geometry(thorax.labels[16:48], volume))
    sitk.WriteImage(to_input_geometry(thorax.sides[16:48], volume), str(folder / "lungs.nrrd"))
    names = (folder / "ct", folder / "tissues.seg.nrrd", folder / "lungs.nrrd")
    return str(names[0]), str(names[1]), str(names[2])


def test_the_report_says_what_changed_and_dates_only_if_asked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    earlier = as_dicom(Thorax(15), tmp_path / "a", "20240131")
    later = as_dicom(Thorax(24), tmp_path / "b", "20240301")
    words = ["measure", later[0], later[1], "--lungs", later[2], "--compare", earlier[1]]
    words += ["--earlier-ct", earlier[0], "--earlier-lungs", earlier[2]]
    for given, said in (([], False), (["--dates"], True)):
        report = tmp_path / f"report{len(given)}"
        assert cli.main([*words, "--report", str(report), *given]) == 0
        page = (report / "report.html").read_text(encoding="utf-8")
        assert "Change since the earlier CT" in page
        assert ("2024-01-31 to 2024-03-01 (30 days)" in page) is said
        assert any(day in page for day in ("2024-01-31", "20240131", "2024-03-01", "20240301")) is said
        change = json.loads((report / "report.json").read_text(encoding="utf-8"))["change"]
        grown = change["regions"][LEFT]["ground-glass_ml"]
        assert grown["change"] == pytest.approx(ball_ml(24) - ball_ml(15))
        assert (change["interval"] is not None) is said
    capsys.readouterr()
    swapped = ["measure", earlier[0], earlier[1], "--lungs", earlier[2], "--compare", later[1], "--dates"]
    assert cli.main([*swapped, "--earlier-ct", later[0], "--earlier-lungs", later[2]]) == 0
    assert "was not made earlier" in capsys.readouterr().err


def test_both_points_in_time_may_lie_in_one_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two studies as an archive exports them: each is chosen by its own option, and unasked none is."""
    earlier = as_dicom(Thorax(15), tmp_path / "both" / "a", "20240131", number=3, StudyInstanceUID="1.2.3")
    later = as_dicom(Thorax(24), tmp_path / "both" / "b", "20240301", number=5, StudyInstanceUID="1.2.4")
    folder, table = str(tmp_path / "both"), tmp_path / "c.csv"
    words = ["measure", folder, later[1], "--series", "5", "--lungs", later[2], "--compare", earlier[1]]
    words += ["--earlier-ct", folder, "--earlier-lungs", earlier[2], "--changes", str(table)]
    assert cli.main(words) == 2
    said = capsys.readouterr().err
    assert "The earlier CT: both: CT of 2 studies" in said
    assert "with --earlier-series." in said and not table.exists()
    report = tmp_path / "report"
    assert cli.main([*words, "--earlier-series", "3", "--dates", "--report", str(report)]) == 0
    grown = pandas.read_csv(table, index_col=["region", "measure"]).loc[(LEFT, "ground-glass_ml")]
    assert grown["change"] == pytest.approx(ball_ml(24) - ball_ml(15))
    page = (report / "report.html").read_text(encoding="utf-8")
    assert "2024-01-31 to 2024-03-01 (30 days)" in page
    assert cli.main([*words, "--earlier-series", "4"]) == 2
    assert "no axial CT series 4; choose one of" in capsys.readouterr().err


def test_dates_of_what_has_none_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    earlier, later = Thorax(15).write(tmp_path / "a"), Thorax(24).write(tmp_path / "b")
    words = ["measure", later[0], later[1], "--lungs", later[2], "--dates", "--compare", earlier[1]]
    assert cli.main([*words, "--earlier-ct", earlier[0], "--earlier-lungs", earlier[2]]) == 2
    assert "The earlier CT tells no date" in capsys.readouterr().err
    Thorax(15).measures.to_csv(tmp_path / "m.csv")
    assert cli.main([*words[:-1], str(tmp_path / "m.csv")]) == 2
    assert "A table has no date" in capsys.readouterr().err
