"""Sobel-Diffusion Fusion: the posteriors diffuse, except across edges of the CT and of the features.

    E = a |Sobel(CT)| + (1 - a) |grad(features)|,   g(E) = exp(-(E / k)^2),   p <- p + dt div(g(E) grad p)

with both edge maps scaled robustly to [0, 1] inside the lungs and gradients taken in mm (the method of
arXiv 2605.11758; the edge-stopping function is Perona and Malik 1990, equation 12).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch
from scipy import ndimage


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
    edge: float = 0.25
    step: float = 0.15
    steps: int = 6

    def stored(self) -> dict[str, float]:
        """The parameters as plain numbers."""
        return asdict(self)


def edge_map(
    hu: np.ndarray, features: np.ndarray, mask: np.ndarray, spacing: float, settings: FusionSettings
) -> np.ndarray:
    """E of the equation above.

    Args:
        hu: float32 (z, y, x), the CT's density without vessels, or the CT.
        features: float32 (channels, z, y, x), descriptors of comparable scale.
        mask: bool (z, y, x), the lungs; beyond it is no edge.
        spacing: voxel side in mm.
        settings: the parameters.

    Returns:
        float32 (z, y, x) in [0, 1], 0 outside the lungs.
    """
    # The nearest lung voxel is repeated outside the lungs, so that the pleura makes no edge.
    nearest = tuple(ndimage.distance_transform_edt(~mask, return_distances=False, return_indices=True))
    ct = _robust(_gradient(_even_steps(hu)[nearest], spacing, ndimage.sobel, 32.0), mask)
    gradients = [_gradient(channel[nearest], spacing, ndimage.prewitt, 18.0) for channel in features]
    texture = _robust(np.sqrt(np.sum(np.square(gradients), axis=0)), mask)
    return (settings.ct_share * ct + (1 - settings.ct_share) * texture).astype(np.float32)


def _even_steps(hu: np.ndarray) -> np.ndarray:
    """Square root of density: the 90 HU from emphysema to healthy lung must not vanish beside 800 HU."""
    return np.sqrt(np.clip(hu, -1000, 400) + 1024.0)


def _gradient(values: np.ndarray, spacing: float, operator: object, gain: float) -> np.ndarray:
    """Length of the gradient per mm; ``gain`` is the operator's response to a unit slope."""
    parts = [operator(values, axis=axis) / (gain * spacing) for axis in range(3)]  # type: ignore[operator]
    return np.sqrt(np.sum(np.square(parts), axis=0))


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
    flow = torch.from_numpy(np.exp(-np.square(edges / settings.edge)).astype(np.float32))
    inside = torch.from_numpy(mask)
    conductance = [_between(flow, inside, axis) for axis in range(3)]
    return np.stack([_diffuse(channel * mask, conductance, settings) for channel in posterior])


def _between(flow: torch.Tensor, inside: torch.Tensor, axis: int) -> torch.Tensor:
    """Conductance between neighbours along an axis: the lesser of both, none across the mask's border."""
    count = flow.shape[axis] - 1
    first, second = flow.narrow(axis, 0, count), flow.narrow(axis, 1, count)
    both = inside.narrow(axis, 0, count) & inside.narrow(axis, 1, count)
    return torch.minimum(first, second) * both


def _diffuse(channel: np.ndarray, conductance: list[torch.Tensor], settings: FusionSettings) -> np.ndarray:
    values = torch.from_numpy(np.ascontiguousarray(channel, dtype=np.float32)).clone()
    for _ in range(settings.steps):
        change = torch.zeros_like(values)
        for axis, between in enumerate(conductance):
            count = values.shape[axis] - 1
            flux = torch.diff(values, dim=axis).mul_(between).mul_(settings.step)
            change.narrow(axis, 0, count).add_(flux)
            change.narrow(axis, 1, count).sub_(flux)
        values.add_(change)
    return values.numpy()
