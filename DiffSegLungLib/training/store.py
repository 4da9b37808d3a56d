"""The training store: CT and lungs at the model's spacing, one compressed file a CT.

What the network learns from is kept as it is: every HU within ``EXACT_MM`` of the lungs.  Farther out, where
a patch sees only that there is chest wall, HU are rounded; so a CT takes about 3 MB.  On first use it is
decoded into ``decoded/``, and from there the arrays are mapped into memory: a large store needs little of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.atomic import atomic_path
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.volume import Volume, load_volume
from DiffSegLungLib.lungs.lungs import segment_lungs

MARGIN = 8
"""Voxels kept around the lungs."""
EXACT_MM, NEAR_MM = 6.0, 20.0
NEAR_STEP_HU, FAR_STEP_HU = 32, 128
"""HU are multiples of these beyond ``EXACT_MM`` and beyond ``NEAR_MM`` from the lungs."""
DECODED = "decoded"
PATIENT_ID_TAG = "0010|0020"


@dataclass(frozen=True)
class Patient:
    """One CT of the store.

    Attributes:
        name: the file's stem.
        hu: int16 HU, (z, y, x), at the store's spacing, cropped to the lungs.
        mask: bool lungs, same shape.
        identifier: of the person; CT of one person have the same.
    """

    name: str
    hu: np.ndarray
    mask: np.ndarray
    identifier: str = ""

    @property
    def person(self) -> str:
        """The identifier; the CT's name where none is known."""
        return self.identifier or self.name


def name_of(source: Path) -> str:
    """What a CT is called in the store."""
    return source.name.split(".")[0]


def prepare(
    sources: Iterable[Path], folder: Path, spacing: float, persons: Mapping[str, str] | None = None
) -> list[Path]:
    """Write one ``.npz`` a CT: lungs found, resampled, cropped.  What is there already is not made again.

    Args:
        sources: CT files or DICOM folders.
        folder: the store, created if need be.
        spacing: voxel side in mm, isotropic.
        persons: name of a CT to the person it is of; without it a DICOM's own identifier counts (its digest),
            else the CT's name.

    Returns:
        The files written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [_prepare_one(source, folder, spacing, persons or {}) for source in sources]


def _prepare_one(source: Path, folder: Path, spacing: float, persons: Mapping[str, str]) -> Path:
    target = folder / f"{name_of(source)}.npz"
    if _is_current(target, source, spacing):
        return target
    volume = load_volume(source)
    # The lungs as the pipeline will find them: the network sees in use what it saw in training.
    try:
        mask = segment_lungs(volume.hu, volume.spacing).mask
    except UnusableInputError as error:
        raise UnusableInputError(f"{source.name}: {error}") from error
    new_spacing = (spacing,) * 3
    hu = resample(volume.hu, volume.spacing, new_spacing)
    coarse = resample(mask, volume.spacing, new_spacing, interpolation="nearest", size=hu.shape) > 0
    box = tuple(
        slice(max(int(where.min()) - MARGIN, 0), int(where.max()) + MARGIN + 1)
        for where in np.nonzero(coarse)
    )
    facts = {
        "name": name_of(source),
        "spacing_mm": spacing,
        "person": persons.get(name_of(source), "") or person_of(volume),
        "lung_ml": round(float(coarse.sum()) * spacing**3 / 1000.0, 1),
    }
    arrays = _encode(np.rint(hu[box]), coarse[box], spacing)
    with atomic_path(target) as partial:
        np.savez_compressed(partial, facts=json.dumps(facts), **arrays)  # type: ignore[arg-type]
    return target


def _is_current(target: Path, source: Path, spacing: float) -> bool:
    """Whether the file was made of this source, as it is now, at this spacing."""
    if not (target.exists() and source.exists()) or target.stat().st_mtime < source.stat().st_mtime:
        return False
    return float(store_facts(target)["spacing_mm"]) == spacing


def person_of(volume: Volume) -> str:
    """A digest of the DICOM's patient identifier, empty without one; the identifier itself is not stored."""
    import SimpleITK as sitk

    if not volume.dicom_files:
        return ""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(volume.dicom_files[0]))
    reader.ReadImageInformation()
    if not reader.HasMetaDataKey(PATIENT_ID_TAG) or not reader.GetMetaData(PATIENT_ID_TAG).strip():
        return ""
    identifier = reader.GetMetaData(PATIENT_ID_TAG).strip()
    return hashlib.sha256(identifier.encode("utf-8", "replace")).hexdigest()[:12]


# --- one file --------------------------------------------------------------------------------------------


def _encode(hu: np.ndarray, mask: np.ndarray, spacing: float) -> dict[str, np.ndarray]:
    """Differences along x, low and high byte apart: half the size of the plain values once compressed."""
    away = ndimage.distance_transform_edt(~mask).astype(np.float32) * spacing
    near, far = (np.rint(hu / step) * step for step in (NEAR_STEP_HU, FAR_STEP_HU))
    hu = np.select([away > NEAR_MM, away > EXACT_MM], [far, near], hu).astype(np.int16)
    change = np.diff(hu, axis=2, prepend=np.int16(0)).astype(np.int32)
    unsigned = ((change << 1) ^ (change >> 31)).astype(np.uint16)
    low, high = (unsigned & 255).astype(np.uint8), (unsigned >> 8).astype(np.uint8)
    return {"low": low, "high": high, "mask": np.packbits(mask)}


def _decode(stored: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """The inverse: int16 HU and bool mask."""
    unsigned = stored["low"].astype(np.int32) | stored["high"].astype(np.int32) << 8
    hu = np.cumsum((unsigned >> 1) ^ -(unsigned & 1), axis=2).astype(np.int16)
    mask = np.unpackbits(stored["mask"], count=hu.size).reshape(hu.shape).astype(bool)
    return hu, mask


def store_facts(file: Path) -> dict[str, Any]:
    """Name, spacing, person and lung volume of one file of a store."""
    with np.load(file, allow_pickle=False) as stored:
        facts: dict[str, Any] = json.loads(str(stored["facts"]))
        return facts


# --- the store -------------------------------------------------------------------------------------------


def store_files(folder: Path) -> list[Path]:
    """The files of a store, in the order of their names.

    Raises:
        UnusableInputError: there are none.
    """
    files = sorted(folder.glob("*.npz"))
    if not files:
        raise UnusableInputError(f"no prepared CT in {folder}; run 'diffseglung train prepare' first")
    return files


def spacing_of_store(folder: Path) -> float:
    """Voxel side in mm, the same in every file.

    Raises:
        UnusableInputError: it is not the same.
    """
    found = {float(store_facts(file)["spacing_mm"]) for file in store_files(folder)}
    if len(found) > 1:
        raise UnusableInputError(f"{folder} mixes spacings of {sorted(found)} mm: prepare all CT with one.")
    return found.pop()


def load_store(folder: Path, names: Iterable[str] | None = None) -> list[Patient]:
    """The patients of a store, all or the named ones, by name; their arrays are mapped files."""
    wanted = None if names is None else set(names)
    return [_load_patient(file) for file in store_files(folder) if wanted is None or file.stem in wanted]


def _load_patient(file: Path) -> Patient:
    hu, mask = (file.parent / DECODED / f"{file.stem}.{part}.npy" for part in ("hu", "mask"))
    if not (hu.exists() and mask.exists()) or hu.stat().st_mtime < file.stat().st_mtime:
        with np.load(file, allow_pickle=False) as stored:
            arrays = _decode(stored)
        for target, array in zip((hu, mask), arrays, strict=True):
            with atomic_path(target) as partial:
                np.save(partial, array)
    mapped = [np.load(path, mmap_mode="r", allow_pickle=False) for path in (hu, mask)]
    return Patient(file.stem, mapped[0], mapped[1], str(store_facts(file).get("person", "")))


def stored_megabytes(folder: Path) -> float:
    """Size of the compressed files."""
    return sum(file.stat().st_size for file in store_files(folder)) / 1e6
