"""An earlier point in time beside the one just measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from DiffSegLungLib.errors import UnusableInputError

if TYPE_CHECKING:
    import pandas

    from DiffSegLungLib.quantify.remeasure import Measured

KINDS = ("rigid", "affine", "deformable")
LEAST_OVERLAP = 0.9
"""Dice overlap of the registered lungs below which the reader is warned."""


@dataclass(frozen=True)
class CompareRequest:
    """What to compare with, and what to write.

    Attributes:
        compare: the earlier table of measures (.csv), or the earlier segmentation.
        earlier_ct: the CT of the earlier segmentation.
        earlier_series: Series Number or UID to take where it is a DICOM folder, None for the series with most
            slices.
        earlier_lungs: its lung mask, None to find the lungs.
        register: a kind of registration, None for none.
        changes: table of the changes (.csv), None for none.
        transitions: table from which tissue to which (.csv), None for none.
        dates: whether the report says when both CT were made; dates can identify a patient.
    """

    compare: Path | None = None
    earlier_ct: Path | None = None
    earlier_series: str | None = None
    earlier_lungs: Path | None = None
    register: str | None = None
    changes: Path | None = None
    transitions: Path | None = None
    dates: bool = False

    @property
    def is_table(self) -> bool:
        """Whether the earlier measures are given, not to be measured."""
        return self.compare is not None and self.compare.suffix == ".csv"


@dataclass(frozen=True)
class Compared:
    """What changed.

    Attributes:
        changes: as `longitudinal.changes` returns it.
        transitions: as `longitudinal.transitions` returns it, None without registration.
        warnings: sentences for the reader.
        interval: both dates and the days between them, empty unless they were asked for.
    """

    changes: pandas.DataFrame
    transitions: pandas.DataFrame | None
    warnings: tuple[str, ...]
    interval: str = ""


def compare(request: CompareRequest, later: Measured, regions: Path | None = None) -> Compared:
    """Compare what was measured with the earlier point in time.

    Args:
        request: what with.
        later: the later point in time.
        regions: of the later one; ``thirds`` is measured in the earlier one, too.

    Raises:
        DiffSegLungError: unusable input or output, or something missing.
    """
    from DiffSegLungLib.quantify.longitudinal import change_warnings, changes, read_measures

    assert request.compare is not None
    moved, before = None, None
    if request.is_table:
        table = read_measures(request.compare)
    else:
        before = _measure_earlier(request, regions)
        table = before.measures
    said = change_warnings(table, later.measures)
    if before is not None and request.register:
        moved, doubts = _registered(request, later, before)
        said += doubts
    interval, doubts = _interval(before, later) if before is not None and request.dates else ("", [])
    return Compared(changes(table, later.measures), moved, (*said, *doubts), interval)


def _interval(before: Measured, later: Measured) -> tuple[str, list[str]]:
    """Both dates and the days between, and what is odd about them.

    Raises:
        UnusableInputError: a CT has no date.
    """
    from DiffSegLungLib.io.acquisition import acquired_on

    dates = [acquired_on(measured.volume.dicom_files) for measured in (before, later)]
    first, second = dates
    if first is None or second is None:
        which = "earlier" if first is None else "later"
        raise UnusableInputError(f"The {which} CT tells no date: --dates needs DICOM; leave it out.")
    days = (second - first).days
    doubts = [] if days > 0 else ["The CT that was given as the earlier one was not made earlier."]
    return f"{first.isoformat()} to {second.isoformat()} ({days} days)", doubts


def _measure_earlier(request: CompareRequest, regions: Path | None) -> Measured:
    from DiffSegLungLib.anatomy import THIRDS
    from DiffSegLungLib.quantify.remeasure import remeasure

    assert request.compare is not None and request.earlier_ct is not None
    thirds = regions if str(regions) == THIRDS else None  # lobes of the later CT do not fit the earlier one
    try:
        return remeasure(
            request.earlier_ct,
            request.compare,
            lungs=request.earlier_lungs,
            regions=thirds,
            series=request.earlier_series,
        )
    except UnusableInputError as error:  # its remedy names the options of the later CT
        remedy = re.sub(r"--(series|lungs)\b", r"--earlier-\1", str(error))
        raise UnusableInputError(f"The earlier CT: {remedy}") from None


def _registered(
    request: CompareRequest, later: Measured, before: Measured
) -> tuple[pandas.DataFrame, list[str]]:
    from DiffSegLungLib.quantify.longitudinal import overlap, transitions
    from DiffSegLungLib.quantify.registration import bring_onto

    assert request.register is not None
    moved = bring_onto(later.volume, later.labels, before.volume, before.labels, request.register)
    share = overlap(moved, later.labels)
    said = []
    if share < LEAST_OVERLAP:
        said.append(
            f"The registered lungs overlap by {share:.2f} only (Dice); look before you use transitions."
        )
    return transitions(moved, later.labels, later.volume.voxel_ml), said
