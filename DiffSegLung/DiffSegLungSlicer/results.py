"""What a segmentation carries with it in the scene: lungs, uncertainty, manifest, measures and charts.

All hang on the segmentation node by references, so that they are saved with the scene and found again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import slicer

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.tissues import BY_KEY, DISEASES

from . import charts, exchange, measuring
from .exchange import SegmentChoice
from .measuring import HISTOGRAM_BINS, LUNG_LABELS, TISSUE_LABELS
from .words import said

if TYPE_CHECKING:
    import pandas

ATTRIBUTE = "DiffSegLung.role"
"""Marks the nodes that are ours."""
LUNGS_ROLE, UNCERTAINTY_ROLE = "DiffSegLung.lungs", "DiffSegLung.uncertainty"
MANIFEST_ROLE, STROKES_ROLE = "DiffSegLung.manifest", "DiffSegLung.strokes"
REGIONS_ROLE, MEASURES_ROLE = "DiffSegLung.regions", "DiffSegLung.measures"
HISTOGRAM_ROLE, SHARES_ROLE = "DiffSegLung.histogram", "DiffSegLung.shares"
HISTOGRAM_TABLE_ROLE, SHARES_TABLE_ROLE = "DiffSegLung.histogramTable", "DiffSegLung.sharesTable"
PROFILE_ROLE, PROFILE_TABLE_ROLE = "DiffSegLung.profile", "DiffSegLung.profileTable"
SEQUENCE_ROLE, TIME_TABLE_ROLE = "DiffSegLung.sequence", "DiffSegLung.timeTable"
"""The time points of the segmentation, where it follows a sequence, and their measures."""
CORRECTED = "DiffSegLung.corrected"
REGION_SEGMENTS = "DiffSegLung.regionSegments"
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
    lungNode = own(segmentationNode, LUNGS_ROLE, "vtkMRMLSegmentationNode", f"{name} lungs")
    _fill(lungNode, lungs, volumeNode, list(LUNG_LABELS))
    own(segmentationNode, MANIFEST_ROLE, "vtkMRMLTextNode", f"{name} manifest").SetText(manifest)
    _storeUncertainty(segmentationNode, volumeNode, uncertainty)
    chooseRegions(segmentationNode, regions)


def _fill(node, source, volumeNode, segmentIds: list[str]) -> None:
    node.CreateDefaultDisplayNodes()
    exchange.placeBeside(volumeNode, node)
    exchange.replaceSegments(node, source, segmentIds)
    node.SetReferenceImageGeometryParameterFromVolumeNode(volumeNode)


def own(segmentationNode, role: str, className: str, name: str):
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
    node = own(segmentationNode, UNCERTAINTY_ROLE, "vtkMRMLScalarVolumeNode", name)
    exchange.fillVolume(voxels, volumeNode, node)
    display = node.GetDisplayNode()
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeIron")
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(0.0, 1.0)
    display.SetThreshold(0.2, 1.0)
    display.SetApplyThreshold(True)


def removeAll(segmentationNode) -> None:
    """Takes the segmentation and all that hangs on it out of the scene; the user's regions stay."""
    roles = (LUNGS_ROLE, UNCERTAINTY_ROLE, MANIFEST_ROLE, STROKES_ROLE)
    tables = (
        MEASURES_ROLE,
        HISTOGRAM_TABLE_ROLE,
        SHARES_TABLE_ROLE,
        PROFILE_TABLE_ROLE,
        TIME_TABLE_ROLE,
    )
    nodes = [segmentationNode.GetNodeReference(role) for role in (*roles, *tables)]
    for chart in map(segmentationNode.GetNodeReference, (HISTOGRAM_ROLE, SHARES_ROLE, PROFILE_ROLE)):
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


def taken(segmentationNode) -> measuring.Taken:
    """What is to be measured, as it is now.

    Raises:
        UnusableInputError: the CT or the lungs are no longer in the scene, or there is nothing to measure.
    """
    volumeNode, lungNode = volumeOf(segmentationNode), segmentationNode.GetNodeReference(LUNGS_ROLE)
    if volumeNode is None or lungNode is None:
        name = segmentationNode.GetName()
        raise UnusableInputError(f"The CT or the lungs of {name} are gone: segment again.")
    return measuring.take(segmentationNode, volumeNode, lungNode, regionsOf(segmentationNode))


def measure(segmentationNode, fresh: bool = False) -> pandas.DataFrame:
    """Measures the segments as they are now and brings table and charts up to date.

    Args:
        segmentationNode: a result.
        fresh: it comes straight from a run; otherwise other numbers than before mean that it was corrected.

    Returns:
        Region x measure, as `DiffSegLungLib.quantify.measures` defines them.

    Raises:
        UnusableInputError: as `taken`.
    """
    measured = measuring.compute(taken(segmentationNode))
    showMeasured(segmentationNode, measured, fresh)
    return measured.table


def showMeasured(segmentationNode, measured: measuring.Measured, fresh: bool = False) -> None:
    """Brings table and charts up to date; arguments as of `measure`."""
    before = tissueRows(segmentationNode)
    _showMeasures(segmentationNode, measured.table)
    follows = segmentationNode.GetNodeReference(SEQUENCE_ROLE) is not None  # other numbers at another time
    if not fresh and not follows and before and before != tissueRows(segmentationNode):
        segmentationNode.SetAttribute(CORRECTED, "1")
    geometry = exchange.worldGeometry(volumeOf(segmentationNode))
    voxelMl = abs(np.linalg.det(geometry[:3, :3])) / 1000.0
    _showHistogram(segmentationNode, measured.histograms, voxelMl)
    _showProfile(segmentationNode, measured.profile)


def chooseRegions(segmentationNode, regions: SegmentChoice | None) -> None:
    """Which regions are measured beside the lungs."""
    segmentationNode.SetNodeReferenceID(REGIONS_ROLE, regions.node.GetID() if regions else None)
    segmentationNode.SetAttribute(REGION_SEGMENTS, "\n".join(regions.segmentIds) if regions else None)


def _showMeasures(segmentationNode, measures: pandas.DataFrame) -> None:
    """A row a region, a column a measure with its unit and definition; and the chart of shares."""
    from DiffSegLungLib.quantify.measures import DEFINITIONS

    node = own(segmentationNode, MEASURES_ROLE, "vtkMRMLTableNode", f"{segmentationNode.GetName()} measures")
    columns = {"region": list(measures.index)}
    columns |= {name: measures[name].round(DECIMALS).tolist() for name in measures.columns}
    charts.fillTable(node, columns)
    node.SetUseColumnTitleAsColumnHeader(True)  # Slicer puts the unit behind the title
    node.SetUseFirstColumnAsRowHeader(True)
    node.SetColumnTitle("region", "Region")
    for name in measures.columns:
        definition = DEFINITIONS[name]
        node.SetColumnTitle(name, said(definition.name))
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
    table = own(segmentationNode, SHARES_TABLE_ROLE, "vtkMRMLTableNode", f"{name} shares table")
    charts.fillTable(table, columns)
    chart = own(segmentationNode, SHARES_ROLE, "vtkMRMLPlotChartNode", f"{name} shares")
    charts.fillChart(chart, "position", _tissueLines(table, list(columns)[2:]), BAR_WIDTH)
    regions = ", ".join(f"{position} {region}" for position, (region, _) in enumerate(rows, start=1))
    charts.describeChart(chart, "Share of each tissue per region", regions, "% of parenchyma")
    chart.SetXAxisRangeAuto(False)
    chart.SetXAxisRange(0.5, 1.5 * len(rows) + 0.5)  # the legend stands on the right
    chart.SetYAxisRangeAuto(False)
    chart.SetYAxisRange(0.0, 100.0)


def _showHistogram(segmentationNode, histograms: dict[str, np.ndarray], voxelMl: float) -> None:
    """Millilitres of each tissue by Hounsfield units, in steps of 10 HU."""
    name = segmentationNode.GetName()
    columns = {"HU": ((HISTOGRAM_BINS[:-1] + HISTOGRAM_BINS[1:]) / 2).tolist()}
    for key, counts in histograms.items():
        columns[key] = np.maximum(counts * voxelMl, LEAST_ML).round(DECIMALS).tolist()
    table = own(segmentationNode, HISTOGRAM_TABLE_ROLE, "vtkMRMLTableNode", f"{name} histogram table")
    charts.fillTable(table, columns)
    chart = own(segmentationNode, HISTOGRAM_ROLE, "vtkMRMLPlotChartNode", f"{name} histogram")
    charts.fillChart(chart, "HU", _tissueLines(table, list(TISSUE_LABELS)), lineWidth=2)
    charts.describeChart(chart, "Hounsfield units of each tissue", "HU", "ml per 10 HU")
    chart.SetYAxisLogScale(True)


def _showProfile(segmentationNode, profile: pandas.DataFrame) -> None:
    """Share of each tissue from apex to base."""
    name = segmentationNode.GetName()
    filled = profile.fillna(0.0).round(DECIMALS)
    columns = {"apex to base": profile.index.tolist(), **{key: filled[key].tolist() for key in TISSUE_LABELS}}
    table = own(segmentationNode, PROFILE_TABLE_ROLE, "vtkMRMLTableNode", f"{name} zonal profile table")
    charts.fillTable(table, columns)
    chart = own(segmentationNode, PROFILE_ROLE, "vtkMRMLPlotChartNode", f"{name} zonal profile")
    charts.fillChart(chart, "apex to base", _tissueLines(table, list(TISSUE_LABELS)), lineWidth=2)
    charts.describeChart(chart, "Zonal profile", "apex to base, % of the lungs' height", "% of parenchyma")


def _tissueLines(table, keys: list[str]) -> list[charts.Line]:
    """A line a tissue, in the tissue's colour."""
    return [charts.Line(table, key, said(BY_KEY[key].name), BY_KEY[key].colour) for key in keys]


def tissueRows(segmentationNode) -> list[tuple[str, float, float]]:
    """Key, ml and percent of each tissue in the whole lung, as the table says; empty without a table."""
    columns = _measuredColumns(segmentationNode)
    return [(key, columns[f"{key}_ml"][0], columns[f"{key}_percent"][0]) for key in TISSUE_LABELS if columns]


def wholeLung(segmentationNode) -> dict[str, float]:
    """Every measure of the whole lung, as the table says; empty without a table."""
    columns = _measuredColumns(segmentationNode)
    return {name: values[0] for name, values in columns.items() if name != "region"}


def shareRows(segmentationNode) -> list[tuple[str, dict[str, float]]]:
    """Name of each region that has lung, and percent of its tissues by their keys; empty without a table."""
    columns = _measuredColumns(segmentationNode)
    rows = [
        (name, {key: columns[f"{key}_percent"][row] for key in TISSUE_LABELS})
        for row, name in enumerate(columns.get("region", []))
    ]
    return [(name, shares) for name, shares in rows if np.isfinite(list(shares.values())).all()]


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


def largestDisease(segmentationNode) -> str | None:
    """The key of the disease that takes most of the lungs; None where there is none."""
    diseases = {tissue.key for tissue in DISEASES}
    volumes = {key: ml for key, ml, _percent in tissueRows(segmentationNode) if key in diseases and ml > 0}
    return max(volumes, key=lambda key: volumes[key]) if volumes else None


def largestPiece(segmentationNode, key: str, ofLungs: bool = False) -> tuple[float, float, float] | None:
    """A point, in RAS millimetres, in the largest connected piece of a tissue; None where it has no voxel.

    The voxel nearest to the piece's centre of mass is taken: the centre itself may lie outside of a sickle.

    Args:
        segmentationNode: a result.
        key: of a tissue; or, of its lungs, of a lung.
        ofLungs: which of both.
    """
    from scipy import ndimage

    volumeNode = volumeOf(segmentationNode)
    node = segmentationNode.GetNodeReference(LUNGS_ROLE) if ofLungs else segmentationNode
    if volumeNode is None or node is None or key not in node.GetSegmentation().GetSegmentIDs():
        return None
    labels = exchange.labelLayers(SegmentChoice(node), volumeNode, {key: 1}).merged()
    box = ndimage.find_objects(labels)[:1]
    if not box:
        return None
    pieces, _count = ndimage.label(labels[box[0]])
    largest = 1 + int(np.bincount(pieces.ravel())[1:].argmax())
    voxels = np.argwhere(pieces == largest) + [along.start for along in box[0]]
    step = np.asarray(volumeNode.GetSpacing())[::-1]
    nearest = voxels[np.linalg.norm((voxels - voxels.mean(axis=0)) * step, axis=1).argmin()]
    ras = exchange.worldGeometry(volumeNode) @ [*nearest[::-1], 1.0]
    return float(ras[0]), float(ras[1]), float(ras[2])
