"""The headless script, as far as it goes without Slicer's application: what it takes, refuses and reports."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.io.cases import find_cases
from Testing.unit.dicom_series import write_series

pytest.importorskip("slicer", reason="needs slicer-core")
import slicer  # noqa: E402
import slicer.util  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "DiffSegLung/Resources/Scripts/SegmentFolder.py"


@pytest.fixture
def script() -> Iterator[ModuleType]:
    """The script as a module; it must not start by itself."""
    spec = importlib.util.spec_from_file_location("SegmentFolder", SCRIPT)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["SegmentFolder"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["SegmentFolder"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """CT by their names, and what is none; the folders are called like patients."""
    folder = tmp_path / "in"
    (folder / "papers").mkdir(parents=True)
    for name in ("b.nii.gz", "a.nrrd", "A2.MHA", "old.seg.nrrd", "notes.txt", "c.mhd", "c.raw"):
        (folder / name).touch()
    (folder / "papers" / "0001").write_bytes(b"no DICOM")
    write_series(folder / "DOE^JANE" / "1950", np.full((8, 8, 8), -800.0), StudyInstanceUID="1.2.3")
    return folder


@pytest.fixture
def scene() -> Iterator[Any]:
    """A scene with a node that somebody else has put there."""
    before = getattr(slicer, "mrmlScene", None)
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "of somebody else")
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(True)
    slicer.mrmlScene = before


def test_arguments_behind_slicers_own(script: ModuleType) -> None:
    options = script.parseArguments(
        ["--", "in", "out", "--quality", "fast", "--device", "cpu", "--seed", "3"]
    )
    expected = {"inFolder": Path("in"), "outFolder": Path("out"), "quality": "fast", "device": "cpu"}
    assert vars(options) == {**expected, "model": "", "seed": 3, "keepNames": False, "key": None}
    assert vars(script.parseArguments(["in", "out"])) == vars(script.parseArguments(["--", "in", "out"]))


@pytest.mark.parametrize(
    "arguments", [[], ["in"], ["in", "out", "--quality", "worst"], ["in", "out", "--seed", "x"]]
)
def test_wrong_use(script: ModuleType, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(arguments) == 2
    assert "usage: SegmentFolder.py" in capsys.readouterr().err


def test_help_is_no_error(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    assert script.main(["--", "--help"]) == 0
    assert "--quality" in capsys.readouterr().out


def test_without_the_extension(
    script: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "DiffSegLung", None)  # as if nothing of that name could be imported
    assert script.main([str(folder), str(folder / "out")]) == 3
    assert "install the extension" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing", "out"], "no such folder"),
        (["in/papers", "out"], "no CT in it"),
        (["in", "out", "--key", "key.txt"], "must end in .csv"),
        (["in", "in/a.nrrd/out"], "cannot be made"),
    ],
)
def test_unusable_folders(
    script: ModuleType,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setitem(sys.modules, "DiffSegLung", ModuleType("DiffSegLung"))
    monkeypatch.chdir(folder.parent)
    assert script.main(arguments) == 2
    said = capsys.readouterr()
    assert message in said.err and said.err.count("\n") == 1 and not said.out
    assert not Path("out").exists()


@pytest.mark.parametrize("keepNames", [False, True])
def test_a_ct_that_fails_is_reported_and_the_others_go_on(
    script: ModuleType, folder: Path, scene: Any, monkeypatch: pytest.MonkeyPatch, keepNames: bool
) -> None:
    """Here every CT fails, for there is no module; each has a reason, and the scene is as before."""
    monkeypatch.setitem(sys.modules, "DiffSegLung", None)
    lines: list[str] = []
    outcomes = script.run(folder, folder / "out", keepNames=keepNames, report=lines.append)
    cases = find_cases(folder, keepNames)
    assert [outcome.case for outcome in outcomes] == [case.name for case in cases]
    assert all(outcome.error and outcome.segmentation is None for outcome in outcomes)
    assert len(lines) == 5
    assert lines[0].startswith(f"[1 of 5] {cases[0].name}: failed: ")
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert list((folder / "out").iterdir()) == []


def test_nothing_printed_names_a_ct_but_the_key(
    script: ModuleType, folder: Path, scene: Any, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    """The reader's own messages begin with the file's name; it must have been replaced."""
    monkeypatch.setitem(sys.modules, "DiffSegLung", broken := ModuleType("DiffSegLung"))
    broken.DiffSegLungLogic = type("Logic", (), {"process": None})  # type: ignore[attr-defined]
    for file in folder.iterdir():
        if file.is_file():
            file.rename(file.with_name(f"SMITH-{file.name}"))
    key = folder.parent / "key.csv"
    assert script.main([str(folder), str(folder.parent / "out"), "--key", str(key)]) == 1
    said = capfd.readouterr()
    assert "cannot be read" in said.err
    assert not any(name in said.out + said.err for name in ("SMITH", "DOE", "1950"))
    assert "DOE^JANE/1950" in key.read_text() and "SMITH-a.nrrd" in key.read_text()
    kept = script.run(folder, folder.parent / "out", keepNames=True, report=print)
    assert {outcome.case for outcome in kept} >= {"SMITH-a", "DOE_JANE_1950"}


def test_scene_is_left_as_it_was(script: ModuleType, scene: Any) -> None:
    known = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    volume.CreateDefaultDisplayNodes()
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "result")
    segmentation.CreateDefaultDisplayNodes()
    script._removeNewNodes(known)
    assert {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")} == known


def test_slicer_reads_it_on_every_system() -> None:
    """Slicer opens a script with the system's own encoding: plain ASCII is the same in all."""
    SCRIPT.read_text(encoding="ascii")
