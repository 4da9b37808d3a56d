"""Radiomic distillation: the contrastive loss, its warm-up, its reach into the U-Net, the embedding."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from DiffSegLungLib.representation.cell_numbers import CELL_NUMBERS, cell_numbers
from DiffSegLungLib.representation.distillation import (
    EMBEDDING,
    TARGETS,
    StudentHead,
    TeacherHead,
    collapse,
    info_nce,
    warm_up,
)
from DiffSegLungLib.representation.student import Student


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


@pytest.mark.parametrize(("channels", "hidden", "passed"), [(64, 128, 20), (8, 16, 8), (8, 10, 5)])
def test_a_head_that_was_not_taught_passes_the_bottleneck_on(channels: int, hidden: int, passed: int) -> None:
    torch.manual_seed(0)
    head = StudentHead(channels, hidden)
    bottleneck, numbers = torch.randn(3, channels, 2, 2, 2), torch.randn(3, CELL_NUMBERS, 2, 2, 2)
    head(7 * bottleneck + 2, 3 * numbers)  # the statistics move
    head.eval().pass_through()
    embedding = head(bottleneck, numbers)
    expected = head.scale(torch.cat([numbers, bottleneck], dim=1))[:, : CELL_NUMBERS + passed]
    assert torch.allclose(embedding[:, : CELL_NUMBERS + passed], expected, atol=1e-5)
    assert not embedding[:, CELL_NUMBERS + passed :].any()


def test_the_gradient_of_info_nce_reaches_the_unet() -> None:
    torch.manual_seed(0)
    student, teacher = Student((8, 8, 8, 8), hidden=16), TeacherHead()
    with torch.no_grad():  # MONAI starts the last convolution of every block at zero
        for parameter in student.unet.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape))
    _, embedding = student(
        torch.randn(4, 2, 16, 16, 16), torch.tensor([3, 60, 120, 240]), torch.randn(4, CELL_NUMBERS, 2, 2, 2)
    )
    student_side = student.head.contrast(embedding[:, :, 0, 0, 0])
    info_nce(student_side, teacher(torch.randn(4, TARGETS))).backward()
    reached = [
        student.unet.conv_in,
        *student.unet.down_blocks,
        student.unet.middle_block,
        student.head.project,
        student.head.contrast,
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
    numbers = torch.randn(2, CELL_NUMBERS, 2, 2, 2)
    with torch.inference_mode():
        embedding = student.embed(x, timesteps, numbers)
        assert torch.allclose(embedding, student(x, timesteps, numbers)[1], atol=1e-6)
    assert embedding.shape == (2, EMBEDDING, 2, 2, 2)
    assert teacher(torch.randn(6, TARGETS)).norm(dim=1).detach().numpy() == pytest.approx(1, abs=1e-5)


def test_the_embedding_tells_densities_apart_that_normalisation_takes_out() -> None:
    """Two windows of one constant density each are the same to a group normalisation."""
    torch.manual_seed(0)
    student = Student((8, 8, 8, 8), hidden=16).eval()
    noise = torch.zeros(16, 16, 16)
    told = []
    for hu in (-950.0, -850.0):
        window = torch.full((1, 1, 16, 16, 16), hu)
        lungs = torch.ones_like(window)
        told.append(student.embed_hounsfield(window, lungs, noise, 10, cell_numbers(window, lungs)))
    assert float((told[0] - told[1]).detach().norm(dim=1).min()) > 0.01


def test_the_embedding_holds_the_numbers_of_the_cell_as_they_are() -> None:
    """Whatever the network makes of them: a straight way that no training can close."""
    torch.manual_seed(0)
    head = Student((8, 8, 8, 8), hidden=16).eval().head
    numbers = torch.randn(2, CELL_NUMBERS, 2, 2, 2)
    with torch.inference_mode():
        embedding = head(torch.randn(2, 8, 2, 2, 2), numbers)
    assert embedding.shape[1] == EMBEDDING
    assert torch.allclose(embedding[:, :CELL_NUMBERS], numbers, atol=1e-4), "untrained statistics are 0 and 1"


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
