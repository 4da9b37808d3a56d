"""Emphysema: holes in the middle of lobules, lobules thinned out whole, cysts and bullae under the pleura."""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.evaluation.painted.canvas import Canvas, name
from DiffSegLungLib.evaluation.painted.consolidation import lobed
from DiffSegLungLib.evaluation.painted.ground_glass import crescent, roughness, side_at
from DiffSegLungLib.evaluation.painted.shapes import (
    balls,
    cysts,
    grow_lobules,
    packed,
    points_of,
    scattered,
    value_at,
)
from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import cover
from DiffSegLungLib.tissues import EMPHYSEMA

AIR_HU = -990.0
SHARP_MM = 0.35


def centrilobular(canvas: Canvas) -> None:
    """Holes without walls of 3 to 10 mm, most in the upper lungs, two that lie close run together."""
    for side, site, box in canvas.lungs(200):
        rng = site.random(40)
        inside = points_of(site, site.pleura > 3.0)
        centres = scattered(inside[rng.permutation(len(inside))[:150_000]], 6.0, rng)
        up = (centres[:, 0] - site.grid.z[0]) / np.ptp(site.grid.z)
        thick = 0.6 + 0.4 * value_at(site, site.noise(28.0, 70), centres)
        shown = rng.random(len(centres)) < np.clip(1.4 * (up - 0.3), 0.0, 0.75) * np.clip(thick, 0.0, 1.3)
        radii = rng.gamma(7.0, 0.42, int(shown.sum())).clip(1.5, 5.0)
        holes = balls(site.grid, centres[shown], radii) + 0.7 * site.noise(3.5, 71)
        _thin_out(site, np.maximum(holes, 1.0 - site.pleura), 0.93, 0.9)
        canvas.lay(site, box, side)


def _thin_out(site: Site, region: np.ndarray, lost: float, edge: float) -> None:
    """Let air take the place of tissue between the vessels."""
    site.paint(cover(region, edge) * lost * (1.0 - 0.9 * site.vessels), AIR_HU)
    name(site, (region < 0) & (site.vessels < 0.5), EMPHYSEMA)


def panlobular(canvas: Canvas) -> None:
    """Lobules thinned out whole and evenly, most in the lower lungs, their vessels few."""
    pleura = canvas.host.pleura
    places = canvas.places((pleura > 8) & (canvas.height() < 0.6) & (canvas.host.mediastinum > 8), 7, 62.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 56.0, 200 + number)
        lobules = grow_lobules(site, 13.0, 72)
        taken = lobules.cluster(np.zeros(3), int(rng.integers(18, 45)), rng)
        lost = lobules.spread(
            np.where(taken, np.clip(rng.normal(0.84, 0.05, lobules.count), 0.7, 0.96), 0.84)
        )
        share = cover(lobules.border(taken) + roughness(site, 0.6, 4.0, 73), 1.0)
        site.paint(share * lost * (1.0 - 0.65 * site.vessels), AIR_HU)
        name(site, share > 0.5, EMPHYSEMA)
        canvas.lay(site, box, side_at(canvas, place))


def paraseptal(canvas: Canvas) -> None:
    """Rows of cysts under the pleura with walls between them, and bullae with hairline walls at the apex."""
    pleura, costal = canvas.host.pleura, canvas.costal()
    places = canvas.places(costal & (pleura < 2.5) & (canvas.height() > 0.35), 7, 50.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 58.0, 200 + number)
        _row(site, rng)
        canvas.lay(site, box, side_at(canvas, place))
    bullae = canvas.places(costal & (pleura > 7) & (pleura < 14) & (canvas.height() > 0.45), 4, 60.0, 2)
    for number, place in enumerate(bullae):
        rng = canvas.random(150 + number)
        radius = rng.uniform(12, 24)
        site, box = canvas.site(place, 1.6 * radius + 6.0, 300 + number)
        _bulla(site, radius, rng)
        canvas.lay(site, box, side_at(canvas, place))


def _row(site: Site, rng: np.random.Generator) -> None:
    layer = crescent(site, rng, (9.0, 15.0), int(rng.integers(3, 7)))
    inside = points_of(site, (layer < -2) & (site.pleura > 3.0))
    if len(inside) < 20:
        return
    centres, sizes = packed(inside, rng.uniform(3.0, 6.5, 90), rng, 0.95)
    wall = np.clip(0.7 + 0.2 * site.noise(4.0, 74), 0.4, 1.3)
    lumen = np.maximum(cysts(site, layer < 3.0, centres, sizes, wall), 0.5 - site.pleura)
    shell = lumen - 0.7
    site.paint(cover(shell, SHARP_MM) * (lumen < 8.0) * 0.45, 0.0)
    site.paint(cover(lumen, SHARP_MM), AIR_HU)
    name(site, lumen < 0.35, EMPHYSEMA)


def _bulla(site: Site, radius: float, rng: np.random.Generator) -> None:
    body = np.maximum(lobed(site, radius, rng), 0.4 - site.pleura)
    site.paint(cover(body - 0.7, SHARP_MM) * 0.55, 0.0)
    site.paint(cover(body, SHARP_MM), AIR_HU)
    name(site, body < 0, EMPHYSEMA)


def all_over(canvas: Canvas) -> None:
    """Both lungs thinned out, each lobule by its own share."""
    for side, site, box in canvas.lungs(200):
        rng = site.random(40)
        lobules = grow_lobules(site, 12.0, 72)
        lost = np.clip(rng.normal(0.78, 0.1, lobules.count), 0.55, 0.96)
        site.paint(lobules.spread(lost) * (1.0 - 0.7 * site.vessels), AIR_HU)
        name(site, np.ones(site.grid.shape, bool), EMPHYSEMA)
        canvas.lay(site, box, side)
