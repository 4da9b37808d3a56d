"""Radiomic distillation: the heads, the contrastive loss and its warm-up.

The 34 handcrafted numbers of a region of lung are the teacher; the bottleneck of the diffusion U-Net over
the same region is the student.  Both are mapped to the unit sphere and pulled together by InfoNCE.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from DiffSegLungLib.representation.cell_numbers import CELL_NUMBERS

LEARNED = 20
"""Numbers of the embedding that distillation teaches; the others are density and texture as they are.  A
probe that learns from few hosts is led astray by more of them (`Testing/evaluation/LOG.md`)."""

EMBEDDING = CELL_NUMBERS + LEARNED
"""Length of the student's embedding."""

PROJECTED = 128
"""Length of the vectors of student and teacher that the contrastive loss compares."""

TEACHER_NUMBERS = 34
TARGETS = 2 * TEACHER_NUMBERS
"""What the embedding must tell by a linear map: radiomics of the cell and of its surroundings."""


class StudentHead(nn.Module):
    """Bottleneck and :func:`cell_numbers` to an embedding of each cell, and to the teacher's numbers.

    The first numbers of the embedding are density and texture of the cell, standardised; the others are
    learnt from these and the bottleneck.  The embedding has no unit length: its length carries density, and
    the contrastive loss looks at a projection of it.

    Args:
        channels: channels of the bottleneck.
        hidden: width of the hidden layer.
    """

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        inputs = channels + CELL_NUMBERS
        # Statistics of the training data, not of the window at hand: HU stay physical.
        self.scale = nn.BatchNorm3d(inputs, affine=False)
        self.project = nn.Sequential(nn.Conv3d(inputs, hidden, 1), nn.SiLU(), nn.Conv3d(hidden, LEARNED, 1))
        self.contrast = nn.Linear(EMBEDDING, PROJECTED)
        self.regress = nn.Linear(EMBEDDING, TARGETS)

    def forward(self, bottleneck: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
        """Embeddings, (batch, EMBEDDING, z, y, x)."""
        seen = self.scale(torch.cat([numbers, bottleneck], dim=1))
        return torch.cat([seen[:, :CELL_NUMBERS], self.project(seen)], dim=1)

    @torch.no_grad()
    def pass_through(self) -> None:
        """Put channels of the bottleneck, standardised, in the place of what distillation would have taught.

        Without distillation nothing has shaped this head, and what it makes of the bottleneck by chance would
        be judged instead of the U-Net.  As many channels pass as there is room for.
        """
        first, last = (cast(nn.Conv3d, self.project[place]).weight for place in (0, -1))
        hidden, inputs = first.shape[:2]
        room = torch.arange(min(hidden // 2, LEARNED, inputs - CELL_NUMBERS))
        for parameter in self.project.parameters():
            parameter.zero_()
        # SiLU(x) - SiLU(-x) is x.
        for sign, rows in ((1.0, room), (-1.0, room + len(room))):
            first[rows, CELL_NUMBERS + room] = sign
            last[room, rows] = sign


class TeacherHead(nn.Module):
    """Standardised radiomics to a unit vector, (cells, PROJECTED).

    Args:
        teacher_numbers: how many numbers a cell: those of the cell and of its surroundings.
    """

    def __init__(self, teacher_numbers: int = TARGETS) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(teacher_numbers, PROJECTED),
            nn.BatchNorm1d(PROJECTED),
            nn.ReLU(),
            nn.Linear(PROJECTED, PROJECTED),
        )

    def forward(self, radiomics: torch.Tensor) -> torch.Tensor:
        """Embeddings of unit length, (cells, PROJECTED)."""
        return functional.normalize(self.project(radiomics), dim=1)


def info_nce(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018, equation 4) over the regions of a batch.

    Args:
        student: (regions, PROJECTED); made unit length here.
        teacher: (regions, PROJECTED) of the same regions: row i is the positive of row i, all others
            negatives.
        temperature: the softmax's temperature.

    Returns:
        The loss, a scalar; log(regions) for embeddings that tell nothing.
    """
    logits = functional.normalize(student, dim=1) @ functional.normalize(teacher, dim=1).T / temperature
    target = torch.arange(len(logits), device=logits.device)
    return 0.5 * (functional.cross_entropy(logits, target) + functional.cross_entropy(logits.T, target))


def warm_up(step: int, start: int, length: int, maximum: float) -> float:
    """Weight of the distillation loss: 0 before ``start``, then linear to ``maximum`` over ``length`` steps.

    Without it the bottleneck collapses onto the teacher before it has learnt any anatomy.
    """
    return maximum * min(max((step - start) / max(length, 1), 0.0), 1.0)


def collapse(embedding: torch.Tensor) -> dict[str, float]:
    """Signs of a collapsed embedding (Wang and Isola 2020).

    Returns:
        ``spread``: mean standard deviation of the coordinates times the square root of their number, near 1
        when vectors fill the sphere and 0 when all are one; ``uniformity``: their equation 3, lower is
        better.
    """
    unit = functional.normalize(embedding.detach().float(), dim=1)
    spread = unit.std(dim=0).mean() * unit.shape[1] ** 0.5
    uniformity = torch.pdist(unit).square().mul(-2).exp().mean().log()
    return {"spread": float(spread), "uniformity": float(uniformity)}
