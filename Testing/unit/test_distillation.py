"""Radiomic distillation: the contrastive loss, its warm-up, its reach into the U-Net, the density path."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from DiffSegLungLib.diffusion import from_hounsfield
from DiffSegLungLib.distillation import (
    CONTEXT,
    EMBEDDING,
    SCALES,
    SHARES,
    LocalPath,
    TeacherHead,
    collapse,
    density_numbers,
    density_path,
    info_nce,
    inner,
    warm_up,
)
from DiffSegLungLib.models.student import Student


def random_embeddings(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn((count, EMBEDDING), generator=torch.Generator().manual_seed(seed))


def test_info_nce_of_perfect_pairs_is_near_zero() -> None:
    orthogonal = torch.eye(EMBEDDING)[:32]
    assert float(info_nce(orthogonal, orthogonal)) < 1e-3
    assert float(info_nce(3.0 * orthogonal, 0.1 * orthogonal)) < 1e-3, "length must not count"


@pytest.mark.parametrize("count", [4, 32, 100])
def test_info_nce_of_embeddings_that_tell_nothing_is_the_log_of_their_number(count: int) -> None:
    constant = torch.zeros(count, EMBEDDING)
    constant[:, 0] = 1
    unrelated = random_embeddings(count)
    unrelated[:, 0] = 0
    assert float(info_nce(constant, constant)) == pytest.approx(math.log(count), abs=1e-4)
    assert float(info_nce(constant, unrelated)) == pytest.approx(math.log(count), abs=1e-4)


def test_info_nce_equals_its_definition() -> None:
    student, teacher = random_embeddings(9, 1).double(), random_embeddings(9, 2).double()
    unit_student = student / student.norm(dim=1, keepdim=True)
    unit_teacher = teacher / teacher.norm(dim=1, keepdim=True)
    similar = np.exp((unit_student @ unit_teacher.T).numpy() / 0.07)
    own = np.diag(similar)
    expected = -0.5 * (np.log(own / similar.sum(1)) + np.log(own / similar.sum(0))).mean()
    assert float(info_nce(student, teacher)) == pytest.approx(expected, abs=1e-9)


def test_swapped_pairs_cost_more_than_right_ones() -> None:
    embeddings = random_embeddings(16)
    assert info_nce(embeddings, embeddings.roll(1, dims=0)) > info_nce(embeddings, embeddings) + 5


def test_the_gradient_of_info_nce_reaches_the_unet() -> None:
    torch.manual_seed(0)
    student, teacher = Student((8, 8, 8, 8), hidden=16), TeacherHead()
    with torch.no_grad():  # MONAI starts the last convolution of every block at zero
        for parameter in student.unet.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    local = student.local(torch.full((4, 1, 32, 32, 32), -850.0), torch.ones(4, 1, 32, 32, 32))
    _, embedding = student(torch.randn(4, 2, 16, 16, 16), torch.tensor([3, 60, 120, 240]), local)
    info_nce(embedding[:, :, 0, 0, 0], teacher(torch.randn(4, 68))).backward()
    reached = [
        student.unet.conv_in,
        *student.unet.down_blocks,
        student.unet.middle_block,
        student.around,
        student.head.project,
        teacher,
    ]
    for module in reached:
        gradients = [p.grad.abs().max() for p in module.parameters() if p.grad is not None]
        assert gradients and float(torch.stack(gradients).max()) > 1e-8
    decoder = [p.grad for p in student.unet.out.parameters()]
    assert all(gradient is None for gradient in decoder), "the decoder takes no part in the embedding"


def test_training_and_use_agree_and_the_teacher_has_unit_length() -> None:
    torch.manual_seed(0)
    student, teacher = Student((8, 8, 8, 8)).eval(), TeacherHead()
    x, timesteps = torch.randn(2, 2, 16, 16, 16), torch.tensor([3, 60])
    local = student.local(torch.randn(2, 1, 32, 32, 32) * 100 - 850, torch.ones(2, 1, 32, 32, 32))
    with torch.inference_mode():
        embedding = student.embed(x, timesteps, local)
        assert torch.allclose(embedding, student(x, timesteps, local)[1], atol=1e-6)
    assert embedding.shape == (2, EMBEDDING, 2, 2, 2)
    assert teacher(torch.randn(6, 68)).norm(dim=1).detach().numpy() == pytest.approx(1, abs=1e-5)


def test_the_embedding_tells_densities_apart_that_normalisation_takes_out() -> None:
    """Two windows of one constant density each are the same to a group normalisation."""
    torch.manual_seed(0)
    student = Student((8, 8, 8, 8), hidden=16).eval()
    noise = torch.zeros(16, 16, 16)
    told = []
    for hu in (-950.0, -850.0):
        wide = torch.full((1, 1, 32, 32, 32), hu)
        lungs = torch.ones_like(wide)
        local = student.local(wide, lungs)
        told.append(student.embed_hounsfield(inner(wide), inner(lungs), noise, 10, local))
    assert float((told[0] - told[1]).norm(dim=1).min()) > 0.01


@pytest.mark.parametrize(
    ("step", "weight"),
    [(0, 0.0), (999, 0.0), (1000, 0.0), (1050, 0.1), (1100, 0.2), (1200, 0.4), (9999, 0.4)],
)
def test_the_weight_rises_linearly_after_stage_one(step: int, weight: float) -> None:
    assert warm_up(step, start=1000, length=200, maximum=0.4) == pytest.approx(weight)


def test_a_warm_up_of_no_length_is_a_step() -> None:
    assert [warm_up(step, 10, 0, 0.5) for step in (9, 10, 11)] == [0.0, 0.0, 0.5]


def test_collapse_tells_constant_from_spread_embeddings() -> None:
    spread = collapse(random_embeddings(200))
    constant = collapse(random_embeddings(1).expand(200, -1))
    nearly = collapse(random_embeddings(1) + 0.01 * random_embeddings(200))
    assert spread["spread"] == pytest.approx(1, abs=0.1)
    assert constant["spread"] == pytest.approx(0, abs=1e-4)
    assert nearly["spread"] < 0.05
    # e^(-2 d^2) averages to e^-4 where all distances are the square root of 2, and to 1 where they are 0.
    assert spread["uniformity"] == pytest.approx(-4, abs=0.3)
    assert constant["uniformity"] == pytest.approx(0, abs=1e-4)


def test_the_head_of_the_first_model_reads_the_noised_input_and_gives_unit_vectors() -> None:
    torch.manual_seed(0)
    student = Student((8, 8, 8, 8), hidden=16, clean=False).eval()
    wide, noise = torch.full((1, 1, 32, 32, 32), -850.0), torch.zeros(16, 16, 16)
    local = student.local(wide, torch.ones_like(wide))
    assert local.numel() == 0
    with torch.inference_mode():
        embedding = student.embed_hounsfield(inner(wide), torch.ones_like(inner(wide)), noise, 10, local)
    assert embedding.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)


def test_the_noised_density_tells_mean_spread_and_share_of_the_lungs() -> None:
    x = torch.randn((1, 2, 16, 16, 16), generator=torch.Generator().manual_seed(0)) * 0.3
    x[:, 1] = 0
    x[:, 1, :, :, :4] = 1
    mean, spread, share = density_path(x, 8)[0, :, 0, 0, 0]
    lung = x[0, 0, :8, :8, :4]
    assert float(share) == pytest.approx(0.5)
    assert float(mean) == pytest.approx(float(lung.mean()), abs=1e-5)
    assert float(spread) == pytest.approx(float(lung.std(correction=0)), abs=1e-4)
    assert density_path(x, 8)[0, 2, 0, 0, 1] == 0


def some_ct(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A CT as the network sees it, 16 x 16 x 16 with context, and a ragged mask."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn((2, 1, 32, 32, 32), generator=generator) * 0.2 - 0.8
    return x, (torch.rand(x.shape, generator=generator) > 0.4).float()


@pytest.mark.parametrize("side", SCALES)
def test_density_numbers_equal_their_definition(side: int) -> None:
    x, mask = some_ct()
    numbers = density_numbers(x, mask, side)
    assert numbers.shape == (2, 2 + len(SHARES), 2, 2, 2)
    first, step = CONTEXT + 8 - (side - 8) // 2, side // 8  # of the second cell along each axis
    along = slice(first, first + side, step)
    values, inside = (one[1, 0, along, along, along] for one in (x, mask))
    lung = np.sort(values[inside > 0].numpy())
    places = [round(share * (len(lung) - 1)) for share in SHARES]
    expected = [lung.mean(), lung.std(), *lung[places]]
    assert numbers[1, :, 1, 1, 1].numpy() == pytest.approx(expected, abs=1e-5)


def test_density_numbers_without_lung_are_zero_and_finite() -> None:
    x, mask = some_ct()
    numbers = density_numbers(x, torch.zeros_like(mask), 8)
    assert torch.equal(numbers, torch.zeros_like(numbers))


def test_the_density_is_exact_hounsfield_units() -> None:
    constant = from_hounsfield(torch.full((1, 1, 32, 32, 32), -950.0))
    numbers = density_numbers(constant, torch.ones_like(constant), 8)
    assert numbers[:, 0].numpy() == pytest.approx(50 / 700 - 1, abs=1e-6)
    assert numbers[:, 1].abs().max() < 1e-6


def test_the_local_path_looks_at_the_lungs_and_their_outline_alone() -> None:
    torch.manual_seed(0)
    path = LocalPath().eval()
    x, mask = some_ct()
    changed = torch.where(mask > 0.5, x, torch.randn(x.shape))
    assert torch.allclose(path(x, mask), path(changed, mask), atol=1e-6)
    assert path(x, mask).shape[2:] == (2, 2, 2)


def test_the_local_path_knows_where_its_cells_are() -> None:
    """A dense cell is told in its own place, and the cells beside it see it in their surroundings."""
    x = torch.full((1, 1, 32, 32, 32), -0.9)
    x[:, :, 8:16, 8:16, 8:16] = 0.4
    cell, around = (density_numbers(x, torch.ones_like(x), side)[0, 0] for side in (8, 24))
    assert float(cell[0, 0, 0]) == pytest.approx(0.4, abs=1e-5)
    assert cell.flatten()[1:].numpy() == pytest.approx(-0.9, abs=1e-5)
    assert bool((around > -0.88).all())
