"""The simpler methods that stand beside ours, on the same lungs, the same grid and the same scoring.

Each maps HU (and what it says it needs) on the working grid to a label map.  None of them knows cavities.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DiffSegLungLib.densities import AIR_HU, LOW_ATTENUATION_HU
from DiffSegLungLib.filters import masked_mean
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS, HEALTHY

if TYPE_CHECKING:
    from DiffSegLungLib.parenchyma.grid import Grid

THRESHOLDS = (LOW_ATTENUATION_HU, -750.0, -300.0)
"""Emphysema below the first, ground glass above the second, consolidation above the third, in HU."""
OPENING_MM = 3.0
AROUND_HU = -870.0
"""Put around the lungs of a whole CT before thresholds, so that the chest wall makes no rim of disease."""
SAMPLE = 40_000
CELL = 8
"""Voxels of a cell that radiomics describe."""
PUBLISHED_BOUNDS = (-750.0, -600.0, -500.0, -200.0)
"""Bounds of the mean HU of a cluster in the published repository: emphysema, ground glass, healthy, fibrosis,
consolidation, from low to high."""
PUBLISHED_NAMES = (EMPHYSEMA, GROUND_GLASS, HEALTHY, FIBROSIS, CONSOLIDATION)

Cluster = Callable[[float], int]


def fixed_thresholds(hu: np.ndarray) -> np.ndarray:
    """Fixed HU bounds on a 3 x 3 x 3 median."""
    return _by_thresholds(ndimage.median_filter(hu, 3))


def opened_thresholds(hu: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """The same after a grey opening with a ball of 3 mm radius took the vessels away: the one to beat.

    Args:
        hu: (z, y, x).
        spacing: (z, y, x) in mm; slices farther apart than the ball is wide are opened one by one.
    """
    radius = [round(OPENING_MM / step) for step in reversed(spacing)]
    image = sitk.GetImageFromArray(ndimage.median_filter(hu, 3))
    opened = sitk.GrayscaleMorphologicalOpening(image, radius, sitk.sitkBall)
    return _by_thresholds(sitk.GetArrayFromImage(opened))


def _by_thresholds(hu: np.ndarray) -> np.ndarray:
    names = np.array([EMPHYSEMA, HEALTHY, GROUND_GLASS, CONSOLIDATION], np.uint8)
    return names[np.digitize(hu, THRESHOLDS)]


def hounsfield_mixture(hu: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    """A Gaussian mixture of five components on the patient's HU alone, named by its means."""
    from sklearn.mixture import GaussianMixture

    values = masked_mean(hu, mask, 0.8)
    mixture = GaussianMixture(5, random_state=seed).fit(_some(values[mask][:, None], seed))
    named = np.array([_physiological(float(mean)) for mean in mixture.means_[:, 0]], np.uint8)
    return _paint(mask, named[mixture.predict(values[mask][:, None])])


def radiomic_clusters(hu: np.ndarray, mask: np.ndarray, seed: int) -> np.ndarray:
    """k-means (five clusters) on the 34 radiomic numbers of each cell, named by the clusters' mean HU."""
    from DiffSegLungLib.representation.radiomics.batched import teacher_for_patches

    blocks, insides, shape = cut_cells(hu, AIR_HU), cut_cells(mask, False), cell_grid(mask.shape)
    chosen = insides.mean(axis=(1, 2, 3)) > 0.05
    numbers = teacher_for_patches(blocks[chosen], insides[chosen])
    numbers = (numbers - numbers.mean(0)) / np.maximum(numbers.std(0), 1e-6)
    means = (blocks[chosen] * insides[chosen]).sum((1, 2, 3)) / insides[chosen].sum((1, 2, 3))
    return _cluster_cells(numbers, means, chosen, shape, mask, _physiological, seed)


def embedding_clusters(
    cells: np.ndarray, hu: np.ndarray, mask: np.ndarray, seed: int, name: Cluster | None = None
) -> np.ndarray:
    """A Gaussian mixture of five components on the diffusion embedding alone, named by their mean HU.

    Args:
        cells: projected embedding, (channels, Z, Y, X).
        hu: HU on the working grid.
        mask: the lungs.
        seed: of the mixture's starts.
        name: from mean HU to label; physiological bounds by default.
    """
    blocks, insides = cut_cells(hu, AIR_HU), cut_cells(mask, False)
    shape = cell_grid(mask.shape)
    chosen = insides.mean(axis=(1, 2, 3)) > 0.05
    trimmed = cells[:, : shape[0], : shape[1], : shape[2]].reshape(len(cells), -1)
    means = (blocks[chosen] * insides[chosen]).sum((1, 2, 3)) / insides[chosen].sum((1, 2, 3))
    return _cluster_cells(
        trimmed[:, chosen].T, means, chosen, shape, mask, name or _physiological, seed, True
    )


def published_name(mean: float) -> int:
    """The name that the published repository gives to a cluster of this mean HU."""
    return PUBLISHED_NAMES[int(np.digitize(mean, PUBLISHED_BOUNDS))]


def _physiological(mean: float) -> int:
    """The name that the mean HU of a cluster speaks for; fibrosis cannot be told by HU alone."""
    return int(np.array([EMPHYSEMA, HEALTHY, GROUND_GLASS, CONSOLIDATION])[np.digitize(mean, THRESHOLDS)])


def _some(points: np.ndarray, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return points[rng.permutation(len(points))[:SAMPLE]]


def _paint(mask: np.ndarray, values: np.ndarray) -> np.ndarray:
    labels = np.zeros(mask.shape, np.uint8)
    labels[mask] = values
    return labels


def cell_grid(shape: tuple[int, ...]) -> tuple[int, int, int]:
    z, y, x = (-(-side // CELL) for side in shape)
    return z, y, x


def cut_cells(values: np.ndarray, fill: float) -> np.ndarray:
    """Cut a volume into cells: (cells, 8, 8, 8)."""
    shape = cell_grid(values.shape)
    padding = [(0, CELL * cells - side) for cells, side in zip(shape, values.shape, strict=True)]
    padded = np.pad(values, padding, constant_values=fill)
    split = padded.reshape(shape[0], CELL, shape[1], CELL, shape[2], CELL)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(-1, CELL, CELL, CELL)


def _cluster_cells(
    numbers: np.ndarray,
    means: np.ndarray,
    chosen: np.ndarray,
    shape: tuple[int, int, int],
    mask: np.ndarray,
    name: Cluster,
    seed: int,
    mixture: bool = False,
) -> np.ndarray:
    """Cluster cells, name clusters by the mean HU of their cells, and give each voxel its cell's name."""
    from sklearn.cluster import KMeans
    from sklearn.mixture import GaussianMixture

    if mixture:
        found = GaussianMixture(5, reg_covar=1e-3, random_state=seed).fit_predict(numbers)
    else:
        found = KMeans(5, n_init=4, random_state=seed).fit_predict(numbers)
    groups = [means[found == cluster] for cluster in range(5)]
    named = np.array([name(float(group.mean())) if group.size else HEALTHY for group in groups], np.uint8)
    coarse = np.full(len(chosen), HEALTHY, np.uint8)
    coarse[chosen] = named[found]
    fine = coarse.reshape(shape).repeat(CELL, 0).repeat(CELL, 1).repeat(CELL, 2)
    return np.where(mask, fine[: mask.shape[0], : mask.shape[1], : mask.shape[2]], 0).astype(np.uint8)


def run_all(grid: Grid, cells: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Every baseline on one working grid; labels by the baseline's name."""
    mask, hu = grid.mask, grid.hu
    return {
        "thresholds": fixed_thresholds(hu) * mask,
        "thresholds after opening": opened_thresholds(hu, (grid.spacing,) * 3) * mask,
        "HU mixture, K = 5": hounsfield_mixture(hu, mask, seed),
        "k-means on radiomics": radiomic_clusters(hu, mask, seed),
        "embedding mixture, K = 5": embedding_clusters(cells, hu, mask, seed),
        "embedding mixture, published names": embedding_clusters(cells, hu, mask, seed, published_name),
    }
