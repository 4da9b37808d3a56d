"""Measures of a segmentation that is there already, perhaps corrected by hand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib.anatomy import regions_from_sides
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.io.segmentations import Source, load_lungs, load_tissues, more_regions
from DiffSegLungLib.io.volume import Volume, edge_warnings, load_volume
from DiffSegLungLib.lungs.lungs import Lungs, lungs_from_mask, segment_lungs
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.quantify.dependent import dependent_warnings
from DiffSegLungLib.quantify.measures import complete, measure
from DiffSegLungLib.tissues import VESSEL

if TYPE_CHECKING:
    import pandas

MOST_WITHOUT_TISSUE = 0.2
"""Share of the lungs without a tissue from which the reader is warned; vessels are about 4 %."""


@dataclass(frozen=True)
class Measured:
    """What :func:`remeasure` returns.

    Attributes:
        volume: the CT in canonical axes.
        labels: uint8 (z, y, x), the tissues, and vessel where the lungs have none.
        sides: uint8 (z, y, x), 1 right lung, 2 left lung.
        measures: region x measure.
        warnings: sentences for the reader.
    """

    volume: Volume
    labels: np.ndarray
    sides: np.ndarray
    measures: pandas.DataFrame
    warnings: tuple[str, ...]


def remeasure(
    source: Source,
    segmentation: Source,
    *,
    lungs: Source | None = None,
    regions: Source | None = None,
    series: str | None = None,
    name: str | None = None,
    progress: Progress = silent,
) -> Measured:
    """Measure the tissues of a segmentation.

    The lungs are the lung mask together with all tissues; lung of no tissue is vessel and airway wall.
    Without a mask the lungs are found in the CT as ``segment`` finds them, unless the label map has vessels
    of its own: then it is all lung that there is.

    Args:
        source: the CT.
        segmentation: segments that are tissues by ID, code or name, or a label map with the tissue table's
            values.
        lungs: the lung mask that the segmentation was made with.
        regions: lobes or other regions to measure beside the whole, right and left lung, or ``thirds``.
        series: Series Number or UID to take of a DICOM folder; None for the one that a reader would take.
        name: what the report calls the CT; None for a name that tells nobody's.
        progress: told stage, fraction and message.

    Raises:
        UnusableInputError: an input cannot be used, or there is no tissue in it.
    """
    progress("read", 0.0, "Reading the CT and the segmentation")
    volume = load_volume(source, series, name)
    labels, warnings = load_tissues(segmentation, volume)
    progress("lungs", 0.3, "Finding the lungs")
    found = _lungs(volume, labels, lungs)
    filled, sides = complete(labels, found.sides, volume.spacing)
    progress("measures", 0.8, "Measuring")
    named = regions_from_sides(sides) | more_regions(regions, volume, sides)
    table = measure(filled, volume.hu, volume.spacing, named, volume.voxel_ml)
    said = [*volume.warnings, *found.warnings, *edge_warnings(sides > 0, volume.spacing), *warnings]
    said += _gap_warnings(labels, sides, lungs is not None)
    said += dependent_warnings(filled, sides, volume)
    return Measured(volume, filled, sides, table, tuple(said))


def _lungs(volume: Volume, labels: np.ndarray, given: Source | None) -> Lungs:
    if given is not None:
        mask, sides_are_named = load_lungs(given, volume)
        return lungs_from_mask(mask, volume.hu, volume.spacing, sides_are_named)
    try:
        found = segment_lungs(volume.hu, volume.spacing)
    except UnusableInputError:
        found = lungs_from_mask(labels > 0, volume.hu, volume.spacing)
        sentence = "No lungs were found in the CT: only the segmented tissues count as lung."
        return Lungs(found.sides, found.airways, (sentence, *found.warnings))
    if not (labels == VESSEL).any():
        return found
    sides = np.where(labels > 0, found.sides, np.uint8(0))
    if not sides.any():
        return lungs_from_mask(labels > 0, volume.hu, volume.spacing)
    return Lungs(sides, found.airways, found.warnings)


def _gap_warnings(labels: np.ndarray, sides: np.ndarray, mask_was_given: bool) -> list[str]:
    """A lung mask much larger than the tissues is the wrong mask, or a part was never segmented."""
    lung = sides > 0
    share = float(np.count_nonzero(lung & (labels == 0)) / np.count_nonzero(lung))
    if share <= MOST_WITHOUT_TISSUE:
        return []
    remedy = "check both" if mask_was_given else "give the lung mask it was made with (--lungs)"
    return [f"{100 * share:.0f} % of the lungs has no tissue and counts as vessel; {remedy}."]
