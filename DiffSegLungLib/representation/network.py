"""The diffusion U-Net with its calibration, as a model folder holds it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.representation.reading import WINDOW, Reading, read
from DiffSegLungLib.representation.tissue_unet import CELL, SPACING, TissueUNet

GAP_MM = 6.0
"""Slices farther apart stand for themselves: they are repeated, never blended into the next."""
HIGHEST_HU = 1000.0
"""What the network was trained on."""


@dataclass(frozen=True)
class TissueNetwork:
    """A trained network.

    Attributes:
        unet: in evaluation mode.
        temperature: of the posterior; above 1 for less certainty.
        bias: of each class in nats.
    """

    unet: TissueUNet
    temperature: float
    bias: tuple[float, ...]

    def read(
        self,
        hu: np.ndarray,
        spacing: tuple[float, float, float],
        told: Callable[[float], None] = lambda share: None,
        mirrored: bool = False,
    ) -> Reading:
        """Read a CT or a box of one.

        Args:
            hu: float32 (z, y, x).
            spacing: (z, y, x) in mm.
            told: called with the share that is done.
            mirrored: read the mirror image, too, and take the mean: steadier, in twice the time.
        """
        device, values = next(self.unet.parameters()).device.type, on_grid(hu, spacing)
        if not mirrored:
            return read(self.unet, values, device, WINDOW, told)
        padded = np.pad(values, [(0, 0), (0, 0), (0, values.shape[2] % CELL)], constant_values=LOWEST_HU)
        once = read(self.unet, padded, device, WINDOW, lambda share: told(share / 2))
        twice = read(self.unet, padded[..., ::-1], device, WINDOW, lambda share: told((1 + share) / 2))
        return Reading(
            (once.posterior / 2 + twice.posterior[..., ::-1] / 2)[..., : values.shape[2]],
            once.features / 2 + twice.features[..., ::-1] / 2,
        )


def on_grid(hu: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """HU on the network's grid, float32."""
    if spacing[0] > GAP_MM:
        plane = (spacing[0], *SPACING[1:])
        in_plane = resample(hu, spacing, plane)
        values = resample(in_plane, plane, SPACING, interpolation="nearest")
    else:
        values = resample(hu, spacing, SPACING)
    return np.clip(values, LOWEST_HU, HIGHEST_HU)
