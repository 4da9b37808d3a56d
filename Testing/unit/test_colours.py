"""The tissues' colours are told apart with any colour vision, on the CT and in print."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from DiffSegLungLib.tissues import DISEASES, REPORTED

LEAST_DIFFERENCE = 15.0
"""CIE 1976 colour difference; 2.3 is just noticeable side by side, ten is seen at a glance."""

# Machado, Oliveira, Fernandes 2009, severity 1.0, for linear RGB.
VISION = {
    "trichromat": np.eye(3),
    "protanope": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranope": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanope": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
WHITE = TO_XYZ @ np.ones(3)


def linear(colour: tuple[int, int, int]) -> np.ndarray:
    """Linear RGB of an sRGB colour (IEC 61966-2-1)."""
    values = np.asarray(colour) / 255.0
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    """CIE Lab of linear RGB."""
    ratios = TO_XYZ @ np.clip(rgb, 0, 1) / WHITE
    bent = np.where(ratios > (6 / 29) ** 3, np.cbrt(ratios), ratios / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * bent[1] - 16, 500 * (bent[0] - bent[1]), 200 * (bent[1] - bent[2])])


@pytest.mark.parametrize("vision", VISION)
def test_no_two_tissues_look_alike(vision: str) -> None:
    seen = {tissue.key: lab(np.asarray(VISION[vision]) @ linear(tissue.colour)) for tissue in REPORTED}
    apart = {pair: float(np.linalg.norm(seen[pair[0]] - seen[pair[1]])) for pair in combinations(seen, 2)}
    closest = min(apart, key=lambda pair: apart[pair])
    assert apart[closest] >= LEAST_DIFFERENCE, f"{closest}: {apart[closest]:.1f}"


def test_the_measure_knows_colours_that_are_confused() -> None:
    """Red and green of one lightness: far apart to most, alike to a deuteranope."""
    red, green = linear((200, 60, 50)), linear((115, 115, 30))
    blind = np.asarray(VISION["deuteranope"])
    assert np.linalg.norm(lab(red) - lab(green)) > 60
    assert np.linalg.norm(lab(blind @ red) - lab(blind @ green)) < LEAST_DIFFERENCE
    assert lab(np.ones(3)) == pytest.approx([100, 0, 0], abs=0.01)


@pytest.mark.parametrize("tissue", DISEASES, ids=lambda tissue: tissue.key)
def test_disease_stands_out_from_grey(tissue: object) -> None:
    """On a CT everything else is grey: the colour must have one."""
    colour = lab(linear(tissue.colour))  # type: ignore[attr-defined]
    assert np.hypot(*colour[1:]) > 20
