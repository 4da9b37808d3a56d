"""The panel's fine-tuning: CT, one button, losses while it learns, then whether the new model is better."""

from __future__ import annotations

import html
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from DiffSegLungLib.errors import DiffSegLungError
from DiffSegLungLib.models.store import list_models
from DiffSegLungLib.training.run_files import SAMPLES, read_log

from . import display, finetuning, losses, ownModels
from .choices import Device, Stage, fillSelector
from .dicomSource import selectedSeries
from .finetuning import Parameters, State
from .words import said

POLL_MS = 300
REFRESH_CHARTS_EACH = 7
"""Polls."""
PICTURE_WIDTH = 330


class TrainingSection:
    """Starts, watches and pauses a fine-tuning, and manages the models that came of it.

    The run goes on while the user is in another module and when the scene is closed.

    Args:
        ui: the panel's widgets.
        logic: DiffSegLungTrainingLogic.
        ensurePackages: installs what is missing, or raises.
        onModelsChanged: called when a model has come or gone.
    """

    def __init__(self, ui, logic, ensurePackages: Callable[[], None], onModelsChanged: Callable[[], None]):
        self.ui, self.logic = ui, logic
        self._ensurePackages, self._onModelsChanged = ensurePackages, onModelsChanged
        self._job: finetuning.Job | None = None
        self._preflight = None
        self._series: list[str] = []
        self._picture: Path | None = None
        self._polls = 0
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.onTick)
        self._connect()
        self.refresh()

    def _connect(self) -> None:
        ui = self.ui
        ui.trainingVolumesSelector.connect("checkedNodesChanged()", self._updateButtons)
        ui.trainingFolderEdit.connect("currentPathChanged(QString)", self._updateButtons)
        ui.trainingNameEdit.connect("textChanged(QString)", self._updateButtons)
        ui.trainingDicomButton.connect("clicked(bool)", self.onDicom)
        ui.trainingUnfinishedSelector.connect("activated(int)", self.onUnfinishedChosen)
        ui.trainingDiscardButton.connect("clicked(bool)", self.onDiscard)
        ui.trainingCheckButton.connect("clicked(bool)", self.onCheck)
        ui.trainingStartButton.connect("clicked(bool)", self.onStart)
        ui.trainingStopButton.connect("clicked(bool)", self.onStop)
        ui.trainingLossesButton.connect("clicked(bool)", self.onLosses)
        ui.trainingDistillationButton.connect("clicked(bool)", self.onDistillation)
        ui.trainingModelSelector.connect("currentIndexChanged(int)", self._clearComparison)
        ui.trainingVerifyButton.connect("clicked(bool)", self.onVerify)
        ui.trainingCompareButton.connect("clicked(bool)", self.onCompare)
        ui.trainingDeleteButton.connect("clicked(bool)", self.onDelete)
        ui.trainingPictureButton.connect("clicked(bool)", self.onPicture)

    def cleanup(self) -> None:
        """Slicer closes: the run ends with a checkpoint, and can be resumed next time."""
        self._timer.stop()
        if self._preflight is not None:
            self._preflight.cancel()
        self.logic.stop()

    # --- what is shown ----------------------------------------------------------------------------

    def refresh(self) -> None:
        """Models, unfinished runs and buttons as they are now; follows a run that somebody else began."""
        if self._job is None and self.logic.isRunning():
            self._follow(finetuning.current())
        known = list_models()
        bases, own = self.ui.trainingBaseSelector, self.ui.trainingModelSelector
        names = [info.name for info in known]
        fillSelector(bases, ["", *names], [_("shipped"), *names], bases.currentData)
        mine = [info.name for info in ownModels.everyOne()]
        fillSelector(own, mine, mine, own.currentData)
        self.ui.trainingModelsWidget.visible = bool(mine)
        self._updateUnfinished()
        self._updateButtons()

    def _updateUnfinished(self) -> None:
        running = self._job.name if self._job else None
        runs = [run for run in self.logic.unfinished() if run["name"] != running]
        labels = [_("{name}: step {step} of {steps}").format(**run) for run in runs]
        labels = [label.replace(" of 0", "") for label in labels]  # its training has not begun
        names = [run["name"] for run in runs]
        fillSelector(self.ui.trainingUnfinishedSelector, ["", *names], [_("choose to resume"), *labels], "")
        self.ui.trainingUnfinishedWidget.visible = bool(runs)

    def _updateButtons(self, *_arguments) -> None:
        ui, name = self.ui, self.ui.trainingNameEdit.text.strip()
        running = self._job is not None
        lacking = self._lacking(name)
        ui.trainingStartButton.text = self._startText(name)
        ui.trainingStartButton.enabled = not self._job.pausing if self._job else not lacking
        ui.trainingStartButton.toolTip = (
            _("Ends at the next step with a checkpoint, from which it goes on when you like.")
            if running
            else lacking or _("The model learns on these CT, without labels. The base model stays as it is.")
        )
        ui.trainingStopButton.enabled = running and not self._job.pausing
        ui.trainingInputsWidget.enabled = not running
        ui.trainingCheckButton.enabled = not running and self._preflight is None and self._hasCt()
        ui.trainingDicomLabel.text = (
            _("{count} series").format(count=len(self._series)) if self._series else ""
        )

    def _startText(self, name: str) -> str:
        if self._job is not None:
            return _("Pausing ...") if self._job.pausing else _("Pause")
        return _("Resume") if self._isUnfinished(name) else _("Start fine-tuning")

    def _isUnfinished(self, name: str) -> bool:
        return self.ui.trainingUnfinishedSelector.findData(name) > 0

    def _hasCt(self) -> bool:
        ui = self.ui
        checked = ui.trainingVolumesSelector.checkedNodes()
        return bool(checked or ui.trainingFolderEdit.currentPath or self._series)

    def _lacking(self, name: str) -> str:
        if self._isUnfinished(name):
            return ""
        if not self._hasCt():
            return _("Check CT of the scene, or give a folder of CT.")
        return "" if name else _("Give the new model a name.")

    def _showError(self, message: str) -> None:
        self.ui.trainingErrorLabel.text = said(message)
        self.ui.trainingErrorLabel.visible = bool(message)

    def _tried(self, step: Callable[[], None]) -> None:
        """Takes a step; what is wrong stands in the section's error line."""
        self._showError("")
        try:
            step()
        except DiffSegLungError as error:
            self._showError(str(error))
        self._updateButtons()

    # --- what the user does -----------------------------------------------------------------------

    def _parameters(self) -> Parameters:
        ui = self.ui
        return Parameters(
            name=ui.trainingNameEdit.text.strip(),
            base=ui.trainingBaseSelector.currentData or "",
            minutes=ui.trainingMinutesSpinBox.value,
            steps=ui.trainingStepsSpinBox.value,
            stage=_chosen(ui.trainingStageSelector, Stage),
            refitMixture=ui.trainingRefitCheckBox.checked,
            device=_chosen(ui.trainingDeviceSelector, Device),
            seed=ui.trainingSeedSpinBox.value,
        )

    def _sources(self) -> dict:
        ui = self.ui
        return {
            "volumeNodes": ui.trainingVolumesSelector.checkedNodes(),
            "folder": ui.trainingFolderEdit.currentPath or None,
            "seriesUids": tuple(self._series),
        }

    def onDicom(self) -> None:
        """Adds what is selected in the DICOM browser; with nothing selected there, forgets what was added."""
        chosen = selectedSeries()
        self._series = list(dict.fromkeys([*self._series, *chosen])) if chosen else []
        self._showError("" if chosen else _("Select CT series in the DICOM module first."))
        self._updateButtons()

    def onUnfinishedChosen(self, index: int) -> None:
        """Its name decides what the button does."""
        if index > 0:
            self.ui.trainingNameEdit.text = self.ui.trainingUnfinishedSelector.itemData(index)

    def onDiscard(self) -> None:
        """Deletes the unfinished run that is chosen, after a question."""
        name = self.ui.trainingUnfinishedSelector.currentData or self.ui.trainingNameEdit.text.strip()
        if self._isUnfinished(name) and _agreed(_("Delete the unfinished run {name}?").format(name=name)):
            self._tried(lambda: self.logic.discard(name))
            self.refresh()

    def onCheck(self) -> None:
        """What it would take and what is missing, before anything starts."""
        self._tried(self._startPreflight)

    def _startPreflight(self) -> None:
        self._ensurePackages()
        self._preflight = self.logic.preflight(
            **self._sources(), parameters=self._parameters(), waitForCompletion=False
        )
        self.ui.trainingPreflightLabel.text = _("Checking ...")
        self.ui.trainingPreflightLabel.visible = True
        self._timer.start()

    def onStart(self) -> None:
        """Starts or resumes, or pauses what runs."""
        if self._job is not None:
            self._job.pause()
            self.onTick()
            self._updateButtons()
            return
        self.ui.trainingStartButton.enabled = False  # pip lets events through
        self._tried(self._startOrResume)

    def _startOrResume(self) -> None:
        self._ensurePackages()
        self._clearComparison()
        parameters = self._parameters()
        if self._isUnfinished(parameters.name):
            job = self.logic.resume(parameters.name, waitForCompletion=False)
        else:
            job = self.logic.finetune(**self._sources(), parameters=parameters, waitForCompletion=False)
        self._follow(job)

    def _follow(self, job: finetuning.Job) -> None:
        self._job = job
        job.onProgress = self.onProgress
        self.ui.trainingProgressBar.value = 0
        self.ui.trainingStatusLabel.text = _("{name}: starting").format(name=job.name)
        self.ui.trainingProgressWidget.visible = True
        self._timer.start()
        self._updateUnfinished()

    def onStop(self) -> None:
        """Ends at the next step with a checkpoint, and leaves the form to another run."""
        if self._job is not None:
            self.ui.trainingNameEdit.text = ""
            self._job.pause()
            self.onTick()
            self._updateButtons()

    # --- while it runs ----------------------------------------------------------------------------

    def onProgress(self, record) -> None:
        """Bar, stage and time left."""
        left = self._job.secondsLeft() if self._job else None
        remaining = _(" - {minutes:.0f} min left").format(minutes=left / 60) if left is not None else ""
        said = f"{record.message or record.stage} {100 * record.fraction:.0f} %"
        self.ui.trainingProgressBar.value = round(1000 * record.fraction)
        self.ui.trainingStatusLabel.text = f"{said}{remaining}"
        self.ui.trainingLogText.appendPlainText(f"{record.stage} {said}, {record.peakMb:.0f} MB")

    def onTick(self) -> None:
        """Follows what runs; called by the timer."""
        self._followPreflight()
        job = self._job
        if job is not None:
            goesOn = job.poll()
            self._polls += 1
            if not goesOn or self._polls % REFRESH_CHARTS_EACH == 0:
                self._showLosses(job)
                self._showSamples(job)
            if not goesOn:
                self._onEnded(job)
        if self._job is None and self._preflight is None:
            self._timer.stop()

    def _showLosses(self, job: finetuning.Job) -> list:
        log = read_log(job.folder)
        warning = _(
            "The embedding has collapsed: all regions look alike to it. Pause, discard, and start again with "
            "more time or with the diffusion only."
        )
        self.ui.trainingWarningLabel.text = warning
        self.ui.trainingWarningLabel.visible = losses.hasCollapsed(log)
        return losses.show(job.name, log)

    def _showSamples(self, job: finetuning.Job) -> None:
        """What the network draws at present; the file comes anew with each comparison."""
        picture = job.folder / SAMPLES
        self.ui.trainingSamplesLabel.visible = picture.is_file()
        if picture.is_file():
            pixmap = qt.QPixmap(str(picture)).scaledToWidth(PICTURE_WIDTH, qt.Qt.SmoothTransformation)
            self.ui.trainingSamplesLabel.setPixmap(pixmap)

    def _onEnded(self, job: finetuning.Job) -> None:
        self._job = None
        if job.log:
            self.ui.trainingLogText.appendPlainText(job.log)
        if job.state is not State.PAUSED:
            self.ui.trainingSamplesLabel.visible = False
        if job.state is State.DONE:
            self.ui.trainingProgressWidget.visible = False
            self.ui.trainingNameEdit.text = ""
            self._onModelsChanged()
        elif job.state is State.PAUSED:
            self.ui.trainingStatusLabel.text = _("{name} is paused; its checkpoint is kept.").format(
                name=job.name
            )
        else:
            self.ui.trainingProgressWidget.visible = False
            self._showError(str(job.error))
        self.refresh()
        if job.state is State.DONE:
            self.ui.trainingModelSelector.setCurrentIndex(self.ui.trainingModelSelector.findData(job.name))
            self.onCompare()

    def _followPreflight(self) -> None:
        run = self._preflight
        if run is None or run.poll():
            return
        self._preflight = None
        self._showError(str(run.error) if run.error else "")
        self.ui.trainingPreflightLabel.visible = run.error is None
        if run.error is None:
            self.ui.trainingPreflightLabel.text = describePreflight(run.result)
        self._updateButtons()

    def onLosses(self) -> None:
        """The noise loss, of what is trained on and of the patients held back."""
        self._showChart(0)

    def onDistillation(self) -> None:
        """What is learnt beside the noise: the distillation once it has begun, or the painted tissues."""
        self._showChart(1)

    def _showChart(self, index: int) -> None:
        job = self._job or finetuning.current()
        charts = self._showLosses(job) if job else []
        lacking = _("There is no curve before two steps."), _("The distillation has not begun yet.")
        self._showError("" if len(charts) > index else lacking[index])
        if len(charts) > index:
            display.showChart(charts[index])

    # --- models of the user's own -----------------------------------------------------------------

    def _clearComparison(self, *_arguments) -> None:
        self.ui.trainingVerdictLabel.visible = False
        self._showPicture(None)

    def onVerify(self) -> None:
        """Checks the files against their checksums."""
        self._tried(self._verify)

    def _verify(self) -> None:
        info = self.logic.verify(self.ui.trainingModelSelector.currentData)
        text = _("{name} is whole: SHA-256 {sha256}.").format(name=info.name, sha256=info.sha256)
        self.ui.trainingVerdictLabel.text = html.escape(text)
        self.ui.trainingVerdictLabel.visible = True

    def onCompare(self) -> None:
        """Whether it is better than its base, in sentences and side by side."""
        self._tried(self._compare)

    def _compare(self) -> None:
        found = self.logic.comparison(self.ui.trainingModelSelector.currentData)
        self.ui.trainingVerdictLabel.text = describeComparison(found)
        self.ui.trainingVerdictLabel.visible = True
        self._showPicture(found["picture"])

    def _showPicture(self, picture: Path | None) -> None:
        self._picture = picture
        self.ui.trainingPictureLabel.visible = picture is not None
        self.ui.trainingPictureButton.visible = picture is not None
        if picture is not None:
            pixmap = qt.QPixmap(str(picture)).scaledToWidth(PICTURE_WIDTH, qt.Qt.SmoothTransformation)
            self.ui.trainingPictureLabel.setPixmap(pixmap)

    def onPicture(self) -> None:
        """The comparison in its full size, in the computer's own viewer."""
        if self._picture is not None:
            qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._picture)))

    def onDelete(self) -> None:
        """Deletes a model, after a question."""
        name = self.ui.trainingModelSelector.currentData
        if _agreed(_("Delete the model {name}?").format(name=name)):
            self._clearComparison()
            self._tried(lambda: self.logic.remove(name))
            self._onModelsChanged()
            self.refresh()


def _agreed(question: str) -> bool:
    return slicer.util.confirmOkCancelDisplay(question)


def _chosen(selector, choice: type[Device] | type[Stage]) -> str:
    """The command line's word of what is chosen; the selector is filled in the enumeration's order."""
    return list(choice)[max(selector.currentIndex, 0)].value


def describePreflight(found: dict) -> str:
    """The answer of the check as rich text."""
    head = _("<b>Ready.</b>") if found["ready"] else _("<b>Not yet:</b>")
    notes = [*found["missing"], *found["warnings"]]
    lines = "".join(f"<li>{html.escape(note)}</li>" for note in notes)
    facts = ""
    if "steps" in found:
        facts = _(
            "{volumes} CT of {patients} patients, {held_back} held back; {lung_litres} litres of lung, about "
            "{patches} patches; {steps} steps on {device}, about {minutes} min in all; memory {memory_mb} "
            "MB; disk {disk_mb} MB."
        ).format(**found)
    return f"{head} {html.escape(facts)}" + (f"<ul>{lines}</ul>" if notes else "")


def describeComparison(found: dict) -> str:
    """The verdict as rich text; a model that is worse is said to be so in red."""
    first, *others = (html.escape(line) for line in found["verdict"])
    colour = "#c62828" if found["worse"] else "#2e7d32"
    ended = _("Ended early: {reason}.").format(reason=found["ended"]) if found["ended"] else ""
    lines = "".join(f"<li>{line}</li>" for line in [*others, *([html.escape(ended)] if ended else [])])
    title = html.escape(_("{name}, from {parent}:").format(name=found["name"], parent=found["parent"]))
    return f'{title} <b style="color: {colour}">{first}</b><ul>{lines}</ul>'
