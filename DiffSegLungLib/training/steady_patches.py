"""Painted patches by number: a number is always the same patch, so that a resumed run goes on exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset

from DiffSegLungLib.training.painted_patches import PaintPatch, cut, middle_of, mirrored
from DiffSegLungLib.training.painting_hosts import PaintingHost

OPEN_HOSTS = 4
"""Held in memory at a time, of about 110 MB each: a researcher may have a hundred CT."""
ROUND = 64
"""Patches that are cut of these before others take their place."""
WITHIN_ROUND = 1
"""Marks the random numbers of a round among those of its patches."""


class SteadyPatches(Dataset[tuple[torch.Tensor, torch.Tensor]]):
    """(HU float32 (1, z, y, x), labels int64 (z, y, x)) of a number, painted at random.

    Args:
        files: of the hosts.
        painter: paints a patch.
        shape: of a patch, (z, y, x) in voxels.
        seed: of everything.
    """

    def __init__(
        self, files: Sequence[Path], painter: PaintPatch, shape: tuple[int, int, int], seed: int
    ) -> None:
        self.files, self.painter, self.shape, self.seed = sorted(files), painter, shape, seed
        self._round = -1
        self._open: dict[Path, tuple[PaintingHost, np.ndarray]] = {}

    def __getitem__(self, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Paint a patch."""
        rng = np.random.default_rng((self.seed, number))
        hu, labels = mirrored(*self.painter(self.draw(number, rng), rng), rng)
        return torch.from_numpy(hu.astype(np.float32))[None], torch.from_numpy(labels.astype(np.int64))

    def draw(self, number: int, rng: np.random.Generator) -> PaintingHost:
        """The patch of a host before it is painted."""
        self._turn_to(number // ROUND)
        hosts = list(self._open.values())
        host, inside = hosts[int(rng.integers(len(hosts)))]
        return cut(host, middle_of(host.hu.shape, inside, self.shape, rng), self.shape)

    def _turn_to(self, number: int) -> None:
        """Open the hosts of a round; those that stay are not read again."""
        if number == self._round:
            return
        rng = np.random.default_rng((self.seed, number, WITHIN_ROUND))
        chosen = rng.permutation(len(self.files))[:OPEN_HOSTS]
        wanted = [self.files[int(index)] for index in chosen]
        kept = self._open
        self._open = {file: kept[file] if file in kept else _opened(file) for file in wanted}
        self._round = number


def _opened(file: Path) -> tuple[PaintingHost, np.ndarray]:
    """A host, and the flat indices of its lungs."""
    host = PaintingHost.open(file)
    return host, np.flatnonzero(host.lungs)
