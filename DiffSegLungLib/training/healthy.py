"""What a model says of a lung without disease: the guard against drift while it is fine-tuned."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np

from DiffSegLungLib.decision.mixture_decision import classify, refine
from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.decision.naming import NAMED
from DiffSegLungLib.io.volume import load_volume
from DiffSegLungLib.lungs.lungs import lungs_from_mask
from DiffSegLungLib.parenchyma.grid import Grid, working_grid
from DiffSegLungLib.parenchyma.vessels import Parenchyma, separate_vessels
from DiffSegLungLib.phantom import make_phantom, phantom_image
from DiffSegLungLib.representation.features import embed, fine_descriptors
from DiffSegLungLib.representation.student import Student
from DiffSegLungLib.tissues import HEALTHY

PHANTOM_MM = (2.0, 1.5, 1.5)
SLAB_MM = 48.0
"""Height of the part of the lungs that is looked at: enough to judge, small enough to do it often."""


class HealthyLung:
    """A slab through the lungs of the phantom without lesions, ready to be classified again and again.

    Args:
        model: whose mixture and rules judge every student.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self.grid, self.parenchyma, self.fine = _slab(model.spacing)

    def diseased_percent(self, student: Student) -> float:
        """Percent of the healthy parenchyma that is called diseased on this student's features."""
        model = replace(self.model, student=student.eval())
        device = next(student.parameters()).device.type
        cells = embed(student, self.grid.hu, self.grid.mask, model.projection, model.plan, device=device)
        tissues, _ = classify(model, self.grid, self.parenchyma, self.fine, cells, seed=0)
        refined = refine(model, self.grid, self.parenchyma, self.fine, tissues)
        usable = self.grid.mask & ~refined.vessels
        labels = np.array(NAMED)[refined.posterior.argmax(axis=0)]
        return 100.0 * float((labels[usable] != HEALTHY).mean())


@cache
def _slab(side: float) -> tuple[Grid, Parenchyma, np.ndarray]:
    """Grid, parenchyma and fine descriptors of the rows with most lung, at a voxel side in mm."""
    spacing = (max(PHANTOM_MM[0], side), max(PHANTOM_MM[1], side), max(PHANTOM_MM[2], side))
    phantom = make_phantom(spacing, lesions=())
    volume = load_volume(phantom_image(phantom))
    lungs = lungs_from_mask(phantom.truth > 0, volume.hu, volume.spacing)
    grid = _rows_with_most_lung(working_grid(volume, lungs, side))
    parenchyma = separate_vessels(grid.hu, grid.sides, grid.airways, grid.spacing)
    return grid, parenchyma, fine_descriptors(grid.hu, grid.mask, parenchyma, grid.spacing)


def _rows_with_most_lung(grid: Grid) -> Grid:
    areas = grid.mask.sum(axis=(1, 2)).astype(float)
    height = min(max(round(SLAB_MM / grid.spacing), 1), len(areas))
    first = int(np.convolve(areas, np.ones(height), mode="valid").argmax())
    rows = slice(first, first + height)
    return replace(grid, hu=grid.hu[rows], sides=grid.sides[rows], airways=grid.airways[rows])
