"""CT of any size for the bench: a real one, or the phantom, brought onto the wanted grid."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import SimpleITK as sitk

DATA = Path(os.environ.get("DIFFSEGLUNG_DATA", "../shared/data"))
REAL = DATA / "ct" / "LIDC-IDRI-0001.nii.gz"
AIR_HU = -1000


def source() -> tuple[sitk.Image, str]:
    """The real CT where it lies, else the phantom, and which of them."""
    if REAL.exists():
        return sitk.ReadImage(str(REAL)), "LIDC-IDRI-0001"
    from DiffSegLungLib.phantom import make_phantom, phantom_image

    return phantom_image(make_phantom((1.5,) * 3, 0, None)), "phantom"


def scan(size: tuple[int, int, int], in_plane_mm: float) -> sitk.Image:
    """The source with so many voxels (x, y, z): its whole height in the slices, air around it in plane."""
    image, _ = source()
    extent = np.multiply(image.GetSize(), image.GetSpacing())
    spacing = np.array([in_plane_mm, in_plane_mm, extent[2] / size[2]])
    filled = np.minimum(np.rint(extent / spacing).astype(int), size)
    placed = sitk.Resample(
        image,
        filled.tolist(),
        sitk.Transform(),
        sitk.sitkLinear,
        image.GetOrigin(),
        spacing.tolist(),
        image.GetDirection(),
        AIR_HU,
        sitk.sitkInt16,
        True,  # the last slices continue: air beyond the chest would open the lungs
    )
    below = (np.subtract(size, filled) // 2).astype(int)
    above = np.subtract(size, filled) - below
    return sitk.ConstantPad(placed, below.tolist(), above.tolist(), AIR_HU)
