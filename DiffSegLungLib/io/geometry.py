"""Where a voxel grid lies in the patient."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk


@dataclass(frozen=True)
class Geometry:
    """Where a voxel grid lies in the patient, in ITK's (x, y, z) order and LPS millimetres."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    @classmethod
    def of(cls, image: sitk.Image) -> Geometry:
        """Return the geometry of an image."""
        return cls(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())

    @property
    def matrix(self) -> np.ndarray:
        """The direction cosines as a (3, 3) matrix; its columns are the index axes."""
        return np.asarray(self.direction).reshape(3, 3)

    def place(self, image: sitk.Image) -> sitk.Image:
        """Give this spacing, origin and direction to ``image`` and return it."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image
