"""``diffseglung train``: from CT to a model folder, on a small phantom with a tiny network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from DiffSegLungLib.app import cli
from DiffSegLungLib.models import store as models
from DiffSegLungLib.representation.cell_numbers import CELL_NUMBERS
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.store import load_store, store_facts
from Testing.unit.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
TINY = ["--channels", "8", "8", "8", "8", "--batch", "4", "--stage-two", "2", "--warm-up", "2"]
QUIET = ["--progress", "none"]
ONE_CORE = ["--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A coarse phantom with all lesions."""
    path = tmp_path_factory.mktemp("ct") / "phantom.nrrd"
    assert cli.main(["phantom", str(path), "--spacing", "3"]) == 0
    return path


@pytest.fixture(scope="module")
def store(ct: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training store made of it."""
    folder = tmp_path_factory.mktemp("store")
    assert cli.main(["train", "prepare", str(ct), "--store", str(folder), "--spacing", "3", *QUIET]) == 0
    return folder


def train(store: Path, folder: Path, *more: str) -> int:
    return cli.main(["train", "run", "--store", str(store), "--run", str(folder), *ONE_CORE, *more])


@pytest.fixture(scope="module")
def finished(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three steps that went on to five."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert train(store, folder, "--steps", "3", *TINY, *QUIET) == 0
    assert train(store, folder, "--steps", "5", *QUIET) == 0
    return folder


def logged_steps(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def assert_refused(capsys: pytest.CaptureFixture[str], status: int, message: str) -> None:
    errors = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(errors) == 1 and message in errors[0], errors


def test_prepare_stores_the_lungs_at_the_spacing(store: Path) -> None:
    facts = store_facts(store / "phantom.npz")
    assert (facts["name"], facts["spacing_mm"], facts["person"]) == ("phantom", 3.0, "")
    (patient,) = load_store(store)
    hu, mask = patient.hu, patient.mask
    assert isinstance(hu, np.memmap) and hu.dtype == np.int16
    litres = mask.sum() * 27e-6
    assert hu.shape == mask.shape and mask.dtype == bool
    assert 2 < litres < 8
    assert -900 < np.median(hu[mask]) < -600


def test_resuming_goes_on_with_the_stored_settings(finished: Path) -> None:
    steps = logged_steps(finished)
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5]
    facts = checkpoint.load_facts(finished / "checkpoint.safetensors")
    assert facts["step"] == 5
    assert facts["settings"]["channels"] == [8, 8, 8, 8] and facts["settings"]["stage_two"] == 2


def test_distillation_begins_with_stage_two(finished: Path) -> None:
    # At the step where it begins the weight is still 0.
    assert ["info_nce" in line for line in logged_steps(finished)] == [False, False, False, True, True]


def test_a_resumed_run_learns_what_an_unbroken_one_does(store: Path, finished: Path, tmp_path: Path) -> None:
    assert train(store, tmp_path, "--steps", "5", *TINY, *QUIET) == 0
    # The rate falls with the steps asked for, so the third step on differs a little; the data do not.
    unbroken, resumed = logged_steps(tmp_path), logged_steps(finished)
    assert unbroken[0]["noise"] == resumed[0]["noise"]
    assert [line["noise"] for line in unbroken] == pytest.approx(
        [line["noise"] for line in resumed], abs=0.02
    )


def test_without_distillation_the_bottleneck_passes_for_the_embedding(
    ct: Path, store: Path, tmp_path: Path
) -> None:
    run, folder = tmp_path / "run", tmp_path / "model"
    assert train(store, run, "--steps", "2", *TINY, "--without", "distillation", *QUIET) == 0
    words = ["train", "fit", str(ct), "--run", str(run), "--model", str(folder), "--name", "untaught"]
    assert cli.main([*words, "--timesteps", "50", *QUIET]) == 0
    model = models.load(str(folder))
    head = model.student.head
    seen = torch.randn(1, CELL_NUMBERS, 2, 2, 2), torch.randn(1, 8, 2, 2, 2)
    embedding = head(seen[1], seen[0])
    standardised = head.scale(torch.cat(seen, dim=1))
    assert torch.allclose(embedding[:, : CELL_NUMBERS + 8], standardised, atol=1e-5)
    assert not embedding[:, CELL_NUMBERS + 8 :].any()
    # The head's map to the radiomics was never taught: the projection must not lie in its directions.
    chance = np.linalg.qr(head.regress.weight.numpy().T)[0]
    outside = model.projection.matrix - chance @ (chance.T @ model.projection.matrix)
    assert np.linalg.norm(outside) > 0.1 * np.linalg.norm(model.projection.matrix)


def test_fit_writes_a_model_that_verifies(ct: Path, finished: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    words = ["train", "fit", str(ct), "--run", str(finished), "--model", str(model), "--name", "tiny"]
    words += ["--threads", "1", *QUIET]
    assert cli.main(words) == 0
    assert cli.main(["models", "verify", str(model)]) == 0
    written = {file.name for file in model.iterdir()}
    assert written == {"weights.safetensors", "mixture.safetensors", "model.json", "MODEL_CARD.md"}
    loaded = models.load(str(model))
    assert (loaded.info.name, loaded.spacing) == ("tiny", 3.0)
    assert loaded.description["training"]["steps"] == 5
    assert loaded.description["training_data"] == {"trained_on": ["phantom"], "fitted_on": ["phantom.nrrd"]}
    weights = (model / "weights.safetensors").read_bytes()
    assert cli.main(words) == 2, "a model is never written over"
    assert (model / "weights.safetensors").read_bytes() == weights


def test_a_run_may_begin_with_the_unet_of_a_model(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = write_tiny_model(tmp_path / "tiny", 3.0)
    options = ["--unet", str(model), "--stage-two", "1", "--warm-up", "1", *QUIET]
    run = tmp_path / "run"
    assert train(store, run, "--steps", "1", *TINY, *options) == 0
    begun = checkpoint.load_module(run / "checkpoint.safetensors", "student")
    given = models.load(str(model)).student.state_dict()
    key = "unet.conv_in.conv.weight"
    assert np.allclose(begun[key], given[key], atol=2e-3), "one step from where the model was"
    other = ["--channels", "8", "8", "8", "16", "--unet", str(model), *QUIET]
    assert_refused(
        capsys, train(store, tmp_path / "other", "--steps", "1", *other), "give --channels 8 8 8 8"
    )


def test_other_settings_do_not_go_on(store: Path, finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert_refused(capsys, train(store, finished, "--batch", "2"), "has batch 4, not 2")
    assert len(logged_steps(finished)) == 5


def test_two_ct_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "prepare", "a/ct.nrrd", "b/ct.nii.gz", "--store", str(tmp_path / "store")]
    assert_refused(capsys, cli.main(words), "More than one CT is named ct")
    assert list(tmp_path.iterdir()) == []


def test_a_store_of_two_spacings_is_refused(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with np.load(store / "phantom.npz", allow_pickle=False) as stored:
        arrays = dict(stored)
    np.savez_compressed(tmp_path / "one.npz", **arrays)
    np.savez_compressed(tmp_path / "two.npz", **(arrays | {"facts": json.dumps({"spacing_mm": 1.5})}))
    assert_refused(capsys, train(tmp_path, tmp_path / "run", *TINY), "mixes spacings of [1.5, 3.0] mm")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "--store", "{0}/none", "--run", "{0}/run"], "no prepared CT"),
        (["fit", "ct.nrrd", "--run", "{0}", "--model", "{0}/m", "--name", "n"], "No checkpoint.safetensors"),
        (["prepare", "{0}/none.nrrd", "--store", "{0}/store"], "no such file"),
        (["run", "--store", "s", "--run", "r", "--channels", "8", "8", "8", "12"], "not a multiple of 8"),
        (["run", "--store", "s", "--run", "r", "--steps", "0"], "not a whole number above 0"),
        (["prepare", "ct.nrrd", "--store", "s", "--spacing", "nan"], "not a length"),
        ([], "ACTION"),
    ],
)
def test_wrong_use_is_one_line_and_status_two(
    tmp_path: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status = cli.main(["train", *(word.format(tmp_path) for word in words), *(QUIET if words else [])])
    assert_refused(capsys, status, message)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_an_interrupt_stops_with_a_checkpoint(store: Path, tmp_path: Path) -> None:
    words = ["train", "run", "--store", str(store), "--run", str(tmp_path), "--steps", "2000", *TINY]
    command = [sys.executable, "-m", "DiffSegLungLib", *words, *ONE_CORE, "--progress", "json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as child:
        assert child.stdout is not None
        first = json.loads(child.stdout.readline())
        os.kill(child.pid, signal.SIGINT)
        _, errors = child.communicate(timeout=60)
    assert first["stage"] == "train" and 0 < first["fraction"] < 1 and first["peak_mb"] > 0
    assert child.returncode == 130
    assert "the same command goes on" in errors.splitlines()[-1]
    facts = checkpoint.load_facts(tmp_path / "checkpoint.safetensors")
    assert facts["step"] == len(logged_steps(tmp_path)) >= 1
