"""A researcher's own CT as painting hosts: what the base model calls diseased is left out of the loss."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.atomic import atomic_path, write_json
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.lungs.lungs import segment_lungs
from DiffSegLungLib.models import store as models
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.training.painting_hosts import GRID, ZOOMS, PaintingHost, prepare
from DiffSegLungLib.training.store import name_of, person_of
from DiffSegLungLib.training.tuning import CannotServeError

LEAST_ML = 200.0
"""Of lung that may be painted on: a patch through the lungs holds about 100 ml."""
TRUE_SIZE = 1.0
"""The zoom at which a patient is as large as he is."""


@dataclass(frozen=True)
class OwnHost:
    """A CT that was prepared.

    Attributes:
        name: what it is called in the run.
        person: whom it shows.
        lung_ml: volume of its lungs.
        files: of the host at each size.
        true_size: the file of the patient at true size.
    """

    name: str
    person: str
    lung_ml: float
    files: tuple[Path, ...]
    true_size: Path


def prepare_host(
    source: Path, folder: Path, base: models.Model, persons: Mapping[str, str], progress: Progress
) -> None:
    """Write a CT's hosts; what was made of it, as it is now, and by this model, is not made again.

    Args:
        source: CT file or DICOM folder.
        folder: takes the hosts, and beside them what is known of the CT.
        base: tells what is diseased.
        persons: name of a CT to its person.
        progress: of the segmentation.

    Raises:
        UnusableInputError: it cannot be read, or has no lungs.
        CannotServeError: too little of its lungs is healthy.
    """
    facts_file = folder / f"{name_of(source)}.json"
    facts = _current(facts_file, source, base)
    if facts is None:
        facts = _prepare(source, folder, base, persons, progress)
        write_json(facts_file, facts)
    if facts["usable_ml"] < LEAST_ML:
        raise CannotServeError(
            f"{source.name}: only {facts['usable_ml']:.0f} ml of its lungs are free of disease, and "
            f"{LEAST_ML:.0f} ml are needed to paint on."
        )


def _current(file: Path, source: Path, base: models.Model) -> dict[str, Any] | None:
    """What is known of a CT that was prepared before and has not changed since."""
    if not (file.exists() and source.exists()) or file.stat().st_mtime < source.stat().st_mtime:
        return None
    facts: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return facts if facts["model"] == models.digest_of(base.info) else None


def _prepare(
    source: Path, folder: Path, base: models.Model, persons: Mapping[str, str], progress: Progress
) -> dict[str, Any]:
    """Segment with the base model, and write the hosts if there is enough to paint on."""
    name = name_of(source)
    volume, labels, airways = segmented(source, base, progress)
    first = prepare(volume, labels, airways, zoom=TRUE_SIZE)
    voxel_ml = float(np.prod(GRID)) / 1000.0
    usable_ml = float((first.lungs & ~first.ignored).sum()) * voxel_ml
    if usable_ml >= LEAST_ML:
        for zoom in ZOOMS:
            host = first if zoom == TRUE_SIZE else prepare(volume, labels, airways, zoom=zoom)
            _save(host, _file(folder, name, zoom))
    return {
        "person": persons.get(name, "") or person_of(volume),
        "lung_ml": round(float(first.lungs.sum()) * voxel_ml, 1),
        "usable_ml": round(usable_ml, 1),
        "model": models.digest_of(base.info),
    }


def segmented(source: Path, base: models.Model, progress: Progress) -> tuple[Volume, np.ndarray, np.ndarray]:
    """The CT, the base model's labels, and trachea with main bronchi."""
    device = next(base.student.parameters()).device.type
    try:
        result = segment(source, model=str(base.info.folder), device=device, progress=progress)
        volume = result.volume
        airways = segment_lungs(volume.hu, volume.spacing, base.lungs).airways
    except UnusableInputError as error:
        told = str(error)
        raise UnusableInputError(told if source.name in told else f"{source.name}: {told}") from error
    return volume, result.label_array, airways


def _save(host: PaintingHost, file: Path) -> None:
    with atomic_path(file) as partial:
        host.save(partial)


def _file(folder: Path, name: str, zoom: float) -> Path:
    return folder / f"{name}_{round(100 * zoom)}.npz"


def load_hosts(folder: Path, names: Iterable[str]) -> list[OwnHost]:
    """What was prepared of these CT, by name; those that cannot serve are left out."""
    found = []
    for name in sorted(names):
        file = folder / f"{name}.json"
        facts: dict[str, Any] = {"usable_ml": 0.0}
        if file.exists():
            facts = json.loads(file.read_text(encoding="utf-8"))
        if facts["usable_ml"] >= LEAST_ML:
            files = tuple(_file(folder, name, zoom) for zoom in ZOOMS)
            person, lung_ml = facts["person"] or name, float(facts["lung_ml"])
            found.append(OwnHost(name, person, lung_ml, files, _file(folder, name, TRUE_SIZE)))
    return found
