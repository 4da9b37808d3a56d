"""A painted case: a real CT with disease of one kind and the truth of each voxel."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from DiffSegLungLib.io.volume import Volume


@dataclass(frozen=True)
class PaintedKind:
    """What a case shows, and in which CT.

    Attributes:
        name: of the kind, as in every table.
        tissue: label of what is painted; healthy for what is no disease.
        negative: whether nothing in the case is diseased.
        host: path of the CT below the data folder, without suffix.
        seed: of all that is drawn.
    """

    name: str
    tissue: int
    negative: bool
    host: str
    seed: int


@dataclass(frozen=True, eq=False)
class PaintedCase:
    """A CT with painted disease; arrays (z, y, x) in canonical axes.

    Attributes:
        kind: what was painted.
        volume: the CT in HU.
        truth: uint8, 0 outside the lungs, 1 healthy, 2 to 6 diseased.
        lungs: bool, the true lungs, dense lung among them, pleural fluid not.
        scored: bool, where the truth can be known.
    """

    kind: PaintedKind
    volume: Volume
    truth: np.ndarray
    lungs: np.ndarray
    scored: np.ndarray


def truth_sha256(case: PaintedCase) -> str:
    """Hash of the truth and of the HU, rounded: the same painter makes the same."""
    digest = hashlib.sha256(np.ascontiguousarray(case.truth, dtype=np.uint8).tobytes())
    digest.update(np.rint(case.volume.hu).astype("<i2").tobytes())
    return digest.hexdigest()
