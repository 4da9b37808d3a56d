"""The lung network's layers: MONAI's ``UNet`` with one residual unit a level, as this project builds it.

Parameters have MONAI's names and shapes, and a test compares the numbers.  It stands here for the reason that
``diffusion/network.py`` does: importing MONAI takes longer than finding the lungs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

SIDE = 2
"""Voxels of a block that becomes channels, along each axis."""


class ResidualUNet(nn.Module):
    """A 3D U-Net whose levels below the first halve each side.

    Args:
        inputs: channels in.
        outputs: channels out.
        channels: channels of each level, finest first; the last two levels have the same size.
    """

    def __init__(self, inputs: int, outputs: int, channels: Sequence[int]) -> None:
        super().__init__()
        self.model = _level(inputs, outputs, channels, top=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, inputs, z, y, x) to (batch, outputs, z, y, x)."""
        logits: torch.Tensor = self.model(x)
        return logits


def _level(inputs: int, outputs: int, channels: Sequence[int], top: bool) -> nn.Sequential:
    """Down, everything coarser beside a straight way, and up again."""
    here, coarser = channels[0], channels[1]
    stride = 1 if top else 2
    bottom = len(channels) == 2
    below = ResidualUnit(here, coarser) if bottom else _level(here, here, channels[1:], top=False)
    joined = here + (coarser if bottom else here)
    up = nn.Sequential(
        NormedConvolution(nn.ConvTranspose3d(joined, outputs, 3, stride, 1, output_padding=stride - 1)),
        ResidualUnit(outputs, outputs, last=top),
    )
    return nn.Sequential(ResidualUnit(inputs, here, stride), Beside(below), up)


class Beside(nn.Module):
    """What comes in beside what a module makes of it."""

    def __init__(self, submodule: nn.Module) -> None:
        super().__init__()
        self.submodule = submodule

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, self.submodule(x)], dim=1)


class NormedConvolution(nn.Module):
    """A convolution, then instance normalisation and a leaky rectifier unless it is the network's last."""

    def __init__(self, conv: nn.Module, last: bool = False) -> None:
        super().__init__()
        self.conv = conv
        self.last = last

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        convolved: torch.Tensor = self.conv(x)
        return convolved if self.last else functional.leaky_relu(functional.instance_norm(convolved))


class ResidualUnit(nn.Module):
    """A convolution beside a straight way, which is a convolution too where size or channels change."""

    def __init__(self, before: int, after: int, stride: int = 1, last: bool = False) -> None:
        super().__init__()
        unit = NormedConvolution(nn.Conv3d(before, after, 3, stride, padding=1), last)
        self.conv = nn.Sequential(OrderedDict(unit0=unit))
        self.residual: nn.Module = nn.Identity()
        if stride != 1:
            self.residual = nn.Conv3d(before, after, 3, stride, padding=1)
        elif before != after:
            self.residual = nn.Conv3d(before, after, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        summed: torch.Tensor = self.conv(x) + self.residual(x)
        return summed


class Blocks(nn.Module):
    """Blocks of 2 x 2 x 2 voxels to channels, or back (Shi et al. 2016, in three dimensions)."""

    def __init__(self, back: bool) -> None:
        super().__init__()
        self.back = back

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return _from_channels(x) if self.back else _to_channels(x)


def _to_channels(x: torch.Tensor) -> torch.Tensor:
    batch, channels = x.shape[:2]
    z, y, x_side = (side // SIDE for side in x.shape[2:])
    blocks = x.reshape(batch, channels, z, SIDE, y, SIDE, x_side, SIDE).permute(0, 1, 3, 5, 7, 2, 4, 6)
    return blocks.reshape(batch, channels * SIDE**3, z, y, x_side)


def _from_channels(x: torch.Tensor) -> torch.Tensor:
    batch, channels, z, y, x_side = x.shape
    blocks = x.reshape(batch, channels // SIDE**3, SIDE, SIDE, SIDE, z, y, x_side)
    return blocks.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(batch, -1, z * SIDE, y * SIDE, x_side * SIDE)
