"""Options of ``train``: ablations, patients held back, kills, report; and how samples are judged."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffSegLungLib.app import cli
from DiffSegLungLib.errors import DiffSegLungError
from DiffSegLungLib.evaluation import generation
from DiffSegLungLib.phantom import make_phantom
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.training import checkpoint, store
from DiffSegLungLib.training import trainer as training
from DiffSegLungLib.training.judge import draw_held_back, noise_loss, teacher_r2
from DiffSegLungLib.training.split import write_split
from DiffSegLungLib.training.trainer import Settings, Trainer, teach

ROOT = Path(__file__).parents[2]
TINY = ["--channels", "8", "8", "8", "8", "--batch", "2", "--stage-two", "2", "--warm-up", "2"]
ONE_CORE = ["--device", "cpu", "--threads", "1", "--progress", "none"]
SMALL = Settings(channels=(8, 8, 8, 8), patch=(16, 16, 16), batch=2, steps=4, stage_two=1, warm_up=1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of two phantoms, one of them held back."""
    made = tmp_path_factory.mktemp("store")
    for seed, name in enumerate(("a", "b")):
        phantom = make_phantom((4.0, 4.0, 4.0), seed=seed)
        arrays = store._encode(phantom.hu, phantom.truth > 0, 4.0)
        facts = json.dumps({"name": name, "spacing_mm": 4.0, "person": ""})
        np.savez_compressed(made / f"{name}.npz", facts=facts, **arrays)  # type: ignore[arg-type]
    write_split(made, {"a": False, "b": True}, 0)
    return made


def train(folder: Path, run: Path, *more: str) -> int:
    words = ["train", "run", "--store", str(folder), "--run", str(run)]
    return cli.main([*words, *TINY, *ONE_CORE, *more])


def log(run: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


@pytest.fixture(scope="module")
def finished(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six steps with a checkpoint after each third."""
    run = tmp_path_factory.mktemp("runs") / "run"
    assert train(folder, run, "--steps", "6", "--save-every", "3") == 0
    return run


def test_patients_held_back_are_judged_and_not_trained_on(finished: Path) -> None:
    facts = checkpoint.load_facts(finished / "checkpoint.safetensors")
    assert facts["split"] == {"train": ["a"], "held_back": ["b"]}
    assert json.loads((finished / "training.json").read_text())["patients"] == ["a"]
    assert ["held_back" in line for line in log(finished)] == [False, False, True] * 2
    assert 0.5 < log(finished)[2]["held_back"] < 1.2


def test_a_killed_run_goes_on_bit_for_bit(folder: Path, finished: Path, tmp_path: Path) -> None:
    words = ["train", "run", "--store", str(folder), "--run", str(tmp_path), "--save-every", "3"]
    command = [sys.executable, "-m", "DiffSegLungLib", *words, *TINY, *ONE_CORE, "--steps", "6"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        while not (tmp_path / "checkpoint.safetensors").exists() and child.poll() is None:
            time.sleep(0.01)
        child.kill()
    assert train(folder, tmp_path, "--steps", "6", "--save-every", "3") == 0
    assert log(tmp_path) == log(finished), "steps that were taken twice stand in the log once"
    first, second = (
        checkpoint.load_module(run / "checkpoint.safetensors", "student") for run in (finished, tmp_path)
    )
    assert all(bool((first[key] == second[key]).all()) for key in first)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("hu-preservation", "hu_preserved", False),
        ("distillation", "distillation", 0.0),
        ("warm-up", "stage_two", 0),
        ("augmentation", "augmentation", False),
    ],
)
def test_each_part_can_be_left_out(
    folder: Path, finished: Path, tmp_path: Path, part: str, name: str, value: object
) -> None:
    assert train(folder, tmp_path, "--steps", "6", "--without", part) == 0
    assert checkpoint.load_facts(tmp_path / "checkpoint.safetensors")["settings"][name] == value
    lines = log(tmp_path)
    assert any("info_nce" in line for line in lines) == (part != "distillation")
    assert any("info_nce" in line for line in lines[:3]) == (part == "warm-up")
    # At the first step the last layer is all zero and the loss that of any input; at the third all differ.
    same = lines[2]["noise"] == log(finished)[2]["noise"]
    assert same == (part == "distillation")


def test_the_teacher_is_asked_once_for_a_cell(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = replace(SMALL, augmentation=False)
    trainer = Trainer(store.load_store(folder, ["a"]), settings, tmp_path)
    hu, mask = trainer.sampler.draw(3, np.random.default_rng(0), augmented=False)
    chosen = np.array([[0, 0, 0, 0], [0, 1, 1, 1], [2, 0, 1, 0]])
    first = trainer._teach(hu, mask, chosen)
    assert torch.equal(first, teach(hu, mask, chosen, settings.region))
    monkeypatch.setattr(training, "teach", None)  # asking again would fail
    again = trainer._teach(hu[::-1], mask[::-1], chosen[::-1] * [-1, 1, 1, 1] + [2, 0, 0, 0])
    assert torch.equal(first, again.flip(0))


def test_a_loss_that_is_no_number_ends_the_run(folder: Path, tmp_path: Path) -> None:
    trainer = Trainer(store.load_store(folder, ["a"]), SMALL, tmp_path)
    next(trainer.student.parameters()).data.fill_(float("nan"))
    with pytest.raises(DiffSegLungError, match="no longer a number at step 1"):
        trainer.train_step()
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_judging_is_repeatable_and_leaves_the_run_alone(folder: Path) -> None:
    patches = draw_held_back(store.load_store(folder), (16, 16, 16), count=24)
    torch.manual_seed(1)
    student = Student((8, 8, 8, 8))
    state = torch.get_rng_state()
    assert noise_loss(student, patches) == noise_loss(student, patches)
    explained = teacher_r2(student, patches)
    assert 0 < explained < 1, "even an untrained network sees density"
    assert torch.equal(state, torch.get_rng_state())


def test_bfloat16_is_close_to_float32(folder: Path, tmp_path: Path) -> None:
    facts = []
    for precision in ("float32", "bfloat16"):
        settings = replace(SMALL, stage_two=0, precision=precision)
        trainer = Trainer(store.load_store(folder, ["a"]), settings, tmp_path / precision)
        facts.append([trainer.train_step()["noise"] for _ in range(3)])
    assert facts[0] != facts[1]
    assert facts[1] == pytest.approx(facts[0], abs=0.01)


def test_the_report_shows_losses_embedding_and_samples(
    folder: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "report", "--run", str(finished), "--store", str(folder), "-o", str(tmp_path)]
    assert cli.main([*words, "--threads", "1", "--progress", "none"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(tmp_path / "report.html")
    for name in ("losses.png", "embedding.png", "samples.png"):
        assert (tmp_path / name).stat().st_size > 5_000
    page = (tmp_path / "report.html").read_text()
    assert page.count("data:image/png") == 3 and "6 of 6" in page


def test_tensorboard_gets_scalars_and_pictures(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra 'train' brings TensorBoard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert train(folder, tmp_path, "--steps", "2", "--save-every", "2", "--tensorboard") == 0
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert {"noise", "held_back"} <= set(events.Tags()["scalars"])
    assert [event.step for event in events.Scalars("noise")] == [1, 2]
    assert events.Tags()["images"] == ["samples"]


# --- generated patches -----------------------------------------------------------------------------------


def test_frechet_distance_of_known_gaussians() -> None:
    random = np.random.default_rng(0)
    first = random.standard_normal((20_000, 3))
    assert generation.frechet_distance(first, first) == pytest.approx(0, abs=1e-6)
    # |2|^2 and, in each of three directions, (3 - 1)^2.
    moved = 3 * random.standard_normal((20_000, 3)) + np.array([2.0, 0, 0])
    assert generation.frechet_distance(first, moved) == pytest.approx(4 + 3 * 4, rel=0.05)


def test_mmd_is_near_zero_for_one_distribution_only() -> None:
    random = np.random.default_rng(0)
    first, second = random.standard_normal((2, 300, 4))
    assert abs(generation.squared_mmd(first, second)) < 0.01
    assert generation.squared_mmd(first, second + 1.0) > 0.1


def test_simple_generators_keep_what_they_promise(folder: Path) -> None:
    learnt = draw_held_back(store.load_store(folder), (16, 16, 16), count=24)
    inside = learnt.mask > 0.5
    noise = generation.spectral_noise(learnt, learnt.mask)
    assert noise[inside].mean() == pytest.approx(learnt.hu[inside].mean(), abs=40)
    assert noise[inside].std() == pytest.approx(learnt.hu[inside].std(), rel=0.25)
    shuffled = generation.shuffled_blocks(learnt.hu)
    assert not np.array_equal(shuffled, learnt.hu)
    assert np.array_equal(np.sort(shuffled, axis=None), np.sort(learnt.hu.clip(-1000, 400), axis=None))


def test_similarity_of_equal_and_different_patches() -> None:
    first, second = np.random.default_rng(0).random((2, 3, 16, 16, 16))
    assert generation.structural_similarity(first, first) == pytest.approx(1, abs=1e-4)
    assert generation.structural_similarity(first, second) < 0.2
    assert generation.signal_to_noise(first, first) == pytest.approx(100)
    assert generation.signal_to_noise(first, first + 0.1) == pytest.approx(20)
