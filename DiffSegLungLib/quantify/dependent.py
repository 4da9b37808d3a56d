"""Dependent density: what weight presses together looks like ground glass on one CT.

In a lying patient the lowest lung is the densest.  Where both lungs are so, one scan cannot tell it from
disease, but another in the opposite position can.
"""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.filters import box_around
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.tissues import FIBROSIS, GROUND_GLASS, VESSEL

OPPOSITE = {"S": "prone", "P": "supine"}
"""By the last letter of DICOM's Patient Position, of one who lies on the back or on the front."""
LOWEST = 0.2
"""Share of a lung's height above what it lies on that is its lowest part."""
LEAST_OF_LOWEST = 0.1
"""Share of the lowest part of either lung that is raised in density, from which weight may be the cause."""
CONCENTRATION = 2.0
"""How many times the share of raised density higher up in that lung it must be."""


def dependent_warnings(labels: np.ndarray, sides: np.ndarray, volume: Volume) -> list[str]:
    """Say how much raised density lies where the weight of the lungs alone may have made it.

    Args:
        labels: uint8 (z, y, x), values of the tissue table, y from front to back.
        sides: uint8 (z, y, x), 1 in the right lung, 2 in the left.
        volume: the CT; where it tells no Patient Position, the patient lies on the back.

    Returns:
        One sentence; none where one lung alone is so, raised tissue is about as frequent higher up, or the
        patient lies on a side.
    """
    opposite = OPPOSITE.get(volume.metadata.get("patient_position", "S")[-1].upper())
    if opposite is None or not (sides > 0).any():
        return []
    box = box_around(sides > 0)
    on_the_back = opposite == "prone"
    parts = [_lowest_part(_rows(labels[box], sides[box] == side), on_the_back) for side in (1, 2)]
    if not all(_is_densest_below(*part) for part in parts):
        return []
    pressed_ml = sum(low[0] for low, _ in parts) * volume.voxel_ml
    return [
        f"{pressed_ml:.0f} mL of ground glass and fibrosis lie in the lowest fifth of both lungs, where lung "
        f"pressed by its own weight looks the same; a scan in {opposite} position tells them apart."
    ]


def _rows(labels: np.ndarray, lung: np.ndarray) -> np.ndarray:
    """Voxels of raised density and of parenchyma in each row of a lung, (2, y)."""
    rows = np.zeros((2, labels.shape[1]), np.int64)
    for tissue, inside in zip(labels, lung, strict=True):  # by slice: no copy of the volume
        rows[0] += np.count_nonzero(((tissue == GROUND_GLASS) | (tissue == FIBROSIS)) & inside, axis=1)
        rows[1] += np.count_nonzero((tissue > 0) & (tissue != VESSEL) & inside, axis=1)
    return rows


def _lowest_part(rows: np.ndarray, on_the_back: bool) -> tuple[np.ndarray, np.ndarray]:
    """Voxels of raised density and of parenchyma, (2,), in a lung's lowest part and in what lies above."""
    upward = rows[:, ::-1] if on_the_back else rows
    held = np.flatnonzero(upward[1])
    end = held[0] + max(round(LOWEST * (held[-1] + 1 - held[0])), 1) if held.size else 0
    return upward[:, :end].sum(axis=1), upward[:, end:].sum(axis=1)


def _is_densest_below(low: np.ndarray, above: np.ndarray) -> bool:
    share, share_above = (part[0] / max(part[1], 1) for part in (low, above))
    return bool(share > LEAST_OF_LOWEST and share > CONCENTRATION * share_above)
