"""Density and texture of the clean CT in and around each cell: a way around noise and normalisation.

Group normalisation takes absolute density out of the diffusion model's bottleneck, and the noise of the
forward process blurs what is left of density and fine texture.  These numbers have no parameters and no
normalisation.  They are those of filtered radiomics: percentiles, a histogram, and the energies of
band-pass, gradient and top-hat filters, over cubes of one cell and of its neighbourhood; wide top-hats, fine
ones over raised tissue alone, and the level of the aerated lung around.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch.nn import functional

from DiffSegLungLib.densities import WINDOW_HU
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING, from_hounsfield

CONTEXT = 24
"""Voxels beyond a window, on each side, on which the numbers of its cells depend."""

SLAB = 96
"""Slices at a time of a whole CT; a multiple of 8."""

SCALES = (8, 24)
"""Sides in voxels of the cubes around each cell whose density is told."""
SHARES = (0.05, 0.25, 0.5, 0.75, 0.95)
NEIGHBOURHOODS = (1, 3)
"""Sides in cells of the cubes over which histogram and texture are averaged."""
EDGES_HU = (-950.0, -850.0, -700.0, -500.0, -250.0)
"""Between the classes of the histogram."""
SOFTNESS_HU = 25.0
"""Of those edges; a step would turn noise into texture."""
WIDTHS = (0.6, 1.0, 1.6, 2.6)
"""Standard deviations in voxels of the Gaussians whose differences are the bands."""
BALLS = (1, 2, 3)
"""Half the sides in voxels of the cubes of openings and closings."""
WIDE_BALLS = (2, 3)
"""The same on a grid half as fine, for what is as wide as a lesion: its walls, its lumen."""
WIDE_HU, WIDE_SOFTNESS_HU = 300.0, 50.0
"""A rise or fall that is counted there."""
RAISED_HU, RAISED_SOFTNESS_HU = (-650.0, -250.0), 20.0
"""Density after an opening that is ground glass or fibrosis, in which fine lines are told by themselves: a
mean over all lung would tell how much of it is raised instead."""
LEAST_RAISED = 0.03
"""Added to the share of raised tissue, below which its texture says little."""
LEVEL_HU, LEVEL_CELLS = (-1000.0, -600.0), 7
"""Density of aerated lung, denser tissue held to its upper end, over a cube of so many cells: what is healthy
in one lung is raised in another."""
FILL_HU = -850.0
"""Outside the lungs: about healthy lung, so that the pleura is no texture of the chest wall's."""
LARGEST_HU, UNIT_HU = 300.0, 20.0
"""A response counts no more than the first; its mean is told as log(1 + mean / the second)."""

DENSITY_NUMBERS = 2 + len(SHARES)
_RESPONSES = 2 * len(WIDTHS) + len(WIDTHS) - 1 + 2 * len(BALLS)
_AVERAGED = len(EDGES_HU) + 1 + _RESPONSES + 2 * len(WIDE_BALLS)
CELL_NUMBERS = DENSITY_NUMBERS * len(SCALES) + _AVERAGED * len(NEIGHBOURHOODS) + 2 * len(BALLS) + 2
"""Channels of :func:`cell_numbers`."""


@torch.no_grad()
def cell_numbers(hu: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Density and texture of each cell.

    Args:
        hu: the CT in HU, (batch, 1, z, y, x); sides are multiples of 8.
        mask: lungs, as ``hu``.

    Returns:
        (batch, CELL_NUMBERS, z/8, y/8, x/8).  Cells within ``CONTEXT`` of the border see fill beyond it.
    """
    lungs = (mask > 0.5).to(hu.dtype)
    x = from_hounsfield(hu)
    parts = [density_numbers(x, mask, side) for side in SCALES]
    parts += [_averaged(_histogram(hu), lungs).clamp(min=0).sqrt(), _texture(hu, lungs), _level(hu, lungs)]
    return torch.cat([*parts, functional.avg_pool3d(lungs, DOWNSAMPLING)], dim=1)


def cell_numbers_by_slabs(hu: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """The same of one whole CT, some slices at a time, so that memory does not grow with their number.

    Args:
        hu: the CT in HU, (z, y, x); sides are multiples of 8.
        mask: lungs, as ``hu``.

    Returns:
        (CELL_NUMBERS, z/8, y/8, x/8).
    """
    parts = []
    for first in range(0, len(hu), SLAB):
        low, last = max(first - CONTEXT, 0), min(first + SLAB, len(hu))
        rows = slice(low, last + CONTEXT)
        numbers = cell_numbers(hu[rows][None, None], mask[rows][None, None])[0]
        begin = (first - low) // DOWNSAMPLING
        parts.append(numbers[:, begin : begin + (last - first) // DOWNSAMPLING])
    return torch.cat(parts, dim=1)


def inner(wide: torch.Tensor) -> torch.Tensor:
    """A window without the ``CONTEXT`` around it, (batch, channels, z, y, x)."""
    return without_rim(wide, CONTEXT)


def without_rim(x: torch.Tensor, rim: int) -> torch.Tensor:
    """Without so many voxels, or cells, at each end of the last three axes."""
    return x[:, :, rim:-rim, rim:-rim, rim:-rim]


def density_numbers(x: torch.Tensor, mask: torch.Tensor, side: int) -> torch.Tensor:
    """Mean, deviation and five percentiles of the lung in the cube around each cell.

    Larger cubes are read at every second or third voxel, which is as many voxels as a cell has.

    Args:
        x: clean CT in the network's window, (batch, 1, z, y, x).
        mask: lungs, as x.
        side: one of ``SCALES``.

    Returns:
        (batch, 7, z/8, y/8, x/8); 0 where a cube has no lung.
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
    """Voxels of the cube around each cell: (batch, z/8, y/8, x/8, voxels); NaN beyond the border."""
    margin, step = (side - DOWNSAMPLING) // 2, side // DOWNSAMPLING
    inner = functional.pad(x[:, 0], [margin] * 6, value=math.nan)
    for axis in (1, 2, 3):
        inner = inner.unfold(axis, side, DOWNSAMPLING)
    return inner[..., ::step, ::step, ::step].flatten(4)


def _histogram(hu: torch.Tensor) -> torch.Tensor:
    """Share of each voxel in each class of density, (batch, classes, z, y, x)."""
    above = [torch.sigmoid((hu - edge) / SOFTNESS_HU) for edge in EDGES_HU]
    steps = [torch.ones_like(hu), *above, torch.zeros_like(hu)]
    return torch.cat([low - high for low, high in itertools.pairwise(steps)], dim=1)


def _texture(hu: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    """Log of the mean response of each filter over the lung, at each of ``NEIGHBOURHOODS``; wide rises and
    falls; the fine top-hats over raised tissue alone."""
    # Zero beyond the border means the fill too.
    above_fill = torch.where(lungs > 0.5, hu.clamp(*WINDOW_HU) - FILL_HU, 0.0)
    levels = [above_fill, *(_blurred(above_fill, width) for width in WIDTHS)]
    responses = []
    for finer, coarser in itertools.pairwise(levels):
        responses += [(finer - coarser).clamp(min=0), (coarser - finer).clamp(min=0)]
    responses += [_gradient(level) for level in levels[1:-1]]
    hats = _top_hats(levels[1], BALLS)
    averaged = [_averaged_log(response, lungs) for response in (*responses, *hats)]
    opened = levels[1] - hats[0] + FILL_HU
    return torch.cat([*averaged, _wide(above_fill, lungs), _over_raised(hats, opened, lungs)], dim=1)


def _wide(above_fill: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    """Share of the lung that rises or falls far within each of ``WIDE_BALLS``."""
    half, lung = (functional.avg_pool3d(x, 2) for x in (above_fill, lungs))
    far = [((hat - WIDE_HU) / WIDE_SOFTNESS_HU).sigmoid() for hat in _top_hats(half, WIDE_BALLS)]
    return torch.cat([_averaged(one, lung, DOWNSAMPLING // 2) for one in far], dim=1)


def _over_raised(hats: list[torch.Tensor], opened: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    """Log of the mean of each top-hat over the raised tissue of a cell and its neighbours."""
    low, high = (torch.sigmoid((opened - edge) / RAISED_SOFTNESS_HU) for edge in RAISED_HU)
    raised = low * (1 - high) * lungs
    share = _neighbourhood(raised) + LEAST_RAISED
    means = [_neighbourhood(hat.clamp(max=LARGEST_HU) * raised) / share for hat in hats]
    return (torch.cat(means, dim=1) / UNIT_HU).log1p()


def _neighbourhood(x: torch.Tensor) -> torch.Tensor:
    return _around(functional.avg_pool3d(x, DOWNSAMPLING), max(NEIGHBOURHOODS))


def _level(hu: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    """Density of the aerated lung around, in hundreds of HU; 0 without lung."""
    total = functional.avg_pool3d(hu.clamp(*LEVEL_HU) * lungs, DOWNSAMPLING)
    share = _around(functional.avg_pool3d(lungs, DOWNSAMPLING), LEVEL_CELLS)
    return _around(total, LEVEL_CELLS) / share.clamp(min=1e-4) / 100.0


def _averaged_log(response: torch.Tensor, lungs: torch.Tensor) -> torch.Tensor:
    return (_averaged(response.clamp(max=LARGEST_HU), lungs) / UNIT_HU).log1p()


def _averaged(values: torch.Tensor, lungs: torch.Tensor, side: int = DOWNSAMPLING) -> torch.Tensor:
    """Means over the lung of a cell, ``side`` voxels wide, and of its neighbourhood; 0 without lung."""
    total = functional.avg_pool3d(values * lungs, side)
    share = functional.avg_pool3d(lungs, side)
    means = []
    for cells in NEIGHBOURHOODS:
        summed, weight = _around(total, cells), _around(share, cells)
        means.append(summed / weight.clamp(min=1e-4))
    return torch.cat(means, dim=1)


def _around(x: torch.Tensor, cells: int) -> torch.Tensor:
    """Mean over a cube of cells around each one; zero beyond the border."""
    return functional.avg_pool3d(functional.pad(x, [cells // 2] * 6), cells, stride=1)


def _blurred(x: torch.Tensor, width: float) -> torch.Tensor:
    """Gaussian of a standard deviation in voxels, cut at three of them."""
    radius = math.ceil(3 * width)
    offsets = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (offsets / width).square())
    kernel /= kernel.sum()
    for axis in range(3):
        shape, padding = [1, 1, 1, 1, 1], [0, 0, 0]
        shape[2 + axis], padding[axis] = 2 * radius + 1, radius
        x = functional.conv3d(x, kernel.view(shape), padding=padding)
    return x


def _gradient(x: torch.Tensor) -> torch.Tensor:
    """Length of the gradient by central differences; its unit is HU a voxel."""
    padded = functional.pad(x, [1] * 6)
    square = torch.zeros_like(x)
    for axis in (2, 3, 4):
        inner = padded
        for other in {2, 3, 4} - {axis}:
            inner = inner.narrow(other, 1, x.shape[other])
        sides = (inner.narrow(axis, first, x.shape[axis]) for first in (0, 2))
        before, after = sides
        square += (after - before).square()
    return square.sqrt() / 2


def _top_hats(x: torch.Tensor, balls: Sequence[int]) -> list[torch.Tensor]:
    """Rise above the opening with each of ``balls``, then fall below the closing."""
    hats = []
    for sign in (1.0, -1.0):
        eroded = sign * x
        for ball in range(1, max(balls) + 1):
            eroded = -_dilated(-eroded)
            if ball in balls:
                opened = eroded
                for _ in range(ball):
                    opened = _dilated(opened)
                hats.append((sign * x - opened).clamp(min=0))
    return hats


def _dilated(x: torch.Tensor) -> torch.Tensor:
    """Largest of each voxel's cube of three; pooling would run on one core only."""
    for axis in (2, 3, 4):
        longest = x.shape[axis] - 1
        grown = x.clone()
        for here, beside in ((0, 1), (1, 0)):
            part = grown.narrow(axis, here, longest)
            torch.maximum(part, x.narrow(axis, beside, longest), out=part)
        x = grown
    return x
