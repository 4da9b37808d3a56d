"""Radiomic distillation: the heads, the contrastive loss and its warm-up.

The 34 handcrafted numbers of a region of lung are the teacher; the bottleneck of the diffusion U-Net over
the same region is the student.  Both are mapped to the unit sphere and pulled together by InfoNCE.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

EMBEDDING = 128
"""Length of the embedding of student and teacher."""

DENSITY_CHANNELS = 3
"""Channels of :func:`density_path`."""


def density_path(x: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean, spread and lung share of each cell of the network's input.

    Group normalisation and unit length take absolute density out of the bottleneck; this path leads it
    around them, so that the embedding can tell -950 HU from -850 HU.

    Args:
        x: noised CT and lung mask, (batch, 2, z, y, x).
        cell: side of a cell in voxels.

    Returns:
        (batch, 3, z/cell, y/cell, x/cell).
    """
    value, mask = x[:, :1], x[:, 1:2]
    share = functional.avg_pool3d(mask, cell)
    weight = share.clamp(min=1e-3)
    mean = functional.avg_pool3d(value * mask, cell) / weight
    square = functional.avg_pool3d(value.square() * mask, cell) / weight
    spread = (square - mean.square()).clamp(min=1e-6).sqrt()
    return torch.cat([mean, spread, share], dim=1)


class StudentHead(nn.Module):
    """Bottleneck and density path to a unit vector in each cell, and to the teacher's numbers.

    Args:
        channels: channels of the bottleneck.
        hidden: width of the hidden layer.
        teacher_numbers: how many numbers the regression reads off the embedding.
    """

    def __init__(self, channels: int, hidden: int = 128, teacher_numbers: int = 34) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv3d(channels + DENSITY_CHANNELS, hidden, 1),
            nn.BatchNorm3d(hidden),
            nn.ReLU(),
            nn.Conv3d(hidden, EMBEDDING, 1),
        )
        self.regress = nn.Linear(EMBEDDING, teacher_numbers)

    def forward(self, bottleneck: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
        """Embeddings of unit length, (batch, 128, z, y, x)."""
        return functional.normalize(self.project(torch.cat([bottleneck, density], dim=1)), dim=1)


class TeacherHead(nn.Module):
    """Standardised radiomics of a region, (regions, 34), to a unit vector, (regions, 128)."""

    def __init__(self, teacher_numbers: int = 34) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(teacher_numbers, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING),
            nn.ReLU(),
            nn.Linear(EMBEDDING, EMBEDDING),
        )

    def forward(self, radiomics: torch.Tensor) -> torch.Tensor:
        """Embeddings of unit length, (regions, 128)."""
        return functional.normalize(self.project(radiomics), dim=1)


def pool_regions(embedding: torch.Tensor, share: torch.Tensor, cells: int) -> torch.Tensor:
    """Mean embedding of each cubic region, weighted by its cells' share of lung.

    Args:
        embedding: (batch, 128, z, y, x) in cells.
        share: lung share of each cell, (batch, 1, z, y, x).
        cells: side of a region in cells.

    Returns:
        (batch * regions, 128), regions in (z, y, x) order within a patch.
    """
    weight = functional.avg_pool3d(share, cells).clamp(min=1e-3)
    mean = functional.avg_pool3d(embedding * share, cells) / weight
    return mean.flatten(2).transpose(1, 2).reshape(-1, embedding.shape[1])


def info_nce(student: torch.Tensor, teacher: torch.Tensor, temperature: float = 0.07) -> torch.Tensor:
    """Symmetric InfoNCE (van den Oord et al. 2018, equation 4) over the regions of a batch.

    Args:
        student: (regions, 128); made unit length here.
        teacher: (regions, 128) of the same regions: row i is the positive of row i, all others negatives.
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
