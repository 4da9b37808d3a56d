"""Patches of hosts with disease painted into them, without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from DiffSegLungLib.training.painting_hosts import PaintingHost

IN_LUNGS = 0.85
"""Share of the patches whose middle lies in or near lung; the others teach what lies outside."""
AIR_HU = -1024
FLIPS = (0.3, 0.15, 0.5)
"""How often a patch is mirrored along (z, y, x)."""
LEFT_OUT = 255

PaintPatch = Callable[[PaintingHost, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Paints disease into a patch of a host: HU and labels, 255 where the loss leaves a voxel out."""


class PaintedPatches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """(HU float32 (1, z, y, x), labels int64 (z, y, x)) drawn and painted at random.

    Args:
        folder: of the hosts, ``*.npz`` as ``PaintingHost.save`` writes them.
        painter: paints a patch.
        shape: of a patch, (z, y, x) in voxels.
        seed: a worker's number is added.
    """

    def __init__(self, folder: Path, painter: PaintPatch, shape: tuple[int, int, int], seed: int) -> None:
        self.files, self.painter, self.shape, self.seed = sorted(folder.glob("*.npz")), painter, shape, seed

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        torch.set_num_threads(1)
        hosts = [PaintingHost.open(file) for file in self.files]
        inside = [np.flatnonzero(host.lungs) for host in hosts]
        while True:
            number = int(rng.integers(len(hosts)))
            patch = cut(hosts[number], middle_of(hosts[number], inside[number], self.shape, rng), self.shape)
            hu, labels = mirrored(*self.painter(patch, rng), rng)
            yield torch.from_numpy(hu.astype(np.float32))[None], torch.from_numpy(labels.astype(np.int64))


def middle_of(
    host: PaintingHost, inside: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator
) -> list[int]:
    """The middle of a patch: in lung, moved by up to a quarter of its sides, or anywhere."""
    if rng.random() < IN_LUNGS:
        place = np.unravel_index(inside[rng.integers(len(inside))], host.hu.shape)
    else:
        place = tuple(rng.integers(side) for side in host.hu.shape)
    return [int(at + rng.integers(-side // 4, side // 4 + 1)) for at, side in zip(place, shape, strict=True)]


def cut(host: PaintingHost, middle: list[int], shape: tuple[int, int, int]) -> PaintingHost:
    """A patch of a host; what lies beyond the host is air."""
    first = [
        int(np.clip(at - size // 2, 0, max(side - size, 0)))
        for at, size, side in zip(middle, shape, host.hu.shape, strict=True)
    ]
    box = tuple(slice(low, low + size) for low, size in zip(first, shape, strict=True))
    parts = []
    for values in vars(host).values():
        part = values[box]
        padding = [(0, size - side) for size, side in zip(shape, part.shape, strict=True)]
        parts.append(np.pad(part, padding, constant_values=AIR_HU if part.dtype == np.int16 else False))
    return PaintingHost(*parts)


def mirrored(hu: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both mirrored alike, along axes drawn at random."""
    axes = tuple(axis for axis, chance in enumerate(FLIPS) if rng.random() < chance)
    return np.ascontiguousarray(np.flip(hu, axes)), np.ascontiguousarray(np.flip(labels, axes))
