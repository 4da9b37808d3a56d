"""Volumes, shares and densities of the tissues, per region of the lung.

Two denominators, never mixed.  The share of a tissue is a share of the region's *parenchyma*: the lung
voxels without vessels and airway walls, so the shares of the tissues sum to 100.  Densitometry is taken
over *all* lung voxels of the region, vessels included, as the field does, so that the numbers compare
with published ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib.anatomy import LEFT, RIGHT, WHOLE, regions_from_sides
from DiffSegLungLib.densities import AIR_HU, LOW_ATTENUATION_HU
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.tissues import DISEASES, OUTSIDE, REPORTED, TISSUES, VESSEL, Tissue

if TYPE_CHECKING:
    import pandas

    from DiffSegLungLib.io.volume import Volume

HIGH_ATTENUATION = (-600.0, -250.0)
"""HU between which a voxel is a high-attenuation area; both bounds are excluded."""


@dataclass(frozen=True)
class Definition:
    """What a column of the table means.

    Attributes:
        name: the reader's name.
        unit: of the number.
        definition: how it is computed, with the sign of each comparison.
        source: where the definition comes from.
    """

    name: str
    unit: str
    definition: str
    source: str


_OWN = "DiffSegLung"
_PARENCHYMA = "parenchyma (lung voxels that are not vessel or airway wall)"


def _tissue_definitions() -> dict[str, Definition]:
    table: dict[str, Definition] = {}
    for tissue in REPORTED:
        table[f"{tissue.key}_ml"] = Definition(
            tissue.name, "ml", f"Voxels labelled {tissue.name.lower()} x voxel volume", _OWN
        )
        table[f"{tissue.key}_percent"] = Definition(
            tissue.name, "%", f"100 x voxels labelled {tissue.name.lower()} / voxels of {_PARENCHYMA}", _OWN
        )
    return table


DEFINITIONS: dict[str, Definition] = {
    "lung_ml": Definition("Lung volume", "ml", "All labelled voxels of the region x voxel volume", _OWN),
    "vessel_ml": Definition(
        "Vessels and airway walls", "ml", "Voxels labelled vessel and airway wall x voxel volume", _OWN
    ),
    **_tissue_definitions(),
    "disease_percent": Definition(
        "Diseased lung", "%", f"100 x voxels of all diseased tissues / voxels of {_PARENCHYMA}", _OWN
    ),
    "mean_hu": Definition(
        "Mean lung density", "HU", "Mean over all lung voxels, vessels included",
        "Mascalchi 2017, doi:10.21037/jtd.2017.08.17",
    ),
    "perc15_hu": Definition(
        "15th percentile (Perc15)", "HU",
        "15th percentile over all lung voxels, linear interpolation, 1000 not added",
        "Mascalchi 2017, doi:10.21037/jtd.2017.08.17",
    ),
    "laa950_percent": Definition(
        "Low attenuation (LAA-950)", "%", "100 x voxels with HU < -950 (strictly) / all lung voxels",
        "Gevenois 1996, Am J Respir Crit Care Med 154:187; strict sign as in the Chest Imaging Platform",
    ),
    "haa_percent": Definition(
        "High attenuation (HAA)", "%", "100 x voxels with -600 < HU < -250 / all lung voxels",
        "Podolanczuk 2016, Eur Respir J 48:1442",
    ),
    "mass_g": Definition(
        "Lung mass", "g", "Sum over all lung voxels of (HU + 1000) / 1000 g/ml, not below 0, x voxel volume",
        "Coxson 2013, PMC3823539",
    ),
}  # fmt: skip
"""Every column of the table, in its order."""

DENSITOMETRY: tuple[str, ...] = ("mean_hu", "perc15_hu", "laa950_percent", "haa_percent", "mass_g")
"""The columns that come from HU alone, over all lung voxels."""


def measure(
    labels: np.ndarray,
    hu: np.ndarray,
    spacing: tuple[float, float, float],
    regions: Mapping[str, np.ndarray],
    voxel_ml: float | None = None,
) -> pandas.DataFrame:
    """Measures every region.

    The percentages of the tissues are of the region's parenchyma: its lung voxels without label 7
    (vessel and airway wall).  They are voxel-weighted and sum to 100.  Densitometry is over all lung
    voxels of the region, vessels included.  ``DEFINITIONS`` holds unit, definition and source of each column.

    Args:
        labels: (z, y, x), label values of the tissue table, 0 outside the lungs.
        hu: (z, y, x) Hounsfield units.
        spacing: (z, y, x) in mm.
        regions: name to bool mask (z, y, x); what lies outside the labelled lungs does not count.
        voxel_ml: volume of a voxel; the product of the spacings without it, which is too much for a stack
            that a tilted gantry sheared.

    Returns:
        One row per region in the order given (index name ``region``), columns as in ``DEFINITIONS``.  A
        region without lung has volumes and mass 0, and NaN for what is undefined there.

    Raises:
        UnusableInputError: if shapes differ, the spacing is not positive or a label value is unknown.
    """
    import pandas

    _check(labels, hu, spacing, regions)
    box = lung_box(labels)
    labels, hu = labels[box], hu[box]
    voxel_ml = float(np.prod(spacing)) / 1000.0 if voxel_ml is None else voxel_ml
    rows = [_measure_region(labels, hu, np.asarray(mask)[box], voxel_ml) for mask in regions.values()]
    index = pandas.Index(list(regions), name="region")
    return pandas.DataFrame(rows, index=index, columns=list(DEFINITIONS), dtype=float)


def measure_corrected(
    labels: np.ndarray,
    sides: np.ndarray,
    hu: np.ndarray,
    spacing: tuple[float, float, float],
    regions: Mapping[str, np.ndarray] | None = None,
    voxel_ml: float | None = None,
) -> pandas.DataFrame:
    """Measures tissues that somebody may have corrected by hand.

    Args:
        labels: (z, y, x), label values of the tissue table; see `complete` for what the gaps become.
        sides: (z, y, x), 1 in the patient's right lung, 2 in the left, 0 elsewhere.
        hu: (z, y, x) Hounsfield units.
        spacing: (z, y, x) in mm.
        regions: name to bool mask (z, y, x), measured beside the whole, the right and the left lung.
        voxel_ml: volume of a voxel, where it is not the product of the spacings.

    Returns:
        As ``measure``.  Labels that nobody touched give the numbers of the run that made them.

    Raises:
        UnusableInputError: as ``measure``, or there is no lung.
    """
    filled, named = complete(labels, sides, spacing)
    return measure(filled, hu, spacing, {**regions_from_sides(named), **(regions or {})}, voxel_ml)


def complete(
    labels: np.ndarray, sides: np.ndarray, spacing: tuple[float, float, float]
) -> tuple[np.ndarray, np.ndarray]:
    """Makes one lung of a lung mask and of the tissues drawn in it and beyond.

    Args:
        labels: (z, y, x), label values of the tissue table.
        sides: (z, y, x), 1 in the patient's right lung, 2 in the left, 0 elsewhere.
        spacing: (z, y, x) in mm.

    Returns:
        The labels, with vessel where the lung mask has no tissue, and the sides, with tissue outside the
        mask given to the nearer lung.

    Raises:
        UnusableInputError: the shapes differ, or there is no lung.
    """
    if labels.shape != sides.shape:
        raise UnusableInputError(
            f"The lung mask has shape {sides.shape}, the label map {labels.shape}: "
            "give both on the CT's grid."
        )
    lung, tissue = sides > 0, labels != OUTSIDE
    if not lung.any():
        raise UnusableInputError("There is no lung to measure: give a lung mask that is not empty.")
    filled = np.where(lung & ~tissue, np.asarray(VESSEL, labels.dtype), labels)
    beyond = tissue & ~lung
    if not beyond.any():
        return filled, sides
    named = sides.copy()
    named[beyond] = _nearer_side(np.argwhere(beyond), sides, spacing)
    return filled, named


def _nearer_side(voxels: np.ndarray, sides: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """The side of the lung surface that is nearest to each voxel (count, 3), by distance in mm."""
    from scipy import ndimage
    from scipy.spatial import cKDTree

    box = lung_box(sides)
    lung = sides[box] > 0
    surface = np.argwhere(lung & ~ndimage.binary_erosion(lung)) + [along.start or 0 for along in box]
    nearest = cKDTree(surface * np.asarray(spacing)).query(voxels * np.asarray(spacing))[1]
    return sides[tuple(surface[nearest].T)]


def zonal_profile(labels: np.ndarray, levels: int = 20) -> pandas.DataFrame:
    """Share of each tissue from the apex of the lungs to their base.

    The slices from the highest to the lowest one with lung are parted by height; a slice belongs to the level
    that its middle lies in.

    Args:
        labels: (z, y, x), label values of the tissue table, 0 outside the lungs; +z is up.
        levels: how many; there are no more than slices with lung.

    Returns:
        A row a level, indexed by its middle in percent of the way down (index name ``from_apex``); a column a
        tissue by its key, in percent of the level's parenchyma, NaN where it has none.
    """
    import pandas

    slices = np.flatnonzero((labels != OUTSIDE).any(axis=(1, 2)))
    count = int(slices[-1] - slices[0] + 1) if slices.size else 0
    levels = min(levels, count)
    counts = np.zeros((levels, TISSUES[-1].label + 1), np.int64)
    for number in range(count):
        here = np.bincount(labels[slices[-1] - number].ravel(), minlength=counts.shape[1])
        counts[int((number + 0.5) * levels / count)] += here
    parenchyma = counts[:, [tissue.label for tissue in REPORTED]].sum(axis=1)
    whole = np.where(parenchyma > 0, parenchyma, np.nan)
    shares = {tissue.key: 100.0 * counts[:, tissue.label] / whole for tissue in REPORTED}
    middles = 100.0 * (np.arange(levels) + 0.5) / max(levels, 1)
    return pandas.DataFrame(shares, index=pandas.Index(middles, name="from_apex"))


def lung_box(labels: np.ndarray, margin: tuple[int, int, int] = (0, 0, 0)) -> tuple[slice, slice, slice]:
    """The smallest box that holds all labelled voxels, grown by a margin in voxels.

    Args:
        labels: (z, y, x), 0 outside the lungs.
        margin: (z, y, x) in voxels, cut at the border of the volume.

    Returns:
        One slice per axis; the whole volume if nothing is labelled.
    """
    box = []
    for axis, grown in enumerate(margin):
        others = tuple(other for other in range(labels.ndim) if other != axis)
        occupied = np.flatnonzero(labels.any(axis=others))
        if occupied.size == 0:
            return slice(None), slice(None), slice(None)
        box.append(slice(max(int(occupied[0]) - grown, 0), int(occupied[-1]) + 1 + grown))
    return box[0], box[1], box[2]


def table_text(measures: pandas.DataFrame) -> str:
    """The measures as aligned plain text, for a terminal.

    Args:
        measures: as ``measure`` returns it.

    Returns:
        A row per tissue with ml and % for whole, right and left lung (all regions, if none of these is
        there), then densitometry.  An undefined value is a dash.
    """
    regions = [name for name in (WHOLE, RIGHT, LEFT) if name in measures.index] or list(measures.index)
    width = max(len(definition.name) + len(definition.unit) for definition in DEFINITIONS.values()) + 2
    lines = [" " * width + "".join(f"{name:>20}" for name in regions)]
    lines.append(" " * width + f"{'ml':>11}{'%':>9}" * len(regions))
    for label, columns in _text_rows():
        cells = (_text_cells(measures.loc[name], columns) for name in regions)
        lines.append((f"{label:<{width}}" + "".join(cells)).rstrip())
    lines.append("% of parenchyma: lung without vessels and airway walls. Density: all lung voxels.")
    return "\n".join(lines)


def number_text(value: float, unit: str) -> str:
    """A number as a reader expects it in its unit; a dash where it is undefined."""
    if not np.isfinite(value):
        return "-"
    decimals = {"%": 1, "HU": 0, "g": 0, "ml": 0}.get(unit, 1)
    if unit == "ml" and 0 < abs(value) < 10:
        decimals = 1
    text = f"{value:,.{decimals}f}"
    return "0" if unit == "HU" and text == "-0" else text


def _check(
    labels: np.ndarray, hu: np.ndarray, spacing: tuple[float, float, float], regions: Mapping[str, np.ndarray]
) -> None:
    for name, array in (("the CT", hu), *((f"region '{name}'", mask) for name, mask in regions.items())):
        if array.shape != labels.shape:
            raise UnusableInputError(
                f"Shape of {name} is {array.shape}, the label map's is {labels.shape}: "
                "resample it to the CT's grid."
            )
    if labels.ndim != 3 or len(spacing) != 3 or not all(0 < size < np.inf for size in spacing):
        raise UnusableInputError(
            f"A volume of shape {labels.shape} with spacing {tuple(spacing)} mm cannot be measured: "
            "give three axes and a positive spacing for each."
        )
    if labels.size and int(labels.max()) > TISSUES[-1].label:
        raise UnusableInputError(
            f"Label {int(labels.max())} in the label map is not in the tissue table: "
            f"give labels 0 to {TISSUES[-1].label}."
        )


def _measure_region(
    labels: np.ndarray, hu: np.ndarray, region: np.ndarray, voxel_ml: float
) -> dict[str, float]:
    lung = region.astype(bool, copy=False) & (labels != OUTSIDE)
    counts = np.bincount(labels[lung], minlength=TISSUES[-1].label + 1)
    row = {"lung_ml": float(counts.sum()) * voxel_ml, "vessel_ml": float(counts[VESSEL]) * voxel_ml}
    return row | _tissue_shares(counts, voxel_ml) | _densitometry(hu[lung], voxel_ml)


def _tissue_shares(counts: np.ndarray, voxel_ml: float) -> dict[str, float]:
    parenchyma = int(sum(counts[tissue.label] for tissue in REPORTED))
    row: dict[str, float] = {}
    for tissue in REPORTED:
        row[f"{tissue.key}_ml"] = float(counts[tissue.label]) * voxel_ml
        row[f"{tissue.key}_percent"] = _percent(int(counts[tissue.label]), parenchyma)
    row["disease_percent"] = _percent(int(sum(counts[tissue.label] for tissue in DISEASES)), parenchyma)
    return row


def _densitometry(values: np.ndarray, voxel_ml: float) -> dict[str, float]:
    low, high = HIGH_ATTENUATION
    grams = np.maximum(values - AIR_HU, 0.0).sum(dtype=np.float64) / 1000.0 * voxel_ml
    return {
        "mean_hu": float(values.mean(dtype=np.float64)) if values.size else np.nan,
        "perc15_hu": float(np.percentile(values, 15)) if values.size else np.nan,
        "laa950_percent": _percent(int((values < LOW_ATTENUATION_HU).sum()), values.size),
        "haa_percent": _percent(int(((values > low) & (values < high)).sum()), values.size),
        "mass_g": float(grams),
    }


def _percent(part: int, whole: int) -> float:
    return 100.0 * part / whole if whole else np.nan


def _text_rows() -> list[tuple[str, tuple[str | None, str | None]]]:
    """Label and the columns for ml and %, a row of the text table each."""

    def shares(tissue: Tissue) -> tuple[str, tuple[str | None, str | None]]:
        return tissue.name, (f"{tissue.key}_ml", f"{tissue.key}_percent")

    rows = [shares(tissue) for tissue in REPORTED]
    rows.append((DEFINITIONS["disease_percent"].name, (None, "disease_percent")))
    rows += [(DEFINITIONS[column].name, (column, None)) for column in ("vessel_ml", "lung_ml")]
    for column in DENSITOMETRY:
        definition = DEFINITIONS[column]
        rows.append((f"{definition.name}, {definition.unit}", (None, column)))
    return rows


def _text_cells(row: pandas.Series, columns: tuple[str | None, str | None]) -> str:
    volume, share = (
        "" if column is None else number_text(row[column], DEFINITIONS[column].unit) for column in columns
    )
    return f"{volume:>11}{share:>9}"


def measure_lungs(
    labels: np.ndarray,
    volume: Volume,
    sides: np.ndarray,
    own_regions: dict[str, np.ndarray],
    box: tuple[slice, slice, slice],
) -> pandas.DataFrame:
    """The measures of whole, right and left lung and of the user's regions, taken in the lungs' box alone."""
    regions = regions_from_sides(sides[box])
    regions |= {name: mask[box] for name, mask in own_regions.items()}
    return measure(labels[box], volume.hu[box], volume.spacing, regions, volume.voxel_ml)
