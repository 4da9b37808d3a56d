"""What the module leaves in the scene: geometry, names, second runs, saving, sequences, regions."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib import tissues
from DiffSegLungLib.export import segmentation_file
from DiffSegLungLib.io.volume import load_volume, to_input_geometry
from Testing.ui.module import steps

KEYS = [tissue.key for tissue in tissues.REPORTED]
SHAPE = (12, 14, 16)


def rotation(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]]) @ [[1, 0, 0], [0, cos, -sin], [0, sin, cos]]


FLIPS = {f"flip {signs}": np.diag(signs) for signs in itertools.product((-1.0, 1.0), repeat=3)}
SHEARED = np.array([[1.0, 0, 0], [0, 1, 0.3], [0, 0, 1]])
"""As a tilted gantry leaves it."""
DIRECTIONS = {**FLIPS, "oblique": rotation(20), "permuted": np.eye(3)[[2, 0, 1]], "sheared": SHEARED}


def smallCt(direction: np.ndarray, name: str = "CT") -> Any:
    """A volume whose every voxel has a value of its own, from air to bone."""
    import slicer

    matrix = np.eye(4)
    matrix[:3, :3] = direction @ np.diag([0.7, 0.8, 2.5])
    matrix[:3, 3] = (31.0, -12.5, 400.25)
    values = np.linspace(-1000, 900, np.prod(SHAPE)).reshape(SHAPE).astype(np.int16)
    return slicer.util.addVolumeFromArray(values, matrix, name)


def filesOf(volumeNode: Any, folder: Path) -> tuple[Path, np.ndarray]:
    """What the library makes of a volume: a segmentation by HU, and its labels on the volume's grid."""
    from DiffSegLungSlicer import exchange

    exchange.exportVolume(volumeNode, folder / "ct.nrrd")
    image = sitk.ReadImage(str(folder / "ct.nrrd"))
    volume = load_volume(image)
    labels = np.digitize(volume.hu, [-600, -200, 200, 600]).astype(np.uint8)
    segmentation_file.write_segmentation(folder / "s.seg.nrrd", to_input_geometry(labels, volume))
    return folder / "s.seg.nrrd", sitk.GetArrayFromImage(to_input_geometry(labels, volume))


@pytest.mark.parametrize("direction", DIRECTIONS.values(), ids=DIRECTIONS)
@pytest.mark.parametrize("moved", [False, True], ids=["", "under a rigid transform"])
def test_voxels_go_to_the_library_and_back(
    module: Any, tmp_path: Path, direction: np.ndarray, moved: bool
) -> None:
    import slicer

    from DiffSegLungSlicer import exchange

    volume = smallCt(direction)
    if moved:
        transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
        rigid = np.eye(4)
        rigid[:3, :3], rigid[:3, 3] = rotation(-35), (5.0, 60.0, -8.0)
        transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(rigid))
        volume.SetAndObserveTransformNodeID(transform.GetID())
    path, labels = filesOf(volume, tmp_path)
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    exchange.placeBeside(volume, node)
    exchange.replaceSegments(node, exchange.readSegments(path, volume), KEYS)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    assert node.GetTransformNodeID() == volume.GetTransformNodeID()
    expected = exchange.labelArray(
        exchange.SegmentChoice(node), volume, {key: index for index, key in enumerate(KEYS, start=1)}
    )
    assert np.array_equal(expected, np.where(labels <= len(KEYS), labels, 0))


def test_where_a_segment_lies_in_the_patient(module: Any, tmp_path: Path) -> None:
    import slicer

    from DiffSegLungSlicer import exchange

    volume = smallCt(rotation(20))
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[:3, 3] = (10.0, 20.0, 30.0)
    transform.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shift))
    volume.SetAndObserveTransformNodeID(transform.GetID())
    exchange.exportVolume(volume, tmp_path / "ct.nrrd")
    left, posterior, superior = sitk.ReadImage(str(tmp_path / "ct.nrrd")).GetOrigin()
    assert np.allclose((-left, -posterior, superior), (41.0, 7.5, 430.25))


def test_what_cannot_be_segmented_is_refused(module: Any) -> None:
    import slicer

    from DiffSegLungLib.errors import UnusableInputError
    from DiffSegLungSlicer.exchange import requireCt

    with pytest.raises(UnusableInputError, match="No CT is chosen"):
        requireCt(None)
    with pytest.raises(UnusableInputError, match="no voxels"):
        requireCt(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow"))
    colour = slicer.util.addVolumeFromArray(
        np.zeros((3, 3, 3, 3), np.uint8), nodeClassName="vtkMRMLVectorVolumeNode"
    )
    with pytest.raises(UnusableInputError, match="colour image"):
        requireCt(colour)
    volume = smallCt(np.eye(3), "tilted")
    grid = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLGridTransformNode", "gantry")
    displacement = slicer.vtkOrientedGridTransform()
    grid.SetAndObserveTransformToParent(displacement)
    volume.SetAndObserveTransformNodeID(grid.GetID())
    with pytest.raises(UnusableInputError, match="tilted is under the non-linear transform gantry"):
        requireCt(volume)


def test_tissues_are_known_by_value_not_by_order(module: Any, tmp_path: Path) -> None:
    import slicer

    from DiffSegLungSlicer import exchange

    volume = smallCt(np.eye(3))
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:5], labels[7:9] = tissues.HEALTHY, tissues.CAVITY  # all between them are absent
    segmentation_file.write_segmentation(tmp_path / "s.seg.nrrd", exchange.imageOf(labels, volume))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    exchange.replaceSegments(node, exchange.readSegments(tmp_path / "s.seg.nrrd", volume), KEYS)
    for tissue in tissues.REPORTED:
        segment = node.GetSegmentation().GetSegment(tissue.key)
        assert segment.GetName() == tissue.name
        found = exchange.labelArray(exchange.SegmentChoice(node), volume, {tissue.key: 1})
        assert np.array_equal(found == 1, labels == tissue.label), tissue.key


def test_a_second_run_keeps_what_the_user_drew(module: Any, phantom: Any, runFiles: Path) -> None:
    node = steps.commitFiles(runFiles, phantom)
    node.GetSegmentation().AddEmptySegment("mine", "my lesion")
    mine = np.zeros_like(steps.voxelsOf(node, "healthy", phantom))
    mine[2:6, 3:9, 4:8] = True
    steps.setVoxels(node, "mine", mine, phantom)
    before = steps.voxelsOf(node, "consolidation", phantom)
    assert before.any()
    count = steps.countNodes()
    assert steps.commitFiles(runFiles, phantom, node) is node
    assert steps.countNodes() == count
    assert set(node.GetSegmentation().GetSegmentIDs()) == {*KEYS, "mine"}
    assert np.array_equal(steps.voxelsOf(node, "mine", phantom), mine)
    assert np.array_equal(steps.voxelsOf(node, "consolidation", phantom), before)


def test_other_segments_must_not_move(module: Any, phantom: Any) -> None:
    """A target that holds a drawing and does not lie under the CT's transform."""
    import slicer

    from DiffSegLungLib.errors import UnusableInputError
    from DiffSegLungSlicer.segmentation import Parameters, SegmentationJob

    drawn = steps.addSegments(phantom, {"mine": steps.LEFT_PIECE})
    transform = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "shift")
    phantom.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(UnusableInputError, match="lies under another transform"):
        SegmentationJob(phantom, drawn, None, None, Parameters())
    assert steps.temporaryFolders() == []


def test_an_unreadable_file_leaves_a_result_as_it_was(module: Any, phantom: Any, runFiles: Path) -> None:
    from DiffSegLungSlicer import results

    node = steps.commitFiles(runFiles, phantom)
    voxels = steps.voxelsOf(node, "consolidation", phantom)
    before, count = results.tissueRows(node), steps.countNodes()
    with steps.finishedJob([runFiles], phantom, node) as job:
        withoutConsolidation(job._stepFolder(0) / "segmentation.seg.nrrd")
        (job._stepFolder(0) / "uncertainty.nrrd").write_bytes(b"torn")
        with pytest.raises(RuntimeError):
            job.commit()
    assert results.tissueRows(node) == before and steps.countNodes() == count
    assert np.array_equal(steps.voxelsOf(node, "consolidation", phantom), voxels)


def test_a_mask_of_surfaces_stays_without_voxels(module: Any, phantom: Any, tmp_path: Path) -> None:
    from DiffSegLungSlicer import exchange

    node = steps.addSegments(phantom, {"lung": steps.RIGHT_PIECE})
    segmentation = node.GetSegmentation()
    node.CreateClosedSurfaceRepresentation()
    segmentation.SetSourceRepresentationName("Closed surface")
    segmentation.RemoveRepresentation(exchange.LABELMAP)
    array = exchange.labelArray(exchange.SegmentChoice(node), phantom, {"lung": 1})
    assert array.sum() > 0.8 * 16**3
    assert not segmentation.ContainsRepresentation(exchange.LABELMAP)


@pytest.mark.parametrize("name", ["Ünï côde 肺", "a / b \\ c", "blank   blank", '\'; rm -rf "$HOME"'])
def test_any_name_of_the_ct_will_do(module: Any, runFiles: Path, tmp_path: Path, name: str) -> None:
    import slicer

    first = slicer.util.loadVolume(str(steps.PHANTOM))
    second = slicer.util.loadVolume(str(steps.PHANTOM))
    for volume in (first, second):
        volume.SetName(name)
    nodes = [steps.commitFiles(runFiles, volume) for volume in (first, second)]
    from DiffSegLungSlicer import results

    assert nodes[0].GetName() != nodes[1].GetName()
    assert [results.volumeOf(node) for node in nodes] == [first, second]
    lungs = {node.GetNodeReferenceID(results.LUNGS_ROLE) for node in nodes}
    assert len(lungs) == 2 and None not in lungs


def test_report_of_a_ct_with_an_odd_name(module: Any, phantom: Any, runFiles: Path, tmp_path: Path) -> None:
    phantom.SetName("Ünï / <b>côde</b>")
    node = steps.commitFiles(runFiles, phantom)
    page = module.DiffSegLungLogic().report(node, str(tmp_path / "blank Ünï"))
    assert page.is_file()
    assert "<b>côde" not in page.read_text(encoding="utf-8")
    names = {"report.html", "report.pdf", "report.json", "measures.csv"}
    assert {each.name for each in page.parent.iterdir()} == names


def test_a_saved_scene_brings_all_back(shown: Any, phantom: Any, result: Any, tmp_path: Path) -> None:
    import slicer

    from DiffSegLungSlicer import results

    rows, manifest = results.tissueRows(result), results.manifestOf(result)
    healthy = steps.voxelsOf(result, "healthy", phantom)
    result.SetAttribute(results.CORRECTED, "1")
    assert slicer.util.saveScene(str(tmp_path / "scene.mrb"))
    slicer.mrmlScene.Clear(0)
    assert not shown.ui.resultsCollapsibleButton.enabled
    slicer.util.loadScene(str(tmp_path / "scene.mrb"))
    steps.goOn(0.2)
    node = shown._parameterNode.segmentation
    assert results.isResult(node) and results.isCorrected(node)
    assert results.tissueRows(node) == rows and results.manifestOf(node) == manifest
    assert np.array_equal(steps.voxelsOf(node, "healthy", results.volumeOf(node)), healthy)
    assert shown.ui.resultsCollapsibleButton.enabled
    for role in (results.HISTOGRAM_ROLE, results.SHARES_ROLE):
        chart = node.GetNodeReference(role)
        assert chart.GetNumberOfPlotSeriesNodes() == len(KEYS)
        assert chart.GetNthPlotSeriesNode(0).GetTableNode() is not None
    module = slicer.modules.DiffSegLungWidget
    assert module.logic.measures(node) is not None and results.tissueRows(node) == rows


def test_slicerio_reads_what_slicer_saves(module: Any, phantom: Any, runFiles: Path, tmp_path: Path) -> None:
    slicerio = pytest.importorskip("slicerio", reason="needs slicerio")
    import slicer

    node = steps.commitFiles(runFiles, phantom)
    assert slicer.util.saveNode(node, str(tmp_path / "saved.seg.nrrd"))
    segments = slicerio.read_segmentation(str(tmp_path / "saved.seg.nrrd"))["segments"]
    by_id = {segment["id"]: segment for segment in segments}
    assert list(by_id) == KEYS
    for tissue in tissues.REPORTED:
        segment = by_id[tissue.key]
        assert segment["name"] == tissue.name
        assert segment["terminology"]["type"][:2] == [tissue.code.scheme, tissue.code.value]


def test_regions_are_lobes_by_code_then_by_name(module: Any, phantom: Any, runFiles: Path) -> None:
    import slicer

    from DiffSegLungLib.anatomy import LOBES
    from DiffSegLungSlicer import results

    lobes = steps.addSegments(
        phantom, {"Segment_1": steps.RIGHT_PIECE, "lung_upper_lobe_left": steps.LEFT_PIECE}, "lobes"
    )
    tag = slicer.vtkSegment.GetTerminologyEntryTagName()
    middle = next(lobe for lobe in LOBES if lobe.name == "right middle lobe")
    lobes.GetSegmentation().GetSegment("Segment_1").SetTag(tag, middle.terminology.entry)
    node = steps.commitFiles(runFiles, phantom, regions=lobes)
    names = [name for name, shares in results.shareRows(node)]
    assert names == ["whole lung", "right lung", "left lung", "right middle lobe", "left upper lobe"]
    whole, right, *_, middleRow, _upper = results.shareRows(node)
    assert middleRow[1] == right[1] != whole[1]


def test_measures_are_those_of_the_run(module: Any, phantom: Any, runFiles: Path) -> None:
    import pandas

    node = steps.commitFiles(runFiles, phantom)
    measured = module.DiffSegLungLogic().measures(node)
    written = pandas.read_csv(runFiles / "measures.csv", index_col="region")
    assert list(measured.index) == list(written.index)
    assert np.allclose(measured, written, rtol=1e-9, equal_nan=True)


def test_a_sequence_is_segmented_at_every_time_point(followUp: Any, phantom: Any, runFiles: Path) -> None:
    from DiffSegLungSlicer import results, sequences

    browser, volume = followUp
    assert sequences.browserOf(volume) is browser and sequences.browserOf(phantom) is None
    with steps.finishedJob([runFiles, runFiles], volume, browser=browser) as job:
        withoutConsolidation(job._stepFolder(1) / "segmentation.seg.nrrd")
        node = job.commit()
    assert browser.GetProxyNode(node.GetNodeReference(results.SEQUENCE_ROLE)) is node
    there = []
    for step in range(2):
        goTo(browser, step)
        there.append(steps.voxelsOf(node, "consolidation", volume).any())
        assert results.isResult(node)
    assert there == [True, False]
    table = node.GetNodeReference(results.TIME_TABLE_ROLE)
    assert table.GetNumberOfRows() == 2 and table.GetCellText(1, 0) == "1.5"


def goTo(browser: Any, step: int) -> None:
    """The user moves the sequence's slider."""
    import slicer

    browser.SetSelectedItemNumber(step)
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)


@pytest.fixture
def followUp(module: Any, phantom: Any) -> tuple[Any, Any]:
    """The browser of two time points, and the CT that it shows."""
    import slicer

    scans = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", "breathing")
    for time in ("0", "1.5"):
        scans.SetDataNodeAtValue(phantom, time)
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "browser")
    browser.SetAndObserveMasterSequenceNodeID(scans.GetID())
    slicer.modules.sequences.logic().UpdateProxyNodesFromSequences(browser)
    return browser, browser.GetProxyNode(scans)


def test_corrections_stay_with_their_time_point(followUp: Any, runFiles: Path) -> None:
    browser, volume = followUp
    with steps.finishedJob([runFiles, runFiles], volume, browser=browser) as job:
        node = job.commit()
    before = steps.voxelsOf(node, "consolidation", volume)
    setEmpty = np.zeros_like(before)
    goTo(browser, 1)
    steps.setVoxels(node, "consolidation", setEmpty, volume)
    steps.goOn(0.1)
    goTo(browser, 0)
    assert np.array_equal(steps.voxelsOf(node, "consolidation", volume), before)
    goTo(browser, 1)
    assert not steps.voxelsOf(node, "consolidation", volume).any()


def test_a_sequence_leaves_no_other_nodes(followUp: Any, runFiles: Path) -> None:
    """Tissues and lungs, each with its time points; a second run replaces them."""
    from DiffSegLungSlicer import results, sequences

    browser, volume = followUp
    with steps.finishedJob([runFiles, runFiles], volume, browser=browser) as job:
        node = job.commit()
    count = steps.countNodes()
    assert count["vtkMRMLSegmentationNode"] == 2 and count["vtkMRMLSequenceNode"] == 3
    with steps.finishedJob([runFiles, runFiles], volume, node, browser=browser) as job:
        assert job.commit() is node
    assert steps.countNodes() == count
    sequences.removeSequences(node)
    results.removeAll(node)
    left = steps.countNodes()
    assert "vtkMRMLSegmentationNode" not in left and left["vtkMRMLSequenceNode"] == 1


def test_lungs_of_a_sequence_go_along(followUp: Any, runFiles: Path) -> None:
    """The lungs of an earlier result are a mask for each time point, whichever is shown."""
    import slicer

    from DiffSegLungSlicer import results, sequences
    from DiffSegLungSlicer.exchange import SegmentChoice

    browser, volume = followUp
    with steps.finishedJob([runFiles, runFiles], volume, browser=browser) as job:
        node = job.commit()
    lungs = node.GetNodeReference(results.LUNGS_ROLE)
    goTo(browser, 1)
    steps.setVoxels(lungs, "left-lung", np.zeros_like(slicer.util.arrayFromVolume(volume)), volume)
    steps.goOn(0.1)
    choice = SegmentChoice(lungs)
    masks = [sequences.atTimePoint(choice, browser, step) for step in range(2)]
    assert all(mask is not None and mask.node is not lungs for mask in masks)
    assert [steps.voxelsOf(mask.node, "left-lung", volume).any() for mask in masks] == [True, False]
    drawn = SegmentChoice(steps.addPieces(volume))
    assert sequences.atTimePoint(drawn, browser, 1) is drawn
    assert sequences.atTimePoint(choice, None, 1) is choice


def withoutConsolidation(path: Path) -> None:
    image = sitk.ReadImage(str(path))
    labels = sitk.GetArrayFromImage(image)
    labels[labels == tissues.CONSOLIDATION] = 0
    changed = sitk.GetImageFromArray(labels)
    changed.CopyInformation(image)
    segmentation_file.write_segmentation(path, changed)
