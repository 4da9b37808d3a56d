"""Fine-tuning of the network that decides: own CT become hosts, the tuned model, stops, refusals."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from safetensors.torch import load_file

from DiffSegLungLib.app import cli
from DiffSegLungLib.models import store as models
from DiffSegLungLib.phantom import make_phantom, phantom_image
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.progress import silent
from DiffSegLungLib.training import checkpoint, own_hosts
from DiffSegLungLib.training.painting_hosts import PaintingHost
from DiffSegLungLib.training.run_files import read_log
from DiffSegLungLib.training.tuning import CannotServeError
from DiffSegLungLib.training.verdicts import judge_tissues
from Testing.unit.small_network import WIDTHS, shrink, write_small_network_model

ROOT = Path(__file__).parents[2]
SPACING, CHILD = 4.0, 0.45
"""Of the phantoms in mm; and the size of these patients, so that the tests are quick."""
STEPS = "22"
"""Compared and saved at 20."""
QUIET = ["--progress", "none", "--threads", "1", "--device", "cpu"]


def write_ct(path: Path, seed: int, slices: slice = slice(None)) -> Path:
    """A phantom of a small patient, or some slices of it."""
    image = phantom_image(make_phantom((SPACING,) * 3, seed=seed))[:, :, slices]
    image.SetSpacing([CHILD * step for step in image.GetSpacing()])
    sitk.WriteImage(image, str(path), useCompression=True)
    return path


@pytest.fixture(scope="module", autouse=True)
def small() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shrink(patch.setattr)
        yield


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two patients, and one of whom there are but a few slices."""
    folder = tmp_path_factory.mktemp("ct")
    for seed in (0, 1):
        write_ct(folder / f"p{seed}.nrrd", seed)
    write_ct(folder / "slab.nrrd", 2, slice(30, 41))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_network_model(tmp_path_factory.mktemp("base") / "small", SPACING)


def words(ct: Path, base: Path, store: Path, *more: str) -> list[str]:
    return ["finetune", str(ct), "--base", str(base), "--models", str(store), "--name", "own", *more, *QUIET]


@pytest.fixture(scope="module")
def told() -> list[str]:
    """What the command of ``tuned`` printed."""
    return []


@pytest.fixture(scope="module")
def tuned(ct: Path, base: Path, told: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model that was fine-tuned for a few steps."""
    store = tmp_path_factory.mktemp("models")
    with redirect_stdout(io.StringIO()) as output:
        assert cli.main(words(ct, base, store, "--steps", STEPS)) == 0
    told += output.getvalue().splitlines()
    return store


def refused(capsys: pytest.CaptureFixture[str], status: int, message: str) -> None:
    errors = capsys.readouterr().err.splitlines()
    assert status == 2
    assert len(errors) == 1 and message in errors[0], errors


# --- the new model ---------------------------------------------------------------------------------------


def test_it_writes_a_model_that_verifies_and_segments(tuned: Path, base: Path, ct: Path) -> None:
    model = models.load(str(tuned / "own"))
    assert model.tissues is not None and model.tissues.unet.widths == WIDTHS
    assert (model.tissues.temperature, model.tissues.bias[0]) == (1.25, 0.1), "calibrated as its base"
    old, new = (load_file(folder / models.TISSUES) for folder in (base, tuned / "own"))
    changes = [float((old[key].float() - new[key].float()).abs().max()) for key in old]
    assert 0 < max(changes) < 0.01, "it has learnt, at a low rate"
    files = {file.name for file in (tuned / "own").iterdir()}
    networks = {"weights.safetensors", "mixture.safetensors", "tissues.safetensors"}
    assert files == networks | {"model.json", "MODEL_CARD.md", "before_after.png"}
    assert {path.name for path in tuned.iterdir()} == {"own", "own.run"}
    result = segment(ct / "p0.nrrd", model=str(tuned / "own"), device="cpu")
    assert "network" in result.manifest["seconds"] and result.label_array.any()


def test_it_says_where_it_comes_from_and_names_no_ct(tuned: Path, base: Path) -> None:
    description = json.loads((tuned / "own" / "model.json").read_text())
    parent = json.loads((base / "model.json").read_text())
    assert description["parent"]["sha256"] == parent["sha256"]["tissues.safetensors"]
    assert description["parent"]["name"] == "small"
    assert description["split"]["trained_on"] == description["split"]["held_back"] == {"ct": 1, "patients": 1}
    assert description["training"] == {"steps": 22, "rate": 1e-4}
    assert description["tissue_network"]["steps"] == 100
    assert description["tissue_network"]["fine_tuned_steps"] == 22
    for name in ("model.json", "MODEL_CARD.md"):
        text = (tuned / "own" / name).read_text()
        assert not [one for one in ("p0", "p1", "slab", "nrrd", "CT-of", str(tuned)) if one in text]


def test_it_compares_both_on_painted_patches_and_own_lung(tuned: Path) -> None:
    metrics = json.loads((tuned / "own" / "model.json").read_text())["metrics"]
    before, after = metrics["before"], metrics["after"]
    assert before["healthy_now_diseased_percent"] == 0.0, "it is its own measure"
    assert after["healthy_now_diseased_percent"] < 2.0
    assert before["noise_loss"] > 0 and before["noise_loss"] != after["noise_loss"]
    assert [value for value in before["dice"].values() if value is not None], "something was painted"
    assert len(before["held_back_ct"]) == 1
    assert "on the patients held back" in metrics["verdict"][0]
    assert any("unpainted lung" in line for line in metrics["verdict"])


def test_the_log_has_what_the_panel_draws(tuned: Path) -> None:
    log = read_log(tuned / "own.run")
    assert [line["step"] for line in log] == list(range(1, 23))
    assert all(line["cross-entropy"] > 0 and "dice" in line and "kept" in line for line in log)
    assert [line["step"] for line in log if "held_back" in line] == [20]
    assert any("noise" in line for line in log)
    assert (tuned / "own.run" / "samples.png").stat().st_size > 1000


def test_a_ct_that_cannot_serve_is_named_in_a_line(tuned: Path, told: list[str]) -> None:
    (line,) = [line for line in told if line.startswith("Left out")]
    assert "slab.nrrd" in line
    assert told[-1] == str(tuned / "own")
    assert not list((tuned / "own.run" / "hosts").glob("slab*.npz"))


def test_a_ct_with_too_little_healthy_lung_cannot_serve(
    tuned: Path, ct: Path, base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(own_hosts, "LEAST_ML", 10_000.0)
    hosts, model = tuned / "own.run" / "hosts", models.load(str(base))
    with pytest.raises(CannotServeError, match=r"p0\.nrrd: only \d+ ml .* 10000 ml"):
        own_hosts.prepare_host(ct / "p0.nrrd", hosts, model, {}, silent)
    assert own_hosts.load_hosts(hosts, ["p0", "p1"]) == []


def test_what_may_be_diseased_in_a_host_is_left_out(tuned: Path) -> None:
    """The phantom's emphysema is never called healthy."""
    host = PaintingHost.open(tuned / "own.run" / "hosts" / "p0_100.npz")
    dark = host.lungs & (host.hu < -970)
    assert 0 < host.ignored[host.lungs].mean() < 0.5
    assert host.ignored[dark].mean() > 3 * host.ignored[host.lungs].mean()


# --- stops -----------------------------------------------------------------------------------------------

CHILD_PROCESS = """
import sys
from DiffSegLungLib.app import cli
from Testing.unit.small_network import shrink
shrink()
sys.exit(cli.main(sys.argv[1:]))
"""


def started(tuned: Path, words: list[str], store: Path) -> subprocess.Popen[str]:
    """The command in a process of its own, on hosts that are there already."""
    for folder in ("hosts", "store"):
        shutil.copytree(tuned / "own.run" / folder, store / "own.run" / folder)
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", CHILD_PROCESS, *words]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def wait_for(child: subprocess.Popen[str], log: Path, steps: int) -> None:
    patience = time.monotonic() + 600
    while not (log.exists() and len(log.read_text().splitlines()) >= steps):
        assert child.poll() is None and time.monotonic() < patience
        time.sleep(0.02)


def test_a_killed_run_goes_on_as_if_it_had_not_been(
    tuned: Path, ct: Path, base: Path, tmp_path: Path
) -> None:
    """Killed hard after its checkpoint; the same command ends with the same weights as an unbroken run."""
    log = tmp_path / "own.run" / "log.jsonl"
    with started(tuned, words(ct, base, tmp_path, "--steps", STEPS), tmp_path) as child:
        wait_for(child, log, 21)
        child.kill()
    assert not (tmp_path / "own").exists()
    assert checkpoint.load_facts(tmp_path / "own.run" / "checkpoint.safetensors")["step"] == 20
    assert cli.main(words(ct, base, tmp_path, "--steps", STEPS)) == 0
    steps, whole = (read_log(store / "own.run") for store in (tmp_path, tuned))
    for line in steps + whole:
        line.pop("seconds")
    assert steps == whole
    one, other = (load_file(store / "own" / models.TISSUES) for store in (tuned, tmp_path))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_a_stop_file_pauses(tuned: Path, ct: Path, base: Path, tmp_path: Path) -> None:
    run = tmp_path / "own.run"
    with started(tuned, words(ct, base, tmp_path, "--steps", "3000"), tmp_path) as child:
        wait_for(child, run / "log.jsonl", 1)
        (run / "stop").touch()
        _, errors = child.communicate(timeout=300)
    assert child.returncode == 130 and "the same command goes on" in errors.splitlines()[-1]
    assert 0 < checkpoint.load_facts(run / "checkpoint.safetensors")["step"] < 3000


# --- before it begins ------------------------------------------------------------------------------------


def test_preflight_says_what_it_takes(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(ct, base, tmp_path, "--steps", "50", "--preflight")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ready"] and answer["steps"] == 50 and answer["seconds_per_step"] > 0
    assert answer["minutes"] > 50 * answer["seconds_per_step"] / 60
    assert 0 < answer["memory_mb"] < 6000 and 0 < answer["disk_mb"] < 500
    assert list(tmp_path.iterdir()) == [], "nothing is begun"


@pytest.mark.parametrize("more", [["--stage", "distillation"], ["--refit-mixture"]])
def test_what_this_network_has_not_is_refused(
    ct: Path, base: Path, tmp_path: Path, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, cli.main(words(ct, base, tmp_path / "models", *more)), "no --stage")
    assert not (tmp_path / "models").exists()


def test_a_ct_without_enough_lung_is_named(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = words(ct / "slab.nrrd", base, tmp_path / "models", "--steps", "1")
    given.insert(1, str(ct / "p0.nrrd"))
    status = cli.main(given)
    refused(capsys, status, "slab.nrrd: ")


def test_what_got_worse_is_said_in_plain_words() -> None:
    before = {
        "dice": {"emphysema": 0.9, "fibrosis": 0.6, "cavity": None},
        "mean_dice": 0.75,
        "noise_loss": 0.9,
        "healthy_now_diseased_percent": 0.0,
        "diseased_now_healthy_percent": 0.0,
        "held_back_ct": [{"disease_percent": 4.0}],
    }
    fibrosis_lost = {"dice": {"emphysema": 0.99, "fibrosis": 0.52, "cavity": None}}
    assert "is better" in judge_tissues(before, before | {"mean_dice": 0.8})[0]
    assert "about as good" in judge_tissues(before, before | {"noise_loss": 0.8})[0]
    assert "WORSE" in judge_tissues(before, before | {"mean_dice": 0.7})[0]
    assert "WORSE" in judge_tissues(before, before | {"healthy_now_diseased_percent": 0.8})[0]
    assert "worse in another" in judge_tissues(before, before | fibrosis_lost)[0]
    lines = judge_tissues(before, before | fibrosis_lost)
    assert "Painted fibrosis, Dice: 0.600 before, 0.520 after." in lines
    assert "Painted cavity, Dice: unknown before, unknown after." in lines
    assert "Disease in a CT held back: 4.0 % before, 4.0 % after." in lines
