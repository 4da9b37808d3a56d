"""The extension as Slicer would build and install it, once for all tests; Slicer's macros are stand-ins."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STAND_IN = Path(__file__).resolve().parent / "slicer_cmake"
MODULES = Path("lib/Slicer-5.10/qt-scripted-modules")


@dataclass(frozen=True)
class Extension:
    """What CMake made of the repository.

    Attributes:
        build: the folder of modules in the build tree.
        installed: the folder of modules in the package.
        record: the calls of Slicer's macros; the kind of call first.
        properties: what the extension says of itself, without the prefix EXTENSION_.
    """

    build: Path
    installed: Path
    record: list[list[str]]
    properties: dict[str, str]

    def listed(self, module: str) -> set[str]:
        """The files that a module lists."""
        return {
            file for kind, name, *files in self.record if (kind, name) == ("module", module) for file in files
        }


def cmake(*arguments: str | Path) -> None:
    """Runs CMake; its words are the reason if it fails."""
    command = ["cmake", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


def build_extension(source: Path, folder: Path) -> Extension:
    """Configures, builds and installs the extension.

    Args:
        source: the repository.
        folder: of the build tree and the package.
    """
    build, package = folder / "build", folder / "package"
    compiler = shutil.which("cmake")  # nothing is compiled: any program will do, and this one is there
    languages = [f"-DCMAKE_{language}_COMPILER={compiler}" for language in ("C", "CXX")]
    forced = [f"-DCMAKE_{language}_COMPILER_FORCED=ON" for language in ("C", "CXX")]
    cmake("-S", source, "-B", build, f"-DSlicer_DIR={STAND_IN}", *languages, *forced)
    cmake("--build", build)
    cmake("--install", build, "--component", "RuntimeLibraries", "--prefix", package)
    record = [line.split("|") for line in (build / "record.txt").read_text(encoding="utf-8").splitlines()]
    properties = {fields[1]: "|".join(fields[2:]) for fields in record if fields[0] == "extension"}
    return Extension(build / MODULES, package / MODULES, record, properties)


@pytest.fixture(scope="session")
def builder() -> Callable[[Path, Path], Extension]:
    """`build_extension`, where there is a CMake."""
    if not shutil.which("cmake") or not (shutil.which("make") or os.environ.get("CMAKE_GENERATOR")):
        pytest.skip("needs CMake and make")
    return build_extension


@pytest.fixture(scope="session")
def extension(
    builder: Callable[[Path, Path], Extension], tmp_path_factory: pytest.TempPathFactory
) -> Extension:
    """This repository, built and installed."""
    return builder(ROOT, tmp_path_factory.mktemp("extension"))
