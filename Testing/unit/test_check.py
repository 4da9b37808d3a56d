"""The command ``check``: what it says of packages, device and models is what is there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from DiffSegLungLib.app import check, cli
from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.models import store as models
from DiffSegLungLib.version import __version__

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "Resources" / "models" / models.DEFAULT
STATES = {"sound", "untried", "too old", "missing", "damaged"}


def run(*words: str, code: str = "", **environment: str) -> tuple[int, str]:
    """Exit status and standard output of ``check`` in a process of its own, after some code."""
    program = (
        f"{code}\nimport sys; from DiffSegLungLib.app.cli import main; sys.exit(main({['check', *words]!r}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        env={**os.environ, **environment},
    )
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout


BLOCKED = """
import importlib.abc, sys
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("libtorch_cpu.so: cannot open shared object file")
sys.meta_path.insert(0, Block())
"""


@pytest.fixture(scope="module")
def here() -> tuple[int, dict[str, Any]]:
    status, text = run("--json")
    return status, json.loads(text)


def test_json_has_the_documented_fields(here: tuple[int, dict[str, Any]]) -> None:
    status, found = here
    fields = {"version", "python", "ready", "problems", "warnings", "packages", "device", "models", "model"}
    assert set(found) == fields
    assert check.__doc__ is not None and all(f'"{field}"' in check.__doc__ for field in fields)
    assert status == (0 if found["ready"] else 3) and found["ready"] == (not found["problems"])
    assert found["version"] == __version__ and found["model"] == models.DEFAULT
    assert set(found["packages"][0]) == {"name", "version", "wanted", "state"}
    assert {each["state"] for each in found["packages"]} <= STATES


def test_every_requirement_is_listed_with_its_real_version(here: tuple[int, dict[str, Any]]) -> None:
    lines = (ROOT / "DiffSegLung" / "Resources" / "requirements.txt").read_text().splitlines()
    wanted = [Requirement(line.split("#")[0]).name for line in lines if line.split("#")[0].strip()]
    assert [each["name"] for each in here[1]["packages"]] == wanted
    for each in here[1]["packages"]:
        if each["state"] != "missing":
            assert each["version"] == version(each["name"])


def test_the_device_is_torchs(here: tuple[int, dict[str, Any]]) -> None:
    torch = pytest.importorskip("torch")
    device = here[1]["device"]
    assert device["name"] == ("cuda" if torch.cuda.is_available() else "cpu")
    assert bool(device["reason"]) == (device["name"] == "cpu")
    assert device["threads"] >= 1 and device["description"]


@pytest.mark.parametrize(
    ("gigabytes", "name", "says"),
    [
        (1.0, "cpu", "1.5 GB are needed"),
        (1.9, "cuda", "fine-tuning needs 2.0 GB"),
        (8.0, "cuda", "fine-tunes."),
    ],
)
def test_a_graphics_card_is_told_what_it_can_do(
    gigabytes: float, name: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No card is at hand where tests run: torch tells of one."""
    torch = pytest.importorskip("torch")
    card = SimpleNamespace(name="Card", total_memory=gigabytes * 1e9)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    device = check.find_device()
    assert device is not None and device.name == name == choose_device("auto")
    assert says in device.reason + device.card


def test_the_screen_says_the_same(
    here: tuple[int, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["check"]) == here[0]
    text = capsys.readouterr().out
    assert len(text.splitlines()) < 40 and max(map(len, text.splitlines())) < 120
    for package in here[1]["packages"]:
        assert package["name"] in text and (package["version"] or "-") in text
    assert ("Ready to segment." in text) == here[1]["ready"]


def test_without_torch_it_says_so_and_ends_with_three() -> None:
    status, text = run("--json", code=BLOCKED)
    found = json.loads(text)
    assert status == 3 and not found["ready"] and found["device"] is None
    [torch] = [each for each in found["packages"] if each["name"] == "torch"]
    assert torch["state"] in ("damaged", "missing")
    assert any(problem.startswith("torch ") for problem in found["problems"])
    assert found["models"][0]["state"] == "sound", "checksums need no torch"


def requirement_of(package: str, specifier: str) -> Requirement:
    return Requirement(f"{package}{specifier}")


@pytest.mark.parametrize(
    ("specifier", "state"),
    [
        (">=1,<9999", "sound"),
        (">=1,<2", "untried"),
        (">=9999", "too old"),
        ("", "sound"),
        ("==1.*", "untried"),
        ("==9999.*", "too old"),
    ],
)
def test_floor_and_ceiling(specifier: str, state: str) -> None:
    package = check.inspect_package(requirement_of("numpy", specifier))
    assert package.state == state and package.version == version("numpy")
    assert package.stops == (state == "too old")


def test_a_missing_package_has_a_remedy() -> None:
    package = check.inspect_package(requirement_of("no-such-package-here", ">=1,<2"))
    assert (package.version, package.state, package.stops) == (None, "missing", True)
    assert "pip install 'no-such-package-here>=1,<2'" in check._package_problem(package)


NO_MONAI = (
    BLOCKED.replace('"torch"', '"monai"')
    + """
import importlib.metadata
known = importlib.metadata.version
def version(name):
    if name == "monai":
        raise importlib.metadata.PackageNotFoundError(name)
    return known(name)
importlib.metadata.version = version
"""
)


def test_without_monai_a_segmentation_runs_and_it_is_said() -> None:
    status, text = run("--json", code=NO_MONAI)
    found = json.loads(text)
    [monai] = [each for each in found["packages"] if each["name"] == "monai"]
    assert monai["state"] == "missing" and not [line for line in found["problems"] if "monai" in line]
    assert (status, found["ready"]) == (0, True)
    [warning] = found["warnings"]
    assert warning.startswith("For evaluate alone: monai is missing: pip install 'monai>=")
    assert warning in run(code=NO_MONAI)[1]


def test_a_damaged_model_is_named_and_only_the_asked_for_one_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "mine")
    description = json.loads((tmp_path / "mine" / models.DESCRIPTION).read_text())
    (tmp_path / "mine" / models.DESCRIPTION).write_text(json.dumps({**description, "name": "mine"}))
    with (tmp_path / "mine" / models.WEIGHTS).open("r+b") as file:
        file.write(b"broken")
    monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(tmp_path))
    default, mine = check.check(), check.check("mine")
    states = {each.name: each.state for each in default.models}
    shipped = [folder.name for folder in SHIPPED.parent.iterdir()]
    assert states == {"mine": "damaged", **dict.fromkeys(shipped, "sound")} and default.ready
    assert not mine.ready and "damaged" in mine.problems[0] and mine.model == "mine"
    assert len(mine.models) == 1 + len(shipped)
    assert "A segmentation cannot run here yet." in mine.as_text()


def test_an_unknown_model_ends_with_three(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check", "--model", "no-such-model"]) == 3
    assert "no model 'no-such-model'" in capsys.readouterr().out


class FakeTorch:
    """Stands for builds of torch that this computer cannot have; only what the reason looks at."""

    def __init__(self, cuda: str | None, mps: bool = False) -> None:
        self.__version__ = "9.9.9"
        self.version = type("version", (), {"cuda": cuda, "hip": None})
        self.backends = type("backends", (), {"mps": type("mps", (), {"is_available": lambda: mps})})


@pytest.mark.parametrize(
    ("cuda", "driver", "mps", "sentence"),
    [
        (None, False, False, "was built without CUDA."),
        (None, True, False, "built without CUDA; install one with CUDA"),
        ("12.8", False, False, "No NVIDIA driver was found"),
        ("12.8", True, False, "torch finds no device"),
        (None, False, True, "--device mps"),
    ],
)
def test_the_reason_why_there_is_no_graphics_card(
    cuda: str | None, driver: bool, mps: bool, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_has_nvidia_driver", lambda: driver)
    assert sentence in check._why_no_cuda(FakeTorch(cuda, mps))
