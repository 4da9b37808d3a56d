"""Many small CTs for tests and benchmark of cohorts: one phantom, shrunk, with noise of its own each."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.phantom import make_phantom, phantom_image, phantom_truth_image

COARSE_MM = 6.0
"""Spacing at which the phantom is drawn."""
CLAIMED_MM = 1.5
"""Spacing that the files claim: a thorax of a toy, so that a case takes seconds."""
NOISE_HU = 15.0


class SmallCases:
    """A shrunk phantom that writes CTs and their lung masks.

    Args:
        lesions: as in `make_phantom`; None for all.
    """

    def __init__(self, lesions: list[str] | None = None) -> None:
        phantom = make_phantom((COARSE_MM,) * 3, 1, lesions)
        self._hu = sitk.GetArrayFromImage(phantom_image(phantom)).astype(np.float32)
        self.lungs = _shrunk((sitk.GetArrayFromImage(phantom_truth_image(phantom)) > 0).astype(np.uint8))

    def image(self, seed: int) -> sitk.Image:
        """The CT of one case, int16 HU."""
        noise = np.random.default_rng(seed).normal(0.0, NOISE_HU, self._hu.shape)
        return _shrunk(np.rint(self._hu + noise).astype(np.int16))

    def write(self, folder: Path, masks: Path, count: int) -> None:
        """Write CTs and lung masks ``case000.nrrd`` and so on."""
        folder.mkdir(parents=True, exist_ok=True)
        masks.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            sitk.WriteImage(self.image(number), str(folder / f"case{number:03d}.nrrd"), useCompression=True)
            sitk.WriteImage(self.lungs, str(masks / f"case{number:03d}.nrrd"), useCompression=True)


def _shrunk(array: np.ndarray) -> sitk.Image:
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((CLAIMED_MM,) * 3)
    return image
