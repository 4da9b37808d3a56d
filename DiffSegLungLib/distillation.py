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

TEACHER_NUMBERS = 34
TARGETS = 2 * TEACHER_NUMBERS + 7
"""What the embedding must tell by a linear map: radiomics of cell and surroundings, density of the cell."""

DOWNSAMPLING = 8
"""Voxels of a cell of the embedding, along each axis; that of the U-Net's bottleneck."""

CONTEXT = 8
"""Voxels of the clean CT beyond a window, on each side, that the local path sees."""

SCALES = (8, 16, 24)
"""Sides in voxels of the cubes around each cell whose density the local path tells."""
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
DENSITY_NUMBERS = 2 + len(SHARES)
DENSITY_CHANNELS = DENSITY_NUMBERS * len(SCALES) + 1
TEXTURE_CHANNELS = 48
LOCAL_CHANNELS = DENSITY_CHANNELS + TEXTURE_CHANNELS
"""Channels of :class:`LocalPath`."""


def density_numbers(x: torch.Tensor, mask: torch.Tensor, side: int) -> torch.Tensor:
    """Mean, deviation and five percentiles of the lung in the cube around each cell.

    Larger cubes are read at every second or third voxel, which is as many voxels as a cell has.

    Args:
        x: clean CT, (batch, 1, z, y, x), with ``CONTEXT`` voxels around the window.
        mask: lungs, as x.
        side: one of ``SCALES``.

    Returns:
        (batch, 7, Z, Y, X) in the window's cells; 0 where a cube has no lung.
    """
    cubes = _cubes_around(torch.where(mask > 0.5, x, torch.nan), side)
    there = ~cubes.isnan()
    count = there.sum(dim=-1).clamp(min=1)
    values = torch.where(there, cubes, 0.0)
    mean = values.sum(dim=-1) / count
    spread = (torch.where(there, values - mean[..., None], 0.0).square().sum(dim=-1) / count).sqrt()
    ordered = torch.where(there, cubes, torch.inf).sort(dim=-1).values
    places = (torch.tensor(SHARES, device=x.device) * (count[..., None] - 1)).round().long()
    shares = torch.where(there.any(dim=-1, keepdim=True), ordered.gather(-1, places), 0.0)
    return torch.cat([mean[..., None], spread[..., None], shares], dim=-1).permute(0, 4, 1, 2, 3)


def _cubes_around(x: torch.Tensor, side: int) -> torch.Tensor:
    """Voxels of the cube around each cell: (batch, Z, Y, X, voxels)."""
    margin, step = CONTEXT - (side - DOWNSAMPLING) // 2, side // DOWNSAMPLING
    inner = x[:, 0]
    for axis in (1, 2, 3):
        inner = inner.narrow(axis, margin, inner.shape[axis] - 2 * margin)
    for axis in (1, 2, 3):
        inner = inner.unfold(axis, side, DOWNSAMPLING)
    return inner[..., ::step, ::step, ::step].flatten(4)


class LocalPath(nn.Module):
    """A way around noise and normalisation: density and texture of the clean CT around each cell.

    Group normalisation takes absolute density out of the bottleneck, and the noise of the forward process
    blurs what is left.  Here density comes as exact numbers at three scales, and texture from a few
    convolutions without any normalisation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texture = nn.Sequential(
            nn.Conv3d(2, 16, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv3d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv3d(32, TEXTURE_CHANNELS, 3, stride=2, padding=1),
            nn.SiLU(),
        )

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Density and texture of each cell.

        Args:
            x: clean CT in the network's window, (batch, 1, z, y, x), ``CONTEXT`` voxels around included.
            mask: 1 in the lungs, as x.

        Returns:
            (batch, 70, Z, Y, X) in the window's cells.
        """
        density = [density_numbers(x, mask, side) for side in SCALES]
        share = functional.avg_pool3d(inner(mask), DOWNSAMPLING)
        texture = self.texture(torch.cat([x * mask, mask], dim=1))
        cells = CONTEXT // DOWNSAMPLING
        return torch.cat([*density, share, _without_rim(texture, cells)], dim=1)


def inner(wide: torch.Tensor) -> torch.Tensor:
    """The window without the ``CONTEXT`` around it, (batch, channels, z, y, x)."""
    return _without_rim(wide, CONTEXT)


def _without_rim(x: torch.Tensor, rim: int) -> torch.Tensor:
    return x[:, :, rim:-rim, rim:-rim, rim:-rim]


class StudentHead(nn.Module):
    """Bottleneck and local path to an embedding of each cell, and to the teacher's numbers.

    The embedding has no unit length: its length carries density, and the contrastive loss takes the length
    out by itself.  The straight way beside the hidden layer keeps it linear in what is linear.

    Args:
        channels: channels of the bottleneck.
        hidden: width of the hidden layer.

    Attributes:
        targets: which of the ``TARGETS`` numbers of a cell its embedding tells by ``regress``.
        radiomics: which of them it is contrasted with.
    """

    targets, radiomics = slice(0, TARGETS), slice(0, 2 * TEACHER_NUMBERS)

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        inputs = channels + LOCAL_CHANNELS
        # Statistics of the training data, not of the window at hand: HU stay physical.
        self.scale = nn.BatchNorm3d(inputs, affine=False)
        self.straight = nn.Conv3d(inputs, EMBEDDING, 1)
        self.project = nn.Sequential(nn.Conv3d(inputs, hidden, 1), nn.SiLU(), nn.Conv3d(hidden, EMBEDDING, 1))
        self.regress = nn.Linear(EMBEDDING, TARGETS)

    def forward(self, bottleneck: torch.Tensor, local: torch.Tensor) -> torch.Tensor:
        """Embeddings, (batch, 128, z, y, x)."""
        seen = self.scale(torch.cat([bottleneck, local], dim=1))
        return self.straight(seen) + self.project(seen)


def density_path(x: torch.Tensor, cell: int) -> torch.Tensor:
    """Mean, spread and lung share of each cell of the network's noised input: the local path of ``first``.

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


class UnitHead(nn.Module):
    """The head of the model ``first``: bottleneck and :func:`density_path` to a unit vector in each cell.

    Args:
        channels: channels of the bottleneck.
        hidden: width of the hidden layer.

    Attributes:
        targets: as those of :class:`StudentHead`: the radiomics of a cell's surroundings alone.
        radiomics: the same.
    """

    targets = radiomics = slice(TEACHER_NUMBERS, 2 * TEACHER_NUMBERS)

    def __init__(self, channels: int, hidden: int = 128) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Conv3d(channels + 3, hidden, 1),
            nn.BatchNorm3d(hidden),
            nn.ReLU(),
            nn.Conv3d(hidden, EMBEDDING, 1),
        )
        self.regress = nn.Linear(EMBEDDING, TEACHER_NUMBERS)

    def forward(self, bottleneck: torch.Tensor, density: torch.Tensor) -> torch.Tensor:
        """Embeddings of unit length, (batch, 128, z, y, x)."""
        return functional.normalize(self.project(torch.cat([bottleneck, density], dim=1)), dim=1)


class TeacherHead(nn.Module):
    """Standardised radiomics to a unit vector, (cells, 128).

    Args:
        teacher_numbers: how many numbers a cell: of cell and surroundings, or of the surroundings alone.
    """

    def __init__(self, teacher_numbers: int = 2 * TEACHER_NUMBERS) -> None:
        super().__init__()
        self.project = nn.Sequential(
            nn.Linear(teacher_numbers, EMBEDDING),
            nn.BatchNorm1d(EMBEDDING),
            nn.ReLU(),
            nn.Linear(EMBEDDING, EMBEDDING),
        )

    def forward(self, radiomics: torch.Tensor) -> torch.Tensor:
        """Embeddings of unit length, (cells, 128)."""
        return functional.normalize(self.project(radiomics), dim=1)


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
