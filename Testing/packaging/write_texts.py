"""Writes textsOfLibrary.py, what the library says to a user, for Slicer's translators; run from anywhere:

python Testing/packaging/write_texts.py

The library knows no Slicer and speaks English.  Its warnings and errors are found in its sources; names of
tissues, regions and measures in its tables.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

from DiffSegLungLib.anatomy import LOBES, LUNGS, WHOLE
from DiffSegLungLib.quantify.measures import DEFINITIONS
from DiffSegLungLib.tissues import REPORTED

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = ROOT / "DiffSegLungLib"
TEXTS = ROOT / "DiffSegLung" / "DiffSegLungSlicer" / "textsOfLibrary.py"
NOT_IN_SLICER = ("evaluation", "app/serve", "app/cohort", "export/report")
LEAST_WORDS = 4
HEAD = '''\
"""What the library says to a user, written by Testing/packaging/write_texts.py for Slicer's translators."""

# ruff: noqa: E501
# fmt: off
from __future__ import annotations

CONTEXT = "DiffSegLungSlicer.textsOfLibrary"


def translate(context: str, text: str) -> str:
    """Marks a text for the translators; `words` translates it."""
    return text


# {0}, {1} ... stand for what is filled in.
TEXTS = (
'''


def template(node: ast.expr) -> str:
    """An f-string with its fields numbered; empty for what is no text."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value.replace("{", "{{").replace("}", "}}")
    if not isinstance(node, ast.JoinedStr):
        return ""
    parts, count = [], 0
    for value in node.values:
        if isinstance(value, ast.Constant):
            parts.append(str(value.value).replace("{", "{{").replace("}", "}}"))
        else:
            parts.append(f"{{{count}}}")
            count += 1
    return "".join(parts)


def said_in(tree: ast.AST) -> Iterator[str]:
    """Texts of errors and of warnings."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (_makes_error(node) or _adds_warning(node)):
            yield from map(template, node.args)
        if isinstance(node, ast.FunctionDef) and "warning" in node.name:
            yield from map(template, (each for each in ast.walk(node) if isinstance(each, ast.JoinedStr)))


def _makes_error(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id.endswith("Error")


def _adds_warning(call: ast.Call) -> bool:
    function = call.func
    return isinstance(function, ast.Attribute) and ast.unparse(function) == "warnings.append"


def library_texts() -> list[str]:
    """All of them, in the order of the sources."""
    names = [*(tissue.name for tissue in REPORTED), WHOLE, *(part.name for part in (*LUNGS, *LOBES))]
    names += [definition.name for definition in DEFINITIONS.values()]
    for file in sorted(LIBRARY.rglob("*.py")):
        if not any(file.is_relative_to(LIBRARY / folder) for folder in NOT_IN_SLICER):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names += [text for text in said_in(tree) if len(text.split()) >= LEAST_WORDS]
    return list(dict.fromkeys(names))


def source() -> str:
    """The file."""
    lines = [
        f'    translate("DiffSegLungSlicer.textsOfLibrary", {json.dumps(text, ensure_ascii=False)}),\n'
        for text in library_texts()
    ]
    return f"{HEAD}{''.join(lines)})\n"


if __name__ == "__main__":
    TEXTS.write_text(source(), encoding="utf-8", newline="\n")
