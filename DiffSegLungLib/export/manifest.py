"""What a result was made with; no names of people or folders."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.decision.naming import NAMED
from DiffSegLungLib.devices import choose_device
from DiffSegLungLib.progress import peak_memory_mb
from DiffSegLungLib.tissues import BY_LABEL
from DiffSegLungLib.version import __version__

if TYPE_CHECKING:
    from DiffSegLungLib.decision.label_map import Tissues
    from DiffSegLungLib.decision.model import Model
    from DiffSegLungLib.io.volume import Volume
    from DiffSegLungLib.lungs.lungs import Lungs
    from DiffSegLungLib.parenchyma.grid import Grid
    from DiffSegLungLib.stages import Clock

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


def describe_scan(found: Lungs, grid: Grid) -> dict[str, Any]:
    """What the scan itself told: its HU scale and the grain of its noise."""
    grain = grid.grain.stored() if grid.grain else None
    return {"calibration": found.calibration.stored(), "noise_grain": grain}


def describe_decision(model: Model, tissues: Tissues) -> dict[str, Any]:
    """What decided, and what was moved after it, in ml: settings of the network, or of mixture and naming."""
    fusion = {"fusion": model.fusion.stored()}
    if model.tissues is not None:
        network = {"temperature": model.tissues.temperature, "bias": list(model.tissues.bias)}
        return {"network": network, **fusion, "moved_ml": dict(tissues.moved_ml)}
    priors = {BY_LABEL[label].key: asdict(BY_LABEL[label].prior) for label in NAMED}
    naming = {"naming": model.rule.stored(), "density_priors_hu": priors}
    return {**naming, **fusion, "regions": model.regions.stored()}


def describe_run(
    volume: Volume,
    model: Model,
    options: dict[str, str],
    device: str,
    seed: int,
    warnings: list[str],
    tissues: Tissues,
    scan: dict[str, Any],
    clock: Clock,
) -> dict[str, Any]:
    """The manifest of one run.

    Args:
        volume: the CT.
        model: that was used.
        options: what was asked for, by name.
        device: as it was asked for.
        seed: of all that was drawn.
        warnings: for the reader.
        tissues: as they were decided.
        scan: as :func:`describe_scan` says it.
        clock: that timed the stages.
    """
    healthy = tissues.healthy
    return {
        "software": describe_software(),
        "input": describe_input(volume),
        "model": {
            "name": model.info.name,
            "version": model.info.version,
            "sha256": model.description["sha256"],
            "embedding": model.description["embedding"],
        },
        "parameters": {
            **options,
            **describe_decision(model, tissues),
            "healthy_hu": {"front": round(float(healthy[0]), 1), "back": round(float(healthy[-1]), 1)},
            "sharpness": model.sharpness,
            **scan,
        },
        "seed": seed,
        "device": choose_device(device),
        "warnings": warnings,
        **describe_time(clock.seconds),
    }
