"""What the build makes of the repository: each file where Slicer and the library look for it, no other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY, MODULE, RESOURCES = ROOT / "DiffSegLungLib", ROOT / "DiffSegLung", ROOT / "Resources"
NOT_INSTALLED = {"CMakeLists.txt", "README.md"}
"""Beside the sources, for people who read or build them."""


def files_of(folder: Path) -> Iterator[Path]:
    """The files below a folder; compiled Python is none."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts and not path.name.startswith("."):
            yield path


def expected_library() -> set[str]:
    return {
        file.relative_to(LIBRARY).as_posix() for file in files_of(LIBRARY) if file.name not in NOT_INSTALLED
    }


def expected_module() -> set[str]:
    top = {MODULE / name for name in NOT_INSTALLED}
    return {file.relative_to(MODULE).as_posix() for file in files_of(MODULE) if file not in top}


def expected_places() -> dict[str, Path]:
    """Place below the folder of modules, and the source of what belongs there."""
    places = {f"DiffSegLungLib/{name}": LIBRARY / name for name in expected_library()}
    for name in expected_module():
        places[name] = MODULE / name
    for folder in ("models", "Screenshots"):
        for file in files_of(RESOURCES / folder):
            place = f"Resources/{file.relative_to(RESOURCES).as_posix()}"
            assert place not in places, f"{file} and {places[place]} would be one file in the package"
            places[place] = file
    return places


def test_every_file_of_the_library_is_listed(extension: Any) -> None:
    assert extension.listed("DiffSegLungLib") == expected_library()


def test_every_file_of_the_module_is_listed(extension: Any) -> None:
    assert extension.listed("DiffSegLung") == expected_module()


@pytest.mark.parametrize("tree", ["build", "installed"])
def test_everything_is_in_its_place_and_nothing_else(extension: Any, tree: str) -> None:
    folder = getattr(extension, tree)
    places = expected_places()
    assert {file.relative_to(folder).as_posix() for file in files_of(folder)} == set(places)
    for place, source in places.items():
        assert (folder / place).read_bytes() == source.read_bytes(), place


@pytest.mark.parametrize("tree", ["build", "installed"])
def test_library_finds_its_weights_there(extension: Any, tree: str, tmp_path: Path) -> None:
    folder = getattr(extension, tree)
    code = (
        "import DiffSegLungLib, DiffSegLungLib.export.report;"
        "from DiffSegLungLib.models.store import verify;"
        "print(DiffSegLungLib.__file__); print(verify().folder)"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("DIFFSEGLUNG_MODELS", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    library, weights = map(Path, done.stdout.split())
    assert library.resolve() == folder.resolve() / "DiffSegLungLib" / "__init__.py"
    assert weights == folder.resolve() / "Resources" / "models" / "2026-12-ct10"


def test_tests_that_need_slicer_are_registered(extension: Any) -> None:
    tests = {fields[1]: fields[2:] for fields in extension.record if fields[0] == "test"}
    assert set(tests) == {"py_DiffSegLung", "py_DiffSegLung_SegmentFolder"}
    batch = tests["py_DiffSegLung_SegmentFolder"]
    script, separator, source, _target = batch[batch.index("--python-script") + 1 :][:4]
    assert Path(script).is_file()
    assert separator == "--"
    assert list(Path(source).glob("*.nrrd"))
    assert ["generic-tests", "DiffSegLung"] in extension.record


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The repository's files that matter to the build, to be spoilt."""
    target = tmp_path / "source"
    for name in ("DiffSegLung", "DiffSegLungLib", "Resources"):
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    (target / "Testing").mkdir()
    for name in ("CMakeLists.txt", "README.md", "LICENSE", "Testing/CMakeLists.txt"):
        shutil.copy(ROOT / name, target / name)
    return target


@pytest.mark.parametrize("missing", ["DiffSegLungLib/tissues.py", "DiffSegLung/Resources/requirements.txt"])
def test_build_stops_when_a_listed_file_is_missing(
    builder: Callable[[Path, Path], Any], copy: Path, tmp_path: Path, missing: str
) -> None:
    (copy / missing).unlink()
    with pytest.raises(AssertionError, match=Path(missing).name):
        builder(copy, tmp_path)


def test_build_stops_without_the_licence(
    builder: Callable[[Path, Path], Any], copy: Path, tmp_path: Path
) -> None:
    (copy / "LICENSE").unlink()
    with pytest.raises(AssertionError, match="EXTENSION_LICENSE_FILE is no file"):
        builder(copy, tmp_path)
