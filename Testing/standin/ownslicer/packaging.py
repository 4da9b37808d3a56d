"""`slicer.packaging`, small: requirements, whether they are met, and pip in a child process."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import shlex
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import slicer
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

Requirements = str | Requirement | list[str] | list[Requirement] | list[str | Requirement]


class _Running:
    """How many non-blocking installations run now."""

    count = 0


def load_requirements(path: str | Path) -> list[Requirement]:
    """The requirements of a `requirements.txt`, without the lines that begin with `#` or `-`. As in Slicer, a
    comment behind a requirement is an error."""
    lines = (line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines())
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-"))]


def load_pyproject_dependencies(path: str | Path) -> list[Requirement]:
    """The `project.dependencies` of a `pyproject.toml`, or of the one in a folder.

    Raises:
        KeyError: if it has none.
    """
    file = Path(path)
    file = file / "pyproject.toml" if file.is_dir() else file
    return [
        Requirement(line)
        for line in tomllib.loads(file.read_text(encoding="utf-8"))["project"]["dependencies"]
    ]


def _asRequirements(requirements: Requirements) -> list[Requirement]:
    if isinstance(requirements, str):
        try:
            return [Requirement(requirements)]
        except InvalidRequirement:
            return [Requirement(each) for each in requirements.split()]
    if isinstance(requirements, Requirement):
        return [requirements]
    if isinstance(requirements, list):
        return [Requirement(each) if isinstance(each, str) else each for each in requirements]
    raise TypeError(f"requirements are text or a list, not {type(requirements).__name__}")


def _dependencies(requirement: Requirement) -> list[Requirement]:
    """What an installed package asks for because of the requirement's extras, without their markers."""
    chosen = []
    for line in importlib.metadata.requires(requirement.name) or []:
        dependency = Requirement(line)
        marker = dependency.marker
        if marker is not None and any(marker.evaluate({"extra": extra}) for extra in requirement.extras):
            dependency.marker = None
            chosen.append(dependency)
    return chosen


def _isMet(requirement: Requirement, seen: set[str]) -> bool:
    if str(requirement) in seen or (requirement.marker is not None and not requirement.marker.evaluate()):
        return True
    seen.add(str(requirement))
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return False
    return installed in requirement.specifier and all(
        _isMet(each, seen) for each in _dependencies(requirement)
    )


def pip_check(req: Requirements) -> bool:
    """Whether every requirement is installed, in a version that satisfies it, its extras included."""
    seen: set[str] = set()
    return all(_isMet(each, seen) for each in _asRequirements(req))


def isPipInstallInProgress() -> bool:
    """Whether a non-blocking installation still runs."""
    return _Running.count > 0


def pip_ensure(
    requirements: Requirements,
    constraints: str | Path | None = None,
    skip_packages: list[str] | None = None,
    prompt_install: bool = True,
    prompt_restart: bool = True,
    requester: str | None = None,
    skip_in_testing: bool = True,
    show_progress: bool = True,
) -> list[str] | None:
    """Install what is missing, after asking. In testing mode it only says so in the log, as in Slicer.

    Raises:
        RuntimeError: if the user declines.
    """
    missing = [each for each in _asRequirements(requirements) if not pip_check(each)]
    names = ", ".join(str(each) for each in missing)
    if not missing:
        return None
    if skip_in_testing and slicer.app.testingEnabled():
        logging.info("Testing mode is enabled: not installing %s", names)
        return None
    title = f"{requester} - Install Python Packages" if requester else "Install Python Packages"
    question = f"{len(missing)} Python package(s) will be installed in Slicer's Python environment. Continue?"
    if prompt_install and not slicer.util.confirmOkCancelDisplay(question, title, detailedText=names):
        raise RuntimeError("User declined package installation")
    return pip_install(missing, constraints=constraints, skip_packages=skip_packages, requester=requester)


def pip_install(
    requirements: Requirements,
    constraints: str | Path | None = None,
    no_deps_requirements: Requirements | None = None,
    skip_packages: list[str] | None = None,
    blocking: bool = True,
    show_progress: bool = True,
    requester: str | None = None,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[[int], None] | None = None,
) -> list[str] | None:
    """Run `PythonSlicer -m pip install`; always blocking in testing mode.

    Args:
        skip_packages: packages that must not be installed, not even as a dependency.

    Returns:
        The requirements left out because of `skip_packages`, or None without that option.
    """
    if skip_packages is not None:
        if no_deps_requirements is not None or not blocking:
            raise ValueError("skip_packages goes neither with no_deps_requirements nor with blocking=False")
        return _installWithout(_asRequirements(requirements), skip_packages, constraints)
    if no_deps_requirements is not None:
        _pip(["install", "--no-deps", *_arguments(no_deps_requirements, None)], True, logCallback, None)
    wait = blocking or slicer.app.testingEnabled()
    _pip(["install", *_arguments(requirements, constraints)], wait, logCallback, completedCallback)
    return None


def pip_uninstall(
    requirements: str | list[str],
    blocking: bool = True,
    logCallback: Callable[[str], None] | None = None,
    completedCallback: Callable[[int], None] | None = None,
) -> None:
    """Run `PythonSlicer -m pip uninstall`."""
    names = shlex.split(requirements) if isinstance(requirements, str) else requirements
    _pip(["uninstall", *names, "--yes"], blocking, logCallback, completedCallback)


def _arguments(requirements: Requirements, constraints: str | Path | None) -> list[str]:
    options = ["--constraint", str(constraints)] if constraints else []
    if isinstance(requirements, str):
        return [*options, *shlex.split(requirements)]  # may hold options of pip
    return [*options, *(str(each) for each in _asRequirements(requirements))]


def _installWithout(
    requirements: list[Requirement], skipped: list[str], constraints: str | Path | None
) -> list[str]:
    """Install package after package without its dependencies, then those that are not to be skipped."""
    unwanted = {canonicalize_name(each) for each in skipped}
    leftOut: list[str] = []
    waiting = list(requirements)
    while waiting:
        requirement = waiting.pop(0)
        if canonicalize_name(requirement.name) in unwanted:
            leftOut.append(str(requirement))
        elif not pip_check(requirement):
            _pip(["install", "--no-deps", *_arguments([requirement], constraints)], True, None, None)
            importlib.invalidate_caches()
            needed = map(Requirement, importlib.metadata.requires(requirement.name) or [])
            waiting += [each for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return leftOut


def _pip(arguments: list[str], blocking: bool, log: Any, completed: Callable[[int], None] | None) -> None:
    if blocking:
        slicer.util.executePythonModule("pip", arguments, blocking=True, logCallback=log)
        return

    def finish(status: int) -> None:
        _Running.count -= 1
        if completed:
            completed(status)

    _Running.count += 1
    slicer.util.executePythonModule(
        "pip", arguments, blocking=False, logCallback=log, completedCallback=finish
    )
