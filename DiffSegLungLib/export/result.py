"""What a run hands out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import SimpleITK as sitk

from DiffSegLungLib.anatomy import regions_from_sides
from DiffSegLungLib.decision.field import Field
from DiffSegLungLib.decision.label_map import entropy_map
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.correction import NO_FIELD, corrected_manifest
from DiffSegLungLib.io.strokes import load_strokes
from DiffSegLungLib.io.volume import Volume, to_input_geometry
from DiffSegLungLib.quantify.measures import complete, measure
from DiffSegLungLib.tissues import OUTSIDE

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

    def correct(self, strokes: Source | np.ndarray, given: np.ndarray | None = None) -> Result:
        """The result anew, with what somebody painted as evidence; this one stays as it is.

        Args:
            strokes: a segmentation of strokes, see :func:`load_strokes`, or an array as it gives one: all
                that shall count are given each time.
            given: labels (z, y, x) that are to be corrected, where they are not the run's own.

        Raises:
            UnusableInputError: strokes that cannot be used, or a result that no network decided.
        """
        from DiffSegLungLib.decision.strokes import spread

        if self.field is None:
            raise UnusableInputError(NO_FIELD)
        volume = self.volume
        painted = strokes if isinstance(strokes, np.ndarray) else load_strokes(strokes, volume)
        start = self.label_array if given is None else given
        done = spread(self.field, painted, start, volume, self.label_array)
        lungs = np.where((done.labels > OUTSIDE) | (start == OUTSIDE), self.sides, 0).astype(np.uint8)
        labels, sides = complete(done.labels, lungs, volume.spacing)
        regions = {**regions_from_sides(sides), **self.regions}
        return replace(
            self,
            labels=to_input_geometry(labels, volume),
            label_array=labels,
            measures=measure(labels, volume.hu, volume.spacing, regions, volume.voxel_ml),
            manifest=corrected_manifest(self.manifest, done, painted),
            sides=sides,
            map_entropy=partial(entropy_map, done.tissues, done.grid, volume, labels > OUTSIDE),
        )

    @cached_property
    def uncertainty(self) -> sitk.Image:
        """float32 normalised entropy of the posterior, 0 to 1, in the input's geometry.

        Made when it is asked for: it takes four times the memory of the labels, and most runs do without it.
        """
        return to_input_geometry(self.map_entropy(), self.volume)
