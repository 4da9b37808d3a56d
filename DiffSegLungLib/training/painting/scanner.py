"""The scanner: what was painted and the host alike pass its kernel, its slices and its noise."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.tissues import OUTSIDE
from DiffSegLungLib.training.painting.canvas import Canvas

PAINT_BLUR = (0.45, 0.55, 0.55)
"""Deviation in voxels of the point spread that the host has passed already and paint has not."""
QUIET_HU, LOUD_HU = 4.0, 40.0
"""Bounds of the noise of a host as it is read off its soft tissue."""
METAL = 0.04
"""Share of the patches with metal nearby."""
CUT, FIELD_MM = 0.06, (110.0, 250.0)
"""Share of the patches through which the rim of the field of view runs, and its radius."""
GAP_SLICES = 5
"""HRCT with gaps: a slice of 1 mm every 10 mm stands for 5 of the grid's."""


def host_noise(hu: np.ndarray) -> float:
    """Deviation of the host's noise in HU, read off soft tissue of every third slice."""
    hu = hu[::3]
    soft_tissue = (hu > 0) & (hu < 100)
    if soft_tissue.sum() <= 200:
        return 12.0
    return float(np.clip((hu - ndimage.gaussian_filter(hu, (0, 1, 1)))[soft_tissue].std(), QUIET_HU, LOUD_HU))


def blend_in(canvas: Canvas, before: np.ndarray) -> None:
    """What was painted on ``before`` passes the host's point spread and gets its noise."""
    noise = host_noise(before)
    canvas.hu = before + ndimage.gaussian_filter(canvas.hu - before, PAINT_BLUR)
    own = canvas.textures.own_noise(canvas.shape, canvas.rng)
    canvas.hu += (1 - canvas.kept) * np.float32(noise / own.std()) * own


def scan(canvas: Canvas) -> tuple[np.ndarray, np.ndarray]:
    """Scan the patch with a scanner drawn at random: HU and labels."""
    hu, labels = canvas.hu, canvas.labels
    noise = canvas.textures.noise(canvas.shape, canvas.rng)
    if canvas.chance(0.15):  # streaks
        noise = ndimage.gaussian_filter(noise, (0, 0.5, canvas.between(1.5, 4)))
    noise = noise / noise.std() * np.exp(0.3 * canvas.field(40))
    if canvas.chance(METAL):
        hu = hu + _metal_streaks(canvas)
    gaps = canvas.chance(0.08)
    hu, noise, labels = (
        _with_gaps(canvas, hu, noise, labels) if gaps else (*_thick(canvas, hu, noise), labels)
    )
    sharp = canvas.chance(0.85 if gaps else 0.4)
    kernel = _kernel(canvas, sharp)
    deviation = canvas.spread(15, 110) if sharp else canvas.spread(3, 60)
    hu, noise = kernel(hu), kernel(noise)
    hu = hu + np.float32(deviation) * noise / (noise.std() + 1e-6)
    hu = hu * canvas.between(0.985, 1.015) + canvas.between(-15, 15)
    if canvas.chance(CUT):
        beyond = _beyond_the_field(canvas)
        hu, labels = np.where(beyond, LOWEST_HU, hu), np.where(beyond, OUTSIDE, labels).astype(np.uint8)
    return np.clip(hu, LOWEST_HU, 1000), labels


def _metal_streaks(canvas: Canvas) -> np.ndarray:
    """Bands of false density that fan out from metal beside the lung, fading away from it; HU to be added."""
    z, y, x = canvas.place(~canvas.lungs)
    down, across = canvas.axes[1] - y, canvas.axes[2] - x
    turn, distance = np.arctan2(down, across), np.hypot(down, across)
    fans = [np.sin(canvas.rng.integers(2, 9) * turn + canvas.between(0, 2 * np.pi)) for _ in range(3)]
    slab = np.exp(-(((canvas.axes[0] - z) / canvas.between(4, 15)) ** 2))
    fading = np.exp(-distance / canvas.between(40, 150))
    return (canvas.spread(60, 500) * slab * fading * (fans[0] * fans[1] + 0.5 * fans[2])).astype(np.float32)


def _beyond_the_field(canvas: Canvas) -> np.ndarray:
    """A round field of view whose rim runs through the patch; beyond it nothing was measured."""
    radius, turn = canvas.between(*FIELD_MM), canvas.between(0, 2 * np.pi)
    _, y, x = canvas.place(np.ones(canvas.shape, bool))
    middle = y + radius * np.sin(turn), x + radius * np.cos(turn)
    return np.broadcast_to(
        np.hypot(canvas.axes[1] - middle[0], canvas.axes[2] - middle[1]) > radius, canvas.shape
    )


def _thick(canvas: Canvas, hu: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Slices of 4 to 8 mm, or the grid's own."""
    if canvas.chance(0.5):
        return hu, noise
    slices = int(canvas.rng.choice([2, 2, 3, 4]))
    return ndimage.uniform_filter1d(hu, slices, axis=0), ndimage.uniform_filter1d(noise, slices, axis=0)


def _with_gaps(
    canvas: Canvas, hu: np.ndarray, noise: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One slice stands for all up to the next; it is never blended into it."""
    first = int(canvas.rng.integers(GAP_SLICES))
    index = np.clip((np.arange(len(hu)) - first) // GAP_SLICES * GAP_SLICES + first, 0, len(hu) - 1)
    return hu[index], noise[index], labels[index]


def _kernel(canvas: Canvas, sharp: bool):  # type: ignore[no-untyped-def]
    """Reconstruction in plane: edges raised, as they are, or smoothed."""
    smoothed = canvas.chance(0.5)
    amount = canvas.between(0.8, 2.5)
    width = canvas.between(0.6, 1.4) if sharp else canvas.between(0.3, 1.1)

    def apply(values: np.ndarray) -> np.ndarray:
        if not sharp and not smoothed:
            return values
        blurred = ndimage.gaussian_filter(values, (0, width, width))
        return values + amount * (values - blurred) if sharp else blurred

    return apply
