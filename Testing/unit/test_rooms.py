"""The rooms of the library: each imports only what stands before it, and no import leads back to itself.

Imports within functions and for type checkers count: they are arrows, too.
"""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

LIBRARY = Path(__file__).resolve().parents[2] / "DiffSegLungLib"
NAME = LIBRARY.name
ROOMS = (
    "base",
    "io",
    "lungs",
    "parenchyma",
    "representation",
    "decision",
    "quantify",
    "export",
    "models",
    "pipeline",
    "phantom",
    "training",
    "evaluation",
    "app",
)
ORDER = {room: place for place, room in enumerate(ROOMS)}
TOP = {NAME, f"{NAME}.__main__"}
"""The public name and the program: they open every room, and no room knows them."""


def module_name(file: Path, library: Path) -> str:
    parts = (library.name, *file.relative_to(library).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room_of(module: str) -> str:
    """The folder below the library; a file beside the folders is of the base, but for the pipeline."""
    room = (module.split(".") + [""])[1]
    return room if room in ORDER else "base"


def imports_of(file: Path, modules: set[str]) -> set[str]:
    """The library's modules that a file imports, wherever in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import; write it from {NAME} on"
            names = [f"{node.module}.{each.name}" for each in node.names]
            found |= {name if name in modules else str(node.module) for name in names}
        elif isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
    return found & modules


def arrows(library: Path = LIBRARY) -> dict[str, set[str]]:
    """Each module and what it imports of the library."""
    files = {module_name(file, library): file for file in sorted(library.rglob("*.py"))}
    return {name: imports_of(file, set(files)) for name, file in files.items()}


def upward(graph: dict[str, set[str]]) -> list[str]:
    """Imports of a room that stands behind, a line each."""
    return [
        f"{name} imports {other}"
        for name, others in graph.items()
        if name not in TOP
        for other in sorted(others)
        if other in TOP or ORDER[room_of(other)] > ORDER[room_of(name)]
    ]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """The modules of one circle; none where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_folder_is_a_room() -> None:
    folders = {path.parent.relative_to(LIBRARY).parts[0] for path in LIBRARY.glob("*/__init__.py")}
    assert folders == set(ORDER) - {"base", "pipeline"}


def test_a_room_imports_only_what_stands_before_it() -> None:
    assert not upward(arrows())


def test_no_module_imports_itself_in_a_circle() -> None:
    assert not circle(arrows())


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A small house with an upward arrow in a function and a circle for type checkers."""
    library = tmp_path / NAME
    typed = "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
    for name, text in {
        "__init__.py": "",
        "io/__init__.py": "",
        "io/volume.py": f"def load():\n    from {NAME}.lungs.find import find\n",
        "lungs/__init__.py": "",
        "lungs/find.py": f"{typed}    import {NAME}.lungs.sides\n",
        "lungs/sides.py": f"from {NAME}.lungs import find\n",
    }.items():
        (library / name).parent.mkdir(parents=True, exist_ok=True)
        (library / name).write_text(text, encoding="utf-8")
    return library


def test_an_offender_is_named(house: Path) -> None:
    assert upward(arrows(house)) == [f"{NAME}.io.volume imports {NAME}.lungs.find"]
    assert {f"{NAME}.lungs.find", f"{NAME}.lungs.sides"} <= set(circle(arrows(house)))


def test_a_relative_import_is_refused(house: Path) -> None:
    (house / "io/series.py").write_text("from . import volume\n", encoding="utf-8")
    with pytest.raises(AssertionError, match="series.py:1: a relative import"):
        arrows(house)
