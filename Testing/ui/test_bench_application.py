"""The test bench's application: processes, packages, files, sample data, DICOM, environment."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest


def test_application_tells_what_slicer_tells(slicerApp: Any) -> None:
    import importlib.metadata

    import slicer

    version = importlib.metadata.version("slicer-core").split(".")
    assert slicer.app is slicerApp
    assert [str(slicerApp.majorVersion), str(slicerApp.minorVersion)] == version[:2]
    assert slicerApp.applicationName == "Slicer"
    assert slicerApp.testingEnabled()
    assert Path(slicerApp.temporaryPath).is_dir()
    assert slicerApp.coreIOManager() is slicerApp.ioManager()


def test_settings_do_not_touch_the_users(slicerApp: Any) -> None:
    import qt
    import slicer

    qt.QSettings().setValue("Bench/answer", True)
    qt.QSettings().sync()
    assert slicer.util.settingsValue("Bench/answer", False, converter=slicer.util.toBool) is True
    assert slicerApp.userSettings().fileName().startswith(slicerApp.temporaryPath)


# ---- PythonSlicer


def test_python_slicer_runs_python(slicerApp: Any) -> None:
    launcher = shutil.which("PythonSlicer")
    assert launcher is not None
    done = subprocess.run(
        [launcher, "-c", "import sys; print('out'); sys.exit(int(sys.argv[1]))", "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (7, "out\n")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_killing_the_launcher_leaves_its_child(slicerApp: Any) -> None:
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    launcher = subprocess.Popen(["PythonSlicer", "-c", code], stdout=subprocess.PIPE, text=True)
    assert launcher.stdout is not None
    child = int(launcher.stdout.readline())
    try:
        assert child != launcher.pid
        launcher.kill()
        launcher.wait()
        os.kill(child, 0)  # raises if there is no such process
    finally:
        os.kill(child, signal.SIGKILL)
        launcher.stdout.close()


def test_startup_environment_lacks_the_launcher(slicerApp: Any) -> None:
    import slicer

    path = slicer.util.startupEnvironment()["PATH"]
    assert shutil.which("PythonSlicer", path=path) is None


def test_console_process_runs_in_the_background(slicerApp: Any) -> None:
    import qt
    import slicer

    lines: list[str] = []
    finished: list[int] = []
    slicer.util.launchConsoleProcess(
        ["PythonSlicer", "-c", "print('one'); print('two')"],
        useStartupEnvironment=False,
        blocking=False,
        logCallback=lines.append,
        completedCallback=finished.append,
    )
    for _tenth in range(200):
        if not finished:
            qt.QTest.qWait(100)
    assert lines == ["one", "two"]
    assert finished == [0]


# ---- packages


@pytest.mark.parametrize(
    ("requirement", "met"),
    [
        ("numpy", True),
        ("numpy>=1.0", True),
        ("numpy>=999", False),
        ("no-such-package-here", False),
        ("no-such-package-here; python_version < '3'", True),
        ("numpy>=1.0 scipy", True),
        (["numpy", "no-such-package-here"], False),
    ],
)
def test_pip_check_tells_the_truth(slicerApp: Any, requirement: Any, met: bool) -> None:
    from slicer.packaging import pip_check

    assert pip_check(requirement) is met


def test_requirements_are_read(slicerApp: Any, tmp_path: Path) -> None:
    from slicer.packaging import load_requirements

    file = tmp_path / "requirements.txt"
    file.write_text("# comment\n\n-r other.txt\nnumpy>=1.0\nscipy\n", encoding="utf-8")
    assert [str(each) for each in load_requirements(file)] == ["numpy>=1.0", "scipy"]
    file.write_text("numpy  # comment\n", encoding="utf-8")
    with pytest.raises(ValueError, match="numpy"):
        load_requirements(file)


def test_pip_ensure_installs_nothing_in_testing_mode(slicerApp: Any, caplog: Any) -> None:
    from slicer.packaging import pip_ensure

    with caplog.at_level("INFO"):
        pip_ensure(["no-such-package-here"], requester="Bench")
    assert "no-such-package-here" in caplog.text


def test_declined_installation_is_an_error(scene: Any, slicerApp: Any) -> None:
    import qt
    import standin
    from slicer.packaging import pip_ensure

    slicerApp.setTestingEnabled(False)
    standin.answers.give(qt.QMessageBox, qt.QMessageBox.Cancel)
    with pytest.raises(RuntimeError, match="declined"):
        pip_ensure(["no-such-package-here"], requester="Bench")


# ---- files


def test_volume_survives_a_file(chestVolume: Any, scene: Any, tmp_path: Path) -> None:
    import slicer

    assert slicer.util.saveNode(chestVolume, str(tmp_path / "ct.nrrd"))
    loaded = slicer.util.loadVolume(str(tmp_path / "ct.nrrd"))
    assert np.array_equal(slicer.util.arrayFromVolume(loaded), slicer.util.arrayFromVolume(chestVolume))
    assert loaded.GetSpacing() == chestVolume.GetSpacing()
    with pytest.raises(RuntimeError, match="absent"):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))


def test_export_leaves_the_node_alone(chestVolume: Any, tmp_path: Path) -> None:
    import slicer

    assert slicer.util.exportNode(chestVolume, str(tmp_path / "ct.nrrd"))
    assert (tmp_path / "ct.nrrd").is_file()
    assert chestVolume.GetStorageNode() is None


# ---- sample data


@pytest.fixture
def sampleFile(chestVolume: Any, tmp_path: Path) -> tuple[str, str]:
    """A volume's address and SHA-256."""
    import slicer

    path = tmp_path / "sample.nrrd"
    slicer.util.saveNode(chestVolume, str(path))
    return path.as_uri(), hashlib.sha256(path.read_bytes()).hexdigest()


def test_sample_data_is_loaded(scene: Any, sampleFile: tuple[str, str]) -> None:
    import SampleData

    address, digest = sampleFile
    SampleData.SampleDataLogic.registerCustomSampleDataCategory("Bench", "Bench data")
    for _twice in range(2):
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="Bench",
            sampleName="BenchSample",
            uris=address,
            fileNames="bench-sample.nrrd",
            nodeNames="BenchSample",
            checksums=f"SHA256:{digest}",
        )
    logic = SampleData.SampleDataLogic()
    assert len(logic.sampleDataSourcesByCategory("Bench")) == 1
    assert logic.sourceForSampleName("BenchSample").uris == [address]
    node = logic.downloadSample("BenchSample")
    assert node.GetName() == "BenchSample"
    assert node.GetImageData().GetDimensions() == (80, 60, 40)


def test_sample_data_with_a_wrong_checksum_is_not_loaded(scene: Any, sampleFile: tuple[str, str]) -> None:
    import SampleData

    before = scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    SampleData.SampleDataLogic.registerCustomSampleDataSource(
        category="Bench",
        sampleName="BenchForged",
        uris=sampleFile[0],
        fileNames="bench-forged.nrrd",
        nodeNames="BenchForged",
        checksums="SHA256:" + "0" * 64,
    )
    with pytest.raises(IndexError):
        SampleData.SampleDataLogic().downloadSample("BenchForged")
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before


# ---- DICOM


def test_dicom_database_knows_the_files(slicerApp: Any, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom")
    import slicer
    import standin
    from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

    series = generate_uid()
    uids = [generate_uid() for _ in range(3)]
    for number, uid in enumerate(uids):
        header = pydicom.dataset.FileMetaDataset()
        header.MediaStorageSOPClassUID, header.MediaStorageSOPInstanceUID = CTImageStorage, uid
        header.TransferSyntaxUID = ExplicitVRLittleEndian
        instance = pydicom.dataset.FileDataset(None, {}, file_meta=header, preamble=b"\0" * 128)
        instance.SOPClassUID, instance.SOPInstanceUID, instance.SeriesInstanceUID = (
            CTImageStorage,
            uid,
            series,
        )
        instance.PatientID, instance.PixelSpacing = "bench", [0.5, 0.75]
        instance.save_as(tmp_path / f"{number}.dcm", enforce_file_format=True)
    (tmp_path / "readme.txt").write_text("no DICOM", encoding="utf-8")
    assert standin.addDicomFolder(tmp_path) == 3
    database = slicer.dicomDatabase
    assert database.isOpen
    assert set(database.instancesForSeries(series)) == set(uids)
    file = database.fileForInstance(uids[0])
    assert file == str(tmp_path / "0.dcm")
    assert database.fileValue(file, "0010,0020") == "bench"
    assert database.fileValue(file, "0028,0030") == "0.5\\0.75"
    assert database.fileForInstance("1.2.3") == ""
