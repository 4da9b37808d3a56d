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

TIME_TABLE_ROLE = "DiffSegLung.timeTable"
LUNGS_ROLE = "DiffSegLung.lungsSequence"


def browserOf(volumeNode):
    """The browser that a volume is shown by; None if it belongs to no sequence."""
    if volumeNode is None or not hasattr(slicer.modules, "sequences"):
        return None
    return slicer.modules.sequences.logic().GetFirstBrowserNodeForProxyNode(volumeNode)


def volumesOf(browserNode, volumeNode) -> list:
    """The CT of every time point, in order; they are not in the scene.

    Raises:
        UnusableInputError: the CT does not belong to this browser, or a time point is no CT.
    """
    sequence = browserNode.GetSequenceNode(volumeNode)
    if sequence is None or sequence.GetNumberOfDataNodes() == 0:
        raise UnusableInputError(
            f"{volumeNode.GetName()} is not a part of the sequence {browserNode.GetName()}: choose its CT."
        )
    volumes = [sequence.GetNthDataNode(index) for index in range(sequence.GetNumberOfDataNodes())]
    for volume in volumes:
        exchange.requireCt(volume)
    return volumes


def store(node, browserNode, volumeNode, folders: Sequence[Path], regions: SegmentChoice | None) -> None:
    """Puts the results of all time points into sequences that go along with the CT's.

    Args:
        node: the segmentation node; it shows the time point that the browser is at.
        browserNode: of the CT's sequence.
        volumeNode: the CT as the browser shows it.
        folders: of the time points, in order; each as for `results.store`.
        regions: to measure.
    """
    sequence, shown = browserNode.GetSequenceNode(volumeNode), browserNode.GetSelectedItemNumber()
    results.store(node, volumeNode, folders[shown], regions)
    lungNode = node.GetNodeReference(results.LUNGS_ROLE)
    for proxy, role, name in ((node, results.SEQUENCE_ROLE, "segmentation"), (lungNode, LUNGS_ROLE, "lungs")):
        _storeSequence(node, role, proxy, f"{name}.seg.nrrd", browserNode, volumeNode, folders)
    _storeTimeTable(node, sequence, folders)


def _storeSequence(node, role, proxy, fileName, browserNode, volumeNode, folders) -> None:
    volumes = browserNode.GetSequenceNode(volumeNode)
    old = node.GetNodeReference(role)
    if old is not None:
        browserNode.RemoveSynchronizedSequenceNode(old.GetID())
        slicer.mrmlScene.RemoveNode(old)
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", f"{proxy.GetName()} sequence")
    sequence.SetIndexName(volumes.GetIndexName())
    sequence.SetIndexUnit(volumes.GetIndexUnit())
    for index, folder in enumerate(folders):
        segments = exchange.readSegments(folder / fileName, volumes.GetNthDataNode(index))
        sequence.SetDataNodeAtValue(segments, volumes.GetNthIndexValue(index))
    browserNode.AddSynchronizedSequenceNode(sequence)
    browserNode.AddProxyNode(proxy, sequence, False)
    browserNode.SetOverwriteProxyName(sequence, False)
    node.SetNodeReferenceID(role, sequence.GetID())


def _storeTimeTable(node, volumes, folders: Sequence[Path]) -> None:
    """The whole lung's measures, a row a time point."""
    table = node.GetNodeReference(TIME_TABLE_ROLE)
    if table is None:
        name = slicer.mrmlScene.GenerateUniqueName(f"{node.GetName()} over time")
        table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", name)
        node.SetNodeReferenceID(TIME_TABLE_ROLE, table.GetID())
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
