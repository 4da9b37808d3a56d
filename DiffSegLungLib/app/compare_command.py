"""The options ``--compare`` of ``measure``: an earlier point in time beside the one just measured."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.export.labels import write_table
from DiffSegLungLib.io.atomic import require_places
from DiffSegLungLib.io.files import require_different, require_suffix
from DiffSegLungLib.quantify.comparison import KINDS, Compared, CompareRequest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that compare."""
    compare_help = "earlier measures (.csv), or an earlier segmentation with --earlier-ct"
    parser.add_argument("--compare", metavar="EARLIER", type=Path, help=compare_help)
    parser.add_argument("--earlier-ct", metavar="CT", type=Path, help="the CT of the earlier segmentation")
    series_help = (
        "number or UID of its series, where it is a DICOM folder (default: the original with most slices)"
    )
    parser.add_argument("--earlier-series", metavar="N_OR_UID", help=series_help)
    parser.add_argument("--earlier-lungs", metavar="MASK", type=Path, help="lung mask of the earlier CT")
    register_help = "bring the earlier CT onto this one, to tell which tissue became which"
    parser.add_argument("--register", choices=KINDS, help=register_help)
    parser.add_argument("--changes", metavar="OUT.csv", type=Path, help="write the changes")
    transitions_help = "write from which tissue to which, in ml (with --register)"
    parser.add_argument("--transitions", metavar="OUT.csv", type=Path, help=transitions_help)
    dates_help = "say in the report when both CT were made (DICOM only); dates can identify a patient"
    parser.add_argument("--dates", action="store_true", help=dates_help)


def table_writers(request: CompareRequest, compared: Compared) -> dict[Path, Callable[[Path], None]]:
    """What writes the tables that were asked for."""
    tables = {request.changes: compared.changes, request.transitions: compared.transitions}
    return {
        path: partial(write_table, measures=table)
        for path, table in tables.items()
        if path and table is not None
    }


def check_compare(request: CompareRequest, source: Path) -> None:
    """Refuses what cannot end well, before the long work.

    Raises:
        UnusableInputError: options that do not go together, or nothing can be written there.
        MissingPartError: ITKElastix.
    """
    given = [
        request.earlier_ct,
        request.earlier_series,
        request.earlier_lungs,
        request.register,
        request.changes,
        request.transitions,
        request.dates,
    ]
    if request.compare is None:
        if any(given):
            raise UnusableInputError("Nothing to compare with: give the earlier measures with --compare.")
        return
    if not request.compare.exists():
        raise UnusableInputError(f"{request.compare}: no such file; check the path.")
    if request.is_table and (request.register or request.earlier_ct or request.earlier_series):
        raise UnusableInputError("A table cannot be registered: give the earlier segmentation to --compare.")
    if not request.is_table and request.earlier_ct is None:
        raise UnusableInputError("An earlier segmentation needs its CT to be measured: give --earlier-ct.")
    if request.transitions and not request.register:
        raise UnusableInputError("Only registered CTs tell which tissue became which: give --register.")
    if request.dates and request.is_table:
        raise UnusableInputError("A table has no date: give the earlier segmentation and its CT for --dates.")
    outputs = [path for path in (request.changes, request.transitions) if path]
    for path in outputs:
        require_suffix("table", path, (".csv",))
    require_different([source, request.compare, *filter(None, [request.earlier_ct])], outputs)
    require_places(outputs, None)
    if request.register:
        from DiffSegLungLib.quantify.registration import require_elastix

        require_elastix()
