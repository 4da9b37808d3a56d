"""Measuring what is there already: unedited it gives the run's numbers, edited it gives the edited ones."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas
import pytest
import SimpleITK as sitk

from DiffSegLungLib.anatomy import regions_from_sides
from DiffSegLungLib.app import cli
from DiffSegLungLib.app.measure_command import CORRECTED, OTHER_LUNGS
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.segmentation_file import LUNG_SEGMENTS, write_image, write_segmentation
from DiffSegLungLib.io.volume import load_volume, to_input_geometry
from DiffSegLungLib.phantom import Phantom, make_phantom, phantom_image, phantom_truth_image
from DiffSegLungLib.quantify.measures import measure, measure_corrected
from DiffSegLungLib.quantify.remeasure import remeasure
from DiffSegLungLib.tissues import CONSOLIDATION, GROUND_GLASS, HEALTHY, REPORTED, VESSEL


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return make_phantom((5.0, 5.0, 5.0))


@pytest.fixture(scope="module")
def sides(phantom: Phantom) -> np.ndarray:
    """Right and left by the middle of the body; the patient's right lies at low x."""
    right = np.arange(phantom.truth.shape[2]) < phantom.truth.shape[2] // 2
    return np.where(phantom.truth > 0, np.where(right, 1, 2), 0).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(phantom: Phantom, sides: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CT, its segmentation with and without vessels, and its lungs, as ``segment`` writes them."""
    folder = tmp_path_factory.mktemp("case")
    ct, labels = phantom_image(phantom), phantom_truth_image(phantom)
    write_image(folder / "ct.nrrd", ct)
    write_segmentation(folder / "tissues.seg.nrrd", labels)
    write_image(folder / "tissues.nrrd", labels)
    lungs = to_input_geometry(sides, load_volume(ct))
    write_segmentation(folder / "lungs.seg.nrrd", lungs, LUNG_SEGMENTS)
    return folder


@pytest.fixture(scope="module")
def expected(phantom: Phantom, sides: np.ndarray, folder: Path) -> pandas.DataFrame:
    volume = load_volume(folder / "ct.nrrd")
    return measure(phantom.truth, volume.hu, volume.spacing, regions_from_sides(sides))


def same(found: pandas.DataFrame, table: pandas.DataFrame) -> None:
    pandas.testing.assert_frame_equal(found, table, check_exact=True)


# --- the library -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tissues.seg.nrrd", "tissues.nrrd"])
def test_an_unedited_result_gives_the_same_numbers(
    folder: Path, expected: pandas.DataFrame, name: str
) -> None:
    found = remeasure(folder / "ct.nrrd", folder / name, lungs=folder / "lungs.seg.nrrd")
    same(found.measures, expected)


def test_without_a_mask_a_label_map_with_vessels_is_all_the_lung(
    folder: Path, expected: pandas.DataFrame, phantom: Phantom
) -> None:
    found = remeasure(folder / "ct.nrrd", folder / "tissues.nrrd")
    same(found.measures.loc[["whole lung"]], expected.loc[["whole lung"]])
    assert np.array_equal(found.labels, phantom.truth)
    ratio = found.measures["lung_ml"] / expected["lung_ml"]
    assert ratio.between(0.97, 1.03).all(), "right and left are found"


def test_without_mask_and_vessels_the_lungs_are_found_in_the_ct(
    folder: Path, expected: pandas.DataFrame
) -> None:
    found = remeasure(folder / "ct.nrrd", folder / "tissues.seg.nrrd")
    for tissue in REPORTED:
        column = f"{tissue.key}_ml"
        assert found.measures.loc["whole lung", column] == pytest.approx(expected.loc["whole lung", column])
    assert found.measures.loc["whole lung", "lung_ml"] == pytest.approx(
        expected.loc["whole lung", "lung_ml"], rel=0.08
    ), "voxels of 5 mm: the lungs' surface is 6 % of them"


def test_a_lung_mask_far_larger_than_the_tissues_is_said(folder: Path, phantom: Phantom) -> None:
    labels = phantom_truth_image(phantom)
    upper = sitk.GetArrayFromImage(labels)
    upper[: len(upper) // 2] = 0
    half = sitk.GetImageFromArray(upper)
    half.CopyInformation(labels)
    lungs = folder / "lungs.seg.nrrd"
    found = remeasure(folder / "ct.nrrd", half, lungs=lungs)
    assert any("has no tissue and counts as vessel" in warning for warning in found.warnings)
    whole = remeasure(folder / "ct.nrrd", folder / "tissues.seg.nrrd", lungs=lungs)
    assert not any("has no tissue" in warning for warning in whole.warnings)


def test_a_piece_without_recognisable_lungs_is_measured_by_its_tissues() -> None:
    hu = np.full((12, 24, 24), 40, np.int16)
    hu[4:8, 8:16, 8:16] = -860
    ct = sitk.GetImageFromArray(hu)
    found = remeasure(ct, sitk.GetImageFromArray((hu < -500).astype(np.uint8)))
    assert found.measures.loc["whole lung", "healthy_percent"] == 100
    assert found.measures.loc["whole lung", "lung_ml"] == pytest.approx(0.256)
    assert any("No lungs were found" in warning for warning in found.warnings)


# --- measure_corrected -----------------------------------------------------------------------------------

SPACING = (2.0, 1.0, 1.0)


def two_lungs() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, sides, HU: a right lung of 4 x 6 x 4 voxels, a left one of 4 x 6 x 6."""
    sides = np.zeros((6, 10, 20), np.uint8)
    sides[1:5, 2:8, 2:6], sides[1:5, 2:8, 12:18] = 1, 2
    labels = np.where(sides > 0, HEALTHY, 0).astype(np.uint8)
    return labels, sides, np.full(labels.shape, -850.0, np.float32)


def test_lung_of_no_tissue_is_vessel() -> None:
    labels, sides, hu = two_lungs()
    labels[2, 3:5, 3] = 0
    table = measure_corrected(labels, sides, hu, SPACING)
    assert list(table.index) == ["whole lung", "right lung", "left lung"]
    assert table["vessel_ml"].tolist() == pytest.approx([0.004, 0.004, 0.0])
    assert table["lung_ml"].tolist() == pytest.approx([0.480, 0.192, 0.288])
    assert labels[2, 3, 3] == 0, "the caller's array is left alone"


def test_tissue_drawn_beyond_the_mask_belongs_to_the_nearer_lung() -> None:
    labels, sides, hu = two_lungs()
    labels[2, 4, 7], labels[2, 4, 10], labels[0, 4, 4] = CONSOLIDATION, CONSOLIDATION, GROUND_GLASS
    table = measure_corrected(labels, sides, hu, SPACING)
    assert table["consolidation_ml"].tolist() == pytest.approx([0.004, 0.002, 0.002])
    assert table["ground-glass_ml"].tolist() == pytest.approx([0.002, 0.002, 0.0])
    assert table.loc["whole lung", "lung_ml"] == pytest.approx(0.480 + 3 * 0.002)
    assert sides[2, 4, 7] == 0


def test_nearer_is_in_millimetres_not_in_voxels() -> None:
    sides = np.zeros((12, 5, 12), np.uint8)
    sides[0, :, 2], sides[:, :, 8] = 1, 2
    labels = np.where(sides > 0, HEALTHY, 0).astype(np.uint8)
    labels[4, 2, 2] = CONSOLIDATION  # 4 slices above the right lung, 6 columns beside the left one
    hu = np.full(labels.shape, -850.0, np.float32)
    for spacing, side in (((5.0, 1.0, 1.0), "left lung"), ((1.0, 1.0, 1.0), "right lung")):
        table = measure_corrected(labels, sides, hu, spacing)
        assert table.loc[side, "consolidation_ml"] > 0


def test_regions_are_measured_beside_the_lungs() -> None:
    labels, sides, hu = two_lungs()
    lower = np.zeros(labels.shape, bool)
    lower[:3] = True
    table = measure_corrected(labels, sides, hu, SPACING, {"lower": lower})
    assert table.loc["lower", "lung_ml"] == pytest.approx(table.loc["whole lung", "lung_ml"] / 2)


def test_a_sheared_stack_has_smaller_voxels() -> None:
    labels, sides, hu = two_lungs()
    table = measure_corrected(labels, sides, hu, SPACING, voxel_ml=0.001)
    assert table.loc["whole lung", "lung_ml"] == pytest.approx(0.240)


def test_no_lung_and_another_grid_are_refused() -> None:
    labels, sides, hu = two_lungs()
    with pytest.raises(UnusableInputError, match="no lung to measure"):
        measure_corrected(labels, sides * 0, hu, SPACING)
    with pytest.raises(UnusableInputError, match="on the CT's grid"):
        measure_corrected(labels, sides[1:], hu, SPACING)


# --- the command -----------------------------------------------------------------------------------------


def manifest(folder: Path, **changes: object) -> Path:
    """A run's manifest, as far as ``measure`` reads it."""
    size = list(sitk.ReadImage(str(folder / "ct.nrrd")).GetSize())
    content = {
        "software": {"name": "DiffSegLung", "version": "0.0.9"},
        "input": {"name": "ct", "size": size},
        "model": {"name": "first", "version": "0.1.0", "sha256": {"weights.safetensors": "c0ffee"}},
        "parameters": {"quality": "best", "lungs": "found"},
        "warnings": ["A warning of the run."],
    }
    path = folder / "run.manifest.json"
    path.write_text(json.dumps({**content, **changes}))
    return path


def words(folder: Path, *more: str) -> list[str]:
    names = ["ct.nrrd", "tissues.seg.nrrd"]
    lungs = ["--lungs", str(folder / "lungs.seg.nrrd")]
    return ["measure", *(str(folder / name) for name in names), *lungs, *more]


def test_the_command_writes_the_table_and_prints_it(
    folder: Path, expected: pandas.DataFrame, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(folder, "-o", str(tmp_path / "new" / "m.csv"))) == 0
    same(pandas.read_csv(tmp_path / "new" / "m.csv", index_col="region"), expected)
    captured = capsys.readouterr()
    assert "Ground-glass opacity" in captured.out and "Lung mass, g" in captured.out
    assert captured.err.splitlines() == ["diffseglung: warning: " + line for line in warnings_of(folder)]
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["m.csv"]


def warnings_of(folder: Path) -> list[str]:
    lungs = folder / "lungs.seg.nrrd"
    return list(remeasure(folder / "ct.nrrd", folder / "tissues.seg.nrrd", lungs=lungs).warnings)


def test_the_report_says_which_run_and_that_a_person_corrected_it(folder: Path, tmp_path: Path) -> None:
    more = ["--manifest", str(manifest(folder)), "--corrected", "--report", str(tmp_path / "r")]
    assert cli.main(words(folder, *more)) == 0
    html = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert CORRECTED in html and "A warning of the run." in html
    assert "0.0.9" in html and "c0ffee" in html


def test_without_a_manifest_the_report_claims_no_model(folder: Path, tmp_path: Path) -> None:
    assert cli.main(words(folder, "--report", str(tmp_path / "r"))) == 0
    html = (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert CORRECTED not in html and "diffusion network" not in html
    assert "tissues.seg.nrrd" not in html, "a file's name may be a patient's"


def test_a_run_with_a_mask_of_its_own_asks_for_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = str(manifest(folder, parameters={"lungs": "given"}))
    command = ["measure", str(folder / "ct.nrrd"), str(folder / "tissues.seg.nrrd"), "--manifest", given]
    assert cli.main(command) == 0
    assert OTHER_LUNGS in capsys.readouterr().err
    assert cli.main(words(folder, "--manifest", given)) == 0
    assert OTHER_LUNGS not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "cannot be read"),
        ("[]", "is no manifest"),
        ('{"a": 1}', "is no manifest"),
        ('{"software": {}, "input": {"size": [1, 2, 3]}}', "is of another CT"),
    ],
)
def test_a_manifest_that_does_not_belong_is_refused(
    folder: Path, tmp_path: Path, content: str, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.json").write_text(content)
    assert cli.main(words(folder, "--manifest", str(tmp_path / "m.json"))) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["-o", "m.txt"], "must end in .csv"),
        (["--dicom-seg", "m.dcm"], "is no DICOM"),
        (["-o", "file/m.csv"], "Cannot write"),
        (["--report", "file"], "is a file"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_outputs_that_cannot_end_well_are_refused_at_once(
    folder: Path, tmp_path: Path, more: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert cli.main(words(folder, more[0], str(tmp_path / more[1]))) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_input_is_never_overwritten(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = (folder / "ct.nrrd").read_bytes()
    link = folder / "link.csv"
    link.write_text("")
    command = ["measure", str(folder / "ct.nrrd"), str(link), "-o", str(link)]
    assert cli.main(command) == 2
    assert "is also an input" in capsys.readouterr().err
    link.unlink()
    assert (folder / "ct.nrrd").read_bytes() == before


def test_vessels_of_the_label_map_stay_vessels(folder: Path, phantom: Phantom) -> None:
    found = remeasure(folder / "ct.nrrd", folder / "tissues.nrrd", lungs=folder / "lungs.seg.nrrd")
    assert np.array_equal(found.labels == VESSEL, phantom.truth == VESSEL)
