"""A CT as it was read, before any check of its values."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import SimpleITK as sitk

if TYPE_CHECKING:
    from DiffSegLungLib.io.series import Series


@dataclass
class Source:
    """A CT as it was read, before any check of its values.

    Attributes:
        image: its voxels.
        name: for messages to who gave it; a file's name, which may be a patient's.
        metadata: of the acquisition.
        warnings: whole sentences.
        dicom_files: in the order of the slices.
        title: for what is written; never a file's name.
        series: all CT series of a DICOM folder.
        dicom_frames: of each slice the place in its file, from 0.
    """

    image: sitk.Image
    name: str
    metadata: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    dicom_files: tuple[Path, ...] = ()
    title: str = "CT"
    series: tuple[Series, ...] = ()
    dicom_frames: tuple[int, ...] = ()
