"""Tissues as the diffusion U-Net tells them: its posterior, calibrated, on the working grid.

What it calls outside within the lungs goes to the tissues and vessels in proportion: every voxel of lung has
a posterior.  Nothing that it calls diseased is called healthy afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from scipy import ndimage

from DiffSegLungLib.decision.naming import NAMED
from DiffSegLungLib.decision.regions import decide, likeliest
from DiffSegLungLib.half_precision import from_half, to_half
from DiffSegLungLib.interpolation import AxisMap
from DiffSegLungLib.parallel import run_all
from DiffSegLungLib.representation.reading import Reading
from DiffSegLungLib.representation.tissue_unet import AIRWAY, SPACING
from DiffSegLungLib.tissues import CAVITY, CONSOLIDATION, HEALTHY, VESSEL

SOLID_HU = -300.0
"""What holds less air is no aerated lung."""
UNSEEN = 1e-3
"""Share of tissues and vessels together below which half precision cannot tell them apart."""
DENSE_LUNG = 0.5
"""Posterior of consolidation from which on solid tissue that touches the lungs is lung."""
LEAST_DENSE_ML = 3.0
"""Smaller pieces beside the lungs are the border's uncertainty."""
LUMEN_HU, LEAST_LUMEN_ML = -480.0, 0.1
"""Half way between air and wall; fewer ml below it are no cavity."""
SLABS = 8
"""Parts of a CT that are calibrated beside one another."""

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class NetworkReading:
    """What the network says of a box of the CT.

    Attributes:
        reading: posterior and features on ``SPACING``.
        box: the box in the CT's voxels, (z, y, x).
    """

    reading: Reading
    box: tuple[slice, slice, slice]

    def calibrated(self, temperature: float, bias: Sequence[float]) -> NetworkReading:
        """The same with its posterior calibrated, see :func:`calibrated`."""
        slabs = np.array_split(self.reading.posterior, SLABS, axis=1)

        def one(slab: np.ndarray) -> np.ndarray:
            return to_half(calibrated(from_half(slab), temperature, bias))

        posterior = np.concatenate(run_all([partial(one, slab) for slab in slabs]), axis=1)
        return replace(self, reading=replace(self.reading, posterior=posterior))

    def posterior_on(
        self,
        box: tuple[slice, slice, slice],
        ct_spacing: Triple,
        shape: tuple[int, ...],
        spacing: Triple,
    ) -> np.ndarray:
        """The posterior on a grid of its own: float32 (classes, z, y, x).

        Args:
            box: that the grid fills, in the CT's voxels.
            ct_spacing: of the CT, (z, y, x) in mm.
            shape: of the grid.
            spacing: of the grid in mm.
        """
        maps = []
        for axis in range(3):
            offset = (box[axis].start - self.box[axis].start) * ct_spacing[axis]
            count = self.reading.posterior.shape[axis + 1]
            maps.append(AxisMap.between(count, SPACING[axis], shape[axis], spacing[axis], offset))

        def one(channel: np.ndarray) -> np.ndarray:
            values = from_half(channel)
            for axis in (2, 1, 0):
                values = maps[axis].along(values, axis)
            return values

        return np.stack(run_all([partial(one, channel) for channel in self.reading.posterior]))


def calibrated(posterior: np.ndarray, temperature: float, bias: Sequence[float]) -> np.ndarray:
    """p^(1 / temperature) e^bias, summed to one again (Guo et al. 2017, with a bias a class).

    Args:
        posterior: float32 (classes, z, y, x).
        temperature: above 1 for less certainty.
        bias: of each class, in nats.
    """
    logs = np.log(np.maximum(posterior, 1e-5)) / np.float32(temperature)
    logs += np.asarray(bias, np.float32).reshape(-1, 1, 1, 1)
    logs -= logs.max(axis=0)
    np.exp(logs, out=logs)
    return logs / logs.sum(axis=0)


def dense_beside(lungs: np.ndarray, posterior: np.ndarray, hu: np.ndarray, voxel_ml: float) -> np.ndarray:
    """Airless lung that the network sees beside the lungs as they were found.

    Args:
        lungs: bool (z, y, x).
        posterior: calibrated, (classes, z, y, x) on the same grid.
        hu: on the same grid.
        voxel_ml: of a voxel.

    Returns:
        bool: what is to be added; never what holds air, which may be bowel or room, nor muscle of a thin
        chest wall, which lies outside the hull of the lungs.
    """
    airless = (posterior[CONSOLIDATION] > DENSE_LUNG) & (hu >= SOLID_HU)
    beside = ndimage.binary_opening(airless & ~lungs & within_chest(lungs), iterations=1)
    parts, count = ndimage.label(lungs | beside)
    if not count:
        return np.zeros_like(lungs)
    joined = np.zeros(count + 1, bool)
    joined[np.unique(parts[lungs])] = True
    joined[0] = False
    pieces, count = ndimage.label(beside & joined[parts])
    large = np.bincount(pieces.ravel(), minlength=count + 1) * voxel_ml >= LEAST_DENSE_ML
    large[0] = False
    return large[pieces]


def within_chest(lungs: np.ndarray) -> np.ndarray:
    """The convex hull of both lungs in each slice."""
    from skimage.morphology import convex_hull_image

    return np.stack([convex_hull_image(plane) if plane.any() else plane for plane in lungs])


def shares_of_tissues(posterior: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Posterior of ``NAMED`` in the lungs; float32 (tissues, ...), 0 outside.

    Vessels and cavities are told apart later: here a vessel is healthy, a cavity's wall is dense.

    Args:
        posterior: of the network's classes, float32 (classes, ...).
        mask: the lungs, (...).
    """
    shares = posterior[list(NAMED)].copy()
    shares[NAMED.index(HEALTHY)] += posterior[VESSEL] + posterior[AIRWAY]
    shares[NAMED.index(CONSOLIDATION)] += posterior[CAVITY]
    total = shares.sum(axis=0)
    unseen = total < UNSEEN
    shares /= np.maximum(total, 1e-6)
    shares[:, unseen] = 0
    shares[NAMED.index(HEALTHY)][unseen] = 1
    return shares * mask


def diseased_where_likely(shares: np.ndarray) -> np.ndarray:
    """Where all diseases together are likelier than not, the likeliest of them wins over healthy lung.

    Args:
        shares: posterior of ``NAMED``, float32 (tissues, z, y, x).

    Returns:
        The same, shares of healthy lung and of that disease exchanged there: the doubt stays.
    """
    healthy, best = NAMED.index(HEALTHY), likeliest(shares)
    doubtful = (best == healthy) & (shares[healthy] < 0.5) & (shares.sum(axis=0) > 0)
    diseases = shares[:, doubtful]
    diseases[healthy] = 0
    named, decided = diseases.argmax(axis=0), shares.copy()
    for member in np.unique(named):
        where = doubtful.copy()
        where[doubtful] = named == member
        decide(decided, where, int(member))
    return decided


def disease_kept(fused: np.ndarray, shares: np.ndarray, posterior: np.ndarray) -> np.ndarray:
    """The fusion smooths, and may not smooth disease away: there the network's own shares stand.

    Args:
        fused: shares after the fusion, (tissues of ``NAMED``, z, y, x).
        shares: before it.
        posterior: calibrated, (classes, z, y, x): disease of more than one half is kept.
    """
    healthy, kept = NAMED.index(HEALTHY), fused.copy()
    diseased = posterior[HEALTHY + 1 : CAVITY + 1].sum(axis=0) > 0.5
    erased = diseased & (likeliest(fused) == healthy) & (shares.sum(axis=0) > 0)
    kept[:, erased] = shares[:, erased]
    return diseased_where_likely(kept)


def vessels_of(posterior: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Vessels and airway walls: likelier than healthy lung and than each disease; bool (z, y, x)."""
    others = np.maximum(posterior[HEALTHY], posterior[HEALTHY + 1 : CAVITY + 1].max(axis=0))
    return mask & (posterior[VESSEL] + posterior[AIRWAY] > others)


def cavities_of(posterior: np.ndarray, mask: np.ndarray, hu: np.ndarray, spacing: float) -> np.ndarray:
    """Cavities, the air alone: likelier than all else; bool (z, y, x).

    Args:
        posterior: of the lung voxels, float32 (classes, voxels).
        mask: the lungs, bool (z, y, x).
        hu: (z, y, x).
        spacing: of the grid in mm.

    Returns:
        The wall is not of it: it is what dense lung is.
    """
    lumen = mask & (hu < LUMEN_HU)
    lumen[lumen] = posterior[:, lumen[mask]].argmax(axis=0) == CAVITY
    parts, count = ndimage.label(lumen)
    large = np.bincount(parts.ravel(), minlength=count + 1) * spacing**3 / 1000.0 >= LEAST_LUMEN_ML
    large[0] = False
    return large[parts]
