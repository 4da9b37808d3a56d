"""The phantom: the same voxels each time, each lesion present and plausible, one anatomy at any spacing."""

from __future__ import annotations

import numpy as np
import pytest

from DiffSegLungLib import tissues
from DiffSegLungLib.errors import UnusableInputError
from DiffSegLungLib.phantom import LESIONS, Phantom, make_phantom, phantom_image, phantom_truth_image, scan

COARSE = (3.0, 3.0, 3.0)

# Mean HU within a lesion's truth, partial volume and noise included.
PLAUSIBLE_HU = {
    "emphysema": (-1000, -900),
    "ground-glass": (-680, -520),
    "fibrosis": (-720, -350),
    "consolidation": (-150, 60),
    "cavity": (-1000, -850),
}


@pytest.fixture(scope="module")
def diseased() -> Phantom:
    return make_phantom(COARSE)


@pytest.fixture(scope="module")
def healthy() -> Phantom:
    return make_phantom(COARSE, lesions=())


def litres(phantom: Phantom, mask: np.ndarray) -> float:
    return float(mask.sum() * np.prod(phantom.spacing) / 1e6)


def test_the_same_arguments_give_the_same_voxels(diseased: Phantom) -> None:
    scan._anatomy.cache_clear()  # otherwise the organs and trees would be compared with themselves
    again = make_phantom(COARSE)
    assert np.array_equal(again.hu, diseased.hu)
    assert np.array_equal(again.truth, diseased.truth)


def test_another_seed_gives_another_patient(diseased: Phantom) -> None:
    other = make_phantom((6.0, 6.0, 6.0), seed=1)
    same = make_phantom((6.0, 6.0, 6.0), seed=0)
    assert (other.truth != same.truth).mean() > 0.005
    assert set(np.unique(other.truth)) == set(np.unique(diseased.truth))


def test_arrays_have_the_promised_types(diseased: Phantom) -> None:
    assert diseased.hu.dtype == np.float32
    assert diseased.truth.dtype == diseased.sides.dtype == np.uint8
    assert diseased.airways.dtype == bool
    assert diseased.hu.shape == diseased.truth.shape == diseased.sides.shape == diseased.airways.shape
    assert diseased.hu.min() >= -1024


@pytest.mark.parametrize("key", LESIONS)
def test_each_lesion_is_there_and_looks_like_itself(diseased: Phantom, key: str) -> None:
    where = diseased.truth == tissues.BY_KEY[key].label
    low, high = PLAUSIBLE_HU[key]
    assert litres(diseased, where) > 0.002
    assert low < diseased.hu[where].mean() < high


@pytest.mark.parametrize("key", LESIONS)
def test_a_lesion_alone_brings_no_other(key: str) -> None:
    phantom = make_phantom((5.0, 5.0, 5.0), lesions=[key])
    expected = {tissues.OUTSIDE, tissues.HEALTHY, tissues.VESSEL, tissues.BY_KEY[key].label}
    if key == "cavity":
        expected.add(tissues.CONSOLIDATION)
    assert set(np.unique(phantom.truth)) == expected


def test_a_healthy_thorax_has_no_disease(healthy: Phantom) -> None:
    assert set(np.unique(healthy.truth)) == {tissues.OUTSIDE, tissues.HEALTHY, tissues.VESSEL}
    parenchyma = healthy.hu[healthy.truth == tissues.HEALTHY]
    assert -870 < np.median(parenchyma) < -830


def test_lungs_are_those_of_an_adult(healthy: Phantom) -> None:
    right, left = (litres(healthy, healthy.sides == side) for side in (1, 2))
    assert 4.0 < right + left < 6.0
    assert 1.0 < right / left < 1.3


def test_the_right_lung_lies_at_low_x(healthy: Phantom) -> None:
    columns = [np.nonzero(healthy.sides == side)[2].mean() for side in (1, 2)]
    assert columns[0] < columns[1]
    assert np.array_equal(healthy.sides > 0, healthy.truth > 0)


def test_the_lungs_are_two_and_do_not_touch(healthy: Phantom) -> None:
    from scipy.ndimage import label

    parts, count = label(healthy.truth > 0)
    sizes = np.sort(np.bincount(parts.ravel())[1:])[::-1]
    assert count >= 2
    assert sizes[:2].sum() > 0.999 * sizes.sum()


def test_the_trachea_holds_air_and_runs_to_the_top(healthy: Phantom) -> None:
    assert healthy.airways[-1].any()
    assert np.median(healthy.hu[healthy.airways]) < -900
    assert not (healthy.airways & (healthy.truth > 0)).any()


def test_dependent_lung_is_denser(healthy: Phantom) -> None:
    rows = np.nonzero(healthy.truth == tissues.HEALTHY)[1]
    values = healthy.hu[healthy.truth == tissues.HEALTHY]
    front, back = rows < np.quantile(rows, 0.2), rows > np.quantile(rows, 0.8)
    assert 10 < np.median(values[back]) - np.median(values[front]) < 60


def test_volumes_do_not_depend_on_the_spacing(diseased: Phantom) -> None:
    other = make_phantom((2.5, 2.2, 2.2))
    for tissue in tissues.TISSUES:
        volumes = [litres(p, p.truth == tissue.label) for p in (diseased, other)]
        # Vessels are named where they are seen; fewer of the thinnest are seen in larger voxels.
        tolerance = 0.35 if tissue.label == tissues.VESSEL else 0.15
        assert volumes[0] == pytest.approx(volumes[1], rel=tolerance), tissue.key


def test_noise_and_lung_density_follow_the_arguments() -> None:
    quiet, loud, dense = (
        make_phantom((6.0, 6.0, 6.0), lesions=(), noise_hu=noise, lung_hu=density)
        for noise, density in ((0.0, -860.0), (40.0, -860.0), (0.0, -800.0))
    )
    air = quiet.hu[:, :8] < -990
    assert quiet.hu[:, :8][air].std() < 1
    assert 30 < (loud.hu - quiet.hu)[quiet.truth == tissues.HEALTHY].std() < 50
    shift = (dense.hu - quiet.hu)[quiet.truth == tissues.HEALTHY]
    assert np.median(shift) == pytest.approx(60, abs=5)


def test_images_carry_the_geometry(diseased: Phantom) -> None:
    import SimpleITK

    image, truth = phantom_image(diseased), phantom_truth_image(diseased)
    assert image.GetPixelID() == SimpleITK.sitkInt16
    assert image.GetSpacing() == diseased.spacing[::-1]
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    assert truth.GetOrigin() == image.GetOrigin()
    assert np.array_equal(SimpleITK.GetArrayFromImage(truth), diseased.truth)


def test_wrong_arguments_are_named() -> None:
    with pytest.raises(UnusableInputError, match="nodule"):
        make_phantom(COARSE, lesions=["nodule"])
    with pytest.raises(UnusableInputError, match="spacing"):
        make_phantom((0.0, 1.0, 1.0))
