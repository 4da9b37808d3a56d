"""The panel's bar, stage and log of a run."""

from __future__ import annotations

from slicer.i18n import tr as _


class ProgressSection:
    """Shows how far a run is.

    Args:
        ui: the panel's widgets.
    """

    def __init__(self, ui) -> None:
        self.ui = ui

    def begin(self) -> None:
        """A run has been started."""
        self.ui.progressBar.value = 0
        self.ui.statusLabel.text = _("Starting")
        self.ui.progressWidget.visible = True

    def show(self, record, secondsLeft: float | None) -> None:
        """Bar, stage and time left."""
        remaining = ""
        if secondsLeft is not None:
            remaining = _(" - {seconds} s left").format(seconds=round(secondsLeft))
        percent = f"{100 * record.fraction:.0f} %"
        self.ui.progressBar.value = round(1000 * record.fraction)
        self.ui.statusLabel.text = f"{record.message or record.stage} {percent}{remaining}"
        self.ui.logText.appendPlainText(f"{record.stage} {percent} {record.message}")

    def end(self, log: str) -> None:
        """The run has ended, well or not."""
        self.ui.progressWidget.visible = False
        if log:
            self.ui.logText.appendPlainText(log)
