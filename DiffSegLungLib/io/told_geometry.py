"""Does a file tell its voxel size, and which side is right?  Readers fill in 1 mm and say nothing."""

from __future__ import annotations

import gzip
import math
import re
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.io.headers import HEADER_BYTES
from DiffSegLungLib.io.image_files import GZIP_SIGN, NIFTI_HEADER_BYTES, unusable

NOT_SET = (
    "The voxel size was probably never set: 1 x 1 x 1 mm at the origin is what programs write that do not "
    "know it. All volumes depend on it, and right and left may be swapped: check it against the scanner's."
)
NO_SIDES = "The file does not tell which side is the patient's right: right and left may be swapped."
SAME_SIDE = 0.01
"""What voxel sizes that mean the same may differ by, as a share."""
LEAST_ALIKE = 0.7
"""Cosine between the axes of two forms; below it they lead to other sides."""


def geometry_warnings(path: Path | None, image: sitk.Image, name: str) -> list[str]:
    """What of the geometry was never told, in sentences that belong before all others.

    Args:
        path: of the file, None for an image in memory.
        image: as it was read.
        name: for messages.

    Raises:
        UnusableInputError: the file holds no voxel size, or two that differ.
    """
    ending = path.name.lower() if path else ""
    warnings = []
    if path and ending.endswith((".nii", ".nii.gz")):
        warnings = _of_nifti(path, name)
    elif path and ending.endswith((".mha", ".mhd", ".nrrd", ".nhdr")):
        warnings = _of_text_header(path, name, is_nrrd="n" in ending[-4:-2])
    return [NOT_SET] if _is_unset(image) else warnings


def _is_unset(image: sitk.Image) -> bool:
    """Whether it is what comes of an array, or of the identity as affine."""
    axes = np.reshape(image.GetDirection(), (image.GetDimension(),) * 2)[:3, :3]
    untouched = np.array_equal(np.abs(axes), np.eye(3))
    return untouched and set(image.GetSpacing()[:3]) == {1.0} and not any(image.GetOrigin()[:3])


def _of_text_header(path: Path, name: str, is_nrrd: bool) -> list[str]:
    with path.open("rb") as stream:
        start = stream.read(HEADER_BYTES)
    end = rb"\r?\n\r?\n" if is_nrrd else b"ElementDataFile"
    header = re.split(end, start, maxsplit=1)[0].decode("latin-1").lower()
    told = {line.partition(":" if is_nrrd else "=")[0].strip() for line in header.splitlines()}
    sizes = {"spacings", "space directions"} if is_nrrd else {"elementspacing", "elementsize"}
    sides = {"space", "space dimension"} if is_nrrd else {"transformmatrix", "orientation", "rotation"}
    if not told & sizes:
        raise unusable(name, "its header holds no voxel size; write it again with the scanner's.")
    return [] if told & sides else [NO_SIDES]


# --- NIfTI ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Form:
    """One of the two ways in which a NIfTI header places its voxels; the axes are columns, in mm."""

    name: str
    axes: np.ndarray

    @property
    def sides(self) -> np.ndarray:
        """Voxel size (x, y, z) in mm."""
        return np.linalg.norm(self.axes, axis=0)

    @property
    def text(self) -> str:
        """Its voxel size, for people."""
        return f"{self.name} {' x '.join(f'{mm:.4g}' for mm in self.sides)} mm"


def _of_nifti(path: Path, name: str) -> list[str]:
    header = nifti_header(path)
    if header is None:
        return []
    forms = _forms(header)
    sizes = [_Form("pixdim", np.diag(_unpack(header, 80, "3f"))), *forms]
    for first, second in zip(sizes, sizes[1:], strict=False):
        if not np.allclose(first.sides, second.sides, rtol=SAME_SIDE):
            raise unusable(
                name,
                f"its header tells two voxel sizes, {first.text} and {second.text}; write it again with the "
                "right one.",
            )
    if not forms:
        return [NO_SIDES]
    if len(forms) == 2:
        alike = (forms[0].axes * forms[1].axes).sum(axis=0) / (forms[0].sides * forms[1].sides)
        if alike.min() < LEAST_ALIKE:
            raise unusable(
                name,
                "its qform and its sform lead to other sides of the patient; write it again with one form.",
            )
    return []


def _forms(header: bytes) -> list[_Form]:
    quaternion_code, matrix_code = _unpack(header, 252, "2h")
    forms = []
    if quaternion_code > 0:
        forms.append(_Form("qform", _quaternion_axes(header)))
    if matrix_code > 0:
        forms.append(_Form("sform", np.reshape(_unpack(header, 280, "12f"), (3, 4))[:, :3]))
    return forms


def _quaternion_axes(header: bytes) -> np.ndarray:
    flip, *sides = _unpack(header, 76, "4f")
    b, c, d = _unpack(header, 256, "3f")
    a = math.sqrt(max(0.0, 1.0 - b * b - c * c - d * d))
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - c * c - b * b],
        ]
    )
    return rotation * np.array([sides[0], sides[1], sides[2] * (-1 if flip < 0 else 1)])


def _unpack(header: bytes, at: int, kinds: str) -> tuple[float, ...]:
    order = "<" if struct.unpack_from("<i", header)[0] == NIFTI_HEADER_BYTES else ">"
    return struct.unpack_from(order + kinds, header, at)


def nifti_header(path: Path) -> bytes | None:
    """The header of a NIfTI-1 file; None where there is none."""
    try:
        with path.open("rb") as stream:
            is_packed = stream.read(len(GZIP_SIGN)) == GZIP_SIGN
        with gzip.open(path) if is_packed else path.open("rb") as stream:
            header: bytes = stream.read(NIFTI_HEADER_BYTES)
    except (EOFError, OSError, zlib.error):
        return None
    known = len(header) == NIFTI_HEADER_BYTES and header[344:347] in (b"n+1", b"ni1")
    return header if known else None
