"""A CT as the fit of the mixture takes it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.lungs.lungs import segment_lungs
from DiffSegLungLib.parenchyma.grid import Grid, working_grid
from DiffSegLungLib.parenchyma.vessels import Parenchyma, separate_vessels
from DiffSegLungLib.representation.features import fine_descriptors


def prepare_for_fit(path: Path, model_spacing: float) -> tuple[Grid, Parenchyma, np.ndarray]:
    """Grid, parenchyma and fine descriptors of one CT as :func:`segment` makes them (for the fit)."""
    volume = load_volume(path)
    grid = working_grid(volume, segment_lungs(volume.hu, volume.spacing), model_spacing)
    parenchyma = separate_vessels(grid.hu, grid.sides, grid.airways, grid.spacing)
    return grid, parenchyma, fine_descriptors(grid.hu, grid.mask, parenchyma, grid.spacing)
