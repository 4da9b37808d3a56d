"""A small 3D U-Net that tells right lung, left lung and what lies outside, dense lung included.

It works on a grid of 3 mm: coarse, since it only has to know the region. The air's edge in the CT gives the
exact border of aerated lung (``lungs.py``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib.densities import WINDOW_HU
from DiffSegLungLib.lungs.shapes import WORK_MM

if TYPE_CHECKING:
    import torch

NETWORK_MM = 3.0
"""Voxel side that the network sees."""
STEP = 24
"""Sides are padded to multiples of this many working voxels: 16 of the network's, which it halves 4 times."""
CHANNELS = (24, 48, 96, 128, 128)
SOFT_WINDOW_HU = (-100.0, 150.0)
"""HU that the two input channels show; the narrow one tells fluid from consolidated lung."""


class LungNetwork:
    """The trained network, ready for use.

    Args:
        unet: made by :func:`build_unet`, with its weights.
    """

    def __init__(self, unet: torch.nn.Module) -> None:
        self.unet = unet.eval().requires_grad_(False)

    def __call__(self, work: np.ndarray) -> np.ndarray:
        """Probability of outside, right and left lung.

        Args:
            work: HU (z, y, x) on the working grid of ``lungs.py``.

        Returns:
            float32 (3, z, y, x) on the same grid: outside, right and left lung.
        """
        import torch

        device = next(self.unet.parameters()).device
        padded = np.pad(work.astype(np.float32), [(0, -side % STEP) for side in work.shape], mode="edge")
        with torch.inference_mode():
            x = to_network_grid(torch.from_numpy(padded)[None, None].to(device))
            shares = torch.softmax(self.unet(from_hounsfield(x)), dim=1)
            fine = torch.nn.functional.interpolate(shares, size=padded.shape, mode="trilinear")
        z, y, x_side = work.shape
        return fine[0, :, :z, :y, :x_side].cpu().numpy()


def to_network_grid(values: torch.Tensor) -> torch.Tensor:
    """From the working grid to the network's; (batch, channel, z, y, x), sides multiples of ``STEP``."""
    from torch.nn import functional

    size = [round(side * WORK_MM / NETWORK_MM) for side in values.shape[2:]]
    return functional.interpolate(values, size=size, mode="trilinear")


def from_hounsfield(hu: torch.Tensor) -> torch.Tensor:
    """HU (batch, 1, z, y, x) as the two input channels, each -1 to 1 over its window."""
    import torch

    channels = [2 * (hu - low) / (high - low) - 1 for low, high in (WINDOW_HU, SOFT_WINDOW_HU)]
    return torch.cat(channels, dim=1).clamp(-1, 1)


def build_unet(channels: Sequence[int] = CHANNELS) -> torch.nn.Module:
    """The untrained network: (batch, 2, z, y, x) to logits (batch, 3, z, y, x); sides multiples of 16.

    Blocks of 2 x 2 x 2 voxels become channels first and last, so that nothing costly runs at full size.
    """
    from torch import nn

    from DiffSegLungLib.lungs.unet import Blocks, ResidualUNet

    unet = ResidualUNet(2 * 8, 3 * 8, channels)
    return nn.Sequential(Blocks(back=False), unet, Blocks(back=True))
