"""The whole method on the phantom: each disease where the truth has it, and a healthy lung healthy."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.uid import generate_uid

from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.export.segmentation_file import LUNG_SEGMENTS, write_segmentation
from DiffSegLungLib.io.volume import load_volume, to_input_geometry
from DiffSegLungLib.models import store as models
from DiffSegLungLib.phantom import Phantom, make_phantom, phantom_image
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.tissues import (
    CAVITY,
    CONSOLIDATION,
    DISEASES,
    EMPHYSEMA,
    FIBROSIS,
    GROUND_GLASS,
    HEALTHY,
    OUTSIDE,
    REPORTED,
    VESSEL,
)
from Testing.unit.dicom_series import write_series
from Testing.unit.tiny_model import write_tiny_model

FINE = (1.5, 1.5, 1.5)
"""The model's own spacing, so that a fibrosis is not blurred before it is looked at."""
WHOLE_AND_SIDES = ["whole lung", "right lung", "left lung"]
PIECE = (slice(66, 122), slice(96, 150), slice(28, 92))
"""A piece of the right lung that holds healthy and diseased tissue."""


@pytest.fixture(scope="module", autouse=True)
def a_model_is_at_hand() -> None:
    if models.DEFAULT not in {info.name for info in models.list_models()}:
        pytest.skip(f"no model named {models.DEFAULT!r} is in this tree yet")


@pytest.fixture(scope="module")
def diseased() -> Phantom:
    return make_phantom(FINE)


def array(image: sitk.Image) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(image))


def same_grid(first: sitk.Image, second: sitk.Image) -> bool:
    return (
        first.GetSize() == second.GetSize()
        and np.allclose(first.GetSpacing(), second.GetSpacing())
        and np.allclose(first.GetOrigin(), second.GetOrigin())
        and np.allclose(first.GetDirection(), second.GetDirection())
    )


# --- whole lungs -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(diseased: Phantom) -> Result:
    return segment(phantom_image(diseased), device="cpu")


def scores(found: np.ndarray, truth: np.ndarray, label: int) -> tuple[float, float, float]:
    """Recall, precision and DSC of one tissue; vessels and what is outside the true lungs do not count."""
    scored = (truth != OUTSIDE) & (truth != VESSEL)
    ours, theirs = (found == label) & scored, truth == label
    hits = float((ours & theirs).sum())
    return hits / theirs.sum(), hits / max(ours.sum(), 1), 2 * hits / (ours.sum() + theirs.sum())


@pytest.mark.parametrize(
    ("label", "recall", "precision", "dice"),
    [
        (HEALTHY, 0.90, 0.85, 0.90),
        (EMPHYSEMA, 0.10, 0.80, 0.20),
        (GROUND_GLASS, 0.60, 0.50, 0.60),
        (FIBROSIS, 0.40, 0.60, 0.50),
        (CONSOLIDATION, 0.25, 0.80, 0.40),
        (CAVITY, 0.50, 0.70, 0.60),
    ],
    ids=[tissue.key for tissue in REPORTED],
)
def test_each_tissue_lies_mainly_where_the_truth_has_it(
    whole: Result, diseased: Phantom, label: int, recall: float, precision: float, dice: float
) -> None:
    found = scores(array(whole.labels), diseased.truth, label)
    assert found[0] > recall and found[1] > precision and found[2] > dice, found


def test_labels_and_uncertainty_lie_on_the_grid_of_the_ct(whole: Result, diseased: Phantom) -> None:
    ct = phantom_image(diseased)
    assert same_grid(whole.labels, ct) and same_grid(whole.uncertainty, ct)
    assert whole.labels.GetPixelID() == sitk.sitkUInt8
    assert whole.uncertainty.GetPixelID() == sitk.sitkFloat32
    assert set(np.unique(array(whole.labels))) <= set(range(VESSEL + 1))


def test_the_lungs_are_labelled_and_nothing_else(whole: Result, diseased: Phantom) -> None:
    found, truth = array(whole.labels) > 0, diseased.truth > 0
    assert 2 * (found & truth).sum() / (found.sum() + truth.sum()) > 0.95


def test_uncertainty_is_a_normalised_entropy(whole: Result) -> None:
    entropy, labels = array(whole.uncertainty), array(whole.labels)
    assert entropy.min() >= 0 and entropy.max() <= 1 and not entropy[labels == OUTSIDE].any()
    assert 0 < entropy[labels > 0].mean() < 0.5


def test_uncertainty_is_higher_where_the_labels_are_wrong(whole: Result, diseased: Phantom) -> None:
    labels, truth, entropy = array(whole.labels), diseased.truth, array(whole.uncertainty)
    scored = (truth > 0) & (truth != VESSEL) & (labels > 0) & (labels != VESSEL) & (truth != CAVITY)
    assert entropy[scored & (labels != truth)].mean() > 1.5 * entropy[scored & (labels == truth)].mean()


def test_the_lungs_are_returned_with_their_sides(whole: Result, diseased: Phantom) -> None:
    lungs = array(whole.lungs)
    assert same_grid(whole.lungs, phantom_image(diseased)) and whole.lungs.GetPixelID() == sitk.sitkUInt8
    assert np.array_equal(lungs > 0, array(whole.labels) > 0)
    assert set(np.unique(lungs)) == {0, 1, 2}
    right, left = (np.argwhere(lungs == side)[:, 2].mean() for side in (1, 2))
    assert right < left
    millilitres = whole.measures.loc[["right lung", "left lung"], "lung_ml"].to_numpy()
    assert millilitres == pytest.approx([(lungs == side).sum() * np.prod(FINE) / 1000 for side in (1, 2)])


def test_the_measures_are_those_of_the_labels(whole: Result) -> None:
    labels = array(whole.labels)
    assert list(whole.measures.index) == WHOLE_AND_SIDES
    row, parenchyma = whole.measures.loc["whole lung"], ((labels > 0) & (labels != VESSEL)).sum()
    for tissue in REPORTED:
        count = (labels == tissue.label).sum()
        assert row[f"{tissue.key}_percent"] == pytest.approx(100 * count / parenchyma)


def test_the_manifest_tells_what_the_result_was_made_with(whole: Result) -> None:
    manifest = json.loads(json.dumps(whole.manifest))
    promised = "software input model parameters seed device warnings created seconds peak_memory_mb"
    assert set(promised.split()) <= set(manifest)
    assert manifest["software"]["name"] == "DiffSegLung" and manifest["software"]["packages"]["torch"]
    assert manifest["seed"] == 0 and manifest["device"] == "cpu"
    assert manifest["model"]["sha256"][models.TISSUES] == models.verify().sha256
    assert {"network", "fusion", "moved_ml"} <= set(manifest["parameters"])
    rules = {"fusion", "likely_disease", "kept_disease", "cavities", "vessels"}
    assert set(manifest["parameters"]["moved_ml"]) == rules
    assert 0 < manifest["parameters"]["moved_ml"]["vessels"] < 1000
    stages = {name: seconds for name, seconds in manifest["seconds"].items() if name != "total"}
    assert {"lungs", "network", "fusion"} <= set(stages)
    assert manifest["seconds"]["total"] == pytest.approx(sum(stages.values()), abs=0.01)
    assert manifest["peak_memory_mb"] > 100
    assert manifest["input"]["size"] == list(whole.labels.GetSize())


@pytest.fixture(scope="module")
def healthy() -> Result:
    return segment(phantom_image(make_phantom((2.0, 2.0, 2.0), lesions=())), device="cpu")


def test_a_healthy_lung_comes_out_healthy(healthy: Result) -> None:
    row = healthy.measures.loc["whole lung"]
    assert row["healthy_percent"] >= 92
    for tissue in DISEASES:
        assert row[f"{tissue.key}_percent"] < 4, tissue.key


# --- a piece of a lung, with a mask of its own -----------------------------------------------------------


@pytest.fixture(scope="module")
def piece(diseased: Phantom) -> tuple[sitk.Image, sitk.Image]:
    """CT and true lungs of the piece, at a place of its own in space."""
    lungs = (diseased.truth > 0).astype(np.uint8)
    return placed(diseased.hu[PIECE]), placed(lungs[PIECE])


def placed(values: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(np.ascontiguousarray(values))
    image.SetSpacing(FINE)
    image.SetOrigin((-40.0, 12.5, -300.0))
    return image


@pytest.fixture(scope="module")
def segmented(piece: tuple[sitk.Image, sitk.Image]) -> Result:
    return segment(piece[0], lungs=piece[1], device="cpu")


def test_the_users_lungs_are_taken_as_they_are(
    segmented: Result, piece: tuple[sitk.Image, sitk.Image]
) -> None:
    assert np.array_equal(array(segmented.labels) > 0, array(piece[1]) > 0)
    assert len(np.unique(array(segmented.labels))) > 3, "the piece holds several tissues"


def test_the_seed_determines_the_labels(segmented: Result, piece: tuple[sitk.Image, sitk.Image]) -> None:
    again = segment(piece[0], lungs=piece[1], device="cpu")
    assert np.array_equal(array(again.labels), array(segmented.labels))
    assert np.array_equal(array(again.uncertainty), array(segmented.uncertainty))
    assert again.measures.equals(segmented.measures)


def test_the_network_draws_nothing_at_random(segmented: Result, piece: tuple[sitk.Image, sitk.Image]) -> None:
    other = segment(piece[0], lungs=piece[1], device="cpu", seed=7)
    assert other.manifest["seed"] == 7
    assert np.array_equal(array(other.labels), array(segmented.labels))


def test_another_seed_changes_little_where_a_mixture_decides(
    piece: tuple[sitk.Image, sitk.Image], tmp_path: Path
) -> None:
    model = str(write_tiny_model(tmp_path / "tiny", 1.5))
    one, other = (
        segment(piece[0], lungs=piece[1], device="cpu", model=model, seed=seed, quality="fast")
        for seed in (0, 7)
    )
    assert not np.array_equal(array(other.uncertainty), array(one.uncertainty))
    lungs = array(piece[1]) > 0
    assert (array(other.labels) == array(one.labels))[lungs].mean() > 0.95
    assert {"features", "mixture"} <= set(one.manifest["seconds"])


def flipped(image: sitk.Image) -> sitk.Image:
    """The same patient in space, stored back to front and upside down."""
    return sitk.Flip(image, (False, True, True))


def permuted(image: sitk.Image) -> sitk.Image:
    """The same patient in space, stored sagittally."""
    return sitk.PermuteAxes(image, (1, 2, 0))


@pytest.mark.parametrize("stored_as", [flipped, permuted])
def test_how_a_scan_is_stored_does_not_change_it(
    segmented: Result, piece: tuple[sitk.Image, sitk.Image], stored_as: Callable[[sitk.Image], sitk.Image]
) -> None:
    ct, lungs = (stored_as(image) for image in piece)
    result = segment(ct, lungs=lungs, device="cpu")
    assert same_grid(result.labels, ct)
    volumes = [name for name in segmented.measures.columns if name.endswith("_ml")]
    assert volumes
    here, there = (table.measures.loc["whole lung", volumes] for table in (segmented, result))
    assert there.to_numpy() == pytest.approx(here.to_numpy(), rel=0.02, abs=0.05)
    agree = array(result.labels) == array(stored_as(segmented.labels))
    assert agree.mean() > 0.99


def test_regions_of_the_user_give_rows_of_their_own(piece: tuple[sitk.Image, sitk.Image]) -> None:
    ct, lungs = piece
    halves = np.zeros(array(lungs).shape, np.uint8)
    halves[: len(halves) // 2], halves[len(halves) // 2 :] = 1, 4
    regions = sitk.GetImageFromArray(halves)
    regions.CopyInformation(ct)
    stages: list[tuple[str, float]] = []
    result = segment(
        ct,
        lungs=lungs,
        regions=regions,
        device="cpu",
        progress=lambda stage, fraction, message="": stages.append((stage, fraction)),
    )
    # The piece is one lung; which one its place in the image tells, and the other has no row.
    assert list(result.measures.index) == ["whole lung", "left lung", "region 1", "region 4"]
    parts = result.measures.loc[["region 1", "region 4"]]
    for name in [f"{tissue.key}_ml" for tissue in REPORTED]:
        assert parts[name].sum() == pytest.approx(result.measures.loc["whole lung", name], abs=1e-6)
    fractions = [fraction for _, fraction in stages]
    assert fractions == sorted(fractions) and fractions[0] >= 0 and fractions[-1] <= 1
    assert {"lungs", "network", "fusion", "measures"} <= {stage for stage, _ in stages}


def test_an_anisotropic_scan_keeps_its_own_grid(piece: tuple[sitk.Image, sitk.Image], tmp_path: Path) -> None:
    ct, lungs = piece
    thick = [image[:, :, ::2] for image in (ct, lungs)]
    assert thick[0].GetSpacing()[2] == pytest.approx(2 * FINE[0])
    path = tmp_path / "thick.nii.gz"
    sitk.WriteImage(thick[0], str(path))
    result = segment(path, lungs=thick[1], device="cpu")
    assert same_grid(result.labels, thick[0])
    assert np.array_equal(array(result.labels) > 0, array(thick[1]) > 0)


# --- the command, its files, and measuring them again ----------------------------------------------------


@pytest.fixture(scope="module")
def dicom_case(diseased: Phantom, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The piece as DICOM with its lungs named, and all that ``segment`` writes of it."""
    folder = tmp_path_factory.mktemp("command")
    identity: dict[str, Any] = {"StudyInstanceUID": generate_uid(), "FrameOfReferenceUID": generate_uid()}
    grid: dict[str, Any] = {"PixelSpacing": list(FINE[1:]), "SliceThickness": FINE[0]}
    write_series(folder / "ct", diseased.hu[PIECE], step=(0, 0, FINE[0]), **grid, **identity)
    volume = load_volume(folder / "ct")
    sides = (diseased.truth[PIECE] > 0).astype(np.uint8)
    write_segmentation(folder / "in.seg.nrrd", to_input_geometry(sides, volume), LUNG_SEGMENTS)
    names = {
        "-o": "t.seg.nrrd",
        "--save-lungs": "lungs.seg.nrrd",
        "--measures": "m.csv",
        "--manifest": "t.json",
        "--report": "report",
    }
    command = ["segment", str(folder / "ct"), "--lungs", str(folder / "in.seg.nrrd"), "--quality", "fast"]
    for option, name in names.items():
        command += [option, str(folder / "out" / name)]
    if find_spec("highdicom"):
        command += ["--dicom-seg", str(folder / "out" / "t.dcm")]
    assert cli.main([*command, "--device", "cpu", "--progress", "none"]) == 0
    return folder


def test_the_command_writes_every_file_and_the_manifest_names_them(dicom_case: Path) -> None:
    manifest = json.loads((dicom_case / "out" / "t.json").read_text())
    assert manifest["parameters"]["quality"] == "fast" and manifest["parameters"]["lungs"] == "given"
    named = manifest["outputs"]
    expected = {
        "segmentation": "t.seg.nrrd",
        "lungs": "lungs.seg.nrrd",
        "measures": "m.csv",
        "report": "report",
        "report_pdf": "report/report.pdf",
    }
    assert expected.items() <= named.items()
    assert all((dicom_case / "out" / name).exists() for name in named.values())
    report = dicom_case / "out" / "report" / "measures.csv"
    assert (dicom_case / "out" / "m.csv").read_bytes() == report.read_bytes()


def test_the_saved_lungs_are_the_lungs_that_were_measured(dicom_case: Path) -> None:
    lungs = sitk.ReadImage(str(dicom_case / "out" / "lungs.seg.nrrd"))
    given = sitk.ReadImage(str(dicom_case / "in.seg.nrrd"))
    assert same_grid(lungs, given) and np.array_equal(array(lungs), array(given))
    assert set(np.unique(array(lungs))) == {0, 1}, "a right lung alone stays right"


def test_measuring_the_unedited_files_gives_the_runs_numbers(dicom_case: Path) -> None:
    out = dicom_case / "out"
    command = [
        "measure",
        str(dicom_case / "ct"),
        str(out / "t.seg.nrrd"),
        "-o",
        str(dicom_case / "again.csv"),
    ]
    assert (
        cli.main([*command, "--lungs", str(out / "lungs.seg.nrrd"), "--manifest", str(out / "t.json")]) == 0
    )
    assert (dicom_case / "again.csv").read_bytes() == (out / "m.csv").read_bytes()


def test_the_dicom_segmentation_holds_the_segments_of_the_file(dicom_case: Path) -> None:
    pytest.importorskip("highdicom", reason="highdicom is optional")
    labels = array(sitk.ReadImage(str(dicom_case / "out" / "t.seg.nrrd")))
    segments = pydicom.dcmread(dicom_case / "out" / "t.dcm").SegmentSequence
    present = [tissue.name for tissue in REPORTED if (labels == tissue.label).any()]
    assert [segment.SegmentLabel for segment in segments] == present
    [algorithm] = segments[0].SegmentationAlgorithmIdentificationSequence
    assert models.verify().sha256 in algorithm.AlgorithmParameters


def test_qualities_agree_on_nearly_every_voxel(
    segmented: Result, piece: tuple[sitk.Image, sitk.Image]
) -> None:
    lungs = array(piece[1]) > 0
    assert segmented.manifest["parameters"]["quality"] == "standard"
    for quality in ("fast", "best"):
        other = segment(piece[0], lungs=piece[1], device="cpu", quality=quality)
        assert other.manifest["parameters"]["quality"] == quality
        assert (array(other.labels) == array(segmented.labels))[lungs].mean() > 0.9
        same = np.array_equal(array(other.uncertainty), array(segmented.uncertainty))
        assert same == (quality == "fast"), "best reads the mirror image, too"


# --- what cannot be used ---------------------------------------------------------------------------------


def test_regions_outside_the_lungs_are_refused(piece: tuple[sitk.Image, sitk.Image]) -> None:
    ct, lungs = piece
    elsewhere = sitk.Cast(sitk.Not(lungs > 0), sitk.sitkUInt8)
    with pytest.raises(UnusableInputError, match="no region lies inside the lungs"):
        segment(ct, lungs=lungs, regions=elsewhere, device="cpu")


def test_an_empty_lung_mask_is_refused(piece: tuple[sitk.Image, sitk.Image]) -> None:
    with pytest.raises(UnusableInputError):
        segment(piece[0], lungs=piece[1] * 0, device="cpu")


def test_an_unknown_model_and_a_missing_device_are_refused(piece: tuple[sitk.Image, sitk.Image]) -> None:
    with pytest.raises(MissingPartError, match="no model"):
        segment(piece[0], lungs=piece[1], device="cpu", model="no-such-model")
    with pytest.raises(MissingPartError, match="not available"):
        segment(piece[0], lungs=piece[1], device="abacus")
    with pytest.raises(UnusableInputError, match="Quality 'perfect' is unknown"):
        segment(piece[0], lungs=piece[1], quality="perfect")
