"""The panel's result: what was found, how it is shown, and where it can go from here."""

from __future__ import annotations

import html
import math
from collections.abc import Callable
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.util import VTKObservationMixin

from DiffSegLungLib.tissues import REPORTED

from . import display, measuring, results, spreading
from .background import Background
from .dicomSource import dicomFiles
from .exchange import SegmentChoice
from .PartsSection import Reported, paintShares, referenceText, swatch
from .words import said

EYE, TISSUE, ML, PERCENT, OPACITY = range(5)
SETTLE_MS = 700
"""Pause after the last stroke before the measures are taken again."""
FOLLOW_MS = 50


class ResultSection(VTKObservationMixin):
    """Shows one segmentation, and follows it when it is edited.

    Args:
        ui: the panel's widgets.
        logic: DiffSegLungLogic.
        showError: told one line when something does not work.
    """

    def __init__(self, ui, logic, showError: Callable[[str], None]) -> None:
        super().__init__()
        self.ui, self.logic, self._showError = ui, logic, showError
        self._node = None
        self._filling = False
        self._work: Background | None = None
        self._measured: measuring.Measured | None = None
        self._again = False
        self._settle = qt.QTimer()
        self._settle.setSingleShot(True)
        self._settle.setInterval(SETTLE_MS)
        self._settle.connect("timeout()", self.measureAgain)
        self._following = qt.QTimer()
        self._following.setInterval(FOLLOW_MS)
        self._following.connect("timeout()", self.onMeasuring)
        self._spread: spreading.Job | None = None
        self._spreadTimer = qt.QTimer()
        self._spreadTimer.setInterval(FOLLOW_MS)
        self._spreadTimer.connect("timeout()", self.onSpreading)
        self._setUpTable()
        self._connect()
        self.refresh()

    def _setUpTable(self) -> None:
        table = self.ui.tissueTable
        table.setColumnCount(5)
        table.setRowCount(len(REPORTED))
        table.setHorizontalHeaderLabels([_("Show"), _("Tissue"), _("ml"), _("% of lung"), _("Opacity")])
        table.verticalHeader().setVisible(False)
        header = table.horizontalHeader()
        header.setSectionResizeMode(TISSUE, qt.QHeaderView.Stretch)
        for column in (EYE, ML, PERCENT, OPACITY):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        table.setMinimumHeight(table.verticalHeader().defaultSectionSize * (len(REPORTED) + 1) + 6)

    def _connect(self) -> None:
        ui = self.ui
        ui.tissueTable.connect("itemChanged(QTableWidgetItem*)", self.onItemChanged)
        ui.tissueTable.connect("cellClicked(int,int)", self.onCellClicked)
        ui.opacitySlider.connect("valueChanged(double)", self.onOpacity)
        ui.outlineCheckBox.connect("toggled(bool)", self.onOutline)
        ui.uncertaintyCheckBox.connect("toggled(bool)", self.onUncertainty)
        ui.lungWindowCheckBox.connect("toggled(bool)", self.onLungWindow)
        ui.referenceLabel.text = referenceText()
        ui.copyMeasuresButton.connect("clicked(bool)", self.onCopyMeasures)
        ui.histogramButton.connect("clicked(bool)", self.onHistogram)
        ui.sharesButton.connect("clicked(bool)", self.onShares)
        ui.profileButton.connect("clicked(bool)", self.onProfile)
        ui.undoButton.connect("clicked(bool)", self.onUndo)
        ui.spreadButton.connect("clicked(bool)", self.onSpread)
        ui.reportButton.connect("clicked(bool)", self.onReport)
        ui.editButton.connect("clicked(bool)", self.onEdit)
        ui.editLungsButton.connect("clicked(bool)", self.onEditLungs)
        ui.dicomButton.connect("clicked(bool)", self.onDicom)

    def cleanup(self) -> None:
        """Stops following the segmentation, and drops what its run kept."""
        self.setSegmentation(None)
        spreading.forgetAll()

    # --- what is shown ----------------------------------------------------------------------------

    def setSegmentation(self, segmentationNode) -> None:
        """Shows this segmentation; None where there is no result."""
        if segmentationNode is not self._node:
            self.removeObservers()
            self.forgetEdits()
            self._forgetSpread()
            self._node = segmentationNode
            self._observe()
            self.refresh()

    def _observe(self) -> None:
        """Edits of the tissues and of the lungs; the node passes its segmentation's events on."""
        if self._node is None:
            return
        events = (
            slicer.vtkSegmentation.SourceRepresentationModified,
            slicer.vtkSegmentation.SegmentAdded,
            slicer.vtkSegmentation.SegmentRemoved,
        )
        for node in filter(None, (self._node, self._node.GetNodeReference(results.LUNGS_ROLE))):
            for event in events:
                self.addObserver(node, event, self.onEdited)
        view = self._node.GetDisplayNode()
        if view is not None:
            self.addObserver(view, vtk.vtkCommand.ModifiedEvent, self.onDisplayChanged)

    def refresh(self) -> None:
        """Brings the whole section up to date with the scene."""
        node = self._node
        self.ui.resultsCollapsibleButton.enabled = node is not None
        self._showWarnings()
        self._fillTable()
        self._paintShares()
        self.ui.show3DButton.setSegmentationNode(node)
        self._showMeasures(node.GetNodeReference(results.MEASURES_ROLE) if node else None)
        self.ui.resultLabel.text = self._title()
        self._showView()
        files = dicomFiles(results.volumeOf(node)) if node else []
        self.ui.dicomButton.enabled = bool(files)
        self.ui.dicomButton.toolTip = (
            _("Writes a DICOM segmentation with codes.")
            if files
            else _("The CT did not come from the DICOM database; load it from there to export DICOM.")
        )
        self._makeRoom()
        qt.QTimer.singleShot(0, self._makeRoom)  # once what was hidden is there

    def _makeRoom(self) -> None:
        """The panel around learns of the height: Qt keeps heights of wrapped text that hold no longer."""
        widget = self.ui.resultsCollapsibleButton
        while widget is not None:
            widget.updateGeometry()
            widget = widget.parentWidget()

    def _showMeasures(self, table) -> None:
        self.ui.measuresTable.setMRMLTableNode(table)
        if table is not None:  # a view without a table refuses, so the .ui file cannot say it
            self.ui.measuresTable.transposed = True

    def _showView(self) -> None:
        """The switches tell how the result is shown now; others may have changed it."""
        view = self._node.GetDisplayNode() if self._node else None
        volumeNode = results.volumeOf(self._node) if self._node else None
        states = {
            self.ui.outlineCheckBox: view is not None and not view.GetVisibility2DFill(),
            self.ui.lungWindowCheckBox: display.usesLungWindow(volumeNode),
            self.ui.uncertaintyCheckBox: view is not None and display.showsUncertainty(self._node),
        }
        for box, state in states.items():
            blocked = box.blockSignals(True)
            box.checked = state
            box.blockSignals(blocked)
        if view is not None:
            blocked = self.ui.opacitySlider.blockSignals(True)
            self.ui.opacitySlider.value = view.GetOpacity2DFill()
            self.ui.opacitySlider.blockSignals(blocked)

    def _title(self) -> str:
        if self._node is None:
            return _("No result yet.")
        corrected = _(" (corrected by hand)") if results.isCorrected(self._node) else ""
        return f"<b>{html.escape(self._node.GetName())}</b>{corrected}"

    def _showWarnings(self) -> None:
        warnings = results.manifestOf(self._node).get("warnings", []) if self._node else []
        lines = "".join(f"<li>{html.escape(said(str(warning)))}</li>" for warning in warnings)
        self.ui.warningsLabel.text = _("<b>Before you read the numbers:</b>") + f"<ul>{lines}</ul>"
        self.ui.warningsLabel.visible = bool(warnings)

    def _fillTable(self) -> None:
        measured = results.tissueRows(self._node) if self._node else []
        rows = {key: (ml, percent) for key, ml, percent in measured}
        self._filling = True
        for row, tissue in enumerate(REPORTED):
            ml, percent = rows.get(tissue.key, (0.0, 0.0))
            self._fillRow(row, tissue, ml, percent)
        self._filling = False

    def _fillRow(self, row: int, tissue, ml: float, percent: float) -> None:
        """An absent tissue is there as 0, greyed: its absence is a finding too."""
        share = f"{percent:.1f}" if math.isfinite(percent) else "-"
        texts = ["", said(tissue.name), f"{ml:,.1f}" if ml < 10 else f"{ml:,.0f}", share, ""]
        shown = self._node is not None and tissue.key in self._node.GetSegmentation().GetSegmentIDs()
        view = self._node.GetDisplayNode() if shown else None
        if view:
            texts[OPACITY] = f"{100 * view.GetSegmentOpacity2DFill(tissue.key):.0f} %"
        for column, text in enumerate(texts):
            item = qt.QTableWidgetItem(text)
            flags = qt.Qt.ItemIsEnabled | qt.Qt.ItemIsSelectable
            if column == EYE:
                flags = flags | qt.Qt.ItemIsUserCheckable
                visible = view is not None and view.GetSegmentVisibility(tissue.key)
                item.setCheckState(qt.Qt.Checked if visible else qt.Qt.Unchecked)
            if column == OPACITY:
                flags = flags | qt.Qt.ItemIsEditable
            if column in (ML, PERCENT):
                item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
            if column == TISSUE:
                item.setIcon(qt.QIcon(swatch(tissue.colour)))
            if ml <= 0:
                item.setForeground(qt.QBrush(qt.QColor(150, 150, 150)))
            item.setFlags(flags)
            self.ui.tissueTable.setItem(row, column, item)

    def _paintShares(self) -> None:
        """A stacked bar a region, in the tissues' colours."""
        table = self._node.GetNodeReference(results.MEASURES_ROLE) if self._node else None
        self.ui.sharesLabel.visible = table is not None
        if table is not None:
            self.ui.sharesLabel.setPixmap(paintShares(results.shareRows(self._node)))

    def forgetEdits(self) -> None:
        """What has changed so far was not the user's hand but a run."""
        self._settle.stop()
        self._following.stop()
        self._work, self._measured, self._again = None, None, False

    # --- what the user does -----------------------------------------------------------------------

    def onEdited(self, caller=None, event=None) -> None:
        """Somebody drew: measure again once the hand rests."""
        if self._node is not None:
            self._settle.start()

    def measureAgain(self) -> None:
        """Measures the segments as they are now, in a thread; what is drawn meanwhile comes after it."""
        if self._node is None or self._node.GetScene() is None or slicer.mrmlScene.IsClosing():
            return
        if self._work is not None:
            self._again = True
            return
        with self._reported():
            taken, before = results.taken(self._node), self._measured
            self._work = Background(lambda: measuring.compute(taken, before))
            self._following.start()

    def onMeasuring(self) -> None:
        """Follows the thread; called by a timer."""
        if self._work is None or self._work.isRunning():
            return
        self._following.stop()
        work, self._work = self._work, None
        with self._reported():
            self._measured = work.result()
            results.showMeasured(self._node, self._measured)
            self.refresh()
        if self._again:
            self._again = False
            self.measureAgain()

    def useRegions(self, regionsNode) -> None:
        """Lobes that are chosen after the run are measured, too; None takes them away."""
        if self._node is not None:
            with self._reported():
                results.chooseRegions(self._node, SegmentChoice.of(regionsNode))
                self.measureAgain()

    def onDisplayChanged(self, caller=None, event=None) -> None:
        """Others change it, too: the Segmentations module, a script."""
        if self._node is not None and not self._filling:
            self._fillTable()
            self._showView()

    def onItemChanged(self, item) -> None:
        """Visibility and opacity of one tissue."""
        if self._filling or self._node is None:
            return
        key, view = REPORTED[item.row()].key, self._node.GetDisplayNode()
        self._filling = True  # the table must not be filled anew under the item that the user holds
        if item.column() == EYE:
            view.SetSegmentVisibility(key, item.checkState() == qt.Qt.Checked)
        elif item.column() == OPACITY:
            share = _percentOf(item.text())
            if share is not None:
                view.SetSegmentOpacity2DFill(key, share)
                view.SetSegmentOpacity3D(key, share)
            self._fillTable()
        self._filling = False

    def onCellClicked(self, row: int, column: int) -> None:
        """The slice views go to the largest piece of the tissue."""
        if self._node is not None and column in (TISSUE, ML, PERCENT):
            with self._reported():
                display.jumpToLargest(self._node, REPORTED[row].key)

    def onOpacity(self, value: float) -> None:
        """Of all tissues together."""
        if self._node is not None:
            self._node.GetDisplayNode().SetOpacity2DFill(value)

    def onOutline(self, outlined: bool) -> None:
        """Outlines alone, or filled."""
        if self._node is not None:
            self._node.GetDisplayNode().SetVisibility2DFill(not outlined)

    def onUncertainty(self, shown: bool) -> None:
        """Where the result is doubtful."""
        if self._node is not None:
            display.showUncertainty(self._node, shown)

    def onLungWindow(self, used: bool) -> None:
        """The lung window, or what was there before."""
        volumeNode = results.volumeOf(self._node) if self._node else None
        if volumeNode is not None:
            (display.useLungWindow if used else display.restoreWindow)(volumeNode)

    def onCopyMeasures(self) -> None:
        """The table as text that a spreadsheet takes."""
        table = self._node.GetNodeReference(results.MEASURES_ROLE) if self._node else None
        if table is not None:
            qt.QApplication.clipboard().setText(results.tableText(table))

    def onHistogram(self) -> None:
        """Hounsfield units of each tissue."""
        self._showChart(results.HISTOGRAM_ROLE)

    def onShares(self) -> None:
        """Shares per region."""
        self._showChart(results.SHARES_ROLE)

    def onProfile(self) -> None:
        """Shares from apex to base."""
        self._showChart(results.PROFILE_ROLE)

    def _showChart(self, role: str) -> None:
        chart = self._node.GetNodeReference(role) if self._node else None
        if chart is not None:
            display.showChart(chart)

    def onEdit(self) -> None:
        """Opens the tissues in the Segment Editor."""
        self._edit(self._node)

    def onEditLungs(self) -> None:
        """Opens the lung mask in the Segment Editor."""
        lungs = self._node.GetNodeReference(results.LUNGS_ROLE) if self._node else None
        if lungs is not None:
            lungs.GetDisplayNode().SetVisibility(True)
            lungs.GetDisplayNode().SetVisibility2DFill(False)
            self._edit(lungs)

    def _edit(self, segmentationNode) -> None:
        if segmentationNode is None:
            return
        slicer.util.selectModule("SegmentEditor")
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        editor.setSegmentationNode(segmentationNode)
        # The name of this call changed with Slicer 5.2; both are the volume that is painted over.
        editor.setSourceVolumeNode(results.volumeOf(self._node))

    def onUndo(self) -> None:
        """Takes back the last stroke of the Segment Editor, without going there."""
        editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
        lungs = self._node.GetNodeReference(results.LUNGS_ROLE) if self._node else None
        if self._node is not None and editor.segmentationNode() in (self._node, lungs):
            with self._reported():
                editor.undo()
                spreading.follow(self._node)
                self._showSpread("")
        else:
            self._showError(_("There is nothing to undo: nothing was edited since this result was chosen."))

    def onSpread(self) -> None:
        """Begins to spread what was painted; a timer follows it."""
        if self._node is None or self._spread is not None:
            return
        with self._reported():
            self._spread = spreading.Job(self._node)
            self.ui.spreadButton.enabled = False
            self._showSpread(_(spreading.AGAIN) if self._spread.readsAgain else "")
            self._spreadTimer.start()

    def onSpreading(self) -> None:
        """Follows the spread, and shows it at the end."""
        job, failed = self._spread, None
        try:
            if job is not None and job.poll():
                return
        except Exception as error:
            failed = error
        self._forgetSpread()
        with self._reported():
            if failed is not None:
                raise failed
            if job is not None:
                self._showSpread(spreading.told(job.finish()))
                self.measureAgain()

    def _forgetSpread(self) -> None:
        """Ends what is under way; what it said is no longer of this result."""
        if self._spread is not None:
            self._spread.cancel()
        self._spread = None
        self._spreadTimer.stop()
        self.ui.spreadButton.enabled = True
        self._showSpread("")

    def _showSpread(self, text: str) -> None:
        self.ui.spreadLabel.text = text
        self.ui.spreadLabel.visible = bool(text)

    def onReport(self) -> None:
        """Writes the report into a folder of the user's choice and opens it."""
        folder = qt.QFileDialog.getExistingDirectory(slicer.util.mainWindow(), _("Folder of the report"))
        if self._node is not None and folder:
            with self._reported(busy=True):
                page = self.logic.report(self._node, folder)
                qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(page)))

    def onDicom(self) -> None:
        """Writes a DICOM segmentation to a file of the user's choice."""
        title, kind = _("DICOM segmentation"), "DICOM (*.dcm)"
        chosen = qt.QFileDialog.getSaveFileName(slicer.util.mainWindow(), title, "segmentation.dcm", kind)
        if self._node is not None and chosen:
            path = Path(chosen)
            with self._reported(busy=True):
                self.logic.exportDicomSegmentation(self._node, str(path.with_suffix(".dcm")))

    def _reported(self, busy: bool = False) -> Reported:
        return Reported(self._showError, self.ui.exportWidget if busy else None)


def _percentOf(text: str) -> float | None:
    """0 to 1 of what the user typed as percent; None if it is no number."""
    try:
        return min(max(float(text.replace("%", "").replace(",", ".")) / 100, 0.0), 1.0)
    except ValueError:
        return None
