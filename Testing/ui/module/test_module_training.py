"""Fine-tuning from the panel: a tiny model goes on learning on two phantoms, in real child processes."""

from __future__ import annotations

import json
import shutil
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from DiffSegLungLib.errors import MissingPartError, UnusableInputError
from Testing.ui.module import steps

SPACING = 4.0
STEPS = 4
UNENDING = 100_000
"""Steps of a run that is paused and killed: however slow the panel is, the run does not outrun it."""
PATIENCE = 1200
"""Seconds after which a state that does not come is a fault, on however busy a machine."""


# --- a tiny model and two patients -----------------------------------------------------------------------


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch", reason="needs torch")
    from Testing.unit.tiny_model import write_tiny_model

    return write_tiny_model(tmp_path_factory.mktemp("model") / "tiny", SPACING)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two phantoms, as files."""
    from DiffSegLungLib.app.commands import phantom_to_files

    folder = tmp_path_factory.mktemp("ct")
    for seed in (0, 1):
        phantom_to_files(folder / f"patient {seed}.nrrd", spacing=SPACING, seed=seed)
    return sorted(folder.iterdir())


@pytest.fixture
def store(tiny: Path, scene: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's own models, of which the tiny one is the first."""
    folder = tmp_path / "models"
    shutil.copytree(tiny, folder / "tiny")
    monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(folder))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    return folder


@pytest.fixture
def training(store: Path, module: Any, panel: Any) -> Iterator[Any]:
    """The logic; no run outlives the test, nor does what the panel shows of one."""
    logic = module.DiffSegLungTrainingLogic()
    yield logic
    logic.stop()
    steps.waitUntil(lambda: panel.trainingSection._job is None and panel.trainingSection._preflight is None)
    panel.ui.trainingNameEdit.text = panel.ui.trainingFolderEdit.currentPath = ""
    panel.ui.trainingProgressWidget.visible = False


@pytest.fixture
def scans(module: Any, files: list[Path]) -> list[Any]:
    """The phantoms in the scene."""
    import slicer

    return [slicer.util.loadVolume(str(file)) for file in files]


@pytest.fixture
def ready(training: Any, panel: Any, scans: list[Any]) -> Any:
    """The panel with everything chosen for a short run."""
    import qt

    ui = panel.ui
    ui.trainingCollapsibleButton.collapsed = False
    ui.trainingFolderEdit.currentPath = ""  # the panel outlives a test, and a folder is not the scene's
    for node in scans:
        ui.trainingVolumesSelector.setCheckState(node, qt.Qt.Checked)
    ui.trainingBaseSelector.setCurrentIndex(ui.trainingBaseSelector.findData("tiny"))
    ui.trainingDeviceSelector.setCurrentIndex(1)
    ui.trainingStepsSpinBox.value = STEPS
    ui.trainingNameEdit.text = "own"
    assert panel._parameterNode.trainingDevice.value == "cpu"
    assert panel._parameterNode.trainingName == "own"
    return panel


def startAndLearn(panel: Any) -> Any:
    """Clicks and waits until a step has been made; returns the job."""
    section = panel.trainingSection
    steps.click(panel.ui.trainingStartButton)
    assert panel.ui.trainingStartButton.text == "Pause", panel.ui.trainingErrorLabel.text
    job = section._job
    steps.waitUntil(lambda: section._job is None or job._stage == "train", PATIENCE)
    assert section._job is job, panel.ui.trainingErrorLabel.text
    return job


def waitForEnd(panel: Any) -> None:
    steps.waitUntil(lambda: panel.trainingSection._job is None, PATIENCE)


def errorOf(panel: Any) -> str:
    label = panel.ui.trainingErrorLabel
    return label.text if label.isVisibleTo(panel.parent) else ""


# --- the whole life --------------------------------------------------------------------------------------


def test_check_pause_kill_resume_finish_compare_delete(ready: Any, scene: Any, store: Path) -> None:
    """All by clicks; the scene is closed while the model learns."""
    checkFirst(ready)
    ready.ui.trainingStepsSpinBox.value = UNENDING
    pauseAndResume(ready, store)
    killAndResume(ready, store)
    discardIt(ready, store)
    ready.ui.trainingStepsSpinBox.value, ready.ui.trainingNameEdit.text = STEPS, "own"
    startAndLearn(ready)
    scene.Clear(0)
    waitForEnd(ready)
    assert errorOf(ready) == "" and not ready.ui.trainingSamplesLabel.isVisibleTo(ready.parent)
    assertModelIsThere(ready, store)
    deleteIt(ready, store)


def checkFirst(panel: Any) -> None:
    steps.click(panel.ui.trainingCheckButton)
    steps.waitUntil(lambda: panel.trainingSection._preflight is None, PATIENCE)
    text = panel.ui.trainingPreflightLabel.text
    assert "Ready" in text and "2 CT of 2 patients, 1 held back" in text, text
    assert f"{STEPS} steps on cpu" in text
    assert steps.temporaryFolders() == []


def pauseAndResume(panel: Any, store: Path) -> None:
    job = startAndLearn(panel)
    processes = steps.family(job.pid)
    assert not panel.ui.trainingInputsWidget.enabled
    with pytest.raises(UnusableInputError, match="'own' is running: wait for it"):
        panel.trainingSection.logic.finetune(parameters={"name": "other"})
    steps.click(panel.ui.trainingStartButton)
    waitForEnd(panel)
    steps.waitUntil(lambda: all(map(steps.isGone, processes)), PATIENCE)
    [run] = panel.trainingSection.logic.unfinished()
    assert run["name"] == "own" and 0 < run["step"] < run["steps"] == UNENDING
    assert (store / "own.run" / "checkpoint.safetensors").exists()
    assert "paused" in panel.ui.trainingStatusLabel.text
    assert panel.ui.trainingStartButton.text == "Resume"
    assert errorOf(panel) == ""


def killAndResume(panel: Any, store: Path) -> None:
    """As a crash or a power cut would: nothing is asked, nothing is written any more."""
    from DiffSegLungLib.training.run_files import read_log

    ownRun = store / "own.run"
    before = panel.trainingSection.logic.unfinished()[0]["step"]
    job = startAndLearn(panel)
    for process in steps.family(job.pid):
        process.kill()
    waitForEnd(panel)
    assert "ended by signal 9" in errorOf(panel)
    [run] = panel.trainingSection.logic.unfinished()
    assert run["step"] >= before
    assert panel.ui.trainingStartButton.text == "Resume"
    startAndLearn(panel)
    assertSamplesAreShown(panel, ownRun)
    steps.waitUntil(lambda: len(read_log(ownRun)) > run["step"], PATIENCE)
    steps.click(panel.ui.trainingStartButton)
    waitForEnd(panel)
    log = read_log(ownRun)
    assert [line["step"] for line in log] == list(range(1, len(log) + 1)), "no step is lost or made twice"


def assertSamplesAreShown(panel: Any, ownRun: Path) -> None:
    """A picture as the run leaves one with each comparison, of which the first is a hundred steps away."""
    from matplotlib.image import imsave

    from DiffSegLungLib.training.run_files import SAMPLES

    assert not panel.ui.trainingSamplesLabel.isVisibleTo(panel.parent)
    imsave(ownRun / SAMPLES, np.zeros((8, 8)), cmap="gray")
    steps.waitUntil(lambda: panel.ui.trainingSamplesLabel.isVisibleTo(panel.parent), PATIENCE)


def discardIt(panel: Any, store: Path) -> None:
    import qt
    import slicer
    import standin

    slicer.app.setTestingEnabled(False)
    standin.answers.give(qt.QMessageBox, qt.QMessageBox.Ok)
    steps.click(panel.ui.trainingDiscardButton)
    slicer.app.setTestingEnabled(True)
    assert panel.trainingSection.logic.unfinished() == []
    assert sorted(path.name for path in store.iterdir()) == ["tiny"]


def assertModelIsThere(panel: Any, store: Path) -> None:
    import standin

    from DiffSegLungLib.training.run_files import LOG, read_log

    logic, ui = panel.trainingSection.logic, panel.ui
    assert ui.modelSelector.findData("own") > 0, "it can be chosen for segmentation at once"
    assert logic.verify("own").folder == store / "own"
    found = logic.comparison("own")
    assert found["parent"] == "tiny" and found["picture"].stat().st_size > 10_000
    assert found["verdict"][0] in ui.trainingVerdictLabel.text
    assert ui.trainingPictureLabel.isVisibleTo(panel.parent)
    steps.click(ui.trainingPictureButton)
    assert standin.openedUrls == [found["picture"].as_uri()]
    assert logic.unfinished() == []
    assert [path.name for path in (store / "own.run").iterdir()] == [LOG], "no CT stays"
    log = read_log(store / "own.run")
    assert [line["step"] for line in log] == list(range(1, STEPS + 1)), "no step is lost or made twice"
    steps.click(ui.trainingVerifyButton)
    assert "own is whole: SHA-256" in ui.trainingVerdictLabel.text
    steps.click(ui.trainingCompareButton)
    assert "Noise loss" in ui.trainingVerdictLabel.text


def deleteIt(panel: Any, store: Path) -> None:
    import qt
    import slicer
    import standin

    slicer.app.setTestingEnabled(False)
    standin.answers.give(qt.QMessageBox, qt.QMessageBox.Ok)
    ui = panel.ui
    ui.trainingModelSelector.setCurrentIndex(ui.trainingModelSelector.findData("own"))
    steps.click(ui.trainingDeleteButton)
    assert sorted(path.name for path in store.iterdir()) == ["tiny"]
    assert ui.modelSelector.findData("own") < 0
    assert errorOf(panel) == ""


# --- what is refused -------------------------------------------------------------------------------------


def test_the_button_says_what_is_missing(training: Any, panel: Any) -> None:
    ui = panel.ui
    ui.trainingCollapsibleButton.collapsed = False
    assert not ui.trainingStartButton.enabled and not ui.trainingCheckButton.enabled
    for hidden in (ui.trainingProgressWidget, ui.trainingUnfinishedWidget, ui.trainingPictureButton):
        assert not hidden.isVisibleTo(panel.parent)
    assert "Check CT of the scene" in ui.trainingStartButton.toolTip
    ui.trainingFolderEdit.currentPath = str(steps.REPOSITORY)
    assert "name" in ui.trainingStartButton.toolTip
    ui.trainingNameEdit.text = "own"
    assert ui.trainingStartButton.enabled
    assert "not for clinical use" in ui.trainingNotClinicalLabel.text.lower()


def test_a_single_volume_is_refused_at_once(ready: Any, scans: list[Any], store: Path) -> None:
    import qt

    ready.ui.trainingVolumesSelector.setCheckState(scans[1], qt.Qt.Unchecked)
    steps.click(ready.ui.trainingStartButton)
    assert "Only one CT is chosen" in errorOf(ready)
    assert ready.ui.trainingStartButton.text == "Start fine-tuning"
    assert [path.name for path in store.iterdir()] == ["tiny"]


def test_a_folder_that_cannot_be_written(ready: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DIFFSEGLUNG_MODELS", str(tmp_path / "file" / "models"))
    steps.click(ready.ui.trainingStartButton)
    assert "Cannot write into" in errorOf(ready)
    assert not ready.trainingSection.logic.isRunning()


def test_a_full_disk(ready: Any, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda place: types.SimpleNamespace(free=1_000_000))
    steps.click(ready.ui.trainingStartButton)
    assert "1 MB free" in errorOf(ready) and "DIFFSEGLUNG_MODELS" in errorOf(ready)
    assert [path.name for path in store.iterdir()] == ["tiny"]


def test_a_run_that_another_slicer_has_at_work(ready: Any, store: Path) -> None:
    from DiffSegLungLib.training.lock import locked

    with locked(store / "own.run"):
        steps.click(ready.ui.trainingStartButton)
        assert "Another run is at work" in errorOf(ready)


@pytest.mark.parametrize(
    ("name", "sentence"), [("../out", "is no name"), ("", "is no name"), ("tiny", "already")]
)
def test_names(training: Any, scans: list[Any], store: Path, name: str, sentence: str) -> None:
    with pytest.raises(UnusableInputError, match=sentence):
        training.finetune(scans, parameters={"name": name})
    assert [path.name for path in store.iterdir()] == ["tiny"]


def test_a_base_of_another_version(training: Any, scans: list[Any], store: Path) -> None:
    """The library's own sentence, and nothing stays that could be resumed."""
    old = store / "old"
    shutil.copytree(store / "tiny", old)
    description = json.loads((old / "model.json").read_text())
    (old / "model.json").write_text(json.dumps(description | {"format": 99}))
    with pytest.raises(MissingPartError, match="another format"):
        training.finetune(scans, parameters={"name": "own", "base": str(old), "steps": 1})
    assert training.unfinished() == [] and not (store / "own.run").exists()


def test_volumes_without_lungs(training: Any, store: Path) -> None:
    import slicer

    soft = np.full((40, 60, 60), -1000, np.int16)
    soft[:, 10:50, 10:50] = 40
    nodes = [slicer.util.addVolumeFromArray(soft, np.diag([-4.0, -4.0, 4.0, 1.0]), name) for name in "ab"]
    with pytest.raises(UnusableInputError, match="(?i)lung"):
        training.finetune(nodes, parameters={"name": "own", "base": "tiny", "steps": 1})
    assert training.unfinished() == []


def test_nothing_to_resume(training: Any) -> None:
    with pytest.raises(UnusableInputError, match="no unfinished run 'own'"):
        training.resume("own")
    with pytest.raises(UnusableInputError, match="no unfinished run 'own'"):
        training.discard("own")
    with pytest.raises(UnusableInputError, match="was not fine-tuned"):
        training.comparison("tiny")


# --- its parts -------------------------------------------------------------------------------------------


def test_ct_of_one_patient_are_kept_together(module: Any, scans: list[Any], tmp_path: Path) -> None:
    """By the subject hierarchy; table and files have numbers, not names."""
    import slicer

    from DiffSegLungLib.training.sources import read_persons
    from DiffSegLungSlicer.trainingSources import Sources

    hierarchy = slicer.mrmlScene.GetSubjectHierarchyNode()
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Mrs Example")
    for scan in scans:
        hierarchy.SetItemParent(hierarchy.GetItemByDataNode(scan), patient)
    scans[1].SetName("v. 1.2: a/b")
    written = Sources(scans).write(tmp_path)
    assert [path.name for path in written] == ["001.nrrd", "002.nrrd"]
    persons = read_persons(tmp_path / "patients.csv")
    assert persons == {"001": "patient 1", "002": "patient 1"}


def test_series_of_the_dicom_browser(training: Any, panel: Any, files: list[Path], tmp_path: Path) -> None:
    """What is selected there is added, copied where a run finds it, and forgotten with nothing selected."""
    pytest.importorskip("pydicom", reason="needs pydicom")
    import slicer
    import standin

    from DiffSegLungSlicer.trainingSources import Sources
    from Testing.unit.dicom_series import write_series

    write_series(tmp_path / "series", np.full((4, 8, 8), -850, np.int16))
    standin.addDicomFolder(tmp_path / "series")
    found = sorted(map(str, (tmp_path / "series").iterdir()))
    browser = types.SimpleNamespace(useVisualDICOMBrowser=False, fileLists=[found])
    slicer.modules.DICOMInstance = types.SimpleNamespace(browserWidget=browser)
    try:
        steps.click(panel.ui.trainingDicomButton)
        assert panel.ui.trainingDicomLabel.text == "1 series"
        [folder] = Sources(seriesUids=panel.trainingSection._series).write(tmp_path / "run")
        assert len(list(folder.iterdir())) == len(found)
        browser.fileLists = []
        steps.click(panel.ui.trainingDicomButton)
        assert panel.ui.trainingDicomLabel.text == "" and "Select CT series" in errorOf(panel)
    finally:
        del slicer.modules.DICOMInstance


def test_loss_charts_follow_the_log_and_come_again_in_a_new_scene(module: Any, scene: Any) -> None:
    from DiffSegLungSlicer import losses

    log = [{"step": step, "noise": 1 / step} for step in range(1, 41)]
    log[9]["held_back"] = log[19]["held_back"] = 0.5
    [chart] = losses.show("own", log[:20])
    assert losses.show("own", log) == [chart]
    noise, heldBack = (chart.GetNthPlotSeriesNode(index).GetTableNode() for index in range(2))
    assert (noise.GetNumberOfRows(), heldBack.GetNumberOfRows()) == (40, 2)
    last = float(noise.GetCellText(39, 1))
    assert last == pytest.approx(np.mean([1 / step for step in range(21, 41)]), rel=1e-3)
    scene.Clear(0)
    distilled = [line | {"info_nce": 3.0, "regression": 0.4, "spread": 0.9} for line in log]
    again = losses.show("own", distilled)
    assert len(again) == 2 and all(node.GetScene() is scene for node in again)
    assert not losses.hasCollapsed(distilled)
    assert losses.hasCollapsed([*distilled, distilled[-1] | {"spread": 0.1}])


def test_loss_charts_of_a_network_that_decides(module: Any, scene: Any) -> None:
    """First steps may have no noise to predict; beside it stands what was learnt of painted tissues."""
    from DiffSegLungSlicer import losses

    log = [{"step": step, "cross-entropy": 2 / step, "dice": 0.5} for step in range(1, 41)]
    assert losses.show("own", log) == []
    for line in log[3:]:
        line["noise"] = 0.9
    noise, tissues = losses.show("own", log)
    assert noise.GetNthPlotSeriesNode(0).GetTableNode().GetNumberOfRows() == 37
    entropy, dice = (tissues.GetNthPlotSeriesNode(index) for index in range(2))
    assert (entropy.GetYColumnName(), dice.GetYColumnName()) == ("cross-entropy", "dice")
    last = float(entropy.GetTableNode().GetCellText(39, 1))
    assert last == pytest.approx(np.mean([2 / step for step in range(21, 41)]), rel=1e-3)
    assert not losses.hasCollapsed(log)


def test_a_model_that_is_worse_is_said_to_be_so(training: Any, store: Path) -> None:
    from DiffSegLungSlicer.TrainingSection import describeComparison

    path = store / "tiny" / "model.json"
    description = json.loads(path.read_text())
    description["parent"] = {"name": "first"}
    description["metrics"] = {"before": {}, "after": {}, "ended": "", "verdict": ["It is WORSE.", "1 < 2"]}
    path.write_text(json.dumps(description))
    found = training.comparison("tiny")
    assert found["worse"] and found["picture"] is None
    text = describeComparison(found)
    assert '#c62828">It is WORSE.</b>' in text and "1 &lt; 2" in text


def test_the_store_beside_slicers_settings(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a setting of the user's; the library and its child processes see it."""
    import slicer

    from DiffSegLungLib.models import store as models
    from DiffSegLungSlicer import ownModels
    from DiffSegLungSlicer.childProcess import childEnvironment

    monkeypatch.setenv("DIFFSEGLUNG_MODELS", "")
    module.DiffSegLungTrainingLogic()
    settings = Path(slicer.app.slicerUserSettingsFilePath).parent
    assert ownModels.use() == settings / "DiffSegLung" / "models" == models.own_store()
    import os

    assert childEnvironment(os.environ)["DIFFSEGLUNG_MODELS"] == str(ownModels.use())
