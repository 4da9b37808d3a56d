"""What a result was made with; no names of people or folders."""

from __future__ import annotations

import hashlib
import platform
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.progress import peak_memory_mb
from DiffSegLungLib.version import __version__

PACKAGES = ("torch", "monai", "SimpleITK", "numpy", "scipy", "scikit-learn", "pandas", "safetensors")
LIBRARY = Path(__file__).parents[1]
BESIDE = ("app", "evaluation", "export/report", "phantom", "training")
"""Folders of the library whose code decides no label and no measure."""


@cache
def code_digest(library: Path = LIBRARY) -> str:
    """SHA-256 of the code that decides: two trees of one version may hold different rules."""
    digest = hashlib.sha256()
    for file in sorted(library.rglob("*.py")):
        name = file.relative_to(library)
        if not any(name.is_relative_to(folder) for folder in BESIDE):
            digest.update(f"{name.as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def describe_software() -> dict[str, Any]:
    """Name and versions of this software and of what it stands on."""
    return {
        "name": "DiffSegLung",
        "version": __version__,
        "python": platform.python_version(),
        "system": platform.system(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def describe_input(volume: Volume) -> dict[str, Any]:
    """Size (x, y, z), spacing in mm (x, y, z) and acquisition of the CT."""
    return {
        "name": volume.name,
        "size": list(volume.input_geometry.size),
        "spacing_mm": [round(float(step), 4) for step in volume.input_geometry.spacing],
        "metadata": dict(volume.metadata),
    }


def describe_time(seconds: dict[str, float]) -> dict[str, Any]:
    """When, how long a stage, and the peak memory."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {**seconds, "total": round(sum(seconds.values()), 3)},
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }
