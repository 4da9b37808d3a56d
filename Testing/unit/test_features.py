"""Descriptors: the embedding over windows and its projection, up-sampling, and the fine descriptors."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from DiffSegLungLib.decision.mixture import Projection
from DiffSegLungLib.parenchyma.vessels import separate_vessels
from DiffSegLungLib.representation.cell_numbers import CELL_NUMBERS
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING
from DiffSegLungLib.representation.distillation import EMBEDDING
from DiffSegLungLib.representation.features import (
    DESCRIPTORS,
    EmbeddingPlan,
    _windows,
    bfloat16_pays,
    embed,
    fine_descriptors,
    precision,
    upsample_cells,
)
from DiffSegLungLib.representation.student import Student

PLAN = EmbeddingPlan(window=(16, 16, 16), stride=(16, 8, 8), timesteps=(10, 50), batch=4)
MM = 1.5
INPUTS = EMBEDDING * len(PLAN.timesteps)
SHAPE = (20, 24, 32)


@pytest.fixture(scope="module")
def student() -> Student:
    torch.manual_seed(0)
    tiny = Student((8, 8, 8, 8), groups=4, hidden=16).eval()
    with torch.no_grad():  # MONAI starts the last convolution of every block at zero
        for parameter in tiny.unet.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return tiny


@pytest.fixture(scope="module")
def projection() -> Projection:
    random = np.random.default_rng(0)
    matrix = random.normal(size=(INPUTS, 3)) / np.sqrt(INPUTS)
    return Projection(random.normal(size=INPUTS).astype(np.float32), matrix.astype(np.float32))


def chest(shape: tuple[int, int, int] = SHAPE) -> tuple[np.ndarray, np.ndarray]:
    """Lung with ground glass in one half, amid chest wall."""
    random = np.random.default_rng(0)
    mask = np.zeros(shape, bool)
    mask[2:-2, 2:-2, 2:-2] = True
    lung = random.normal(-860, 30, shape)
    lung[:, :, shape[2] // 2 :] += 250
    return np.where(mask, lung, 40.0).astype(np.float32), mask


def identity(cells: torch.Tensor) -> torch.Tensor:
    return cells


def test_cells_cover_the_volume(student: Student, projection: Projection) -> None:
    cells = embed(student, *chest(), projection, PLAN)
    assert cells.dtype == np.float32
    assert cells.shape == (3, 3, 3, 4)  # 20 x 24 x 32 voxels, the first side filled up to whole cells
    assert np.isfinite(cells).all()


def test_projecting_cells_equals_projecting_voxels(student: Student, projection: Projection) -> None:
    hu, mask = chest()
    rows = slice(0, SHAPE[0])
    first = upsample_cells(embed(student, hu, mask, projection, PLAN), SHAPE, rows)
    voxels = upsample_cells(embed(student, hu, mask, identity, PLAN), SHAPE, rows)
    last = projection(torch.from_numpy(voxels).permute(1, 2, 3, 0)).permute(3, 0, 1, 2).numpy()
    assert first == pytest.approx(last, abs=1e-5)


def test_the_seed_determines_the_embedding(student: Student, projection: Projection) -> None:
    hu, mask = chest()
    first = embed(student, hu, mask, projection, PLAN, seed=3)
    assert np.array_equal(first, embed(student, hu, mask, projection, PLAN, seed=3))
    assert not np.allclose(first, embed(student, hu, mask, projection, PLAN, seed=4), atol=1e-5)


def test_the_batch_of_windows_does_not_count(student: Student, projection: Projection) -> None:
    one_by_one = EmbeddingPlan(PLAN.window, PLAN.stride, PLAN.timesteps, batch=1)
    hu, mask = chest()
    assert embed(student, hu, mask, projection, PLAN) == pytest.approx(
        embed(student, hu, mask, projection, one_by_one), abs=1e-5
    )


@pytest.mark.parametrize("count", [1, 3])
def test_threads_do_not_count(
    student: Student, projection: Projection, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    hu, mask = chest()
    expected, told = embed(student, hu, mask, projection, PLAN), list[float]()
    for module in ("parallel", "representation.features"):
        monkeypatch.setattr(f"DiffSegLungLib.{module}.threads", lambda: count)
    found = embed(student, hu, mask, projection, PLAN, progress=told.append)
    assert found == pytest.approx(expected, abs=1e-5)
    assert told == sorted(told) and told[-1] == 1.0


def test_the_global_random_state_is_left_alone(student: Student, projection: Projection) -> None:
    before = torch.get_rng_state()
    embed(student, *chest(), projection, PLAN)
    assert torch.equal(before, torch.get_rng_state())


def test_equal_windows_get_equal_embeddings(student: Student) -> None:
    """Each window sees the same noise: windows differ by their CT alone."""
    apart = EmbeddingPlan(PLAN.window, PLAN.window, PLAN.timesteps, PLAN.batch)
    block = np.random.default_rng(1).normal(-860, 60, PLAN.window).astype(np.float32)
    hu = np.concatenate([block] * 6, axis=2)  # the two in the middle have the same neighbours
    cells = embed(student, hu, np.ones(hu.shape, bool), identity, apart)
    assert cells[..., 4:6] == pytest.approx(cells[..., 6:8], abs=1e-5)


def test_what_lies_beside_a_window_reaches_its_rim(student: Student) -> None:
    """The numbers of a cell know ``CONTEXT`` voxels beyond it, and nothing further away."""
    apart = EmbeddingPlan(PLAN.window, PLAN.window, PLAN.timesteps, PLAN.batch)
    hu = np.random.default_rng(1).normal(-860, 60, (16, 16, 96)).astype(np.float32)
    beside = hu.copy()
    beside[:, :, 48:] += 300
    cells, changed = (embed(student, one, np.ones(hu.shape, bool), identity, apart) for one in (hu, beside))
    assert np.abs(cells - changed)[..., 5].max() > 1e-3
    assert cells[..., :2] == pytest.approx(changed[..., :2], abs=1e-5)


def no_numbers(hu: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """As ``cell_numbers_by_slabs``, all zero."""
    return torch.zeros(CELL_NUMBERS, *(side // DOWNSAMPLING for side in hu.shape))


def test_the_oldest_torch_cannot_tell_whether_bfloat16_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its private questions came after 2.4.1, and may go again."""
    for question in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        monkeypatch.delattr(torch.cpu, question, raising=False)
    assert not bfloat16_pays() and precision("cpu") == "float32"
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True, raising=False)
    assert bfloat16_pays(), "one answer is enough"


def test_overlapping_windows_are_blended(student: Student, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the numbers of its cells a window's embedding depends on nothing beyond it.
    monkeypatch.setattr("DiffSegLungLib.representation.features.cell_numbers_by_slabs", no_numbers)
    # In half precision a window's numbers differ in their last bit with the threads and windows of a pass.
    monkeypatch.setattr("DiffSegLungLib.representation.features.bfloat16_pays", lambda: False)
    hu, mask = chest((16, 16, 24))
    cells = embed(student, hu, mask, identity, PLAN)
    left = embed(student, hu[..., :16], mask[..., :16], identity, PLAN)
    right = embed(student, hu[..., 8:], mask[..., 8:], identity, PLAN)
    assert cells[..., 0] == pytest.approx(left[..., 0], abs=1e-5)
    assert cells[..., 2] == pytest.approx(right[..., 1], abs=1e-5)
    assert cells[..., 1] == pytest.approx(0.5 * (left[..., 1] + right[..., 0]), abs=1e-5)


def test_windows_hold_all_lung_and_overlap_as_planned() -> None:
    plan, mask = EmbeddingPlan(), np.zeros((48, 104, 160), bool)
    mask[6:41, 13:70, 9:60] = True
    mask[10:45, 20:95, 91:150] = True
    covered = np.zeros(mask.shape, int)
    corners = list(_windows(mask, plan))
    for corner in corners:
        assert all(start % DOWNSAMPLING == 0 for start in corner)
        box = tuple(slice(c, c + w) for c, w in zip(corner, plan.window, strict=True))
        assert mask[box].any() and covered[box].shape == plan.window  # within the volume
        covered[box] += 1
    assert (covered[mask] > 0).all() and covered[mask].mean() > 1.4
    assert len(corners) == len(set(corners))


def test_an_empty_mask_is_an_error(student: Student, projection: Projection) -> None:
    hu, mask = chest()
    with pytest.raises(ValueError, match="mask is empty"):
        embed(student, hu, np.zeros_like(mask), projection, PLAN)


def test_a_volume_smaller_than_a_window_works(student: Student, projection: Projection) -> None:
    hu, mask = chest((7, 9, 11))
    cells = embed(student, hu, mask, projection, PLAN)
    assert cells.shape == (3, 2, 2, 2) and np.isfinite(cells).all()


def test_cells_that_no_window_saw_take_the_mean(student: Student, projection: Projection) -> None:
    hu, _ = chest((16, 16, 64))
    mask = np.zeros(hu.shape, bool)
    mask[:, :, :8] = True
    cells = embed(student, hu, mask, projection, PLAN)
    mean = cells[..., :2].mean(axis=(1, 2, 3), keepdims=True)
    assert cells[..., 2:] == pytest.approx(np.broadcast_to(mean, (3, 2, 2, 6)), abs=1e-5)


def test_progress_rises_to_the_end(student: Student, projection: Projection) -> None:
    told: list[float] = []
    embed(student, *chest(), projection, PLAN, progress=told.append)
    assert len(told) > 1 and told == sorted(told) and told[-1] == 1.0


def test_slab_by_slab_up_sampling_equals_the_whole() -> None:
    cells = np.random.default_rng(0).normal(size=(3, 5, 4, 6)).astype(np.float32)
    shape = (37, 30, 45)
    whole = upsample_cells(cells, shape, slice(0, 37))
    slabs = [upsample_cells(cells, shape, slice(z, min(z + 7, 37))) for z in range(0, 37, 7)]
    assert whole.shape == (3, *shape)
    assert np.concatenate(slabs, axis=1) == pytest.approx(whole, abs=1e-6)


def test_up_sampling_is_trilinear() -> None:
    cells = torch.randn((2, 3, 4, 2), generator=torch.Generator().manual_seed(0))
    size = tuple(DOWNSAMPLING * side for side in cells.shape[1:])
    expected = torch.nn.functional.interpolate(cells[None], size=size, mode="trilinear", align_corners=False)
    found = upsample_cells(cells.numpy(), (size[0], size[1], size[2]), slice(0, size[0]))
    assert found == pytest.approx(expected[0].numpy(), abs=1e-5)


# --- fine descriptors ------------------------------------------------------------------------------------


def fine_of(hu: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    parenchyma = separate_vessels(hu, mask.astype(np.uint8), np.zeros_like(mask), MM)
    described = fine_descriptors(hu, mask, parenchyma, MM)
    assert described.dtype == np.float32 and described.shape == (len(DESCRIPTORS), *hu.shape)
    assert np.isfinite(described[:, mask]).all()
    return dict(zip(DESCRIPTORS, described, strict=True))


def box() -> np.ndarray:
    mask = np.zeros((40, 40, 40), bool)
    mask[3:-3, 3:-3, 3:-3] = True
    return mask


def test_a_constant_lung_has_density_and_no_texture() -> None:
    mask = box()
    fine = fine_of(np.where(mask, -860.0, 50.0).astype(np.float32), mask)
    assert fine["density"][mask] == pytest.approx(-8.6, abs=0.01)
    assert fine["density_5mm"][mask] == pytest.approx(-8.6, abs=0.01)
    assert fine["lines_5mm"][mask] == pytest.approx(0, abs=0.01)
    assert fine["holes_5mm"][mask] == pytest.approx(0, abs=0.01)


def honeycomb(mask: np.ndarray) -> np.ndarray:
    """Walls one voxel thick around holes three voxels wide."""
    hu = np.full(mask.shape, -850.0, np.float32)
    for axis in range(3):
        np.moveaxis(hu, axis, 0)[::4] = -300.0
    return np.where(mask, hu, 50.0).astype(np.float32)


def test_a_net_of_thin_lines_has_both_lines_and_holes() -> None:
    mask = box()
    fine = fine_of(honeycomb(mask), mask)
    middle = (slice(12, 28),) * 3
    for name in ("lines_5mm", "holes_5mm"):
        assert fine[name][middle].min() > np.log1p(60 / 20)


def test_ground_glass_and_steps_between_tissues_have_no_lines() -> None:
    mask = box()
    hu = np.full(mask.shape, -860.0, np.float32)
    hu[:, :, 20:] = -550.0
    fine = fine_of(hu, mask)
    assert fine["lines_5mm"][mask].max() < np.log1p(10 / 20)
    assert fine["holes_5mm"][mask].max() < np.log1p(10 / 20)
    assert fine["density"][20, 20, 30] == pytest.approx(-5.5, abs=0.05)


def test_noise_has_less_texture_than_a_net() -> None:
    mask = box()
    noise = np.random.default_rng(0).normal(0, 20, mask.shape)
    quiet = fine_of(np.where(mask, -600.0 + noise, 50.0).astype(np.float32), mask)
    net = fine_of(honeycomb(mask), mask)
    middle = (slice(12, 28),) * 3
    assert quiet["lines_5mm"][middle].max() < 0.7 * net["lines_5mm"][middle].min()
    assert quiet["holes_5mm"][middle].max() < 0.7 * net["holes_5mm"][middle].min()
