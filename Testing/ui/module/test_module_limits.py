"""Where things are other than expected: removed meanwhile, placed elsewhere, missing, broken."""

from __future__ import annotations

import gzip
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from DiffSegLungLib.io.cases import file_code
from Testing.ui.module import steps

SCRIPT = steps.MODULE.parent / "Resources" / "Scripts" / "SegmentFolder.py"


def addTransform(matrix: np.ndarray, name: str) -> Any:
    import slicer

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    return node


def shift(*millimetres: float) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = millimetres
    return matrix


RIGID = shift(11.0, -7.5, 30.0)
RIGID[:2, :2] = [[0.6, -0.8], [0.8, 0.6]]


# --- removed meanwhile -----------------------------------------------------------------------------------


def test_target_removed_meanwhile(module: Any, phantom: Any, runFiles: Path, scene: Any) -> None:
    """Minutes of work are not thrown away: the result goes to a new node."""
    from DiffSegLungSlicer import results

    target = steps.addSegments(phantom, {"mine": steps.LEFT_PIECE})
    with steps.finishedJob([runFiles], phantom, target) as job:
        scene.RemoveNode(target)
        node = job.commit()
    assert node is not target
    assert node.GetScene() is scene
    assert results.tissueRows(node)


def test_regions_removed_meanwhile(module: Any, phantom: Any, runFiles: Path, scene: Any) -> None:
    from DiffSegLungSlicer import results

    regions = steps.addSegments(phantom, {"lesion": steps.LEFT_PIECE})
    with steps.finishedJob([runFiles], phantom, regions=regions) as job:
        scene.RemoveNode(regions)
        node = job.commit()
    assert [name for name, _shares in results.shareRows(node)] == ["whole lung", "right lung", "left lung"]
    assert results.regionsOf(node) is None
    assert not node.GetNodeReferenceID(results.REGIONS_ROLE)


def test_lungs_removed_from_a_result(shown: Any, result: Any, scene: Any) -> None:
    """Nothing can be measured without lungs: one line, the last numbers stay."""
    from DiffSegLungSlicer import results

    before = results.tissueRows(result)
    scene.RemoveNode(result.GetNodeReference(results.LUNGS_ROLE))
    result.GetSegmentation().RemoveSegment("cavity")
    steps.waitUntil(lambda: "are gone: segment again" in shown.ui.errorLabel.text, 3)
    assert results.tissueRows(result) == before


# --- placed elsewhere ------------------------------------------------------------------------------------


def test_result_moves_with_the_ct(module: Any, phantom: Any, runFiles: Path, tmp_path: Path) -> None:
    """Under a transform it lies right in the world, and what is saved has the CT's own geometry."""
    import slicer

    from DiffSegLungSlicer import exchange, results

    still = results.largestPiece(steps.commitFiles(runFiles, phantom), "consolidation")
    transform = addTransform(RIGID, "moved")
    phantom.SetAndObserveTransformNodeID(transform.GetID())
    node = steps.commitFiles(runFiles, phantom)
    moved = results.largestPiece(node, "consolidation")
    assert moved == pytest.approx((RIGID @ [*still, 1])[:3])
    bounds = [0.0] * 6
    node.GetRASBounds(bounds)
    assert all(low <= at <= high for low, at, high in zip(bounds[::2], moved, bounds[1::2], strict=True))
    hierarchy = [each.GetTransformNodeID() for each in (node, node.GetNodeReference(results.LUNGS_ROLE))]
    assert hierarchy == [transform.GetID()] * 2
    labels = exchange.labelArray(exchange.SegmentChoice(node), phantom, {"consolidation": 1})
    assert np.array_equal(labels == 1, steps.voxelsOf(node, "consolidation", phantom))
    assert slicer.util.saveNode(node, str(tmp_path / "moved.seg.nrrd"))
    ct, saved = sitk.ReadImage(str(steps.PHANTOM)), sitk.ReadImage(str(tmp_path / "moved.seg.nrrd"))
    assert saved.GetSize() == ct.GetSize()
    for field in ("GetOrigin", "GetSpacing", "GetDirection"):  # Slicer writes them rounded in the 16th digit
        assert getattr(saved, field)() == pytest.approx(getattr(ct, field)(), abs=1e-12), field


def test_mask_under_a_transform_of_its_own(module: Any, phantom: Any) -> None:
    """Two voxels along each axis: where the user sees the mask, not where its file has it."""
    from DiffSegLungSlicer import exchange

    mask = steps.addSegments(phantom, {"lung": steps.RIGHT_PIECE})
    before = exchange.labelArray(exchange.SegmentChoice(mask), phantom, {"lung": 1})
    # The phantom's x and y axes run against Slicer's.
    mask.SetAndObserveTransformNodeID(addTransform(shift(-5.0, -5.0, 5.0), "mask moved").GetID())
    after = exchange.labelArray(exchange.SegmentChoice(mask), phantom, {"lung": 1})
    assert before.sum() == 16**3
    assert np.array_equal(after, np.roll(before, (2, 2, 2), (0, 1, 2)))


def test_mask_on_a_coarser_grid(module: Any, phantom: Any, tmp_path: Path) -> None:
    """Lungs drawn on another image; the command line gets them on the CT's grid, with names and codes."""
    import slicer

    from DiffSegLungSlicer import exchange

    matrix = np.diag([-5.0, -5.0, 5.0, 1.0])
    matrix[:3, 3] = slicer.util.arrayFromVTKMatrix(ijkToRas(phantom))[:3, 3]
    coarse = slicer.util.addVolumeFromArray(np.zeros((60, 56, 70), np.int16), matrix, "coarse")
    mask = steps.addSegments(coarse, {"right lung": np.s_[26:34, 35:43, 20:28]})
    path = tmp_path / "lungs.seg.nrrd"
    exchange.exportSegments(exchange.SegmentChoice(mask), phantom, path)
    image = sitk.ReadImage(str(path))
    assert image.GetSize() == (140, 112, 120)
    assert image.GetMetaData("Segment0_Name") == "right lung"
    found = np.argwhere(sitk.GetArrayFromImage(image))
    assert np.abs(found.min(axis=0) - [52, 70, 40]).max() <= 1
    assert np.abs(found.max(axis=0) - [67, 85, 55]).max() <= 1


def ijkToRas(volume: Any) -> Any:
    import vtk

    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    return matrix


def test_mask_that_is_a_surface(module: Any, phantom: Any) -> None:
    """A segmentation made from a model has no voxels before we ask for them."""
    import slicer
    import vtk

    from DiffSegLungSlicer import exchange

    i, j, k = (along.start + 8 for along in reversed(steps.RIGHT_PIECE))
    centre = ijkToRas(phantom).MultiplyPoint((i, j, k, 1))[:3]
    ball = vtk.vtkSphereSource()
    ball.SetCenter(centre)
    ball.SetRadius(20.0)
    ball.SetThetaResolution(40)
    ball.SetPhiResolution(40)
    ball.Update()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "from a model")
    node.SetReferenceImageGeometryParameterFromVolumeNode(phantom)
    node.AddSegmentFromClosedSurfaceRepresentation(ball.GetOutput(), "ball", (1, 0, 0), "ball")
    labels = exchange.labelArray(exchange.SegmentChoice.of((node, "ball")), phantom, {"ball": 1})
    assert labels.sum() * 2.5**3 == pytest.approx(4 / 3 * np.pi * 20**3, rel=0.05)
    assert labels[k, j, i] == 1


def test_mask_beside_the_ct_is_said(panel: Any, phantom: Any) -> None:
    """One line after the click, and nothing has started."""
    mask = steps.addSegments(phantom, {"lung": steps.RIGHT_PIECE}, "elsewhere")
    mask.SetAndObserveTransformNodeID(addTransform(shift(2000, 0, 0), "far").GetID())
    panel.ui.inputSelector.setCurrentNode(phantom)
    panel.ui.lungsSelector.setCurrentNode(mask)
    before = steps.nodeIds()
    steps.click(panel.ui.applyButton)
    steps.waitUntil(lambda: panel._run is None)
    text = panel.ui.errorLabel.text
    assert "does not overlap the CT" in text or "do not lie in the CT" in text
    assert steps.nodeIds() == before
    assert steps.temporaryFolders() == []


def test_too_many_segments_are_said(module: Any, phantom: Any, tmp_path: Path) -> None:
    import slicer

    from DiffSegLungSlicer import exchange

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "everything")
    for index in range(256):
        node.GetSegmentation().AddEmptySegment(f"s{index}")
    with pytest.raises(UnusableInputError, match="everything has 256 segments, 255 are the most"):
        exchange.exportSegments(exchange.SegmentChoice(node), phantom, tmp_path / "s.seg.nrrd")
    assert list(tmp_path.iterdir()) == []


# --- the panel follows -----------------------------------------------------------------------------------


def test_names_are_no_markup(panel: Any, runFiles: Path, phantom: Any) -> None:
    phantom.SetName("<b>bold</b>")
    steps.show(panel, steps.commitFiles(runFiles, phantom))
    assert "&lt;b&gt;bold&lt;/b&gt;" in panel.ui.resultLabel.text
    panel.showError("<i>what</i>")
    assert panel.ui.errorLabel.text == "<i>what</i>"
    assert panel.ui.errorLabel.textFormat == 0  # Qt::PlainText: shown as it is
    panel.showError("")


def test_a_second_run_is_no_correction(shown: Any, result: Any, phantom: Any, runFiles: Path) -> None:
    """The panel watches the segments; a new run changes them, and takes the user's mark away."""
    from DiffSegLungSlicer import results

    dense = steps.voxelsOf(result, "consolidation", phantom)
    steps.setVoxels(result, "consolidation", np.zeros_like(dense), phantom)
    steps.waitUntil(lambda: results.isCorrected(result), 3)
    assert steps.commitFiles(runFiles, phantom, result) is result
    steps.goOn(1.5)
    assert not results.isCorrected(result)
    assert "corrected" not in shown.ui.resultLabel.text
    assert np.array_equal(steps.voxelsOf(result, "consolidation", phantom), dense)


def test_choosing_another_result_shows_its_numbers(
    shown: Any, result: Any, phantom: Any, runFiles: Path
) -> None:
    other = steps.commitFiles(runFiles, phantom)
    dense = steps.voxelsOf(other, "consolidation", phantom)
    steps.setVoxels(other, "consolidation", np.zeros_like(dense), phantom)
    shown.logic.measures(other)
    first = steps.cell(shown, "consolidation", 2).text()
    assert float(first) > 0
    shown.ui.segmentationSelector.setCurrentNode(other)
    assert float(steps.cell(shown, "consolidation", 2).text()) == 0
    assert "corrected by hand" in shown.ui.resultLabel.text
    shown.ui.segmentationSelector.setCurrentNode(result)
    assert steps.cell(shown, "consolidation", 2).text() == first
    assert "corrected" not in shown.ui.resultLabel.text


def test_a_segmentation_that_is_not_ours_shows_no_result(panel: Any, pieces: Any) -> None:
    panel.ui.segmentationSelector.setCurrentNode(pieces)
    assert not panel.ui.resultsCollapsibleButton.enabled
    assert panel.ui.resultLabel.text == "No result yet."


def test_saved_scene_brings_warnings_and_hidden_lungs(shown: Any, result: Any, tmp_path: Path) -> None:
    import slicer

    from DiffSegLungSlicer import results

    said = shown.ui.warningsLabel.text
    assert "<li>" in said
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert not shown.ui.warningsLabel.isVisibleTo(shown.parent)
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    assert shown.ui.warningsLabel.text == said
    assert shown.ui.warningsLabel.isVisibleTo(shown.parent)
    node = shown.ui.segmentationSelector.currentNode()
    lungs = node.GetNodeReference(results.LUNGS_ROLE)
    assert lungs.GetSegmentation().GetSegmentIDs() == ("right-lung", "left-lung")
    assert not lungs.GetDisplayNode().GetVisibility()
    assert shown.ui.inputSelector.currentNode() is results.volumeOf(node)
    uncertainty = node.GetNodeReference(results.UNCERTAINTY_ROLE)
    assert uncertainty.GetImageData().GetScalarRange()[1] > 0


def test_reload_ends_a_check_of_the_installation(panel: Any) -> None:
    import standin

    panel.ui.optionsGroupBox.collapsed = False
    steps.click(panel.ui.checkButton)
    run = panel.installationSection._run
    steps.waitUntil(lambda: len(steps.family(run.pid)) > 1)
    processes = steps.family(run.pid)
    standin.reloadScriptedModule("DiffSegLung")
    steps.waitUntil(lambda: all(map(steps.isGone, processes)), 10)
    assert steps.temporaryFolders() == []


# --- packages --------------------------------------------------------------------------------------------


@pytest.fixture
def pip(module: Any, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What pip would be asked, and the environment that it would see; it installs nothing."""
    import slicer.packaging

    seen: dict[str, Any] = {"asked": [], "held": []}

    def look(requirements: list[str], requester: str = "") -> None:
        seen["asked"] += requirements
        seen["environment"] = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
        held = pathOf(os.environ["PIP_CONSTRAINT"])
        seen["held"].append([line.split("==")[0] for line in held.read_text(encoding="utf-8").split()])

    monkeypatch.setattr(slicer.packaging, "pip_ensure", look)
    return seen


def pathOf(address: str) -> Path:
    from urllib.parse import urlparse
    from urllib.request import url2pathname

    return Path(url2pathname(urlparse(address).path))


def test_torch_comes_from_its_extension(module: Any, pip: dict[str, Any], tmp_path: Path) -> None:
    from DiffSegLungSlicer import environment

    (tmp_path / "requirements.txt").write_text("torch>=999\n", encoding="utf-8")
    with pytest.raises(MissingPartError, match="install the extension PyTorch in the Extensions Manager"):
        environment.ensure(tmp_path / "requirements.txt")
    assert pip["asked"] == []


def test_torch_from_a_folder_of_wheels(module: Any, pip: dict[str, Any], tmp_path: Path) -> None:
    """Pip may take another torch, and nothing of Slicer's; then torch is held too when the others come."""
    from DiffSegLungSlicer import environment

    before = dict(os.environ)
    (tmp_path / "requirements.txt").write_text("torch>=999\nno-such-package-at-all\n", encoding="utf-8")
    with pytest.raises(MissingPartError, match="Python packages are missing: torch>=999, no-such-package"):
        environment.ensure(tmp_path / "requirements.txt", str(tmp_path))
    assert pip["asked"] == ["torch>=999", "no-such-package-at-all"]
    assert ["torch" in held for held in pip["held"]] == [False, True]
    assert all({"numpy", "packaging"} <= set(held) for held in pip["held"])
    assert pip["environment"]["PIP_NO_INDEX"] == "1"
    assert pip["environment"]["PIP_FIND_LINKS"] == tmp_path.as_uri()
    assert dict(os.environ) == before


def test_declining_is_said(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import slicer.packaging

    from DiffSegLungSlicer import environment

    def decline(requirements: list[str], requester: str = "") -> None:
        raise RuntimeError("User declined package installation")

    monkeypatch.setattr(slicer.packaging, "pip_ensure", decline)
    (tmp_path / "requirements.txt").write_text("no-such-package-at-all\n", encoding="utf-8")
    with pytest.raises(MissingPartError, match="were not installed: User declined"):
        environment.ensure(tmp_path / "requirements.txt")


def test_a_missing_package_is_one_line_in_the_panel(
    panel: Any, phantom: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements.txt").write_text("no-such-package-at-all\n", encoding="utf-8")
    monkeypatch.setattr(panel, "resourcePath", lambda name: str(tmp_path / name))
    panel.ui.inputSelector.setCurrentNode(phantom)
    steps.click(panel.ui.applyButton)
    assert "no-such-package-at-all" in panel.ui.errorLabel.text
    assert panel.ui.applyButton.text == "Segment lung pathology"
    assert not panel.logic.isRunning()


def test_all_that_is_required_is_here(module: Any) -> None:
    from DiffSegLungSlicer import environment

    file = steps.MODULE.parent / "Resources" / "requirements.txt"
    assert environment.missing(file) == []
    environment.ensure(file)


# --- a folder of CT --------------------------------------------------------------------------------------


@pytest.fixture
def script() -> Iterator[ModuleType]:
    """The headless script as a module; it must not start by itself."""
    spec = importlib.util.spec_from_file_location("SegmentFolder", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["SegmentFolder"] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    yield module
    del sys.modules["SegmentFolder"]


def writeGoodAndBrokenCt(folder: Path) -> sitk.Image:
    """The good one is the phantom at the size of a small child, whose lungs take less time."""
    small = sitk.ReadImage(str(steps.PHANTOM))
    small.SetSpacing((1.1, 1.1, 1.1))
    folder.mkdir()
    sitk.WriteImage(small, str(folder / "SMITH_CHILD.nrrd"))
    (folder / "SMITH_BROKEN.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    return small


def assertNothingIsNamed(said: str, folder: Path) -> None:
    """Neither what was printed nor names and contents of the results have the name of a CT."""
    contents = [gzip.decompress(file.read_bytes().partition(b"\n\n")[2]) for file in folder.glob("*.nrrd")]
    assert len(contents) == 1
    headers = [file.read_bytes() for file in folder.iterdir()]
    for text in (said.encode(), *(file.name.encode() for file in folder.iterdir()), *headers, *contents):
        assert b"SMITH" not in text and b"CHILD" not in text


def test_the_script_as_slicer_starts_it(tmp_path: Path) -> None:
    """The command of the module's page, with the bench as the executable: its status is the script's."""
    pytest.importorskip("slicer", reason="needs slicer-core")
    writeGoodAndBrokenCt(tmp_path / "in")
    slicerCommand = [sys.executable, str(steps.REPOSITORY / "Testing" / "standin" / "start_slicer.py")]
    options = ["--no-main-window", "--no-splash", "--additional-module-paths", str(steps.MODULE.parent)]
    script = ["--python-script", str(SCRIPT), "--", str(tmp_path / "in"), str(tmp_path / "out")]
    done = subprocess.run(
        [*slicerCommand, *options, *script, "--quality", "fast", "--device", "cpu"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 1, done.stderr
    assert "1 of 2 done" in done.stdout
    child, broken = (file_code(tmp_path / "in" / f"SMITH_{name}.nrrd") for name in ("CHILD", "BROKEN"))
    assert done.stderr.splitlines()[-1].startswith(f"failed: {broken}: {broken}: cannot be read")
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == [f"{child}.csv", f"{child}.seg.nrrd"]
    assertNothingIsNamed(done.stdout + done.stderr, tmp_path / "out")


def test_folder_with_one_good_and_one_broken_ct(
    module: Any, script: ModuleType, scene: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    small = writeGoodAndBrokenCt(tmp_path / "in")
    before = steps.countNodes()
    words = [str(tmp_path / "in"), str(tmp_path / "out"), "--keep-names", "--quality", "fast"]
    status = script.main([*words, "--device", "cpu"])
    said = capfd.readouterr()
    assert status == 1
    assert "1 of 2 done" in said.out
    assert "failed: SMITH_BROKEN: " in said.err
    written = sorted(file.name for file in (tmp_path / "out").iterdir())
    assert written == ["SMITH_CHILD.csv", "SMITH_CHILD.seg.nrrd"]
    saved = sitk.ReadImage(str(tmp_path / "out" / "SMITH_CHILD.seg.nrrd"))
    assert saved.GetSize() == small.GetSize()
    assert saved.GetSpacing() == pytest.approx(small.GetSpacing())
    assert steps.countNodes() == before
    assert steps.temporaryFolders() == []
