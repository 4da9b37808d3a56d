"""Reading the network on a whole CT: windows that overlap, weights that fade towards their borders."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.representation.tissue_unet import CELL, CLASSES, DEEPEST, TissueUNet
from DiffSegLungLib.tissues import OUTSIDE

WINDOW = (48, 160, 160)
"""Voxels read at once at the most, (z, y, x): 96 x 160 x 160 mm."""
OVERLAP = 0.2
"""Of neighbouring windows at least, of the largest window's sides."""
GRAIN = (DEEPEST, DEEPEST * CELL, DEEPEST * CELL)
"""A window's sides are multiples of it."""
FADE = 1 / 6
"""Share of a window's side over which its say fades towards its border."""
LEAST_WEIGHT = 0.05
AERATED_HU, AERATED = (-990.0, -500.0), 0.02
"""A window with a smaller share of such voxels holds no lung: it is outside without being read."""

Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Reading:
    """What the network says of a CT on its own grid.

    Attributes:
        posterior: float16 (``CLASSES``, z, y, x).
        features: float16 (channels, z, y / 2, x / 2), the decoder's.
    """

    posterior: np.ndarray
    features: np.ndarray


def read(
    net: TissueUNet,
    hu: np.ndarray,
    device: str = "cpu",
    window: Triple = WINDOW,
    told: Callable[[float], None] = lambda share: None,
) -> Reading:
    """Posterior and features of each voxel.

    Args:
        net: in evaluation mode.
        hu: float32 (z, y, x) on 2 x 1 x 1 mm.
        device: ``cpu``, ``cuda`` or ``mps``.
        window: voxels read at once at the most; multiples of ``GRAIN``.
        told: called with the share that is done.
    """
    lattice = [_along(*sides) for sides in zip(hu.shape, window, GRAIN, strict=True)]
    depth, height, width = (side for side, _ in lattice)
    window = depth, height, width
    shape = tuple(side + starts[-1] for side, starts in lattice)
    padded = np.pad(
        hu, [(0, new - side) for new, side in zip(shape, hu.shape, strict=True)], constant_values=LOWEST_HU
    )
    corners: list[Triple] = [(z, y, x) for z, y, x in product(*(starts for _, starts in lattice))]
    sums = torch.zeros((CLASSES, *shape), dtype=torch.float16)
    cells = torch.zeros((net.widths[0], shape[0], shape[1] // CELL, shape[2] // CELL), dtype=torch.float16)
    total: np.ndarray = np.zeros(shape, np.float32)
    fading = fade(window)
    for corner in corners:
        total[_box(corner, window)] += fading
    for done, corner in enumerate(corners, 1):
        share = fading / total[_box(corner, window)]
        _add(net, padded, corner, window, share, sums, cells, device)
        told(done / len(corners))
    z, y, x = hu.shape
    return Reading(sums[:, :z, :y, :x].numpy(), cells[:, :z, : -(-y // CELL), : -(-x // CELL)].numpy())


def _add(
    net: TissueUNet,
    hu: np.ndarray,
    corner: Triple,
    window: Triple,
    share: np.ndarray,
    sums: torch.Tensor,
    cells: torch.Tensor,
    device: str,
) -> None:
    """Read one window into the sums; what holds no lung is outside."""
    box = _box(corner, window)
    patch, low, high = hu[box], *AERATED_HU
    weight = torch.from_numpy(share)
    if ((patch > low) & (patch < high)).mean() < AERATED:
        sums[OUTSIDE][box] += weight.half()
        return
    tissues, features = _read_window(net, patch, device)
    sums[:, *box] += (tissues * weight).half()
    coarse = weight.reshape(window[0], window[1] // CELL, CELL, window[2] // CELL, CELL).mean(dim=(2, 4))
    in_cells = (box[0], *(slice(part.start // CELL, part.stop // CELL) for part in box[1:]))
    cells[:, *in_cells] += (features * coarse).half()


def _read_window(net: TissueUNet, patch: np.ndarray, device: str) -> tuple[torch.Tensor, torch.Tensor]:
    from DiffSegLungLib.representation.features import precision

    fast = precision(device) == "bfloat16"
    values = torch.from_numpy(np.ascontiguousarray(patch, np.float32))[None, None].to(device)
    with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=fast):
        outputs = net(values.to(memory_format=torch.channels_last_3d))
    return outputs.tissues[0].float().softmax(0).cpu(), outputs.features[0].float().cpu()


def _along(side: int, largest: int, grain: int) -> tuple[int, list[int]]:
    """The narrowest windows, of the fewest that cover a side: their width and where each starts."""
    overlap = int(largest * OVERLAP)
    count = max(math.ceil((side - overlap) / (largest - overlap)), 1)
    width = math.ceil((side + (count - 1) * overlap) / count / grain) * grain
    width = min(width, largest)
    last = max(math.ceil((side - width) / CELL), 0)
    return width, [round(last * number / max(count - 1, 1)) * CELL for number in range(count)]


def _box(corner: Triple, window: Triple) -> tuple[slice, ...]:
    return tuple(slice(first, first + size) for first, size in zip(corner, window, strict=True))


def fade(window: Triple) -> np.ndarray:
    """Weight of each voxel of a window: 1 in its middle, little at its border; float32."""
    weight = np.ones(window, np.float32)
    for axis, size in enumerate(window):
        place = np.arange(size)
        ramp = np.minimum(place + 1, size - place) / (size * FADE)
        shape = [1, 1, 1]
        shape[axis] = size
        weight *= np.clip(ramp, LEAST_WEIGHT, 1).reshape(shape)
    return weight
