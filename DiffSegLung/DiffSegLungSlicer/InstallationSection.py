"""The panel's check of the installation, the device that was found, and what to cite."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from DiffSegLungLib import __version__

from . import exports

POLL_MS = 300
CITATION = (
    "Khiati, Brillet, Fetita: DiffSegLung: Diffusion Radiomic Distillation for Unsupervised Lung Pathology "
    f"Segmentation. arXiv 2605.11758, 2026.\nSoftware: DiffSegLung {__version__}"
)


class InstallationSection:
    """Asks the library in a process of its own, since torch takes seconds to load.

    Args:
        ui: the panel's widgets.
        homepage: of this software.
    """

    def __init__(self, ui, homepage: str) -> None:
        self.ui, self._citation = ui, f"{CITATION}, {homepage}"
        self._run = None
        self._timer = qt.QTimer()
        self._timer.setInterval(POLL_MS)
        self._timer.connect("timeout()", self.onTick)
        ui.aboutLabel.text = _aboutText()
        ui.deviceLabel.text = ""
        ui.checkButton.connect("clicked(bool)", self.onCheck)
        ui.optionsGroupBox.connect("toggled(bool)", self.onOptionsOpened)
        ui.copyCitationButton.connect("clicked(bool)", self.onCopyCitation)

    def cleanup(self) -> None:
        """Ends a check that runs."""
        self._timer.stop()
        if self._run is not None:
            self._run.cancel()

    def onOptionsOpened(self, opened: bool) -> None:
        """The device is looked for when somebody wants to know."""
        if opened and not self.ui.deviceLabel.text:
            self.onCheck()

    def onCheck(self) -> None:
        """Starts the check; its answer goes to the log and to the line of the device."""
        if self._run is None:
            self.ui.checkButton.enabled = False
            self.ui.deviceLabel.text = _("looking ...")
            self._run = exports.checkRun()
            self._timer.start()

    def onTick(self) -> None:
        """Follows the check; called by the timer."""
        if self._run is None or self._run.poll():
            return
        self._timer.stop()
        run, self._run = self._run, None
        self.ui.checkButton.enabled = True
        if run.error:
            self.ui.deviceLabel.text = ""
            self._tell(str(run.error))
            return
        self.ui.deviceLabel.text = deviceText(run.result)
        self._tell(describe(run.result))

    def _tell(self, text: str) -> None:
        self.ui.logText.appendPlainText(text)
        self.ui.logGroupBox.collapsed = False

    def onCopyCitation(self) -> None:
        """To the clipboard."""
        qt.QApplication.clipboard().setText(self._citation)


def deviceText(found: dict) -> str:
    """What was found, and what its graphics card can do, or why none is used."""
    device = found["device"]
    memory = f", {device['memory_gb']:.0f} GB" if device.get("memory_gb") else ""
    reason = _("No graphics card: {reason}").format(reason=device["reason"]) if device.get("reason") else ""
    return f"{device['name']} ({device['description']}{memory}). {reason}{device.get('card', '')}".strip()


def describe(found: dict) -> str:
    """The answer of the check in lines."""
    ready = _("ready") if found["ready"] else _("something is missing")
    lines = [f"DiffSegLung {found['version']}, Python {found['python']}: {ready}", *found["problems"]]
    lines += found["warnings"]
    lines.append(_("Device: {text}").format(text=deviceText(found)))
    for model in found["models"]:
        state = model["problem"] or model["state"]
        lines.append(
            f"{model['name']} {model['version']}: {state}, SHA-256 {model['sha256']}, {model['folder']}"
        )
    for package in found["packages"]:
        version = package["version"] or _("missing")
        lines.append(f"{package['name']} {version} ({package['wanted']}): {package['state']}")
    return "\n".join(lines)


def _aboutText() -> str:
    return _(
        "<p>DiffSegLung {version}, in Slicer {slicer}. A diffusion U-Net tells the tissue of each voxel; it "
        "was trained without annotations, on disease painted into healthy lung. Boundaries are refined by "
        "Sobel-Diffusion Fusion.</p>"
        '<p>Method: <a href="https://arxiv.org/abs/2605.11758">arXiv 2605.11758</a>. '
        "Nothing is sent anywhere.</p>"
        "<p><b>For research only. Not for clinical use.</b> Colours and numbers can be wrong; "
        "look at the CT.</p>"
    ).format(version=__version__, slicer=slicer.app.applicationVersion)
