"""The headless script, as far as it goes without Slicer's application: what it takes, refuses and reports."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

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
    """CT by their names, and what is none."""
    names = ("b.nii.gz", "a.nrrd", "A2.MHA", "old.seg.nrrd", "notes.txt", "c.mhd", "c.raw")
    for name in names:
        (tmp_path / name).touch()
    for name, content in (("series/deep/down", b"\0" * 128 + b"DICM"), ("papers", b"no DICOM")):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0001").write_bytes(content)
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.fixture
def scene() -> Iterator[Any]:
    """A scene with a node that somebody else has put there."""
    before = getattr(slicer, "mrmlScene", None)
    slicer.mrmlScene = slicer.vtkMRMLScene()
    slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "of somebody else")
    yield slicer.mrmlScene
    slicer.mrmlScene.Clear(True)
    slicer.mrmlScene = before


def test_takes_ct_files_and_dicom_folders(script: ModuleType, folder: Path) -> None:
    assert [scan.name for scan in script.findScans(folder)] == [
        "A2.MHA",
        "a.nrrd",
        "b.nii.gz",
        "c.mhd",
        "series",
    ]


def test_results_are_named_after_the_ct(script: ModuleType, folder: Path) -> None:
    assert script.outputNames(script.findScans(folder)) == ["A2", "a", "b", "c", "series"]


def test_no_result_overwrites_another(script: ModuleType, folder: Path) -> None:
    (folder / "a.nii.gz").touch()
    (folder / "series.v2").mkdir()
    (folder / "series.v2/1.dcm").write_bytes(b"\0" * 128 + b"DICM")
    names = script.outputNames(script.findScans(folder))
    assert names == ["A2", "a.nii.gz", "a.nrrd", "b", "c", "series", "series.v2"]


def test_arguments_behind_slicers_own(script: ModuleType) -> None:
    options = script.parseArguments(
        ["--", "in", "out", "--quality", "fast", "--device", "cpu", "--seed", "3"]
    )
    expected = {"inFolder": Path("in"), "outFolder": Path("out"), "quality": "fast", "device": "cpu"}
    assert vars(options) == {**expected, "model": "", "seed": 3}
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


def test_a_ct_that_fails_is_reported_and_the_others_go_on(
    script: ModuleType, folder: Path, scene: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Here every CT fails, for there is no module; each has a reason, and the scene is as before."""
    monkeypatch.setitem(sys.modules, "DiffSegLung", None)
    lines: list[str] = []
    outcomes = script.run(folder, folder / "out", report=lines.append)
    assert [outcome.source.name for outcome in outcomes] == [
        "A2.MHA",
        "a.nrrd",
        "b.nii.gz",
        "c.mhd",
        "series",
    ]
    assert all(outcome.error and outcome.segmentation is None for outcome in outcomes)
    assert lines[0].startswith("[1 of 5] A2.MHA: failed: ")
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 1
    assert list((folder / "out").iterdir()) == []


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
