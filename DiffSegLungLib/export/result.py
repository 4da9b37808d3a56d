"""What a run hands out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.decision.field import Field
from DiffSegLungLib.io.volume import Volume, to_input_geometry

if TYPE_CHECKING:
    import pandas

    from DiffSegLungLib.io.segmentations import Source


@dataclass(frozen=True)
class Result:
    """What :func:`segment` returns.

    Attributes:
        labels: uint8 label map in the input's geometry; values of ``tissues.py``.
        measures: region x measure.
        manifest: versions, weights and their SHA-256, parameters, seed, warnings, times, peak memory.
        volume: the CT in canonical axes.
        label_array: uint8 (z, y, x), the labels in canonical axes.
        sides: uint8 (z, y, x), the lungs in canonical axes: 1 right, 2 left.
        regions: bool (z, y, x) each, the user's own regions by name.
        map_entropy: makes the uncertainty in canonical axes, (z, y, x).
        field: what strokes need to change the result; None where no network decided.
    """

    labels: sitk.Image
    measures: pandas.DataFrame
    manifest: dict[str, Any]
    volume: Volume
    label_array: np.ndarray
    sides: np.ndarray
    regions: Mapping[str, np.ndarray]
    map_entropy: Callable[[], np.ndarray]
    field: Field | None = None

    @cached_property
    def lungs(self) -> sitk.Image:
        """uint8 lung mask in the input's geometry: 1 right, 2 left."""
        return to_input_geometry(self.sides, self.volume)

    def correct(self, strokes: Source | np.ndarray) -> Result:
        """The result anew, with what somebody painted as evidence; this one stays as it is.

        Args:
            strokes: a segmentation of strokes, see :func:`load_strokes`, or an array as it gives one.

        Raises:
            UnusableInputError: strokes that cannot be used, or a result that no network decided.
        """
        from DiffSegLungLib.export.correction import corrected_result

        return corrected_result(self, strokes)

    @cached_property
    def uncertainty(self) -> sitk.Image:
        """float32 normalised entropy of the posterior, 0 to 1, in the input's geometry.

        Made when it is asked for: it takes four times the memory of the labels, and most runs do without it.
        """
        return to_input_geometry(self.map_entropy(), self.volume)
