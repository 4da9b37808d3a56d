"""One slice as the header of its DICOM file, or of its frame, places it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

STEEPEST_AXIAL = 0.75
"""Cosine between slice normal and long axis: a gantry tilts by 30 degrees at most, reformats lie at 90."""


@dataclass(frozen=True)
class Plane:
    """One slice as its header places it.

    Attributes:
        position: of the first pixel's centre, LPS mm; empty where it is not told.
        orientation: cosines of row and column; empty where they are not told.
        spacing: (x, y) in mm; empty where it is not told.
        rescale: slope and intercept from stored values to HU.
        unit: of the rescaled values, upper case.
        kind: the values of Image Type or Frame Type, upper case.
        acquisition: number of the acquisition, empty where it is not told.
        time: point in time of a dynamic or gated scan, empty where it is not told.
        stack: of frames that belong together, empty where it is not told.
        facts: of the acquisition, by the names of `ACQUISITION_TAGS`, that only the frame tells.
    """

    position: tuple[float, ...]
    orientation: tuple[float, ...]
    spacing: tuple[float, ...]
    rescale: tuple[float, float] = (1.0, 0.0)
    unit: str = ""
    kind: tuple[str, ...] = ()
    acquisition: str = ""
    time: str = ""
    stack: str = ""
    facts: tuple[tuple[str, str], ...] = ()

    @property
    def normal(self) -> np.ndarray:
        """Of the slice."""
        return np.cross(self.orientation[:3], self.orientation[3:])

    @property
    def is_axial(self) -> bool:
        """Whether it can be a slice of a chest CT: placed, no scout, no reformat."""
        placed = len(self.orientation) == 6 and len(self.position) == 3
        return placed and "LOCALIZER" not in self.kind and abs(self.normal[2]) > STEEPEST_AXIAL
