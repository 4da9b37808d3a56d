"""The phantom as a scan: organs, parenchyma, trees, lesions and noise put together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib import tissues
from DiffSegLungLib.densities import HIGHEST_HU, LOWEST_HU
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.phantom.anatomy import Organs, organs_on_lattice, organs_on_voxels, paint_chest
from DiffSegLungLib.phantom.grid import Grid, blend, cover, smooth_noise, voxel_grid
from DiffSegLungLib.phantom.lesions import LESIONS, Lung, paint_lesions
from DiffSegLungLib.phantom.trees import Trees, grow_trees, paint_trees

if TYPE_CHECKING:
    import SimpleITK

_TEXTURE_HU = 15.0
_GRAVITY_HU = 40.0 / 170.0
"""HU per mm from front to back: blood and tissue sink in the supine lung."""


@dataclass(frozen=True)
class Phantom:
    """A thorax CT with its truth; arrays (z, y, x) in canonical LPS axes.

    Attributes:
        hu: float32 HU.
        truth: uint8 label values of ``tissues``; 0 outside the lungs.  A bronchus inside a lung counts, air
            included, as vessel and airway wall.  So does a vessel that crosses emphysema or ground glass; in
            fibrosis all belongs to the pattern.  The cavity's wall and the bronchi inside the consolidation
            count as consolidation.
        sides: uint8, 1 right lung, 2 left lung.
        airways: bool, lumen of the trachea and the main bronchi.
        spacing: (z, y, x) in mm.
    """

    hu: np.ndarray
    truth: np.ndarray
    sides: np.ndarray
    airways: np.ndarray
    spacing: tuple[float, float, float]


def make_phantom(
    spacing: tuple[float, float, float] = (1.5, 1.5, 1.5),
    seed: int = 0,
    lesions: Iterable[str] | None = None,
    noise_hu: float = 20.0,
    lung_hu: float = -860.0,
) -> Phantom:
    """Make a thorax CT of known truth; the same arguments give the same voxels.

    Args:
        spacing: (z, y, x) in mm; any spacing shows the same anatomy over 300 x 280 x 350 mm.
        seed: of outlines, vessels, lesions, texture and noise.
        lesions: keys from ``LESIONS``; None for all, empty for a healthy thorax.  The cavity brings its
            wall, which is consolidation in the truth.
        noise_hu: standard deviation of the scanner's noise in a voxel.
        lung_hu: mean of the healthy parenchyma between vessels.

    Returns:
        The phantom.

    Raises:
        UnusableInputError: for an unknown lesion or an impossible spacing.
    """
    wanted = _checked_lesions(lesions)
    grid = voxel_grid(_checked_spacing(spacing))
    coarse, trees = _anatomy(seed)
    organs = organs_on_voxels(coarse, grid)
    hu = paint_chest(organs, grid, seed)
    blend(hu, cover(organs.lungs, grid.blur), _parenchyma(organs, grid, seed, lung_hu))
    truth = np.where(organs.lungs < 0, tissues.HEALTHY, tissues.OUTSIDE).astype(np.uint8)
    lung = Lung(grid, organs, trees, hu, truth, seed)
    _paint_lungs(lung, wanted)
    hu += _noise(grid, seed, noise_hu)
    sides = np.where(truth > 0, np.where(grid.axes[2] < 0, 1, 2), 0).astype(np.uint8)
    airways = (organs.trachea < 0) & (truth == tissues.OUTSIDE)
    return Phantom(np.clip(hu, LOWEST_HU, HIGHEST_HU), truth, sides, airways, grid.spacing)


@lru_cache(maxsize=1)
def _anatomy(seed: int) -> tuple[Organs, Trees]:
    """Organs on the lattice and the trees; kept, since one patient is often asked for several times."""
    organs = organs_on_lattice(seed)
    return organs, grow_trees(organs, seed)


def _checked_lesions(lesions: Iterable[str] | None) -> tuple[str, ...]:
    wanted = LESIONS if lesions is None else tuple(lesions)
    unknown = [key for key in wanted if key not in LESIONS]
    if unknown:
        raise UnusableInputError(
            f"The phantom has no lesion named {unknown[0]!r}; choose from {', '.join(LESIONS)}."
        )
    return wanted


def _checked_spacing(spacing: tuple[float, float, float]) -> tuple[float, float, float]:
    if len(spacing) != 3 or not all(0.3 <= step <= 20.0 for step in spacing):
        raise UnusableInputError(
            f"The phantom's spacing {tuple(spacing)} is not usable; give (z, y, x), each 0.3 to 20 mm."
        )
    return float(spacing[0]), float(spacing[1]), float(spacing[2])


def _parenchyma(organs: Organs, grid: Grid, seed: int, lung_hu: float) -> np.ndarray:
    """HU of healthy lung tissue: gravity, slow unevenness, fine texture and the fissures."""
    fine = 0.8 * smooth_noise(grid, 2.2, (seed, 20)) + 0.6 * smooth_noise(grid, 5.0, (seed, 21))
    slow = 6.0 * smooth_noise(grid, 30.0, (seed, 22))
    hu = lung_hu + _GRAVITY_HU * grid.axes[1] + slow + _TEXTURE_HU * fine
    blend(hu, 0.3 * cover(_fissures(grid, seed), grid.blur), -500.0)
    # The pleural border of the lung is a little denser than its core: small vessels and septa end there.
    hu += 25.0 * np.exp(np.minimum(organs.lungs, 0.0) / 2.5)
    return hu


def _fissures(grid: Grid, seed: int) -> np.ndarray:
    """Distance to the sheets between the lobes: an oblique one on each side, a level one on the right."""
    z, y, x = grid.axes
    bend = 4.0 * smooth_noise(grid, 45.0, (seed, 23))
    oblique = (z - 2.0 - 0.95 * y) / 1.38 + 0.05 * np.abs(x) + bend
    level = np.where((x < 0) & (oblique > 0), np.abs(z - 8.0 + 0.12 * y + bend), np.inf)
    return np.minimum(np.abs(oblique), level) - 0.5


def _paint_lungs(lung: Lung, wanted: tuple[str, ...]) -> None:
    paint_lesions(lung, wanted, before_vessels=True)
    seen = paint_trees(lung.hu, lung.grid, lung.trees, lung.organs)
    lung.name(seen & (lung.truth != tissues.FIBROSIS), tissues.VESSEL)
    paint_lesions(lung, wanted, before_vessels=False)


def _noise(grid: Grid, seed: int, deviation: float) -> np.ndarray:
    """White noise through a band pass like that of a medium reconstruction kernel."""
    from scipy.ndimage import gaussian_filter

    white = np.random.default_rng((seed, 30)).standard_normal(grid.shape, dtype=np.float32)
    spacing = np.array(grid.spacing)
    noise = gaussian_filter(white, 0.75 / spacing, truncate=3.0)
    noise -= 0.6 * gaussian_filter(noise, 1.6 / spacing, truncate=3.0)
    return noise * np.float32(deviation / max(float(noise.std()), 1e-6))


def _image(array: np.ndarray, spacing: tuple[float, float, float]) -> SimpleITK.Image:
    import SimpleITK

    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing(spacing[::-1])
    centre = [-(count - 1) / 2 * step for count, step in zip(array.shape, spacing, strict=True)]
    image.SetOrigin(centre[::-1])
    return image


def phantom_image(phantom: Phantom) -> SimpleITK.Image:
    """The CT as an int16 image in HU, direction identity (LPS), the origin at the field's centre."""
    return _image(np.round(phantom.hu).astype(np.int16), phantom.spacing)


def phantom_truth_image(phantom: Phantom) -> SimpleITK.Image:
    """The truth as a uint8 label map with the geometry of ``phantom_image``."""
    return _image(phantom.truth, phantom.spacing)
