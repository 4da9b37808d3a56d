"""The report: one overview picture, or one self-contained page, the same as PDF, and one table.

``slices`` chooses what to show, ``figures`` draws it, ``page`` writes the HTML, ``pdf`` the PDF.  Files
appear complete or not at all.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.export.report import figures
from DiffSegLungLib.export.report.figures import NOT_CLINICAL
from DiffSegLungLib.export.report.page import Picture, content_of, render
from DiffSegLungLib.export.report.pdf import pdf_bytes
from DiffSegLungLib.export.report.slices import PLANE_NAMES, Chest, Cut, choose_cuts, plane
from DiffSegLungLib.quantify.measures import DEFINITIONS
from DiffSegLungLib.quantify.scores import scores
from DiffSegLungLib.tissues import DISEASES

if TYPE_CHECKING:
    import pandas

    from DiffSegLungLib.quantify.comparison import Compared

__all__ = ["NOT_CLINICAL", "PDF_NAME", "write_overview", "write_report"]

PDF_NAME = "report.pdf"
JSON_NAME = "report.json"


def write_overview(
    path_png: str | Path,
    hu: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    title: str,
    measures: pandas.DataFrame | None = None,
) -> None:
    """Writes one picture that shows the whole result.

    Args:
        path_png: the file.
        hu: (z, y, x) Hounsfield units in canonical LPS axes.
        labels: (z, y, x) label values, 0 outside the lungs.
        spacing: (z, y, x) in mm.
        title: the case.
        measures: as ``measure`` returns it; without it the legend has no numbers.
    """
    chest = Chest.crop(hu, labels, spacing)
    _write(Path(path_png), figures.overview_png(chest, title, measures))


def write_report(
    folder: str | Path,
    *,
    hu: np.ndarray,
    labels: np.ndarray,
    spacing: tuple[float, float, float],
    measures: pandas.DataFrame,
    manifest: Mapping[str, Any],
    name: str,
    compared: Compared | None = None,
) -> dict[str, Path]:
    """Writes ``report.html``, with its pictures inside, ``report.pdf``, ``report.json``, ``measures.csv``.

    Args:
        folder: made if it is not there.
        hu: (z, y, x) Hounsfield units in canonical LPS axes.
        labels: (z, y, x) label values, 0 outside the lungs.
        spacing: (z, y, x) in mm.
        measures: as ``measure`` returns it, the whole lung first.
        manifest: of the run; any key may be missing.
        name: the case, as the reader knows it.
        compared: with an earlier point in time, None for none.

    Returns:
        The files by what they are: ``report``, ``pdf``, ``measures`` and ``json``.
    """
    chest = Chest.crop(hu, labels, spacing)
    content = content_of(name, measures, manifest, NOT_CLINICAL, compared)
    pictures = _pictures(chest, measures)
    table = measures.to_csv(lineterminator="\n").encode("utf-8")
    files = {
        "report": ("report.html", render(content, pictures).encode("utf-8")),
        "pdf": (PDF_NAME, pdf_bytes(content, pictures)),
        "measures": ("measures.csv", table),
        "json": (JSON_NAME, _json(name, measures, manifest, compared)),
    }
    written = {what: Path(folder) / file for what, (file, _) in files.items()}
    for what, path in written.items():
        _write(path, files[what][1])
    return written


def _json(
    name: str, measures: pandas.DataFrame, manifest: Mapping[str, Any], compared: Compared | None
) -> bytes:
    """All that the report says, for programs; an undefined number is null."""
    content = {
        "case": name,
        "notice": NOT_CLINICAL,
        "measures": _by_row(measures),
        "scores": {
            score.key: {"total": score.total, "highest": score.highest, "zones": score.points}
            for score in scores(measures)
        },
        "definitions": {column: vars(definition) for column, definition in DEFINITIONS.items()},
        "change": _change_json(compared),
        "manifest": manifest,
    }
    return (json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n").encode("utf-8")


def _by_row(table: pandas.DataFrame) -> dict[str, dict[str, Any]]:
    defined = table.astype(object).where(table.notna(), None)
    return {str(name): row.to_dict() for name, row in defined.iterrows()}


def _change_json(compared: Compared | None) -> dict[str, Any] | None:
    if compared is None:
        return None
    regions = dict.fromkeys(compared.changes.index.get_level_values("region"))
    return {
        "interval": compared.interval or None,
        "regions": {str(region): _by_row(compared.changes.loc[region]) for region in regions},
        "transitions_ml": None if compared.transitions is None else _by_row(compared.transitions),
        "warnings": list(compared.warnings),
    }


def _pictures(chest: Chest, measures: pandas.DataFrame) -> dict[str, list[Picture]]:
    projection = Picture(
        figures.projection_png(chest),
        "Coronal projections, one per disease: the share of the lung's depth that the disease takes.",
        "Share of the lung's depth, front to back, that each disease takes. One scale for all.",
    )
    histogram = Picture(
        figures.histogram_png(chest),
        "Histogram of the Hounsfield units of the lungs by tissue, logarithmic, with a line at -950 HU.",
        "Each tissue for itself, on a logarithmic scale. Dashed: -950 HU. Bars above: the density range in "
        "which each tissue is plausible.",
    )
    body = Picture(
        figures.relief_png(chest),
        "The lungs in three dimensions from the front and from behind, with each disease as a coloured body.",
        "In three dimensions, the patient turned by 30 degrees: disease in its colour within glassy lungs.",
    )
    bars = Picture(
        figures.bars_png(measures),
        "Stacked bars: share of each tissue per region, as in the table of tissues.",
        "Share of each tissue per region, of the parenchyma.",
    )
    glance = Picture(
        figures.glance_png(chest, choose_cuts(chest, axial=1)),
        "The most diseased axial, coronal and sagittal slice, the lungs in three dimensions, projections of "
        "each disease and the histogram.",
        "Above: the axial, coronal and sagittal slice with most disease, lung window, and the lungs from "
        "the front. Below: share of the lung's depth that each disease takes; histogram of the lungs.",
    )
    return {
        "glance": [glance],
        "slices": [_slice_picture(chest, cut) for cut in choose_cuts(chest)],
        "projection": [projection, body],
        "charts": [histogram, bars],
    }


def _slice_picture(chest: Chest, cut: Cut) -> Picture:
    labels = plane(chest.labels, cut)
    lung = max(int(np.count_nonzero(labels)), 1)
    shares = [(tissue.name.lower(), 100 * int((labels == tissue.label).sum()) / lung) for tissue in DISEASES]
    seen = ", ".join(f"{name} {share:.1f} %" for name, share in shares if share >= 0.05) or "no disease"
    caption = f"{cut.title(chest)}. Of the lung in this slice: {seen}."
    alt = f"{PLANE_NAMES[cut.axis]} CT slice, alone and with the segmented tissues: {seen}."
    return Picture(figures.pair_png(chest, cut), alt, caption)


def _write(path: Path, content: bytes) -> None:
    """Writes beside, then renames: a reader never meets half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        _keep_usual_permissions(beside)
        os.replace(beside, path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def _keep_usual_permissions(path: str) -> None:
    # mkstemp makes files that only their owner may read; a report is for colleagues, as the umask allows.
    mask = os.umask(0)
    os.umask(mask)
    os.chmod(path, 0o666 & ~mask)
