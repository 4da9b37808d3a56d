"""What a model says of a lung without disease: the guard against drift while it is fine-tuned."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from DiffSegLungLib.features import embed, fine_descriptors
from DiffSegLungLib.lungs import segment_lungs
from DiffSegLungLib.models import Model
from DiffSegLungLib.models.student import Student
from DiffSegLungLib.naming import NAMED
from DiffSegLungLib.phantom import make_phantom, phantom_image
from DiffSegLungLib.pipeline import Grid, classify, refine, working_grid
from DiffSegLungLib.tissues import HEALTHY
from DiffSegLungLib.vessels import Parenchyma, separate_vessels
from DiffSegLungLib.volume import load_volume

PHANTOM_MM = (2.0, 1.5, 1.5)
SLAB_MM = 48.0
"""Height of the part of the lungs that is looked at: enough to judge, small enough to do it often."""


class HealthyLung:
    """A slab through the lungs of the phantom without lesions, ready to be classified again and again.

    Args:
        model: the base model; its mixture and rules judge every student.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        side = max(model.spacing, 1.0)
        spacing = (max(PHANTOM_MM[0], side), max(PHANTOM_MM[1], side), max(PHANTOM_MM[2], side))
        volume = load_volume(phantom_image(make_phantom(spacing, lesions=())))
        grid = working_grid(volume, segment_lungs(volume.hu, volume.spacing), model.spacing)
        parenchyma = separate_vessels(grid.hu, grid.sides, grid.airways, grid.spacing)
        fine = fine_descriptors(grid.hu, grid.mask, parenchyma, grid.spacing)
        rows = _slab(grid)
        self.grid = replace(grid, hu=grid.hu[rows], sides=grid.sides[rows], airways=grid.airways[rows])
        self.parenchyma = Parenchyma(
            parenchyma.vessels[rows], parenchyma.lines[rows], parenchyma.density[rows]
        )
        self.fine = np.ascontiguousarray(fine[:, rows])

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


def _slab(grid: Grid) -> slice:
    """The rows with most lung."""
    height = max(round(SLAB_MM / grid.spacing), 1)
    areas = grid.mask.sum(axis=(1, 2)).astype(float)
    sums = np.convolve(areas, np.ones(min(height, len(areas))), mode="valid")
    first = int(sums.argmax())
    return slice(first, first + height)
