"""Are air and blood where Hounsfield units put them?  Trachea, outside air, heart and aorta tell.

A shift is believed only where air and blood both show it: contrast medium moves the blood alone, a narrow or
moving trachea the air alone.  But nothing makes air lighter than it is: where the trachea shows that, the
scale is too long.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from scipy import ndimage

from DiffSegLungLib.filters import box_around
from DiffSegLungLib.lungs.aorta import between_middles, find_aorta

TRACHEA_HU = -978.0
"""Its inner air, median of the ten training CT: scatter and breathing keep it above -1000."""
OUTSIDE_HU = -997.0
"""Air around the patient, the lower tenth of blocks of it: median of the eight training CT in which it is not
cut off.  They have -1002 to -993, while their trachea's air spreads over 28 HU, and the median of the blocks,
clothes and blankets included, over 37 HU.

It stands in for a trachea that was not found: made shifts of 20 to 40 HU upwards are found to 6 HU in the
seven of them that have no contrast medium, and none where none was made.  Beside a trachea it may only forbid
a shift upwards, and forbids none of the made ones.  Downwards it is silent: five of the ten files end at
-1000 HU."""
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
UNEVEN_HU = 20.0
"""By which heart and aorta may differ, 7 in the training CT; more is contrast medium on its way."""
BLOCK_MM = 6.0
"""Side of the blocks in which outside air is averaged."""
FAR_BLOCKS = 1
"""Between a block and the next skin, clothes or table."""
LEAST_BLOCKS = 100
CUT_OFF_HU, MOST_CUT_OFF = -1023.5, 0.2
"""Where the working grid ends, and the share of the darkest air that may lie there; with more, what it was is
not known."""


@dataclass(frozen=True)
class Calibration:
    """What trachea and blood show.

    Attributes:
        trachea_hu: HU of the trachea's air, None where there is too little of it.
        blood_hu: HU of the blood, the heart's or, where that is uneven, the aorta's; None where contrast
            medium is in it or too little was found.
        offset_hu: how far the CT lies above Hounsfield units; 0 where the two do not agree.
        stretch: how much too far the CT's values lie from blood's; 1 unless its air is lighter than air.
        outside_hu: HU of the air far from the patient, None where there is too little or it is cut off.
        aorta_hu: HU of the descending aorta, None where it was not found or has contrast medium in it.
    """

    trachea_hu: float | None = None
    blood_hu: float | None = None
    offset_hu: float = 0.0
    stretch: float = 1.0
    outside_hu: float | None = None
    aorta_hu: float | None = None

    def corrected(self, hu: np.ndarray) -> np.ndarray:
        """HU as they should be, float32; the same array where nothing is to be done."""
        if self.stretch != 1.0:
            return (hu - np.float32(BLOOD_HU)) / np.float32(self.stretch) + np.float32(BLOOD_HU)
        return hu - np.float32(self.offset_hu) if self.offset_hu else hu

    @property
    def slope(self) -> float | None:
        """HU between air and blood over what it should be; None without both."""
        if self.blood_hu is None:
            return None
        if self.trachea_hu is not None:
            return (self.blood_hu - self.trachea_hu) / (BLOOD_HU - TRACHEA_HU)
        if self.outside_hu is not None:
            return (self.blood_hu - self.outside_hu) / (BLOOD_HU - OUTSIDE_HU)
        return None

    def stored(self) -> dict[str, float | None]:
        """Plain numbers for the manifest."""
        told = asdict(self) | {"slope": self.slope}
        return {name: None if value is None else round(value, 3) for name, value in told.items()}

    def warnings(self) -> list[str]:
        """One sentence for each thing the reader should know."""
        if self.offset_hu:
            way = "high" if self.offset_hu > 0 else "low"
            return [
                f"the CT values lie {abs(self.offset_hu):.0f} HU too {way} by {self._air()} and blood "
                f"({self.blood_hu:.0f} HU): tissues were judged without that, and the densities given are "
                "the CT's own; check the scanner's calibration"
            ]
        if self.trachea_hu is None:
            return ["the trachea was not found, so the CT values could not be checked against its air"]
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

    def _air(self) -> str:
        """The air that shows the shift, and its HU."""
        if self.trachea_hu is None:
            return f"outside air ({self.outside_hu:.0f} HU)"
        return f"trachea ({self.trachea_hu:.0f} HU)"


def calibrate(
    work: np.ndarray, airways: np.ndarray, outside: np.ndarray, lungs: np.ndarray, side_mm: float
) -> Calibration:
    """Measure air and blood.

    Args:
        work: HU (z, y, x), isotropic, z from below, x to the patient's left.
        airways: bool, trachea and main bronchi.
        outside: bool, air around the patient.
        lungs: uint8, 1 right and 2 left lung.
        side_mm: of a voxel.
    """
    trachea, around = _trachea(work, airways), _outside(work, outside, side_mm)
    aorta = _aorta(work, lungs, side_mm)
    blood = _blood(_heart(work, lungs, side_mm), aorta)
    offset = _offset(trachea, around, blood)
    stretch = 1.0 if offset else _stretch(trachea)
    return Calibration(trachea, blood, offset, stretch, outside_hu=around, aorta_hu=aorta)


def _offset(trachea: float | None, outside: float | None, blood: float | None) -> float:
    """The shift that air and blood show, else 0."""
    airs = _shifts((trachea, TRACHEA_HU), (outside, OUTSIDE_HU))
    bloods = _shifts((blood, BLOOD_HU))
    if not airs or not bloods:
        return 0.0
    mean = float(np.mean([airs[0], *bloods]))
    # outside air is cut off at -1000 or -1024 HU in many files: it cannot speak against a shift downwards
    shifts = np.array([*(airs if mean > 0 else airs[:1]), *bloods])
    same_way = (np.sign(shifts) == np.sign(mean)).all() and np.abs(shifts).min() >= LEAST_EACH_HU
    if not same_way or np.ptp(shifts) > AGREEMENT_HU or abs(mean) < LEAST_HU:
        return 0.0
    return mean


def _shifts(*pairs: tuple[float | None, float]) -> list[float]:
    """Measured minus expected, where it was measured."""
    return [measured - expected for measured, expected in pairs if measured is not None]


def _stretch(trachea: float | None) -> float:
    """The scale that makes the trachea's air so light; blood, near water, is where scanners are right."""
    if trachea is None or trachea >= BELIEVABLE_HU[0]:
        return 1.0
    sure = min((BELIEVABLE_HU[0] - trachea) / (BELIEVABLE_HU[0] - SURE_HU), 1.0)
    return 1.0 + sure * (TRACHEA_HU - trachea) / (BLOOD_HU - TRACHEA_HU)


def _trachea(work: np.ndarray, airways: np.ndarray) -> float | None:
    """Lower quartile within the airways: walls and slices in part are denser."""
    means = _means(work, ndimage.binary_erosion(airways, iterations=2))
    return None if means is None else float(np.percentile(means, 25))


def _means(work: np.ndarray, inside: np.ndarray) -> np.ndarray | None:
    """Means over three voxels, against noise, within a mask; None where it holds too little."""
    if np.count_nonzero(inside) < LEAST_VOXELS:
        return None
    box = box_around(inside, 1)
    return ndimage.uniform_filter(work[box], 3)[inside[box]]


def _outside(work: np.ndarray, outside: np.ndarray, side_mm: float) -> float | None:
    """Lower tenth of blocks of air far from the patient, without padding: clothes and blankets are denser."""
    step = max(round(BLOCK_MM / side_mm), 1)
    whole = _blocks(outside, step).all(axis=(3, 4, 5))
    air = _blocks(work, step)[whole].reshape(-1, step**3)
    padding, cube = np.zeros(whole.shape, bool), np.ones((3, 3, 3), bool)
    padding[whole] = air.max(axis=1) == air.min(axis=1)
    far = ndimage.binary_erosion(whole, cube, FAR_BLOCKS, border_value=1)
    air = air[(far & ~ndimage.binary_dilation(padding, cube))[whole]]
    if len(air) < LEAST_BLOCKS:
        return None
    means = air.mean(axis=1)
    low = np.percentile(means, 10)
    cut_off = air[means <= low] <= CUT_OFF_HU
    return float(low) if cut_off.mean() <= MOST_CUT_OFF else None


def _blocks(values: np.ndarray, step: int) -> np.ndarray:
    """Cubes of `step` voxels, (z, y, x, step, step, step); what is left over at the far ends is dropped."""
    z, y, x = (side // step for side in values.shape)
    cut = values[: z * step, : y * step, : x * step]
    return cut.reshape(z, step, y, step, x, step).transpose(0, 2, 4, 1, 3, 5)


def _blood(heart: np.ndarray | None, aorta: float | None) -> float | None:
    """The heart's blood, or the aorta's where the heart is uneven; None where contrast medium shows."""
    if heart is None:
        return aorta
    low, middle, high = (float(value) for value in heart)
    if abs(middle - BLOOD_HU) > FURTHEST_HU:
        return None
    if high - low > BLOOD_SPREAD_HU:
        return aorta
    return None if aorta is not None and abs(middle - aorta) > UNEVEN_HU else middle


def _aorta(work: np.ndarray, lungs: np.ndarray, side_mm: float) -> float | None:
    """Median of the descending aorta; None where it was not found or is uneven."""
    means = _means(work, find_aorta(work, lungs, side_mm))
    if means is None:
        return None
    low, middle, high = np.percentile(means, [10, 50, 90])
    return float(middle) if high - low <= BLOOD_SPREAD_HU else None


def _heart(work: np.ndarray, lungs: np.ndarray, side_mm: float) -> np.ndarray | None:
    """Tenth, fiftieth and ninetieth percentile of the even soft tissue between the lungs, at the heart."""
    box = _between(lungs)
    if box is None:
        return None
    soft = (work[box] > SOFT_HU[0]) & (work[box] < SOFT_HU[1]) & (lungs[box] == 0)
    values = work[box][ndimage.distance_transform_edt(soft) * side_mm > DEEP_MM]
    return np.percentile(values, [10, 50, 90]) if values.size >= LEAST_VOXELS else None


def _between(lungs: np.ndarray) -> tuple[slice, slice, slice] | None:
    """The box between the middles of the two lungs, at the heart; None where there are not two."""
    between = between_middles(lungs, HEART)
    if between is None:
        return None
    front, back = np.percentile(np.nonzero(lungs)[1], [10, 90]).astype(int)
    return (between[0], slice(front, back), between[1]) if back > front else None
