"""Descriptors of every voxel: what its density and texture are, and what the diffusion model sees around it.

The embedding of the student is coarse (a cell is 8 voxels wide) and knows context; density and texture are
fine and know the voxel.  The mixture gets both.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch.nn import functional

from DiffSegLungLib.densities import AIR_HU
from DiffSegLungLib.errors import is_out_of_memory
from DiffSegLungLib.filters import box_around, masked_mean, masked_means, masked_opening
from DiffSegLungLib.parallel import run_all, threads
from DiffSegLungLib.representation.cell_numbers import cell_numbers_by_slabs
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING

if TYPE_CHECKING:
    from DiffSegLungLib.parenchyma.vessels import Parenchyma
    from DiffSegLungLib.representation.student import Student

DESCRIPTORS = ("density", "density_5mm", "lines_5mm", "holes_5mm")
"""The fine descriptors, in order; HU / 100 for the first two, log(1 + HU / 20) for the others."""

LARGEST_RISE_HU = 300.0
"""Lines and holes count no more than this, so that one hilar vessel does not pass for a net of fine lines."""

CPU_BATCH, GPU_BATCH = 4, 64
"""Windows a pass, at most on a processor and at least on a graphics card."""

Triple = tuple[int, int, int]
Computed = TypeVar("Computed")


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
        parenchyma: what :func:`DiffSegLungLib.parenchyma.vessels.separate_vessels` found.
        spacing: voxel side in mm.

    Returns:
        float32 (4, z, y, x), in the order of ``DESCRIPTORS``.
    """
    whole = np.zeros((len(DESCRIPTORS), *mask.shape), np.float32)
    if not mask.any():
        return whole
    box = box_around(mask)
    mask, density, vessels = mask[box], parenchyma.density[box], parenchyma.vessels[box]
    smooth = masked_mean(hu[box], mask, 0.5)
    lines = smooth - masked_opening(smooth, mask, round(1.5 / spacing))
    holes = -masked_opening(-smooth, mask, round(3.0 / spacing)) - smooth
    around = masked_mean(density, mask & ~vessels, 5.0 / spacing)
    textures = _textures([lines, holes], mask, spacing)
    for descriptor, values in zip(whole, (density / 100.0, around / 100.0, *textures), strict=True):
        descriptor[box] = values
    return whole


def _textures(rises: Sequence[np.ndarray], mask: np.ndarray, spacing: float) -> list[np.ndarray]:
    """Mean rise (or fall) of fine structures around each voxel.  Steps between tissues have none."""
    clipped = [np.clip(np.where(mask, rise, 0), 0, LARGEST_RISE_HU) for rise in rises]
    return [np.log1p(np.maximum(mean, 0) / 20.0) for mean in masked_means(clipped, mask, 5.0 / spacing)]


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
        project: maps (cells, EMBEDDING * timesteps) to (cells, channels).
        plan: windows and noise levels.
        seed: of the noise; the same noise is used in every window, so that windows differ by their CT alone.
        device: where the network runs.
        progress: told the share done.
        draws: how many draws of the noise are averaged.

    Returns:
        float32 (channels, Z, Y, X) in cells of 8 voxels, covering the volume from its first voxel on.
    """
    padded_hu, padded_mask = _pad(hu, plan.window, AIR_HU), _pad(mask, plan.window, 0)
    corners = list(_windows(padded_mask, plan))
    if not corners:
        raise ValueError("the mask is empty")
    whole = torch.from_numpy(padded_hu).to(device), torch.from_numpy(padded_mask).to(device)
    seen = _Seen(
        *whole,
        cell_numbers_by_slabs(*whole),
        [noise.to(device) for noise in _noises(plan, seed, draws)],
    )
    cells = [side // DOWNSAMPLING for side in padded_hu.shape]
    total: torch.Tensor | None = None
    weight, blend = torch.zeros(cells), _blending(plan.window)
    done = 0
    for batch, embeddings in _embed_all(student, seen, corners, plan, device):
        projected = _mean([project(one) for one in embeddings])
        total = torch.zeros((projected.shape[-1], *cells)) if total is None else total
        for corner, cell_values in zip(batch, projected, strict=True):
            box = _cells_of(corner, plan.window)
            total[(slice(None), *box)] += cell_values.permute(3, 0, 1, 2) * blend
            weight[box] += blend
        done += len(batch)
        progress(done / len(corners))
    assert total is not None
    return _fill_empty_cells(total, weight).numpy()


@dataclass(frozen=True)
class _Seen:
    """What the network sees, on its device.

    Attributes:
        hu: float32 (z, y, x).
        mask: bool, as hu.
        numbers: density and texture of its cells, (numbers, z/8, y/8, x/8).
        noises: (timesteps, z, y, x) of a window, one a draw.
    """

    hu: torch.Tensor
    mask: torch.Tensor
    numbers: torch.Tensor
    noises: list[torch.Tensor]


def _embed_all(
    student: Student, seen: _Seen, corners: Sequence[Triple], plan: EmbeddingPlan, device: str
) -> Iterator[tuple[Sequence[Triple], list[torch.Tensor]]]:
    """Batches of windows and their embeddings of each draw."""

    def embeddings(batch: Sequence[Triple]) -> list[torch.Tensor]:
        return [_embed_windows(student, seen, batch, plan, noise, device) for noise in seen.noises]

    # A layer of a few windows is too small to be shared by threads: each takes windows of its own.
    together = threads() if device == "cpu" else 1
    return _in_batches_that_fit(corners, batch_size(plan.batch, device), embeddings, together)


def _in_batches_that_fit(
    windows: Sequence[Triple],
    most: int,
    compute: Callable[[Sequence[Triple]], Computed],
    together: int = 1,
) -> Iterator[tuple[Sequence[Triple], Computed]]:
    """Batches of windows with what was computed of them; smaller ones where the memory does not suffice.

    Args:
        windows: all of them.
        most: windows of a batch.
        compute: run for each batch.
        together: batches that run side by side.
    """
    first = 0
    while first < len(windows):
        group = windows[first : first + most * together]
        batches = [group[start : start + most] for start in range(0, len(group), most)]
        try:
            computed = run_all([partial(compute, batch) for batch in batches])
        except (MemoryError, RuntimeError) as error:
            if len(batches[0]) == 1 or not is_out_of_memory(error):
                raise
            most = len(batches[0]) // 2
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            logging.getLogger(__name__).warning("memory is short: %d windows a pass", most)
            continue
        first += len(group)
        yield from zip(batches, computed, strict=True)


def batch_size(planned: int, device: str) -> int:
    """Windows a pass: as many as keep the device busy.

    On a processor few, so that what a layer gives is still in the cache when the next one takes it; but not
    one alone, for which the calls of the layers cost half as much as the layers.
    """
    return min(planned, CPU_BATCH) if device == "cpu" else max(planned, GPU_BATCH)


def bfloat16_pays() -> bool:
    """Whether this processor multiplies in bfloat16 by instructions of its own: four times as fast then."""
    # Not public, and the oldest torch that is allowed has neither: without an answer float32 is safe.
    asked = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, question, lambda: False)() for question in asked)


def precision(device: str) -> str:
    """Numbers that the network computes with: ``bfloat16`` where the device has instructions for it.

    It changes the embedding by 0.4 % on average (rounding every convolution's numbers on the processor).
    """
    return "bfloat16" if device == "cuda" or (device == "cpu" and bfloat16_pays()) else "float32"


def _autocast(device: str) -> AbstractContextManager[object]:
    if precision(device) == "bfloat16":
        return torch.autocast(device, dtype=torch.bfloat16)
    return nullcontext()


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
    seen: _Seen,
    corners: Sequence[Triple],
    plan: EmbeddingPlan,
    noise: torch.Tensor,
    device: str,
) -> torch.Tensor:
    """Embeddings of some windows, (windows, z, y, x, EMBEDDING * timesteps) in cells."""
    boxes = [_box(corner, plan.window) for corner in corners]
    patches = torch.stack([seen.hu[box] for box in boxes])[:, None]
    lungs = torch.stack([seen.mask[box] for box in boxes])[:, None].float()
    cells = [_cells_of(corner, plan.window) for corner in corners]
    numbers = torch.stack([seen.numbers[(slice(None), *box)] for box in cells])
    with _autocast(device):
        levels = [
            student.embed_hounsfield(patches, lungs, noise[level], timestep, numbers)
            for level, timestep in enumerate(plan.timesteps)
        ]
    return torch.cat(levels, dim=1).permute(0, 2, 3, 4, 1).float().cpu()


def _box(corner: Triple, window: Triple) -> tuple[slice, ...]:
    """The voxels of a window."""
    return tuple(slice(c, c + w) for c, w in zip(corner, window, strict=True))


def _cells_of(corner: Triple, window: Triple) -> tuple[slice, ...]:
    """The cells of a window."""
    pairs = zip(corner, window, strict=True)
    return tuple(slice(c // DOWNSAMPLING, (c + w) // DOWNSAMPLING) for c, w in pairs)


def _pad(values: np.ndarray, window: Triple, fill: float) -> np.ndarray:
    """Pad at the far ends to whole cells, and to one window at least."""
    ends = [
        max(math.ceil(side / DOWNSAMPLING) * DOWNSAMPLING, least) - side
        for side, least in zip(values.shape, window, strict=True)
    ]
    return np.pad(values, [(0, end) for end in ends], constant_values=fill)


def _windows(mask: np.ndarray, plan: EmbeddingPlan) -> Iterator[Triple]:
    """Corners of windows that hold all lung, each row of them laid tight around its own lung.

    A lattice over the whole volume takes half as many again, most of them at the rim of the lungs.
    """
    (depth, height, width), (z_step, y_step, x_step) = plan.window, plan.stride
    for z in _starts(np.asarray(mask.any(axis=(1, 2))), depth, z_step):
        slab = np.asarray(mask[z : z + depth].any(axis=0))
        for y in _starts(np.asarray(slab.any(axis=1)), height, y_step):
            for x in _starts(np.asarray(slab[y : y + height].any(axis=0)), width, x_step):
                yield z, y, x


def _starts(lung: np.ndarray, window: int, stride: int) -> list[int]:
    """Where windows start along an axis: whole cells, at most ``stride`` apart over each piece of lung.

    Args:
        lung: bool (voxels,), whole cells.
        window: voxels of a window.
        stride: voxels.
    """
    starts = set()
    where = np.flatnonzero(lung)
    for piece in np.split(where, np.flatnonzero(np.diff(where) > window // 2) + 1):
        if piece.size == 0:
            continue
        first = piece[0] // DOWNSAMPLING
        last = max(piece[-1] // DOWNSAMPLING + 1 - window // DOWNSAMPLING, first)
        gaps = max(math.ceil((last - first) * DOWNSAMPLING / stride), 1)
        cells = np.rint(np.linspace(first, last, gaps + 1)).astype(int)
        starts.update((np.minimum(cells * DOWNSAMPLING, lung.size - window)).tolist())
    return sorted(starts)


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
