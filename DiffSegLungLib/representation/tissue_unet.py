"""The diffusion U-Net that decides: it predicts the noise of a noisy CT and the tissue of each voxel.

One network, three tasks (arXiv 2605.11758, sections "Diffusion" and "Radiomic distillation"): the noise that
was added to the HU, a description that radiomics teach, and the tissues that were painted into healthy lung.
Pixels of 1 mm are seen by a bank of filters, anatomy by a U-Net on cells of 2 mm, which MONAI's networks
do not have: at 1 mm throughout a step costs four times as much.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from DiffSegLungLib.densities import AIR_HU, LOWEST_HU

SPACING = (2.0, 1.0, 1.0)
"""Voxels of the network's grid, (z, y, x) in mm."""
AIRWAY = 8
"""Class of trachea and main bronchi, beside the label values of ``tissues``."""
CLASSES = 9
"""Outside, healthy, emphysema, ground glass, fibrosis, consolidation, cavity, vessel, airway."""
CELL = 2
"""Pixels of a cell, in plane."""
DEEPEST = 8
"""Cells of the coarsest level: sides of a window in cells are multiples of it."""
WINDOWS_HU = ((LOWEST_HU, 300.0), (AIR_HU, -600.0), (-200.0, 200.0))
"""Lung, air spaces, soft tissue: the same HU at three contrasts, clipped but never normalised by patient."""
LOWEST_WAVE, TIME_WIDTH = 1e-4, 32


class Outputs(NamedTuple):
    """What the network says of a window.

    Attributes:
        tissues: logits, (batch, ``CLASSES``, z, y, x).
        noise: of unit deviation, as predicted, (batch, 1, z, y, x).
        features: of the decoder, by cell, (batch, channels, z, y / 2, x / 2).
    """

    tissues: torch.Tensor
    noise: torch.Tensor
    features: torch.Tensor


class Mixing(nn.Conv3d):
    """A convolution of one voxel; channels stay innermost in memory, where the next steps are fastest."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__(entering, leaving, 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """(batch, entering, z, y, x) -> (batch, leaving, z, y, x)."""
        return mixed(values, self.weight.flatten(1), self.bias)


def mixed(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    """Channels of each voxel by a matrix (leaving, entering)."""
    return F.linear(values.movedim(1, -1), weight, bias).movedim(-1, 1)


class ResidualBlock(nn.Module):
    """Two convolutions beside a skip; the noise level shifts what the first one found."""

    def __init__(self, entering: int, leaving: int) -> None:
        super().__init__()
        self.first = nn.Conv3d(entering, leaving, 3, padding=1, bias=False)
        self.second = nn.Conv3d(leaving, leaving, 3, padding=1, bias=False)
        self.first_norm, self.second_norm = nn.GroupNorm(4, leaving), nn.GroupNorm(4, leaving)
        self.level = nn.Linear(TIME_WIDTH, leaving)
        self.skip = Mixing(entering, leaving) if entering != leaving else nn.Identity()
        nn.init.zeros_(self.level.weight)
        nn.init.zeros_(self.level.bias)

    def forward(self, values: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """(batch, entering, z, y, x) and the embedded noise level -> (batch, leaving, z, y, x)."""
        shift = self.level(level)[:, :, None, None, None]
        found = F.relu(self.first_norm(self.first(values)) + shift, inplace=True)
        return F.relu(self.second_norm(self.second(found)) + self.skip(values), inplace=True)


class TissueUNet(nn.Module):
    """HU on 2 x 1 x 1 mm and a noise level -> :class:`Outputs`.

    Args:
        widths: channels of each level; each is half as fine as the one before.
    """

    def __init__(self, widths: tuple[int, ...] = (24, 48, 96, 160)) -> None:
        super().__init__()
        first, colours = widths[0], len(WINDOWS_HU)
        pairs = list(zip(widths, widths[1:], strict=False))
        self.widths = widths
        self.stem = nn.Conv3d(colours, first, (1, 5, 5), stride=(1, CELL, CELL), padding=(0, 2, 2))
        self.time = nn.Sequential(nn.Linear(TIME_WIDTH, TIME_WIDTH), nn.SiLU())
        self.down = nn.ModuleList([ResidualBlock(first, first)] + [ResidualBlock(a, b) for a, b in pairs])
        self.up = nn.ModuleList([ResidualBlock(a + b, a) for a, b in pairs])
        self.fine = nn.Conv3d(colours, 16, (1, 3, 3), padding=(0, 1, 1))
        self.join = Mixing(first + 16, 32)
        self.tissues = Mixing(32, CLASSES)
        self.noise = nn.Conv3d(32, 1, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, hu: torch.Tensor, timestep: torch.Tensor | None = None) -> Outputs:
        """``hu``: float (batch, 1, z, y, x); ``timestep``: (batch,), 0 where no noise was added."""
        seen = hounsfield_windows(hu)
        if timestep is None:
            timestep = torch.zeros(len(hu), device=hu.device)
        features = self.decode(seen, self.time(sinusoids(timestep)))
        joined = self._joined(features, F.relu(self.fine(seen), inplace=True))
        return Outputs(self.tissues(joined), self.noise(joined), features)

    def _joined(self, features: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """``join`` of the features, spread to pixels, and of what is seen there.

        It is linear, so the features are mixed before they are spread, at a quarter of the work.
        """
        weight, cells = self.join.weight.flatten(1), features.shape[1]
        coarse = mixed(features, weight[:, :cells], self.join.bias)
        spread = F.interpolate(coarse, scale_factor=(1, CELL, CELL), mode="trilinear", align_corners=False)
        return F.relu(spread + mixed(fine, weight[:, cells:]), inplace=True)

    def decode(self, seen: torch.Tensor, level: torch.Tensor) -> torch.Tensor:
        """Features of the decoder by cell."""
        values, skips = F.relu(self.stem(seen)), []
        for depth, block in enumerate(self.down):
            values = block(values, level)
            if depth < len(self.down) - 1:
                skips.append(values)
                values = F.avg_pool3d(values, 2)
        for block, skip in zip(reversed(self.up), reversed(skips), strict=True):
            values = block(torch.cat([skip, F.interpolate(values, scale_factor=2.0)], 1), level)
        return values


def hounsfield_windows(hu: torch.Tensor) -> torch.Tensor:
    """HU at the contrasts of ``WINDOWS_HU``, each between -1 and 1 or a little more: (batch, 3, z, y, x)."""
    parts = []
    for low, high in WINDOWS_HU:
        parts.append((hu.clamp(low, high) - (low + high) / 2) / ((high - low) / 2))
    return torch.cat(parts, 1)


def sinusoids(timestep: torch.Tensor) -> torch.Tensor:
    """Noise levels as waves of falling frequency, (batch, ``TIME_WIDTH``); zero says there is no noise."""
    half = TIME_WIDTH // 2
    rates = torch.exp(torch.arange(half, device=timestep.device) * (math.log(LOWEST_WAVE) / half))
    angles = timestep[:, None].float() * rates
    return torch.cat([torch.sin(angles), torch.cos(angles) - 1.0], 1)
