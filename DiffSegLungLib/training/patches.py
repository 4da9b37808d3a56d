"""Patches of lung for training: rare looks drawn more often, augmentation that keeps HU physical."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.training.store import Patient

CANDIDATES_PER_PATIENT = 6000
BINS = 12
TURNED = 0.3
"""Share of the patches that are rotated and scaled."""
MOST_DEGREES, MOST_SCALE = 6.0, 0.06
TURN_MARGIN = 8
"""Voxels that the corners of a patch of 64 move by at most."""


@dataclass(frozen=True)
class PatchSampler:
    """Draws patches of lung.

    Attributes:
        patients: the store.
        shape: patch sides in voxels, (z, y, x).
        corners: candidate places, (n, 4): patient, z, y, x.
        weights: chance of each place.
        margin: voxels around the patch, on each side, that are drawn with it.
    """

    patients: list[Patient]
    shape: tuple[int, int, int]
    corners: np.ndarray
    weights: np.ndarray
    margin: int = 0

    def draw(
        self, count: int, random: np.random.Generator, own: slice = slice(None), augmented: bool = True
    ) -> tuple[np.ndarray, np.ndarray]:
        """Patches of HU and lung mask with their margin, both float32 (count, z, y, x).

        Args:
            count: how many are drawn.
            random: the same state gives the same patches.
            own: of those drawn, the ones that are wanted; each has random numbers of its own, so that several
                processes can share the work.
            augmented: change them as :func:`augment` and :func:`turn` do; else they are as scanned.
        """
        chosen = random.choice(len(self.corners), size=count, p=self.weights)
        seeds = random.integers(2**63, size=count)
        pairs = [
            self._cut(self.corners[place], np.random.default_rng(seed), augmented)
            for place, seed in zip(chosen[own], seeds[own], strict=True)
        ]
        return np.stack([hu for hu, _ in pairs]), np.stack([mask for _, mask in pairs])

    def _cut(
        self, corner: np.ndarray, random: np.random.Generator, augmented: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        patient = self.patients[corner[0]]
        if not augmented:
            return self._box(patient, corner[1:], self.margin)
        start = corner[1:] + random.integers(-4, 5, size=3)
        if random.random() < TURNED:
            return augment(*turn(*self._box(patient, start, self.margin + TURN_MARGIN), random), random)
        return augment(*self._box(patient, start, self.margin), random)

    def _box(self, patient: Patient, start: np.ndarray, margin: int) -> tuple[np.ndarray, np.ndarray]:
        """A patch with a margin around it; beyond the volume its edge goes on."""
        sides = patient.hu.shape
        places = []
        for first, side, length in zip(start, self.shape, sides, strict=True):
            first = int(np.clip(first, 0, length - side))
            places.append(np.clip(np.arange(first - margin, first + side + margin), 0, length - 1))
        # A box first and then its repeated edges: only the box is read from a mapped file.
        box = tuple(slice(int(where[0]), int(where[-1]) + 1) for where in places)
        inner = np.ix_(*(where - where[0] for where in places))
        hu, mask = patient.hu[box], patient.mask[box]
        return hu[inner].astype(np.float32), mask[inner].astype(np.float32)


def build_sampler(
    patients: list[Patient],
    shape: tuple[int, int, int],
    least_lung: float = 0.4,
    seed: int = 0,
    margin: int = 0,
) -> PatchSampler:
    """Find places with at least ``least_lung`` of lung, the margin not counted; weigh them by rarity.

    Rarity is the inverse square root of how common a patch's mean and spread of HU are among all candidates:
    no label is looked at, yet consolidation and emphysema come up far more often than their volume.
    """
    random = np.random.default_rng(seed)
    found = [_candidates(index, patient, shape, least_lung, random) for index, patient in enumerate(patients)]
    corners = np.concatenate([places for places, _ in found])
    looks = np.concatenate([look for _, look in found])
    return PatchSampler(patients, shape, corners, _rarity(looks), margin)


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
    if random.random() < 0.4:
        hu = _other_kernel(hu, random)
    if random.random() < 0.3:
        grain = ndimage.gaussian_filter(random.standard_normal(hu.shape), 0.6)
        hu = hu + random.uniform(5, 25) * grain / grain.std()
    return np.ascontiguousarray(hu + random.normal(0, 5), dtype=np.float32), np.ascontiguousarray(mask)


def _other_kernel(hu: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Softer, or sharper: the same mean, another sharpness of edges and noise."""
    if random.random() < 0.7:
        return ndimage.gaussian_filter(hu, random.uniform(0.2, 0.6))
    return hu + random.uniform(0.1, 0.5) * (hu - ndimage.gaussian_filter(hu, 0.8))


def turn(hu: np.ndarray, mask: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A small rotation and scaling; ``TURN_MARGIN`` voxels at each side are used up by it.

    Args:
        hu: float32 (z, y, x) with the margin.
        mask: float32, same shape.
        random: the chance.

    Returns:
        Both without the margin.  HU are interpolated, never scaled.
    """
    matrix = _small_rotation(random) * random.uniform(1 - MOST_SCALE, 1 + MOST_SCALE)
    centre = (np.array(hu.shape) - 1) / 2
    offset = centre - matrix @ centre
    # Cubic: a linear interpolation would take the noise's fine texture away.
    turned = ndimage.affine_transform(hu, matrix, offset, order=3, mode="nearest")
    lungs = ndimage.affine_transform(mask, matrix, offset, order=1, mode="nearest") > 0.5
    inner = (slice(TURN_MARGIN, -TURN_MARGIN),) * 3
    return np.clip(turned, hu.min(), hu.max())[inner], lungs[inner].astype(np.float32)


def _small_rotation(random: np.random.Generator) -> np.ndarray:
    """A rotation by up to ``MOST_DEGREES`` about an axis of any direction (Rodrigues)."""
    z, y, x = random.standard_normal(3)
    axis = np.array([[0, -x, y], [x, 0, -z], [-y, z, 0]]) / np.sqrt(z * z + y * y + x * x)
    angle = np.deg2rad(random.uniform(-MOST_DEGREES, MOST_DEGREES))
    return np.eye(3) + np.sin(angle) * axis + (1 - np.cos(angle)) * axis @ axis


def patient_normalised(hu: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """HU stretched so that each patient's lungs have the same mean and spread: the HU are not preserved."""
    inside = hu[mask]
    mean, deviation = float(inside.mean()), max(float(inside.std()), 1.0)
    return ((hu - mean) / deviation * 180.0 - 800.0).astype(np.float32)
