"""Raised density that the weight of the lungs alone may have made."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from DiffSegLungLib.io.geometry import Geometry
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.quantify.dependent import dependent_warnings
from DiffSegLungLib.tissues import FIBROSIS, GROUND_GLASS, HEALTHY, VESSEL

SHAPE = (10, 50, 24)
SIDES = np.zeros(SHAPE, np.uint8)
SIDES[1:-1, 5:45, 2:10], SIDES[1:-1, 5:45, 14:22] = 1, 2
RIGHT, LEFT = SIDES == 1, SIDES == 2
BEHIND, FRONT = (slice(None), slice(38, 45)), (slice(None), slice(5, 12))


def volume(position: str = "") -> Volume:
    """Voxels of 1 cm."""
    image = sitk.Image([1, 1, 1], sitk.sitkUInt8)
    image.SetSpacing([10.0] * 3)
    metadata = {"patient_position": position} if position else {}
    hu = np.full(SHAPE, -850.0, np.float32)
    return Volume(hu, (10.0,) * 3, image, Geometry.of(image), metadata=metadata)


def labels(*parts: tuple[tuple[slice, ...], np.ndarray, int]) -> np.ndarray:
    """Healthy lungs but for parts of some of them."""
    tissue = np.where(SIDES > 0, HEALTHY, 0).astype(np.uint8)
    for where, lung, value in parts:
        tissue[where][lung[where]] = value
    return tissue


BOTH_BEHIND = labels((BEHIND, RIGHT, GROUND_GLASS), (BEHIND, LEFT, FIBROSIS))
BOTH_IN_FRONT = labels((FRONT, RIGHT, GROUND_GLASS), (FRONT, LEFT, GROUND_GLASS))


@pytest.mark.parametrize(
    ("tissue", "position", "opposite"),
    [
        (BOTH_BEHIND, "", "prone"),
        (BOTH_BEHIND, "HFS", "prone"),
        (BOTH_BEHIND, "FFS", "prone"),
        (BOTH_IN_FRONT, "HFP", "supine"),
    ],
)
def test_what_both_lungs_lie_on_may_be_pressed(tissue: np.ndarray, position: str, opposite: str) -> None:
    (sentence,) = dependent_warnings(tissue, SIDES, volume(position))
    assert sentence.startswith(f"{2 * 8 * 7 * 8} mL of ground glass and fibrosis")
    assert f"a scan in {opposite} position" in sentence


@pytest.mark.parametrize(
    ("tissue", "position"),
    [
        (labels(), ""),
        (labels((BEHIND, RIGHT, GROUND_GLASS)), ""),
        (BOTH_BEHIND, "HFP"),
        (BOTH_BEHIND, "HFDR"),
        (BOTH_IN_FRONT, "HFS"),
        (labels(((slice(None),), RIGHT | LEFT, GROUND_GLASS)), ""),
        (labels((BEHIND, RIGHT | LEFT, VESSEL)), ""),
        (np.where(RIGHT, BOTH_BEHIND, 0), ""),
    ],
)
def test_what_is_elsewhere_or_everywhere_is_not_of_their_weight(tissue: np.ndarray, position: str) -> None:
    assert dependent_warnings(tissue, SIDES, volume(position)) == []


def test_no_lungs_no_warning() -> None:
    assert dependent_warnings(labels(), np.zeros_like(SIDES), volume()) == []
