"""Strokes: read, spread over the CT by what looks alike, written, and never passed off as automatic."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import SimpleITK as sitk
import torch
from safetensors.numpy import load_file, save_file

from DiffSegLungLib.app.cli import main
from DiffSegLungLib.app.correct_command import result_of_field
from DiffSegLungLib.app.spreads import Spreads
from DiffSegLungLib.decision import field as fields
from DiffSegLungLib.decision.field import Field
from DiffSegLungLib.decision.fusion import FusionSettings
from DiffSegLungLib.decision.label_map import label_map
from DiffSegLungLib.decision.network_decision import decide_by_network
from DiffSegLungLib.decision.strokes import spread
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.evaluation.correction_study import text_of
from DiffSegLungLib.evaluation.readings import SliceTruth
from DiffSegLungLib.evaluation.simulated_reader import curves, next_stroke, walked
from DiffSegLungLib.export.correction import CORRECTED, NO_FIELD, is_corrected
from DiffSegLungLib.export.result import Result
from DiffSegLungLib.export.segmentation_file import TISSUE_SEGMENTS, write_segmentation
from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.io.strokes import load_strokes
from DiffSegLungLib.io.volume import Volume, load_volume, to_input_geometry
from DiffSegLungLib.models import storage
from DiffSegLungLib.phantom import make_phantom, phantom_image
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.representation.tissue_unet import CLASSES
from DiffSegLungLib.tissues import FIBROSIS, GROUND_GLASS, HEALTHY, NOT_LUNG, OUTSIDE, VESSEL
from Testing.unit.small_network import WIDTHS, small_network, write_small_network_model
from Testing.unit.tiny_model import write_tiny_model

SIDE, SPACING = 32, 1.5
"""Voxels of the working grid's cube, which is the CT's, and their side in mm."""
HAZE_HERE = (slice(4, 14), slice(4, 14), slice(4, 14))
HAZE_THERE = (slice(4, 14), slice(4, 14), slice(18, 28))
NET = (slice(18, 28), slice(4, 14), slice(4, 14))
STROKE = (slice(8, 10), slice(8, 10), slice(8, 10))


@pytest.fixture(scope="module")
def volume() -> Volume:
    image = sitk.GetImageFromArray(np.full((SIDE,) * 3, -850, np.int16))
    image.SetSpacing((SPACING,) * 3)
    hu = np.full((SIDE,) * 3, -850, np.float32)
    return Volume(hu, (SPACING,) * 3, image, Geometry.of(image))


@pytest.fixture(scope="module")
def field() -> Field:
    """Healthy lung with two hazes that were taken for fibrosis and look alike, and a net that is fibrosis."""
    rng = np.random.default_rng(0)
    shape = (SIDE,) * 3
    posterior = np.full((CLASSES, *shape), 0.01, np.float32)
    posterior[HEALTHY] = 0.9
    for part in (HAZE_HERE, HAZE_THERE, NET):
        posterior[(HEALTHY, *part)], posterior[(FIBROSIS, *part)] = 0.02, 0.8
        posterior[(GROUND_GLASS, *part)] = 0.12
    posterior /= posterior.sum(axis=0)
    cells = round(SIDE * SPACING / 2.0)
    middles = ((np.arange(cells) + 0.5) * 2.0 / SPACING).astype(int)
    kinds = np.zeros(shape, int)
    kinds[HAZE_HERE] = kinds[HAZE_THERE] = 1
    kinds[NET] = 2
    features = rng.normal(0, 0.3, (4, cells, cells, cells)) + np.eye(4)[:, kinds[np.ix_(*[middles] * 3)]] * 6
    lung = SIDE**3
    return Field(
        posterior.reshape(CLASSES, lung).astype(np.float16),
        np.zeros(lung, np.float16),
        np.full(lung, -850, np.float16),
        np.full(SIDE, -860, np.float32),
        np.where(np.arange(SIDE) < SIDE // 2, 1, 2).astype(np.uint8) * np.ones(shape, np.uint8),
        np.packbits(np.ones(lung, bool)),
        features.reshape(4, -1).astype(np.float16),
        np.ones((cells,) * 3, bool),
        (0.0, 0.0, 0.0),
        (slice(0, SIDE),) * 3,
        SPACING,
        shape,
        (SPACING,) * 3,
        FusionSettings(steps=2),
        "weights",
    )


@pytest.fixture(scope="module")
def labels(field: Field, volume: Volume) -> np.ndarray:
    """As the run decided."""
    evidence = field.evidence()
    return label_map(decide_by_network(evidence), evidence.grid, volume, field.mask)


def painted(*parts: tuple[tuple[slice, ...], int]) -> np.ndarray:
    strokes = np.zeros((SIDE,) * 3, np.uint8)
    for where, label in parts:
        strokes[where] = label
    return strokes


def share(labels: np.ndarray, part: tuple[slice, ...], label: int) -> float:
    """Of a part without its rim, where cells of both sides are mixed."""
    inner = tuple(slice(side.start + 2, side.stop - 2) for side in part)
    return float((labels[inner] == label).mean())


def test_what_looks_alike_follows_and_all_else_stays(
    field: Field, volume: Volume, labels: np.ndarray
) -> None:
    assert share(labels, HAZE_THERE, FIBROSIS) > 0.9
    done = spread(field, painted((STROKE, GROUND_GLASS)), labels, volume, labels)
    assert share(done.labels, HAZE_HERE, GROUND_GLASS) > 0.9
    assert share(done.labels, HAZE_THERE, GROUND_GLASS) > 0.9
    assert share(done.labels, NET, FIBROSIS) > 0.9
    elsewhere = np.ones_like(labels, bool)
    for part in (HAZE_HERE, HAZE_THERE, NET):
        elsewhere[part] = False
    assert (done.labels[elsewhere] == labels[elsewhere]).mean() > 0.999
    assert done.moved_ml["fibrosis"]["ground-glass"] > 1.0 and done.outside_ml == 0
    assert done.strokes_ml == {"ground-glass": pytest.approx(8 * SPACING**3 / 1000, abs=1e-3)}


def test_what_was_painted_stays_exactly_as_painted(field: Field, volume: Volume, labels: np.ndarray) -> None:
    rng = np.random.default_rng(1)
    strokes = np.where(rng.random(labels.shape) < 0.003, GROUND_GLASS, 0).astype(np.uint8)
    strokes[rng.random(labels.shape) < 0.003] = VESSEL
    done = spread(field, strokes, labels, volume, labels)
    assert (done.labels[strokes > 0] == strokes[strokes > 0]).all()


def test_same_strokes_give_the_same_labels_and_more_strokes_reach_farther(
    field: Field, volume: Volume, labels: np.ndarray
) -> None:
    one = painted((STROKE, HEALTHY))
    first = spread(field, one, labels, volume, labels).labels
    assert np.array_equal(first, spread(field, one, labels, volume).labels)
    both = spread(field, painted((STROKE, HEALTHY), (NET, FIBROSIS)), labels, volume, labels).labels
    assert share(both, NET, FIBROSIS) == 1.0
    assert share(both, HAZE_HERE, FIBROSIS) < share(labels, HAZE_HERE, FIBROSIS)


def test_labels_that_somebody_changed_are_kept_where_strokes_move_nothing(
    field: Field, volume: Volume, labels: np.ndarray
) -> None:
    edited = labels.copy()
    edited[30, 30, 28:] = VESSEL
    done = spread(field, painted((STROKE, GROUND_GLASS)), edited, volume)
    assert (done.labels[30, 30, 28:] == VESSEL).all()
    assert share(done.labels, HAZE_HERE, GROUND_GLASS) > 0.9


def test_what_is_no_lung_leaves_it_and_only_there(field: Field, volume: Volume, labels: np.ndarray) -> None:
    done = spread(field, painted((STROKE, NOT_LUNG)), labels, volume, labels)
    assert (done.labels[STROKE] == OUTSIDE).all()
    assert share(done.labels, NET, FIBROSIS) > 0.9
    assert (done.labels[HAZE_THERE] != OUTSIDE).all(), "it does not hang together with the stroke"
    assert set(done.strokes_ml) == {"not-lung"}


def test_a_stroke_outside_the_lungs_counts_and_teaches_nothing(field: Field, volume: Volume) -> None:
    inside = np.zeros(field.mask.shape, bool)
    inside[:24] = True
    sides, cells = field.sides * inside, field.cells.copy()
    cells[18:] = False
    smaller = replace(
        field,
        posterior=field.posterior[:, inside.ravel()],
        edges=field.edges[inside.ravel()],
        hu=field.hu[inside.ravel()],
        sides=sides,
        features=field.features[:, cells.ravel()],
        cells=cells,
    )
    evidence = smaller.evidence()
    start = label_map(decide_by_network(evidence), evidence.grid, volume, inside)
    beyond = (slice(28, 30),) * 3
    done = spread(smaller, painted((STROKE, GROUND_GLASS), (beyond, GROUND_GLASS)), start, volume, start)
    assert (done.labels[beyond] == GROUND_GLASS).all() and done.outside_ml > 0
    with pytest.raises(UnusableInputError, match="outside the lungs"):
        spread(smaller, painted((beyond, GROUND_GLASS)), start, volume, start)


def test_a_stroke_on_one_thin_slice_is_seen(field: Field) -> None:
    """Cells are 2 mm high: slices of 0.5 mm between their middles count as well."""
    fine = replace(field, ct_shape=(96, SIDE, SIDE), ct_spacing=(0.5, SPACING, SPACING))
    for z in range(20, 24):
        strokes = np.zeros(fine.ct_shape, np.uint8)
        strokes[z, 10, 10] = GROUND_GLASS
        strokes[z, 10, 11] = FIBROSIS
        painted_cells = fine.to_cells(strokes)
        assert set(painted_cells[painted_cells > 0].tolist()) <= {GROUND_GLASS, FIBROSIS}
        assert (painted_cells > 0).any()


def test_strokes_of_another_grid_are_refused(field: Field, volume: Volume, labels: np.ndarray) -> None:
    with pytest.raises(UnusableInputError, match="another grid"):
        spread(field, np.ones((3, 3, 3), np.uint8), labels, volume)


def test_strokes_of_an_earlier_session_are_not_taken_for_painted(
    field: Field, volume: Volume, labels: np.ndarray
) -> None:
    strokes = painted((STROKE, GROUND_GLASS))
    after = spread(field, strokes, labels, volume, labels).labels
    again = Spreads(labels, field.sides, {}, field, labels)
    again.replay(strokes, volume)
    assert np.array_equal(again.strokes(after), strokes)
    undone = Spreads(labels, field.sides, {}, field, labels)
    undone.replay(np.zeros_like(strokes), volume)
    assert not undone.done and not undone.strokes(labels).any()


# --- what is kept ----------------------------------------------------------------------------------------


def test_a_field_comes_back_as_it_was_kept(field: Field, tmp_path: Path) -> None:
    fields.save(field, tmp_path / "f.safetensors")
    again = fields.load(tmp_path / "f.safetensors")
    for name, value in vars(again).items():
        other = getattr(field, name)
        assert np.array_equal(value, other) if isinstance(value, np.ndarray) else value == other, name


def test_a_file_that_is_no_field_is_one_sentence(field: Field, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no field", encoding="utf-8")
    save_file({"a": np.zeros(1)}, str(tmp_path / "other"))
    fields.save(field, tmp_path / "f")
    arrays = load_file(tmp_path / "f")
    short = {**arrays, "edges": arrays["edges"][:-1]}
    from safetensors import safe_open

    with safe_open(str(tmp_path / "f"), "numpy") as file:
        save_file(short, str(tmp_path / "short"), metadata=file.metadata())
    for name in ("text", "other", "short", "missing"):
        with pytest.raises(UnusableInputError, match="leave it out"):
            fields.load(tmp_path / name)


# --- strokes as files ------------------------------------------------------------------------------------


def stroke_file(path: Path, strokes: np.ndarray, volume: Volume) -> Path:
    write_segmentation(path, to_input_geometry(strokes, volume), TISSUE_SEGMENTS)
    return path


def test_strokes_are_read_by_name_and_by_value(volume: Volume, tmp_path: Path) -> None:
    strokes = painted((STROKE, GROUND_GLASS))
    file = stroke_file(tmp_path / "s.seg.nrrd", strokes, volume)
    assert np.array_equal(load_strokes(file, volume), strokes)
    plain = to_input_geometry(painted((STROKE, NOT_LUNG)), volume)
    assert (load_strokes(plain, volume)[STROKE] == NOT_LUNG).all()


def test_a_cropped_segmentation_is_on_the_grid_all_the_same(volume: Volume) -> None:
    image = to_input_geometry(painted((STROKE, GROUND_GLASS)), volume)[6:12, 6:12, 6:12]
    assert (load_strokes(image, volume)[STROKE] == GROUND_GLASS).all()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda image: image * 0, "nothing is painted"),
        (lambda image: image * 30, "is no tissue"),
        (lambda image: sitk.Expand(image, (2, 2, 2)), "another grid"),
        (lambda image: sitk.Shrink(image, (2, 2, 2)), "another grid"),
    ],
)
def test_strokes_that_cannot_be_used_are_one_sentence(
    volume: Volume, change: Callable[[sitk.Image], sitk.Image], said: str
) -> None:
    image = change(to_input_geometry(painted((STROKE, GROUND_GLASS)), volume))
    with pytest.raises(UnusableInputError, match=said):
        load_strokes(image, volume)


# --- a whole run -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A phantom as it was segmented by the command line, with all that it writes, and a stroke."""
    folder = tmp_path_factory.mktemp("strokes")
    model = write_small_network_model(folder / "model", 3.0)
    sitk.WriteImage(phantom_image(make_phantom((3.0, 2.5, 2.5))), str(folder / "ct.nrrd"))
    words = ["segment", str(folder / "ct.nrrd"), "-o", str(folder / "r.nrrd"), "--model", str(model)]
    words += ["--save-field", str(folder / "f.safetensors"), "--device", "cpu", "--progress", "none"]
    assert main(words) == 0
    labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "r.nrrd")))
    lung = np.argwhere(labels == HEALTHY)
    z, y, x = lung[len(lung) // 2]
    strokes = np.zeros_like(labels)
    strokes[z, y - 2 : y + 3, x - 2 : x + 3] = GROUND_GLASS
    strokes[labels == OUTSIDE] = 0
    image = sitk.GetImageFromArray(strokes)
    image.CopyInformation(sitk.ReadImage(str(folder / "ct.nrrd")))
    write_segmentation(folder / "s.seg.nrrd", image, TISSUE_SEGMENTS)
    return folder


def correct(folder: Path, output: Path, *more: str) -> int:
    words = ["correct", str(folder / "ct.nrrd"), str(folder / "r.nrrd"), "--strokes"]
    words += [str(folder / "s.seg.nrrd"), "-o", str(output), "--progress", "none", "--device", "cpu", *more]
    return main(words)


def test_the_command_line_corrects_from_what_was_kept_and_by_reading_again(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, model = ("--field", str(folder / "f.safetensors")), ("--model", str(folder / "model"))
    assert correct(folder, tmp_path / "a.nrrd", *kept, "--report", str(tmp_path / "report")) == 0
    assert CORRECTED in capsys.readouterr().err
    assert correct(folder, tmp_path / "b.nrrd", *model) == 0
    first, second = (sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / f"{n}.nrrd"))) for n in "ab")
    strokes = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "s.seg.nrrd")))
    assert (first[strokes > 0] == GROUND_GLASS).all() and (strokes > 0).any()
    assert np.array_equal(first, second)
    manifest = json.loads((tmp_path / "a.manifest.json").read_text(encoding="utf-8"))
    assert is_corrected(manifest) and manifest["correction"]["strokes_ml"]["ground-glass"] > 0
    assert len(manifest["correction"]["strokes_sha256"]) == 64
    assert CORRECTED in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")


def test_another_models_result_is_refused_before_the_long_work(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = write_small_network_model(tmp_path / "other", 3.0)
    network = small_network()
    torch.nn.init.ones_(network.noise.weight)
    facts = {"widths": list(WIDTHS), "temperature": 1.0, "bias": [0.0] * CLASSES, "hosts": [], "steps": 1}
    storage.write_tissue_network(other, network.state_dict(), facts)
    assert correct(folder, tmp_path / "c.nrrd", "--model", str(other)) == 2
    assert "made by other weights" in capsys.readouterr().err
    run = json.loads((folder / "r.manifest.json").read_text(encoding="utf-8"))
    run["model"]["sha256"]["tissues.safetensors"] = "0" * 64
    (tmp_path / "run.json").write_text(json.dumps(run), encoding="utf-8")
    more = ("--run", str(tmp_path / "run.json"), "--field", str(folder / "f.safetensors"))
    assert correct(folder, tmp_path / "c.nrrd", *more) == 2
    assert not (tmp_path / "c.nrrd").exists()


def test_what_was_kept_of_another_ct_is_refused(
    field: Field, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = fields.load(folder / "f.safetensors")
    fields.save(replace(field, model=own.model), tmp_path / "other.safetensors")
    assert correct(folder, tmp_path / "c.nrrd", "--field", str(tmp_path / "other.safetensors")) == 2
    assert "of another CT" in capsys.readouterr().err


def test_a_result_corrects_itself(folder: Path) -> None:
    volume = load_volume(folder / "ct.nrrd")
    run = json.loads((folder / "r.manifest.json").read_text(encoding="utf-8"))
    result = result_of_field(fields.load(folder / "f.safetensors"), volume, run)
    assert np.array_equal(result.label_array, load_mask(folder / "r.nrrd", volume)), "as the run decided"
    strokes = load_strokes(folder / "s.seg.nrrd", volume)
    corrected = result.correct(folder / "s.seg.nrrd")
    assert (corrected.label_array[strokes > 0] == GROUND_GLASS).all()
    assert not is_corrected(result.manifest), "the run's own result stays as it is"
    assert corrected.measures.loc["whole lung", "ground-glass_ml"] > 0
    assert sitk.GetArrayFromImage(corrected.uncertainty).max() <= 1
    assert np.array_equal(corrected.sides > 0, corrected.label_array > OUTSIDE)


def test_a_model_without_a_network_cannot_be_corrected(folder: Path, tmp_path: Path) -> None:
    model = write_tiny_model(tmp_path / "tiny", 3.0)
    result: Result = segment(folder / "ct.nrrd", model=str(model), device="cpu", quality="fast")
    with pytest.raises(UnusableInputError, match="Strokes cannot correct this result"):
        result.correct(folder / "s.seg.nrrd")
    words = ["segment", str(folder / "ct.nrrd"), "-o", str(tmp_path / "r.nrrd"), "--model", str(model)]
    words += ["--save-field", str(tmp_path / "f.safetensors"), "--progress", "none", "--quality", "fast"]
    assert main(words) == 0 and not (tmp_path / "f.safetensors").exists()
    assert NO_FIELD in json.loads((tmp_path / "r.manifest.json").read_text(encoding="utf-8"))["warnings"]


# --- the simulated reader --------------------------------------------------------------------------------


def truth_of_haze() -> dict[int, SliceTruth]:
    """Both hazes are ground glass and the net is healthy: one is called so by nobody."""
    labels = np.zeros((SIDE,) * 3, np.uint8)
    labels[HAZE_HERE] = labels[HAZE_THERE] = GROUND_GLASS
    nothing = np.zeros((SIDE, SIDE), bool)
    return {z: SliceTruth(labels[z], (labels[z] > 0).astype(np.int32), nothing) for z in range(SIDE)}


def test_the_reader_paints_what_is_true_in_the_largest_error(labels: np.ndarray) -> None:
    stroke = next_stroke(truth_of_haze(), labels, np.zeros_like(labels), (SPACING,) * 3)
    assert stroke is not None and stroke.label == HEALTHY and NET[0].start <= stroke.z < NET[0].stop
    rows, columns = np.nonzero(stroke.pixels)
    assert (labels[stroke.z][stroke.pixels] == FIBROSIS).all()
    assert np.ptp(rows) * SPACING <= 15 and np.ptp(columns) * SPACING <= 15
    missed = np.where(labels == FIBROSIS, HEALTHY, labels)
    stroke = next_stroke(truth_of_haze(), missed, np.zeros_like(labels), (SPACING,) * 3)
    assert stroke is not None and stroke.label == GROUND_GLASS
    right = np.stack([truth.labels for truth in truth_of_haze().values()])
    assert (
        next_stroke(truth_of_haze(), np.where(right > 0, right, HEALTHY), right * 0, (SPACING,) * 3) is None
    )


def test_a_random_walker_stops_at_edges_and_far_away(labels: np.ndarray) -> None:
    hu = np.full(labels.shape, -850.0, np.float32)
    hu[HAZE_HERE] = -500.0
    start = np.where(labels == FIBROSIS, HEALTHY, labels)
    seeds = painted((STROKE, GROUND_GLASS), ((slice(20, 22),) * 3, FIBROSIS))
    found = walked(start, seeds, hu, (SPACING,) * 3)
    assert share(found, HAZE_HERE, GROUND_GLASS) > 0.5
    assert (found == GROUND_GLASS)[20:].mean() < 0.01 and (found[STROKE] == GROUND_GLASS).all()


def test_a_curve_begins_at_the_run_and_rises(field: Field, volume: Volume, labels: np.ndarray) -> None:
    image, table = to_input_geometry(labels, volume), pandas.DataFrame()
    result = Result(image, table, {}, volume, labels, field.sides, {}, lambda: labels, field)
    row = curves(result, truth_of_haze(), (0, 1, 2))
    assert row["spread"][0] == row["alone"][0] == row["every"][0]
    assert row["spread"][1] > row["alone"][1] > row["alone"][0]
    assert row["painted_ml"] > 0 and len(row["every"]) == 3
    assert "| goal |" in text_of({"one": {**row, "every": [0.5, 0.6, 0.6, 0.7, 0.7, 0.8]}})
