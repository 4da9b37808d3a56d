"""The real CT that lesions are placed into: which serve to tune the method, and which to report it.

No CT and no seed of ``REPORTED`` may be looked at, run or counted while the method is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DiffSegLungLib.evaluation.site import Grain, Triple, measure_grain, vessel_share
from DiffSegLungLib.io.label_maps import load_mask
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.lungs.lungs import segment_lungs
from DiffSegLungLib.parenchyma.vessels import mediastinal_distance

OWN_LESION_MM = 8.0
"""Distance from a host's own marked lesions that is neither used nor scored."""
HILUM_MM = 28.0
"""Distance from the mediastinum below which nothing is placed."""
VESSEL_HU = -600.0
"""Denser lung of the host is vessel, airway wall or chest wall in part; it is not scored."""


@dataclass(frozen=True)
class HostFile:
    """A host by name.

    Attributes:
        name: path below the data folder, without suffix.
        own_lesions: suffix of the map of what the host has already, or empty.
        votes: readers that must have marked a voxel.
    """

    name: str
    own_lesions: str = ""
    votes: int = 1


TUNING = (HostFile("train/LIDC-IDRI-0003", "_nodulevotes"), HostFile("train/C3N-00247"))
REPORTED = (
    HostFile("ct/normal001"),
    HostFile("ct/LIDC-IDRI-0001", "_nodulevotes"),
    HostFile("ct/lung2", "_tumor"),
)
TUNING_SEEDS = (11, 12)
REPORTED_SEEDS = (101, 102)


@dataclass(frozen=True)
class Host:
    """A real CT ready to take lesions.

    Attributes:
        name: of the CT.
        hu: float32 (z, y, x), canonical axes.
        spacing: (z, y, x) in mm.
        sides: uint8, 1 right and 2 left lung.
        pleura: float32, depth below the pleura in mm, negative outside the lungs.
        mediastinum: float32, distance to the mediastinum in mm.
        vessels: float32, share of vessel in each voxel.
        scored: bool, lung whose truth is known: no vessel, none of the host's own lesions.
        own: bool, the host's own lesions and what is near them.
        grain: of its noise.
    """

    name: str
    hu: np.ndarray
    spacing: Triple
    sides: np.ndarray
    pleura: np.ndarray
    mediastinum: np.ndarray
    vessels: np.ndarray
    scored: np.ndarray
    own: np.ndarray
    grain: Grain


def load_host(file: HostFile, data: Path) -> Host:
    """Read a host and find its lungs; the lungs before any lesion are the truth.

    Args:
        file: which CT.
        data: the data folder.
    """
    volume = load_volume(data / f"{file.name}.nii.gz")
    sides = segment_lungs(volume.hu, volume.spacing).sides
    own = np.zeros(sides.shape, bool)
    if file.own_lesions:
        marked = load_mask(data / f"{file.name}{file.own_lesions}.nii.gz", volume) >= file.votes
        own = _depth(marked, volume.spacing) > -OWN_LESION_MM
    return make_host(file.name, volume.hu, volume.spacing, sides, own)


def make_host(name: str, hu: np.ndarray, spacing: Triple, sides: np.ndarray, own: np.ndarray) -> Host:
    """A host of any CT whose lungs are known.

    Args:
        name: of the CT.
        hu: float32 (z, y, x), canonical axes.
        spacing: (z, y, x) in mm.
        sides: uint8, 1 right and 2 left lung.
        own: bool, the CT's own lesions and what is near them.
    """
    lung = sides > 0
    dense = ndimage.binary_dilation(ndimage.gaussian_filter(hu, (0, 0.7, 0.7)) > VESSEL_HU)
    return Host(
        name=name,
        hu=hu,
        spacing=spacing,
        sides=sides,
        pleura=_depth(lung, spacing),
        mediastinum=mediastinal_distance(sides, spacing),
        vessels=vessel_share(hu, lung, spacing),
        scored=lung & ~dense & ~own,
        own=own,
        grain=measure_grain(hu, lung),
    )


def _depth(mask: np.ndarray, spacing: Triple) -> np.ndarray:
    """Depth in mm below the surface of a mask, negative outside; float32."""
    image = sitk.GetImageFromArray(mask.astype(np.uint8))
    image.SetSpacing([float(step) for step in spacing[::-1]])
    distance = sitk.SignedMaurerDistanceMap(
        image, insideIsPositive=True, squaredDistance=False, useImageSpacing=True
    )
    return sitk.GetArrayFromImage(distance)
