"""The diffusion U-Net's layers: MONAI's ``DiffusionModelUNet`` as this project builds it, layer by layer.

Parameters have MONAI's names, shapes and order, so that weights and random starts are the same, and a test
compares the numbers.  It stands here because importing MONAI takes twice as long as importing torch, and
because the encoder alone is what inference needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

EPSILON = 1e-6
LONGEST_PERIOD = 10000.0


class DiffusionUNet(nn.Module):
    """A 3D U-Net that predicts noise: one residual block a level, attention in the middle alone.

    Args:
        channels: channels of each level, finest first; multiples of ``groups``.
        groups: groups of the normalisation layers.
        inputs: channels in.
        outputs: channels out.
    """

    def __init__(self, channels: Sequence[int], groups: int, inputs: int = 2, outputs: int = 1) -> None:
        super().__init__()
        time_channels = 4 * channels[0]
        self.block_out_channels = list(channels)
        self.conv_in = Convolution(inputs, channels[0])
        self.time_embed = nn.Sequential(
            nn.Linear(channels[0], time_channels), nn.SiLU(), nn.Linear(time_channels, time_channels)
        )
        finer = [channels[0], *channels[:-1]]
        last = len(channels) - 1
        self.down_blocks = nn.ModuleList(
            DownBlock(before, after, time_channels, groups, downsample=level < last)
            for level, (before, after) in enumerate(zip(finer, channels, strict=True))
        )
        self.middle_block = MiddleBlock(channels[-1], time_channels, groups)
        self.up_blocks = nn.ModuleList(
            UpBlock(
                channels[min(level + 1, last)], channels[level], finer[level], time_channels, groups, level
            )
            for level in reversed(range(len(channels)))
        )
        self.out = nn.Sequential(
            _norm(groups, channels[0]), nn.SiLU(), _zero(Convolution(channels[0], outputs))
        )

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The noise in ``x``, (batch, outputs, z, y, x); sides are multiples of the coarsest cell."""
        time = self.embed_time(timesteps, x.dtype)
        hidden = self.conv_in(x)
        kept = [hidden]
        for block in self.down_blocks:
            hidden, states = block(hidden, time)
            kept += states
        hidden = self.middle_block(hidden, time)
        for block in self.up_blocks:
            hidden = block(hidden, kept, time)
        noise: torch.Tensor = self.out(hidden)
        return noise

    def embed_time(self, timesteps: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """Embedding of noise levels (batch,), sines and cosines of Ho et al. 2020 through two layers."""
        half = self.block_out_channels[0] // 2
        exponents = torch.arange(half, dtype=torch.float32, device=timesteps.device) / half
        angles = timesteps[:, None].float() * torch.exp(-math.log(LONGEST_PERIOD) * exponents)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1)
        embedded: torch.Tensor = self.time_embed(waves.to(dtype))
        return embedded


class Convolution(nn.Module):
    """A convolution by the name of ``conv``, as MONAI keeps it."""

    def __init__(self, before: int, after: int, side: int = 3, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv3d(before, after, side, stride=stride, padding=side // 2)

    def forward(self, x: torch.Tensor, more: torch.Tensor | None = None) -> torch.Tensor:
        """The convolution of ``x``, each channel raised by ``more`` (channels,) where it is given."""
        convolved: torch.Tensor
        if more is None:
            convolved = self.conv(x)
            return convolved
        bias = more if self.conv.bias is None else self.conv.bias + more
        convolved = functional.conv3d(x, self.conv.weight, bias, self.conv.stride, self.conv.padding)
        return convolved


class ResidualBlock(nn.Module):
    """Two convolutions, the noise level added between, beside a straight way."""

    def __init__(self, before: int, after: int, time_channels: int, groups: int) -> None:
        super().__init__()
        self.norm1 = _norm(groups, before)
        self.conv1 = Convolution(before, after)
        self.time_emb_proj = nn.Linear(time_channels, after)
        self.norm2 = _norm(groups, after)
        self.conv2 = _zero(Convolution(after, after))
        self.skip_connection = nn.Identity() if before == after else Convolution(before, after, side=1)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        # Without gradients nothing needs to be kept: new memory costs as much as what is written into it.
        over = not torch.is_grad_enabled()
        level = self.time_emb_proj(functional.silu(time))
        hidden = functional.silu(self.norm1(x), inplace=over)
        if over and len(level) == 1:  # one noise level for all: the convolution adds it on its way
            hidden = self.conv1(hidden, level[0])
        else:
            hidden = self.conv1(hidden) + level[:, :, None, None, None]
        hidden = self.conv2(functional.silu(self.norm2(hidden), inplace=over))
        beside = self.skip_connection(x)
        summed: torch.Tensor = hidden.add_(beside) if over else beside + hidden
        return summed


class Downsampler(nn.Module):
    """A convolution that halves each side, by the name of ``op``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.op = Convolution(channels, channels, stride=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        halved: torch.Tensor = self.op(x)
        return halved


class DownBlock(nn.Module):
    """One level on the way down; the coarsest keeps its size."""

    def __init__(self, before: int, after: int, time_channels: int, groups: int, downsample: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([ResidualBlock(before, after, time_channels, groups)])
        self.downsampler = Downsampler(after) if downsample else None

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """The level's result, and all that the way up is given."""
        hidden = self.resnets[0](x, time)
        if self.downsampler is None:
            return hidden, [hidden]
        halved = self.downsampler(hidden)
        return halved, [hidden, halved]


class Attention(nn.Module):
    """Projections of self-attention with one head."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.out_proj = nn.Linear(channels, channels)
        self.to_q = nn.Linear(channels, channels)
        self.to_k = nn.Linear(channels, channels)
        self.to_v = nn.Linear(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, cells, channels) to the same."""
        seen = functional.scaled_dot_product_attention(self.to_q(x), self.to_k(x), self.to_v(x))
        attended: torch.Tensor = self.out_proj(seen)
        return attended


class SpatialAttention(nn.Module):
    """Every cell looks at every other."""

    def __init__(self, channels: int, groups: int) -> None:
        super().__init__()
        self.norm = _norm(groups, channels)
        self.attn = Attention(channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        attended = self.attn(self.norm(x).flatten(2).transpose(1, 2))
        return x + attended.transpose(1, 2).reshape(x.shape)


class MiddleBlock(nn.Module):
    """The bottleneck."""

    def __init__(self, channels: int, time_channels: int, groups: int) -> None:
        super().__init__()
        self.resnet_1 = ResidualBlock(channels, channels, time_channels, groups)
        self.attention = SpatialAttention(channels, groups)
        self.resnet_2 = ResidualBlock(channels, channels, time_channels, groups)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        hidden = self.attention(self.resnet_1(x, time)).contiguous()
        bottleneck: torch.Tensor = self.resnet_2(hidden, time)
        return bottleneck


class Upsampler(nn.Module):
    """Doubles each side by the nearest voxel, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.postconv = Convolution(channels, channels)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        doubled: torch.Tensor = self.postconv(functional.interpolate(x, scale_factor=2.0, mode="nearest"))
        return doubled


class UpBlock(nn.Module):
    """One level on the way up: two residual blocks, each beside a state of the way down.

    Args:
        before: channels that come from below.
        after: channels of this level.
        finer: channels of the next finer level, which the second state has.
        time_channels: length of the embedding of the noise level.
        groups: groups of the normalisation layers.
        level: 0 is the finest, which is not made finer.
    """

    def __init__(
        self, before: int, after: int, finer: int, time_channels: int, groups: int, level: int
    ) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(
            [
                ResidualBlock(before + after, after, time_channels, groups),
                ResidualBlock(after + finer, after, time_channels, groups),
            ]
        )
        self.upsampler = Upsampler(after) if level else None

    def forward(self, x: torch.Tensor, kept: list[torch.Tensor], time: torch.Tensor) -> torch.Tensor:
        """Takes its two states from the end of ``kept``."""
        for block in self.resnets:
            x = block(torch.cat([x, kept.pop()], dim=1), time)
        return x if self.upsampler is None else self.upsampler(x)


def _norm(groups: int, channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(groups, channels, eps=EPSILON)


def _zero(module: nn.Module) -> nn.Module:
    """Starts at zero: each residual block is at first the identity."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module
