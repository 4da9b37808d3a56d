"""What a task of the evaluation measured, kept so that a run that was stopped goes on.

Plain numbers are JSON, arrays lie beside them in an ``npz``.  A folder belongs to one state of the source
code, of the weights and of the data: whatever differs has a folder of its own.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

ARRAY = "__array__"


def fingerprint(texts: Iterable[str]) -> str:
    """A short name for the library's own source and what else a result depends on."""
    digest = hashlib.sha256()
    source = Path(__file__).resolve().parents[1]
    for path in sorted(source.rglob("*.py")):
        digest.update(path.relative_to(source).as_posix().encode() + path.read_bytes())
    for text in texts:
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()[:16]


class Kept:
    """The results of one state.

    Args:
        folder: that takes them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, name: str) -> dict[str, Any] | None:
        """What was kept of a task; None where nothing was."""
        path = self._path(name)
        if not path.exists():
            return None
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            stored: dict[str, Any] = _with_arrays(json.loads(path.read_text(encoding="utf-8")), arrays)
        return stored

    def save(self, name: str, row: dict[str, Any]) -> None:
        """Keep what a task measured; the JSON comes last, so that half a result is none."""
        path = self._path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays: dict[str, np.ndarray] = {}
        text = json.dumps(_without_arrays(row, arrays))
        np.savez_compressed(path.with_suffix(".npz"), **arrays)  # type: ignore[arg-type]
        unfinished = path.with_suffix(".part")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)

    def _path(self, name: str) -> Path:
        return self.folder / f"{hashlib.sha256(name.encode()).hexdigest()[:24]}.json"


def _without_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    """The same with arrays put aside; NaN stays, which Python's own JSON can read."""
    if isinstance(value, dict):
        return {str(key): _without_arrays(item, arrays) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_arrays(item, arrays) for item in value]
    if isinstance(value, np.ndarray):
        name = f"array{len(arrays)}"
        arrays[name] = value
        return {ARRAY: name}
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: Any) -> Any:
    if isinstance(value, dict):
        if set(value) == {ARRAY}:
            return arrays[value[ARRAY]]
        return {key: _with_arrays(item, arrays) for key, item in value.items()}
    return [_with_arrays(item, arrays) for item in value] if isinstance(value, list) else value


def write_json(path: Path, content: Any) -> None:
    """Write plain numbers; NaN becomes null, so that every reader can read them."""
    path.write_text(json.dumps(_plain(content), indent=2) + "\n", encoding="utf-8")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float):
        return None if value != value else round(value, 5)
    return value
