"""Overlapping segments as Slicer saves them, one layer above the other, read back by the library."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.anatomy import LOBES
from DiffSegLungLib.export.segmentation_file import LUNG_SEGMENTS, write_segmentation
from DiffSegLungLib.io.segmentations import load_lungs, load_regions
from DiffSegLungLib.io.volume import load_volume

pytest.importorskip("slicer", reason="needs slicer-core")
import slicer  # noqa: E402
import slicer.util  # noqa: E402
import vtk  # noqa: E402

LOWER_RIGHT = next(lobe for lobe in LOBES if lobe.name == "right lower lobe")


def placed(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((2.0, 2.0, 3.0))
    image.SetOrigin((-30.0, 12.0, 100.0))
    return image


@pytest.fixture
def chest() -> tuple[sitk.Image, np.ndarray]:
    """A CT with two lungs, and their sides: 1 right, 2 left."""
    sides = np.zeros((20, 30, 40), np.uint8)
    sides[3:17, 5:25, 4:16] = 1
    sides[3:17, 5:25, 24:36] = 2
    return placed(np.where(sides > 0, -850, 40).astype(np.int16)), sides


def test_a_lobe_that_overlaps_the_lung_is_known_by_its_code(
    scene: Any, tmp_path: Path, chest: tuple[sitk.Image, np.ndarray]
) -> None:
    ct, sides = chest
    write_segmentation(tmp_path / "lungs.seg.nrrd", placed(sides), LUNG_SEGMENTS)
    node = read(scene, tmp_path / "lungs.seg.nrrd")
    lobe = (sides == 1) & (np.arange(20) < 9)[:, None, None]
    add_overlapping(node, "Segment_1", lobe)
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "layers.seg.nrrd"))
    assert storage.WriteData(node) == 1

    volume = load_volume(ct)
    lungs, named = load_lungs(tmp_path / "lungs.seg.nrrd", volume)
    assert named
    assert np.array_equal(lungs, sides)
    regions = load_regions(tmp_path / "layers.seg.nrrd", volume, lungs > 0)
    assert LOWER_RIGHT.name in regions
    assert np.array_equal(regions[LOWER_RIGHT.name], lobe)


def read(scene: Any, path: Path) -> Any:
    storage = scene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(path))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "lungs")
    assert storage.ReadData(node) == 1
    return node


def add_overlapping(node: Any, name: str, mask: np.ndarray) -> None:
    """A segment of a layer of its own, with a lobe's codes and a name that says nothing."""
    from vtk.util.numpy_support import numpy_to_vtk

    lung = node.GetSegmentation().GetSegment("right-lung").GetRepresentation("Binary labelmap")
    matrix = vtk.vtkMatrix4x4()
    lung.GetImageToWorldMatrix(matrix)
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(*mask.shape[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(mask.astype(np.uint8).ravel(), deep=True))
    image.SetGeometryFromImageToWorldMatrix(matrix)
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.AddRepresentation("Binary labelmap", image)
    segment.SetTag("TerminologyEntry", LOWER_RIGHT.terminology.entry)
    assert node.GetSegmentation().AddSegment(segment, name)
