"""How a result is shown: lung window, outlines, the views' place and zoom, the uncertainty laid over."""

from __future__ import annotations

import numpy as np
import slicer

from DiffSegLungLib.anatomy import LUNGS
from DiffSegLungLib.densities import LUNG_LEVEL_HU, LUNG_WIDTH_HU
from DiffSegLungLib.tissues import HEALTHY, REPORTED

from . import results

LUNG_WINDOW_HU = (LUNG_WIDTH_HU, LUNG_LEVEL_HU)
"""Width and level, as radiologists read lungs."""
WINDOW_BEFORE = "DiffSegLung.windowBefore"
VIEW_MARGIN = 1.15
UNCERTAINTY_OPACITY = 0.6
DISEASE_OPACITY = 0.5
HEALTHY_OUTLINE, HEALTHY_3D = 0.4, 0.12
"""The healthy lung is there, but disease is what the eye shall meet."""
SOFTWARE_RENDERERS = ("llvmpipe", "softpipe", "swiftshader", "software", "gdi generic", "svga3d", "mesa off")
SURFACE_VOXELS = 15_000_000
"""In the boxes around all segments: 16 million took 1.2 s on one core, whatever the graphics card."""
SURFACES = "Closed surface"
HEALTHY_KEY = next(tissue.key for tissue in REPORTED if tissue.label == HEALTHY)


def useLungWindow(volumeNode) -> None:
    """Width 1500, level -600 HU; what was there is remembered for `restoreWindow`."""
    display = volumeNode.GetDisplayNode()
    if display is None:
        return
    if volumeNode.GetAttribute(WINDOW_BEFORE) is None:
        before = f"{int(display.GetAutoWindowLevel())} {display.GetWindow()} {display.GetLevel()}"
        volumeNode.SetAttribute(WINDOW_BEFORE, before)
    display.AutoWindowLevelOff()
    display.SetWindowLevel(*LUNG_WINDOW_HU)


def usesLungWindow(volumeNode) -> bool:
    """Whether the CT is shown as `useLungWindow` does."""
    view = volumeNode.GetDisplayNode() if volumeNode else None
    return view is not None and (view.GetWindow(), view.GetLevel()) == LUNG_WINDOW_HU


def restoreWindow(volumeNode) -> None:
    """The window from before the first result."""
    before, display = volumeNode.GetAttribute(WINDOW_BEFORE), volumeNode.GetDisplayNode()
    if before is None or display is None:
        return
    automatic, width, level = (float(number) for number in before.split())
    display.SetWindowLevel(width, level)
    display.SetAutoWindowLevel(bool(automatic))
    volumeNode.RemoveAttribute(WINDOW_BEFORE)


def showResult(segmentationNode) -> None:
    """The CT in the lung window with the tissues over it: disease filled, healthy lung as an outline."""
    volumeNode = results.volumeOf(segmentationNode)
    useLungWindow(volumeNode)
    slicer.util.setSliceViewerLayers(background=volumeNode)
    display = segmentationNode.GetDisplayNode()
    display.SetVisibility(True)
    for tissue in REPORTED:
        display.SetSegmentVisibility(tissue.key, True)
        display.SetSegmentVisibility2DFill(tissue.key, tissue.key != HEALTHY_KEY)
        display.SetSegmentOpacity2DOutline(tissue.key, HEALTHY_OUTLINE if tissue.key == HEALTHY_KEY else 1.0)
        display.SetSegmentOpacity3D(tissue.key, HEALTHY_3D if tissue.key == HEALTHY_KEY else 1.0)
    display.SetOpacity2DFill(DISEASE_OPACITY)
    fitLungs(segmentationNode)
    if drawsAtOnce(segmentationNode):
        segmentationNode.GetSegmentation().CreateRepresentation(SURFACES)


def drawsAtOnce(segmentationNode) -> bool:
    """Whether a graphics card is there and the surfaces are made within about a second."""
    card = graphicsCard().lower()
    if not card or any(name in card for name in SOFTWARE_RENDERERS):
        return False
    segmentation = segmentationNode.GetSegmentation()
    voxels = 0
    for segmentId in segmentation.GetSegmentIDs():
        extent = np.array(segmentation.GetSegment(segmentId).GetRepresentation("Binary labelmap").GetExtent())
        voxels += int(np.prod(np.maximum(extent[1::2] - extent[::2] + 1, 0), dtype=np.int64))
    return voxels <= SURFACE_VOXELS


def graphicsCard() -> str:
    """What draws the 3D view, as OpenGL calls it; empty where there is no view to ask."""
    manager = slicer.app.layoutManager()
    if manager is None or manager.threeDViewCount == 0:
        return ""
    window = manager.threeDWidget(0).threeDView().renderWindow()
    said = window.ReportCapabilities() if window is not None else ""
    lines = [line for line in (said or "").splitlines() if "renderer string" in line.lower()]
    return lines[0].partition(":")[2].strip() if lines else ""


def fitLungs(segmentationNode) -> None:
    """Slice views show all of the lungs, at the largest disease, else through the right lung.

    Half way between both lungs lies the mediastinum, which is of no interest here.
    """
    bounds = [0.0] * 6
    segmentationNode.GetRASBounds(bounds)
    low, high = np.array(bounds[::2]), np.array(bounds[1::2])
    if not np.all(high > low):
        return
    jumpTo(tuple((low + high) / 2))
    place = _placeOfInterest(segmentationNode)
    if place is not None:  # along their normals alone, so that all of the lungs stays in sight
        slicer.vtkMRMLSliceNode.JumpAllSlices(
            slicer.mrmlScene, *place, slicer.vtkMRMLSliceNode.OffsetJumpSlice
        )
    for name in slicer.app.layoutManager().sliceViewNames():
        sliceNode = slicer.app.layoutManager().sliceWidget(name).mrmlSliceNode()
        _fitSlice(sliceNode, high - low)


def _placeOfInterest(segmentationNode) -> tuple[float, float, float] | None:
    disease = results.largestDisease(segmentationNode)
    place = results.largestPiece(segmentationNode, disease) if disease else None
    lungs = (results.largestPiece(segmentationNode, lung.key, ofLungs=True) for lung in LUNGS)
    return place or next(filter(None, lungs), None)


def _fitSlice(sliceNode, size: np.ndarray) -> None:
    axes = slicer.util.arrayFromVTKMatrix(sliceNode.GetSliceToRAS())[:3, :2]
    wanted = VIEW_MARGIN * np.abs(axes).T @ size  # millimetres across and down
    width, height, depth = sliceNode.GetFieldOfView()
    if width <= 0 or height <= 0:
        return
    scale = max(wanted[0] / width, wanted[1] / height)
    sliceNode.SetFieldOfView(width * scale, height * scale, depth)


def jumpTo(ras: tuple[float, float, float]) -> None:
    """All slice views go through a point and have it in their middle."""
    slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *ras, slicer.vtkMRMLSliceNode.CenteredJumpSlice)


def jumpToLargest(segmentationNode, key: str) -> bool:
    """Slice views go to the largest piece of a tissue; False where there is none."""
    point = results.largestPiece(segmentationNode, key)
    if point is not None:
        jumpTo(point)
    return point is not None


def showUncertainty(segmentationNode, shown: bool) -> None:
    """Lays the uncertainty over the CT, or takes it away."""
    node = segmentationNode.GetNodeReference(results.UNCERTAINTY_ROLE)
    if shown and node:
        slicer.util.setSliceViewerLayers(foreground=node, foregroundOpacity=UNCERTAINTY_OPACITY)
    else:
        slicer.util.setSliceViewerLayers(foreground=None)


def showsUncertainty(segmentationNode) -> bool:
    """Whether the first slice view has the uncertainty laid over."""
    node = segmentationNode.GetNodeReference(results.UNCERTAINTY_ROLE)
    views = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return node is not None and bool(views) and views[0].GetForegroundVolumeID() == node.GetID()


def showChart(chartNode) -> None:
    """Shows a chart in a plot view beside the slices."""
    layout = slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotView
    slicer.app.layoutManager().setLayout(layout)
    selection = slicer.app.applicationLogic().GetSelectionNode()
    selection.SetActivePlotChartID(chartNode.GetID())
    slicer.app.applicationLogic().PropagatePlotChartSelection()
