"""Radiomic distillation: the contrastive loss, its warm-up, its reach into the U-Net, the density path."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn import functional

from DiffSegLungLib.diffusion import from_hounsfield
from DiffSegLungLib.distillation import (
    EMBEDDING,
    TeacherHead,
    collapse,
    density_path,
    info_nce,
    pool_regions,
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
    _, embedding = student(torch.randn(4, 2, 16, 16, 16), torch.tensor([3, 60, 120, 240]))
    pooled = pool_regions(embedding, torch.ones(4, 1, 2, 2, 2), 2)
    info_nce(pooled, teacher(torch.randn(4, 34))).backward()
    reached = [
        student.unet.conv_in,
        *student.unet.down_blocks,
        student.unet.middle_block,
        student.head.project,
        teacher,
    ]
    for module in reached:
        gradients = [p.grad.abs().max() for p in module.parameters() if p.grad is not None]
        assert gradients and float(torch.stack(gradients).max()) > 1e-8
    decoder = [p.grad for p in student.unet.out.parameters()]
    assert all(gradient is None for gradient in decoder), "the decoder takes no part in the embedding"


def test_student_and_teacher_embeddings_have_unit_length() -> None:
    torch.manual_seed(0)
    student, teacher = Student((8, 8, 8, 8)).eval(), TeacherHead()
    x, timesteps = torch.randn(2, 2, 16, 16, 16), torch.tensor([3, 60])
    with torch.inference_mode():
        embedding = student.embed(x, timesteps)
        assert torch.allclose(embedding, student(x, timesteps)[1], atol=1e-6), "training and use must agree"
    assert embedding.shape == (2, EMBEDDING, 2, 2, 2)
    assert embedding.norm(dim=1).numpy() == pytest.approx(1, abs=1e-5)
    assert teacher(torch.randn(6, 34)).norm(dim=1).detach().numpy() == pytest.approx(1, abs=1e-5)


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


def test_pooled_regions_are_weighted_means_in_zyx_order() -> None:
    generator = torch.Generator().manual_seed(3)
    embedding = torch.randn((2, EMBEDDING, 2, 4, 6), generator=generator)
    share = torch.rand((2, 1, 2, 4, 6), generator=generator)
    expected = []
    for patch in range(2):
        for z in range(0, 2, 2):
            for y in range(0, 4, 2):
                for x in range(0, 6, 2):
                    cells = embedding[patch, :, z : z + 2, y : y + 2, x : x + 2].reshape(EMBEDDING, -1)
                    weights = share[patch, 0, z : z + 2, y : y + 2, x : x + 2].reshape(-1)
                    expected.append((cells * weights).sum(dim=1) / weights.sum())
    pooled = pool_regions(embedding, share, 2)
    assert pooled.shape == (12, EMBEDDING)
    assert torch.allclose(pooled, torch.stack(expected), atol=1e-5)


def test_a_region_without_lung_pools_to_zero_and_not_to_nan() -> None:
    pooled = pool_regions(torch.randn(1, EMBEDDING, 2, 2, 2), torch.zeros(1, 1, 2, 2, 2), 2)
    assert torch.equal(pooled, torch.zeros(1, EMBEDDING))


def constant_lung(hu: float) -> torch.Tensor:
    x = from_hounsfield(torch.full((1, 1, 16, 16, 16), hu))
    return torch.cat([x, torch.ones_like(x)], dim=1)


def test_the_density_path_tells_emphysema_from_healthy_lung() -> None:
    emphysema, healthy = density_path(constant_lung(-950), 8), density_path(constant_lung(-850), 8)
    assert emphysema.shape == (1, 3, 2, 2, 2)
    assert (healthy - emphysema)[:, 0].numpy() == pytest.approx(100 / 700, abs=1e-5)
    assert healthy[:, 2].numpy() == pytest.approx(1)


def test_the_density_path_keeps_density_through_the_noise() -> None:
    """A cell has 512 voxels: their mean survives the noise of the timesteps that inference uses."""
    student = Student((8, 8, 8, 8), hidden=16)
    noise = torch.randn((1, 1, 16, 16, 16), generator=torch.Generator().manual_seed(0))
    for timestep in (10, 50):
        noised = [
            student.noised(x[:, :1], x[:, 1:], noise, torch.tensor([timestep]))
            for x in (constant_lung(-950), constant_lung(-850))
        ]
        emphysema, healthy = (density_path(x, 8)[:, 0] for x in noised)
        assert float((healthy - emphysema).min()) > 0.1


def test_the_density_path_looks_at_the_lungs_alone() -> None:
    x = constant_lung(-850)
    x[:, :, :, :, 4:] = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1)  # chest wall beside the lung
    half = density_path(x, 8)[..., 0]
    assert half[:, 0].numpy() == pytest.approx(float(from_hounsfield(torch.tensor(-850.0))), abs=1e-5)
    assert half[:, 1].max() < 0.01
    assert half[:, 2].numpy() == pytest.approx(0.5)


def test_the_density_path_measures_the_spread() -> None:
    x = torch.ones(1, 2, 8, 8, 8)
    x[:, 0] = torch.randn((8, 8, 8), generator=torch.Generator().manual_seed(0)) * 0.3
    spread = density_path(x, 8)[0, 1]
    assert float(spread) == pytest.approx(float(x[:, 0].std()), rel=0.02)
    assert functional.avg_pool3d(x[:, :1], 8).flatten()[0] == pytest.approx(float(density_path(x, 8)[0, 0]))
