"""What a run left in its folder, and the numbers that the page shows of it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from DiffSegLungLib.anatomy import LEFT, RIGHT, WHOLE
from DiffSegLungLib.app.measure_command import read_manifest
from DiffSegLungLib.io.files import SEGMENTATION_SUFFIX
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.quantify.measures import DEFINITIONS, DENSITOMETRY, number_text
from DiffSegLungLib.tissues import REPORTED

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Found:
    """What a run left: what is needed to measure again, and to say how it was made.

    Attributes:
        labels: uint8 (z, y, x), the tissues as they were found.
        sides: uint8 (z, y, x), 1 right lung, 2 left.
        manifest: of the run.
    """

    labels: np.ndarray
    sides: np.ndarray
    manifest: dict[str, Any]


@dataclass(frozen=True)
class RunFiles:
    """The files of one segmented CT."""

    segmentation: Path
    lungs: Path
    manifest: Path
    field: Path
    """What strokes need; never where results are saved."""

    @classmethod
    def of(cls, folder: Path, name: str) -> RunFiles:
        """Their names in a folder, for a CT of a name."""
        names = (
            f"{name}{SEGMENTATION_SUFFIX}",
            f"{name}.lungs{SEGMENTATION_SUFFIX}",
            f"{name}.manifest.json",
            f"{name}.field.safetensors",
        )
        return cls(*(folder / each for each in names))

    def fit(self, volume: Volume) -> bool:
        """Whether all are there, and of a CT of this size."""
        if not all(path.is_file() for path in (self.segmentation, self.lungs, self.manifest)):
            return False
        size = read_manifest(self.manifest).get("input", {}).get("size")
        return bool(size == list(volume.input_geometry.size))


def tissue_rows(measures: pandas.DataFrame, hidden: Collection[str] = ()) -> list[dict[str, Any]]:
    """The table, a row a tissue: ml and % of the whole lung, % of each side that is there."""
    sides = {side: region for side, region in (("right", RIGHT), ("left", LEFT)) if region in measures.index}
    return [
        {
            "key": tissue.key,
            "name": tissue.name,
            "colour": f"rgb{tissue.colour}",
            "visible": tissue.key not in hidden,
            "ml": number_text(measures.loc[WHOLE, f"{tissue.key}_ml"], "ml"),
            "percent": number_text(measures.loc[WHOLE, f"{tissue.key}_percent"], "%"),
            **{
                side: number_text(measures.loc[region, f"{tissue.key}_percent"], "%")
                for side, region in sides.items()
            },
        }
        for tissue in REPORTED
    ]


def facts(measures: pandas.DataFrame) -> list[dict[str, str]]:
    """Volume, share of disease and densitometry of the whole lung."""
    columns = ("lung_ml", "disease_percent", "vessel_ml", *DENSITOMETRY)
    return [
        {
            "key": column,
            "name": DEFINITIONS[column].name,
            "value": f"{number_text(measures.loc[WHOLE, column], DEFINITIONS[column].unit)}",
            "unit": DEFINITIONS[column].unit,
        }
        for column in columns
    ]
