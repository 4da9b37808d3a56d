"""Sobel-Diffusion Fusion: the posteriors diffuse, except across edges of the CT and of the features.

    E = a |Sobel(CT)| + (1 - a) |grad(features)|,   g(E) = exp(-(E / k)^2),   p <- p + dt div(g(E) grad p)

with both edge maps scaled robustly to [0, 1] inside the lungs and gradients taken in mm (the method of
arXiv 2605.11758; the edge-stopping function is Perona and Malik 1990, equation 12).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import partial

import numpy as np

from DiffSegLungLib.densities import LOWEST_HU, WINDOW_HU
from DiffSegLungLib.filters import nearest_inside
from DiffSegLungLib.parallel import run_all

SOBEL, PREWITT = 2.0, 1.0
"""Weight of the middle voxel when a difference is smoothed across."""
LEAST_SHARE = 1e-6
"""Of the other tissues, below which they are taken as they were."""
SLAB = 8
"""Slices whose gradients are taken at a time."""


@dataclass(frozen=True)
class FusionSettings:
    """Parameters of the fusion.

    Attributes:
        ct_share: ``a``, the share of the CT's edges.
        edge: ``k``, the edge strength at which diffusion has fallen to 37 %.
        step: ``dt`` in voxels squared, stable up to 1/6.
        steps: number of steps.
    """

    ct_share: float = 0.7
    edge: float = 0.17
    step: float = 0.15
    steps: int = 24

    def stored(self) -> dict[str, float]:
        """The parameters as plain numbers."""
        return asdict(self)


def edge_map(
    hu: np.ndarray,
    features: np.ndarray,
    mask: np.ndarray,
    spacing: float,
    settings: FusionSettings,
    nearest: np.ndarray | None = None,
) -> np.ndarray:
    """E of the equation above.

    Args:
        hu: float32 (z, y, x), the CT's density without vessels, or the CT.
        features: float32 (channels, z, y, x), descriptors of comparable scale.
        mask: bool (z, y, x), the lungs; beyond it is no edge.
        spacing: voxel side in mm.
        settings: the parameters.
        nearest: what :func:`DiffSegLungLib.filters.nearest_inside` says of the mask, where it is known.

    Returns:
        float32 (z, y, x) in [0, 1], 0 outside the lungs.
    """
    # The nearest lung voxel is repeated outside the lungs, so that the pleura makes no edge.
    nearest = nearest_inside(mask) if nearest is None else nearest

    def steepness(values: np.ndarray, middle: float) -> np.ndarray:
        return _gradient(values.take(nearest), spacing, middle)

    tasks = [partial(steepness, _even_steps(hu), SOBEL)]
    tasks += [partial(steepness, channel, PREWITT) for channel in features]
    ct, *others = run_all(tasks)
    ct = _robust(ct, mask)
    texture = np.square(others[0])
    for other in others[1:]:
        texture += np.square(other)
    texture = _robust(np.sqrt(texture, out=texture), mask)
    return (settings.ct_share * ct + (1 - settings.ct_share) * texture).astype(np.float32)


def _even_steps(hu: np.ndarray) -> np.ndarray:
    """Square root of density: the 90 HU from emphysema to healthy lung must not vanish beside 800 HU."""
    return np.sqrt(np.clip(hu, *WINDOW_HU) - LOWEST_HU)


def _gradient(values: np.ndarray, spacing: float, middle: float) -> np.ndarray:
    """Length of the gradient per mm, by central differences smoothed across with (1, ``middle``, 1)."""
    padded = np.pad(values, 1, mode="symmetric")
    scale = 1.0 / (2.0 * (2.0 + middle) ** 2 * spacing)
    result = np.empty(values.shape, np.float32)
    for first in range(0, len(values), SLAB):  # what a slab makes stays in the cache
        part = padded[first : first + SLAB + 2]
        squares = np.square(_slope(part, 0, middle))
        squares += np.square(_slope(part, 1, middle))
        squares += np.square(_slope(part, 2, middle))
        np.sqrt(squares, out=result[first : first + SLAB])
    result *= scale
    return result


def _slope(padded: np.ndarray, along: int, middle: float) -> np.ndarray:
    """Difference of both neighbours along an axis, smoothed across the others; one voxel less at each end."""
    values = _but(padded, along, 2, 0) - _but(padded, along, 0, 2)
    for across in {0, 1, 2} - {along}:
        smooth = _but(values, across, 1, 1) * np.float32(middle)
        smooth += _but(values, across, 0, 2)
        smooth += _but(values, across, 2, 0)
        values = smooth
    return values


def _but(values: np.ndarray, axis: int, first: int, last: int) -> np.ndarray:
    """All but some voxels at both ends of an axis."""
    where = [slice(None)] * values.ndim
    where[axis] = slice(first, values.shape[axis] - last)
    return values[tuple(where)]


def _robust(edges: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Scale to [0, 1] by the 99th percentile inside the lungs; 0 outside."""
    top = float(np.percentile(edges[mask], 99)) if mask.any() else 1.0
    return np.where(mask, np.clip(edges / max(top, 1e-6), 0, 1), 0)


def fuse(posterior: np.ndarray, edges: np.ndarray, mask: np.ndarray, settings: FusionSettings) -> np.ndarray:
    """Diffuse the posteriors along what is no edge.

    Args:
        posterior: float32 (tissue, z, y, x), sums to 1 inside the mask.
        edges: float32 (z, y, x) in [0, 1], from :func:`edge_map`.
        mask: bool (z, y, x); nothing flows across its border.
        settings: the parameters.

    Returns:
        float32 (tissue, z, y, x), still summing to 1 inside the mask, 0 outside.
    """
    fused = np.zeros(posterior.shape, np.float32)
    fused[:, mask] = diffuse(posterior[:, mask], edges[mask], mask, settings)
    return fused


def diffuse(shares: np.ndarray, edges: np.ndarray, mask: np.ndarray, settings: FusionSettings) -> np.ndarray:
    """As :func:`fuse`, of the lung voxels alone: float32 (tissue, voxels).

    Args:
        shares: float32 (tissue, voxels).
        edges: float32 (voxels,).
        mask: bool (z, y, x), where those voxels are.
        settings: the parameters.
    """
    from scipy.sparse import csr_array

    flow = np.exp(-np.square(edges / settings.edge)).astype(np.float32)
    columns, weights = _flows(flow, mask, settings.step)
    ends = np.arange(0, columns.size + 1, columns.shape[1])
    exchange = csr_array((weights.ravel(), columns.ravel(), ends), shape=(len(flow), len(flow)))
    values = np.ascontiguousarray(shares.T, dtype=np.float32)
    for _ in range(settings.steps):
        values = exchange @ values
    return np.ascontiguousarray(values.T)


def keep_ratio(fused: np.ndarray, posterior: np.ndarray, pair: tuple[int, int]) -> np.ndarray:
    """Give two tissues the ratio back that they had before the fusion; their sum stays.

    Meant for healthy lung and emphysema: the step between them is a tenth of the others, so the fusion takes
    the edge of a hole for none and washes it out; density alone tells them apart better.

    Args:
        fused: float32 (tissue, z, y, x), what :func:`fuse` gave.
        posterior: the same before.
        pair: their places on the first axis.

    Returns:
        float32 (tissue, z, y, x).
    """
    first, second = pair
    together = fused[first] + fused[second]
    before = posterior[first] + posterior[second]
    share = np.divide(posterior[first], before, out=np.full_like(before, 0.5), where=before > 0)
    result = fused.copy()
    result[first] = together * share
    result[second] = together - result[first]
    return result


def keep_share(fused: np.ndarray, posterior: np.ndarray, member: int) -> np.ndarray:
    """Give a tissue the posterior back that it had before the fusion; the others share the rest.

    Meant for consolidation: density alone tells it, and its corners are sharper than the fusion leaves them.

    Args:
        fused: float32 (tissue, z, y, x), what :func:`fuse` gave.
        posterior: the same before.
        member: the tissue's place on the first axis.

    Returns:
        float32 (tissue, z, y, x), sums as before.
    """
    others = fused.sum(axis=0) - fused[member]
    rest = posterior.sum(axis=0) - posterior[member]
    scale = np.divide(rest, others, out=np.zeros_like(rest), where=others > LEAST_SHARE)
    result = fused * scale
    result[member] = posterior[member]
    alone = others <= LEAST_SHARE
    result[:, alone] = posterior[:, alone]
    return result


def _flows(flow: np.ndarray, mask: np.ndarray, step: float) -> tuple[np.ndarray, np.ndarray]:
    """Of what lung voxels each one is made in a step, and by which shares: itself and its six neighbours.

    Args:
        flow: float32 (voxels,), g(E) in the lungs.
        mask: bool (z, y, x), the lungs.
        step: ``dt``.

    Returns:
        Numbers of voxels, int32 (voxels, 7), and shares, float32 (voxels, 7) that sum to 1.
    """
    count = len(flow)
    number = np.full([side + 2 for side in mask.shape], -1, np.int32)
    number[1:-1, 1:-1, 1:-1][mask] = np.arange(count, dtype=np.int32)
    where = np.flatnonzero(number >= 0)
    columns = np.empty((count, 7), np.int32)
    weights = np.zeros((count, 7), np.float32)
    columns[:, 6] = own = np.arange(count, dtype=np.int32)
    strides = [stride // number.itemsize for stride in number.strides]
    for member, offset in enumerate(sign * stride for stride in strides for sign in (-1, 1)):
        neighbour = number.ravel()[where + offset]
        there = neighbour >= 0
        columns[:, member] = np.where(there, neighbour, own)
        # The lesser conductance of both, none across the mask's border.
        weights[:, member] = np.minimum(flow, flow[columns[:, member]]) * (step * there)
    weights[:, 6] = 1.0 - weights[:, :6].sum(axis=1)
    return columns, weights
