"""The MRML scene behind the page: Slicer's own nodes, slice logic, segmentation and brush."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.densities import LUNG_LEVEL_HU, LUNG_WIDTH_HU
from DiffSegLungLib.io.label_maps import labels_on_grid
from DiffSegLungLib.io.volume import Volume, to_input_geometry
from DiffSegLungLib.tissues import BY_KEY, HEALTHY, OUTSIDE, REPORTED

HEALTHY_KEY = next(tissue.key for tissue in REPORTED if tissue.label == HEALTHY)
WINDOWS = {"lung": (LUNG_WIDTH_HU, LUNG_LEVEL_HU), "mediastinum": (400.0, 40.0)}
"""Width and level in HU, as radiologists read them."""
DISEASE_OPACITY = 0.5
HEALTHY_OUTLINE, HEALTHY_3D = 0.4, 0.12
"""The healthy lung is there, but disease is what the eye shall meet."""
LUNG_MARGIN = 1.1
MOST_UNDO = 20
LOOK, PAINT, ERASE = "look", "paint", "erase"


class Scene:
    """One CT and one segmentation in an MRML scene, edited through the four views.

    Args:
        on_change: called whenever the segmentation may have changed, perhaps several times.

    Attributes:
        app: trame-slicer's container of scene, logics and views.
    """

    def __init__(self, on_change: Callable[[], None]) -> None:
        from trame_slicer.core import SlicerApp
        from trame_slicer.segmentation import SegmentationEffectErase, SegmentationEffectPaint
        from undo_stack import UndoStack
        from vtkmodules.vtkCommonCore import vtkOutputWindow

        self.app: Any = SlicerApp()
        # Warnings are for developers; errors still come, through VTK's log.
        vtkOutputWindow.GetInstance().SetDisplayModeToNever()
        self._effects: dict[str, Any] = {PAINT: SegmentationEffectPaint, ERASE: SegmentationEffectErase}
        self._undo: Any = UndoStack(undo_limit=MOST_UNDO)
        self.app.segmentation_editor.set_undo_stack(self._undo)
        self._on_change = on_change  # held here: the signal holds it weakly
        self.app.segmentation_editor.segmentation_modified.connect(on_change)
        self._ct: Any = None
        self._segmentation: Any = None
        self._volume: Volume | None = None
        self._tool = LOOK
        self._shows_3d = True

    def prepare_views(self) -> None:
        """Lets translucent surfaces be drawn in the right order; call it once the views are there."""
        for view in self.app.view_manager.get_threed_views():
            view.render_window().SetMultiSamples(0)
            view.render_window().SetAlphaBitPlanes(1)

    def show_ct(self, volume: Volume) -> None:
        """Puts a CT into the views, in place of what was there, in the lung window."""
        self.clear()
        self._volume = volume
        self._ct = _volume_node(self.app.scene, volume)
        self.set_window("lung")
        self.app.display_manager.show_volume_in_slice_background(self._ct)
        self.app.display_manager.reset_views()

    @property
    def has_segmentation(self) -> bool:
        """Whether there is one."""
        return self._segmentation is not None

    def show_segmentation(self, path: Path) -> None:
        """Reads a segmentation as Slicer does and lays it over the CT.

        Args:
            path: .seg.nrrd with the reported tissues.
        """
        self.remove_segmentation()
        editor = self.app.segmentation_editor
        self._segmentation = editor.load_segmentation_from_file(str(path))
        self._segmentation.CreateDefaultDisplayNodes()
        editor.set_active_segmentation(self._segmentation, self._ct)
        _style(self._segmentation.GetDisplayNode())
        editor.show_3d(True)
        self._fit_lungs()

    def remove_segmentation(self) -> None:
        """Takes the segmentation away; the CT stays."""
        self.use_tool(LOOK)
        editor = self.app.segmentation_editor
        editor.show_3d(False)
        if self._segmentation:
            editor.clear()
            self.app.scene.RemoveNode(self._segmentation)
        self._segmentation = None

    def labels(self) -> np.ndarray:
        """The tissues as they are now, corrections included: uint8 (z, y, x) on the CT's canonical grid."""
        assert self._volume is not None
        return np.asarray(labels_on_grid(self.label_image(), self._volume, "segmentation", empty=True))

    def label_image(self) -> sitk.Image:
        """The tissues as they are now, in the input's geometry, with the label values of the tissue table."""
        import slicer
        from vtkmodules.util.numpy_support import vtk_to_numpy
        from vtkmodules.vtkCommonCore import vtkStringArray

        assert self._volume is not None
        keys = vtkStringArray()
        for tissue in REPORTED:
            keys.InsertNextValue(tissue.key)
        merged = slicer.vtkOrientedImageData()
        whole = slicer.vtkSegmentation.EXTENT_REFERENCE_GEOMETRY
        self._segmentation.GenerateMergedLabelmapForAllSegments(merged, whole, None, keys)
        size = merged.GetDimensions()
        order = vtk_to_numpy(merged.GetPointData().GetScalars()).reshape(size[::-1])
        values = np.array([OUTSIDE, *(tissue.label for tissue in REPORTED)], np.uint8)  # merged counts from 1
        return self._volume.input_geometry.place(sitk.GetImageFromArray(values[order]))

    def use_tool(self, tool: str, key: str = HEALTHY_KEY, millimetres: float = 10.0) -> None:
        """Looks, paints a tissue, or erases it.

        Surfaces are not made anew after each stroke: while a brush is out the 3D view shows none.

        Args:
            tool: ``look``, ``paint`` or ``erase``.
            key: of the tissue.
            millimetres: diameter of the brush, a disc in the slice.
        """
        from trame_slicer.segmentation import BrushDiameterMode

        editor = self.app.segmentation_editor
        if self._segmentation is None or tool not in self._effects or key not in BY_KEY:
            editor.deactivate_effect()
            self._set_surfaces(self._shows_3d)
            return
        self._set_surfaces(False)
        editor.set_active_segment_id(key)
        effect = editor.set_active_effect_type(self._effects[tool])
        effect.set_use_sphere_brush(False)
        effect.set_brush_diameter(millimetres, BrushDiameterMode.Absolute)

    def show_3d(self, shown: bool) -> None:
        """Shows the tissues' surfaces, or not."""
        self._shows_3d = shown
        self._set_surfaces(shown)

    def _set_surfaces(self, shown: bool) -> None:
        if self._segmentation is not None:
            self.app.segmentation_editor.show_3d(shown)

    def put(self, labels: np.ndarray) -> None:
        """Makes the tissues these, in one step that undo takes back: uint8 (z, y, x), canonical axes."""
        assert self._volume is not None
        voxels = sitk.GetArrayFromImage(to_input_geometry(labels, self._volume))
        editor = self.app.segmentation_editor
        with editor.active_segmentation.group_undo_commands("Spread"):
            for tissue in REPORTED:
                mask = (voxels == tissue.label).astype(np.uint8)
                editor.active_segment_modifier.set_segment_labelmap(tissue.key, mask)

    def undo(self) -> None:
        """Takes the last stroke back."""
        self._undo.undo()

    def redo(self) -> None:
        """Makes the stroke again."""
        self._undo.redo()

    def set_visible(self, key: str, visible: bool) -> None:
        """Shows a tissue, or not."""
        if self._segmentation is not None and key in BY_KEY:
            self._segmentation.GetDisplayNode().SetSegmentVisibility(key, visible)

    def set_window(self, name: str) -> None:
        """One of `WINDOWS`."""
        if self._ct is not None and name in WINDOWS:
            self._ct.GetDisplayNode().SetAutoWindowLevel(False)
            self._ct.GetDisplayNode().SetWindowLevel(*WINDOWS[name])

    def jump_to(self, index: tuple[int, int, int]) -> None:
        """All slice views go through a voxel (z, y, x) of the canonical grid."""
        import slicer

        assert self._volume is not None
        carrier = self._volume.image
        x, y, z = carrier.TransformContinuousIndexToPhysicalPoint([float(each) for each in index[::-1]])
        same_centre = slicer.vtkMRMLSliceNode.OffsetJumpSlice
        slicer.vtkMRMLSliceNode.JumpAllSlices(self.app.scene, -x, -y, z, same_centre)  # LPS to RAS

    def _fit_lungs(self) -> None:
        """Slice views show all of the lungs, 3D looks at them from the front."""
        import slicer

        bounds = [0.0] * 6
        self._segmentation.GetRASBounds(bounds)
        low, high = np.array(bounds[::2]), np.array(bounds[1::2])
        if not np.all(high > low):
            return
        middle = (low + high) / 2
        slicer.vtkMRMLSliceNode.JumpAllSlices(
            self.app.scene, *middle, slicer.vtkMRMLSliceNode.CenteredJumpSlice
        )
        for view in self.app.view_manager.get_slice_views():
            _fit(view.get_view_node(), high - low)
        for view in self.app.view_manager.get_threed_views():
            view.reset_view()

    def clear(self) -> None:
        """Takes CT and segmentation out of the views."""
        self.remove_segmentation()
        if self._ct is not None:
            self.app.scene.RemoveNode(self._ct)
        self._ct, self._volume = None, None


def most_of(labels: np.ndarray, label: int) -> tuple[int, int, int] | None:
    """A voxel (z, y, x) amid the axial slice that has most of a tissue; None where there is none."""
    areas = np.count_nonzero(labels == label, axis=(1, 2))
    if not areas.any():
        return None
    height = int(areas.argmax())
    rows, columns = np.nonzero(labels[height] == label)
    nearest = int(np.hypot(rows - rows.mean(), columns - columns.mean()).argmin())
    return height, int(rows[nearest]), int(columns[nearest])


def _volume_node(scene: Any, volume: Volume) -> Any:
    """The CT as a node, on the grid it came in; HU in whole numbers take half the memory."""
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    limits = np.iinfo(np.int16)
    hu = np.clip(np.rint(volume.hu), limits.min, limits.max).astype(np.int16)
    voxels = sitk.GetArrayFromImage(to_input_geometry(hu, volume))
    image = vtkImageData()
    image.SetDimensions(*volume.input_geometry.size)
    image.GetPointData().SetScalars(numpy_to_vtk(voxels.ravel(), deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", volume.name)
    _place(node, volume)
    node.SetAndObserveImageData(image)
    node.CreateDefaultDisplayNodes()
    return node


def _place(node: Any, volume: Volume) -> None:
    """Gives a node the input's geometry: ITK's axes are LPS, Slicer's RAS."""
    geometry = volume.input_geometry
    directions = geometry.matrix * np.array([[-1.0], [-1.0], [1.0]])
    node.SetIJKToRASDirections(*directions.ravel())
    node.SetSpacing(geometry.spacing)
    node.SetOrigin(-geometry.origin[0], -geometry.origin[1], geometry.origin[2])


def _style(display: Any) -> None:
    """Disease filled, healthy lung as an outline that does not hide it."""
    for tissue in REPORTED:
        healthy = tissue.key == HEALTHY_KEY
        display.SetSegmentVisibility2DFill(tissue.key, not healthy)
        display.SetSegmentOpacity2DOutline(tissue.key, HEALTHY_OUTLINE if healthy else 1.0)
        display.SetSegmentOpacity3D(tissue.key, HEALTHY_3D if healthy else 1.0)
    display.SetOpacity2DFill(DISEASE_OPACITY)


def _fit(node: Any, size: np.ndarray) -> None:
    """Zooms a slice view so that a box of a size (R, A, S) in mm fills it."""
    matrix = node.GetSliceToRAS()
    axes = np.array([[matrix.GetElement(row, column) for column in range(2)] for row in range(3)])
    wanted = LUNG_MARGIN * np.abs(axes).T @ size
    width, height, depth = node.GetFieldOfView()
    if width > 0 and height > 0:
        scale = max(wanted[0] / width, wanted[1] / height)
        node.SetFieldOfView(width * scale, height * scale, depth)
