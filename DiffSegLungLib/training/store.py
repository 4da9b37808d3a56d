"""The training store: CT and lungs at the model's spacing, one compressed file a patient."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.lungs import segment_lungs
from DiffSegLungLib.outputs import atomic_path
from DiffSegLungLib.volume import load_volume, resample

MARGIN = 8
"""Voxels kept around the lungs."""


@dataclass(frozen=True)
class Patient:
    """One CT of the store.

    Attributes:
        name: the file's stem.
        hu: int16 HU, (z, y, x), at the store's spacing, cropped to the lungs.
        mask: bool lungs, same shape.
    """

    name: str
    hu: np.ndarray
    mask: np.ndarray


def prepare(sources: Iterable[Path], folder: Path, spacing: float) -> list[Path]:
    """Write one ``.npz`` a CT: lungs found, resampled, cropped.

    Args:
        sources: CT files or DICOM folders.
        folder: the store, created if need be.
        spacing: voxel side in mm, isotropic.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_prepare_one(source, folder, spacing) for source in sources]


def _prepare_one(source: Path, folder: Path, spacing: float) -> Path:
    volume = load_volume(source)
    # The lungs as the pipeline will find them: the network sees in use what it saw in training.
    mask = segment_lungs(volume.hu, volume.spacing).mask
    new_spacing = (spacing,) * 3
    hu = resample(volume.hu, volume.spacing, new_spacing)
    coarse = resample(mask, volume.spacing, new_spacing, interpolation="nearest", size=hu.shape)
    box = tuple(
        slice(max(int(where.min()) - MARGIN, 0), int(where.max()) + MARGIN + 1)
        for where in np.nonzero(coarse)
    )
    name = source.name.split(".")[0]
    target = folder / f"{name}.npz"
    facts = json.dumps({"name": name, "spacing_mm": spacing})
    with atomic_path(target) as partial:
        np.savez_compressed(partial, hu=np.rint(hu[box]).astype(np.int16), mask=coarse[box] > 0, facts=facts)
    return target


def load_store(folder: Path, names: Iterable[str] | None = None) -> list[Patient]:
    """Read the patients of a store, all or the named ones, in the order of their names."""
    wanted = None if names is None else set(names)
    files = [file for file in sorted(folder.glob("*.npz")) if wanted is None or file.stem in wanted]
    if not files:
        raise UnusableInputError(f"no prepared CT in {folder}; run 'diffseglung train prepare' first")
    return [_load_patient(file) for file in files]


def _load_patient(file: Path) -> Patient:
    with np.load(file, allow_pickle=False) as stored:
        return Patient(file.stem, stored["hu"], stored["mask"])
