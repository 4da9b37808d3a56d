"""Training on the phantom: the loss falls, a stopped run goes on bit for bit, rare looks come up."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.phantom import make_phantom
from DiffSegLungLib.representation.cell_numbers import CONTEXT
from DiffSegLungLib.representation.distillation import TARGETS
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.tissues import HEALTHY
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.patches import augment, build_sampler
from DiffSegLungLib.training.store import Patient
from DiffSegLungLib.training.trainer import Settings, Trainer, teach

TINY = Settings(
    channels=(8, 8, 8, 8),
    patch=(16, 16, 16),
    region=16,
    batch=4,
    steps=4,
    stage_two=2,
    warm_up=1,
    learning_rate=2e-3,
    seed=3,
)


@pytest.fixture(scope="module")
def phantom() -> tuple[Patient, np.ndarray]:
    """A coarse phantom as the store would hold it, and the truth of its voxels."""
    made = make_phantom((3.0, 3.0, 3.0))
    mask = made.truth > 0
    box = tuple(slice(max(int(where.min()) - 8, 0), int(where.max()) + 9) for where in np.nonzero(mask))
    return Patient("phantom", np.rint(made.hu[box]).astype(np.int16), mask[box]), made.truth[box]


@pytest.fixture(scope="module")
def patients(phantom: tuple[Patient, np.ndarray]) -> list[Patient]:
    return [phantom[0]]


def losses(facts: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{key: value for key, value in one.items() if key != "seconds"} for one in facts]


@pytest.mark.parametrize("fixed", [True, False])
def test_a_scale_that_is_fixed_stays(patients: list[Patient], tmp_path: Path, fixed: bool) -> None:
    """A mixture that stays was fitted on numbers standardised by it."""
    start = Student(TINY.channels)
    trainer = Trainer(patients, replace(TINY, fixed_scale=fixed), tmp_path, start=start)
    for _ in range(3):  # the last one distils
        trainer.train_step()
    for network in (trainer.student, trainer.average):
        for statistic in ("running_mean", "running_var"):
            moved = not torch.equal(
                getattr(network.head.scale, statistic), getattr(start.head.scale, statistic)
            )
            assert moved != fixed


# --- patches ---------------------------------------------------------------------------------------------


def test_patches_are_lung_at_least_by_the_asked_share(patients: list[Patient]) -> None:
    sampler = build_sampler(patients, (16, 16, 16), least_lung=0.6)
    hu, mask = sampler.draw(60, np.random.default_rng(0))
    assert hu.shape == mask.shape == (60, 16, 16, 16)
    assert hu.dtype == mask.dtype == np.float32
    assert set(np.unique(mask)) <= {0.0, 1.0}
    share = mask.mean(axis=(1, 2, 3))
    # The place is jittered by up to 4 of 16 voxels along each axis after it was chosen.
    assert np.median(share) > 0.6 and (share < 0.4).mean() < 0.1 and share.min() > 0.6 * 0.75**3 - 0.1
    assert -1000 < np.median(hu[mask > 0]) < -300


def test_patches_are_determined_by_the_seed(patients: list[Patient]) -> None:
    sampler = build_sampler(patients, (16, 16, 16))
    first, second = (sampler.draw(5, np.random.default_rng(1))[0] for _ in range(2))
    assert np.array_equal(first, second)
    assert not np.array_equal(first, sampler.draw(5, np.random.default_rng(2))[0])


def test_rare_looks_are_drawn_more_often_than_their_share(phantom: tuple[Patient, np.ndarray]) -> None:
    patient, truth = phantom
    sampler = build_sampler([patient], (16, 16, 16))

    def diseased(corner: np.ndarray) -> bool:
        z, y, x = corner[1:]
        patch = truth[z : z + 16, y : y + 16, x : x + 16]
        return bool(((patch > HEALTHY) & (patch < 7)).sum() > 0.4 * (patch > 0).sum())

    rare = np.array([diseased(corner) for corner in sampler.corners])
    assert 0.01 < rare.mean() < 0.3
    assert sampler.weights.sum() == pytest.approx(1)
    assert sampler.weights[rare].sum() > 1.5 * rare.mean()


def test_augmentation_keeps_hounsfield_units_physical() -> None:
    random = np.random.default_rng(0)
    hu = random.normal(-860, 20, (16, 16, 16)).astype(np.float32)
    hu[4:12, 4:12, 4:12] = 0.0
    mask = np.ones_like(hu)
    for _ in range(30):
        changed, _ = augment(hu, mask, random)
        assert changed.dtype == np.float32 and changed.shape == hu.shape
        assert float(np.median(changed)) == pytest.approx(-860, abs=25)
        assert changed[6:10, 6:10, 6:10].mean() == pytest.approx(0, abs=25)


def test_ct_and_mask_are_flipped_together() -> None:
    hu = np.full((16, 16, 16), 50.0, np.float32)
    mask = np.zeros_like(hu)
    mask[:5, :7, :3] = 1
    hu[mask > 0] = -860
    random = np.random.default_rng(0)
    corners = set()
    for _ in range(40):
        changed, flipped = augment(hu, mask, random)
        inner = changed[flipped > 0]
        assert np.median(inner) < -700 and flipped.sum() == mask.sum()
        corners.add(tuple(int(index) for index in np.argwhere(flipped > 0).min(axis=0)))
    assert len(corners) == 8, "each axis is flipped now and then"


# --- the trainer -----------------------------------------------------------------------------------------


class OnePatch:
    """Gives the same patches again and again, for an over-fit."""

    def __init__(self, hu: np.ndarray, mask: np.ndarray) -> None:
        self.hu, self.mask = hu, mask

    def draw(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        return self.hu[:count], self.mask[:count]


def test_the_noise_loss_falls(patients: list[Patient], tmp_path: Path) -> None:
    trainer = Trainer(patients, replace(TINY, steps=40, stage_two=100), tmp_path)
    fixed = OnePatch(*trainer.sampler.draw(4, np.random.default_rng(0)))
    trainer.sampler = fixed  # type: ignore[assignment]
    noise = [trainer.train_step()["noise"] for _ in range(40)]
    assert noise[0] > 0.6
    assert np.mean(noise[-10:]) < 0.75 * np.mean(noise[:5])


def test_stage_two_distils(patients: list[Patient], tmp_path: Path) -> None:
    settings = replace(TINY, steps=16, stage_two=0, warm_up=1, learning_rate_two=2e-3, batch=8)
    trainer = Trainer(patients, settings, tmp_path)
    fixed = OnePatch(*trainer.sampler.draw(8, np.random.default_rng(0)))
    trainer.sampler = fixed  # type: ignore[assignment]
    facts = [trainer.train_step() for _ in range(16)]
    assert "info_nce" not in facts[0], "the weight is still 0 at the first step"
    assert {"noise", "info_nce", "regression", "spread", "uniformity"} <= set(facts[1])
    assert all(np.isfinite(list(one.values())).all() for one in facts)
    contrast = [one["info_nce"] for one in facts[1:]]
    assert np.mean(contrast[-3:]) < 0.7 * np.mean(contrast[:3])
    assert facts[-1]["regression"] < facts[1]["regression"]
    assert facts[-1]["spread"] > 0.2, "the embeddings of eight patches must not fall into one"


def test_the_head_learns_first_on_a_unet_that_stays(patients: list[Patient], tmp_path: Path) -> None:
    trainer = Trainer(patients, replace(TINY, steps=9, stage_two=0, head_first=3), tmp_path)
    trainer.train_step()  # the weight of distillation is 0 yet: an ordinary step
    before = copy.deepcopy(trainer.student.state_dict())
    facts = [trainer.train_step() for _ in range(2)]
    after = copy.deepcopy(trainer.student.state_dict())
    assert all("noise" not in one and "info_nce" in one for one in facts)
    assert all(torch.equal(before[key], after[key]) for key in before if key.startswith("unet."))
    for part in ("head.contrast.weight", "head.project.0.weight", "head.regress.weight"):
        assert not torch.equal(before[part], after[part]), part
    assert "noise" in trainer.train_step()
    key = "unet.conv_in.conv.weight"
    assert not torch.equal(trainer.student.state_dict()[key], after[key])


def test_the_teacher_describes_cell_and_surroundings_in_place(patients: list[Patient]) -> None:
    hu = np.random.default_rng(0).normal(-850, 30, (2, *[16 + 2 * CONTEXT] * 3)).astype(np.float32)
    first, second = slice(CONTEXT, CONTEXT + 8), slice(CONTEXT + 8, CONTEXT + 16)
    hu[1, first, second, first] = 0.0  # cell (0, 1, 0) of the second patch
    mask = np.ones_like(hu)
    chosen = np.array([[0, 0, 1, 0], [1, 0, 1, 0], [1, 0, 0, 0]])
    numbers = teach(hu, mask, chosen, 16).numpy()
    assert numbers.shape == (3, TARGETS)
    cell, around = numbers[:, 0], numbers[:, 34]
    assert cell == pytest.approx([-850, 0, -850], abs=6)
    assert around[1] > around[2] > around[0] + 10, "the surroundings hold an eighth or less of it"


def test_the_average_follows_the_student(patients: list[Patient], tmp_path: Path) -> None:
    trainer = Trainer(patients, TINY, tmp_path)
    start = copy.deepcopy(trainer.average.state_dict())
    trainer.train_step()
    trainer.train_step()
    average, student = trainer.average.state_dict(), trainer.student.state_dict()
    key = "unet.conv_in.conv.weight"
    assert not torch.equal(average[key], start[key]) and not torch.equal(average[key], student[key])
    lower, upper = torch.minimum(start[key], student[key]), torch.maximum(start[key], student[key])
    inside = (average[key] >= lower - 1e-3) & (average[key] <= upper + 1e-3)
    assert bool(inside.all())


def test_a_resumed_run_goes_on_bit_for_bit(patients: list[Patient], tmp_path: Path) -> None:
    whole = Trainer(patients, TINY, tmp_path / "whole")
    expected = losses([whole.train_step() for _ in range(4)])
    first = Trainer(patients, TINY, tmp_path / "parts")
    parts = losses([first.train_step() for _ in range(2)])
    first.save()
    second = Trainer(patients, TINY, tmp_path / "parts")
    torch.manual_seed(99)  # what happens in between must not matter
    second.resume()
    assert second.step == 2
    parts += losses([second.train_step() for _ in range(2)])
    assert parts == expected
    assert "info_nce" in expected[3] and "info_nce" not in expected[1]
    for name, module in whole._modules().items():
        for key, value in module.state_dict().items():
            assert torch.equal(second._modules()[name].state_dict()[key], value), f"{name}/{key}"


def test_a_trained_model_goes_on_learning(patients: list[Patient], tmp_path: Path) -> None:
    start = Student((8, 8, 8, 8))
    trainer = Trainer(patients, replace(TINY, stage_two=0), tmp_path, start=start)
    facts = [trainer.train_step() for _ in range(3)]
    assert "info_nce" in facts[2] and np.isfinite(list(facts[2].values())).all()
    learnt, before = trainer.student.state_dict(), start.state_dict()
    for part in ("head.project.0.weight", "head.regress.weight", "unet.conv_in.conv.weight"):
        assert not torch.equal(learnt[part], before[part]), part


@pytest.mark.parametrize("who", ["teacher", "student"])
def test_a_run_of_an_earlier_version_is_refused(
    patients: list[Patient], tmp_path: Path, who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose teacher told other numbers, or whose student had an embedding of another length."""
    trainer = Trainer(patients, TINY, tmp_path)
    with monkeypatch.context() as earlier:
        if who == "teacher":
            trainer.teacher_mean = torch.zeros(34)
        else:
            earlier.setattr("DiffSegLungLib.training.trainer.EMBEDDING", 128)
        trainer.save()
    before = trainer.checkpoint_path.read_bytes()
    with pytest.raises(UnusableInputError, match="begin again in another folder"):
        trainer.run()
    assert trainer.checkpoint_path.read_bytes() == before


def test_run_writes_checkpoint_and_log(patients: list[Patient], tmp_path: Path) -> None:
    told: list[float] = []
    trainer = Trainer(patients, TINY, tmp_path / "run")
    path = trainer.run(lambda stage, fraction, message="": told.append(fraction), save_every=2)
    assert path == trainer.checkpoint_path
    assert told == [0.25, 0.5, 0.75, 1.0]
    assert {file.name for file in path.parent.iterdir()} == {"checkpoint.safetensors", "log.jsonl"}
    log = [json.loads(line) for line in (path.parent / "log.jsonl").read_text().splitlines()]
    assert [one["step"] for one in log] == [1, 2, 3, 4]
    again = Trainer(patients, TINY, tmp_path / "run")
    again.run()
    assert again.step == 4, "a finished run is not trained on"


def test_the_checkpoint_is_safetensors_and_holds_the_run(patients: list[Patient], tmp_path: Path) -> None:
    trainer = Trainer(patients, TINY, tmp_path)
    trainer.train_step()
    trainer.save()
    with safe_open(str(trainer.checkpoint_path), framework="pt") as stored:
        modules = {key.split("/")[0] for key in stored.keys()}  # noqa: SIM118 (not a dict)
    assert modules == {"student", "average", "teacher_head", "optimiser", "random"}
    facts = checkpoint.load_facts(trainer.checkpoint_path)
    assert facts["step"] == 1 and facts["settings"]["seed"] == TINY.seed
    average = checkpoint.load_module(trainer.checkpoint_path, "average")
    assert set(average) == set(trainer.average.state_dict())


def test_a_checkpoint_that_fails_leaves_the_old_one(
    patients: list[Patient], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(patients, TINY, tmp_path)
    trainer.save()
    before = trainer.checkpoint_path.read_bytes()

    def full_disk(tensors: object, path: str, metadata: object) -> None:
        Path(path).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", full_disk)
    with pytest.raises(Exception, match="No space left"):
        trainer.save()
    assert trainer.checkpoint_path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["checkpoint.safetensors"]
