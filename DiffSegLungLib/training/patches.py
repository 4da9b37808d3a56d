"""Patches of lung for training: rare looks drawn more often, augmentation that keeps HU physical."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.training.store import Patient

CANDIDATES_PER_PATIENT = 6000
BINS = 12


@dataclass(frozen=True)
class PatchSampler:
    """Draws patches of lung.

    Attributes:
        patients: the store.
        shape: patch sides in voxels, (z, y, x).
        corners: candidate places, (n, 4): patient, z, y, x.
        weights: chance of each place.
    """

    patients: list[Patient]
    shape: tuple[int, int, int]
    corners: np.ndarray
    weights: np.ndarray

    def draw(self, count: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """``count`` augmented patches: HU float32 and mask float32, (count, z, y, x)."""
        chosen = random.choice(len(self.corners), size=count, p=self.weights)
        pairs = [self._cut(self.corners[index], random) for index in chosen]
        return np.stack([hu for hu, _ in pairs]), np.stack([mask for _, mask in pairs])

    def _cut(self, corner: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        patient = self.patients[corner[0]]
        jitter = random.integers(-4, 5, size=3)
        start = [
            int(np.clip(c + j, 0, n - s))
            for c, j, n, s in zip(corner[1:], jitter, patient.hu.shape, self.shape, strict=True)
        ]
        box = tuple(slice(c, c + s) for c, s in zip(start, self.shape, strict=True))
        return augment(patient.hu[box].astype(np.float32), patient.mask[box].astype(np.float32), random)


def build_sampler(
    patients: list[Patient], shape: tuple[int, int, int], least_lung: float = 0.4, seed: int = 0
) -> PatchSampler:
    """Find places with at least ``least_lung`` of lung and weigh them by radiomic rarity.

    Rarity is the inverse square root of how common a patch's mean and spread of HU are among all candidates:
    no label is looked at, yet consolidation and emphysema come up far more often than their volume.
    """
    random = np.random.default_rng(seed)
    found = [_candidates(index, patient, shape, least_lung, random) for index, patient in enumerate(patients)]
    corners = np.concatenate([places for places, _ in found])
    looks = np.concatenate([look for _, look in found])
    return PatchSampler(patients, shape, corners, _rarity(looks))


def _candidates(
    index: int, patient: Patient, shape: tuple[int, int, int], least_lung: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Places in one patient and their look: mean and standard deviation of the lung's HU in the patch."""
    hu, mask = patient.hu.astype(np.float32), patient.mask.astype(np.float32)
    share = _box_mean(mask, shape)
    mean = _box_mean(hu * mask, shape) / np.maximum(share, 1e-3)
    spread = np.sqrt(np.maximum(_box_mean(hu * hu * mask, shape) / np.maximum(share, 1e-3) - mean**2, 0))
    centres = np.argwhere(share >= least_lung)
    centres = centres[random.permutation(len(centres))[:CANDIDATES_PER_PATIENT]]
    at = tuple(centres.T)
    corners = np.clip(centres - np.array(shape) // 2, 0, np.array(hu.shape) - np.array(shape))
    places = np.column_stack([np.full(len(corners), index), corners])
    return places, np.column_stack([mean[at], spread[at]])


def _box_mean(values: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return ndimage.uniform_filter(values, size=shape, mode="constant")


def _rarity(looks: np.ndarray) -> np.ndarray:
    counts, edges = np.histogramdd(looks, bins=BINS)
    where = tuple(
        np.clip(np.digitize(column, edge) - 1, 0, BINS - 1)
        for column, edge in zip(looks.T, edges, strict=True)
    )
    weights = 1.0 / np.sqrt(counts[where])
    return weights / weights.sum()


def augment(hu: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Flips, a few HU of offset, another kernel or dose.  Contrast is never stretched: HU stays physical."""
    flips = tuple(axis for axis in range(3) if random.random() < 0.5)
    hu, mask = np.flip(hu, flips), np.flip(mask, flips)
    if random.random() < 0.3:
        hu = ndimage.gaussian_filter(hu, random.uniform(0.2, 0.6))
    if random.random() < 0.3:
        grain = ndimage.gaussian_filter(random.standard_normal(hu.shape), 0.6)
        hu = hu + random.uniform(5, 25) * grain / grain.std()
    return np.ascontiguousarray(hu + random.normal(0, 5), dtype=np.float32), np.ascontiguousarray(mask)
