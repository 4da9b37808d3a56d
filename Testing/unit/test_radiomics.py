"""The radiomic teacher: known answers, invariances, and batched torch equal to the scipy reference."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

pytest.importorskip("skimage", reason="the reference teacher needs scikit-image")
torch = pytest.importorskip("torch", reason="the batched teacher needs torch")

from DiffSegLungLib.representation.radiomics import FEATURE_NAMES, GABOR_FREQUENCIES, GROUPS, LBP_NAMES  # noqa: E402
from DiffSegLungLib.representation.radiomics.batched import RadiomicTeacher, teacher_for_patches  # noqa: E402
from DiffSegLungLib.representation.radiomics.reference import describe, gabor_kernels, lbp_histogram  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
TRAINING_SHAPE = (16, 32, 32)


# Patches


def ct_texture(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Lung-like HU: a smooth field, sharper noise, a few bright vessels and a soft-tissue corner; float32."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=shape), random.uniform(0.6, 3.0))
    hu = random.uniform(-930, -400) + random.uniform(30, 250) * smooth / smooth.std()
    hu += random.normal(0, random.uniform(5, 60), shape)
    vessels = ndimage.gaussian_filter(random.normal(size=shape), 1.2)
    hu[vessels > np.quantile(vessels, 0.97)] = random.uniform(-100, 60)
    hu[:, : shape[1] // 5, : shape[2] // 5] = random.normal(40, 15)
    # Scanners store whole HU; resampled training volumes do not.
    return (np.round(hu) if seed % 2 else hu).astype(np.float32)


def blob_mask(shape: tuple[int, ...], seed: int, share: float) -> np.ndarray:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 3)
    return field >= np.quantile(field, 1 - share)


def mask_of_kind(kind: str, shape: tuple[int, ...], seed: int) -> np.ndarray:
    """One of the ways in which lung fills a patch."""
    mask = blob_mask(shape, seed, 0.6)
    middle = [size // 2 for size in shape]
    if kind == "full":
        mask[:] = True
    elif kind == "small":
        mask = blob_mask(shape, seed, 0.01)
    elif kind == "single voxel":
        mask[:] = False
        mask[2, 3, 5] = True
    elif kind.startswith("misses middle"):
        axis = "zyx".index(kind[-1])
        np.moveaxis(mask, axis, 0)[middle[axis] - 1 : middle[axis] + 2] = False
    elif kind == "far end":
        mask[:-1] = False
    elif kind == "empty":
        mask[:] = False
    return mask


MASK_KINDS = (
    "partial", "full", "small", "single voxel", "misses middle z", "misses middle y", "misses middle x",
    "far end", "empty",
)  # fmt: skip
SHAPES = (TRAINING_SHAPE, (16, 16, 16), (17, 31, 25), (19, 16, 33), (24, 40, 20))


def degenerate_patches() -> tuple[np.ndarray, np.ndarray]:
    """Patches of few grey levels, where rounding and ties decide; the training shape."""
    z, y, x = np.indices(TRAINING_SHAPE)
    patches = [np.full(TRAINING_SHAPE, value) for value in (-1000, 400, -850.3, -997.2549, 7.5, -2000, 3000)]
    patches += [np.where((x + y + z) % 2, -900.0, -700.0), np.where(x < 16, -1000.0, 400.0)]
    patches += [-1000.0 + 44 * x, np.where((z == 8) & (y == 15) & (x == 15), 50.0, -850.0)]
    patches += [-850.0 + 5.5 * ((x // 3) % 2), np.full(TRAINING_SHAPE, -850) + 1e-5 * x]
    hu = np.stack(patches).astype(np.float32)
    mask = np.stack([blob_mask(TRAINING_SHAPE, seed, 0.5) for seed in range(len(hu))])
    mask[::3] = True
    return hu, mask


def assert_equal_to_reference(hu: np.ndarray, mask: np.ndarray) -> None:
    expected = np.stack([describe(patch, lung) for patch, lung in zip(hu, mask, strict=True)])
    described = teacher_for_patches(hu, mask)
    assert described.shape == (len(hu), 34) and described.dtype == np.float64
    assert np.isfinite(expected).all()
    # The absolute term only serves numbers that are zero but for rounding, as a symmetric patch's skewness.
    np.testing.assert_allclose(described, expected, rtol=1e-6, atol=1e-11)


# Batched equals reference


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_batched_equals_reference_on_ct_textures(shape: tuple[int, int, int]) -> None:
    hu = np.stack([ct_texture(shape, seed) for seed in range(len(MASK_KINDS))])
    mask = np.stack([mask_of_kind(kind, shape, seed) for seed, kind in enumerate(MASK_KINDS)])
    assert_equal_to_reference(hu, mask)


def test_batched_equals_reference_on_patches_of_few_grey_levels() -> None:
    assert_equal_to_reference(*degenerate_patches())


def test_batched_equals_reference_on_the_methods_own_patch_size() -> None:
    shape = (32, 96, 96)
    assert_equal_to_reference(ct_texture(shape, 3)[None], blob_mask(shape, 3, 0.5)[None])


def test_batched_equals_reference_on_real_ct() -> None:
    data = Path(os.environ.get("DIFFSEGLUNG_DATA", ROOT.parent / "shared" / "data"))
    volume = data / "ct" / "LCTSC-Test-S1-203.nii.gz"
    if not volume.exists():
        pytest.skip(f"no real CT at {volume}; set DIFFSEGLUNG_DATA")
    image = pytest.importorskip("SimpleITK")
    hu = image.GetArrayFromImage(image.ReadImage(str(volume))).astype(np.float32)
    lung_path = volume.with_name("LCTSC-Test-S1-203_lungmask.nii.gz")
    lung = image.GetArrayFromImage(image.ReadImage(str(lung_path))) > 0
    depth, height, width = TRAINING_SHAPE
    starts = np.argwhere(lung[:-depth, :-height, :-width])
    chosen = starts[np.random.default_rng(0).choice(len(starts), 24, replace=False)]
    boxes = [
        tuple(slice(at, at + size) for at, size in zip(start, TRAINING_SHAPE, strict=True))
        for start in chosen
    ]
    assert_equal_to_reference(np.stack([hu[box] for box in boxes]), np.stack([lung[box] for box in boxes]))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_gpu_equals_cpu() -> None:
    hu = np.stack([ct_texture(TRAINING_SHAPE, seed) for seed in range(8)])
    mask = np.stack([blob_mask(TRAINING_SHAPE, seed, 0.4) for seed in range(8)])
    on_gpu = teacher_for_patches(hu, mask, device="cuda")
    np.testing.assert_allclose(on_gpu, teacher_for_patches(hu, mask), rtol=1e-6, atol=1e-11)


# Known answers


def named(hu: np.ndarray, mask: np.ndarray | None = None) -> dict[str, float]:
    mask = np.ones(hu.shape, dtype=bool) if mask is None else mask
    return dict(zip(FEATURE_NAMES, describe(hu, mask), strict=True))


def test_a_constant_patch_has_the_documented_values() -> None:
    numbers = named(np.full(TRAINING_SHAPE, -850.25))
    assert numbers["hu_mean"] == -850.25
    for name in ("hu_sd", "hu_skewness", "hu_kurtosis", "hu_entropy", "glcm_contrast", "glcm_dissimilarity"):
        assert numbers[name] == 0
    for name in ("glcm_homogeneity", "glcm_energy", "glcm_correlation", "glcm_asm"):
        assert numbers[name] == 1
    assert sum(numbers[name] for name in LBP_NAMES) == pytest.approx(1)
    assert all(numbers[name] < 1e-25 for name in FEATURE_NAMES[GROUPS["gabor"]])


def test_a_patch_without_lung_is_all_zeros() -> None:
    assert not describe(ct_texture(TRAINING_SHAPE, 0), np.zeros(TRAINING_SHAPE, dtype=bool)).any()


def test_intensity_statistics_of_two_tissues() -> None:
    # A quarter at -800, three quarters at -900: a Bernoulli variable of 100 HU with p = 0.25.
    hu = np.full(TRAINING_SHAPE, -900.0)
    hu[:4] = -800.0
    numbers, share, spread = named(hu), 0.25, 0.25 * 0.75
    assert numbers["hu_mean"] == pytest.approx(-875)
    assert numbers["hu_sd"] == pytest.approx(100 * np.sqrt(spread))
    assert numbers["hu_skewness"] == pytest.approx((1 - 2 * share) / np.sqrt(spread))
    assert numbers["hu_kurtosis"] == pytest.approx((1 - 6 * spread) / spread)
    assert numbers["hu_entropy"] == pytest.approx(-0.25 * np.log(0.25) - 0.75 * np.log(0.75))


def test_entropy_of_hu_spread_evenly_over_the_window_is_log_50() -> None:
    hu = -1000 + 28 * (np.arange(20**3) % 50) + 14.0
    assert named(hu.reshape(20, 20, 20))["hu_entropy"] == pytest.approx(np.log(50))


def test_glcm_of_columns_that_alternate_between_two_grey_levels() -> None:
    # Levels 0 and 9: across columns every pair differs by 9, along them none does.
    hu = np.where(np.indices(TRAINING_SHAPE)[2] % 2, -800.0, -1000.0)
    numbers = named(hu)
    assert numbers["glcm_contrast"] == pytest.approx(81 / 2)
    assert numbers["glcm_dissimilarity"] == pytest.approx(9 / 2)
    assert numbers["glcm_homogeneity"] == pytest.approx((1 / 82 + 1) / 2)
    assert numbers["glcm_correlation"] == pytest.approx((-1 + 1) / 2, abs=1e-12)
    assert numbers["glcm_asm"] == pytest.approx(0.5)
    assert numbers["glcm_energy"] == pytest.approx(np.sqrt(0.5))


ROWS, COLUMNS = np.indices((15, 15)) - 7.0
LBP_EXAMPLES = {
    "a lone bright spot": (-850 + 300.0 * ((ROWS == 0) & (COLUMNS == 0)), 0),
    "a lone dark spot": (-850 - 100.0 * ((ROWS == 0) & (COLUMNS == 0)), 8),
    # Three neighbours brighter, two equal (which count as ones), three darker.
    "a ramp along x": (-500 + 50 * COLUMNS, 5),
    "a ramp along y": (-500 + 50 * ROWS, 5),
    # Bright above and below, dark at either side: four changes around the circle.
    "a saddle": (-500 + 40 * (np.abs(ROWS) - np.abs(COLUMNS)), 9),
}


@pytest.mark.parametrize("example", LBP_EXAMPLES)
def test_lbp_of_the_centre_pixel_of_simple_shapes(example: str) -> None:
    plane, pattern = LBP_EXAMPLES[example]
    histogram = lbp_histogram(plane, (ROWS == 0) & (COLUMNS == 0))
    assert histogram.shape == (10,)
    assert histogram[pattern] == histogram.sum() == 1


@pytest.mark.parametrize("frequency", GABOR_FREQUENCIES)
@pytest.mark.parametrize("angle", [0, 45, 90, 135])
def test_gabor_energy_is_highest_at_the_frequency_and_angle_of_a_grating(
    frequency: float, angle: int
) -> None:
    _, y, x = np.indices((16, 48, 48))
    along = x * np.cos(np.deg2rad(angle)) + y * np.sin(np.deg2rad(angle))
    numbers = named(-700 + 200 * np.cos(2 * np.pi * frequency * along))
    names = FEATURE_NAMES[GROUPS["gabor"]][:-1]
    assert max(names, key=numbers.__getitem__) == f"gabor_{frequency:.2f}_{angle}deg"
    assert numbers["gabor_mean"] == pytest.approx(np.mean([numbers[name] for name in names]))


def test_gabor_kernels_are_even_and_have_no_mean() -> None:
    kernels = gabor_kernels()
    assert kernels.shape == (12, 15, 15)
    np.testing.assert_allclose(kernels, kernels[:, ::-1, ::-1], atol=1e-14)
    np.testing.assert_allclose(kernels.mean(axis=(1, 2)), 0, atol=1e-16)


# Invariances


def test_names_and_groups_cover_the_34_numbers_once() -> None:
    assert len(FEATURE_NAMES) == len(set(FEATURE_NAMES)) == 34
    assert [(part.start, part.stop) for part in GROUPS.values()] == [(0, 5), (5, 11), (11, 21), (21, 34)]


def test_what_lies_outside_the_lung_has_no_influence() -> None:
    hu, mask = ct_texture(TRAINING_SHAPE, 1), blob_mask(TRAINING_SHAPE, 1, 0.5)
    expected = describe(hu, mask)
    for outside in (3000.0, np.nan, -np.inf):
        changed = np.where(mask, hu, np.float32(outside))
        np.testing.assert_array_equal(describe(changed, mask), expected)
        np.testing.assert_allclose(
            teacher_for_patches(changed[None], mask[None])[0], expected, rtol=1e-9, atol=1e-11
        )


def test_turning_a_patch_by_90_degrees_exchanges_gabor_angles_and_keeps_the_glcm() -> None:
    hu, mask = ct_texture(TRAINING_SHAPE, 2), blob_mask(TRAINING_SHAPE, 2, 0.7)
    # Local binary patterns are left out: the coronal and sagittal middle slices are not the same ones after.
    before = named(hu, mask)
    after = named(np.rot90(hu, axes=(1, 2)), np.rot90(mask, axes=(1, 2)))
    for name in FEATURE_NAMES[:11]:
        assert after[name] == pytest.approx(before[name], rel=1e-9), name
    for frequency in GABOR_FREQUENCIES:
        for angle in (0, 45, 90, 135):
            turned = after[f"gabor_{frequency:.2f}_{(angle + 90) % 180}deg"]
            assert turned == pytest.approx(before[f"gabor_{frequency:.2f}_{angle}deg"], rel=1e-9)


def test_hu_beyond_the_window_are_clipped() -> None:
    hu = ct_texture(TRAINING_SHAPE, 4) - 200
    hu[:, 20:25, 20:25] = 1500
    mask = np.ones(TRAINING_SHAPE, dtype=bool)
    assert (hu < -1000).any()
    np.testing.assert_array_equal(describe(hu, mask), describe(np.clip(hu, -1000, 400), mask))


def test_a_patch_is_described_alike_in_any_batch() -> None:
    hu = np.stack([ct_texture(TRAINING_SHAPE, seed) for seed in range(7)])
    mask = np.stack([blob_mask(TRAINING_SHAPE, seed, 0.3) for seed in range(7)])
    together, in_threes = teacher_for_patches(hu, mask), teacher_for_patches(hu, mask, batch_size=3)
    np.testing.assert_allclose(in_threes, together, rtol=1e-12, atol=1e-13)
    reversed_order = teacher_for_patches(hu[::-1], mask[::-1])[::-1]
    np.testing.assert_allclose(reversed_order, together, rtol=1e-12, atol=1e-13)


def test_teacher_takes_number_masks_and_half_precision_and_gives_no_gradient() -> None:
    hu = torch.from_numpy(np.round(ct_texture(TRAINING_SHAPE, 5) / 8) * 8)[None]
    mask = torch.from_numpy(blob_mask(TRAINING_SHAPE, 5, 0.5))[None]
    expected = RadiomicTeacher()(hu, mask)
    described = RadiomicTeacher()(hu.half().requires_grad_(), mask.float())
    assert described.dtype == torch.float64 and not described.requires_grad
    torch.testing.assert_close(described, expected)
    assert not list(RadiomicTeacher().parameters()) and not RadiomicTeacher().state_dict()


# Errors and imports


def test_the_input_is_not_changed() -> None:
    hu, mask = ct_texture(TRAINING_SHAPE, 6).astype(np.float64), np.ones(TRAINING_SHAPE, dtype=bool)
    given, tensor = hu.copy(), torch.from_numpy(hu.copy())[None]
    describe(given, mask)
    RadiomicTeacher()(tensor, torch.ones(1, *TRAINING_SHAPE))
    np.testing.assert_array_equal(given, hu)
    np.testing.assert_array_equal(tensor[0].numpy(), hu)


def test_wrong_shapes_are_refused() -> None:
    patch = ct_texture(TRAINING_SHAPE, 0)
    with pytest.raises(ValueError, match="shape"):
        describe(patch, np.ones((16, 32, 31), dtype=bool))
    with pytest.raises(ValueError, match="shape"):
        describe(patch[0], np.ones((32, 32), dtype=bool))
    with pytest.raises(ValueError, match="shape"):
        RadiomicTeacher()(torch.from_numpy(patch), torch.ones(TRAINING_SHAPE))


def test_a_lung_voxel_that_is_not_finite_is_refused() -> None:
    patch, mask = ct_texture(TRAINING_SHAPE, 0), np.ones(TRAINING_SHAPE, dtype=bool)
    patch[3, 4, 5] = np.nan
    with pytest.raises(ValueError, match="finite"):
        describe(patch, mask)
    with pytest.raises(ValueError, match="finite"):
        teacher_for_patches(patch[None], mask[None])


def test_the_package_itself_imports_neither_torch_nor_scikit_image() -> None:
    code = (
        "import sys, DiffSegLungLib.representation.radiomics; "
        "sys.exit(bool({'torch', 'skimage', 'scipy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
