from __future__ import annotations

import enum
import json
import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode, vtkMRMLSegmentationNode
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import *  # as in Slicer's template
from slicer.util import VTKObservationMixin

try:
    import DiffSegLungLib
except ModuleNotFoundError:  # started from the source tree, where the library lies beside the module's folder
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    import DiffSegLungLib

from DiffSegLungLib.errors import DiffSegLungError, UnusableInputError
from DiffSegLungSlicer import display, environment, exports, results, sequences
from DiffSegLungSlicer.exchange import SegmentChoice
from DiffSegLungSlicer.run import Run, State
from DiffSegLungSlicer.segmentation import Parameters, SegmentationJob

MODULE_FOLDER = Path(__file__).resolve().parent
HOMEPAGE = "https://github.com/DiffSegLung/SlicerDiffSegLung"
TERMINOLOGY_FILE = "SegmentationCategoryTypeModifier-DiffSegLung.term.json"
PHANTOM_FILE = MODULE_FOLDER / "Resources" / "SampleData" / "DiffSegLungPhantom.nrrd"
PHANTOM_SHA256 = "22d7fd2547c9ec6fd28dd7a6049bb5df3195ffe2888384c0707d3e1645403dfc"
CT_CHEST_SHA256 = "4507b664690840abb6cb9af2d919377ffc4ef75b167cb6fd0f747befdb12e38e"
CT_CHEST_URL = f"https://github.com/Slicer/SlicerTestingData/releases/download/SHA256/{CT_CHEST_SHA256}"
CITATION = (
    "Khiati, Brillet, Fetita: DiffSegLung: Diffusion Radiomic Distillation for Unsupervised Lung Pathology "
    "Segmentation. arXiv 2605.11758, 2026.\n"
    f"Software: DiffSegLung {DiffSegLungLib.__version__}, {HOMEPAGE}"
)
POLL_MS = 200


#
# DiffSegLung
#


class DiffSegLung(ScriptedLoadableModule):
    """Diseased lung on chest CT as segments with measures; an extension of 3D Slicer."""

    def __init__(self, parent):
        ScriptedLoadableModule.__init__(self, parent)
        self.parent.title = _("DiffSegLung")
        self.parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        self.parent.dependencies = ["Segmentations", "SegmentEditor", "Terminologies", "Sequences"]
        self.parent.contributors = ["The DiffSegLung developers"]
        self.parent.helpText = _(
            "Finds healthy lung, emphysema, ground-glass opacity, fibrosis, consolidation and cavities in a "
            "chest CT and measures them. For research only, not for clinical use. "
            'See the <a href="{homepage}">documentation</a>.'
        ).format(homepage=HOMEPAGE)
        self.parent.acknowledgementText = _(
            "The method is that of Khiati, Brillet and Fetita, arXiv 2605.11758. This is an independent "
            "implementation."
        )
        slicer.app.connect("startupCompleted()", registerSampleData)
        slicer.app.connect("startupCompleted()", registerTerminology)


#
# Register sample data sets in Sample Data module
#


def registerSampleData() -> None:
    """A CT that Slicer's testing data hold, and a phantom of known truth that needs no network."""
    import SampleData

    icon = MODULE_FOLDER / "Resources" / "Icons" / "DiffSegLungPhantom.png"
    samples = (
        ("DiffSegLungPhantom", PHANTOM_FILE.as_uri(), PHANTOM_FILE.name, PHANTOM_SHA256),
        ("DiffSegLungCTChest", CT_CHEST_URL, "CT-chest.nrrd", CT_CHEST_SHA256),
    )
    if hasattr(SampleData.SampleDataLogic, "registerCustomSampleDataCategory"):  # from Slicer 5.12 on
        SampleData.SampleDataLogic.registerCustomSampleDataCategory("DiffSegLung", title=_("Lung pathology"))
    for name, uri, fileName, sha256 in samples:
        SampleData.SampleDataLogic.registerCustomSampleDataSource(
            category="DiffSegLung",
            sampleName=name,
            thumbnailFileName=str(icon),
            uris=uri,
            fileNames=fileName,
            checksums=f"SHA256:{sha256}",
            nodeNames=name,
        )


def registerTerminology() -> None:
    """Makes the codes of our segments known, so that they can be chosen in the Segment Editor too."""
    file = MODULE_FOLDER / "Resources" / TERMINOLOGY_FILE
    if not slicer.modules.terminologies.logic().LoadTerminologyFromFile(str(file)):
        logging.error(f"DiffSegLung: cannot load the terminology {file}; install the extension again.")


#
# DiffSegLungParameterNode
#


class Quality(enum.Enum):
    """How much work is done; the values are the command line's."""

    FAST = "fast"
    STANDARD = "standard"
    BEST = "best"

    def label(self) -> str:
        """What the panel shows."""
        return {"fast": _("fast"), "standard": _("standard"), "best": _("best (slow)")}[self.value]


class Device(enum.Enum):
    """Where the computation runs; the values are the command line's."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"

    def label(self) -> str:
        """What the panel shows."""
        return {
            "auto": _("automatic"),
            "cpu": _("processor"),
            "cuda": _("NVIDIA graphics card"),
            "mps": _("Apple graphics"),
        }[self.value]


@parameterNodeWrapper
class DiffSegLungParameterNode:
    """
    The parameters needed by module.

    inputVolume - The CT.
    lungs - Segmentation with the lung mask to use; none finds the lungs.
    lungsSegment - ID of the segment that is lung; empty for all segments.
    segmentation - Where the result goes; none makes a new one.
    regions - Lobes or other regions to measure.
    allTimePoints - Segment each time point of the sequence that the CT belongs to.
    model - Name of the weights; empty for the shipped ones.
    quality, device, seed - As in DiffSegLungSlicer.segmentation.Parameters.
    """

    inputVolume: vtkMRMLScalarVolumeNode
    lungs: vtkMRMLSegmentationNode
    lungsSegment: str = ""
    segmentation: vtkMRMLSegmentationNode
    regions: vtkMRMLSegmentationNode
    allTimePoints: bool = False
    model: str = ""
    quality: Quality = Quality.STANDARD
    device: Device = Device.AUTO
    seed: Annotated[int, WithinRange(0, 2**31 - 1)] = 0


#
# DiffSegLungWidget
#


class DiffSegLungWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel: a CT, one button, then the answer.

    A run goes from idle to running and ends in idle, with a result, as it was before (cancelled), or with an
    error in one line under the button.
    """

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode = None
        self._parameterNodeGuiTag = None
        self._run = None
        self._startedAt = 0.0

    def setup(self) -> None:
        """Called when the user opens the module the first time and the widget is initialized."""
        ScriptedLoadableModuleWidget.setup(self)
        import qt

        from DiffSegLungSlicer.InstallationSection import InstallationSection
        from DiffSegLungSlicer.ResultSection import ResultSection

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DiffSegLung.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DiffSegLungLogic()
        self.resultSection = ResultSection(self.ui, self.logic, self.showError)
        self.installationSection = InstallationSection(self.ui, CITATION)
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.onTick)
        self._connect()
        self.initializeParameterNode()

    def _connect(self) -> None:
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.NodeAddedEvent, self.onNodeAdded)
        self.ui.applyButton.connect("clicked(bool)", self.onApplyButton)
        self.ui.modelSelector.connect("currentIndexChanged(int)", self.onModelChosen)
        self.ui.lungsSegmentSelector.connect("currentIndexChanged(int)", self.onLungsSegmentChosen)

    def cleanup(self) -> None:
        """Called when the application closes and the module widget is destroyed."""
        self._timer.stop()
        self.logic.cancel()
        self.resultSection.cleanup()
        self.installationSection.cleanup()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.initializeParameterNode()

    def exit(self) -> None:
        """Called each time the user opens a different module; a run goes on."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self._parameterNodeGuiTag = None
            self.removeObserver(
                self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateFromParameterNode
            )
            self._parameterNode = None

    def onSceneStartClose(self, caller, event) -> None:
        """A run has nowhere to put its result any more."""
        self.logic.cancel()
        self.onTick()
        self.showError("")
        self.resultSection.setSegmentation(None)
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """Called just after the scene was closed or another one was read."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    def onNodeAdded(self, caller, event) -> None:
        """A CT that is loaded while the panel is open is chosen, once its voxels are there."""
        import qt

        qt.QTimer.singleShot(0, self._chooseCt)

    def initializeParameterNode(self) -> None:
        """Ensure parameter node exists and observed; a CT is already chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        self._chooseCt()

    def _chooseCt(self) -> None:
        if self._parameterNode and not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = mostLikelyChestCt()

    def setParameterNode(self, inputParameterNode: DiffSegLungParameterNode | None) -> None:
        """Set and observe parameter node, so that the panel follows it and a saved scene brings it back."""
        if self._parameterNode:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(
                self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateFromParameterNode
            )
        self._parameterNode = inputParameterNode
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateFromParameterNode)
        self._updateFromParameterNode()

    def _updateFromParameterNode(self, caller=None, event=None) -> None:
        parameters = self._parameterNode
        self._updateModels()
        self._updateLungsSegments()
        browser = sequences.browserOf(parameters.inputVolume) if parameters else None
        self.ui.allTimePointsCheckBox.visible = browser is not None
        segmentation = parameters.segmentation if parameters else None
        self.resultSection.setSegmentation(segmentation if results.isResult(segmentation) else None)
        self._updateButton()

    def _updateButton(self) -> None:
        """The one button: starts, or cancels, or says what is missing."""
        running = self._run is not None
        hasCt = self._parameterNode is not None and self._parameterNode.inputVolume is not None
        self.ui.applyButton.text = _("Cancel") if running else _("Segment lung pathology")
        self.ui.applyButton.enabled = running or hasCt
        if running:
            self.ui.applyButton.toolTip = _("Ends the computation; the scene stays as it is.")
        elif hasCt:
            self.ui.applyButton.toolTip = _("Finds healthy and diseased lung in the CT.")
        else:
            self.ui.applyButton.toolTip = _("Load a chest CT and choose it.")

    def _updateModels(self) -> None:
        names = ["", *(model.name for model in self.logic.models())]
        labels = [_("shipped"), *names[1:]]
        if self._parameterNode and self._parameterNode.model not in names:  # it was removed
            self._parameterNode.model = ""
        wanted = self._parameterNode.model if self._parameterNode else ""
        fillSelector(self.ui.modelSelector, names, labels, wanted)

    def _updateLungsSegments(self) -> None:
        node = self._parameterNode.lungs if self._parameterNode else None
        segmentation = node.GetSegmentation() if node else None
        ids = list(segmentation.GetSegmentIDs()) if segmentation else []
        labels = [_("all segments"), *(segmentation.GetSegment(segmentId).GetName() for segmentId in ids)]
        self.ui.lungsSegmentSelector.visible = node is not None
        if self._parameterNode and self._parameterNode.lungsSegment not in ("", *ids):  # of another node
            self._parameterNode.lungsSegment = ""
        wanted = self._parameterNode.lungsSegment if node else ""
        fillSelector(self.ui.lungsSegmentSelector, ["", *ids], labels, wanted)

    def onModelChosen(self, index: int) -> None:
        """The list of models is no parameter of a fixed set, so it is connected here."""
        if self._parameterNode and index >= 0:
            self._parameterNode.model = self.ui.modelSelector.itemData(index)

    def onLungsSegmentChosen(self, index: int) -> None:
        """The user chose which segment is lung."""
        if self._parameterNode and index >= 0:
            self._parameterNode.lungsSegment = self.ui.lungsSegmentSelector.itemData(index)

    def onApplyButton(self) -> None:
        """Starts a run, or cancels the one that runs."""
        if self._run is not None:
            self.logic.cancel()
            self.onTick()
            return
        self.showError("")
        self.ui.logText.plainText = ""
        try:
            self._startRun()
        except DiffSegLungError as error:
            self.showError(str(error))
        self._updateButton()

    def _startRun(self) -> None:
        self.ui.applyButton.enabled = False  # pip lets events through: a second click must not start it again
        environment.ensure(Path(self.resourcePath("requirements.txt")), self.ui.wheelFolderEdit.currentPath)
        parameters = self._parameterNode
        lungs = (parameters.lungs, parameters.lungsSegment) if parameters.lungs else None
        browser = sequences.browserOf(parameters.inputVolume) if parameters.allTimePoints else None
        self._startedAt = time.monotonic()
        self._run = self.logic.process(
            parameters.inputVolume,
            parameters.segmentation,
            lungs=lungs,
            regions=parameters.regions,
            parameters=parametersOf(parameters),
            waitForCompletion=False,
            sequenceBrowserNode=browser,
            onProgress=self.onProgress,
        )
        self.ui.progressBar.value = 0
        self.ui.statusLabel.text = _("Starting")
        self.ui.progressWidget.visible = True
        self._timer.start()

    def onProgress(self, record) -> None:
        """Bar, stage and time left."""
        left = self._run.secondsLeft() if self._run else None
        remaining = _(" - {seconds} s left").format(seconds=round(left)) if left is not None else ""
        self.ui.progressBar.value = round(1000 * record.fraction)
        stage = record.message or record.stage
        self.ui.statusLabel.text = f"{stage} {100 * record.fraction:.0f} %{remaining}"
        self.ui.logText.appendPlainText(f"{record.stage} {100 * record.fraction:.0f} % {record.message}")

    def onTick(self) -> None:
        """Follows the run; called by the timer."""
        run = self._run
        if run is None or run.poll():
            return
        self._timer.stop()
        self._run = None
        self.ui.progressWidget.visible = False
        if run.log:
            self.ui.logText.appendPlainText(run.log)
        if run.state is State.DONE:
            self._onFinished(run.result)
        elif run.state is State.FAILED:
            self.showError(str(run.error))
        self._updateButton()

    def _onFinished(self, segmentationNode) -> None:
        took = time.monotonic() - self._startedAt
        self.ui.logText.appendPlainText(_("Done in {seconds:.0f} s").format(seconds=took))
        if self._parameterNode is None:  # the user is in another module: the choice is kept for the return
            self.logic.getParameterNode().segmentation = segmentationNode
        else:
            self._parameterNode.segmentation = segmentationNode
        display.showResult(segmentationNode)
        self.resultSection.setSegmentation(segmentationNode)
        self.resultSection.refresh()  # a second run into the same segmentation
        self.resultSection.forgetEdits()
        self.ui.resultsCollapsibleButton.collapsed = False

    def showError(self, message: str) -> None:
        """One line under the button; empty takes it away."""
        self.ui.errorLabel.text = message
        self.ui.errorLabel.visible = bool(message)


def fillSelector(selector, values: list[str], labels: list[str], wanted: str) -> None:
    """Fills a combo box whose entries change, without telling anybody that the choice did."""
    blocked = selector.blockSignals(True)
    selector.clear()
    for value, label in zip(values, labels, strict=True):
        selector.addItem(label, value)
    selector.currentIndex = values.index(wanted) if wanted in values else 0
    selector.blockSignals(blocked)


def parametersOf(parameterNode: DiffSegLungParameterNode) -> Parameters:
    """How to segment, as the panel has it."""
    return Parameters(
        parameterNode.model, parameterNode.quality.value, parameterNode.device.value, parameterNode.seed
    )


def mostLikelyChestCt():
    """The first volume whose values reach from air to bone; else none is preselected."""
    for node in slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"):
        image = node.GetImageData()
        if node.GetAttribute(results.ATTRIBUTE) or node.IsA("vtkMRMLLabelMapVolumeNode") or image is None:
            continue
        low, high = image.GetScalarRange()
        if low < -800 and high > 100:
            return node
    return None


#
# DiffSegLungLogic
#


class DiffSegLungLogic(ScriptedLoadableModuleLogic):
    """Segmentation, measures and exports, without a window; usable from the console and headless.

    Usage example:
        segmentationNode = DiffSegLungLogic().process(volumeNode)
        print(DiffSegLungLogic().measures(segmentationNode))
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._run: Run | None = None

    def getParameterNode(self):
        """The panel's parameters, kept in the scene."""
        return DiffSegLungParameterNode(super().getParameterNode())

    def process(
        self,
        volumeNode: vtkMRMLScalarVolumeNode,
        segmentationNode: vtkMRMLSegmentationNode | None = None,
        lungs=None,
        regions=None,
        parameters: Parameters | dict | None = None,
        waitForCompletion: bool = True,
        inProcess: bool = False,
        sequenceBrowserNode=None,
        onProgress=None,
    ):
        """Segments a CT.

        :param volumeNode: the CT, in HU.
        :param segmentationNode: gets the segments; its own other segments stay. None makes a new node.
        :param lungs: lung mask to use: a segmentation node, or (node, segment ID). None finds the lungs.
        :param regions: lobes or other regions to measure, given likewise.
        :param parameters: model, quality, device, seed; see DiffSegLungSlicer.segmentation.Parameters.
        :param waitForCompletion: False returns at once, with a run to `poll`, `wait` for or `cancel`.
        :param inProcess: compute in this process; simpler to debug, but the window stands still.
        :param sequenceBrowserNode: segments every time point of the sequence that the CT belongs to.
        :param onProgress: called with a record of stage, fraction (0 to 1), message and peakMb.
        :return: the segmentation node, or the run.
        :raises DiffSegLungError: in one line what is wrong, where, and the remedy.
        """
        if self.isRunning():
            raise UnusableInputError("A segmentation is running: wait for it or cancel it.")
        job = SegmentationJob(
            volumeNode,
            segmentationNode,
            SegmentChoice.of(lungs),
            SegmentChoice.of(regions),
            Parameters.of(parameters),
            sequenceBrowserNode,
        )
        if inProcess:
            return job.runHere(onProgress)
        self._run = job.start(onProgress)
        return self._run.wait(slicer.app.processEvents) if waitForCompletion else self._run

    def isRunning(self) -> bool:
        """Whether a segmentation runs."""
        return self._run is not None and self._run.isRunning

    def cancel(self) -> None:
        """Ends the run and all its processes; the scene stays as it was."""
        if self._run is not None:
            self._run.cancel()

    def measures(self, segmentationNode: vtkMRMLSegmentationNode):
        """Measures the segments as they are now, corrections included; table and charts follow.

        :return: pandas.DataFrame, region x measure; DiffSegLungLib.measures.DEFINITIONS says what each means.
        """
        return results.measure(segmentationNode)

    def report(self, segmentationNode: vtkMRMLSegmentationNode, folder: str) -> Path:
        """Writes report.html, report.pdf and measures.csv of the segments as they are now.

        :return: the HTML file.
        """
        return exports.reportRun(segmentationNode, Path(folder)).wait(slicer.app.processEvents)

    def exportDicomSegmentation(self, segmentationNode: vtkMRMLSegmentationNode, path: str) -> Path:
        """Writes a DICOM segmentation; the CT must have come from the DICOM database."""
        return exports.dicomRun(segmentationNode, Path(path)).wait(slicer.app.processEvents)

    def checkInstallation(self) -> dict:
        """Versions, device, weights and their checksums; ``["ready"]`` says whether a CT can be segmented."""
        return exports.checkRun().wait(slicer.app.processEvents)

    def models(self) -> list:
        """The weights at hand."""
        from DiffSegLungLib.models import list_models

        return list_models()


#
# DiffSegLungTest
#


class DiffSegLungTest(ScriptedLoadableModuleTest):
    """Really segments the phantom, whose truth is known.  Fails where a package or weights are missing."""

    def setUp(self) -> None:
        """Do whatever is needed to reset the state - typically a scene clear will be enough."""
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        """Run as few or as many tests as needed here."""
        self.setUp()
        self.test_installation()
        self.setUp()
        self.test_phantom()

    def test_installation(self) -> None:
        """Nothing is missing."""
        found = DiffSegLungLogic().checkInstallation()
        self.assertTrue(found["ready"], json.dumps(found, indent=1))

    def test_phantom(self) -> None:
        """Segments, names, codes and measures of the phantom."""
        import SampleData

        registerSampleData()
        volumeNode = SampleData.downloadSample("DiffSegLungPhantom")
        self.assertIsNotNone(volumeNode)
        node = DiffSegLungLogic().process(volumeNode, parameters={"quality": "fast", "device": "cpu"})
        shares = {key: percent for key, ml, percent in results.tissueRows(node)}
        self.assertEqual(list(node.GetSegmentation().GetSegmentIDs()), list(shares))
        self.assertGreater(shares["healthy"], 60.0)
        # Its fibrosis is finer than its voxels.
        for key in ("emphysema", "ground-glass", "consolidation", "cavity"):
            self.assertGreater(shares[key], 0.0, key)
        self.assertAlmostEqual(sum(shares.values()), 100.0, delta=0.1)
        self.delayDisplay("Test passed")
