"""Segmenting every time point of a sequence, such as a scan in inspiration and in expiration."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import slicer
import vtk

from DiffSegLungLib.errors import UnusableInputError

from . import exchange, results
from .exchange import SegmentChoice

LUNGS_ROLE = "DiffSegLung.lungsSequence"


def browserOf(volumeNode):
    """The browser that a volume is shown by; None if it belongs to no sequence."""
    if volumeNode is None or not hasattr(slicer.modules, "sequences"):
        return None
    return slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volumeNode)


def volumesOf(browserNode, volumeNode) -> list:
    """The CT of every time point, in order; they are not in the scene.

    Raises:
        UnusableInputError: the CT does not belong to this browser, lies under a transform, or a time point
            is no CT.
    """
    sequence = browserNode.GetSequenceNode(volumeNode)
    if sequence is None or sequence.GetNumberOfDataNodes() == 0:
        raise UnusableInputError(
            f"{volumeNode.GetName()} is not a part of the sequence {browserNode.GetName()}: choose its CT."
        )
    if volumeNode.GetParentTransformNode() is not None:
        raise UnusableInputError(
            f"{volumeNode.GetName()} is a part of a sequence and lies under a transform, which its time "
            "points do not know: take the transform away, or segment time points one by one."
        )
    volumes = [sequence.GetNthDataNode(index) for index in range(sequence.GetNumberOfDataNodes())]
    for volume in volumes:
        exchange.requireCt(volume)
    return volumes


def atTimePoint(choice: SegmentChoice | None, browserNode, step: int) -> SegmentChoice | None:
    """Segments as they are at a time point, where they go along with the CT's sequence; else as they are."""
    sequence = browserNode.GetSequenceNode(choice.node) if choice and browserNode else None
    if sequence is None:
        return choice
    time = browserNode.GetMasterSequenceNode().GetNthIndexValue(step)
    return SegmentChoice(sequence.GetDataNodeAtValue(time, False), choice.segmentIds)


def store(node, browserNode, volumeNode, folders: Sequence[Path], regions: SegmentChoice | None) -> None:
    """Puts the results of all time points into sequences that go along with the CT's.

    Args:
        node: the segmentation node; it shows the time point that the browser is at.
        browserNode: of the CT's sequence.
        volumeNode: the CT as the browser shows it.
        folders: of the time points, in order; each as for `results.store`.
        regions: to measure.
    """
    volumes, shown = browserNode.GetSequenceNode(volumeNode), browserNode.GetSelectedItemNumber()
    tissues, lungs = (_readAll(folders, f"{name}.seg.nrrd", volumes) for name in ("segmentation", "lungs"))
    results.store(node, volumeNode, folders[shown], regions)
    removeSequences(node)
    _storeSequence(node, results.SEQUENCE_ROLE, node, tissues, browserNode, volumes)
    _storeSequence(node, LUNGS_ROLE, node.GetNodeReference(results.LUNGS_ROLE), lungs, browserNode, volumes)
    _storeTimeTable(node, volumes, folders)


def _readAll(folders: Sequence[Path], fileName: str, volumes) -> list:
    """The segments of all time points."""
    return [
        exchange.readSegments(folder / fileName, volumes.GetNthDataNode(index))
        for index, folder in enumerate(folders)
    ]


def removeSequences(node) -> None:
    """Takes the time points of a result out of its browser and of the scene; the node itself stays."""
    for role in (results.SEQUENCE_ROLE, LUNGS_ROLE):
        sequence = node.GetNodeReference(role)
        if sequence is None:
            continue
        for browser in slicer.util.getNodesByClass("vtkMRMLSequenceBrowserNode"):
            if browser.IsSynchronizedSequenceNodeID(sequence.GetID(), True):
                browser.RemoveSynchronizedSequenceNode(sequence.GetID())
        slicer.mrmlScene.RemoveNode(sequence)


def _storeSequence(node, role, proxy, segmentations: list, browserNode, volumes) -> None:
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{proxy.GetName()} sequence")
    sequence.SetIndexName(volumes.GetIndexName())
    sequence.SetIndexUnit(volumes.GetIndexUnit())
    for index, segments in enumerate(segmentations):
        for name in proxy.GetAttributeNames():  # a proxy takes them over from its time point
            segments.SetAttribute(name, proxy.GetAttribute(name))
        sequence.SetDataNodeAtValue(segments, volumes.GetNthIndexValue(index))
    with slicer.util.NodeModify(browserNode):  # else the browser makes a proxy of its own in between
        browserNode.AddSynchronizedSequenceNode(sequence)
        browserNode.AddProxyNode(proxy, sequence, False)
        browserNode.SetOverwriteProxyName(sequence, False)
        browserNode.SetSaveChanges(sequence, True)  # corrections by hand stay with their time point
    node.SetNodeReferenceID(role, sequence.GetID())


def _storeTimeTable(node, volumes, folders: Sequence[Path]) -> None:
    """The whole lung's measures, a row a time point."""
    table = node.GetNodeReference(results.TIME_TABLE_ROLE)
    if table is None:
        name = slicer.mrmlScene.GenerateUniqueName(f"{node.GetName()} over time")
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetNodeReferenceID(results.TIME_TABLE_ROLE, table.GetID())
    table.RemoveAllColumns()
    rows = [_wholeLung(folder / "measures.csv") for folder in folders]
    times = vtk.vtkStringArray()
    times.SetName(volumes.GetIndexName() or "time")
    for index in range(len(rows)):
        times.InsertNextValue(volumes.GetNthIndexValue(index))
    table.AddColumn(times)
    for name in list(rows[0])[1:]:
        column = vtk.vtkDoubleArray()
        column.SetName(name)
        for row in rows:
            column.InsertNextValue(round(float(row[name] or "nan"), results.DECIMALS))
        table.AddColumn(column)


def _wholeLung(file: Path) -> dict[str, str]:
    with file.open(encoding="utf-8", newline="") as stream:
        return next(csv.DictReader(stream))
