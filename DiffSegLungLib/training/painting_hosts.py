"""Real CT that disease is painted into while the network trains, on the network's grid.

What is diseased in them already is left out of the loss: what the program finds, and what readers marked (a
mark may keep a voxel out of a loss, it never gives it a label).  Dark places that may be emphysema, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import ndimage

from DiffSegLungLib.io.resampling import resample
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.tissues import CAVITY, CONSOLIDATION, FIBROSIS, GROUND_GLASS, VESSEL

Triple = tuple[float, float, float]
GRID: Triple = (2.0, 1.0, 1.0)
"""Of the network, (z, y, x) in mm."""
ZOOMS = (0.87, 1.0, 1.15)
"""A host is kept at these sizes: few patients must stand for many."""
MARGIN_MM = 30.0
"""Kept around the lungs."""
LEAST_ML = {GROUND_GLASS: 2.0, FIBROSIS: 2.0, CONSOLIDATION: 0.3, CAVITY: 0.3}
"""Smaller finds of the program are its mistakes rather than disease."""
DARK_HU, DARK_ML = -940.0, 0.3
"""Lung as dark as this over 3 mm may be emphysema."""
HILUM_MM = 6.0
"""The lungs are closed by this much: parenchyma between the vessels of the hilum is lung."""
MARK_MARGIN_MM = 4.0
"""Beyond a reader's mark, in plane."""
FISSURES_MM = 8.0
"""The outline of the lungs is closed by this much in each slice before depth below the pleura is measured."""
DEPTH_STEP_MM = 0.25
"""Unit of the stored depth."""


@dataclass(frozen=True)
class PaintingHost:
    """A CT without diffuse disease, or whose disease is left out, on ``GRID``.

    Attributes:
        hu: int16 (z, y, x).
        lungs: bool, parenchyma and vessels.
        ignored: bool, left out of the loss.
        vessels: bool, within the lungs.
        airways: bool, trachea and main bronchi.
        depth: uint8, distance below the pleura in steps of ``DEPTH_STEP_MM``; 0 outside.
    """

    hu: np.ndarray
    lungs: np.ndarray
    ignored: np.ndarray
    vessels: np.ndarray
    airways: np.ndarray
    depth: np.ndarray

    def save(self, path: Path) -> None:
        """Write an npz; the four masks share a byte."""
        masks = (self.lungs, self.ignored, self.vessels, self.airways)
        flags = sum((mask.astype(np.uint8) << bit for bit, mask in enumerate(masks)), np.uint8(0))
        np.savez_compressed(path, hu=self.hu, flags=flags, depth=self.depth)

    @classmethod
    def open(cls, path: Path) -> PaintingHost:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as stored:
            hu, flags, depth = stored["hu"], stored["flags"], stored["depth"]
        lungs, ignored, vessels, airways = ((flags >> bit & 1).astype(bool) for bit in range(4))
        return cls(hu, lungs, ignored, vessels, airways, depth)


def prepare(
    volume: Volume,
    labels: np.ndarray,
    airways: np.ndarray,
    marks: Sequence[dict[str, Any]] = (),
    zoom: float = 1.0,
    dense_only: bool = False,
) -> PaintingHost:
    """Bring a CT onto the grid and say what of it is left out of the loss.

    Args:
        volume: the CT.
        labels: uint8 label map of the program, the volume's shape.
        airways: bool, trachea and main bronchi.
        marks: of all its readers, as in their files (slice ``z``, centre and radii in mm).
        zoom: the patient becomes this much larger.
        dense_only: haze and nets that the program finds are no disease (dependent density, shallow breath).
    """
    spacing: Triple = tuple(step * zoom for step in volume.spacing)  # type: ignore[assignment]
    marked = mark_mask(marks, volume.hu.shape, volume.spacing)
    hu = np.clip(resample(volume.hu, spacing, GRID), -1024, 1000)
    named = resample(labels, spacing, GRID, interpolation="nearest", size=hu.shape)
    lungs = with_hilum(named > 0, hu)
    ignored = _program_disease(named, dense_only) | _dark(hu, lungs)
    ignored |= resample(marked, spacing, GRID, interpolation="nearest", size=hu.shape)
    trachea = resample(airways, spacing, GRID, interpolation="nearest", size=hu.shape)
    box, vessels = _box(lungs), named == VESSEL
    host = PaintingHost(
        np.rint(hu).astype(np.int16), lungs, ignored, vessels, trachea & ~lungs, depth_below_pleura(lungs)
    )
    return PaintingHost(*(values[box] for values in vars(host).values()))


def with_hilum(lungs: np.ndarray, hu: np.ndarray) -> np.ndarray:
    """The lungs with the aerated tissue between the vessels of the hilum; both on ``GRID``."""
    pad = 8
    near = ndimage.distance_transform_edt(~np.pad(lungs, pad), sampling=GRID) <= HILUM_MM
    closed = ndimage.distance_transform_edt(near, sampling=GRID)[pad:-pad, pad:-pad, pad:-pad] > HILUM_MM
    smooth = ndimage.gaussian_filter(hu, [0.3, 0.7, 0.7])
    return lungs | (closed & (smooth < -400) & (smooth > -925))


def depth_below_pleura(lungs: np.ndarray) -> np.ndarray:
    """Distance to the outline of the lungs, hilum filled in, in steps of ``DEPTH_STEP_MM``; uint8."""
    filled = np.zeros_like(lungs)
    pad = int(FISSURES_MM) + 2
    for z, plane in enumerate(lungs):
        if plane.any():
            near = ndimage.distance_transform_edt(~np.pad(plane, pad)) <= FISSURES_MM
            closed = ndimage.distance_transform_edt(near)[pad:-pad, pad:-pad] > FISSURES_MM
            filled[z] = ndimage.binary_fill_holes(closed | plane)
    depth = ndimage.distance_transform_edt(filled, sampling=GRID) / DEPTH_STEP_MM
    return np.minimum(depth, 255).astype(np.uint8)


def mark_mask(marks: Sequence[dict[str, Any]], shape: tuple[int, ...], spacing: Triple) -> np.ndarray:
    """Every mark, sure or not, a little wider, and as far up and down as to the next slice that was read."""
    mask = np.zeros(shape, bool)
    if not marks:
        return mask
    read = np.unique([mark["z"] for mark in marks])
    reach = max(int(np.diff(read).min()) if len(read) > 1 else 1, 1)
    y, x = np.mgrid[: shape[1], : shape[2]]
    for mark in marks:
        across, down = (x + 0.5) * spacing[2] - mark["x"], (y + 0.5) * spacing[1] - mark["y"]
        turn = np.radians(mark.get("angle", 0))
        along = (across * np.cos(turn) + down * np.sin(turn)) / (mark["rx"] + MARK_MARGIN_MM)
        beside = (-across * np.sin(turn) + down * np.cos(turn)) / (mark["ry"] + MARK_MARGIN_MM)
        mask[max(mark["z"] - reach, 0) : mark["z"] + reach + 1] |= along**2 + beside**2 <= 1
    return mask


def _program_disease(named: np.ndarray, dense_only: bool) -> np.ndarray:
    """What the program calls diseased, where there is enough of it, and what touches that."""
    found = np.zeros(named.shape, bool)
    for label, least_ml in LEAST_ML.items():
        if dense_only and label in (GROUND_GLASS, FIBROSIS):
            continue
        found |= ndimage.binary_dilation(_large_parts(named == label, least_ml), iterations=2)
    return found


def _dark(hu: np.ndarray, lungs: np.ndarray) -> np.ndarray:
    return _large_parts(lungs & (ndimage.gaussian_filter(hu, [0.7, 1.5, 1.5]) < DARK_HU), DARK_ML)


def _large_parts(mask: np.ndarray, least_ml: float) -> np.ndarray:
    parts, _ = ndimage.label(mask)
    large = np.bincount(parts.ravel()) * (np.prod(GRID) / 1000.0) > least_ml
    large[0] = False
    return large[parts]


def _box(lungs: np.ndarray) -> tuple[slice, ...]:
    box = ndimage.find_objects(lungs.astype(np.uint8))[0]
    sides = []
    for part, step, side in zip(box, GRID, lungs.shape, strict=True):
        margin = int(MARGIN_MM / step)
        sides.append(slice(max(part.start - margin, 0), min(part.stop + margin, side)))
    return tuple(sides)


def hosts_of(folder: Path) -> list[str]:
    """Names of the CT in a folder of hosts, whatever their zoom."""
    return sorted({file.stem.rsplit("_", 1)[0] for file in folder.glob("*.npz")})
