"""Patches of hosts with disease painted into them, without end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from DiffSegLungLib.densities import LOWEST_HU
from DiffSegLungLib.training.painting_hosts import PaintingHost
from DiffSegLungLib.training.phantom_hosts import PREFIX, PhantomHost

IN_LUNGS = 0.85
"""Share of the patches whose middle lies in or near lung; the others teach what lies outside."""
FLIPS = (0.3, 0.15, 0.5)
"""How often a patch is mirrored along (z, y, x)."""
LEFT_OUT = 255
PHANTOMS = 0.06
"""Share of the patches that are cut from phantoms, where there are any."""
SHELF = 48
"""Painted patches that wait to be seen again: painting one costs as much as learning from it."""

Host = TypeVar("Host", PaintingHost, PhantomHost)
PaintPatch = Callable[[PaintingHost, np.random.Generator], tuple[np.ndarray, np.ndarray]]
"""Paints disease into a patch of a host: HU and labels, 255 where the loss leaves a voxel out."""


class PaintedPatches(IterableDataset[tuple[torch.Tensor, torch.Tensor]]):
    """(HU float32 (1, z, y, x), labels int64 (z, y, x)) drawn and painted at random.

    Args:
        folder: of the hosts, ``*.npz`` as ``PaintingHost.save`` writes them.
        painter: paints a patch.
        shape: of a patch, (z, y, x) in voxels.
        seed: a worker's number is added.
        twice: whether each is seen twice (data echoing, arXiv 1907.05550).
    """

    def __init__(
        self,
        folder: Path,
        painter: PaintPatch,
        shape: tuple[int, int, int],
        seed: int,
        twice: bool = False,
    ) -> None:
        files = sorted(folder.glob("*.npz"))
        self.phantoms = [file for file in files if file.name.startswith(PREFIX)]
        self.files = [file for file in files if file not in self.phantoms]
        self.painter, self.shape, self.seed, self.twice = painter, shape, seed, twice

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        worker = get_worker_info()
        rng = np.random.default_rng((self.seed, worker.id if worker else 0))
        torch.set_num_threads(1)
        for patch in self._each_twice(rng) if self.twice else self._painted(rng):
            hu, labels = mirrored(*patch, rng)
            yield torch.from_numpy(hu.astype(np.float32))[None], torch.from_numpy(labels.astype(np.int64))

    def _painted(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        hosts = [PaintingHost.open(file) for file in self.files]
        inside = [np.flatnonzero(host.lungs) for host in hosts]
        phantoms = [PhantomHost.open(file) for file in self.phantoms]
        known = [np.flatnonzero(phantom.labels) for phantom in phantoms]
        while True:
            if phantoms and rng.random() < PHANTOMS:
                number = int(rng.integers(len(phantoms)))
                patch = cut(phantoms[number], *self._where(phantoms[number], known[number], rng))
                yield patch.hu, patch.labels
            number = int(rng.integers(len(hosts)))
            yield self.painter(cut(hosts[number], *self._where(hosts[number], inside[number], rng)), rng)

    def _where(
        self, host: PaintingHost | PhantomHost, inside: np.ndarray, rng: np.random.Generator
    ) -> tuple[list[int], tuple[int, int, int]]:
        return middle_of(host.hu.shape, inside, self.shape, rng), self.shape

    def _each_twice(self, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Each patch when it was painted and, mirrored otherwise, once more when others have been seen."""
        shelf: list[tuple[np.ndarray, np.ndarray]] = []
        for patch in self._painted(rng):
            yield patch
            if len(shelf) == SHELF:
                yield shelf.pop(int(rng.integers(SHELF)))
            shelf.append(patch)


def middle_of(
    sides: tuple[int, ...], inside: np.ndarray, shape: tuple[int, int, int], rng: np.random.Generator
) -> list[int]:
    """The middle of a patch: in lung, moved by up to a quarter of its sides, or anywhere."""
    if rng.random() < IN_LUNGS:
        place = np.unravel_index(inside[rng.integers(len(inside))], sides)
    else:
        place = tuple(rng.integers(side) for side in sides)
    return [int(at + rng.integers(-side // 4, side // 4 + 1)) for at, side in zip(place, shape, strict=True)]


def cut(host: Host, middle: list[int], shape: tuple[int, int, int]) -> Host:
    """A patch of a host; what lies beyond the host is air outside the lungs."""
    first = [
        int(np.clip(at - size // 2, 0, max(side - size, 0)))
        for at, size, side in zip(middle, shape, host.hu.shape, strict=True)
    ]
    box = tuple(slice(low, low + size) for low, size in zip(first, shape, strict=True))
    parts = []
    for values in vars(host).values():
        part = values[box]
        padding = [(0, size - side) for size, side in zip(shape, part.shape, strict=True)]
        parts.append(np.pad(part, padding, constant_values=LOWEST_HU if part.dtype == np.int16 else False))
    return type(host)(*parts)


def mirrored(hu: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Both mirrored alike, along axes drawn at random."""
    axes = tuple(axis for axis, chance in enumerate(FLIPS) if rng.random() < chance)
    return np.ascontiguousarray(np.flip(hu, axes)), np.ascontiguousarray(np.flip(labels, axes))
