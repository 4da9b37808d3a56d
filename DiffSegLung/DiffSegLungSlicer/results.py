"""What a segmentation carries with it in the scene: lungs, uncertainty, manifest, measures and charts.

All hang on the segmentation node by references, so that they are saved with the scene and found again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer

from DiffSegLungLib.anatomy import LUNGS, structure_of
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.terminology import parse_terminology
from DiffSegLungLib.tissues import BY_KEY, REPORTED

from . import charts, exchange
from .exchange import SegmentChoice

if TYPE_CHECKING:
    import pandas

ATTRIBUTE = "DiffSegLung.role"
"""Marks the nodes that are ours."""
LUNGS_ROLE, UNCERTAINTY_ROLE = "DiffSegLung.lungs", "DiffSegLung.uncertainty"
MANIFEST_ROLE = "DiffSegLung.manifest"
REGIONS_ROLE, MEASURES_ROLE = "DiffSegLung.regions", "DiffSegLung.measures"
HISTOGRAM_ROLE, SHARES_ROLE = "DiffSegLung.histogram", "DiffSegLung.shares"
HISTOGRAM_TABLE_ROLE, SHARES_TABLE_ROLE = "DiffSegLung.histogramTable", "DiffSegLung.sharesTable"
SEQUENCE_ROLE, TIME_TABLE_ROLE = "DiffSegLung.sequence", "DiffSegLung.timeTable"
"""The time points of the segmentation, where it follows a sequence, and their measures."""
CORRECTED = "DiffSegLung.corrected"
REGION_SEGMENTS = "DiffSegLung.regionSegments"
LUNG_LABELS = {lung.key: lung.side for lung in LUNGS}
TISSUE_LABELS = {tissue.key: tissue.label for tissue in REPORTED}
HISTOGRAM_BINS = np.arange(-1030.0, 210.0, 10.0)
DECIMALS = 2
LEAST_ML = 0.01
"""The histogram's axis is logarithmic, for healthy lung would dwarf all disease; nothing is shown as this."""
BAR_WIDTH, BELOW_THE_AXIS = 26, -100.0
"""Pixels; and percent, out of sight."""


def isResult(segmentationNode) -> bool:
    """Whether the node is a segmentation made here."""
    return segmentationNode is not None and segmentationNode.GetAttribute(ATTRIBUTE) == "segmentation"


def volumeOf(segmentationNode):
    """The CT that was segmented; None if it is no longer in the scene."""
    role = slicer.vtkMRMLSegmentationNode.GetReferenceImageGeometryReferenceRole()
    return segmentationNode.GetNodeReference(role)


def manifestOf(segmentationNode) -> dict:
    """What the segmentation was made with, as the library states it; empty where that is not known."""
    node = segmentationNode.GetNodeReference(MANIFEST_ROLE)
    try:
        return dict(json.loads(node.GetText())) if node else {}
    except ValueError:
        return {}


def isCorrected(segmentationNode) -> bool:
    """Whether somebody has edited the tissues since they were segmented."""
    return segmentationNode.GetAttribute(CORRECTED) == "1"


def regionsOf(segmentationNode) -> SegmentChoice | None:
    """The lobes or other regions that were chosen for the measures."""
    node = segmentationNode.GetNodeReference(REGIONS_ROLE)
    chosen = segmentationNode.GetAttribute(REGION_SEGMENTS) or ""
    return SegmentChoice(node, tuple(filter(None, chosen.split("\n")))) if node else None


def requireRoom(segmentationNode, volumeNode) -> None:
    """Refuses a target whose other segments would move.

    Raises:
        UnusableInputError: it has segments that are not ours, and lies under another transform than the CT.
    """
    others = set(segmentationNode.GetSegmentation().GetSegmentIDs()) - set(TISSUE_LABELS)
    if others and segmentationNode.GetParentTransformNode() is not volumeNode.GetParentTransformNode():
        raise UnusableInputError(
            f"{segmentationNode.GetName()} has other segments and lies under another transform than "
            f"{volumeNode.GetName()}: put both under one, or choose another segmentation."
        )


def store(segmentationNode, volumeNode, folder: Path, regions: SegmentChoice | None) -> None:
    """Takes the files of a run into the scene.

    Args:
        segmentationNode: gets our segments in place of its own earlier ones; its other segments stay.
        volumeNode: the CT.
        folder: with segmentation.seg.nrrd, lungs.seg.nrrd, uncertainty.nrrd and manifest.json.
        regions: to measure, beside the lungs.
    """
    manifest = (folder / "manifest.json").read_text(encoding="utf-8")
    tissues = exchange.readSegments(folder / "segmentation.seg.nrrd", volumeNode)
    lungs = exchange.readSegments(folder / "lungs.seg.nrrd", volumeNode)
    uncertainty = exchange.readVoxels(folder / "uncertainty.nrrd")  # all is read before anything is changed
    _fill(segmentationNode, tissues, volumeNode, list(TISSUE_LABELS))
    segmentationNode.SetAttribute(ATTRIBUTE, "segmentation")
    segmentationNode.RemoveAttribute(CORRECTED)
    name = segmentationNode.GetName()
    lungNode = _own(segmentationNode, LUNGS_ROLE, "vtkMRMLSegmentationNode", f"{name} lungs")
    _fill(lungNode, lungs, volumeNode, list(LUNG_LABELS))
    _own(segmentationNode, MANIFEST_ROLE, "vtkMRMLTextNode", f"{name} manifest").SetText(manifest)
    _storeUncertainty(segmentationNode, volumeNode, uncertainty)
    segmentationNode.SetNodeReferenceID(REGIONS_ROLE, regions.node.GetID() if regions else None)
    segmentationNode.SetAttribute(REGION_SEGMENTS, "\n".join(regions.segmentIds) if regions else None)


def _fill(node, source, volumeNode, segmentIds: list[str]) -> None:
    node.CreateDefaultDisplayNodes()
    exchange.placeBeside(volumeNode, node)
    exchange.replaceSegments(node, source, segmentIds)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)


def _own(segmentationNode, role: str, className: str, name: str):
    """The node that hangs on the segmentation in a role, made if it is not there."""
    node = segmentationNode.GetNodeReference(role)
    if node is None:
        node = slicer.mrmlScene.AddNewNodeByClass(className, slicer.mrmlScene.GenerateUniqueName(name))
        node.SetAttribute(ATTRIBUTE, role)
        if className == "vtkMRMLSegmentationNode":
            node.CreateDefaultDisplayNodes()
            node.GetDisplayNode().SetVisibility(False)
        segmentationNode.SetNodeReferenceID(role, node.GetID())
    return node


def _storeUncertainty(segmentationNode, volumeNode, voxels: np.ndarray) -> None:
    """0 (sure) to 1, shown from 0.2 on in glowing colours where it is laid over the CT."""
    name = f"{segmentationNode.GetName()} uncertainty"
    node = _own(segmentationNode, UNCERTAINTY_ROLE, "vtkMRMLScalarVolumeNode", name)
    exchange.fillVolume(voxels, volumeNode, node)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeIron")
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetThreshold(0.2, 1.0)
    display.SetApplyThreshold(True)


def removeAll(segmentationNode) -> None:
    """Takes the segmentation and all that hangs on it out of the scene; the user's regions stay."""
    roles = (LUNGS_ROLE, UNCERTAINTY_ROLE, MANIFEST_ROLE)
    tables = (MEASURES_ROLE, HISTOGRAM_TABLE_ROLE, SHARES_TABLE_ROLE, TIME_TABLE_ROLE)
    nodes = [segmentationNode.GetNodeReference(role) for role in (*roles, *tables)]
    for chart in (segmentationNode.GetNodeReference(role) for role in (HISTOGRAM_ROLE, SHARES_ROLE)):
        count = chart.GetNumberOfPlotSeriesNodes() if chart else 0
        nodes += [*(chart.GetNthPlotSeriesNode(index) for index in range(count)), chart]
    for node in filter(None, [*nodes, segmentationNode]):
        displays = [node.GetNthDisplayNode(n) for n in range(_displayCount(node))]
        slicer.mrmlScene.RemoveNode(node)
        for display in filter(None, displays):  # after the node, which would make itself a new one
            slicer.mrmlScene.RemoveNode(display)


def _displayCount(node) -> int:
    return node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0


# --- measures -----------------------------------------------------------------------------------


def measure(segmentationNode, fresh: bool = False) -> pandas.DataFrame:
    """Measures the segments as they are now and brings table and charts up to date.

    Args:
        segmentationNode: a result.
        fresh: it comes straight from a run; otherwise other numbers than before mean that it was corrected.

    Returns:
        Region x measure, as `DiffSegLungLib.measures` defines them.

    Raises:
        UnusableInputError: the CT or the lungs are no longer in the scene, or there is nothing to measure.
    """
    from DiffSegLungLib.measures import measure_corrected

    volumeNode, lungNode = volumeOf(segmentationNode), segmentationNode.GetNodeReference(LUNGS_ROLE)
    if volumeNode is None or lungNode is None:
        name = segmentationNode.GetName()
        raise UnusableInputError(f"The CT or the lungs of {name} are gone: segment again.")
    labels = _labels(segmentationNode, volumeNode, TISSUE_LABELS).astype(np.uint8)
    sides = _labels(lungNode, volumeNode, LUNG_LABELS).astype(np.uint8)
    hu = slicer.util.arrayFromVolume(volumeNode)
    spacing = volumeNode.GetSpacing()[::-1]
    regions = _regionMasks(segmentationNode, volumeNode, (labels > 0) | (sides > 0))
    voxelMl = abs(np.linalg.det(exchange.worldGeometry(volumeNode)[:3, :3])) / 1000.0
    table = measure_corrected(labels, sides, hu, spacing, regions, voxelMl)
    before = tissueRows(segmentationNode)
    _showMeasures(segmentationNode, table)
    follows = segmentationNode.GetNodeReference(SEQUENCE_ROLE) is not None  # other numbers at another time
    if not fresh and not follows and before and before != tissueRows(segmentationNode):
        segmentationNode.SetAttribute(CORRECTED, "1")
    _showHistogram(segmentationNode, labels, hu, voxelMl)
    return table


def _labels(node, volumeNode, labels: dict[str, int]) -> np.ndarray:
    known = set(node.GetSegmentation().GetSegmentIDs())
    present = {segmentId: label for segmentId, label in labels.items() if segmentId in known}
    if not present:
        raise UnusableInputError(f"{node.GetName()} has none of its segments left: segment again.")
    return exchange.labelArray(SegmentChoice(node), volumeNode, present)


def _regionMasks(segmentationNode, volumeNode, lung: np.ndarray) -> dict[str, np.ndarray]:
    """Lobes by their codes first and names second; other segments keep their names."""
    choice = regionsOf(segmentationNode)
    if choice is None:
        return {}
    labels = {segmentId: value for value, segmentId in enumerate(choice.ids(), start=1)}
    array = exchange.labelArray(choice, volumeNode, labels)
    masks = {}
    for segmentId, value in labels.items():
        segment = choice.node.GetSegmentation().GetSegment(segmentId)
        lobe = structure_of(parse_terminology(exchange.terminologyOf(segment)), segment.GetName())
        inside = (array == value) & lung
        if inside.any():
            masks[lobe.name if lobe else segment.GetName()] = inside
    return masks


def _showMeasures(segmentationNode, measures: pandas.DataFrame) -> None:
    """A row a region, a column a measure with its unit and definition; and the chart of shares."""
    from DiffSegLungLib.measures import DEFINITIONS

    node = _own(segmentationNode, MEASURES_ROLE, "vtkMRMLTableNode", f"{segmentationNode.GetName()} measures")
    columns = {"region": list(measures.index)}
    columns |= {name: measures[name].round(DECIMALS).tolist() for name in measures.columns}
    charts.fillTable(node, columns)
    node.SetUseColumnTitleAsColumnHeader(True)  # Slicer puts the unit behind the title
    node.SetUseFirstColumnAsRowHeader(True)
    node.SetColumnTitle("region", "Region")
    for name in measures.columns:
        definition = DEFINITIONS[name]
        node.SetColumnTitle(name, definition.name)
        node.SetColumnUnitLabel(name, definition.unit)
        node.SetColumnDescription(name, definition.definition)
    _showShares(segmentationNode)


def _showShares(segmentationNode) -> None:
    """A stacked bar a region.

    Slicer's charts put bars side by side and know no stack.  So each tissue is a broad line that climbs in
    each region from below the axis to the shares up to this tissue's, the uppermost drawn first: what stays
    in sight of it is its own share.
    """
    name, rows = segmentationNode.GetName(), shareRows(segmentationNode)
    columns: dict[str, list] = {
        "region": [region for region, _ in rows for _ in range(3)],
        "position": [float(position) for position in range(1, len(rows) + 1) for _ in range(3)],
    }
    tops = np.cumsum([list(shares.values()) for _, shares in rows], axis=1).round(DECIMALS)
    for key, heights in reversed(list(zip(TISSUE_LABELS, tops.T.tolist(), strict=True))):
        columns[key] = [y for height in heights for y in (BELOW_THE_AXIS, height, BELOW_THE_AXIS)]
    table = _own(segmentationNode, SHARES_TABLE_ROLE, "vtkMRMLTableNode", f"{name} shares table")
    charts.fillTable(table, columns)
    chart = _own(segmentationNode, SHARES_ROLE, "vtkMRMLPlotChartNode", f"{name} shares")
    charts.fillChart(chart, "position", _tissueLines(table, list(columns)[2:]), BAR_WIDTH)
    regions = ", ".join(f"{position} {region}" for position, (region, _) in enumerate(rows, start=1))
    charts.describeChart(chart, "Share of each tissue per region", regions, "% of parenchyma")
    chart.SetXAxisRangeAuto(False)
    chart.SetXAxisRange(0.5, 1.5 * len(rows) + 0.5)  # the legend stands on the right
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 100.0)


def _showHistogram(segmentationNode, labels: np.ndarray, hu: np.ndarray, voxelMl: float) -> None:
    """Millilitres of each tissue by Hounsfield units, in steps of 10 HU."""
    name = segmentationNode.GetName()
    columns = {"HU": ((HISTOGRAM_BINS[:-1] + HISTOGRAM_BINS[1:]) / 2).tolist()}
    for tissue in REPORTED:
        counts, _ = np.histogram(hu[labels == tissue.label], HISTOGRAM_BINS)
        columns[tissue.key] = np.maximum(counts * voxelMl, LEAST_ML).round(DECIMALS).tolist()
    table = _own(segmentationNode, HISTOGRAM_TABLE_ROLE, "vtkMRMLTableNode", f"{name} histogram table")
    charts.fillTable(table, columns)
    chart = _own(segmentationNode, HISTOGRAM_ROLE, "vtkMRMLPlotChartNode", f"{name} histogram")
    charts.fillChart(chart, "HU", _tissueLines(table, list(TISSUE_LABELS)), lineWidth=2)
    charts.describeChart(chart, "Hounsfield units of each tissue", "HU", "ml per 10 HU")
    chart.SetYAxisLogScale(True)


def _tissueLines(table, keys: list[str]) -> list[charts.Line]:
    """A line a tissue, in the tissue's colour."""
    return [charts.Line(table, key, BY_KEY[key].name, BY_KEY[key].colour) for key in keys]


def tissueRows(segmentationNode) -> list[tuple[str, float, float]]:
    """Key, ml and percent of each tissue in the whole lung, as the table says; empty without a table."""
    columns = _measuredColumns(segmentationNode)
    return [(key, columns[f"{key}_ml"][0], columns[f"{key}_percent"][0]) for key in TISSUE_LABELS if columns]


def shareRows(segmentationNode) -> list[tuple[str, dict[str, float]]]:
    """Name of each region, and percent of its tissues by their keys; empty without a table."""
    columns = _measuredColumns(segmentationNode)
    return [
        (name, {key: columns[f"{key}_percent"][row] for key in TISSUE_LABELS})
        for row, name in enumerate(columns.get("region", []))
    ]


def _measuredColumns(segmentationNode) -> dict[str, list]:
    node = segmentationNode.GetNodeReference(MEASURES_ROLE)
    if node is None or node.GetNumberOfRows() == 0:
        return {}
    arrays = [node.GetTable().GetColumn(index) for index in range(node.GetNumberOfColumns())]
    return {each.GetName(): [each.GetValue(row) for row in range(node.GetNumberOfRows())] for each in arrays}


def tableText(tableNode) -> str:
    """The table of measures as a spreadsheet takes it: a line a measure, a column a region."""
    names = [tableNode.GetColumnName(index) for index in range(tableNode.GetNumberOfColumns())]
    lines = []
    for column, name in enumerate(names):
        cells = [tableNode.GetCellText(row, column) for row in range(tableNode.GetNumberOfRows())]
        title, unit = tableNode.GetColumnTitle(name) or name, tableNode.GetColumnUnitLabel(name)
        lines.append("\t".join([f"{title} [{unit}]" if unit else title, *cells]))
    return "\n".join(lines)


def largestPiece(segmentationNode, key: str) -> tuple[float, float, float] | None:
    """A point, in RAS millimetres, in the largest connected piece of a tissue; None where it has no voxel.

    The voxel nearest to the piece's centre of mass is taken: the centre itself may lie outside of a sickle.
    """
    from scipy import ndimage

    volumeNode = volumeOf(segmentationNode)
    if volumeNode is None:
        return None
    pieces, count = ndimage.label(_labels(segmentationNode, volumeNode, {key: 1}))
    if count == 0:
        return None
    largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    voxels = np.argwhere(pieces == largest)
    step = np.asarray(volumeNode.GetSpacing())[::-1]
    nearest = voxels[np.linalg.norm((voxels - voxels.mean(axis=0)) * step, axis=1).argmin()]
    ras = exchange.worldGeometry(volumeNode) @ [*nearest[::-1], 1.0]
    return float(ras[0]), float(ras[1]), float(ras[2])
