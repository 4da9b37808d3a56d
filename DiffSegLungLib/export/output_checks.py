"""Can the outputs hold what this CT is?  Found out from its headers, before the long work."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.errors import UnusableInputError

NIFTI = (".nii", ".nii.gz")
SQUARE = 1e-3
"""What the product of two axes may be off, as a cosine; a tilt of half a degree is 0.009."""


def require_fitting(source: Path, series: str | None, outputs: Iterable[Path], as_dicom: bool) -> None:
    """Refuses a NIfTI of a sheared CT, and a DICOM segmentation of what none can refer to.

    Args:
        source: the CT.
        series: as in ``segment``.
        outputs: all that shall be written.
        as_dicom: whether a DICOM segmentation is among them.

    Raises:
        UnusableInputError: says which output, why, and what to do; or why the CT cannot be read.
    """
    niftis = [path for path in outputs if path.name.endswith(NIFTI)]
    if not niftis and not as_dicom:
        return
    if not source.is_dir():
        if niftis and _is_sheared(_direction(source)):
            raise _cannot_hold(niftis[0])
        return
    from DiffSegLungLib.export.dicom_sources import require_referable
    from DiffSegLungLib.io.dicom_folder import find_slices

    slices, geometry, name = find_slices(source, series)
    if niftis and _is_sheared(geometry.matrix):
        raise _cannot_hold(niftis[0])
    if as_dicom:
        require_referable(slices, name)


def require_square(path: Path, image: sitk.Image) -> None:
    """Refuses to write a sheared grid as NIfTI: its writer would turn it into another one.

    Raises:
        UnusableInputError: says so.
    """
    if path.name.endswith(NIFTI) and _is_sheared(
        np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)
    ):
        raise _cannot_hold(path)


def _cannot_hold(path: Path) -> UnusableInputError:
    return UnusableInputError(
        f"{path.name}: NIfTI cannot hold the sheared slices of a tilted gantry; end the name in .nrrd, "
        "for labels in .seg.nrrd."
    )


def _is_sheared(axes: np.ndarray) -> bool:
    return bool(np.abs(axes.T @ axes - np.eye(len(axes))).max() > SQUARE)


def _direction(file: Path) -> np.ndarray:
    """Axes of an image file; those of a square grid where it cannot be read, which reading it will say."""
    from DiffSegLungLib.io.headers import fault_of_header
    from DiffSegLungLib.io.image_files import quiet

    reader = sitk.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        with quiet():
            if fault_of_header(file):
                return np.eye(3)
            reader.ReadImageInformation()
    except (OSError, RuntimeError):
        return np.eye(3)
    return np.reshape(reader.GetDirection(), (reader.GetDimension(),) * 2)
