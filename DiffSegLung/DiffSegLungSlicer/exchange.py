"""Volumes and segmentations between the scene and the files that the library reads and writes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export import segmentation_file
from DiffSegLungLib.terminology import parse_terminology

from .dicomSource import acquisition

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
LABELMAP = "Binary labelmap"
MOST_SEGMENTS = 255
"""In a file of one layer of 8 bit."""


@dataclass(frozen=True)
class SegmentChoice:
    """Some segments of a segmentation: all of them where ``segmentIds`` is empty."""

    node: slicer.vtkMRMLSegmentationNode
    segmentIds: tuple[str, ...] = ()

    @classmethod
    def of(cls, choice) -> SegmentChoice | None:
        """From what the console gives: None, a segmentation node, or the node and a segment's ID.

        Raises:
            UnusableInputError: the segmentation has no such segment, or none at all.
        """
        if choice is None or isinstance(choice, SegmentChoice):
            return choice
        node, segmentId = choice if isinstance(choice, (tuple, list)) else (choice, None)
        chosen = cls(node, (segmentId,) if segmentId else ())
        known = list(node.GetSegmentation().GetSegmentIDs())
        if not known or (segmentId and segmentId not in known):
            missing = f"has no segment {segmentId!r}" if known else "has no segments"
            raise UnusableInputError(f"{node.GetName()} {missing}: choose one of its segments.")
        return chosen

    def ids(self) -> list[str]:
        """The segments' IDs, in the segmentation's order."""
        return list(self.segmentIds) or list(self.node.GetSegmentation().GetSegmentIDs())


def requireCt(volumeNode) -> None:
    """Refuses what cannot be a CT before anything is written.

    Raises:
        UnusableInputError: no volume, no voxels, several values a voxel, or a non-linear transform.
    """
    if volumeNode is None:
        raise UnusableInputError("No CT is chosen: load one and choose it.")
    image = volumeNode.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise UnusableInputError(f"{volumeNode.GetName()} has no voxels: load the CT again.")
    if image.GetNumberOfScalarComponents() != 1:
        raise UnusableInputError(f"{volumeNode.GetName()} is a colour image: choose a CT.")
    transform = volumeNode.GetParentTransformNode()
    if transform is not None and not transform.IsTransformToWorldLinear():
        raise UnusableInputError(
            f"{volumeNode.GetName()} is under the non-linear transform {transform.GetName()} (a tilted "
            "gantry gives one): harden it in the Data module (right click, Harden transform), then segment."
        )


def worldGeometry(volumeNode) -> np.ndarray:
    """(4, 4) from voxel (i, j, k) to the patient's RAS in mm, the volume's linear transform included."""
    local, world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(local)
    transform = volumeNode.GetParentTransformNode()
    if transform is not None:
        transform.GetMatrixTransformToWorld(world)
    return slicer.util.arrayFromVTKMatrix(world) @ slicer.util.arrayFromVTKMatrix(local)


def imageOf(array: np.ndarray, volumeNode):
    """A SimpleITK image of a (k, j, i) array, placed where the volume lies in the patient."""
    import SimpleITK as sitk

    matrix = RAS_TO_LPS @ worldGeometry(volumeNode)
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    image = sitk.GetImageFromArray(array)
    image.SetOrigin(matrix[:3, 3].tolist())
    image.SetSpacing(spacing.tolist())
    image.SetDirection((matrix[:3, :3] / spacing).ravel().tolist())
    return image


def exportVolume(volumeNode, path: Path) -> None:
    """Writes the CT's voxels as they are, with what is known of how they were acquired.

    The node needs no file of its own and is not changed.
    """
    import SimpleITK as sitk

    image = imageOf(slicer.util.arrayFromVolume(volumeNode), volumeNode)
    for tag, value in acquisition(volumeNode).items():
        image.SetMetaData(tag, value)
    sitk.WriteImage(image, str(path), useCompression=False)


@dataclass(frozen=True)
class Layers:
    """Segments of a scene as they were at a moment, on a CT's grid.

    Attributes:
        shape: (k, j, i) of the grid.
        parts: in the segments' order the label, where its voxels lie on the grid, an array of segments there,
            and the segment's value in it.
    """

    shape: tuple[int, int, int]
    parts: tuple[tuple[int, tuple[slice, slice, slice], np.ndarray, int], ...]

    def merged(self) -> np.ndarray:
        """uint16 (k, j, i), 0 where there is no segment; where segments overlap the later one counts."""
        merged = np.zeros(self.shape, np.uint16)
        for label, box, voxels, value in self.parts:
            merged[box][voxels == value] = label
        return merged


def labelLayers(choice: SegmentChoice, volumeNode, labels: Mapping[str, int]) -> Layers:
    """Segments as they are now; their voxels are copied, and merged only when somebody asks.

    Args:
        choice: the segmentation; it may have any geometry and lie under another transform.
        volumeNode: the CT.
        labels: value for each segment ID.

    Raises:
        UnusableInputError: they do not lie in the CT.
    """
    shape = slicer.util.arrayFromVolume(volumeNode).shape
    parts = _ownLayers(choice.node, volumeNode, shape, labels)
    if parts is None:  # of another grid: Slicer resamples them
        merged = labelArray(choice, volumeNode, labels)
        everywhere = tuple(slice(0, size) for size in shape)
        parts = tuple((label, everywhere, merged, label) for label in labels.values())
    return Layers(shape, parts)


def _ownLayers(node, volumeNode, shape, labels: Mapping[str, int]) -> tuple | None:
    """The parts of `Layers`, None unless all segments are voxels on the CT's grid and within it."""
    segmentation = node.GetSegmentation()
    same = node.GetParentTransformNode() is volumeNode.GetParentTransformNode()
    if not same or segmentation.GetSourceRepresentationName() != LABELMAP:
        return None
    geometry = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(geometry)
    taken: dict[int, tuple | None] = {}
    parts = []
    for segmentId, label in labels.items():
        layer = segmentation.GetLayerIndex(segmentId, LABELMAP)
        if layer not in taken:
            taken[layer] = _ownLayer(segmentation.GetLayerDataObject(layer, LABELMAP), geometry, shape)
        if taken[layer] is None:
            return None
        parts.append((label, *taken[layer], int(segmentation.GetSegment(segmentId).GetLabelValue())))
    return tuple(part for part in parts if part[2].size)


def _ownLayer(image, geometry, shape) -> tuple | None:
    """Where the layer lies on the grid, and its voxels (k, j, i); None if it is of another grid."""
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    apart = slicer.util.arrayFromVTKMatrix(matrix) - slicer.util.arrayFromVTKMatrix(geometry)
    low, high = np.array(image.GetExtent()[::2])[::-1], np.array(image.GetExtent()[1::2])[::-1] + 1
    size = tuple(int(each) for each in high - low)
    if min(size) <= 0 or image.GetPointData().GetScalars() is None:
        return (slice(0, 0),) * 3, np.zeros((0, 0, 0), np.uint8)
    if np.abs(apart).max() > 1e-6 or (low < 0).any() or (high > shape).any():
        return None
    box = tuple(slice(int(first), int(last)) for first, last in zip(low, high, strict=True))
    return box, vtk_to_numpy(image.GetPointData().GetScalars()).reshape(size).copy()


def labelArray(choice: SegmentChoice, volumeNode, labels: Mapping[str, int]) -> np.ndarray:
    """Segments as one label map on the CT's grid.

    Args:
        choice: the segmentation; it may have any geometry and lie under another transform.
        volumeNode: the CT.
        labels: value for each segment ID.  Where segments overlap the later one counts.

    Returns:
        uint16 (k, j, i), 0 where there is no segment.
    """
    ids, values = vtk.vtkStringArray(), vtk.vtkIntArray()
    for segmentId, value in labels.items():
        ids.InsertNextValue(segmentId)
        values.InsertNextValue(value)
    merged = slicer.vtkOrientedImageData()
    with _asLabelmap(choice.node):
        slicer.vtkSlicerSegmentationsModuleLogic.GenerateMergedLabelmapInReferenceGeometry(
            choice.node, volumeNode, ids, slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY, merged, values
        )
    shape = slicer.util.arrayFromVolume(volumeNode).shape
    scalars = merged.GetPointData().GetScalars()
    if scalars is None or scalars.GetNumberOfTuples() != np.prod(shape):
        raise UnusableInputError(
            f"The segments of {choice.node.GetName()} do not lie in the CT: choose others."
        )
    return vtk_to_numpy(scalars).reshape(shape).astype(np.uint16)


@contextlib.contextmanager
def _asLabelmap(node) -> Iterator[None]:
    """For a while a segmentation that has surfaces alone has voxels too."""
    segmentation = node.GetSegmentation()
    hadVoxels = segmentation.ContainsRepresentation(LABELMAP)
    node.CreateBinaryLabelmapRepresentation()
    try:
        yield
    finally:
        if not hadVoxels:
            segmentation.RemoveRepresentation(LABELMAP)


def exportSegments(choice: SegmentChoice, volumeNode, path: Path) -> None:
    """Writes segments with IDs, names and codes, on the CT's grid, in one layer.

    Raises:
        UnusableInputError: there are too many segments, or they do not lie in the CT.
    """
    labels = {segmentId: index for index, segmentId in enumerate(choice.ids(), start=1)}
    if len(labels) > MOST_SEGMENTS:
        raise UnusableInputError(
            f"{choice.node.GetName()} has {len(labels)} segments, {MOST_SEGMENTS} are the most: copy those "
            "that are needed into a segmentation of their own."
        )
    array = labelArray(choice, volumeNode, labels)
    segmentation = choice.node.GetSegmentation()
    segments = [_described(segmentation, segmentId, label) for segmentId, label in labels.items()]
    segmentation_file.write_segmentation(path, imageOf(array.astype(np.uint8), volumeNode), segments)


def _described(segmentation, segmentId: str, label: int):
    segment = segmentation.GetSegment(segmentId)
    colour = tuple(round(255 * channel) for channel in segment.GetColor())
    codes = parse_terminology(terminologyOf(segment))
    return segmentation_file.Segment(label, segmentId, segment.GetName(), colour, codes)


def terminologyOf(segment) -> str:
    """The segment's terminology entry, "" without one."""
    entry = vtk.mutable("")
    found = segment.GetTag(slicer.vtkSegment.GetTerminologyEntryTagName(), entry)
    return str(entry) if found else ""


def readSegments(path: Path, volumeNode) -> slicer.vtkMRMLSegmentationNode:
    """Segments of a file that lies on the CT's grid, in a node outside of the user's scene.

    The file lies where the CT is in the world; the node gets the CT's own matrix, so that it can go under
    the same transform and its voxels are the CT's to the last digit.

    Raises:
        RuntimeError: the file cannot be read.
    """
    scene = slicer.vtkMRMLScene()  # of its own: the reader makes a display node, which needs one
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    if not storage.ReadData(node):
        raise RuntimeError(f"Cannot read {path}: {storage.GetUserMessages().GetAllMessagesAsString()}")
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    segmentation = node.GetSegmentation()
    for layer in range(segmentation.GetNumberOfLayers()):
        segmentation.GetLayerDataObject(layer, LABELMAP).SetGeometryFromImageToWorldMatrix(matrix)
    return node


def replaceSegments(target, source, segmentIds: Sequence[str]) -> None:
    """Puts segments into a segmentation in place of those of the same ID; all others stay as they are."""
    into, fromNode = target.GetSegmentation(), source.GetSegmentation()
    with slicer.util.NodeModify(target):
        for segmentId in set(segmentIds) & set(into.GetSegmentIDs()):
            into.RemoveSegment(segmentId)
        for segmentId in segmentIds:
            if not into.CopySegmentFromSegmentation(fromNode, segmentId):
                raise RuntimeError(f"Segment {segmentId} cannot be put into {target.GetName()}.")


def placeBeside(volumeNode, node) -> None:
    """Puts a node under the CT's transform and into its study in the subject hierarchy."""
    node.SetAndObserveTransformNodeID(volumeNode.GetTransformNodeID())
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item, volumeItem = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(volumeNode)
    if item and volumeItem:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volumeItem))


def readVoxels(path: Path) -> np.ndarray:
    """The voxels of a file, (k, j, i).

    Raises:
        RuntimeError: the file cannot be read.
    """
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def fillVolume(array: np.ndarray, volumeNode, node) -> None:
    """Fills a scalar volume node with voxels (k, j, i) that lie on the CT's grid."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    node.SetIJKToRASMatrix(matrix)
    slicer.util.updateVolumeFromArray(node, array)
    node.CreateDefaultDisplayNodes()
    placeBeside(volumeNode, node)
