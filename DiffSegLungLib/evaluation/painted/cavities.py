"""Cavities: alone in healthy lung, and where consolidation has melted."""

from __future__ import annotations

from functools import partial, reduce

import numpy as np

from DiffSegLungLib.evaluation.painted.canvas import Canvas, name
from DiffSegLungLib.evaluation.painted.consolidation import SOFT_HU, infiltrate, lobed, solid
from DiffSegLungLib.evaluation.painted.ground_glass import side_at
from DiffSegLungLib.evaluation.painted.shapes import balls
from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import cover, join
from DiffSegLungLib.tissues import CAVITY

AIR_HU, FLUID_HU = -985.0, 12.0
SHARP_MM = 0.35


def _hollow(site: Site, lumen: np.ndarray, level: float | None) -> None:
    """Air in a lumen; fluid, if any, lies below ``level`` (mm behind its middle), since the patient lies."""
    site.paint(cover(lumen, SHARP_MM), FLUID_HU)
    surface = site.grid.axes[1] - np.float32(1000.0 if level is None else level)
    gas = np.maximum(lumen, surface)
    site.paint(cover(gas, SHARP_MM), AIR_HU)
    name(site, gas < 0, CAVITY)


def alone(canvas: Canvas) -> None:
    """Cavities with walls of 1.5 to 8 mm, uneven in thickness, in lung that is healthy up to them."""
    pleura = canvas.host.pleura
    places = canvas.places((pleura > 9) & (canvas.host.mediastinum > 8), 11, 48.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        radius = 5.0 + 13.0 * number / max(len(places) - 1, 1)
        wall = float(np.clip(rng.uniform(0.12, 0.42) * radius, 1.5, 7.0))
        site, box = canvas.site(place, 1.7 * radius + 10.0, 200 + number)
        outer = lobed(site, radius, rng)
        thickness = wall * np.clip(1.0 + 0.25 * site.noise(0.8 * radius, 60), 0.6, 1.7)
        solid(site, outer, SOFT_HU, 0.45)
        _hollow(
            site, np.maximum(outer + thickness, 1.5 - site.pleura), 0.35 * radius if number % 4 == 3 else None
        )
        canvas.lay(site, box, side_at(canvas, place))


def in_consolidation(canvas: Canvas) -> None:
    """Consolidated lobules, melted in one or several places with ragged edges."""
    pleura = canvas.host.pleura
    places = canvas.places((pleura > 8) & (canvas.host.mediastinum > 10), 7, 62.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 44.0, 200 + number)
        region = infiltrate(site, rng, 10.0, int(rng.integers(22, 55)))
        solid(site, region, rng.uniform(25, 50))
        lumen = np.maximum(_melted(site, rng), np.maximum(region + 1.0, 1.5 - site.pleura))
        _hollow(site, lumen, 4.0 if number % 3 == 2 else None)
        canvas.lay(site, box, side_at(canvas, place))


def _melted(site: Site, rng: np.random.Generator) -> np.ndarray:
    holes = [
        balls(site.grid, rng.normal(0, 5.0, (1, 3)), rng.uniform(4.0, 9.5, 1), 12.0)
        for _ in range(int(rng.integers(2, 5)))
    ]
    return reduce(partial(join, radius=3.0), holes) + 0.7 * site.noise(3.5, 61)
