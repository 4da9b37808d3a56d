"""The 3D diffusion U-Net, its encoder-only path, and the HU-preserving window."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from DiffSegLungLib.densities import WINDOW_HU
from DiffSegLungLib.representation.diffusion.network import DiffusionUNet

HU_MINIMUM, HU_MAXIMUM = WINDOW_HU
DOWNSAMPLING = 8
"""Voxels of the input for one cell of the bottleneck, along each axis."""


def from_hounsfield(hu: torch.Tensor) -> torch.Tensor:
    """Map HU to [-1, 1] by a fixed window: -1000 to -1, -300 to 0, 400 to 1.

    The same map for every scan: nothing is normalised per volume, so density stays physical
    (arXiv 2605.11758, "HU-preserving").
    """
    return (hu.clamp(HU_MINIMUM, HU_MAXIMUM) - HU_MINIMUM) / 700.0 - 1.0


def to_hounsfield(x: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`from_hounsfield` inside the window."""
    return (x + 1.0) * 700.0 + HU_MINIMUM


def build_unet(channels: Sequence[int] = (16, 32, 48, 64), groups: int = 8) -> DiffusionUNet:
    """A 3D U-Net that predicts the noise: two channels in (noised CT, lung mask), one out.

    Args:
        channels: channels at 1, 1/2, 1/4 and 1/8 of the resolution; multiples of ``groups``.
        groups: groups of the normalisation layers; fewer where they would hold a single channel.

    Returns:
        The network.  Attention works in the middle block alone, as in the published code, where the
        requested level never occurs in the encoder.
    """
    # With one channel a group the normalisation would take the timestep's embedding out again.
    groups = max(min(groups, min(channels) // 2), 1)
    return DiffusionUNet(channels, groups)


def encode(unet: DiffusionUNet, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
    """The bottleneck of ``unet``: the very numbers its middle block gives, a sixth of the work.

    Args:
        unet: the network of :func:`build_unet`.
        x: noised CT and lung mask, (batch, 2, z, y, x); sides are multiples of 8.
        timesteps: the noise level of each item, (batch,).

    Returns:
        (batch, channels, z/8, y/8, x/8).
    """
    embedding = unet.embed_time(timesteps, x.dtype)
    hidden = unet.conv_in(x)
    for block in unet.down_blocks:
        hidden, _ = block(hidden, embedding)
    bottleneck: torch.Tensor = unet.middle_block(hidden, embedding)
    return bottleneck


def predict_noise_and_encode(
    unet: DiffusionUNet, x: torch.Tensor, timesteps: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """One whole pass that also returns the bottleneck, for training: (noise, bottleneck)."""
    kept: list[torch.Tensor] = []
    hook = unet.middle_block.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    try:
        noise = unet(x, timesteps)
    finally:
        hook.remove()
    return noise, kept[0]
