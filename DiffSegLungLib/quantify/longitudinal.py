"""Two points in time of one patient: what changed, per region and measure, and from which tissue to which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib.anatomy import WHOLE
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.quantify.measures import DEFINITIONS
from DiffSegLungLib.tissues import OUTSIDE, TISSUES

if TYPE_CHECKING:
    import pandas

OTHER_INFLATION = 10.0
"""Change of the lung volume in % from which densities are not compared like with like."""


def read_measures(path: Path) -> pandas.DataFrame:
    """A table of measures as ``segment --measures`` or ``measure -o`` wrote it.

    Raises:
        UnusableInputError: it cannot be read, or is another table.
    """
    import pandas

    try:
        table = pandas.read_csv(path, index_col="region", dtype=str).astype(float)
    except (OSError, ValueError) as error:
        raise UnusableInputError(f"{path}: no table of measures: {str(error).splitlines()[0]}.") from None
    if "lung_ml" not in table:
        raise UnusableInputError(f"{path}: it has no column lung_ml; give a measures.csv of DiffSegLung.")
    return table


def changes(earlier: pandas.DataFrame, later: pandas.DataFrame) -> pandas.DataFrame:
    """The change of each measure in each region that both tables have.

    Args:
        earlier: as ``measures.measure`` returns it.
        later: the same of the later CT.

    Returns:
        Index (region, measure); columns ``unit``, ``earlier``, ``later``, ``change`` = later - earlier in the
        unit, and ``change_percent`` = 100 x change / earlier, NaN where the earlier value is 0 or negative
        (a density in HU has no ratio).

    Raises:
        UnusableInputError: no region is in both.
    """
    import pandas

    regions = [region for region in later.index if region in earlier.index]
    columns = [column for column in DEFINITIONS if column in earlier and column in later]
    if not regions or not columns:
        raise UnusableInputError("The two tables share no region: measure both with the same regions.")
    index = pandas.MultiIndex.from_product([regions, columns], names=["region", "measure"])
    table = pandas.DataFrame(index=index)
    table["unit"] = [DEFINITIONS[column].unit for _, column in index]
    table["earlier"] = earlier.loc[regions, columns].to_numpy(float).ravel()
    table["later"] = later.loc[regions, columns].to_numpy(float).ravel()
    table["change"] = table["later"] - table["earlier"]
    table["change_percent"] = 100 * table["change"] / table["earlier"].where(table["earlier"] > 0)
    return table


def change_warnings(earlier: pandas.DataFrame, later: pandas.DataFrame) -> list[str]:
    """What stands against a comparison: lungs inflated otherwise, regions of one table only."""
    said = []
    if WHOLE in earlier.index and WHOLE in later.index:
        before, after = float(earlier.loc[WHOLE, "lung_ml"]), float(later.loc[WHOLE, "lung_ml"])
        change = 100 * (after - before) / before if before > 0 else np.nan
        if abs(change) > OTHER_INFLATION:
            said.append(
                f"The lungs are {abs(change):.0f} % {'larger' if change > 0 else 'smaller'} than before; "
                "another inspiration alone changes densities and ground glass."
            )
    alone = sorted(set(earlier.index) ^ set(later.index))
    if alone:
        said.append(f"Regions of one point in time only, not compared: {', '.join(map(str, alone))}.")
    return said


def transitions(earlier: np.ndarray, later: np.ndarray, voxel_ml: float) -> pandas.DataFrame:
    """From which tissue to which, voxel by voxel on one grid.

    Args:
        earlier: uint8 (z, y, x), brought onto the later CT's grid (``registration.bring_onto``).
        later: uint8 (z, y, x).
        voxel_ml: volume of a voxel.

    Returns:
        ml; index ``earlier`` and columns ``later`` by the tissues' keys and ``outside``.  What is outside the
        lungs at both times does not count.

    Raises:
        UnusableInputError: the shapes differ.
    """
    import pandas

    if earlier.shape != later.shape:
        raise UnusableInputError(f"Label maps of shapes {earlier.shape} and {later.shape} are on two grids.")
    keys = ["outside", *(tissue.key for tissue in TISSUES)]
    pairs = earlier.astype(np.int64).ravel() * len(keys) + later.ravel()
    counts = np.bincount(pairs, minlength=len(keys) ** 2).reshape(len(keys), len(keys)).astype(float)
    counts[OUTSIDE, OUTSIDE] = 0
    index = pandas.Index(keys, name="earlier")
    return pandas.DataFrame(counts * voxel_ml, index=index, columns=pandas.Index(keys, name="later"))


def overlap(earlier: np.ndarray, later: np.ndarray) -> float:
    """Dice overlap of the lungs after registration, 0 to 1: below about 0.95 the match is doubtful."""
    first, second = earlier > 0, later > 0
    both = int(np.count_nonzero(first & second))
    return 2 * both / max(int(np.count_nonzero(first)) + int(np.count_nonzero(second)), 1)


def changes_text(table: pandas.DataFrame) -> str:
    """The changes of the whole lung (or the first region) as aligned text, for a terminal."""
    region = WHOLE if WHOLE in table.index.get_level_values("region") else table.index[0][0]
    lines = [f"{f'Change, {region}':<38}{'earlier':>10}{'later':>10}{'change':>10}"]
    for column, row in table.loc[region].iterrows():
        definition = DEFINITIONS[str(column)]
        values = "".join(f"{row[name]:>10.1f}" for name in ("earlier", "later")) + f"{row['change']:>+10.1f}"
        lines.append(f"{f'{definition.name}, {definition.unit}':<38}{values}")
    return "\n".join(lines)
