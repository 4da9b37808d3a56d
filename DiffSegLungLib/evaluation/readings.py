"""Disease that readers marked in real CT, and how a label map is scored against it.

A reading marks disease with ellipses on some axial slices.  Within a sure mark a voxel is truth where it
looks like the tissue: an ellipse holds healthy lung and vessels, too.  Whether it looks so is told by the CT
and by ``healthy_hu``, which was measured once, never by who is scored.  What is doubtful is left out: unsure
marks, the rest of a sure one, three pixels around each, and vessels that the labels tell apart within a mark.
The rest of the lungs is healthy.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.tissues import (
    BY_KEY,
    BY_LABEL,
    CAVITY,
    CONSOLIDATION,
    DISEASES,
    EMPHYSEMA,
    FIBROSIS,
    GROUND_GLASS,
    HEALTHY,
    OUTSIDE,
    VESSEL,
)

RAISED_HU = {GROUND_GLASS: 100.0, FIBROSIS: 60.0}
"""By which a mean over 2 mm must lie above the patient's healthy lung."""
NO_HAZE_HU = 150.0
"""Bone and contrast medium are neither haze nor airless lung."""
SOLID_HU = -400.0
HOLLOW_HU = {EMPHYSEMA: -930.0, CAVITY: -800.0}
FINE_MM, WIDE_MM = 0.8, 2.0
"""Deviations of the Gaussians that a slice is looked at through."""
RIM_PIXELS = 3
PADDING_HU = -1023.0
"""What is not above it was not scanned."""
FOUND_SHARE = 0.3
"""Of a lesion that must be called any disease, for it to be found."""
LEAST_LESION_ML = 0.05
LEAST_SLICE_MM2 = 30.0
"""Marked disease from which a slice counts as diseased."""
LABELS = np.array([tissue.label for tissue in DISEASES])
NAMES = {OUTSIDE: "outside", **{label: tissue.key for label, tissue in BY_LABEL.items()}}

LabelSlices = np.ndarray | Mapping[int, np.ndarray]
"""Label map (z, y, x), or some of its slices by their index."""


@dataclass(frozen=True)
class Mark:
    """An ellipse on one slice.

    Attributes:
        z: index of the slice, 0 lowest.
        x: of the centre, in mm to the patient's left from the slice's upper left corner.
        y: of the centre, in mm to the back.
        rx: half axis in mm, along x where ``angle`` is 0.
        ry: the other half axis.
        tissue: as in the tissue table, or ``other``.
        angle: degrees, clockwise on the picture.
        sure: whether the reader was.
        lesion: number of the lesion that it is part of; None where it has none.
    """

    z: int
    x: float
    y: float
    rx: float
    ry: float
    tissue: str
    angle: float = 0.0
    sure: bool = True
    lesion: int | None = None

    @property
    def label(self) -> int | None:
        """The tissue's label; None where the mark judges nobody: unsure, or of another thing."""
        known = self.sure and self.tissue in BY_KEY and BY_KEY[self.tissue].is_disease
        return BY_KEY[self.tissue].label if known else None


@dataclass(frozen=True)
class Reading:
    """What one reader saw in one CT.

    Attributes:
        case: name of the CT.
        reader: ``A`` or ``B``.
        slices: indices of the slices that were read.
        healthy_hu: median of the CT's healthy lung.
        marks: of all slices.
    """

    case: str
    reader: str
    slices: tuple[int, ...]
    healthy_hu: float
    marks: tuple[Mark, ...]


def load_reading(path: Path) -> Reading:
    """Read one ``CASE_READER.json``.

    Raises:
        UnusableInputError: it is no reading.
    """
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        marks = tuple(_mark(entry) for entry in stored["marks"])
        slices = tuple(sorted(int(z) for z in stored["slices_read"]))
        return Reading(stored["case"], stored["reader"], slices, float(stored["healthy_hu"]), marks)
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{path.name} is no reading of a CT ({type(error).__name__}: {error})"
        raise UnusableInputError(f"{problem}; take the file of the data folder.") from error


def _mark(entry: Mapping[str, Any]) -> Mark:
    known = {name: entry[name] for name in Mark.__dataclass_fields__ if name in entry}
    return Mark(**known)


# --- truth -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SliceTruth:
    """The truth of one slice, whoever is scored.

    Attributes:
        labels: uint8 (y, x), the disease of each pixel, 0 without.
        lesions: int32 (y, x), number of the lesion, 0 without.
        left_out: bool (y, x), neither diseased nor healthy.
    """

    labels: np.ndarray
    lesions: np.ndarray
    left_out: np.ndarray


def truth_of(reading: Reading, hu: np.ndarray, spacing: Sequence[float]) -> dict[int, SliceTruth]:
    """The truth of each slice that was read.

    Args:
        reading: of this CT.
        hu: (z, y, x), canonical axes.
        spacing: (z, y, x) in mm.

    Raises:
        UnusableInputError: the CT has no such slice.
    """
    if reading.slices and reading.slices[-1] >= len(hu):
        problem = f"{reading.case} has {len(hu)} slices, its reading names slice {reading.slices[-1]}"
        raise UnusableInputError(f"{problem}; take the CT that was read.")
    by_slice: dict[int, list[Mark]] = {z: [] for z in reading.slices}
    for mark in reading.marks:
        by_slice.setdefault(mark.z, []).append(mark)
    return {z: slice_truth(by_slice[z], hu[z], spacing[1:], reading.healthy_hu) for z in reading.slices}


def slice_truth(
    marks: Iterable[Mark], hu: np.ndarray, spacing: Sequence[float], healthy_hu: float
) -> SliceTruth:
    """The truth of one slice; where marks overlap, the later one holds.

    Args:
        marks: of this slice.
        hu: (y, x).
        spacing: (y, x) in mm.
        healthy_hu: median of the CT's healthy lung.
    """
    labels, lesions = np.zeros(hu.shape, np.uint8), np.zeros(hu.shape, np.int32)
    left_out = np.zeros(hu.shape, bool)
    looks = appearance(hu.astype(np.float32), spacing, healthy_hu)
    for mark in marks:
        within = ellipse(mark, hu.shape, spacing) & (hu > PADDING_HU)
        seen = within & looks[mark.label] if mark.label else np.zeros_like(within)
        labels[seen], lesions[seen] = mark.label or 0, mark.lesion or 0
        left_out |= ndimage.binary_dilation(within, iterations=RIM_PIXELS) & ~seen
    return SliceTruth(labels, lesions, left_out & (labels == 0))


def ellipse(mark: Mark, shape: Sequence[int], spacing: Sequence[float]) -> np.ndarray:
    """Pixels whose middle lies within a mark, bool (y, x)."""
    rows, columns = np.indices(shape)
    down, right = (rows + 0.5) * spacing[0] - mark.y, (columns + 0.5) * spacing[1] - mark.x
    cosine, sine = np.cos(np.radians(mark.angle)), np.sin(np.radians(mark.angle))
    along, across = right * cosine + down * sine, down * cosine - right * sine
    inside: np.ndarray = (along / mark.rx) ** 2 + (across / mark.ry) ** 2 <= 1
    return inside


def appearance(hu: np.ndarray, spacing: Sequence[float], healthy_hu: float) -> dict[int, np.ndarray]:
    """Where a slice looks like each disease: raised beside the healthy lung, solid, or hollow."""
    fine = ndimage.gaussian_filter(hu, [FINE_MM / step for step in spacing])
    wide = ndimage.gaussian_filter(hu, [WIDE_MM / step for step in spacing])
    return {
        EMPHYSEMA: fine < HOLLOW_HU[EMPHYSEMA],
        CAVITY: fine < HOLLOW_HU[CAVITY],
        GROUND_GLASS: (wide > healthy_hu + RAISED_HU[GROUND_GLASS]) & (fine < NO_HAZE_HU),
        FIBROSIS: wide > healthy_hu + RAISED_HU[FIBROSIS],
        CONSOLIDATION: (fine > SOLID_HU) & (fine < NO_HAZE_HU),
    }


# --- scores ----------------------------------------------------------------------------------------------


@dataclass
class Tally:
    """Counts over the slices of a reading.

    Attributes:
        called: (true label, label given) -> scored pixels; true label 1 is healthy lung.
        lesions: number -> its pixels, and those of them that are called any disease.
        slices: of each slice its marked pixels, and the share of its lung that is called diseased.
    """

    called: np.ndarray = field(default_factory=lambda: np.zeros((VESSEL + 1, VESSEL + 1), np.int64))
    lesions: dict[int, np.ndarray] = field(default_factory=dict)
    slices: list[tuple[int, float]] = field(default_factory=list)

    def add(self, truth: SliceTruth, labels: np.ndarray) -> None:
        """Count one slice: ``labels`` are (y, x)."""
        vessel = labels == VESSEL
        true = np.where(vessel, 0, truth.labels)
        left_out = truth.left_out | (vessel & (truth.lesions > 0))
        diseased = np.isin(labels, LABELS)
        scored = ((labels > OUTSIDE) | (true > 0)) & ~left_out
        joint = np.where(true > 0, true, HEALTHY)[scored].astype(np.int64) * len(self.called)
        self.called += np.bincount(joint + labels[scored], minlength=self.called.size).reshape(
            self.called.shape
        )
        for number in set(np.unique(truth.lesions[true > 0]).tolist()) - {0}:
            own = truth.lesions == number
            count = np.array([own.sum(), (own & diseased).sum()])
            self.lesions[number] = self.lesions.get(number, 0) + count
        lung = max(int((labels > OUTSIDE).sum()), 1)
        self.slices.append((int((true > 0).sum()), float((diseased & scored).sum() / lung)))

    def figures(self, spacing: Sequence[float]) -> dict[str, Any]:
        """The scores, by the names of ``results.json``."""
        truth, given = self.called[LABELS].sum(), self.called[:, LABELS].sum()
        both = self.called[np.ix_(LABELS, LABELS)].sum()
        voxel_ml = float(np.prod(spacing)) / 1000.0
        counted = [row for row in self.lesions.values() if row[0] * voxel_ml > LEAST_LESION_ML]
        healthy = self.called[HEALTHY]
        marked = {label: self.called[label] for label in LABELS if self.called[label].any()}
        return {
            "dice": float(2 * both / max(truth + given, 1)),
            "recall": float(both / max(truth, 1)),
            "precision": float(both / max(given, 1)),
            "lesions": len(counted),
            "found": int(sum(seen >= FOUND_SHARE * size for size, seen in counted)),
            "named": {NAMES[label]: _shares(row) for label, row in marked.items()},
            "marked_ml": {NAMES[label]: float(row.sum() * voxel_ml) for label, row in marked.items()},
            "healthy_disease_percent": float(100.0 * healthy[LABELS].sum() / max(healthy.sum(), 1)),
            "slice_auc": _slice_auc(self.slices, float(np.prod(spacing[1:]))),
        }


def _shares(row: np.ndarray) -> dict[str, float]:
    """What a tissue's pixels are called, as shares of them."""
    return {NAMES[label]: float(row[label] / row.sum()) for label in np.flatnonzero(row).tolist()}


def _slice_auc(slices: Sequence[tuple[int, float]], pixel_mm2: float) -> float:
    """Area under the curve of the share called diseased, slices with marks against those without."""
    from sklearn.metrics import roc_auc_score

    marked = [pixels * pixel_mm2 > LEAST_SLICE_MM2 for pixels, _ in slices]
    if all(marked) or not any(marked):
        return float("nan")
    return float(roc_auc_score(marked, [share for _, share in slices]))


def score(
    truth: Mapping[int, SliceTruth],
    labels: LabelSlices,
    spacing: Sequence[float],
    slices: Iterable[int] | None = None,
) -> dict[str, Any]:
    """Score labels against a reading.

    Args:
        truth: of each slice that was read, as of :func:`truth_of`.
        labels: values of the tissue table.
        spacing: (z, y, x) in mm.
        slices: count these alone; all without.
    """
    tally = Tally()
    for z in sorted(truth if slices is None else slices):
        tally.add(truth[z], labels[z])
    return tally.figures(spacing)


def score_reader(
    truth: Mapping[int, SliceTruth],
    other: Mapping[int, SliceTruth],
    lungs: np.ndarray,
    spacing: Sequence[float],
) -> dict[str, Any]:
    """Score another reader as if a program: the sure marks are labels, the rest of the lungs healthy.

    Args:
        truth: of the reader who judges.
        other: of the reader who is judged.
        lungs: bool (z, y, x).
        spacing: (z, y, x) in mm.
    """
    both = truth.keys() & other.keys()
    labels = {
        z: np.where(other[z].labels > 0, other[z].labels, np.where(lungs[z], HEALTHY, OUTSIDE)) for z in both
    }
    return score(truth, labels, spacing, both)
