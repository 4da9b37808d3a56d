"""The command ``check``: whether this computer can segment, in one screen.

``check --json`` prints one object::

    {"version": "0.1.0", "python": "3.12.4", "ready": true, "problems": ["sentence", ...],
     "warnings": ["sentence", ...],
     "packages": [{"name": "torch", "version": "2.9.0" or null, "wanted": ">=2.4.1,<2.15",
                   "state": "sound" | "untried" | "too old" | "missing" | "damaged"}, ...],
     "device": {"name": "cuda" | "mps" | "cpu", "description": "...", "memory_gb": 12.0 or null,
                "threads": 8, "reason": "why no graphics card is used" or "",
                "card": "what the graphics card is large enough for" or ""} or null without torch,
     "models": [{"name": "2026-12-ct10", "version": "0.5.0", "sha256": "0123456789ab", "folder": "...",
                 "state": "sound" | "damaged", "problem": "" or "sentence"}, ...],
     "model": "the model that was asked for, or the default one"}

``untried`` is a version that is too new for the tested range; it does not stop anything.  ``ready`` says that
a segmentation can run with ``model``; ``problems`` says what stands in its way, ``warnings`` what does not.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.devices import LEARNS_GB, SEGMENTS_GB, card_gb
from DiffSegLungLib.errors import MissingPartError
from DiffSegLungLib.models import store as models
from DiffSegLungLib.version import __version__

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.version import Version

IMPORT_NAMES = {"scikit-learn": "sklearn", "scikit-image": "skimage"}
"""Where a package's module is called otherwise."""

NEEDED_BY = {"monai": "evaluate"}
"""Required packages that no segmentation imports: commands that do."""

SHORT_CHECKSUM = 12
FLOORS = (">=", ">", "==", "~=")
"""Operators whose version is the least one wanted."""
SOUND, UNTRIED, TOO_OLD, MISSING, DAMAGED = "sound", "untried", "too old", "missing", "damaged"


@dataclass(frozen=True)
class Package:
    """A required package as it is installed."""

    name: str
    version: str | None
    wanted: str
    state: str

    @property
    def stops(self) -> bool:
        """Whether no segmentation runs with it."""
        return self.is_unfit and self.name not in NEEDED_BY

    @property
    def is_unfit(self) -> bool:
        """Whether it cannot be used."""
        return self.state in (TOO_OLD, MISSING, DAMAGED)


@dataclass(frozen=True)
class Device:
    """Where ``--device auto`` computes."""

    name: str
    description: str
    memory_gb: float | None
    threads: int
    reason: str
    card: str = ""


@dataclass(frozen=True)
class CheckedModel:
    """A model and whether its checksums hold."""

    name: str
    version: str
    sha256: str
    folder: str
    state: str
    problem: str


@dataclass(frozen=True)
class Report:
    """What ``check`` found; the module's docstring says what each field means."""

    version: str
    python: str
    ready: bool
    problems: list[str]
    warnings: list[str]
    packages: list[Package]
    device: Device | None
    models: list[CheckedModel]
    model: str

    def as_json(self) -> str:
        """One JSON object, as the module's docstring describes it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def as_text(self) -> str:
        """One screen for people."""
        lines = [f"DiffSegLung {self.version}, Python {self.python}", "", "Packages"]
        lines += [f"  {p.name:<13} {p.version or '-':<15} {p.state:<8} {p.wanted}" for p in self.packages]
        lines += ["", "Device", *(f"  {line}" for line in _device_lines(self.device)), "", "Models"]
        known = [f"  {m.name:<13} {m.version:<9} {m.sha256:<13} {m.state}" for m in self.models]
        lines += known or ["  none"]
        lines += ["", *self.problems, *(f"Warning: {warning}" for warning in self.warnings)]
        lines.append("Ready to segment." if self.ready else "A segmentation cannot run here yet.")
        return "\n".join(lines)


def check(model: str | None = None) -> Report:
    """Look at packages, device and models.

    Args:
        model: name or folder of the model that shall run; the default one without it.
    """
    packages = [inspect_package(requirement) for requirement in requirements()]
    checked = [_check_model(str(folder)) for folder in models.model_folders()]
    wanted = _check_model(model or models.DEFAULT)
    if wanted.folder not in [each.folder for each in checked]:
        checked.append(wanted)
    problems = [_package_problem(package) for package in packages if package.stops]
    problems += [wanted.problem] if wanted.problem else []
    unfit = [package for package in packages if package.is_unfit and not package.stops]
    return Report(
        version=__version__,
        python=platform.python_version(),
        ready=not problems,
        problems=problems,
        warnings=[f"For {NEEDED_BY[package.name]} alone: {_package_problem(package)}" for package in unfit],
        packages=packages,
        device=find_device(),
        models=checked,
        model=wanted.name,
    )


# --- packages --------------------------------------------------------------------------------------------


def requirements() -> list[Requirement]:
    """What DiffSegLung needs: from the list beside the code, else from the installed package."""
    from packaging.requirements import Requirement

    parsed = [Requirement(line) for line in _requirement_lines()]
    return [each for each in parsed if each.marker is None or each.marker.evaluate({"extra": ""})]


def _requirement_lines() -> Iterator[str]:
    package = Path(__file__).resolve().parents[1]
    for folder in (package.parent / "DiffSegLung" / "Resources", package.parent / "Resources"):
        file = folder / "requirements.txt"
        if file.is_file():
            lines = (line.partition("#")[0].strip() for line in file.read_text("utf-8").splitlines())
            yield from filter(None, lines)
            return
    try:
        yield from requires("diffseglung") or []
    except PackageNotFoundError:
        raise MissingPartError(
            "DiffSegLung's list of requirements is not there: install the extension or the package again."
        ) from None


def inspect_package(requirement: Requirement) -> Package:
    """One package: its version, and whether it is within the floor and the ceiling."""
    from packaging.version import Version

    wanted = ",".join(sorted(map(str, requirement.specifier), reverse=True))
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Package(requirement.name, None, wanted, MISSING)
    return Package(requirement.name, found, wanted, _package_state(requirement, Version(found)))


def untried() -> list[str]:
    """Packages that are newer than what was tried, each with its version: what a fault may come from."""
    packages = (inspect_package(requirement) for requirement in requirements())
    return [
        f"{each.name} {each.version} (tried: {each.wanted})" for each in packages if each.state == UNTRIED
    ]


def _package_state(requirement: Requirement, found: Version) -> str:
    from packaging.version import Version

    if not _imports(IMPORT_NAMES.get(requirement.name, requirement.name)):
        return DAMAGED
    if requirement.specifier.contains(found, prereleases=True):
        return SOUND
    least = [each.version.removesuffix(".*") for each in requirement.specifier if each.operator in FLOORS]
    return TOO_OLD if any(found < Version(each) for each in least) else UNTRIED


def _imports(module: str) -> bool:
    """A package may be listed as installed while its libraries are not there or do not load."""
    try:
        importlib.import_module(module)
    except Exception:
        return False
    return True


def _package_problem(package: Package) -> str:
    if package.state == DAMAGED:
        return f"{package.name} {package.version} cannot be loaded: install it again with pip."
    if package.state == MISSING:
        return f"{package.name} is missing: pip install '{package.name}{package.wanted}'."
    return f"{package.name} {package.version} is too old: pip install '{package.name}{package.wanted}'."


# --- device ----------------------------------------------------------------------------------------------


def find_device() -> Device | None:
    """What ``--device auto`` takes, and in words why it is no graphics card; None without torch."""
    try:
        import torch
    except Exception:
        return None
    threads = torch.get_num_threads()
    name = platform.processor() or platform.machine()
    if not torch.cuda.is_available():
        return Device("cpu", name, _memory_gigabytes(), threads, _why_no_cuda(torch))
    card, size = torch.cuda.get_device_properties(0).name, card_gb()
    if size < SEGMENTS_GB:
        reason = f"{card} has {size:.1f} GB of memory, and {SEGMENTS_GB:.1f} GB are needed."
        return Device("cpu", name, _memory_gigabytes(), threads, reason)
    return Device("cuda", card, round(size, 1), threads, "", _card_text(size))


def _card_text(size: float) -> str:
    if size < LEARNS_GB:
        return f"It segments; fine-tuning needs {LEARNS_GB:.1f} GB: choose the processor for that."
    return "It segments and fine-tunes."


def _why_no_cuda(torch: Any) -> str:
    if torch.backends.mps.is_available():
        return "Apple's graphics is used on request only: --device mps."
    driver = _has_nvidia_driver()
    if torch.version.cuda is None and getattr(torch.version, "hip", None) is None:
        build = f"this torch ({torch.__version__}) was built without CUDA"
        return f"{build}; install one with CUDA to use the graphics card." if driver else f"{build}."
    if not driver:
        return "No NVIDIA driver was found; without an NVIDIA graphics card there is none to install."
    return "The NVIDIA driver is there, but torch finds no device: the driver may be older than torch needs."


def _has_nvidia_driver() -> bool:
    return shutil.which("nvidia-smi") is not None or Path("/proc/driver/nvidia/version").exists()


def _device_lines(device: Device | None) -> Iterable[str]:
    if device is None:
        return ["unknown: torch is missing or cannot be loaded"]
    memory = f", {device.memory_gb:.1f} GB" if device.memory_gb else ""
    threads = f", {device.threads} threads" if device.name == "cpu" else ""
    lines = [f"{device.name}: {device.description}{memory}{threads}"]
    return [*lines, *(text for text in (device.reason, device.card) if text)]


def _memory_gigabytes() -> float | None:
    try:
        return _gigabytes(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # Windows has no sysconf
        return None


def _gigabytes(size: float) -> float:
    return round(size / 1e9, 1)


# --- models ----------------------------------------------------------------------------------------------


def _check_model(name_or_folder: str) -> CheckedModel:
    try:
        info = models.verify(name_or_folder)
    except MissingPartError as error:
        folder = _folder_of(name_or_folder)
        return CheckedModel(Path(name_or_folder).name, "", "", folder, DAMAGED, str(error))
    short = info.sha256[:SHORT_CHECKSUM]
    return CheckedModel(info.name, info.version, short, str(info.folder), SOUND, "")


def _folder_of(name_or_folder: str) -> str:
    try:
        return str(models.find(name_or_folder))
    except MissingPartError:
        return ""
