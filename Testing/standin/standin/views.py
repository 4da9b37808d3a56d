"""The slice and 3D views: Slicer's own displayable managers draw offscreen, Qt shows the picture."""

from __future__ import annotations

import functools
import logging
import subprocess
import sys
from typing import Any

import ctk
import qt
import slicer
import vtk
from ctkwidgets.rows import rowLayout
from pythonqt.observing import whileAlive
from pythonqt.rules import standinWidget
from qt import Property, Signal
from vtk.util.numpy_support import vtk_to_numpy

SLICE_MANAGERS = (
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLRulerDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
    "vtkMRMLMarkupsDisplayableManager",
)
THREE_D_MANAGERS = (
    "vtkMRMLCameraDisplayableManager",
    "vtkMRMLViewDisplayableManager",
    "vtkMRMLModelDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager3D",
    "vtkMRMLVolumeRenderingDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
)
RENDERING_TRIAL = """
import vtkmodules.vtkRenderingOpenGL2
from vtkmodules.vtkCommonCore import vtkUnsignedCharArray
from vtkmodules.vtkRenderingCore import vtkRenderer, vtkRenderWindow
renderer, window, pixels = vtkRenderer(), vtkRenderWindow(), vtkUnsignedCharArray()
renderer.SetBackground(1, 0, 0)
window.SetOffScreenRendering(1)
window.SetSize(8, 8)
window.AddRenderer(renderer)
window.Render()
window.GetPixelData(0, 0, 7, 7, 0, pixels, 0)
print("red" if pixels.GetTuple(20) == (255, 0, 0) else "not red")
"""
BUTTONS = {1: "LeftButton", 2: "RightButton", 4: "MiddleButton"}


@functools.cache
def canRender() -> bool:
    """Whether this machine has any OpenGL, be it in software; says so once if not.

    VTK does not tell: it crashes. So another process tries.
    """
    done = subprocess.run(
        [sys.executable, "-c", RENDERING_TRIAL], capture_output=True, text=True, check=False
    )
    if done.stdout.strip() == "red":
        return True
    logging.warning("No OpenGL context can be had: the views stay blank")
    return False


@standinWidget
class qMRMLView(qt.QWidget):
    """What slice and 3D views share. The VTK window is made when the view is first drawn."""

    _viewNode: Any = None
    _window: Any = None
    _renderer: Any = None
    _interactor: Any = None
    _group: Any = None
    _style: Any = None
    _picture: Any = None
    _pauses = 0
    _scheduled = False

    def __init__(self, viewNode: Any, parent: Any = None) -> None:
        super().__init__(parent)
        self._viewNode = viewNode
        self.setMinimumSize(120, 90)
        self.setMouseTracking(True)

    # ---- VTK

    def _ensureWindow(self) -> bool:
        """Make the window and the displayable managers; False if there is no OpenGL."""
        if self._window is None and canRender():
            self._renderer, self._window = vtk.vtkRenderer(), vtk.vtkRenderWindow()
            self._window.SetOffScreenRendering(1)
            self._window.SetMultiSamples(0)
            self._window.SetAlphaBitPlanes(1)
            self._window.AddRenderer(self._renderer)
            self._interactor = vtk.vtkGenericRenderWindowInteractor()
            self._interactor.SetRenderWindow(self._window)
            self._interactor.EnableRenderOff()
            self._fitWindow()
            self._setUp()
        return self._window is not None

    def _setUp(self) -> None:
        raise NotImplementedError  # abstract: each subclass has its own

    def _makeGroup(self, factory: Any, managers: tuple[str, ...], style: Any) -> None:
        """Create the displayable managers, and the interactor style that hands them the mouse."""
        factory = factory.GetInstance()
        factory.SetMRMLApplicationLogic(slicer.app.applicationLogic())
        for name in managers:
            if not factory.IsDisplayableManagerRegistered(name):
                factory.RegisterDisplayableManager(name)
        self._style = style
        style.SetInteractor(self._interactor)
        self._group = slicer.vtkMRMLDisplayableManagerGroup()
        self._group.SetRenderer(self._renderer)
        self._group.Initialize(factory, self._renderer)
        self._group.AddObserver(vtk.vtkCommand.UpdateEvent, whileAlive(self.scheduleRender))
        self._group.SetMRMLDisplayableNode(self._viewNode)
        style.SetDisplayableManagers(self._group)
        scene, isLast = slicer.mrmlScene, -1.0  # after the managers have heard of it
        scene.AddObserver(scene.EndBatchProcessEvent, whileAlive(self._drawScene), isLast)

    def _drawScene(self) -> None:
        """A manager takes in a loaded scene when its view changes the next time; here it is made to."""
        self._viewNode.Modified()

    def _fitWindow(self) -> None:
        if self._window is not None:
            self._window.SetSize(max(self.width, 1), max(self.height, 1))
            self._interactor.SetSize(max(self.width, 1), max(self.height, 1))

    def renderWindow(self) -> Any:
        self._ensureWindow()
        return self._window

    def renderer(self) -> Any:
        self._ensureWindow()
        return self._renderer

    def interactor(self) -> Any:
        self._ensureWindow()
        return self._interactor

    def interactorStyle(self) -> Any:
        self._ensureWindow()
        return self._style

    # ---- rendering

    def pauseRender(self) -> None:
        self._pauses += 1

    def resumeRender(self) -> None:
        self._pauses = max(self._pauses - 1, 0)
        self.scheduleRender()

    def scheduleRender(self) -> None:
        """Draw soon, once, if the view can be seen."""
        if self.isVisible() and not self._scheduled and not self._pauses:
            self._scheduled = True
            qt.QTimer.singleShot(20, self._renderScheduled)

    def _renderScheduled(self) -> None:
        self._scheduled = False
        if self.isVisible() and not self._pauses:
            self.forceRender()

    def forceRender(self) -> None:
        """Draw now and keep the picture."""
        if self._ensureWindow():
            self._prepare()
            self._window.Render()
            self._picture = pictureOf(self._window)
            self.update()

    def _prepare(self) -> None:
        """Called before each rendering."""

    def paintEvent(self, _event: Any) -> None:
        painter = qt.QPainter(self)
        if self._picture is None:
            painter.fillRect(self.rect, qt.QColor(0, 0, 0))
        else:
            painter.drawImage(self.rect, self._picture)
        painter.end()

    def resizeEvent(self, event: Any) -> None:
        super().resizeEvent(event)
        self._fitWindow()
        self.scheduleRender()

    def showEvent(self, event: Any) -> None:
        super().showEvent(event)
        self.scheduleRender()

    # ---- the mouse

    def _passMouse(self, event: Any, vtkEvent: Any) -> None:
        if self._window is not None:
            position, keys = event.position(), int(event.modifiers().value)
            control, shift = bool(keys & 0x04000000), bool(keys & 0x02000000)
            self._interactor.SetEventInformationFlipY(
                int(position.x()), int(position.y()), control, shift, "\0", 0, None
            )
            self._interactor.InvokeEvent(vtkEvent)

    def mousePressEvent(self, event: Any) -> None:
        self._passMouse(event, f"{BUTTONS.get(int(event.button()), 'LeftButton')}PressEvent")

    def mouseReleaseEvent(self, event: Any) -> None:
        self._passMouse(event, f"{BUTTONS.get(int(event.button()), 'LeftButton')}ReleaseEvent")

    def mouseMoveEvent(self, event: Any) -> None:
        self._passMouse(event, "MouseMoveEvent")

    def wheelEvent(self, event: Any) -> None:
        forward = event.angleDelta().y() > 0
        self._passMouse(event, "MouseWheelForwardEvent" if forward else "MouseWheelBackwardEvent")


def pictureOf(window: Any) -> Any:
    """The rendered window as a QImage."""
    grabber = vtk.vtkWindowToImageFilter()
    grabber.SetInput(window)
    grabber.ReadFrontBufferOff()
    grabber.ShouldRerenderOff()
    grabber.Update()
    width, height, _depth = grabber.GetOutput().GetDimensions()
    pixels = vtk_to_numpy(grabber.GetOutput().GetPointData().GetScalars()).reshape(height, width, 3)
    data = pixels[::-1].tobytes()  # VTK's rows go upwards
    return qt.QImage(data, width, height, 3 * width, qt.QImage.Format_RGB888).copy()


@standinWidget
class qMRMLSliceView(qMRMLView):
    """A slice through the volumes, with segments, models and markups over it."""

    _logic: Any = None
    _mapper: Any = None

    def __init__(self, logic: Any, parent: Any = None) -> None:
        super().__init__(logic.GetSliceNode(), parent)
        self._logic = logic

    def _setUp(self) -> None:
        overlay = vtk.vtkRenderer()
        overlay.SetLayer(1)
        self._window.SetNumberOfLayers(2)
        self._window.AddRenderer(overlay)
        for renderer in (self._renderer, overlay):
            renderer.GetActiveCamera().ParallelProjectionOn()
        self._addImage()
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        style = slicer.vtkMRMLSliceViewInteractorStyle()
        style.SetSliceLogic(self._logic)
        self._makeGroup(slicer.vtkMRMLSliceViewDisplayableManagerFactory, SLICE_MANAGERS, style)
        self._logic.AddObserver(vtk.vtkCommand.ModifiedEvent, whileAlive(self.scheduleRender))

    def _addImage(self) -> None:
        """The blended slice image, which the slice logic has mapped to colours already."""
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        actor = vtk.vtkActor2D()
        actor.SetMapper(self._mapper)
        actor.GetProperty().SetDisplayLocationToBackground()
        self._renderer.AddViewProp(actor)

    def _prepare(self) -> None:
        connection = self._logic.GetImageDataConnection()
        self._mapper.SetInputConnection(connection)

    def _fitWindow(self) -> None:
        super()._fitWindow()
        if self.width > 1 and self.height > 1:
            self._logic.ResizeSliceNode(self.width, self.height)

    def mrmlSliceNode(self) -> Any:
        return self._viewNode


@standinWidget
class qMRMLThreeDView(qMRMLView):
    """The 3D view."""

    _focusWanted = True

    def _setUp(self) -> None:
        self._renderer.SetUseDepthPeeling(True)
        self._renderer.SetMaximumNumberOfPeels(20)
        self._interactor.SetInteractorStyle(vtk.vtkInteractorStyle3D())
        style = slicer.vtkMRMLThreeDViewInteractorStyle()
        self._makeGroup(slicer.vtkMRMLThreeDViewDisplayableManagerFactory, THREE_D_MANAGERS, style)

    def _prepare(self) -> None:
        if self._focusWanted:
            self._focusWanted = False
            self._renderer.ResetCamera()
        self._renderer.ResetCameraClippingRange()

    def mrmlViewNode(self) -> Any:
        return self._viewNode

    def cameraNode(self) -> Any:
        cameras = slicer.util.getNodesByClass("vtkMRMLCameraNode")
        return next(
            (each for each in cameras if each.GetLayoutName() == self._viewNode.GetLayoutName()), None
        )

    def resetFocalPoint(self) -> None:
        """Look at the middle of what is shown, from the same direction."""
        if self._window is None:
            self._focusWanted = True
            return
        bounds = self._renderer.ComputeVisiblePropBounds()
        if vtk.vtkMath.AreBoundsInitialized(bounds):
            camera = self._renderer.GetActiveCamera()
            center = [(bounds[2 * axis] + bounds[2 * axis + 1]) / 2 for axis in range(3)]
            shift = [c - f for c, f in zip(center, camera.GetFocalPoint(), strict=True)]
            camera.SetPosition(*[p + s for p, s in zip(camera.GetPosition(), shift, strict=True)])
            camera.SetFocalPoint(*center)
            self.scheduleRender()

    def resetCamera(
        self, resetRotation: bool = True, resetTranslation: bool = True, resetDistance: bool = True
    ) -> None:
        """Show everything."""
        node = self.cameraNode()
        if node is not None and resetRotation:
            node.Reset(resetRotation, resetTranslation, resetDistance, self._renderer)
        self._focusWanted = True
        self.scheduleRender()

    def rotateToViewAxis(self, axis: int) -> None:
        """Look along an axis: 0 left, 1 right, 2 posterior, 3 anterior, 4 inferior, 5 superior."""
        if self._ensureWindow():
            self.cameraNode().RotateTo(axis)
            self._focusWanted = True
            self.scheduleRender()


@standinWidget
class qMRMLSliceControllerWidget(qt.QWidget):
    """The bar above a slice view: its letter and the offset."""

    _logic: Any = None
    _slider: Any = None

    def __init__(self, logic: Any, parent: Any = None) -> None:
        super().__init__(parent)
        self._logic = logic
        letter = qt.QLabel(f" {logic.GetSliceNode().GetLayoutLabel()} ")
        self._slider = ctk.ctkSliderWidget()
        self._slider.suffix = "mm"
        rowLayout(self, letter, self._slider)
        color = qt.QColor.fromRgbF(*logic.GetSliceNode().GetLayoutColor())
        self.setAutoFillBackground(True)
        letter.setStyleSheet(f"background: {color.name()}; font-weight: bold")
        self._slider.connect("valueChanged(double)", logic.SetSliceOffset)
        logic.AddObserver(vtk.vtkCommand.ModifiedEvent, whileAlive(self._refresh))
        logic.GetSliceNode().AddObserver(vtk.vtkCommand.ModifiedEvent, whileAlive(self._refresh))

    def _refresh(self) -> None:
        bounds = [0.0] * 6
        self._logic.GetLowestVolumeSliceBounds(bounds)
        self._slider.blockSignals(True)
        if bounds[4] < bounds[5]:
            self._slider.setRange(bounds[4], bounds[5])
        self._slider.value = self._logic.GetSliceOffset()
        self._slider.blockSignals(False)

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def sliceOffsetSlider(self) -> Any:
        return self._slider

    def setSliceOffsetValue(self, offset: float) -> None:
        self._logic.SetSliceOffset(offset)

    def setSliceVisible(self, visible: bool) -> None:
        self._logic.GetSliceNode().SetSliceVisible(visible)

    def fitSliceToBackground(self) -> None:
        self._logic.FitSliceToBackground()
        self._logic.GetSliceNode().UpdateMatrices()


@standinWidget
class qMRMLSliceWidget(qt.QWidget):
    """A slice view with its controller and logic."""

    nodeAboutToBeEdited = Signal(object)
    _logic: Any = None
    _view: Any = None
    _controller: Any = None

    def __init__(self, logic: Any, parent: Any = None) -> None:
        super().__init__(parent)
        self._logic = logic
        self._view, self._controller = qMRMLSliceView(logic), qMRMLSliceControllerWidget(logic)
        stack(self, self._controller, self._view)

    sliceViewName = Property(str, lambda self: self._logic.GetSliceNode().GetLayoutName())
    sliceOrientation = Property(
        str,
        lambda self: self._logic.GetSliceNode().GetOrientation(),
        lambda self, orientation: self.setSliceOrientation(orientation),
    )

    def setSliceOrientation(self, orientation: str) -> None:
        self._logic.GetSliceNode().SetOrientation(orientation)

    def sliceLogic(self) -> Any:
        return self._logic

    def mrmlSliceNode(self) -> Any:
        return self._logic.GetSliceNode()

    def mrmlSliceCompositeNode(self) -> Any:
        return self._logic.GetSliceCompositeNode()

    def sliceController(self) -> Any:
        return self._controller

    def sliceView(self) -> Any:
        return self._view

    def viewWidget(self) -> Any:
        return self._view

    def interactorStyle(self) -> Any:
        return self._view.interactorStyle()

    def fitSliceToBackground(self) -> None:
        self._controller.fitSliceToBackground()


@standinWidget
class qMRMLThreeDWidget(qt.QWidget):
    """A 3D view with its controller and logic."""

    _logic: Any = None
    _view: Any = None
    _controller: Any = None

    def __init__(self, logic: Any, viewNode: Any, parent: Any = None) -> None:
        super().__init__(parent)
        self._logic = logic
        self._view = qMRMLThreeDView(viewNode)
        self._controller = qt.QLabel(f" {viewNode.GetLayoutLabel()} ")
        self._controller.setStyleSheet("background: #7482d4; font-weight: bold")
        stack(self, self._controller, self._view)

    def threeDView(self) -> Any:
        return self._view

    def threeDController(self) -> Any:
        return self._controller

    def viewWidget(self) -> Any:
        return self._view

    def viewLogic(self) -> Any:
        return self._logic

    def mrmlViewNode(self) -> Any:
        return self._view.mrmlViewNode()


def stack(parent: Any, controller: Any, view: Any) -> None:
    """The controller above the view, without margins."""
    layout = qt.QVBoxLayout(parent)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.setSpacing(0)
    layout.addWidget(controller)
    layout.addWidget(view, 1)
