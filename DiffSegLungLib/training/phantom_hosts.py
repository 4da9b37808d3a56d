"""Phantoms among the patches: the demo and the tests show them to the network, so it shall know them, too.

Their truth comes from geometry; a few patches in a hundred are enough.  They judge nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from DiffSegLungLib.phantom import make_phantom
from DiffSegLungLib.representation.tissue_unet import AIRWAY
from DiffSegLungLib.training.painting_hosts import GRID

PREFIX = "phantom_"
FIRST_SEED = 1000
"""The demo and the tests use lower ones."""
HEALTHY_EVERY = 4
"""One phantom of so many has no lesion."""
NOISE_HU, LUNG_HU = (8.0, 45.0), (-880.0, -780.0)


@dataclass(frozen=True)
class PhantomHost:
    """A phantom on ``GRID``: int16 HU and uint8 classes of the network, (z, y, x)."""

    hu: np.ndarray
    labels: np.ndarray

    @classmethod
    def open(cls, path: Path) -> PhantomHost:
        """Read what :func:`write_phantoms` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            return cls(stored["hu"], stored["labels"])


def write_phantoms(folder: Path, count: int) -> None:
    """Write so many phantoms into a folder of hosts, each of another seed, noise and depth of breath."""
    for number in range(count):
        seed = FIRST_SEED + number
        rng = np.random.default_rng(seed)
        lesions = () if number % HEALTHY_EVERY == HEALTHY_EVERY - 1 else None
        phantom = make_phantom(GRID, seed, lesions, rng.uniform(*NOISE_HU), rng.uniform(*LUNG_HU))
        labels = np.where(phantom.airways, AIRWAY, phantom.truth).astype(np.uint8)
        hu = np.rint(phantom.hu).astype(np.int16)
        np.savez_compressed(folder / f"{PREFIX}{seed}.npz", hu=hu, labels=labels)
