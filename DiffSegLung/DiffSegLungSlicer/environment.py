"""The Python packages that the computation needs: what is missing, and how it gets into Slicer.

Nothing is installed before the user clicks Apply and agrees.  What Slicer brings along (numpy, SimpleITK, vtk
and others) is never replaced: pip is held to the versions that are there.  Torch comes through the PyTorch
extension, which picks the build that fits the graphics card.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path

import slicer
from packaging.requirements import Requirement
from slicer.i18n import tr as _

from DiffSegLungLib.errors import MissingPartError

BELONGS_TO_SLICER = (
    "numpy",
    "scipy",
    "SimpleITK",
    "vtk",
    "pydicom",
    "requests",
    "packaging",
    "pyparsing",
    "six",
)
REQUIREMENTS = Path(__file__).resolve().parents[1] / "Resources" / "requirements.txt"
TORCH = "torch"
REQUESTER = "DiffSegLung"


def requirementsIn(file: Path) -> list[Requirement]:
    """The requirements of a requirements.txt, one a line."""
    lines = (line.split("#")[0].strip() for line in file.read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line]


def installedVersion(package: str) -> str | None:
    """The version at hand; None if the package is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def isMet(requirement: Requirement) -> bool:
    """Whether the package is there in a version that fits."""
    version = installedVersion(requirement.name)
    if version is None:
        # Slicer 5.10 builds SimpleITK itself, without the metadata that pip looks for.
        return requirement.name == "SimpleITK" and hasattr(slicer, "app") and _imports("SimpleITK")
    bounds = list(requirement.specifier)
    if requirement.name in BELONGS_TO_SLICER:  # a newer one than was tried is no reason to refuse Slicer
        bounds = [bound for bound in bounds if bound.operator not in ("<", "<=")]
    return all(bound.contains(version, prereleases=True) for bound in bounds)


def _imports(package: str) -> bool:
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def missing(file: Path) -> list[Requirement]:
    """The requirements that are not met."""
    return [requirement for requirement in requirementsIn(file) if not isMet(requirement)]


def ensure(file: Path, wheelFolder: str = "") -> None:
    """Installs what is missing, after the user has agreed.

    Args:
        file: the requirements.
        wheelFolder: a folder of wheels to install from without a network; empty for the usual way.

    Raises:
        MissingPartError: the user declined, pip failed, or Slicer itself is too old; says what to do.
    """
    lacking = missing(file)
    ours = [requirement for requirement in lacking if requirement.name not in (*BELONGS_TO_SLICER, TORCH)]
    _requireSlicersOwn([requirement for requirement in lacking if requirement.name in BELONGS_TO_SLICER])
    # Torch first and by itself, so that it too is held when the others come, which may wish for another one.
    for requirement in lacking:
        if requirement.name == TORCH:
            with _pipSettings(_settings(wheelFolder), BELONGS_TO_SLICER):
                _installTorch(requirement, wheelFolder)
    if ours:
        with _pipSettings(_settings(wheelFolder), (*BELONGS_TO_SLICER, TORCH)):
            _install([str(requirement) for requirement in ours])
    _requireNoneMissing(file)


def _requireSlicersOwn(unmet: list[Requirement]) -> None:
    if unmet:
        found = ", ".join(f"{each.name} {installedVersion(each.name) or 'missing'}" for each in unmet)
        needed = ", ".join(map(str, unmet))
        raise MissingPartError(
            f"This Slicer has {found}, but {needed} is needed, and Slicer's own packages must not be "
            "replaced: use Slicer 5.10 or later."
        )


def _requireNoneMissing(file: Path) -> None:
    if lacking := missing(file):
        raise MissingPartError(lackingText(lacking))


def lackingText(lacking: Sequence[Requirement]) -> str:
    """What is missing, and what to do."""
    names = ", ".join(map(str, lacking))
    return _(
        "Python packages are missing: {names}. Click Apply again and agree to install them, or give a "
        "folder of wheels under Options."
    ).format(names=names)


def _install(requirements: list[str]) -> None:
    try:
        if hasattr(slicer, "packaging") or _imports("slicer.packaging"):
            slicer.packaging.pip_ensure(requirements, requester=REQUESTER)
        elif _agreed(requirements):  # Slicer 5.10
            slicer.util.pip_install(requirements)
    except Exception as error:  # pip's own errors, or RuntimeError where the user declined
        raise MissingPartError(
            f"The packages {', '.join(requirements)} were not installed: {error}. Details are in the log."
        ) from error


def _agreed(requirements: list[str]) -> bool:
    question = _("DiffSegLung needs these Python packages:\n\n{packages}\n\nInstall them now?")
    text = question.format(packages="\n".join(requirements))
    return not slicer.app.testingEnabled() and slicer.util.confirmOkCancelDisplay(text)


def _installTorch(requirement: Requirement, wheelFolder: str) -> None:
    if wheelFolder:
        _install([str(requirement)])
        return
    try:
        import PyTorchUtils
    except ModuleNotFoundError as error:
        raise MissingPartError(
            "PyTorch is missing: install the extension PyTorch in the Extensions Manager, restart Slicer, "
            "and click again. Without a network give a folder of wheels under Options."
        ) from error
    logic = PyTorchUtils.PyTorchUtilsLogic()
    logic.installTorch(askConfirmation=True, torchVersionRequirement=str(requirement.specifier))


def _settings(wheelFolder: str) -> dict[str, str]:
    """What pip is told through its environment, which works in every version of Slicer."""
    if not wheelFolder:
        return {}
    # As an address, since pip would split a path at its blanks.
    return {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": Path(wheelFolder).resolve().as_uri()}


@contextlib.contextmanager
def _pipSettings(settings: Mapping[str, str], packages: Sequence[str]) -> Iterator[None]:
    """For the time of an installation: these settings, and these packages held as they are."""
    with tempfile.TemporaryDirectory() as folder:
        held = Path(folder).resolve() / "constraints.txt"
        held.write_text("\n".join(_pins(packages)) + "\n", encoding="utf-8")
        before = dict(os.environ)
        os.environ.update(settings, PIP_CONSTRAINT=held.as_uri())
        try:
            yield
        finally:
            for name in (*settings, "PIP_CONSTRAINT"):
                os.environ.pop(name, None)
                if name in before:
                    os.environ[name] = before[name]


def _pins(packages: Sequence[str]) -> list[str]:
    versions = {name: installedVersion(name) for name in packages}
    return [f"{name}=={version}" for name, version in versions.items() if version]
