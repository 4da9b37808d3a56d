"""The report's page: turns measures and manifest into rows, and rows into one HTML file."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from DiffSegLungLib.anatomy import LEFT, RIGHT, WHOLE
from DiffSegLungLib.export.deciding import STUDENT, deciding_weights
from DiffSegLungLib.export.report.change import INTRODUCTION as CHANGE
from DiffSegLungLib.export.report.change import TRANSITIONS, Change, change_of, signed_text
from DiffSegLungLib.quantify.measures import DEFINITIONS, DENSITOMETRY, number_text
from DiffSegLungLib.quantify.scores import scores
from DiffSegLungLib.tissues import REPORTED

if TYPE_CHECKING:
    import pandas

    from DiffSegLungLib.quantify.comparison import Compared

FACTS = (
    ("Software", "software"),
    ("Input", "input"),
    ("Model", "model"),
    ("Parameters", "parameters"),
)
"""Title and key of the manifest's parts that are tables of their own."""

RUN_FACTS = ("created", "device", "seed", "seconds", "peak_memory_mb")
"""The manifest's single values, shown together."""

METHOD = (
    "A diffusion U-Net, trained without annotations on disease painted into healthy lung, tells how likely "
    "each tissue is in each voxel; the labels follow that posterior, fused with the edges of the CT."
)
METHOD_MIXTURE = (
    "Each lung voxel is described by the features of a diffusion network at several time steps, given to one "
    "of the components of a Gaussian mixture adapted to the patient, named by density and texture, and "
    "delineated by fusing the posterior with the edges of the CT."
)
METHOD_UNKNOWN = (
    "The tissues were read from a segmentation whose origin is not recorded; the measures are DiffSegLung's."
)

INTRODUCTION = (
    "Lung tissue on CT, segmented by DiffSegLung. Tissue names are patterns on the image, not diagnoses."
)
INTRODUCTION_UNKNOWN = (
    "Lung tissue on CT, measured by DiffSegLung. Tissue names are patterns on the image, not diagnoses."
)
CAPTIONS = {
    "tissues": "Volume, and share of the region's parenchyma: its lung voxels without vessels and airway "
    "walls. The shares of the tissues sum to 100 %.",
    "pictures": "Lung window, level -600, width 1500 HU. The patient's right is on the left of the picture. "
    "Left: the CT alone. Right: disease in colour, the lungs as a thin outline, vessels not painted.",
    "densities": "Over all lung voxels of the region, vessels included, from the HU alone.",
    "change": CHANGE,
    "transitions": TRANSITIONS,
    "definitions": "How each number is computed. Slice thickness, kernel, contrast and inspiration move "
    "densitometry: compare like with like.",
}
"""Said above each table and the pictures."""

MAIN_REGIONS = (WHOLE, RIGHT, LEFT)
"""On the first page, as far as they are there."""
WIDEST = 3
"""Regions beside each other in a table."""

HEADLINES = ("lung_ml", "disease_percent", "mean_hu", "laa950_percent", "haa_percent")


@dataclass(frozen=True)
class Picture:
    """A picture in the page: PNG bytes, what it shows for those who do not see it, and its caption."""

    png: bytes
    alt: str
    caption: str

    @property
    def uri(self) -> str:
        """The picture inside its own address."""
        return "data:image/png;base64," + b64encode(self.png).decode("ascii")


@dataclass(frozen=True)
class Content:
    """All that a report says, as text; the page and the PDF lay it out.

    Attributes:
        name: the case.
        notice: printed at the top and at the bottom.
        introduction: what this is.
        warnings: sentences.
        headlines: label, value, unit and region of the numbers to see first.
        regions: the columns of the tables.
        tissues: rows of volumes and shares.
        densities: rows of densitometry.
        definitions: rows that say how each number is computed.
        method: how the tissues were found.
        origin: program, weights and time of the run, in a line.
        facts: titles and rows of what the result was made with.
        change: since an earlier point in time, None without one.
        main: how many regions stand on the first page.
    """

    name: str
    notice: str
    introduction: str
    warnings: list[str]
    headlines: list[dict[str, str]]
    regions: list[str]
    tissues: list[dict[str, Any]]
    densities: list[dict[str, Any]]
    definitions: list[dict[str, str]]
    method: str
    origin: str
    facts: list[tuple[str, list[tuple[str, str]]]]
    change: Change | None = None
    main: int = WIDEST


def content_of(
    name: str,
    measures: pandas.DataFrame,
    manifest: Mapping[str, Any],
    notice: str,
    compared: Compared | None = None,
) -> Content:
    """The report's text.

    Args:
        name: the case.
        measures: as ``measure`` returns it.
        manifest: of the run; missing keys leave their rows out.
        notice: printed at the top and at the bottom.
        compared: with an earlier point in time, None for none.
    """
    is_ours = "model" in manifest
    return Content(
        name=name,
        notice=notice,
        introduction=INTRODUCTION if is_ours else INTRODUCTION_UNKNOWN,
        warnings=[str(warning) for warning in manifest.get("warnings") or []],
        headlines=_headlines(measures, compared),
        regions=[str(region) for region in measures.index],
        tissues=_tissue_rows(measures),
        densities=_density_rows(measures),
        definitions=_definition_rows() + _score_definitions(measures),
        method=_method(manifest["model"]) if is_ours else METHOD_UNKNOWN,
        origin=_origin(manifest),
        facts=_facts(manifest),
        change=change_of(compared) if compared else None,
        main=sum(region in MAIN_REGIONS for region in measures.index) or WIDEST,
    )


def render(content: Content, pictures: Mapping[str, Sequence[Picture]]) -> str:
    """The whole page as text.

    Args:
        content: what it says.
        pictures: the sections ``glance``, ``slices``, ``projection`` and ``charts``.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    source = files(__package__).joinpath("report.html.j2").read_text(encoding="utf-8")
    template = environment.from_string(source)
    return template.render(**vars(content), captions=CAPTIONS, pictures=pictures, widest=WIDEST)


def _method(model: Mapping[str, Any]) -> str:
    """How the model of a manifest decides."""
    known = isinstance(model, Mapping) and deciding_weights(model)[0] == STUDENT
    return METHOD_MIXTURE if known else METHOD


def _headlines(measures: pandas.DataFrame, compared: Compared | None) -> list[dict[str, str]]:
    row = measures.iloc[0]
    region = str(measures.index[0])
    return [
        {
            "change": _change_text(compared, region, column),
            "label": DEFINITIONS[column].name,
            "value": number_text(row[column], DEFINITIONS[column].unit),
            "unit": DEFINITIONS[column].unit,
            "region": region,
        }
        for column in HEADLINES
    ] + [
        {
            "label": score.name,
            "value": str(score.total),
            "unit": f"of {score.highest}",
            "region": region,
            "change": "",
        }
        for score in scores(measures)
    ]


def _change_text(compared: Compared | None, region: str, column: str) -> str:
    """What it was earlier, and the change; empty where it is not known."""
    if compared is None or (region, column) not in compared.changes.index:
        return ""
    row, unit = compared.changes.loc[(region, column)], DEFINITIONS[column].unit
    return f"earlier {number_text(row['earlier'], unit)} ({signed_text(float(row['change']), unit)})"


def _tissue_rows(measures: pandas.DataFrame) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        _share_row(measures, tissue.name, f"{tissue.key}_ml", f"{tissue.key}_percent", tissue.colour)
        for tissue in REPORTED
    ]
    rows.append(_share_row(measures, DEFINITIONS["disease_percent"].name, None, "disease_percent"))
    rows.append(_share_row(measures, DEFINITIONS["vessel_ml"].name, "vessel_ml", None))
    rows.append(_share_row(measures, DEFINITIONS["lung_ml"].name, "lung_ml", None))
    return rows


def _share_row(
    measures: pandas.DataFrame,
    name: str,
    volume: str | None,
    share: str | None,
    colour: tuple[int, int, int] | None = None,
) -> dict[str, Any]:
    cells = []
    for _, row in measures.iterrows():
        cells.append("" if volume is None else number_text(row[volume], "ml"))
        cells.append("" if share is None else number_text(row[share], "%"))
    absent = volume is not None and bool((measures[volume] == 0).all())
    css = None if colour is None else "rgb({}, {}, {})".format(*colour)
    return {"name": name, "colour": css, "cells": cells, "absent": absent, "is_total": colour is None}


def _density_rows(measures: pandas.DataFrame) -> list[dict[str, Any]]:
    return [
        {
            "name": DEFINITIONS[column].name,
            "unit": DEFINITIONS[column].unit,
            "cells": [number_text(value, DEFINITIONS[column].unit) for value in measures[column]],
        }
        for column in DENSITOMETRY
    ]


def _definition_rows() -> list[dict[str, str]]:
    """Each definition once; the tissues share one, so they are one row."""
    first = REPORTED[0]
    of_tissues = {f"{tissue.key}_{unit}" for tissue in REPORTED for unit in ("ml", "percent")}
    rows = []
    for column, entry in DEFINITIONS.items():
        if column in of_tissues and not column.startswith(f"{first.key}_"):
            continue
        name, text = entry.name, entry.definition
        if column in of_tissues:
            name = "Volume of a tissue" if entry.unit == "ml" else "Share of a tissue"
            text = text.replace(f"labelled {first.name.lower()}", "with the tissue's label")
        rows.append({"name": name, "unit": entry.unit, "definition": text, "source": entry.source})
    return rows


def _score_definitions(measures: pandas.DataFrame) -> list[dict[str, str]]:
    return [
        {"name": score.name, "unit": "points", "definition": score.definition, "source": score.source}
        for score in scores(measures)
    ]


def _facts(manifest: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    sections = []
    for title, key in FACTS:
        value = manifest.get(key)
        rows = _fact_rows(value) if isinstance(value, Mapping) else [(key, _value_text(value))]
        sections.append((title, [row for row in rows if row[1]]))
    run = {key: manifest[key] for key in RUN_FACTS if key in manifest}
    sections.append(("Run", [row for row in _fact_rows(run) if row[1]]))
    return [(title, rows) for title, rows in sections if rows]


def _origin(manifest: Mapping[str, Any]) -> str:
    known = {key: manifest.get(key) for key in ("software", "model")}
    software, model = (value if isinstance(value, Mapping) else {} for value in known.values())
    parts = [f"{software.get('name', 'DiffSegLung')} {software.get('version', '')}".strip()]
    if model:
        parts.append(f"weights {model.get('name', '')} {model.get('version', '')}".strip())
    return "; ".join([*parts, *([str(manifest["created"])] if "created" in manifest else [])])


def _fact_rows(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in facts.items():
        if key == "metadata" and isinstance(value, Mapping):
            rows += _fact_rows(value)
        else:
            rows.append((str(key).replace("_", " "), _value_text(value)))
    return rows


def _value_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    if isinstance(value, Mapping):
        return "; ".join(f"{key} {_value_text(item)}" for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(_value_text(item) for item in value)
    return str(value)
