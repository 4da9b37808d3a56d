"""The report's part on an earlier point in time: what changed, and which tissue became which."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.quantify.measures import DEFINITIONS, DENSITOMETRY, number_text
from DiffSegLungLib.tissues import BY_KEY, REPORTED, VESSEL

if TYPE_CHECKING:
    import pandas

    from DiffSegLungLib.quantify.comparison import Compared

INTRODUCTION = (
    "Change = later - earlier, in the measure's own unit; of shares in percentage points. Another level of "
    "inspiration, scanner or kernel changes densities by itself."
)
TRANSITIONS = (
    "Volume in ml that was one tissue (row) and is another one now (column), after the earlier CT was "
    "registered onto the later one. Vessels move little; what is outside at one time lies at the edge."
)
NO_DATES = "Dates are not said."
OUTSIDE_NAME, VESSEL_NAME = "Outside", "Vessels, airway walls"


@dataclass(frozen=True)
class Change:
    """All that a report says of a change, as text.

    Attributes:
        interval: when both CT were made, or that it is not said.
        regions: those of both points in time.
        rows: a measure each: ``name``, ``unit``, ``colour`` and, per region, earlier, later and change.
        transitions: the tissues' names, and rows of name and ml; empty without registration.
    """

    interval: str
    regions: list[str]
    rows: list[dict[str, Any]]
    transitions: list[tuple[str, list[str]]]

    @property
    def tissue_names(self) -> list[str]:
        """Columns of the transitions."""
        return [name for name, _ in self.transitions]


def change_of(compared: Compared) -> Change:
    """The report's text of a comparison."""
    table = compared.changes
    regions = list(dict.fromkeys(str(region) for region in table.index.get_level_values("region")))
    known = set(table.index.get_level_values("measure"))
    rows = [_row(table, regions, column) for column in _columns() if column in known]
    return Change(compared.interval or NO_DATES, regions, rows, _transitions(compared.transitions))


def _columns() -> list[str]:
    """Volume and share of each tissue, then what the whole comes to, then densitometry."""
    tissues = [f"{tissue.key}_{unit}" for tissue in REPORTED for unit in ("ml", "percent")]
    return [*tissues, "disease_percent", "lung_ml", *DENSITOMETRY]


def _row(table: pandas.DataFrame, regions: list[str], column: str) -> dict[str, Any]:
    definition = DEFINITIONS[column]
    tissue = BY_KEY.get(column.rpartition("_")[0])
    cells = []
    for region in regions:
        row = table.loc[(region, column)]
        cells += [number_text(row[when], definition.unit) for when in ("earlier", "later")]
        cells.append(signed_text(float(row["change"]), definition.unit))
    colour = tissue and "rgb({}, {}, {})".format(*tissue.colour)
    return {
        "name": tissue.name if tissue else definition.name,
        "unit": definition.unit,
        "colour": colour,
        "cells": cells,
    }


def signed_text(value: float, unit: str) -> str:
    """A change as a reader expects it: with its sign, and none where it rounds to nothing."""
    text = number_text(abs(value), unit)
    if not np.isfinite(value) or not text.strip("0.,"):
        return text
    return f"{'+' if value > 0 else '-'}{text}"


def _transitions(table: pandas.DataFrame | None) -> list[tuple[str, list[str]]]:
    if table is None:
        return []
    return [
        (_tissue_name(str(key)), [number_text(float(value), "ml") for value in row])
        for key, row in zip(table.index, table.to_numpy(), strict=True)
    ]


def _tissue_name(key: str) -> str:
    if key not in BY_KEY:
        return OUTSIDE_NAME
    return VESSEL_NAME if BY_KEY[key].label == VESSEL else BY_KEY[key].name
