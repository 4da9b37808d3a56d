"""The logic without a panel: refusals, exports, packages, batch, self-test; and the rules of the files."""

from __future__ import annotations

import ast
import importlib.util
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.io.cases import file_code
from Testing.ui.module import steps

FOLDER = steps.MODULE.parent
SOURCES = [steps.MODULE, *sorted((FOLDER / "DiffSegLungSlicer").glob("*.py"))]
SCRIPT = FOLDER / "Resources" / "Scripts" / "SegmentFolder.py"


def test_one_run_at_a_time(module: Any, phantom: Any, pieces: Any) -> None:
    from DiffSegLungLib.errors import UnusableInputError

    logic = module.DiffSegLungLogic()
    run = logic.process(phantom, lungs=pieces, parameters=steps.FAST, waitForCompletion=False)
    try:
        with pytest.raises(UnusableInputError, match="A segmentation is running"):
            logic.process(phantom)
    finally:
        run.cancel()
    assert not logic.isRunning() and not steps.temporaryFolders()


def test_an_error_of_the_callers_callback_ends_the_run(module: Any, phantom: Any, pieces: Any) -> None:
    def fail(record: Any) -> None:
        raise ZeroDivisionError

    logic = module.DiffSegLungLogic()
    with pytest.raises(ZeroDivisionError):
        logic.process(phantom, lungs=pieces, parameters=steps.FAST, onProgress=fail)
    assert not logic.isRunning() and not steps.temporaryFolders()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"parameters": {"qualty": "fast"}}, "Unknown parameters qualty"),
        ({"parameters": {"quality": "superb"}}, "invalid choice: 'superb'"),
        ({"parameters": {"model": "nobody's"}}, 'no model "nobody\'s"'),
    ],
)
def test_wrong_parameters_are_said_in_one_line(
    module: Any, phantom: Any, pieces: Any, wrong: dict[str, Any], sentence: str
) -> None:
    from DiffSegLungLib.errors import DiffSegLungError

    before = steps.nodeIds()
    with pytest.raises(DiffSegLungError) as caught:
        module.DiffSegLungLogic().process(phantom, lungs=pieces, **wrong)
    assert sentence in str(caught.value) and "\n" not in str(caught.value)
    assert steps.nodeIds() == before


def test_a_segment_that_is_not_there_is_said(module: Any, phantom: Any, pieces: Any) -> None:
    from DiffSegLungLib.errors import UnusableInputError

    with pytest.raises(UnusableInputError, match="pieces has no segment 'trachea'"):
        module.DiffSegLungLogic().process(phantom, lungs=(pieces, "trachea"))


def test_ct_removed_meanwhile(module: Any, phantom: Any, runFiles: Path, scene: Any) -> None:
    from DiffSegLungLib.errors import UnusableInputError

    with steps.finishedJob([runFiles], phantom) as job:
        scene.RemoveNode(phantom)
        before = steps.nodeIds()
        with pytest.raises(UnusableInputError, match="The CT was removed"):
            job.commit()
    assert steps.nodeIds() == before


def test_broken_files_leave_nothing_in_the_scene(module: Any, phantom: Any, runFiles: Path) -> None:
    before = steps.nodeIds()
    with steps.finishedJob([runFiles], phantom) as job:
        (job._stepFolder(0) / "uncertainty.nrrd").write_bytes(b"NRRD0004\n")
        with pytest.raises(RuntimeError):
            job.commit()
    assert steps.nodeIds() == before


def test_dicom_segmentation_refers_to_the_series(module: Any, tmp_path: Path) -> None:
    pydicom = pytest.importorskip("pydicom", reason="needs pydicom")
    pytest.importorskip("highdicom", reason="needs highdicom")
    import standin

    from Testing.unit.dicom_series import write_series

    hu = np.full((12, 20, 24), 40, np.int16)
    hu[2:10, 4:16, 3:10] = hu[2:10, 4:16, 14:21] = -850
    uids = {name: pydicom.uid.generate_uid() for name in ("StudyInstanceUID", "FrameOfReferenceUID")}
    write_series(tmp_path / "series", hu, **uids)
    standin.addDicomFolder(tmp_path / "series")
    volume = loadSeries(tmp_path / "series")
    node = steps.commitFiles(filesOf(volume, tmp_path / "files"), volume)
    written = module.DiffSegLungLogic().exportDicomSegmentation(node, str(tmp_path / "out.dcm"))
    dataset = pydicom.dcmread(written)
    assert dataset.Modality == "SEG"
    referenced = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    known = volume.GetAttribute("DICOM.instanceUIDs").split()
    assert {each.ReferencedSOPInstanceUID for each in referenced} <= set(known)
    labels = {segment.SegmentLabel for segment in dataset.SegmentSequence}
    assert labels == {"Healthy lung", "Consolidation"}


def test_a_sharp_kernel_is_warned_of_in_slicer_too(module: Any, tmp_path: Path) -> None:
    """The tags of the series go along with the voxels; the patient's name does not."""
    pytest.importorskip("pydicom", reason="needs pydicom")
    import standin

    from DiffSegLungLib.io.volume import load_volume
    from DiffSegLungSlicer.exchange import exportVolume
    from Testing.unit.dicom_series import write_series

    hu = np.full((12, 20, 24), 40, np.int16)
    hu[2:10, 4:16, 3:10] = hu[2:10, 4:16, 14:21] = -850
    write_series(tmp_path / "series", hu, ConvolutionKernel="B70f", ContrastBolusAgent="Iohexol")
    standin.addDicomFolder(tmp_path / "series")
    exportVolume(loadSeries(tmp_path / "series"), tmp_path / "ct.nrrd")
    warnings = " ".join(load_volume(tmp_path / "ct.nrrd").warnings)
    assert "The kernel B70f is sharp" in warnings and "Contrast medium was given" in warnings
    assert "ID-4711" not in (tmp_path / "ct.nrrd").read_bytes().decode("latin-1")


def loadSeries(folder: Path) -> Any:
    """A volume as Slicer's DICOM module loads it: the instances' UIDs are an attribute of the node."""
    import slicer

    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    reader.MetaDataDictionaryArrayUpdateOn()
    image = reader.Execute()
    matrix = np.eye(4)
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) @ np.diag(image.GetSpacing())
    matrix[:3, 3] = image.GetOrigin()
    toRas = np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix
    volume = slicer.util.addVolumeFromArray(sitk.GetArrayFromImage(image), toRas, "series")
    uids = [reader.GetMetaData(index, "0008|0018").strip("\0 ") for index in range(image.GetDepth())]
    volume.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    return volume


def filesOf(volume: Any, folder: Path) -> Path:
    """What a run leaves, for a volume that is too small for one: half of the air is consolidated."""
    import slicer

    from DiffSegLungLib import tissues
    from DiffSegLungLib.export import segmentation_file
    from DiffSegLungLib.export.manifest import describe_software
    from DiffSegLungLib.io import atomic
    from DiffSegLungSlicer.exchange import imageOf

    folder.mkdir()
    size = volume.GetImageData().GetDimensions()
    air = slicer.util.arrayFromVolume(volume) < -500
    upper = (np.arange(len(air)) >= len(air) // 2)[:, None, None]
    labels = np.where(air, np.where(upper, tissues.CONSOLIDATION, tissues.HEALTHY), 0).astype(np.uint8)
    right = np.arange(air.shape[2]) < air.shape[2] // 2
    sides = np.where(air, np.where(right, 1, 2), 0).astype(np.uint8)
    segmentation_file.write_segmentation(folder / "segmentation.seg.nrrd", imageOf(labels, volume))
    segmentation_file.write_segmentation(
        folder / "lungs.seg.nrrd", imageOf(sides, volume), segmentation_file.LUNG_SEGMENTS
    )
    segmentation_file.write_image(folder / "uncertainty.nrrd", imageOf(air.astype(np.float32), volume))
    atomic.write_json(
        folder / "manifest.json", {"software": describe_software(), "input": {"size": list(size)}}
    )
    return folder


def test_what_is_no_dicom_is_not_exported_as_dicom(module: Any, phantom: Any, runFiles: Path) -> None:
    from DiffSegLungLib.errors import UnusableInputError

    node = steps.commitFiles(runFiles, phantom)
    with pytest.raises(UnusableInputError, match="did not come from the DICOM database"):
        module.DiffSegLungLogic().exportDicomSegmentation(node, "out.dcm")
    phantom.GetScene().RemoveNode(phantom)
    for export in (module.DiffSegLungLogic().exportDicomSegmentation, module.DiffSegLungLogic().report):
        with pytest.raises(UnusableInputError, match="is not in the scene"):
            export(node, "out.dcm")
    assert steps.temporaryFolders() == []


# --- packages -----------------------------------------------------------------------------------


def test_a_missing_package_is_named(module: Any, tmp_path: Path) -> None:
    from DiffSegLungLib.errors import MissingPartError
    from DiffSegLungSlicer import environment

    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1  # there\nno-such-package-at-all>=3,<4\n", encoding="utf-8")
    assert [each.name for each in environment.missing(file)] == ["no-such-package-at-all"]
    with pytest.raises(MissingPartError, match="no-such-package-at-all"):
        environment.ensure(file)


def test_slicers_own_packages_are_never_replaced(module: Any, tmp_path: Path) -> None:
    from DiffSegLungLib.errors import MissingPartError
    from DiffSegLungSlicer import environment

    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=999\n", encoding="utf-8")
    with pytest.raises(MissingPartError, match="Slicer's own packages must not be replaced"):
        environment.ensure(file)


def test_what_slicer_brings_may_be_newer_than_was_tried(module: Any, tmp_path: Path) -> None:
    """A new Slicer is not refused for it; a package that pip brought is put right by pip."""
    from DiffSegLungSlicer import environment

    file = tmp_path / "requirements.txt"
    file.write_text("numpy>=1,<1.5\njinja2>=2,<2.5\n", encoding="utf-8")
    assert [each.name for each in environment.missing(file)] == ["jinja2"]


def test_pip_is_held_to_what_is_there(module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What pip would see: the versions of Slicer's packages, and the folder of wheels as an address."""
    import slicer

    from DiffSegLungLib.errors import MissingPartError
    from DiffSegLungSlicer import environment

    seen: dict[str, str] = {}

    def look(requirements: list[str], requester: str = "") -> None:
        constraints = Path(os.environ["PIP_CONSTRAINT"].removeprefix("file://"))
        seen.update({name: os.environ[name] for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS")})
        seen.update(constraints=constraints.read_text(encoding="utf-8"), asked=" ".join(requirements))

    import slicer.packaging

    monkeypatch.setattr(slicer.packaging, "pip_ensure", look)
    monkeypatch.delenv("PIP_NO_INDEX", raising=False)
    (tmp_path / "requirements.txt").write_text("no-such-package-at-all>=3\n", encoding="utf-8")
    with pytest.raises(MissingPartError):
        environment.ensure(tmp_path / "requirements.txt", str(tmp_path / "my wheels"))
    assert seen["asked"] == "no-such-package-at-all>=3"
    assert f"numpy=={np.__version__}" in seen["constraints"].split()
    assert seen["PIP_FIND_LINKS"].startswith("file://") and " " not in seen["PIP_FIND_LINKS"]
    assert "PIP_NO_INDEX" not in os.environ


def test_the_child_finds_the_library_where_it_is_installed(tmp_path: Path) -> None:
    """Installed, the library lies beside the module's file and not beside its folder."""
    for folder in (FOLDER / "DiffSegLungSlicer", FOLDER.parent / "DiffSegLungLib"):
        shutil.copytree(
            folder, tmp_path / "modules" / folder.name, ignore=shutil.ignore_patterns("__pycache__")
        )
    code = "from DiffSegLungSlicer.childProcess import LIBRARY_PARENT as place; print(place)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path / "modules", capture_output=True, text=True, check=True
    )
    assert Path(done.stdout.strip()) == (tmp_path / "modules").resolve()


# --- around it ------------------------------------------------------------------------------------


def test_self_test_segments_the_phantom(module: Any) -> None:
    """As the button "Reload and Test" and the test runner start it."""
    import slicer

    slicer.selfTests["DiffSegLung"]()


def test_folder_without_a_window(module: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A broken file is named with its reason, and the scene is as it was."""
    spec = importlib.util.spec_from_file_location("SegmentFolder", SCRIPT)
    assert spec and spec.loader
    script = importlib.util.module_from_spec(spec)
    sys.modules["SegmentFolder"] = script
    spec.loader.exec_module(script)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.nrrd").write_bytes(b"NRRD0004\ntype: short\n")
    small = np.full((12, 12, 12), 40, np.int16)
    sitk.WriteImage(sitk.GetImageFromArray(small), str(tmp_path / "in" / "no lungs.nrrd"))
    before = steps.nodeIds()
    outcomes = script.run(tmp_path / "in", tmp_path / "out", quality="fast")
    codes = sorted(file_code(file) for file in (tmp_path / "in").iterdir())
    assert [outcome.case for outcome in outcomes] == codes
    assert all(outcome.error and outcome.segmentation is None for outcome in outcomes)
    assert "broken.nrrd" not in "".join(capfd.readouterr())
    assert steps.nodeIds() == before


def test_samples_are_registered_with_their_checksums(module: Any) -> None:
    import hashlib

    import SampleData
    import slicer

    from DiffSegLungSlicer import extras

    module.registerSampleData()
    volume = SampleData.downloadSample("DiffSegLungPhantom")
    assert volume.GetName() == "DiffSegLungPhantom"
    assert hashlib.sha256(steps.PHANTOM.read_bytes()).hexdigest() == extras.PHANTOM_SHA256
    assert extras.CT_CHEST_URL.endswith(extras.CT_CHEST_SHA256)
    slicer.mrmlScene.RemoveNode(volume)


def test_samples_without_titles_for_categories(module: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slicer 5.10 knows none."""
    import SampleData
    import slicer

    monkeypatch.delattr(SampleData.SampleDataLogic, "registerCustomSampleDataCategory")
    monkeypatch.setattr(slicer.modules, "sampleDataSources", {}, raising=False)
    module.registerSampleData()
    assert len(slicer.modules.sampleDataSources["DiffSegLung"]) == 2


def test_codes_are_known_to_slicer(module: Any) -> None:
    import slicer
    import vtk

    from DiffSegLungLib.export.segmentation_file import TERMINOLOGY_CONTEXT
    from DiffSegLungSlicer import extras

    extras.registerTerminology()
    names = vtk.vtkStringArray()
    slicer.modules.terminologies.logic().GetLoadedTerminologyNames(names)
    assert TERMINOLOGY_CONTEXT in [names.GetValue(index) for index in range(names.GetNumberOfValues())]


def test_each_parameter_of_the_panel_is_a_parameter_of_the_node(module: Any) -> None:
    tree = ElementTree.parse(FOLDER / "Resources" / "UI" / "DiffSegLung.ui")
    wanted = {
        prop.findtext("string") for prop in tree.iter("property") if prop.get("name") == "SlicerParameterName"
    }
    fields = set(module.DiffSegLungParameterNode.__annotations__)
    assert wanted and wanted <= fields
    assert fields - wanted == {"lungsSegment", "model"}, "these two are connected by hand"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: file.name)
def test_files_keep_the_rules_of_the_house(file: Path) -> None:
    """Short functions, a short module file, and Qt in the panel's sections alone."""
    text = file.read_text(encoding="utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) < 600
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    if not file.stem.endswith("Section") and file != steps.MODULE:
        assert imported.isdisjoint({"qt", "ctk", "PythonQt"})


def test_the_logic_classes_know_no_qt() -> None:
    tree = ast.parse(steps.MODULE.read_text(encoding="utf-8"))
    classes = {node.name: node for node in tree.body if isinstance(node, ast.ClassDef)}
    for name in ("DiffSegLungLogic", "DiffSegLungTrainingLogic"):
        names = {node.id for node in ast.walk(classes[name]) if isinstance(node, ast.Name)}
        assert names.isdisjoint({"qt", "ctk"}), name


def test_importing_the_module_loads_nothing_heavy() -> None:
    """Slicer imports every module at its start: no library but those that it has anyhow."""
    allowed = {"vtk", "slicer", "numpy", "packaging", "DiffSegLungLib", "DiffSegLungSlicer"}
    for file in SOURCES:
        if file.stem.endswith("Section"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names}
            assert roots <= allowed | set(sys.stdlib_module_names), (file.name, roots)
