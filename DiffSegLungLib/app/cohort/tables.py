"""What a cohort adds up to: a table of all measures, one of all cases, and the failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.app.cohort.jobs import DONE, FAILED, MANIFEST, MEASURES, Job, read_record
from DiffSegLungLib.export.labels import model_provenance
from DiffSegLungLib.io.atomic import write_text, write_together
from DiffSegLungLib.quantify.scores import scores

if TYPE_CHECKING:
    import pandas

MEASURES_TABLE, CASES_TABLE, FAILURES_TABLE = "measures", "cases", "failures"
TIMES = ("seconds", "peak_mb")
"""Columns of the table of cases that two runs of one cohort do not share."""


def gather(jobs: Sequence[Job]) -> dict[str, pandas.DataFrame]:
    """The tables of a cohort, cases in the order of their names.

    Args:
        jobs: of the cohort; those without a record are left out.

    Returns:
        ``measures``, a row a case and region; ``cases``, a row a case; ``failures``, what failed and why.
    """
    import pandas

    rows, parts = [], []
    for job in sorted(jobs, key=lambda job: job.case):
        record = read_record(job)
        if not record:
            continue
        rows.append({"case": job.case} | {key: record.get(key) for key in ("state", "reason", *TIMES)})
        if record.get("state") == DONE:
            # As text first: what parses numbers quickly may lose the last digit.
            table = pandas.read_csv(job.folder / MEASURES, index_col="region", dtype=str).astype(float)
            rows[-1] |= _facts(json.loads((job.folder / MANIFEST).read_text(encoding="utf-8")), table)
            parts.append(table.reset_index().assign(case=job.case))
    cases = pandas.DataFrame(rows, columns=None if rows else ["case", "state", "reason", *TIMES])
    failures = cases.loc[cases["state"] == FAILED, ["case", "reason"]].reset_index(drop=True)
    return {MEASURES_TABLE: _measures(parts), CASES_TABLE: cases, FAILURES_TABLE: failures}


def _measures(parts: list[pandas.DataFrame]) -> pandas.DataFrame:
    import pandas

    if not parts:
        return pandas.DataFrame(columns=["case", "region"])
    table = pandas.concat(parts, ignore_index=True)
    return table[["case", *(column for column in table.columns if column != "case")]]


def _facts(manifest: dict[str, Any], table: pandas.DataFrame) -> dict[str, Any]:
    """What a statistician filters by: acquisition, warnings, scores, model."""
    described, model = manifest.get("input", {}), manifest.get("model", {})
    spacing = described.get("spacing_mm") or [None] * 3
    return {
        **{f"spacing_{axis}_mm": step for axis, step in zip("xyz", spacing, strict=True)},
        **{key: str(value) for key, value in described.get("metadata", {}).items()},
        "warnings": " | ".join(manifest.get("warnings", [])),
        **{score.key: score.total for score in scores(table)},
        "model": f"{model.get('name', '')} {model.get('version', '')}".strip(),
        "weights_sha256": model_provenance(manifest).get("sha256", ""),
    }


def write_tables(folder: Path, tables: dict[str, pandas.DataFrame], suffix: str = "") -> list[Path]:
    """Write each table as CSV and, where pyarrow is installed, as Parquet; all or none appear.

    Args:
        folder: takes them.
        tables: as `gather` returns them.
        suffix: of the names, such as ``-3-of-10`` for one part of a cohort.

    Returns:
        The files.
    """
    writers: dict[Path, Callable[[Path], None]] = {}
    for name, table in tables.items():
        writers[folder / f"{name}{suffix}.csv"] = partial(_write_csv, table=table)
        if has_parquet():
            writers[folder / f"{name}{suffix}.parquet"] = partial(table.to_parquet, index=False)
    write_together(writers)
    return list(writers)


def has_parquet() -> bool:
    """Whether Parquet can be written."""
    return find_spec("pyarrow") is not None


def _write_csv(path: Path, table: pandas.DataFrame) -> None:
    write_text(path, table.to_csv(index=False, lineterminator="\n"))
