"""Where one lesion is painted: a box of the host's CT, in finer slices than the host has.

A lesion is a layer ``h' = keep * h + add`` laid over the host.  Shapes fill voxels by share (partial volume),
thick slices average what is painted in thin ones, and noise of the host's own strength and grain takes the
place of the share of the host's that the layer covers.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy import ndimage

from DiffSegLungLib.phantom.grid import Grid, smooth_noise

FINEST_SLICE_MM = 1.25
"""Slices thicker than this are painted in thinner ones."""

Triple = tuple[float, float, float]
Box = tuple[slice, slice, slice]


@dataclass
class Site:
    """The box of one lesion while it is painted; all arrays are on the fine grid.

    Attributes:
        grid: voxel centres in mm from the middle of the lesion.
        pleura: depth below the pleura in mm, negative outside the lung.
        host: the host's HU.
        vessels: share of each voxel that is vessel or airway wall, 0 to 1.
        seed: of the lesion's shapes.
        splits: fine slices a host's slice.
    """

    grid: Grid
    pleura: np.ndarray
    host: np.ndarray
    vessels: np.ndarray
    seed: int
    splits: int
    keep: np.ndarray = field(init=False)
    add: np.ndarray = field(init=False)
    truth: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.keep = np.ones(self.grid.shape, np.float32)
        self.add = np.zeros(self.grid.shape, np.float32)
        self.truth = np.zeros(self.grid.shape, np.uint8)

    def random(self, stream: int) -> np.random.Generator:
        """Random numbers of one part of the lesion, so that parts do not move each other."""
        return np.random.default_rng((self.seed, stream))

    def noise(self, length: float, stream: int) -> np.ndarray:
        """Random field of unit deviation with grains of ``length`` mm."""
        return smooth_noise(self.grid, length, (self.seed, 70, stream))

    def paint(self, share: np.ndarray, value: np.ndarray | float) -> None:
        """Let ``value`` HU fill ``share`` of each voxel."""
        self.keep *= 1.0 - share
        self.add += share * (value - self.add)

    def name(self, where: np.ndarray, label: int) -> None:
        """Write a label where ``where`` holds inside the lung."""
        self.truth[where & (self.pleura > 0)] = label

    def thick_slices(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """``keep``, ``add`` and truth on the host's own slices; a voxel is what fills most of it."""
        labels = np.unique(self.truth)
        shares = np.stack([_average(self.truth == label, self.splits) for label in labels])
        return (
            _average(self.keep, self.splits),
            _average(self.add, self.splits),
            labels[shares.argmax(axis=0)],
        )


def make_site(
    hu: np.ndarray,
    pleura: np.ndarray,
    vessels: np.ndarray,
    spacing: Triple,
    centre: Triple,
    box: Box,
    seed: int,
) -> Site:
    """Cut the box of a lesion out of the host.

    Args:
        hu: the host's HU, (z, y, x).
        pleura: depth below the pleura in mm, same shape.
        vessels: share of vessel, same shape.
        spacing: (z, y, x) in mm.
        centre: middle of the lesion in the host's voxels.
        box: the voxels that the lesion may reach.
        seed: of its shapes.
    """
    splits = int(np.ceil(spacing[0] / FINEST_SLICE_MM))
    steps = (spacing[0] / splits, spacing[1], spacing[2])
    axes = []
    for part, middle, step, count in zip(box, centre, spacing, (splits, 1, 1), strict=True):
        places = (np.arange(part.start * count, part.stop * count) + 0.5) / count - 0.5
        axes.append(((places - middle) * step).astype(np.float32))
    fine = [_thin_slices(values[box].astype(np.float32), splits) for values in (pleura, hu, vessels)]
    return Site(Grid(axes[0], axes[1], axes[2], steps), fine[0], fine[1], fine[2], seed, splits)


def _thin_slices(values: np.ndarray, splits: int) -> np.ndarray:
    """Linear interpolation between slices; the first and last continue."""
    count = len(values)
    place = np.clip((np.arange(count * splits) + 0.5) / splits - 0.5, 0, count - 1)
    low = np.floor(place).astype(int)
    share = (place - low).astype(np.float32)[:, None, None]
    return values[low] * (1 - share) + values[np.minimum(low + 1, count - 1)] * share


def _average(values: np.ndarray, splits: int) -> np.ndarray:
    return values.reshape(-1, splits, *values.shape[1:]).mean(axis=1, dtype=np.float32)


@dataclass(frozen=True)
class Grain:
    """The noise of a scan.

    Attributes:
        deviation: in HU.
        blur: deviation in voxels, in plane, of the Gaussian that gives white noise the scan's grain.
    """

    deviation: float
    blur: float

    def field(self, shape: tuple[int, ...], seed: int) -> np.ndarray:
        """Noise of this strength and grain, float32."""
        white = np.random.default_rng((seed, 71)).standard_normal(shape, dtype=np.float32)
        noise = ndimage.gaussian_filter(white, (0, self.blur, self.blur))
        return noise * np.float32(self.deviation / noise.std())


def measure_grain(hu: np.ndarray, lung: np.ndarray) -> Grain:
    """Strength and grain of the noise, from the quietest parenchyma (where no vessel runs).

    The correlation of in-plane neighbours r belongs to a Gaussian of deviation sqrt(-1 / (4 ln r)) voxels.
    """
    patch = (1, 5, 5)
    mean = ndimage.uniform_filter(hu, patch)
    variance = np.maximum(ndimage.uniform_filter(hu**2, patch) - mean**2, 0)
    aerated = lung & (mean < -700) & (mean > -940)
    quiet = aerated & (variance <= np.percentile(variance[aerated], 25))
    residual = hu - mean
    both = quiet[..., 1:] & quiet[..., :-1]
    product = (residual[..., 1:] * residual[..., :-1])[both].mean()
    correlation = np.clip(product / max(float((residual[quiet] ** 2).mean()), 1e-6), 0.02, 0.9)
    # The mean of 25 pixels takes its share of the noise, and neighbours' correlation with it.
    return Grain(
        float(np.sqrt(variance[quiet].mean() * 25 / 24)), float(np.sqrt(-1 / (4 * np.log(correlation))))
    )


def vessel_share(hu: np.ndarray, lung: np.ndarray, spacing: Triple) -> np.ndarray:
    """Share of each voxel that is vessel or airway wall: how far it rises above a 5 mm opening in plane."""
    side = [1, *(2 * max(round(2.5 / step), 1) + 1 for step in spacing[1:])]
    inside = np.where(lung, hu, -850.0).astype(np.float32)
    opened = ndimage.grey_opening(inside, size=side)
    return np.clip((inside - opened - 80.0) / 200.0, 0, 1).astype(np.float32)
