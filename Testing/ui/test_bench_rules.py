"""The test bench refuses what PythonQt, the `.ui` loader and the application refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

UI = """<ui version="4.0"><class>Form</class>
 <widget class="{root}" name="Form"><layout class="QVBoxLayout" name="layout"><item>
  <widget class="{child}" name="child">{properties}</widget>
 </item></layout></widget>
 <connections>{connections}</connections>
</ui>"""
SCENE_CONNECTION = """<connection><sender>Form</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
 <receiver>child</receiver><slot>{slot}(vtkMRMLScene*)</slot></connection>"""


@pytest.fixture
def loadForm(scene: Any, tmp_path: Path) -> Any:
    """Loads a form of a qMRMLWidget with one child."""
    import slicer

    def load(child: str = "qMRMLNodeComboBox", properties: str = "", connections: str = "") -> Any:
        text = UI.format(root="qMRMLWidget", child=child, properties=properties, connections=connections)
        (tmp_path / "form.ui").write_text(text, encoding="utf-8")
        return slicer.util.loadUI(str(tmp_path / "form.ui"))

    return load


# ---- PythonQt


def test_property_is_an_attribute(slicerApp: Any) -> None:
    import qt

    label = qt.QLabel("one")
    label.text = "two"
    assert label.text == "two"
    with pytest.raises(TypeError):
        label.text()
    label.setText("three")
    assert label.text == "three"


@pytest.mark.parametrize("className", ["QLabel", "QPushButton", "QTimer"])
def test_qt_object_takes_no_new_attribute(slicerApp: Any, className: str) -> None:
    import qt

    instance = getattr(qt, className)()
    with pytest.raises(AttributeError, match="not allowed"):
        instance.note = 1
    with pytest.raises(AttributeError):
        _ = instance.note


def test_standins_take_no_new_attribute(slicerApp: Any) -> None:
    import ctk
    import slicer

    for instance in (ctk.ctkSliderWidget(), slicer.qMRMLNodeComboBox(), slicer.app, slicer.modules.volumes):
        with pytest.raises(AttributeError, match="not allowed"):
            instance.note = 1


def test_python_subclass_takes_attributes(slicerApp: Any) -> None:
    import qt

    class Mine(qt.QLabel):
        pass

    mine = Mine()
    mine.note = 1
    assert mine.note == 1


def test_dynamic_property_is_an_attribute(slicerApp: Any) -> None:
    import qt

    label = qt.QLabel()
    label.setProperty("unit", "HU")
    label.unit = "mm"
    assert label.property("unit") == "mm"


def test_connect_by_signature(slicerApp: Any) -> None:
    import qt

    heard: list[Any] = []
    button = qt.QPushButton("Apply")
    button.checkable = True
    button.connect("clicked(bool)", heard.append)
    button.connect("clicked()", lambda: heard.append("none"))
    qt.QTest.mouseClick(button, qt.Qt.LeftButton)
    assert heard == [True, "none"]
    assert button.disconnect("clicked(bool)", heard.append)
    button.click()
    assert heard == [True, "none", "none"]
    assert not button.disconnect("clicked(bool)", heard.append)


@pytest.mark.parametrize("signature", ["clickd(bool)", "clicked(QString)", "clicked(bool,int)"])
def test_missing_signal_is_an_error(slicerApp: Any, signature: str) -> None:
    import qt

    with pytest.raises(ValueError, match="no signal"):
        qt.QPushButton().connect(signature, print)


def test_enumerators_are_integers(slicerApp: Any) -> None:
    import qt

    item = qt.QTableWidgetItem("x")
    item.setData(qt.Qt.UserRole + 1, "value")
    assert item.data(qt.Qt.UserRole + 1) == "value"
    assert qt.Qt.Checked == 2
    assert int(qt.QMessageBox.Ok) == 0x400
    assert qt.QHeaderView.Stretch is not None


def test_find_children_by_class_name(slicerApp: Any) -> None:
    import qt

    parent = qt.QWidget()
    layout = qt.QVBoxLayout(parent)
    layout.addWidget(qt.QLabel("a"))
    layout.addWidget(qt.QPushButton("b"))
    assert [each.text for each in parent.findChildren("QLabel")] == ["a"]
    assert parent.findChild(qt.QPushButton).text == "b"


def test_exception_in_a_slot_is_recorded(slicerApp: Any) -> None:
    import qt
    import standin

    def fail() -> None:
        raise ZeroDivisionError("in a slot")

    button = qt.QPushButton()
    button.connect("clicked()", fail)
    button.clicked.connect(fail)
    button.click()
    qt.QTimer.singleShot(0, fail)
    qt.QTest.qWait(20)
    assert len(standin.slotErrors) == 3
    assert all("in a slot" in each for each in standin.slotErrors)
    standin.slotErrors.clear()


def test_exception_in_an_observer_is_recorded(scene: Any) -> None:
    import slicer
    import standin

    def fail(_caller: Any, _event: Any) -> None:
        raise ZeroDivisionError("in an observer")

    tag = scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, fail)
    scene.AddNewNodeByClass("vtkMRMLTextNode")
    scene.RemoveObserver(tag)
    assert "in an observer" in standin.slotErrors[0]
    standin.slotErrors.clear()


# ---- .ui files


def test_form_without_scene_connection_has_no_scene(loadForm: Any, scene: Any) -> None:
    form = loadForm()
    form.setMRMLScene(scene)
    assert form.findChild("qMRMLNodeComboBox").mrmlScene() is None
    form = loadForm(connections=SCENE_CONNECTION.format(slot="setMRMLScene"))
    form.setMRMLScene(scene)
    assert form.findChild("qMRMLNodeComboBox").mrmlScene() is scene


def test_connection_to_a_missing_slot_is_an_error(loadForm: Any) -> None:
    with pytest.raises(RuntimeError, match="setScene"):
        loadForm(connections=SCENE_CONNECTION.format(slot="setScene"))


def test_unknown_widget_class_is_an_error(loadForm: Any) -> None:
    with pytest.raises(RuntimeError, match="qMRMLNoSuchWidget"):
        loadForm(child="qMRMLNoSuchWidget")


def test_unknown_property_is_an_error(loadForm: Any) -> None:
    with pytest.raises(RuntimeError, match="noneEnabeld"):
        loadForm(properties='<property name="noneEnabeld"><bool>true</bool></property>')


def test_dynamic_property_of_a_form_is_kept(loadForm: Any) -> None:
    named = '<property name="SlicerParameterName" stdset="0"><string>volume</string></property>'
    assert (
        loadForm(properties=named).findChild("qMRMLNodeComboBox").property("SlicerParameterName") == "volume"
    )


def test_enumerators_of_a_form_are_read(loadForm: Any) -> None:
    import ctk

    filters = '<property name="filters"><set>ctkPathLineEdit::Dirs|ctkPathLineEdit::Readable</set></property>'
    line = loadForm(child="ctkPathLineEdit", properties=filters).findChild("ctkPathLineEdit")
    assert line.filters == ctk.ctkPathLineEdit.Dirs | ctk.ctkPathLineEdit.Readable


def test_children_are_no_attributes_of_a_form(loadForm: Any) -> None:
    import slicer

    form = loadForm()
    with pytest.raises(AttributeError):
        _ = form.child
    assert slicer.util.childWidgetVariables(form).child is form.findChild("qMRMLNodeComboBox")


# ---- dialogs


def test_dialog_without_an_answer_is_an_error(slicerApp: Any) -> None:
    import qt
    import standin

    with pytest.raises(RuntimeError, match="Choose a CT"):
        qt.QFileDialog.getOpenFileName(None, "Choose a CT")
    standin.answers.give(qt.QFileDialog.getOpenFileName, "/data/ct.nrrd")
    assert qt.QFileDialog.getOpenFileName(None, "Choose a CT") == "/data/ct.nrrd"


def test_message_boxes(scene: Any, slicerApp: Any) -> None:
    import qt
    import slicer
    import standin

    slicer.util.confirmOkCancelDisplay("Continue?")
    assert standin.answers.shown == []  # testing mode: nobody is asked
    slicerApp.setTestingEnabled(False)
    standin.answers.give(qt.QMessageBox, qt.QMessageBox.Cancel)
    assert not slicer.util.confirmOkCancelDisplay("Overwrite?")
    assert "Overwrite?" in standin.answers.shown[-1][1]


def test_error_is_displayed_and_raised(slicerWindow: Any, slicerApp: Any) -> None:
    import qt
    import slicer
    import standin

    def fail() -> None:
        with slicer.util.tryWithErrorDisplay("Failed to compute results.", waitCursor=True):
            raise ValueError("no lungs")

    slicerWindow(show=False)
    slicerApp.setTestingEnabled(False)
    standin.answers.give(qt.QMessageBox, qt.QMessageBox.Ok)
    with pytest.raises(ValueError, match="no lungs"):
        fail()
    assert "no lungs" in standin.answers.shown[-1][1]
    assert slicerApp.overrideCursor() is None


def test_web_pages_are_recorded(slicerApp: Any) -> None:
    import qt
    import standin

    assert qt.QDesktopServices.openUrl(qt.QUrl("https://www.slicer.org"))
    assert standin.openedUrls == ["https://www.slicer.org"]


# ---- ctk


def test_slider_keeps_its_range(slicerApp: Any) -> None:
    import ctk

    heard: list[float] = []
    slider = ctk.ctkSliderWidget()
    slider.minimum, slider.maximum = -1000, 0
    slider.connect("valueChanged(double)", heard.append)
    slider.value = 50
    slider.value = -2000
    assert heard == [-1000]  # it was at 0, the maximum, already
    with pytest.raises(TypeError):
        slider.value()


def test_collapsible_button_hides_its_contents(slicerApp: Any) -> None:
    import ctk
    import qt

    button = ctk.ctkCollapsibleButton()
    label = qt.QLabel("inside")
    qt.QVBoxLayout(button).addWidget(label)
    heard: list[bool] = []
    button.connect("contentsCollapsed(bool)", heard.append)
    button.show()  # CTK hides nothing before there is a window
    button.collapsed = True
    assert label.isHidden()
    button.collapsed = False
    assert not label.isHidden()
    assert heard == [True, False]


# ---- node selector


def test_node_selector_offers_what_it_should(scene: Any) -> None:
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ("vtkMRMLScalarVolumeNode",)
    selector.showChildNodeTypes = False
    selector.noneEnabled = True
    selector.setMRMLScene(scene)
    volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    labels = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    hidden = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hidden")
    hidden.SetHideFromEditors(True)
    assert selector.nodes() == [volume]
    assert selector.nodeCount() == 1
    selector.setCurrentNode(labels)
    assert selector.currentNode() is None
    heard: list[Any] = []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", heard.append)
    selector.setCurrentNode(volume)
    scene.RemoveNode(volume)
    assert heard == [volume, None]


def test_node_selector_filters_by_attribute(scene: Any) -> None:
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ("vtkMRMLTableNode",)
    selector.baseName = "Measures"
    selector.addAttribute("vtkMRMLTableNode", "Module", "DiffSegLung")
    selector.setMRMLScene(scene)
    scene.AddNewNodeByClass("vtkMRMLTableNode", "foreign")
    assert selector.nodeCount() == 0
    node = selector.addNode()
    assert node.GetName() == "Measures"
    assert node.GetAttribute("Module") == "DiffSegLung"
    assert selector.currentNode() is node


def test_node_selector_chooses_as_slicers_does(scene: Any) -> None:
    import slicer

    first, second = (scene.AddNewNodeByClass("vtkMRMLTableNode", name) for name in ("first", "second"))
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ("vtkMRMLTableNode",)
    selector.setMRMLScene(scene)
    assert selector.currentNode() is first  # those that are there already
    selector.setCurrentNode(None)
    scene.AddNewNodeByClass("vtkMRMLTableNode", "third")
    assert selector.currentNode() is None  # but not those that come later
    selector.setCurrentNode(second)
    scene.RemoveNode(second)
    assert selector.currentNode() is first
    scene.RemoveNode(first)
    assert selector.currentNode() is None


def test_deleted_widget_no_longer_follows_the_scene(scene: Any) -> None:
    import slicer
    import standin

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ("vtkMRMLTableNode",)
    selector.setMRMLScene(scene)
    selector.delete()
    scene.AddNewNodeByClass("vtkMRMLTableNode", "late")
    assert not standin.slotErrors
