"""What disease is painted on: a patch of a host, and what is known of it."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import ndimage
from scipy.special import expit

from DiffSegLungLib.representation.tissue_unet import AIRWAY
from DiffSegLungLib.tissues import (
    CAVITY,
    CONSOLIDATION,
    EMPHYSEMA,
    FIBROSIS,
    GROUND_GLASS,
    HEALTHY,
    OUTSIDE,
    VESSEL,
)
from DiffSegLungLib.training.painted_patches import LEFT_OUT
from DiffSegLungLib.training.painting.textures import Foam, Textures
from DiffSegLungLib.training.painting_hosts import DEPTH_STEP_MM, GRID, PaintingHost

SOFT_HU = 40.0
"""Of blood and airless lung: what vessels of the host are, and haze can reach at the most."""
SEAM_HU = (-850.0, -20.0)
"""Voxels at the chest wall that hold lung and wall; dense lung must leave no seam of them."""
SEAM = (1, 5, 5)
DENSE_HU = -600.0
"""What is painted denser than this reaches into the seam."""
STAYS = {
    GROUND_GLASS: (FIBROSIS, CONSOLIDATION, CAVITY),
    EMPHYSEMA: (FIBROSIS, CAVITY),
    FIBROSIS: (CONSOLIDATION, CAVITY),
}
"""What keeps its name when the key is painted over it: a net in haze is fibrosis, its cysts are too."""


class Canvas:
    """A patch while it is painted; arrays are (z, y, x) on ``GRID``, distances in mm.

    Args:
        host: the patch.
        textures: fields and foams to paint with.
        rng: draws everything.
    """

    def __init__(self, host: PaintingHost, textures: Textures, rng: np.random.Generator) -> None:
        self.textures, self.rng, self.lungs, self.vessels = textures, rng, host.lungs, host.vessels
        self.hu = host.hu.astype(np.float32)
        self.shape = self.hu.shape
        self.depth = host.depth * np.float32(DEPTH_STEP_MM)
        self.kept = np.ones(self.shape, np.float32)
        self.beside = np.zeros(self.shape, bool)
        self.labels = np.where(host.lungs, HEALTHY, OUTSIDE).astype(np.uint8)
        self.labels[host.vessels] = VESSEL
        self.labels[host.airways] = AIRWAY
        self.axes = np.meshgrid(
            *(np.arange(side, dtype=np.float32) * step for side, step in zip(self.shape, GRID, strict=True)),
            indexing="ij",
            sparse=True,
        )
        low, high = SEAM_HU
        self.seam = (
            ndimage.maximum_filter(host.lungs, SEAM) & ~host.lungs & (self.hu > low) & (self.hu < high)
        )

    @cached_property
    def to_vessel(self) -> np.ndarray:
        """Distance to the nearest vessel in mm."""
        if not self.vessels.any():
            return np.full(self.shape, 30.0, np.float32)
        return ndimage.distance_transform_edt(~self.vessels, sampling=GRID).astype(np.float32)

    # --- chance ---

    def between(self, low: float, high: float) -> float:
        """A number drawn evenly."""
        return float(self.rng.uniform(low, high))

    def spread(self, low: float, high: float) -> float:
        """A number drawn evenly by its logarithm: sizes."""
        return float(np.exp(self.rng.uniform(np.log(low), np.log(high))))

    def chance(self, share: float) -> bool:
        """True as often as ``share`` says."""
        return bool(self.rng.random() < share)

    def field(self, length: float) -> np.ndarray:
        """A smooth field of zero mean and unit deviation; ``length`` in mm."""
        return self.textures.field(self.shape, length, self.rng)

    def foam(self, width: float) -> Foam:
        """A foam of cells ``width`` mm wide."""
        return self.textures.foam(self.shape, width, self.rng)

    def place(self, where: np.ndarray) -> np.ndarray:
        """A place in ``where`` (in the lungs if it is empty), (3,) in mm."""
        inside = np.flatnonzero(where)
        if not inside.size:
            inside = np.flatnonzero(self.lungs)
        return np.array(np.unravel_index(inside[self.rng.integers(inside.size)], self.shape)) * np.array(GRID)

    # --- painting ---

    def mix(self, share: np.ndarray, value: np.ndarray | float) -> None:
        """Let ``value`` HU fill ``share`` of each voxel's air and tissue; fluid beside the lung stays."""
        share = np.clip(share, 0, 1)
        if np.mean(value) > DENSE_HU:
            wide = ndimage.maximum_filter(share, SEAM)
            share = np.where(self.seam & (self.hu < value), wide, share)
        share = np.where(self.beside, 0, share)
        self.kept *= 1 - share
        self.hu += share * (value - self.hu)

    def fill(self, share: np.ndarray, value: float = SOFT_HU) -> None:
        """Fluid fills ``share`` of the air: vessels, which hold none, are seen as before."""
        self.mix(share * np.clip((SOFT_HU - self.hu) / 200, 0, 1), value)

    def name(self, where: np.ndarray, label: int) -> None:
        """Label parenchyma and what runs through it, but for what ``STAYS``."""
        where = where & self.lungs & ~self.beside
        for kept in STAYS.get(label, ()):
            where &= self.labels != kept
        self.labels[where] = label

    def doubt(self, where: np.ndarray) -> None:
        """Leave out of the loss what is still called healthy there."""
        self.labels[where & ((self.labels == HEALTHY) | (self.labels == VESSEL))] = LEFT_OUT

    def put_beside(self, share: np.ndarray, value: np.ndarray | float) -> None:
        """Fluid or air of the pleural space: no lung any more."""
        self.mix(share, value)
        gone = share > 0.5
        self.labels[gone & self.lungs] = OUTSIDE
        self.beside |= gone

    def dark_enough(self, fine: np.ndarray, bound: float) -> None:
        """Emphysema is told by density: what did not become dark is left out of the loss."""
        self.labels[(self.labels == EMPHYSEMA) & (fine > bound)] = LEFT_OUT


def soft(distance: np.ndarray, width: float) -> np.ndarray:
    """Share of a voxel inside, from a distance (positive inside) and the width of the edge, both in mm."""
    return expit(distance / np.float32(width))
