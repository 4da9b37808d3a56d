"""Fine-tuning a tiny model on small phantoms: the new model, the comparison, stops and refusals."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from DiffSegLungLib.app import cli
from DiffSegLungLib.lungs.network import build_unet
from DiffSegLungLib.models import storage
from DiffSegLungLib.models import store as models
from DiffSegLungLib.training import checkpoint
from DiffSegLungLib.training.lock import locked
from DiffSegLungLib.training.student_tuning import score
from DiffSegLungLib.training.verdicts import judge
from Testing.unit.tiny_model import write_tiny_model

ROOT = Path(__file__).parents[2]
SPACING = 4.0
STEPS = "22"
"""Compared and saved at 20."""
QUIET = ["--progress", "none", "--threads", "1", "--device", "cpu"]


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two coarse phantoms."""
    folder = tmp_path_factory.mktemp("ct")
    for seed in (0, 1):
        words = ["phantom", str(folder / f"p{seed}.nrrd"), "--spacing", str(SPACING), "--seed", str(seed)]
        assert cli.main(words) == 0
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model with a lung network, both untrained."""
    folder = write_tiny_model(tmp_path_factory.mktemp("base") / "tiny", SPACING)
    channels = [8] * 5
    storage.write_lung_network(folder, build_unet(channels).state_dict(), {"channels": channels})
    return folder


def words(ct: Path, base: Path, store: Path, *more: str) -> list[str]:
    return ["finetune", str(ct), "--base", str(base), "--models", str(store), "--name", "own", *more, *QUIET]


@pytest.fixture(scope="module")
def tuned(ct: Path, base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a model that was fine-tuned for a few steps."""
    store = tmp_path_factory.mktemp("models")
    assert cli.main(words(ct, base, store, "--steps", STEPS, "--licence", "ours")) == 0
    return store


def refused(capsys: pytest.CaptureFixture[str], status: int, message: str, expected: int = 2) -> None:
    errors = capsys.readouterr().err.splitlines()
    assert status == expected
    assert len(errors) == 1 and message in errors[0], errors


def test_it_writes_a_model_that_loads(tuned: Path, base: Path) -> None:
    model = models.load(str(tuned / "own"))
    assert (model.info.name, model.spacing) == ("own", SPACING)
    assert model.description["licence"] == "ours"
    assert model.description["parent"]["sha256"] == models.verify(str(base)).sha256
    files = {file.name for file in (tuned / "own").iterdir()}
    assert files == {
        "weights.safetensors",
        "mixture.safetensors",
        "lungs.safetensors",
        "model.json",
        "MODEL_CARD.md",
        "before_after.png",
    }
    assert model.lungs is not None, "the lung network goes along"
    old, new = (load_file(folder / "weights.safetensors") for folder in (base, tuned / "own"))
    key = "unet.conv_in.conv.weight"
    assert old.keys() == new.keys() and not np.array_equal(old[key], new[key])
    assert np.abs(old[key] - new[key]).max() < 0.01, "the rate is low"
    assert {path.name for path in tuned.iterdir()} == {"own", "own.run"}


def test_the_embedding_is_standardised_as_the_parents_mixture_expects(tuned: Path, base: Path) -> None:
    old, new = (load_file(folder / "weights.safetensors") for folder in (base, tuned / "own"))
    for statistic in ("running_mean", "running_var"):
        assert np.array_equal(old[f"head.scale.{statistic}"], new[f"head.scale.{statistic}"])


def test_weights_that_lose_on_patients_held_back_are_kept_last() -> None:
    assert score(0.139, 0.140, 0.3) < score(0.141, 0.140, 0.9), "a noise loss above the base model's"
    assert score(0.139, 0.140, 0.4) < score(0.139, 0.140, 0.3), "a better embedding"
    assert score(0.138, 0.140, float("nan")) < score(0.139, 0.140, float("nan"))


def test_it_compares_both_models_on_patients_held_back(tuned: Path) -> None:
    description = json.loads((tuned / "own" / "model.json").read_text())
    assert description["split"]["trained_on"] == {"ct": 1, "patients": 1}
    assert description["split"]["held_back"] == {"ct": 1, "patients": 1}
    before, after = description["metrics"]["before"], description["metrics"]["after"]
    assert 0 < after["noise_loss"] < before["noise_loss"] < 1, "some steps help an untrained network"
    assert 0 <= before["teacher_r2"] <= 1
    for side in (before, after):
        (volumes,) = side["held_back_ct"]
        assert volumes["healthy_ml"] > 500 and 0 <= volumes["disease_percent"] <= 100
    assert (tuned / "own" / "before_after.png").stat().st_size > 20_000


def test_the_model_names_neither_ct_nor_patients(tuned: Path) -> None:
    for name in ("model.json", "MODEL_CARD.md"):
        text = (tuned / "own" / name).read_text()
        assert not [one for one in ("p0", "p1", "nrrd", str(tuned)) if one in text]


def test_a_model_is_never_written_over(
    tuned: Path, ct: Path, base: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, cli.main(words(ct, base, tuned, "--steps", "1")), "model 'own' already")


def test_an_interrupted_run_goes_on_as_if_it_had_not_been(
    tuned: Path, ct: Path, base: Path, tmp_path: Path
) -> None:
    """Killed hard in the middle; the same command ends with the same weights as an unbroken run."""
    prepared = tmp_path / "own.run" / "store"
    shutil.copytree(tuned / "own.run" / "store", prepared)  # the lungs need not be found again
    command = [sys.executable, "-m", "DiffSegLungLib", *words(ct, base, tmp_path, "--steps", STEPS)]
    log = tmp_path / "own.run" / "log.jsonl"
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as child:
        patience = time.monotonic() + 600
        while not (log.exists() and len(log.read_text().splitlines()) >= 21):
            assert child.poll() is None and time.monotonic() < patience
            time.sleep(0.02)
        child.kill()
    assert not (tmp_path / "own").exists()
    assert checkpoint.load_facts(tmp_path / "own.run" / "checkpoint.safetensors")["step"] == 20
    assert cli.main(words(ct, base, tmp_path, "--steps", STEPS)) == 0
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    whole = [json.loads(line) for line in (tuned / "own.run" / "log.jsonl").read_text().splitlines()]
    for line in steps + whole:
        line.pop("seconds")
    assert steps == whole
    one, other = (load_file(folder / "own" / "weights.safetensors") for folder in (tuned, tmp_path))
    assert all(np.array_equal(one[key], other[key]) for key in one)


def test_two_processes_of_torchrun_make_one_model(tuned: Path, ct: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned / "own.run" / "store", tmp_path / "own.run" / "store")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += ["-m", "DiffSegLungLib", *words(ct, base, tmp_path, "--steps", "4")]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, timeout=600, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines().count(str(tmp_path / "own")) == 1
    steps = [
        json.loads(line)["step"] for line in (tmp_path / "own.run" / "log.jsonl").read_text().splitlines()
    ]
    assert steps == [1, 2, 3, 4]
    assert models.load(str(tmp_path / "own")).lungs is not None


def test_a_stop_file_pauses(tuned: Path, ct: Path, base: Path, tmp_path: Path) -> None:
    shutil.copytree(tuned / "own.run" / "store", tmp_path / "own.run" / "store")
    command = [sys.executable, "-m", "DiffSegLungLib", *words(ct, base, tmp_path, "--steps", "3000")]
    run = tmp_path / "own.run"
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) as child:
        while not (run / "log.jsonl").exists() and child.poll() is None:
            time.sleep(0.02)
        (run / "stop").touch()
        _, errors = child.communicate(timeout=300)
    assert child.returncode == 130 and "the same command goes on" in errors.splitlines()[-1]
    assert 0 < checkpoint.load_facts(run / "checkpoint.safetensors")["step"] < 3000


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals between processes")
def test_one_run_a_folder(ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with locked(tmp_path / "own.run"):
        refused(capsys, cli.main(words(ct, base, tmp_path, "--steps", "1")), "Another run is at work")
    holder = "import sys,time,pathlib; from DiffSegLungLib.training.lock import locked\n"
    holder += "with locked(pathlib.Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path / "x")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None and child.stdout.readline() == "held\n"
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    with locked(tmp_path / "x"):  # a killed run leaves no lock
        pass


# --- before it begins ------------------------------------------------------------------------------------


def test_preflight_says_what_it_takes(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(words(ct, base, tmp_path, "--steps", "50", "--preflight")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ready"] and answer["missing"] == []
    assert (answer["volumes"], answer["patients"], answer["held_back"]) == (2, 2, 1)
    assert answer["steps"] == 50 and answer["seconds_per_step"] > 0
    assert answer["minutes"] > 50 * answer["seconds_per_step"] / 60
    assert 4 < answer["lung_litres"] < 16 and answer["patches"] > 10
    assert 0 < answer["memory_mb"] < 6000 and 0 < answer["disk_mb"] < 500
    assert list(tmp_path.iterdir()) == [], "nothing is begun"


def test_preflight_lists_everything_that_is_missing(
    ct: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["finetune", str(ct / "p0.nrrd"), "--base", "none", "--name", "own", "--models", str(tmp_path)]
    assert cli.main([*given, "--preflight", *QUIET]) == 2
    answer = json.loads(capsys.readouterr().out)
    assert not answer["ready"]
    assert [text.split(":")[0] for text in answer["missing"]] == [
        "no model 'none'",
        "CT of two patients at least are needed",
    ]


def test_a_single_ct_is_not_enough(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, cli.main(words(ct / "p0.nrrd", base, tmp_path)), "CT of two patients at least")


def test_two_ct_of_one_patient_are_not_enough(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "patients.csv"
    table.write_text("ct,patient\np0,A\np1,A\n")
    status = cli.main(words(ct, base, tmp_path / "models", "--patients", str(table)))
    refused(capsys, status, "CT of two patients at least")


def test_a_ct_without_lungs_is_named(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import SimpleITK as sitk

    block = np.full((40, 60, 60), -1000, np.int16)
    block[5:35, 10:50, 10:50] = 40
    image = sitk.GetImageFromArray(block)
    image.SetSpacing((5.0, 5.0, 5.0))
    sitk.WriteImage(image, str(tmp_path / "block.nrrd"))
    given = words(ct, base, tmp_path / "models")
    given.insert(1, str(tmp_path / "block.nrrd"))
    refused(capsys, cli.main(given), "block.nrrd: ")


def test_a_base_of_another_version_is_refused(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(base, tmp_path / "old")
    description = json.loads((base / "model.json").read_text())
    (tmp_path / "old" / "model.json").write_text(json.dumps(description | {"format": 99}))
    refused(capsys, cli.main(words(ct, tmp_path / "old", tmp_path / "m")), "another format", expected=3)


def test_places_where_nothing_can_be_written(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    refused(capsys, cli.main(words(ct, base, tmp_path / "file" / "models")), "Cannot write")
    shipped = models.shipped_folders()[0]
    refused(capsys, cli.main(words(ct, base, shipped)), "holds the shipped models")


def test_a_full_disk_is_said_before_it_begins(
    ct: Path, base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    full = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)  # type: ignore[attr-defined]
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    assert cli.main(words(ct, base, tmp_path, "--steps", "5", "--preflight")) == 2
    (missing,) = json.loads(capsys.readouterr().out)["missing"]
    assert "has 1 MB free" in missing and "--models" in missing


def test_what_got_worse_is_said_in_plain_words() -> None:
    before = {"noise_loss": 0.14, "teacher_r2": 0.5, "healthy_phantom_diseased_percent": 0.2}
    before["held_back_ct"] = [{"disease_percent": 4.0}]  # type: ignore[assignment]
    worse = before | {"noise_loss": 0.20, "held_back_ct": [{"disease_percent": 9.0}]}
    better = before | {"noise_loss": 0.12}
    drifted = before | {"noise_loss": 0.12, "healthy_phantom_diseased_percent": 6.0}
    assert "WORSE" in judge(before, worse, "both")[0]
    assert "Disease in a CT held back: 4.0 % before, 9.0 % after." in judge(before, worse, "both")
    assert "is better" in judge(before, better, "both")[0]
    textureless = better | {"teacher_r2": 0.45}
    assert "WORSE" in judge(before, textureless, "both")[0], "it should learn both"
    assert "better in one respect and worse in another" in judge(before, textureless, "diffusion")[0]
    assert "about as good" in judge(before, dict(before), "both")[0]
    assert "WORSE" in judge(before, drifted, "both")[0]
    assert "far more disease in a healthy lung" in judge(before, drifted, "both")[-2]
