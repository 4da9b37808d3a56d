"""Sides that a file swaps are seen by aorta, heart and liver; a lung that shrank swaps nothing."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib.lungs.mirrored import mirrored_warnings
from Testing.unit.test_calibration import with_aorta

SHAPE = (70, 80, 120)


def body(heart: int = 5, right_base: int = 25, liver: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Two lungs, a heart that many voxels to the left, the liver below the right lung, fat below the left."""
    hu, lungs = np.full(SHAPE, 40.0, np.float32), np.zeros(SHAPE, np.uint8)
    lungs[right_base:65, 15:65, 10 : 45 + heart], lungs[25:65, 15:65, 75 + heart : 110] = 1, 2
    hu[lungs > 0] = -860.0
    hu[:25, :, 75:] = -90.0
    if not liver:
        hu[:25, :, :45] = -90.0
    return hu, lungs


def turned(hu: np.ndarray, lungs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What a file that swaps right and left makes of it."""
    other = np.array([0, 2, 1], np.uint8)
    return np.ascontiguousarray(hu[..., ::-1]), other[lungs[..., ::-1]]


def test_an_aorta_on_the_right_is_told() -> None:
    hu, _, _, lungs = with_aorta(mirrored=True)
    (told,) = mirrored_warnings(hu, lungs, aorta_seen=False)
    assert told.startswith("the descending aorta lies on the patient's right") and "swapped" in told
    hu, _, _, lungs = with_aorta()
    assert mirrored_warnings(hu, lungs, aorta_seen=False) == []


def test_heart_and_liver_tell_where_the_aorta_is_not_seen() -> None:
    assert mirrored_warnings(*body(), aorta_seen=False) == []
    (told,) = mirrored_warnings(*turned(*body()), aorta_seen=False)
    assert told.startswith("the heart lies further to the right") and "swapped" in told


@pytest.mark.parametrize(
    "patient",
    [body(heart=-1), body(liver=False), body(right_base=50)],
    ids=["heart in the middle", "no liver seen", "one lung has shrunk"],
)
def test_one_sign_alone_is_not_enough(patient: tuple[np.ndarray, np.ndarray]) -> None:
    assert mirrored_warnings(*turned(*patient), aorta_seen=False) == []


def test_an_aorta_that_was_seen_decides() -> None:
    assert mirrored_warnings(*turned(*body()), aorta_seen=True) == []


def test_one_lung_alone_tells_nothing() -> None:
    hu, lungs = turned(*body())
    assert mirrored_warnings(hu, np.where(lungs == 1, 1, 0).astype(np.uint8), aorta_seen=False) == []
