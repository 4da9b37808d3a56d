from __future__ import annotations

import json
import sys
import time
import unittest
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
    from DiffSegLungLib.errors import DiffSegLungError, UnusableInputError
except ModuleNotFoundError:  # started from the source tree, where the library lies beside the module's folder
    sys.path.append(str(Path(__file__).resolve().parents[1]))
    from DiffSegLungLib.errors import DiffSegLungError, UnusableInputError

for _name in [name for name in sys.modules if name.partition(".")[0] == "DiffSegLungSlicer"]:
    del sys.modules[_name]  # Reload means these files, too

from DiffSegLungSlicer import display, environment, exports, extras, finetuning, ownModels, results, sequences
from DiffSegLungSlicer.choices import Device, Quality, Stage, isVolume, mostLikelyChestCt
from DiffSegLungSlicer.exchange import SegmentChoice
from DiffSegLungSlicer.run import Run, State
from DiffSegLungSlicer.segmentation import Parameters, SegmentationJob
from DiffSegLungSlicer.several import Several
from DiffSegLungSlicer.spreading import spread
from DiffSegLungSlicer.trainingSources import Sources
from DiffSegLungSlicer.words import said

HOMEPAGE = "https://github.com/DiffSegLung/SlicerDiffSegLung"
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
        slicer.app.connect("startupCompleted()", extras.registerTerminology)


#
# Register sample data sets in Sample Data module
#


def registerSampleData() -> None:
    """A CT that Slicer's testing data hold, and a phantom of known truth that needs no network."""
    extras.registerSampleData()


#
# DiffSegLungParameterNode
#


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
    training... - As in DiffSegLungSlicer.finetuning.Parameters.
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
    trainingName: str = ""
    trainingMinutes: Annotated[float, WithinRange(0.1, 100_000.0)] = 30.0
    trainingSteps: Annotated[int, WithinRange(0, 10_000_000)] = 0
    trainingStage: Stage = Stage.BOTH
    trainingDevice: Device = Device.AUTO
    trainingRefitMixture: bool = False
    trainingSeed: Annotated[int, WithinRange(0, 2**31 - 1)] = 0


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
        self._startedAt, self._regions = 0.0, None

    def setup(self) -> None:
        """Called when the user opens the module the first time and the widget is initialized."""
        ScriptedLoadableModuleWidget.setup(self)
        import qt

        from DiffSegLungSlicer.InputsSection import InputsSection
        from DiffSegLungSlicer.InstallationSection import InstallationSection
        from DiffSegLungSlicer.ProgressSection import ProgressSection
        from DiffSegLungSlicer.ResultSection import ResultSection
        from DiffSegLungSlicer.TrainingSection import TrainingSection

        uiWidget = slicer.util.loadUI(self.resourcePath("UI/DiffSegLung.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        uiWidget.setMRMLScene(slicer.mrmlScene)
        self.logic = DiffSegLungLogic()
        self.inputsSection = InputsSection(self.ui, self.logic, self._updateButton)
        self.progressSection = ProgressSection(self.ui)
        self.resultSection = ResultSection(self.ui, self.logic, self.showError)
        self.installationSection = InstallationSection(self.ui, HOMEPAGE)
        self.trainingSection = TrainingSection(
            self.ui, DiffSegLungTrainingLogic(), self._ensurePackages, self.inputsSection.updateModels
        )
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

    def cleanup(self) -> None:
        """Called when the application closes and the module widget is destroyed."""
        self._timer.stop()
        self.logic.cancel()
        self.resultSection.cleanup()
        self.installationSection.cleanup()
        self.trainingSection.cleanup()
        self.setParameterNode(None)
        self.removeObservers()

    def enter(self) -> None:
        """Called each time the user opens this module."""
        self.initializeParameterNode()
        self.trainingSection.refresh()

    def exit(self) -> None:
        """Called each time the user opens a different module; a run goes on."""
        self._releaseParameterNode()

    def onSceneStartClose(self, caller, event) -> None:
        """A run has nowhere to put its result any more, and nobody may hold nodes beyond their scene."""
        self.logic.forget()
        self.onTick()
        self.showError("")
        self.resultSection.cleanup()
        self.setParameterNode(None)

    def onSceneEndClose(self, caller, event) -> None:
        """Called just after the scene was closed or another one was read."""
        if self.parent.isEntered:
            self.initializeParameterNode()

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def onNodeAdded(self, caller, event, node) -> None:
        """A CT that is loaded while the panel is open is chosen, once its voxels are there."""
        import qt

        if isVolume(node):
            qt.QTimer.singleShot(0, lambda: self._chooseCt([node]))

    def initializeParameterNode(self) -> None:
        """Ensure parameter node exists and observed; a CT is already chosen."""
        self.setParameterNode(self.logic.getParameterNode())
        self._chooseCt()

    def _chooseCt(self, nodes=None) -> None:
        if self._parameterNode and not self._parameterNode.inputVolume:
            self._parameterNode.inputVolume = mostLikelyChestCt(nodes)

    def setParameterNode(self, inputParameterNode: DiffSegLungParameterNode | None) -> None:
        """Set and observe parameter node, so that the panel follows it and a saved scene brings it back."""
        self._releaseParameterNode()
        self._parameterNode = inputParameterNode
        self._regions = inputParameterNode.regions if inputParameterNode else None
        if self._parameterNode:
            self._parameterNodeGuiTag = self._parameterNode.connectGui(self.ui)
            self.addObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self._updateFromParameterNode)
        self._updateFromParameterNode()

    def _releaseParameterNode(self) -> None:
        node, event = self._parameterNode, vtk.vtkCommand.ModifiedEvent
        if node:
            node.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(node, event, self._updateFromParameterNode)
        self._parameterNode = self._parameterNodeGuiTag = None

    def _updateFromParameterNode(self, caller=None, event=None) -> None:
        parameters = self._parameterNode
        self.inputsSection.setParameters(parameters)
        browser = sequences.browserOf(parameters.inputVolume) if parameters else None
        self.ui.allTimePointsCheckBox.visible = browser is not None
        node = parameters.segmentation if parameters else None
        self._updateButton()
        self.resultSection.setSegmentation(node if results.isResult(node) else None)
        if parameters and parameters.regions is not self._regions:
            self._regions = parameters.regions
            if not slicer.mrmlScene.IsImporting():  # the user's choice, not a saved one
                self.resultSection.useRegions(self._regions)

    def _updateButton(self) -> None:
        """The one button: starts, or cancels, or says what is missing."""
        running, count = self._run is not None, len(self.inputsSection.checkedVolumes())
        hasCt = bool(count or (self._parameterNode and self._parameterNode.inputVolume))
        start = _("Segment {count} CT").format(count=count) if count else _("Segment lung pathology")
        self.ui.applyButton.text = _("Cancel") if running else start
        self.ui.applyButton.enabled = running or hasCt
        if running:
            self.ui.applyButton.toolTip = _("Ends the computation; the scene stays as it is.")
        elif hasCt:
            self.ui.applyButton.toolTip = _("Finds healthy and diseased lung in the CT.")
        else:
            self.ui.applyButton.toolTip = _("Load a chest CT and choose it.")

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
        self._ensurePackages()
        parameters, checked = self._parameterNode, self.inputsSection.checkedVolumes()
        lungs = (parameters.lungs, parameters.lungsSegment) if parameters.lungs else None
        browser = sequences.browserOf(parameters.inputVolume) if parameters.allTimePoints else None
        how = Parameters(parameters.model, parameters.quality.value, parameters.device.value, parameters.seed)
        self._startedAt = time.monotonic()
        common = {"parameters": how, "waitForCompletion": False, "onProgress": self.onProgress}
        if checked:
            self._run = self.logic.processSeveral(checked, **common)
        else:
            place = {"regions": parameters.regions, "sequenceBrowserNode": browser}
            node = parameters.segmentation
            self._run = self.logic.process(parameters.inputVolume, node, lungs, **place, **common)
        self.progressSection.begin()
        self._timer.start()

    def _ensurePackages(self) -> None:
        environment.ensure(Path(self.resourcePath("requirements.txt")), self.ui.wheelFolderEdit.currentPath)

    def onProgress(self, record) -> None:
        """Bar, stage and time left."""
        self.progressSection.show(record, self._run.secondsLeft() if self._run else None)

    def onTick(self) -> None:
        """Follows the run; called by the timer."""
        from DiffSegLungSlicer.PartsSection import Reported

        run = self._run
        if run is None or run.poll():
            return
        self._timer.stop()
        self._run = None
        self.progressSection.end(run.log)
        self._updateButton()
        if run.state is State.DONE:
            with Reported(self.showError):
                self._onFinished(self.inputsSection.take(run) if isinstance(run, Several) else run.result)
        elif run.state is State.FAILED:
            self.showError(str(run.error))

    def _onFinished(self, segmentationNode) -> None:
        if segmentationNode is None:  # none of several CT could be segmented
            return
        took = time.monotonic() - self._startedAt
        self.ui.logText.appendPlainText(_("Done in {seconds:.0f} s").format(seconds=took))
        # Where the user is in another module the choice is kept for the return.
        (self._parameterNode or self.logic.getParameterNode()).segmentation = segmentationNode
        display.showResult(segmentationNode)
        self.resultSection.setSegmentation(segmentationNode)
        self.resultSection.refresh()  # a second run into the same segmentation
        self.resultSection.forgetEdits()
        self.ui.resultsCollapsibleButton.collapsed = False

    def showError(self, message: str) -> None:
        """One line under the button; empty takes it away."""
        self.ui.errorLabel.text = said(message)
        self.ui.errorLabel.visible = bool(message)


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
        ownModels.use()
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

    def processSeveral(self, volumeNodes, parameters=None, waitForCompletion: bool = True, onProgress=None):
        """Segments several CT one after the other, each into a new segmentation; arguments as of `process`.

        :return: table node with a row a CT, failures with their reasons; or the run.
        """
        if self.isRunning():
            raise UnusableInputError("A segmentation is running: wait for it or cancel it.")
        self._run = Several(volumeNodes, Parameters.of(parameters), onProgress)
        return self._run.wait(slicer.app.processEvents) if waitForCompletion else self._run

    def isRunning(self) -> bool:
        """Whether a segmentation runs."""
        return self._run is not None and self._run.isRunning

    def cancel(self) -> None:
        """Ends the run and all its processes; the scene stays as it was."""
        if self._run is not None:
            self._run.cancel()

    def forget(self) -> None:
        """Ends the run, and lets go of its nodes."""
        self.cancel()
        self._run = None

    def measures(self, segmentationNode: vtkMRMLSegmentationNode):
        """Measures the segments as they are now, corrections included; table and charts follow.

        :return: pandas.DataFrame, region x measure, as DiffSegLungLib.quantify.measures.DEFINITIONS says.
        """
        return results.measure(segmentationNode)

    def spread(self, segmentationNode: vtkMRMLSegmentationNode) -> dict:
        """Takes what was painted since the run as evidence for the whole CT; ml from tissue to tissue."""
        return spread(segmentationNode, slicer.app.processEvents)

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
        from DiffSegLungLib.models.store import list_models

        return list_models()


#
# DiffSegLungTrainingLogic
#


class DiffSegLungTrainingLogic(ScriptedLoadableModuleLogic):
    """Fine-tuning on one's own CT, without a window.  Slicer has one run at a time, whoever began it.

    Usage example:
        logic = DiffSegLungTrainingLogic()
        folder = logic.finetune(volumeNodes, parameters={"name": "our-scanner", "minutes": 30})
        print(logic.comparison("our-scanner")["verdict"])
    """

    def __init__(self) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        ownModels.use()

    def preflight(self, volumeNodes=(), folder=None, parameters=None, seriesUids=(), waitForCompletion=True):
        """What a fine-tuning would take, before anything starts; arguments as of `finetune`.

        :return: dict with ready, missing (sentences), warnings, patches, minutes, memory_mb ...; or the run.
        """
        sources = Sources(volumeNodes, folder, seriesUids)
        run = finetuning.preflightRun(finetuning.Parameters.of(parameters), sources)
        return run.wait(slicer.app.processEvents) if waitForCompletion else run

    def finetune(
        self,
        volumeNodes=(),
        folder=None,
        parameters: finetuning.Parameters | dict | None = None,
        seriesUids=(),
        waitForCompletion: bool = True,
        onProgress=None,
    ):
        """Fine-tunes a model without labels, and puts the new one into the user's model store.

        :param volumeNodes: CT of the scene, in HU.
        :param folder: of CT files or DICOM.
        :param parameters: name, base, minutes, stage ...; see DiffSegLungSlicer.finetuning.Parameters.
        :param seriesUids: series of the DICOM database.
        :param waitForCompletion: False returns at once, with a job to `poll`, `wait` for or `pause`.
        :return: the new model's folder, or the job.
        :raises DiffSegLungError: in one line what is wrong, where, and the remedy.
        """
        sources = Sources(volumeNodes, folder, seriesUids)
        job = finetuning.begin(finetuning.Parameters.of(parameters), sources, onProgress)
        return job.wait(slicer.app.processEvents) if waitForCompletion else job

    def resume(self, name: str, waitForCompletion: bool = True, onProgress=None):
        """Goes on from the last whole checkpoint of an unfinished run; returns as `finetune` does."""
        job = finetuning.resume(name, onProgress)
        return job.wait(slicer.app.processEvents) if waitForCompletion else job

    def pause(self) -> None:
        """Ends the run at its next step, with a checkpoint; `resume` goes on."""
        if job := finetuning.current():
            job.pause()

    def stop(self) -> None:
        """Likewise, and returns when the process is gone."""
        if job := finetuning.current():
            job.end()

    def isRunning(self) -> bool:
        """Whether a fine-tuning runs in this Slicer."""
        return finetuning.current() is not None and finetuning.current().poll()

    def unfinished(self) -> list[dict]:
        """Runs that can be resumed, also after a crash of Slicer: name, step, steps, parameters."""
        return finetuning.unfinished()

    def discard(self, name: str) -> None:
        """Deletes an unfinished run."""
        finetuning.discard(name)

    def comparison(self, name: str) -> dict:
        """How a fine-tuned model compares with its base: verdict, figures, picture of a CT held back."""
        return ownModels.comparison(name)

    def verify(self, name: str):
        """Checks the model's files against their checksums; returns its name, folder, version and SHA-256."""
        return ownModels.verify(name)

    def remove(self, name: str) -> None:
        """Deletes one of the user's own models."""
        ownModels.remove(name)


#
# DiffSegLungTest
#


class DiffSegLungTest(ScriptedLoadableModuleTest):
    """Really segments the phantom, whose truth is known.  Skipped where a package is missing."""

    def setUp(self) -> None:
        """An empty scene; nothing to test where the user has not installed the packages yet."""
        slicer.mrmlScene.Clear()
        if lacking := environment.missing(environment.REQUIREMENTS):
            self.skipTest(environment.lackingText(lacking))

    def runTest(self) -> None:
        """Run as few or as many tests as needed here."""
        try:
            for test in (self.test_installation, self.test_phantom):
                self.setUp()
                test()
        except unittest.SkipTest as reason:
            self.delayDisplay(f"Skipped: {reason}")

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
