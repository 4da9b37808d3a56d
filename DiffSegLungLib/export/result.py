"""What a run hands out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.io.volume import Volume, to_input_geometry

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Result:
    """What :func:`segment` returns.

    Attributes:
        labels: uint8 label map in the input's geometry; values of ``tissues.py``.
        measures: region x measure.
        manifest: versions, weights and their SHA-256, parameters, seed, warnings, times, peak memory.
        volume: the CT in canonical axes.
        label_array: uint8 (z, y, x), the labels in canonical axes.
        lungs: uint8 lung mask in the input's geometry: 1 right, 2 left.
        map_entropy: makes the uncertainty in canonical axes, (z, y, x).
    """

    labels: sitk.Image
    measures: pandas.DataFrame
    manifest: dict[str, Any]
    volume: Volume
    label_array: np.ndarray
    lungs: sitk.Image
    map_entropy: Callable[[], np.ndarray]

    @cached_property
    def uncertainty(self) -> sitk.Image:
        """float32 normalised entropy of the posterior, 0 to 1, in the input's geometry.

        Made when it is asked for: it takes four times the memory of the labels, and most runs do without it.
        """
        return to_input_geometry(self.map_entropy(), self.volume)
