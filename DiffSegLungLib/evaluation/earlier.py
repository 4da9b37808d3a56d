"""Figures that a run did not measure, taken from the run before it, with the commit that they are of."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

SOURCE = "carried_over"
NESTED = ("baselines", "details")
"""What is carried field by field: each has figures of several parts of the evaluation."""

Row = dict[str, Any]


def load_results(folder: Path) -> Row:
    """``results.json`` of a folder, null as NaN; empty where there is none."""
    path = folder / "results.json"
    stored: Row = _with_nan(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}
    return stored


def with_earlier(summary: Row, earlier: Row) -> Row:
    """Add what only an earlier run has.

    Args:
        summary: of this run.
        earlier: ``results.json`` of the earlier one, or nothing.

    Returns:
        Both; ``carried_over`` has the commit of each figure that is not this run's.
    """
    merged, source = dict(summary), {}
    before = earlier.get(SOURCE, {})

    def carry(name: str) -> None:
        source[name] = before.get(name, earlier["commit"])

    for name, value in earlier.items():
        if name in NESTED and name in merged:
            merged[name], fields = _merged(merged[name], value)
            for field in fields:
                carry(f"{name}.{field}")
        elif name not in merged and name != SOURCE:
            merged[name] = value
            carry(name)
    return {**merged, SOURCE: dict(sorted(source.items()))} if source else merged


def _merged(own: Row, other: Row) -> tuple[Row, list[str]]:
    """Two dictionaries, the own first, and the names of the fields that are the other's."""
    result, fields = dict(own), []
    for name, value in other.items():
        if name not in own:
            result[name] = value
            fields += _measured(value) if isinstance(value, dict) else [name]
        elif isinstance(value, dict):
            missing = {key: item for key, item in value.items() if key not in own[name]}
            result[name] = {**own[name], **missing}
            fields += _measured(missing)
    return result, list(dict.fromkeys(fields))


def _measured(row: Row) -> list[str]:
    """Names of the fields that hold a figure: NaN is none."""
    return [key for key, value in row.items() if not (isinstance(value, float) and math.isnan(value))]


def _with_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_with_nan(item) for item in value]
    return float("nan") if value is None else value
