"""Descriptors of every voxel: what its density and texture are, and what the diffusion model sees around it.

The embedding of the student is coarse (a cell is 8 voxels wide) and knows context; density and texture are
fine and know the voxel.  The mixture gets both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional

from DiffSegLungLib.distillation import CONTEXT, DOWNSAMPLING, inner
from DiffSegLungLib.errors import is_out_of_memory
from DiffSegLungLib.filters import masked_mean, masked_opening

if TYPE_CHECKING:
    from DiffSegLungLib.models.student import Student
    from DiffSegLungLib.vessels import Parenchyma

DESCRIPTORS = ("density", "density_5mm", "lines_5mm", "holes_5mm")
"""The fine descriptors, in order; HU / 100 for the first two, log(1 + HU / 20) for the others."""

LARGEST_RISE_HU = 300.0
"""Lines and holes count no more than this, so that one hilar vessel does not pass for a net of fine lines."""

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class EmbeddingPlan:
    """How embeddings are read off the student.

    Attributes:
        window: sides of a window in voxels, those of the training patches, since the network's group
            normalisation looks at the whole window.
        stride: distance of windows in voxels, multiples of a cell; below ``window`` they overlap.
        timesteps: noise levels whose embeddings are put side by side.
        batch: windows a pass.
    """

    window: Triple = (16, 32, 32)
    stride: Triple = (16, 24, 24)
    timesteps: tuple[int, ...] = (10, 50, 100)
    batch: int = 8


def fine_descriptors(hu: np.ndarray, mask: np.ndarray, parenchyma: Parenchyma, spacing: float) -> np.ndarray:
    """Density and texture around each voxel, inside the lungs only.

    Args:
        hu: float32 (z, y, x), isotropic grid.
        mask: bool (z, y, x), the lungs.
        parenchyma: what :func:`DiffSegLungLib.vessels.separate_vessels` found.
        spacing: voxel side in mm.

    Returns:
        float32 (4, z, y, x), in the order of ``DESCRIPTORS``.
    """
    inside = mask & ~parenchyma.vessels
    smooth = masked_mean(hu, mask, 0.5)
    lines = smooth - masked_opening(smooth, mask, round(1.5 / spacing))
    holes = -masked_opening(-smooth, mask, round(3.0 / spacing)) - smooth
    return np.stack(
        [
            parenchyma.density / 100.0,
            masked_mean(parenchyma.density, inside, 5.0 / spacing) / 100.0,
            _texture(lines, mask, spacing),
            _texture(holes, mask, spacing),
        ]
    ).astype(np.float32)


def _texture(rises: np.ndarray, mask: np.ndarray, spacing: float) -> np.ndarray:
    """Mean rise (or fall) of fine structures around each voxel.  Steps between tissues have none."""
    rises = np.clip(np.where(mask, rises, 0), 0, LARGEST_RISE_HU)
    return np.log1p(np.maximum(masked_mean(rises, mask, 5.0 / spacing), 0) / 20.0)


def embed(
    student: Student,
    hu: np.ndarray,
    mask: np.ndarray,
    project: Callable[[torch.Tensor], torch.Tensor],
    plan: EmbeddingPlan,
    seed: int = 0,
    device: str = "cpu",
    progress: Callable[[float], None] = lambda fraction: None,
    draws: int = 1,
) -> np.ndarray:
    """Embeddings of several noise levels over overlapping windows, projected on the coarse grid.

    Standardisation and PCA are affine and the weights of a linear interpolation sum to one, so projecting
    the cells and up-sampling the few projected channels gives what projecting every voxel would.  Nor does it
    matter whether embeddings or projections of several draws are averaged.

    Args:
        student: the trained network.
        hu: float32 (z, y, x), isotropic grid at the model's spacing.
        mask: bool (z, y, x), the lungs.
        project: maps (cells, 128 * timesteps) to (cells, channels).
        plan: windows and noise levels.
        seed: of the noise; the same noise is used in every window, so that windows differ by their CT alone.
        device: where the network runs.
        progress: told the share done.
        draws: how many draws of the noise are averaged.

    Returns:
        float32 (channels, Z, Y, X) in cells of 8 voxels, covering the volume from its first voxel on.
    """
    padded_hu, padded_mask = _pad(hu, plan.window, -1000.0), _pad(mask, plan.window, 0)
    corners = list(_windows(padded_mask, plan))
    wide_hu, wide_mask = (
        np.pad(values, CONTEXT, constant_values=fill)
        for values, fill in ((padded_hu, -1000.0), (padded_mask, 0))
    )
    noises = _noises(plan, seed, draws)
    total: torch.Tensor | None = None
    cells = [side // DOWNSAMPLING for side in padded_hu.shape]
    weight, blend = torch.zeros(cells), _blending(plan.window)

    def projected_windows(batch: Sequence[Triple]) -> torch.Tensor:
        seen = (_embed_windows(student, wide_hu, wide_mask, batch, plan, noise, device) for noise in noises)
        return _mean([project(embeddings) for embeddings in seen])

    done = 0
    for batch, projected in _in_batches_that_fit(corners, plan.batch, projected_windows):
        total = torch.zeros((projected.shape[-1], *cells)) if total is None else total
        for corner, cell_values in zip(batch, projected, strict=True):
            box = tuple(
                slice(c // DOWNSAMPLING, (c + w) // DOWNSAMPLING)
                for c, w in zip(corner, plan.window, strict=True)
            )
            total[(slice(None), *box)] += cell_values.permute(3, 0, 1, 2) * blend
            weight[box] += blend
        done += len(batch)
        progress(done / len(corners))
    if total is None:
        raise ValueError("the mask is empty")
    return _fill_empty_cells(total, weight).numpy()


def _in_batches_that_fit(
    windows: Sequence[Triple], most: int, compute: Callable[[Sequence[Triple]], torch.Tensor]
) -> Iterator[tuple[Sequence[Triple], torch.Tensor]]:
    """Batches of windows with what was computed of them; smaller ones where the memory does not suffice."""
    first = 0
    while first < len(windows):
        batch = windows[first : first + most]
        try:
            computed = compute(batch)
        except (MemoryError, RuntimeError) as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
            most = len(batch) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            continue
        first += len(batch)
        yield batch, computed


def _noises(plan: EmbeddingPlan, seed: int, draws: int) -> list[torch.Tensor]:
    """Noise (timesteps, z, y, x) of each draw; more draws never change the first."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(plan.timesteps), *plan.window)
    return [torch.randn(shape, generator=generator) for _ in range(draws)]


def _mean(parts: Sequence[torch.Tensor]) -> torch.Tensor:
    return parts[0] if len(parts) == 1 else torch.stack(list(parts)).mean(dim=0)


@torch.inference_mode()
def _embed_windows(
    student: Student,
    hu: np.ndarray,
    mask: np.ndarray,
    corners: Sequence[Triple],
    plan: EmbeddingPlan,
    noise: torch.Tensor,
    device: str,
) -> torch.Tensor:
    """Embeddings of some windows, (windows, z, y, x, 128 * timesteps) in cells.

    ``hu`` and ``mask`` have ``CONTEXT`` voxels more at each end than the volume that ``corners`` speak of.
    """
    boxes = [
        tuple(slice(c, c + w + 2 * CONTEXT) for c, w in zip(corner, plan.window, strict=True))
        for corner in corners
    ]
    patches = torch.from_numpy(np.stack([hu[box] for box in boxes]))[:, None].to(device)
    lungs = torch.from_numpy(np.stack([mask[box] for box in boxes]).astype(np.float32))[:, None].to(device)
    local = student.local(patches, lungs)
    patches, lungs = inner(patches), inner(lungs)
    levels = [
        student.embed_hounsfield(patches, lungs, noise[level].to(device), timestep, local)
        for level, timestep in enumerate(plan.timesteps)
    ]
    return torch.cat(levels, dim=1).permute(0, 2, 3, 4, 1).float().cpu()


def _pad(values: np.ndarray, window: Triple, fill: float) -> np.ndarray:
    """Pad at the far ends to whole cells, and to one window at least."""
    ends = [
        max(math.ceil(side / DOWNSAMPLING) * DOWNSAMPLING, least) - side
        for side, least in zip(values.shape, window, strict=True)
    ]
    return np.pad(values, [(0, end) for end in ends], constant_values=fill)


def _windows(mask: np.ndarray, plan: EmbeddingPlan) -> Iterator[Triple]:
    """Corners of the windows that hold lung; the last of a row ends with the volume."""
    starts = [
        sorted({*range(0, side - window, step), side - window})
        for side, window, step in zip(mask.shape, plan.window, plan.stride, strict=True)
    ]
    for z in starts[0]:
        for y in starts[1]:
            for x in starts[2]:
                box = mask[z : z + plan.window[0], y : y + plan.window[1], x : x + plan.window[2]]
                if box.any():
                    yield z, y, x


def _blending(window: Triple) -> torch.Tensor:
    """Weights that fall from the middle of a window to its border, where context is cut off."""
    axes = []
    for side in window:
        cells = side // DOWNSAMPLING
        centre = (torch.arange(cells) + 0.5) / cells
        axes.append(torch.minimum(centre, 1 - centre) * 2)
    return axes[0][:, None, None] * axes[1][None, :, None] * axes[2][None, None, :]


def _fill_empty_cells(total: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Divide by the weights; cells of no window take the mean, so that up-sampling near them is harmless."""
    seen = weight > 0
    mean = total / weight.clamp(min=1e-6)
    mean[:, ~seen] = mean[:, seen].mean(dim=1, keepdim=True)
    return mean


def upsample_cells(cells: np.ndarray, shape: Triple, rows: slice) -> np.ndarray:
    """Trilinear up-sampling of coarse channels to voxels, for some slices only (memory stays small).

    Args:
        cells: float32 (channels, Z, Y, X), cells of 8 voxels.
        shape: the volume's voxels (z, y, x).
        rows: which slices z are wanted.

    Returns:
        float32 (channels, rows, y, x).
    """
    coarse = torch.from_numpy(cells)
    # Voxel i lies at (i + 0.5) / 8 - 0.5 cells; slices are interpolated one by one, planes by torch.
    position = (np.arange(rows.start, rows.stop) + 0.5) / DOWNSAMPLING - 0.5
    position = np.clip(position, 0, cells.shape[1] - 1)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, cells.shape[1] - 1)
    share = torch.from_numpy((position - low).astype(np.float32))[None, :, None, None]
    slices = coarse[:, low] * (1 - share) + coarse[:, high] * share
    size = (cells.shape[2] * DOWNSAMPLING, cells.shape[3] * DOWNSAMPLING)
    planes = functional.interpolate(slices, size=size, mode="bilinear", align_corners=False)
    return planes[:, :, : shape[1], : shape[2]].numpy()
