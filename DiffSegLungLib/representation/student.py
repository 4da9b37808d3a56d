"""The student: diffusion U-Net and head in one module, as trained and as shipped."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from DiffSegLungLib.representation.diffusion.schedule import noise_schedule
from DiffSegLungLib.representation.diffusion.unet import (
    build_unet,
    encode,
    from_hounsfield,
    predict_noise_and_encode,
)
from DiffSegLungLib.representation.distillation import StudentHead


class Student(nn.Module):
    """Diffusion U-Net with the student's head.

    Args:
        channels: channels of the U-Net's levels.
        groups: groups of its normalisation layers.
        hidden: width of the head.
    """

    def __init__(
        self, channels: Sequence[int] = (16, 32, 48, 64), groups: int = 8, hidden: int = 128
    ) -> None:
        super().__init__()
        self.unet = build_unet(channels, groups)
        self.head = StudentHead(channels[-1], hidden)
        self.schedule = noise_schedule()

    def noised(
        self, x: torch.Tensor, mask: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """The network's input: x noised to ``timesteps`` beside the mask, (batch, 2, z, y, x)."""
        return torch.cat([self.schedule.add_noise(x, noise, timesteps), mask], dim=1)

    def forward(
        self, x: torch.Tensor, timesteps: torch.Tensor, numbers: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Predicted noise, and the embedding of each cell, from a noised input (training)."""
        noise, bottleneck = predict_noise_and_encode(self.unet, x, timesteps)
        return noise, self.head(bottleneck, numbers)

    def embed(self, x: torch.Tensor, timesteps: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """The embedding alone, without the decoder (inference): (batch, EMBEDDING, z/8, y/8, x/8)."""
        return self.head(encode(self.unet, x, timesteps), numbers)

    def embed_hounsfield(
        self,
        hu: torch.Tensor,
        mask: torch.Tensor,
        noise: torch.Tensor,
        timestep: int,
        numbers: torch.Tensor,
    ) -> torch.Tensor:
        """Embeddings of CT windows at one noise level.

        Args:
            hu: (batch, 1, z, y, x), HU.
            mask: (batch, 1, z, y, x), 1 in the lungs.
            noise: (z, y, x), the same for every window.
            timestep: the noise level.
            numbers: what :func:`cell_numbers` says of the windows' cells.

        Returns:
            (batch, EMBEDDING, z/8, y/8, x/8).
        """
        timesteps = torch.full((1,), timestep, device=hu.device)  # one for all windows
        noised = self.noised(from_hounsfield(hu), mask, noise.expand_as(hu), timesteps)
        return self.embed(noised.contiguous(memory_format=torch.channels_last_3d), timesteps, numbers)
