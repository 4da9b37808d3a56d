"""The diffusion model: U-Net, noise schedule and the HU-preserving window."""

from DiffSegLungLib.representation.diffusion.schedule import TIMESTEPS, noise_schedule
from DiffSegLungLib.representation.diffusion.unet import (
    DOWNSAMPLING,
    build_unet,
    encode,
    from_hounsfield,
    to_hounsfield,
)

__all__ = [
    "DOWNSAMPLING",
    "TIMESTEPS",
    "build_unet",
    "encode",
    "from_hounsfield",
    "noise_schedule",
    "to_hounsfield",
]
