"""The lung network: its grid, its place in the lungs, in a model folder, on the command line, training."""

from __future__ import annotations

import json
import shutil
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage

from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.evaluation.cases import Case, make_case
from DiffSegLungLib.evaluation.hosts import make_host
from DiffSegLungLib.evaluation.lesions import Lesion
from DiffSegLungLib.lungs.dense import dense_lung, diaphragm_domes
from DiffSegLungLib.lungs.lungs import LEFT, RIGHT, Lungs, segment_lungs
from DiffSegLungLib.lungs.network import LungNetwork, build_unet, from_hounsfield
from DiffSegLungLib.models import storage
from DiffSegLungLib.models import store as models
from DiffSegLungLib.phantom import make_phantom
from DiffSegLungLib.tissues import CONSOLIDATION
from DiffSegLungLib.training import lungs as training
from DiffSegLungLib.training.lung_lesions import depth_of, paint_disease

SHIPPED = Path(__file__).parents[2] / "Resources" / "models" / "2026-12-ct10"
SMALL = (8, 8, 8, 8, 8)
SPACING = (2.0, 2.0, 2.0)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


@pytest.fixture(scope="module")
def consolidated() -> Case:
    """A phantom, on the working grid, with half a lung consolidated from the chest wall to the heart."""
    phantom = make_phantom(SPACING, seed=3, lesions=())
    host = make_host("phantom", phantom.hu, SPACING, phantom.sides, np.zeros(phantom.hu.shape, bool))
    return make_case(host, [Lesion("wall-touching", 45.0, 0.6, seed=1)])


@pytest.fixture(scope="module")
def classical(consolidated: Case) -> Lungs:
    """What thresholds find in it."""
    return segment_lungs(consolidated.hu, SPACING)


def truth_of(case: Case, blind_to: np.ndarray | None = None) -> np.ndarray:
    """What a network without fault would say, (3, z, y, x)."""
    return shares_of(case.host.sides if blind_to is None else np.where(blind_to, 0, case.host.sides))


def shares_of(sides: np.ndarray) -> np.ndarray:
    """Certainty of outside, right and left lung."""
    return np.stack([sides == 0, sides == RIGHT, sides == LEFT]).astype(np.float32)


class Oracle:
    """Knows the answer on the whole grid; finds out which box it is asked about by its HU."""

    def __init__(self, hu: np.ndarray, answer: np.ndarray) -> None:
        self.hu, self.answer = np.clip(hu, -1024, 3000), answer

    def __call__(self, work: np.ndarray) -> np.ndarray:
        for corner in np.argwhere(np.isclose(self.hu, work[0, 0, 0], atol=1e-3)):
            box = tuple(slice(c, c + n) for c, n in zip(corner, work.shape, strict=True))
            if self.hu[box].shape == work.shape and np.allclose(self.hu[box], work, atol=1e-2):
                return self.answer[(slice(None), *box)]
        raise AssertionError("the network was asked about something else than a box of the CT")


# --- in the lungs ----------------------------------------------------------------------------------------


def test_what_the_network_knows_as_dense_lung_is_lung(consolidated: Case) -> None:
    dense = consolidated.truth == CONSOLIDATION
    found = segment_lungs(consolidated.hu, SPACING, Oracle(consolidated.hu, truth_of(consolidated)))
    assert found.origin == "network"
    assert found.mask[dense].mean() > 0.95
    assert dice(found.sides == RIGHT, consolidated.host.sides == RIGHT) > 0.96
    assert dice(found.sides == LEFT, consolidated.host.sides == LEFT) > 0.96
    assert any("dense tissue at the pleura was counted as" in warning for warning in found.warnings)


def test_where_the_network_sees_no_lung_thresholds_decide(consolidated: Case, classical: Lungs) -> None:
    dense = consolidated.truth == CONSOLIDATION
    answer = truth_of(consolidated, blind_to=dense)
    found = segment_lungs(consolidated.hu, SPACING, Oracle(consolidated.hu, answer))
    assert found.origin == "network"
    assert np.array_equal(found.sides, classical.sides)


def test_a_network_that_finds_nothing_is_not_believed(consolidated: Case, classical: Lungs) -> None:
    nothing = np.zeros((3, *consolidated.hu.shape), np.float32)
    nothing[0] = 1
    found = segment_lungs(consolidated.hu, SPACING, Oracle(consolidated.hu, nothing))
    assert found.origin == classical.origin == "classical"
    assert np.array_equal(found.sides, classical.sides)
    assert any("network was not used" in warning for warning in found.warnings)


@pytest.fixture(scope="module")
def beside_bowel() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HU, sides and bowel of a phantom whose left lung a loop of bowel dents from below and opens into."""
    phantom = make_phantom(SPACING, seed=3, lesions=())
    hu, sides = phantom.hu.copy(), phantom.sides.copy()
    _, y, x = (int(np.median(axis)) for axis in np.nonzero(sides == LEFT))
    base = int(np.flatnonzero(sides[:, y, x] == LEFT)[0]) + 5
    z_from, y_from, x_from = np.ogrid[
        tuple(slice(-c, n - c) for c, n in zip((base, y, x), hu.shape, strict=True))
    ]
    distance = np.sqrt(z_from**2 + y_from**2 + x_from**2)
    bowel = distance < 10
    wall = ~bowel & (distance < np.where(z_from < 1, 16, 11))  # towards the lung it is thin
    opening = (y_from**2 + x_from**2 < 3**2) & (z_from > 0) & wall
    hu[wall], sides[wall | bowel] = 40, 0
    hu[bowel | opening] = -1000
    return hu, sides, bowel


def test_bowel_that_opens_into_the_lung_is_left_out_where_the_network_knows_it(
    beside_bowel: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    hu, sides, bowel = beside_bowel
    by_thresholds, known = (
        segment_lungs(hu, SPACING),
        segment_lungs(hu, SPACING, Oracle(hu, shares_of(sides))),
    )
    assert by_thresholds.mask[bowel].mean() > 0.9, "thresholds tell it by themselves: the test tests nothing"
    assert known.mask[bowel].mean() < 0.02
    assert dice(known.mask, sides > 0) > 0.97


def test_gas_that_the_network_takes_for_lung_stays(
    beside_bowel: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    hu, sides, bowel = beside_bowel
    taken = shares_of(np.where(bowel, np.uint8(LEFT), sides))
    assert segment_lungs(hu, SPACING, Oracle(hu, taken)).mask[bowel].mean() > 0.9


def test_probabilities_on_any_grid_sum_to_one() -> None:
    torch.manual_seed(0)
    network = LungNetwork(build_unet(SMALL))
    shares = network(np.random.default_rng(0).normal(-500, 300, (25, 31, 50)))
    assert shares.shape == (3, 25, 31, 50) and shares.dtype == np.float32
    assert np.allclose(shares.sum(axis=0), 1, atol=1e-5)


def test_the_layers_are_those_of_monai() -> None:
    from monai.networks.nets import UNet
    from monai.networks.utils import pixelshuffle, pixelunshuffle

    torch.manual_seed(0)
    channels = (4, 6, 8, 10)
    theirs = UNet(3, 16, 24, channels, (1, 2, 2), num_res_units=1, act="LEAKYRELU").eval()
    ours = build_unet(channels).eval()
    ours.get_submodule("1").load_state_dict(theirs.state_dict())
    x = torch.randn(1, 2, 16, 16, 32)
    with torch.inference_mode():
        expected = pixelshuffle(theirs(pixelunshuffle(x, 3, 2)), 3, 2)
        assert torch.allclose(ours(x), expected, atol=1e-5)


def test_windows_keep_fluid_apart_from_consolidation() -> None:
    channels = from_hounsfield(torch.tensor([-1000.0, 5.0, 45.0, 400.0]).reshape(1, 1, 1, 1, 4))
    assert channels.shape == (1, 2, 1, 1, 4)
    assert channels[0, 0, 0, 0, [0, 3]].tolist() == [-1, 1]
    assert channels[0, 1, 0, 0, 2] - channels[0, 1, 0, 0, 1] > 0.3


def test_dense_tissue_is_lung_where_the_lung_goes_around_it() -> None:
    """The network believes both: consolidation within the lung, and the liver's dome below it."""
    lung = np.zeros((60, 60, 60), bool)
    lung[20:55, 5:55, 5:55] = True
    inside, dome = np.zeros_like(lung), np.zeros_like(lung)
    inside[30:45, 20:40, 5:25], dome[5:20, 15:45, 15:45] = True, True
    probability = np.where(inside | dome, np.float32(0.6), np.float32(0))
    work = np.where(inside | dome | ~lung, np.float32(40), np.float32(-850))
    found = dense_lung(work, probability, lung & ~inside, np.ones_like(lung))
    assert found[inside].mean() > 0.95 and not found[dome].any()
    fat = np.where(inside, np.float32(-90), work)
    assert not dense_lung(fat, probability, lung & ~inside, np.ones_like(lung)).any(), "fat around the heart"


def test_the_dome_of_the_diaphragm_is_no_dense_lung() -> None:
    """However sure the network is: nothing aerated lies below it, and no more than half of it is enclosed."""
    lung, dome = np.zeros((60, 60, 60), bool), np.zeros((60, 60, 60), bool)
    lung[20:55, 5:55, 5:55], dome[8:30, 15:45, 15:45] = True, True
    probability = np.where(dome, np.float32(0.95), np.float32(0))
    work = np.where(dome | ~lung, np.float32(40), np.float32(-850))
    assert not dense_lung(work, probability, lung & ~dome, np.ones_like(lung)).any()
    lung[:8, 5:55, 5:55], work[:8, 5:55, 5:55] = True, -850  # a lesion between two lobes
    assert dense_lung(work, probability, lung & ~dome, np.ones_like(lung))[dome].mean() > 0.95


@pytest.mark.parametrize(
    ("middle", "within", "is_lung"), [(33, 0.4, False), (33, 0.8, True), (50, 0.4, True)]
)
def test_heart_that_looks_like_lung_at_its_surface_is_left_out(
    middle: int, within: float, is_lung: bool
) -> None:
    """Half in the left lung, half in mediastinum or chest wall; the network is sure of its surface."""
    lung, piece = np.zeros((60, 60, 60), bool), np.zeros((60, 60, 60), bool)
    lung[5:55, 5:55, 10:22], lung[5:55, 5:55, 33:50] = True, True
    piece[20:40, 20:40, middle - 7 : middle + 7] = True
    depth = ndimage.distance_transform_edt(piece)
    probability = np.where(depth > 2, within, 0.95 * piece).astype(np.float32)
    work = np.where(lung & ~piece, np.float32(-850), np.float32(40))
    found = dense_lung(work, probability, lung & ~piece, np.ones_like(lung))
    assert found.any() == is_lung and (not is_lung or found[piece].mean() > 0.7)


@pytest.mark.parametrize(
    ("hu", "top", "is_lung"), [(40.0, 50, True), (40.0, 27, False), (12.0, 50, False), (160.0, 50, False)]
)
def test_large_consolidation_at_the_back_is_lung_but_no_effusion_nor_liver(
    hu: float, top: int, is_lung: bool
) -> None:
    """The aerated lung lies in front of it only; the network believes it, hardly."""
    lung, piece = np.zeros((60, 60, 70), bool), np.zeros((60, 60, 70), bool)
    lung[5:55, 5:30, 8:28], lung[5:55, 5:50, 42:62] = True, True
    piece[8:top, 30:50, 8:28] = True
    work = np.where(lung, np.float32(-850), np.where(piece, np.float32(hu), np.float32(50)))
    probability = np.where(lung, 0.99, 0.6 * piece).astype(np.float32)
    found = dense_lung(work, probability, lung, np.ones_like(lung))
    high = piece & (np.arange(60)[:, None, None] >= 21)
    assert found[high].mean() > 0.9 if is_lung else not found.any()


@pytest.mark.parametrize(("sure", "lowest", "is_dome"), [(0.8, 10, True), (0.2, 10, False), (0.8, 4, False)])
def test_the_tip_of_a_dome_at_the_chest_wall_is_left_out_where_the_network_doubts_it(
    sure: float, lowest: int, is_dome: bool
) -> None:
    piece, lung = np.zeros((30, 30, 30), bool), np.zeros((30, 30, 30), bool)
    piece[10:20, 10:20, 10:20], lung[lowest:28, 2:28, 2:28] = True, True
    outside = np.full(piece.shape, sure, np.float32)
    assert diaphragm_domes(piece, lung | piece, outside)[piece].all() == is_dome
    assert not diaphragm_domes(piece, lung | piece, outside)[~piece].any()


# --- the shipped network ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> LungNetwork:
    network = models.load(str(SHIPPED)).lungs
    if network is None:
        pytest.skip("the shipped model has no lung network yet; 'diffseglung train lungs' makes one")
    return network


def test_what_the_shipped_network_adds_is_lung(
    consolidated: Case, classical: Lungs, shipped: LungNetwork
) -> None:
    """Of how much it finds in real lungs ``test_real_ct`` tells."""
    found = segment_lungs(consolidated.hu, SPACING, shipped)
    assert found.origin == "network"
    assert not (classical.mask & ~found.mask).any()
    added = found.mask & ~classical.mask
    assert (added & (consolidated.host.sides == 0)).sum() <= 0.2 * added.sum()


def test_the_shipped_network_adds_nothing_to_healthy_lungs(shipped: LungNetwork) -> None:
    phantom = make_phantom((4.0, 2.0, 2.0), seed=4, lesions=())
    found = segment_lungs(phantom.hu, (4.0, 2.0, 2.0), shipped)
    assert found.origin == "network"
    assert dice(found.mask, phantom.sides > 0) > 0.96
    assert found.mask[phantom.sides == 0].sum() < 0.04 * found.mask.sum()


@pytest.mark.parametrize("is_round", [True, False])
def test_the_shipped_network_takes_no_heart_of_a_child_for_lung(is_round: bool, shipped: LungNetwork) -> None:
    """In a round field and in a narrow one it believes a part of the heart that the left lung goes around."""
    hu = make_phantom((5.0, 5.0, 5.0)).hu
    y, x = np.ogrid[tuple(slice(-1, 1, side * 1j) for side in hu.shape[1:])]
    hu = np.where(y**2 + x**2 > 1, np.float32(-1024), hu) if is_round else hu[:, 2:-2, 2:-2]
    found = segment_lungs(hu, (2.5, 2.5, 2.5), shipped)
    assert found.origin == "network"
    assert not any("dense tissue" in warning for warning in found.warnings)


# --- in a model folder -----------------------------------------------------------------------------------


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A copy of the shipped model, without a lung network."""
    folder = Path(shutil.copytree(SHIPPED, tmp_path / "model"))
    (folder / models.LUNGS).unlink(missing_ok=True)
    description = json.loads((folder / models.DESCRIPTION).read_text())
    description.pop("lungs", None)
    description["sha256"].pop(models.LUNGS, None)
    (folder / models.DESCRIPTION).write_text(json.dumps(description))
    return folder


def test_a_model_without_lung_network_loads(model: Path) -> None:
    assert models.load(str(model)).lungs is None


def test_a_lung_network_comes_back_as_it_was_written(model: Path) -> None:
    torch.manual_seed(1)
    unet = build_unet(SMALL)
    storage.write_lung_network(model, unet.state_dict(), {"channels": list(SMALL)})
    loaded = models.load(str(model)).lungs
    assert loaded is not None
    work = np.random.default_rng(0).normal(-500, 300, (24, 24, 48))
    assert np.array_equal(loaded(work), LungNetwork(unet)(work))


def test_a_damaged_lung_network_is_refused(model: Path) -> None:
    storage.write_lung_network(model, build_unet(SMALL).state_dict(), {"channels": list(SMALL)})
    with (model / models.LUNGS).open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(MissingPartError, match=r"lungs\.safetensors is damaged"):
        models.load(str(model))
    (model / models.LUNGS).unlink()
    with pytest.raises(MissingPartError, match=r"has no lungs\.safetensors"):
        models.verify(str(model))


# --- training --------------------------------------------------------------------------------------------


@cache
def small_patient() -> training.LungPatient:
    phantom = make_phantom((6.0, 6.0, 6.0), seed=0, lesions=())
    return training.on_network_grid("phantom", phantom.hu, phantom.sides, phantom.spacing)


def test_pasted_disease_is_lung_and_pasted_fluid_is_not() -> None:
    patient = small_patient()
    dense, fluid = 0, 0
    for seed in range(6):
        hu, sides, weight = paint_disease(
            patient.hu, patient.sides, patient.depth, np.random.default_rng(seed)
        )
        assert np.isin(sides[patient.sides == 0], 0).all(), "nothing outside the lungs becomes lung"
        assert weight.min() == 1 and np.isfinite(hu).all()
        painted = (hu > -150) & (patient.hu < -500)
        dense += int((painted & (sides > 0)).sum())
        fluid += int((painted & (patient.sides > 0) & (sides == 0)).sum())
    assert dense > 1000 and fluid > 300
    assert np.array_equal(patient.depth > 0, patient.sides > 0)
    assert np.array_equal(depth_of(patient.sides), patient.depth)


def test_a_crop_keeps_right_on_the_right() -> None:
    patient = small_patient()
    settings = training.Settings(crop=(32, 64, 96))
    for seed in range(4):
        hu, sides, weight = training.draw(patient, settings, np.random.default_rng(seed))
        assert hu.shape == sides.shape == weight.shape == (32, 64, 96)
        where = [np.flatnonzero((sides == side).any(axis=(0, 1))).mean() for side in (RIGHT, LEFT)]
        assert where[0] < where[1], "mirroring exchanges the names too"


def test_a_run_learns_stops_and_goes_on(tmp_path: Path, model: Path) -> None:
    settings = training.Settings(channels=SMALL, crop=(16, 48, 64), steps=4, phantoms=0.0)
    whole = training.LungTrainer([small_patient()], settings, tmp_path / "whole")
    whole.run()
    for steps in (2, 4):
        parted = training.LungTrainer([small_patient()], settings, tmp_path / "parted")
        _run_until(parted, steps)
    for key, value in whole.average.state_dict().items():
        assert torch.equal(value, parted.average.state_dict()[key]), key
    with pytest.raises(UnusableInputError, match="other CT"):
        training.stored_settings(tmp_path / "parted", ["someone else"])
    assert training.stored_settings(tmp_path / "parted", ["phantom"]) == settings
    training.write_to_model(tmp_path / "parted", model)
    assert models.load(str(model)).description["lungs"]["training"]["steps"] == 4


def _run_until(trainer: training.LungTrainer, step: int) -> None:
    """As if SIGTERM came after ``step`` steps."""

    def stop(stage: str, fraction: float, message: str = "") -> None:
        trainer.stop_requested = trainer.step >= step

    trainer.run(stop)


def test_a_network_learns_lungs_from_one_patient(tmp_path: Path) -> None:
    settings = training.Settings(
        channels=SMALL, crop=(32, 48, 64), learning_rate=5e-3, steps=20, phantoms=0.0, healthy=1.0
    )
    trainer = training.LungTrainer([small_patient()], settings, tmp_path)
    losses = [trainer.train_step()["loss"] for _ in range(20)]
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:5])


def test_no_ct_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnusableInputError, match="no CT"):
        training.LungTrainer([], training.Settings(), tmp_path)


# --- command line ----------------------------------------------------------------------------------------


def test_a_mask_and_classical_lungs_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["segment", "ct.nrrd", "-o", "out.seg.nrrd", "--lungs", "m.nrrd", "--classical-lungs"]
    assert cli.main(words) == 2
    assert "not allowed with argument --lungs" in capsys.readouterr().err


def test_training_the_lungs_from_the_command_line(
    tmp_path: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["phantom", str(tmp_path / "ct.nrrd"), "--spacing", "6", "--lesions", "none"]) == cli.DONE
    words = ["train", "lungs", str(tmp_path / "ct.nrrd"), "--run", str(tmp_path / "run"), "--steps", "1"]
    assert cli.main([*words, "--model", str(model), "--progress", "none"]) == cli.DONE
    assert capsys.readouterr().out.strip().endswith(models.LUNGS)
    loaded = models.load(str(model))
    assert loaded.lungs is not None and loaded.description["lungs"]["training_data"][0] == "ct"
