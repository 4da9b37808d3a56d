"""Scores that readers give by eye, computed from the measures by fixed rules.

They are not the visual scores: a reader sees what the label map may lack, and the other way round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from DiffSegLungLib.anatomy import LOBES, THIRD_NAMES
from DiffSegLungLib.tissues import BY_LABEL, CONSOLIDATION, EMPHYSEMA, FIBROSIS, GROUND_GLASS

if TYPE_CHECKING:
    import pandas

OPACITIES = (GROUND_GLASS, FIBROSIS, CONSOLIDATION)
LEAST_OPACITY, LEAST_EMPHYSEMA = 1.0, 5.0
"""Shares in % from which a zone scores: `severity_points` and `goddard_points` say whose they are."""


@dataclass(frozen=True)
class Score:
    """One score of one patient.

    Attributes:
        key: the machine's name.
        name: the reader's name.
        points: points of each zone, by the zone's name.
        highest: the most points there can be.
        definition: how it is computed, with the sign of each comparison.
        source: where the visual score comes from.
    """

    key: str
    name: str
    points: dict[str, int]
    highest: int
    definition: str
    source: str

    @property
    def total(self) -> int:
        """The sum over the zones."""
        return sum(self.points.values())

    @property
    def text(self) -> str:
        """One line for a reader."""
        zones = ", ".join(f"{zone} {points}" for zone, points in self.points.items())
        return f"{self.name}: {self.total} of {self.highest} ({zones})"


def severity_points(percent: float) -> int:
    """Points of a lobe: 0 below 1 %, 1 below 5, 2 from 5 to 25, 3 below 50, 4 from 50 to 75, 5 above.

    A reader's "none" is what the eye passes over; a label map has a few voxels in any lung.  The sister scale
    of Li 2020 (doi:10.1007/s00330-020-06817-6) scores 1 from 1 % to 25 %: nothing below 1 % is scored here.
    """
    if percent < LEAST_OPACITY:
        return 0
    if percent < 5:
        return 1
    if percent <= 25:
        return 2
    if percent < 50:
        return 3
    return 4 if percent <= 75 else 5


def goddard_points(percent: float) -> int:
    """Points of a zone: 0 below 5 %, 1 below 25 %, 2 from 25 %, 3 from 50 %, 4 from 75 %.

    Goddard's 0 is a zone without emphysema to the eye.  Low attenuation is found in healthy lung, too:
    quantitative CT calls it emphysema from 5 % on (Amaza 2021, Int J COPD 16:1231, doi:10.2147/COPD.S284477).
    """
    return sum(percent >= bound for bound in (LEAST_EMPHYSEMA, 25, 50, 75))


def scores(measures: pandas.DataFrame) -> list[Score]:
    """The scores whose zones are all in the table.

    Args:
        measures: as ``measures.measure`` returns it; the five lobes give the CT severity score, the thirds of
            both lungs the Goddard-like score.

    Returns:
        None, one or both; a zone without parenchyma makes its score undefined, and it is left out.
    """
    severity = _points(measures, [lobe.name for lobe in LOBES], OPACITIES, severity_points)
    goddard = _points(measures, list(THIRD_NAMES), (EMPHYSEMA,), goddard_points)
    found = []
    if severity:
        found.append(
            Score(
                "ct_severity", "CT severity score (computed)", severity, 25,
                "Each lobe by its share of ground glass, fibrosis and consolidation in % of its parenchyma: "
                "0 < 1; 1 from 1 to < 5; 2 from 5 to 25; 3 > 25 and < 50; 4 from 50 to 75; 5 > 75. "
                "Sum of five lobes",
                "Pan 2020, Radiology 295:715; the bounds here leave no gap between 25 and 26; "
                "the least share is that of Li 2020, doi:10.1007/s00330-020-06817-6",
            )
        )  # fmt: skip
    if goddard:
        found.append(
            Score(
                "goddard_like", "Goddard-like score (computed)", goddard, 24,
                "Each third of each lung by its share of emphysema in % of its parenchyma: 0 < 5; "
                "1 from 5 to < 25; 2 from 25 to < 50; 3 from 50 to < 75; 4 from 75. Sum of six zones",
                "after Goddard 1982, Clin Radiol 33:379, which scores slices by eye; "
                "from 5 % quantitative CT speaks of emphysema, Amaza 2021, doi:10.2147/COPD.S284477",
            )
        )  # fmt: skip
    return found


def _points(
    measures: pandas.DataFrame, zones: list[str], labels: tuple[int, ...], rule: Callable[[float], int]
) -> dict[str, int]:
    if not set(zones) <= set(measures.index):
        return {}
    columns = [f"{BY_LABEL[label].key}_percent" for label in labels]
    shares = measures.loc[zones, columns].sum(axis=1, skipna=False).astype(float)
    if not np.isfinite(shares).all():
        return {}
    return {str(zone): rule(float(share)) for zone, share in shares.items()}
