"""Labels of an earlier state, kept as small files so that later figures stand beside what was.

A file holds the label maps of one CT by every method, cropped to the lungs and to the slices that are scored,
as ``xz``; ``manifest.json`` beside them has their SHA-256, their place in the CT and how they were made.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.errors import MissingPartError

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Entry:
    """One file, as the manifest has it.

    Attributes:
        sha256: of the file.
        shape: (z, y, x) of the CT.
        slices: indices of the slices that are kept.
        rows: first row that is kept, and the one after the last.
        columns: the same of columns.
        truth_sha256: of the painted truth that the CT was made with; empty for a CT as it is.
    """

    sha256: str
    shape: tuple[int, int, int]
    slices: tuple[int, ...]
    rows: tuple[int, int]
    columns: tuple[int, int]
    truth_sha256: str = ""


class FrozenLabels:
    """The frozen label maps of a folder.

    Args:
        folder: with ``manifest.json``; one that is not there holds nothing.

    Raises:
        MissingPartError: the manifest or a file is damaged, or a file is missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.methods: tuple[str, ...] = ()
        self.entries: dict[str, Entry] = {}
        if (folder / MANIFEST).exists():
            stored = _load_manifest(folder)
            self.methods = tuple(stored["methods"])
            self.entries = {case: _entry(values) for case, values in stored["files"].items()}
        for case in self.entries:
            self._checked(case)

    def labels(self, case: str, truth_sha256: str = "") -> dict[str, np.ndarray]:
        """The label map of a CT by each method, uint8 (z, y, x), 0 on the slices that were not kept.

        Args:
            case: name of the CT.
            truth_sha256: of the painted truth; labels made for another are not given.
        """
        entry = self.entries.get(case)
        if entry is None or entry.truth_sha256 != truth_sha256:
            return {}
        kept = np.frombuffer(lzma.decompress(self._checked(case)), np.uint8)
        kept = kept.reshape(len(self.methods), len(entry.slices), *_sides(entry)).copy()
        kept[1:] ^= kept[:1]
        maps = {}
        for method, planes in zip(self.methods, kept, strict=True):
            maps[method] = np.zeros(entry.shape, np.uint8)
            maps[method][list(entry.slices), slice(*entry.rows), slice(*entry.columns)] = planes
        return maps

    def _checked(self, case: str) -> bytes:
        """The content of a file, whose checksum is right."""
        path = self.folder / f"{case}.xz"
        content = path.read_bytes() if path.exists() else b""
        if hashlib.sha256(content).hexdigest() != self.entries[case].sha256:
            problem = f"{path}: the frozen labels are {'damaged' if content else 'missing'}"
            raise MissingPartError(f"{problem} (SHA-256 differs); check the file out again.")
        return content


def freeze(
    folder: Path,
    case: str,
    maps: Mapping[str, np.ndarray],
    slices: Sequence[int] | None = None,
    truth_sha256: str = "",
) -> Entry:
    """Write the label maps of one CT, and its line of the manifest.

    Args:
        folder: takes the file.
        case: name of the CT.
        maps: label map (z, y, x) by method; the others are kept as what differs from the first.
        slices: that are kept; all without.
        truth_sha256: of the painted truth.
    """
    stack = np.stack(list(maps.values())).astype(np.uint8)
    shape = (stack.shape[1], stack.shape[2], stack.shape[3])
    kept = tuple(range(shape[0]) if slices is None else sorted(slices))
    stack = stack[:, kept]
    rows, columns = (_extent(np.asarray(stack.any(axis=axes))) for axes in ((0, 1, 3), (0, 1, 2)))
    stack = stack[:, :, slice(*rows), slice(*columns)]
    stack[1:] ^= stack[:1]
    content = lzma.compress(stack.tobytes(), preset=9 | lzma.PRESET_EXTREME)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{case}.xz").write_bytes(content)
    return Entry(hashlib.sha256(content).hexdigest(), shape, kept, rows, columns, truth_sha256)


def write_manifest(
    folder: Path, methods: Sequence[str], entries: Mapping[str, Entry], facts: Mapping[str, Any]
) -> None:
    """Write ``manifest.json``, a line a file; ``facts`` say of which commit the labels are, and how made."""
    files = [
        f"    {json.dumps(case)}: {json.dumps(asdict(entry))}" for case, entry in sorted(entries.items())
    ]
    head = json.dumps({**facts, "methods": list(methods)}, indent=2).removesuffix("\n}")
    text = head + ',\n  "files": {\n' + ",\n".join(files) + "\n  }\n}\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def _load_manifest(folder: Path) -> dict[str, Any]:
    try:
        stored: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {"methods": list(stored["methods"]), "files": dict(stored["files"])}
    except (ValueError, KeyError, TypeError) as error:
        raise MissingPartError(f"{folder / MANIFEST} is damaged; check the file out again.") from error


def _entry(values: Mapping[str, Any]) -> Entry:
    sequences = {key: tuple(values[key]) for key in ("shape", "slices", "rows", "columns")}
    return Entry(sha256=values["sha256"], truth_sha256=values["truth_sha256"], **sequences)


def _extent(there: np.ndarray) -> tuple[int, int]:
    """First index, and the one after the last, of what is there; (0, 0) where nothing is."""
    where = np.flatnonzero(there)
    return (int(where[0]), int(where[-1]) + 1) if where.size else (0, 0)


def _sides(entry: Entry) -> tuple[int, int]:
    return entry.rows[1] - entry.rows[0], entry.columns[1] - entry.columns[0]
