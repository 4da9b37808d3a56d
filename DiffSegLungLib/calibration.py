"""Are air and blood where Hounsfield units put them?  Trachea and heart tell how far a scanner is off.

Every chest CT holds these two references.  A shift is believed only where both show it: contrast medium moves
the blood alone, a narrow or moving trachea the air alone.  But nothing makes air lighter than it is: where
the trachea shows that, the scale is too long.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from .filters import box_around

TRACHEA_HU = -978.0
"""Its inner air, median of the ten training CT: scatter and breathing keep it above -1000."""
BLOOD_HU = 42.0
"""Heart without contrast medium, median of the seven of them that have none; 36 to 50."""
BLOOD_SPREAD_HU = 70.0
"""From the tenth to the ninetieth percentile, at most; contrast medium is uneven."""
FURTHEST_HU = 60.0
"""More is contrast medium, or no Hounsfield units at all."""
AGREEMENT_HU = 25.0
"""How far trachea and blood may differ in the shift they show."""
LEAST_EACH_HU, LEAST_HU = 8.0, 15.0
"""What each must show, and both on average, before anything is done."""
BELIEVABLE_HU = (-1005.0, -920.0)
"""Of the trachea; below, the scale is too long: air has -1000 HU, but for noise.  Above, that is told."""
SURE_HU = -1015.0
"""Trachea from which on that is believed in full; from -1005 on in part, so that no HU makes a leap."""
LEAST_VOXELS = 30
HEART = (0.35, 0.75)
"""Share of the lungs' height, from below, in which the heart is looked for."""
DEEP_MM = 12.0
"""Distance of the heart's inside from fat, lung and bone."""
SOFT_HU = (-60.0, 500.0)


@dataclass(frozen=True)
class Calibration:
    """What trachea and blood show.

    Attributes:
        trachea_hu: HU of the trachea's air, None where there is too little of it.
        blood_hu: HU of the blood, None where contrast medium is in it or too little was found.
        offset_hu: how far the CT lies above Hounsfield units; 0 where the two do not agree.
        stretch: how much too far the CT's values lie from blood's; 1 unless its air is lighter than air.
    """

    trachea_hu: float | None = None
    blood_hu: float | None = None
    offset_hu: float = 0.0
    stretch: float = 1.0

    def corrected(self, hu: np.ndarray) -> np.ndarray:
        """HU as they should be, float32; the same array where nothing is to be done."""
        if self.stretch != 1.0:
            return (hu - np.float32(BLOOD_HU)) / np.float32(self.stretch) + np.float32(BLOOD_HU)
        return hu - np.float32(self.offset_hu) if self.offset_hu else hu

    @property
    def slope(self) -> float | None:
        """HU between air and blood over what it should be; None without both."""
        if self.trachea_hu is None or self.blood_hu is None:
            return None
        return (self.blood_hu - self.trachea_hu) / (BLOOD_HU - TRACHEA_HU)

    def stored(self) -> dict[str, float | None]:
        """Plain numbers for the manifest."""
        told = asdict(self) | {"slope": self.slope}
        return {name: None if value is None else round(value, 3) for name, value in told.items()}

    def warnings(self) -> list[str]:
        """One sentence for each thing the reader should know."""
        if self.trachea_hu is None:
            return ["the trachea was not found, so the CT values could not be checked against its air"]
        if self.offset_hu:
            way = "high" if self.offset_hu > 0 else "low"
            shown = f"trachea ({self.trachea_hu:.0f} HU) and blood ({self.blood_hu:.0f} HU)"
            return [
                f"the CT values lie {abs(self.offset_hu):.0f} HU too {way} by {shown}: tissues were judged "
                "without that, and the densities given are the CT's own; check the scanner's calibration"
            ]
        if self.stretch != 1.0:
            return [
                f"the trachea has {self.trachea_hu:.0f} HU, which no air has: tissues were judged as if the "
                f"scale were {100 * (self.stretch - 1):.1f} % too long, and the densities given are the CT's "
                "own; check the scanner's calibration"
            ]
        if self.trachea_hu > BELIEVABLE_HU[1]:
            return [
                f"the trachea's air has {self.trachea_hu:.0f} HU, not about {TRACHEA_HU:.0f}: emphysema and "
                "ground glass depend on it; check the scanner's calibration"
            ]
        return []


def calibrate(work: np.ndarray, airways: np.ndarray, lungs: np.ndarray, side_mm: float) -> Calibration:
    """Measure trachea and blood.

    Args:
        work: HU (z, y, x), isotropic, z from below.
        airways: bool, trachea and main bronchi.
        lungs: uint8, 1 right and 2 left lung.
        side_mm: of a voxel.
    """
    trachea, blood = _trachea(work, airways), _blood(work, lungs, side_mm)
    offset = _offset(trachea, blood)
    return Calibration(trachea, blood, offset, 1.0 if offset else _stretch(trachea))


def _offset(trachea: float | None, blood: float | None) -> float:
    """The shift that both show, else 0."""
    if trachea is None or blood is None:
        return 0.0
    shifts = np.array([trachea - TRACHEA_HU, blood - BLOOD_HU])
    mean = float(shifts.mean())
    same_way = (np.sign(shifts) == np.sign(mean)).all() and np.abs(shifts).min() >= LEAST_EACH_HU
    if not same_way or np.ptp(shifts) > AGREEMENT_HU or abs(mean) < LEAST_HU:
        return 0.0
    return mean


def _stretch(trachea: float | None) -> float:
    """The scale that makes the trachea's air so light; blood, near water, is where scanners are right."""
    if trachea is None or trachea >= BELIEVABLE_HU[0]:
        return 1.0
    sure = min((BELIEVABLE_HU[0] - trachea) / (BELIEVABLE_HU[0] - SURE_HU), 1.0)
    return 1.0 + sure * (TRACHEA_HU - trachea) / (BLOOD_HU - TRACHEA_HU)


def _trachea(work: np.ndarray, airways: np.ndarray) -> float | None:
    """Lower quartile within the airways: walls and slices in part are denser; of means, against noise."""
    inside = ndimage.binary_erosion(airways, iterations=2)
    if np.count_nonzero(inside) < LEAST_VOXELS:
        return None
    box = box_around(inside, 1)
    smooth = ndimage.uniform_filter(work[box], 3)
    return float(np.percentile(smooth[inside[box]], 25))


def _blood(work: np.ndarray, lungs: np.ndarray, side_mm: float) -> float | None:
    """Median of the even soft tissue between the lungs at the height of the heart."""
    box = _between(lungs)
    if box is None:
        return None
    soft = (work[box] > SOFT_HU[0]) & (work[box] < SOFT_HU[1]) & (lungs[box] == 0)
    values = work[box][ndimage.distance_transform_edt(soft) * side_mm > DEEP_MM]
    if values.size < LEAST_VOXELS:
        return None
    low, middle, high = np.percentile(values, [10, 50, 90])
    plain = high - low <= BLOOD_SPREAD_HU and abs(middle - BLOOD_HU) <= FURTHEST_HU
    return float(middle) if plain else None


def _between(lungs: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The box between the middles of the two lungs; None where there are not two."""
    places = [np.nonzero(lungs == side) for side in (1, 2)]
    if min(len(place[0]) for place in places) == 0:
        return None
    left, right = sorted(int(np.median(place[2])) for place in places)
    rows = np.flatnonzero((lungs > 0).any(axis=(1, 2)))
    low, high = (int(rows[0] + share * (rows[-1] - rows[0])) for share in HEART)
    front, back = np.percentile(np.concatenate([place[1] for place in places]), [10, 90]).astype(int)
    if min(high - low, back - front, right - left) < 1:
        return None
    return slice(low, high), slice(front, back), slice(left, right)
