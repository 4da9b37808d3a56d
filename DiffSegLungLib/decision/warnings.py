"""What the reader must know before the numbers."""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.decision.naming import NamingRule, blur_warnings, is_reference, upper_shift
from DiffSegLungLib.io.volume import Volume, edge_warnings
from DiffSegLungLib.lungs.lungs import Lungs
from DiffSegLungLib.parenchyma.grid import Grid

EXPIRATION_SHIFT = 60.0
"""Shift of the healthy density in HU from which the reader is told that the lungs are not fully inflated."""


def reader_warnings(
    volume: Volume, found: Lungs, grid: Grid, healthy: np.ndarray, rule: NamingRule
) -> list[str]:
    """What the reader must know before the numbers; ``healthy`` is the HU of healthy lung by row."""
    warnings = [*volume.warnings, *found.warnings, *edge_warnings(found.mask, volume.spacing)]
    warnings += blur_warnings(grid.grain, rule)
    if is_reference(healthy, rule):
        warnings.append(
            f"Too little aerated lung is left to read the patient's healthy density off: the reference of "
            f"{rule.reference_hu:.0f} HU was taken, and ground glass and emphysema are judged against it."
        )
    shift = float(upper_shift(healthy, rule).mean())
    if shift >= EXPIRATION_SHIFT:
        warnings.append(
            f"Healthy lung is {shift:.0f} HU denser than at full inspiration, and ground glass is judged "
            "against it: too much is found where lung is not unfolded, too little where disease is spread "
            "evenly. Emphysema may be under-estimated."
        )
    return warnings
