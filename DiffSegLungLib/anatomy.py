"""The one table of lungs and lobes: names, codes, sides, and the other ways in which programs call them."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from DiffSegLungLib.terminology import Terminology
from DiffSegLungLib.tissues import REGION, Code

RIGHT_SIDE, LEFT_SIDE = 1, 2
"""Values of the patient's right and left lung in every label map of lungs."""

CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
"""Slicer's own terminology; it holds the lungs and lobes."""
ANATOMY = Code("SCT", "123037004", "Anatomical Structure")
LUNG = REGION
SIDE_CODES = {RIGHT_SIDE: Code("SCT", "24028007", "Right"), LEFT_SIDE: Code("SCT", "7771000", "Left")}
UPPER = Code("SCT", "45653009", "Upper lobe of lung")
MIDDLE = Code("SCT", "72481006", "Middle lobe of right lung")
LOWER = Code("SCT", "90572001", "Lower lobe of lung")


@dataclass(frozen=True)
class Structure:
    """A lung or a lobe.

    Attributes:
        name: the reader's name, the row in the table of measures.
        code: the segmented property type.
        side: ``RIGHT_SIDE`` or ``LEFT_SIDE``.
        abbreviation: as radiologists write it.
        colour: red, green, blue, 0 to 255; told apart by people with any colour vision.
    """

    name: str
    code: Code
    side: int
    abbreviation: str
    colour: tuple[int, int, int]

    @property
    def key(self) -> str:
        """The machine's name."""
        return self.name.replace(" ", "-")

    @property
    def terminology(self) -> Terminology:
        """The codes; a type that names its side has no modifier."""
        return Terminology(
            CONTEXT, ANATOMY, self.code, None if self.code == MIDDLE else SIDE_CODES[self.side]
        )


LUNGS: tuple[Structure, ...] = (
    Structure("right lung", LUNG, RIGHT_SIDE, "", (86, 180, 233)),
    Structure("left lung", LUNG, LEFT_SIDE, "", (230, 159, 0)),
)
LOBES: tuple[Structure, ...] = (
    Structure("right upper lobe", UPPER, RIGHT_SIDE, "rul", (86, 180, 233)),
    Structure("right middle lobe", MIDDLE, RIGHT_SIDE, "rml", (240, 228, 66)),
    Structure("right lower lobe", LOWER, RIGHT_SIDE, "rll", (0, 114, 178)),
    Structure("left upper lobe", UPPER, LEFT_SIDE, "lul", (230, 159, 0)),
    Structure("left lower lobe", LOWER, LEFT_SIDE, "lll", (213, 94, 0)),
)

_SIDES = {"right": RIGHT_SIDE, "r": RIGHT_SIDE, "left": LEFT_SIDE, "l": LEFT_SIDE}
_PARTS = {
    "upper": UPPER, "superior": UPPER, "middle": MIDDLE, "lower": LOWER, "inferior": LOWER,
}  # fmt: skip
_FILLERS = {"lobe", "lung", "lungs", "of", "the", "pulmonary", "side"}
"""Words that may stand beside side and part; any other ("nodule", "bronchus") makes it another thing."""


def structure_of(terminology: Terminology | None, name: str) -> Structure | None:
    """The lung or lobe that a segment is: by its codes, else by its name.

    Args:
        terminology: the segment's codes, None where it has none.
        name: such as "Right upper lobe", "RUL", "lung_upper_lobe_right", "Lung_L".

    Returns:
        An entry of ``LUNGS`` or ``LOBES``; None for anything else, both lungs together included.
    """
    return _by_code(terminology) or _by_name(name)


def is_lungs(terminology: Terminology | None, name: str) -> bool:
    """Whether a segment is lung without a side: both lungs in one."""
    kind = terminology.type if terminology else None
    words = set(_words(name))
    named = bool(words & {"lung", "lungs"}) and words <= {*_FILLERS, *_SIDES, "both", "and"} - {"lobe"}
    return (kind is not None and kind.value == LUNG.value) or named


def _by_code(terminology: Terminology | None) -> Structure | None:
    if terminology is None:
        return None
    modifier = terminology.modifier.value if terminology.modifier else ""
    for structure in (*LUNGS, *LOBES):
        own = structure.terminology.modifier
        if structure.code.value == terminology.type.value and (own is None or own.value == modifier):
            return structure
    return None


def _by_name(name: str) -> Structure | None:
    words = _words(name)
    for structure in LOBES:
        if structure.abbreviation in words and set(words) <= {structure.abbreviation, *_FILLERS}:
            return structure
    if not words or not set(words) <= {*_SIDES, *_PARTS, *_FILLERS}:
        return None
    sides = {_SIDES[word] for word in words if word in _SIDES}
    parts = {_PARTS[word].value for word in words if word in _PARTS}
    if parts == {MIDDLE.value} and not sides:
        sides = {RIGHT_SIDE}
    if not parts and set(words) & {"lung", "lungs"} and "lobe" not in words:
        parts = {LUNG.value}
    found = [s for s in (*LUNGS, *LOBES) if {s.side} == sides and {s.code.value} == parts]
    return found[0] if found else None


def _words(name: str) -> list[str]:
    """Lower-case words, also of ``camelCase`` and ``snake_case``."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[^\W_]+", apart.lower())


WHOLE = "whole lung"
RIGHT, LEFT = (lung.name for lung in LUNGS)

THIRDS = "thirds"
"""Given in place of a file of regions: the thirds of each lung."""
THIRD_NAMES = tuple(f"{lung.name}, {third} third" for lung in LUNGS for third in ("upper", "middle", "lower"))


def regions_from_sides(sides: np.ndarray) -> dict[str, np.ndarray]:
    """The regions every report has.

    Args:
        sides: (z, y, x), 1 in the patient's right lung, 2 in the left, 0 elsewhere.

    Returns:
        Bool masks (z, y, x) of the whole, the right and the left lung; a lung that is not there has none.
    """
    lungs = {RIGHT: sides == RIGHT_SIDE, LEFT: sides == LEFT_SIDE}
    return {WHOLE: lungs[RIGHT] | lungs[LEFT]} | {name: lung for name, lung in lungs.items() if lung.any()}


def thirds_from_sides(sides: np.ndarray) -> dict[str, np.ndarray]:
    """Upper, middle and lower third of each lung: the zones of scores where no lobes are known.

    The slices from a lung's lowest to its highest one are parted into three by number, so by height; a slice
    belongs to the third that its middle lies in.

    Args:
        sides: (z, y, x), 1 in the patient's right lung, 2 in the left, 0 elsewhere; +z is up.

    Returns:
        Bool masks (z, y, x), named as in ``THIRD_NAMES``; a lung that is not there has none.
    """
    zones: dict[str, np.ndarray] = {}
    for side, names in ((RIGHT_SIDE, THIRD_NAMES[:3]), (LEFT_SIDE, THIRD_NAMES[3:])):
        lung = sides == side
        slices = np.flatnonzero(lung.any(axis=(1, 2)))
        if slices.size == 0:
            continue
        height = slices[-1] - slices[0] + 1
        middles = (np.arange(len(lung)) - slices[0] + 0.5) / height
        for number, name in enumerate(names):
            from_below = 2 - number
            within = (middles >= from_below / 3) & (middles < (from_below + 1) / 3)
            zones[name] = lung & within[:, None, None]
    return zones
