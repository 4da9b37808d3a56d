"""Which slices a reader should see, and their pixels: no plotting here.

Arrays are canonical LPS, (z, y, x): +x is the patient's left, +y posterior, +z superior.  Pictures follow the
radiological convention: the patient's right is on the viewer's left and the head is up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from DiffSegLungLib.densities import LUNG_LEVEL_HU, LUNG_WIDTH_HU
from DiffSegLungLib.quantify.measures import lung_box
from DiffSegLungLib.tissues import BY_LABEL, DISEASES, HEALTHY, OUTSIDE

"""Level and width in HU."""

MARGIN_MM = 12.0
OVERLAY_OPACITY = 0.45

AXIAL, CORONAL, SAGITTAL = 0, 1, 2
"""The array axis that is cut."""

PLANE_NAMES = ("Axial", "Coronal", "Sagittal")
PLANE_LETTERS = (("R", "L", "A", "P"), ("R", "L", "H", "F"), ("A", "P", "H", "F"))
"""Left, right, top and bottom edge of a picture of each plane."""

_IS_DISEASE = np.array([label in BY_LABEL and BY_LABEL[label].is_disease for label in range(256)])


@dataclass(frozen=True)
class Chest:
    """The part of a CT that holds the lungs.

    Attributes:
        hu: (z, y, x) Hounsfield units, a view.
        labels: (z, y, x) label values, a view.
        spacing: (z, y, x) in mm.
        origin: index of the first voxel in the full volume.
        size: shape of the full volume.
    """

    hu: np.ndarray
    labels: np.ndarray
    spacing: tuple[float, float, float]
    origin: tuple[int, int, int]
    size: tuple[int, int, int]

    @classmethod
    def crop(cls, hu: np.ndarray, labels: np.ndarray, spacing: tuple[float, float, float]) -> Chest:
        """Cuts a volume down to its labelled lungs and a small margin; nothing is copied."""
        z, y, x = (int(np.ceil(MARGIN_MM / size)) for size in spacing)
        box = lung_box(labels, margin=(z, y, x))
        first = (box[0].start or 0, box[1].start or 0, box[2].start or 0)
        full = (labels.shape[0], labels.shape[1], labels.shape[2])
        return cls(hu[box], labels[box], spacing, first, full)

    def disease(self) -> np.ndarray:
        """Bool (z, y, x), true in diseased tissue."""
        return _IS_DISEASE[self.labels]


@dataclass(frozen=True)
class Cut:
    """One slice: the axis that is cut and the index in the cropped chest."""

    axis: int
    index: int

    def title(self, chest: Chest) -> str:
        """What a reader calls it, in the numbering of the full volume."""
        start = ("from the feet", "from the front", "from the patient's right")[self.axis]
        return f"{self.short_title(chest)}, counted {start}"

    def short_title(self, chest: Chest) -> str:
        """The same, for a corner of the picture."""
        number, total = self.index + chest.origin[self.axis] + 1, chest.size[self.axis]
        return f"{PLANE_NAMES[self.axis]} {number}/{total}"


def choose_cuts(chest: Chest, axial: int = 4) -> list[Cut]:
    """The slices to show: axial ones from head to feet, then a coronal and a sagittal one.

    The lung's height is divided into bands and each band shows its most diseased slice, so that the worst
    slice is always seen and the others are spread.  Without disease a band shows its middle.

    Args:
        chest: the cropped volume.
        axial: how many axial slices.
    """
    disease = chest.disease()
    lung = chest.labels != OUTSIDE
    cuts = [Cut(AXIAL, index) for index in _spread(_areas(disease, AXIAL), _areas(lung, AXIAL), axial)[::-1]]
    for axis in (CORONAL, SAGITTAL):
        areas = _areas(disease, axis)
        # Without disease the largest cut through the lungs: it avoids the mediastinum.
        cuts.append(Cut(axis, int(np.argmax(areas if areas.any() else _areas(lung, axis)))))
    return cuts


def _areas(mask: np.ndarray, axis: int) -> np.ndarray:
    return np.count_nonzero(mask, axis=tuple(other for other in range(3) if other != axis))


def _spread(disease: np.ndarray, lung: np.ndarray, count: int) -> list[int]:
    occupied = np.flatnonzero(lung)
    if occupied.size == 0:
        return [len(lung) // 2]
    bands = [band for band in np.array_split(occupied, min(count, occupied.size)) if band.size]
    distance = occupied.size / len(bands) / 2
    chosen: list[int] = []
    for band in sorted(bands, key=lambda band: int(disease[band].max()), reverse=True):
        # Neighbours across a border of two bands would show the same thing twice.
        apart = [index for index in band if all(abs(index - other) >= distance for other in chosen)]
        candidates = np.array(apart or list(band))
        worst = int(candidates[np.argmax(disease[candidates])])
        chosen.append(worst if disease[worst] else int(candidates[len(candidates) // 2]))
    return sorted(chosen)


def plane(volume: np.ndarray, cut: Cut) -> np.ndarray:
    """The slice as it is shown: rows from top to bottom, columns from the viewer's left to right."""
    # Not np.take: on a cropped view it copies the whole volume first.
    image = volume[(slice(None),) * cut.axis + (cut.index,)]
    return image if cut.axis == AXIAL else image[::-1]


def plane_spacing(spacing: tuple[float, float, float], axis: int) -> tuple[float, float]:
    """Millimetres per row and per column of a picture of that plane."""
    rows, columns = (size for other, size in enumerate(spacing) if other != axis)
    return rows, columns


def plane_millimetres(chest: Chest, axis: int) -> tuple[float, float]:
    """Height and width in mm of a picture of that plane."""
    rows, columns = (size for other, size in enumerate(chest.labels.shape) if other != axis)
    row_mm, column_mm = plane_spacing(chest.spacing, axis)
    return rows * row_mm, columns * column_mm


def resample(image: np.ndarray, shape: tuple[int, int], order: int) -> np.ndarray:
    """A picture on another pixel grid over the same extent: order 0 for labels, 1 for HU."""
    from scipy.ndimage import map_coordinates

    axes = [(np.arange(new) + 0.5) * old / new - 0.5 for old, new in zip(image.shape, shape, strict=True)]
    if order == 0:
        rows, columns = (np.rint(axis).astype(int) for axis in axes)
        return image[np.ix_(rows.clip(0, image.shape[0] - 1), columns.clip(0, image.shape[1] - 1))]
    grid = np.meshgrid(*axes, indexing="ij")
    return map_coordinates(image.astype(np.float32, copy=False), grid, order=order, mode="nearest")


def resample_colour(picture: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """A colour picture (rows, columns, 3) on another pixel grid."""
    return np.stack([resample(picture[..., channel], shape, order=1) for channel in range(3)], axis=-1)


def windowed(hu: np.ndarray) -> np.ndarray:
    """Hounsfield units as grey levels 0 to 1 in the lung window."""
    return np.clip((hu - (LUNG_LEVEL_HU - LUNG_WIDTH_HU / 2)) / LUNG_WIDTH_HU, 0.0, 1.0)


def bare_picture(chest: Chest, cut: Cut, shape: tuple[int, int]) -> np.ndarray:
    """The CT alone, (rows, columns, 3) from 0 to 1."""
    grey = windowed(resample(plane(chest.hu, cut), shape, order=1))
    return np.repeat(grey[..., None], 3, axis=2)


def overlay_picture(chest: Chest, cut: Cut, shape: tuple[int, int]) -> np.ndarray:
    """The CT with disease painted half transparent inside crisp edges, (rows, columns, 3) from 0 to 1.

    Healthy lung is only a thin outline around the lungs, vessels are not painted.
    """
    picture = bare_picture(chest, cut, shape)
    labels = resample(plane(chest.labels, cut), shape, order=0)
    picture[_inner_edge(labels != OUTSIDE)] = _rgb(HEALTHY)
    for tissue in DISEASES:
        mask = labels == tissue.label
        if mask.any():
            colour = _rgb(tissue.label)
            picture[mask] = (1 - OVERLAY_OPACITY) * picture[mask] + OVERLAY_OPACITY * colour
            picture[_inner_edge(mask)] = colour
    return picture


def depth_shares(chest: Chest) -> tuple[np.ndarray, dict[int, np.ndarray]]:
    """Seen from the front: how much of the lung's depth each disease takes.

    Args:
        chest: the cropped volume.

    Returns:
        Lung depth in voxels as a coronal picture, and per label of a disease the share of that depth, 0 to 1.
    """
    depth = np.count_nonzero(chest.labels, axis=CORONAL)[::-1]
    shares = {}
    for tissue in DISEASES:
        amount = np.count_nonzero(chest.labels == tissue.label, axis=CORONAL)[::-1]
        shares[tissue.label] = amount / np.maximum(depth, 1)
    return depth, shares


def histogram(chest: Chest, edges: np.ndarray) -> np.ndarray:
    """Voxels per label and HU bin, (label, bin); slice by slice, to keep memory small."""
    counts = np.zeros((len(BY_LABEL) + 1, len(edges) - 1), dtype=np.int64)
    for hu, labels in zip(chest.hu, chest.labels, strict=True):
        for label in np.unique(labels[labels != OUTSIDE]):
            counts[label] += np.histogram(hu[labels == label], bins=edges)[0]
    return counts


def _inner_edge(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _rgb(label: int) -> np.ndarray:
    return np.array(BY_LABEL[label].colour) / 255.0
