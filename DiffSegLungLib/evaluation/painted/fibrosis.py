"""Fibrosis: thin rims of reticulation, foci with bronchi pulled open, honeycombing."""

from __future__ import annotations

import numpy as np

from DiffSegLungLib.evaluation.painted.canvas import Canvas, name
from DiffSegLungLib.evaluation.painted.ground_glass import crescent, side_at
from DiffSegLungLib.evaluation.painted.shapes import (
    Disc,
    Strand,
    bronchi,
    cysts,
    discs,
    inward,
    lenses,
    packed,
    points_of,
    scattered,
    strands,
    value_at,
)
from DiffSegLungLib.evaluation.site import Site
from DiffSegLungLib.phantom.grid import cover
from DiffSegLungLib.tissues import FIBROSIS

FIBRE_HU = 20.0
SPARSE = -0.2
"""Where an uneven field of unit deviation lies below this, the net has gaps."""
SHARP_MM = 0.3
"""Shapes are drawn this sharp; the host's point spread blurs them afterwards."""


def net(site: Site, region: np.ndarray, gap: float, thickness: tuple[float, float], stream: int) -> None:
    """Septa and fine lines: small bent plates that cross, many of them standing on the pleura; uneven."""
    rng = site.random(stream)
    inside = points_of(site, region < 0)
    if len(inside) < 2:
        return
    centres = scattered(inside, 0.8 * gap, rng)
    crowd = value_at(site, site.noise(9.0, stream + 2), centres)
    centres = centres[crowd + rng.normal(0, 0.7, len(centres)) > SPARSE]
    inner = inward(site, centres)
    normals = np.cross(inner, rng.normal(size=centres.shape))
    bend = 0.12 / gap
    loose = rng.random(len(centres)) < 0.55
    normals[loose] = rng.normal(size=(int(loose.sum()), 3))
    normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
    plates = [
        Disc(
            centre,
            normal,
            rng.uniform(0.6, 1.5) * gap,
            rng.uniform(*thickness) / 2,
            rng.normal(0, bend),
        )
        for centre, normal in zip(centres, normals, strict=True)
    ]
    strength = np.clip(0.75 + 0.25 * site.noise(5.0, stream + 1), 0.25, 1.0)
    lines = cover(discs(site.grid, plates), SHARP_MM) * cover(region - 0.6, 0.8) * strength
    site.paint(lines, FIBRE_HU)


def rims(canvas: Canvas) -> None:
    """A thin layer of reticulation under the whole pleura, broken here and there, 3 to 8 mm deep."""
    host = canvas.host
    surface = canvas.costal() & (host.pleura < 1.5 * max(host.spacing[1], 1.0))
    for side, site, box in canvas.lungs(200):
        rng = site.random(40)
        middle = np.array([(part.start + part.stop - 1) / 2 for part in box])
        points = (np.argwhere(surface & (host.sides == side)) - middle) * np.array(host.spacing)
        centres = scattered(points, 8.0, rng)
        shown = rng.random(len(centres)) < 0.85
        heights = rng.uniform(3.5, 8.5, len(centres)) * shown
        thickness = lenses(site.grid, centres[shown], rng.uniform(10, 15, int(shown.sum())), heights[shown])
        region = np.where(thickness > 0, site.pleura - np.minimum(thickness, 8.0), 3.0) + 0.5 * site.noise(
            4.0, 41
        )
        site.paint(cover(region, 0.8) * np.clip(0.08 + 0.07 * site.noise(5.0, 42), 0.0, 0.4), FIBRE_HU)
        net(site, region, 4.0, (0.5, 1.2), 43)
        name(site, region < 0, FIBROSIS)
        canvas.lay(site, box, side)


def reticulation_with_traction(canvas: Canvas) -> None:
    """Foci of a coarse net at the bases and wherever the pleura is, with beaded wide bronchi in them."""
    pleura, costal = canvas.host.pleura, canvas.costal()
    places = canvas.places(costal & (pleura < 2.5) & (canvas.height() < 0.75), 8, 60.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 62.0, 200 + number)
        region = crescent(site, rng, (16.0, 32.0), int(rng.integers(2, 6))) + 1.2 * site.noise(6.0, 41)
        patchy = np.clip(0.04 + 0.07 * site.noise(7.0, 42), 0.0, 0.5)
        site.paint(cover(region, 1.0) * patchy, FIBRE_HU)
        net(site, region, 6.3, (0.6, 1.6), 43)
        _traction(site, region, rng)
        name(site, region < 0, FIBROSIS)
        canvas.lay(site, box, side_at(canvas, place))


def _traction(site: Site, region: np.ndarray, rng: np.random.Generator) -> None:
    """Bronchi that stay open, thick-walled and beaded, nearly up to the pleura."""
    deep = points_of(site, (region < -1) & (site.pleura > 9) & (site.pleura < 16))
    if not len(deep):
        return
    starts = scattered(deep, 11.0, rng, 8)
    pieces: list[Strand] = []
    for start, inner in zip(starts, inward(site, starts), strict=True):
        way = -inner + rng.normal(0, 0.7, 3)
        pieces += bronchi(start - 5.0 * way, way, rng.uniform(14, 26), rng.uniform(1.6, 2.8), rng, 1)
    lumen = strands(site.grid, pieces) + 0.35 * site.noise(3.0, 45)
    inside = cover(region - 1.0, 1.0)
    site.paint(cover(lumen - 1.1, SHARP_MM) * inside, FIBRE_HU - 40.0)
    site.paint(cover(lumen, SHARP_MM) * inside, -960.0)


def honeycombing(canvas: Canvas) -> None:
    """Cysts of 3 to 10 mm in one to five layers under the pleura that share walls, a net inwards of them."""
    pleura, costal = canvas.host.pleura, canvas.costal()
    places = canvas.places(costal & (pleura < 2.5) & (canvas.height() < 0.7), 7, 60.0, 1)
    for number, place in enumerate(places):
        rng = canvas.random(100 + number)
        site, box = canvas.site(place, 58.0, 200 + number)
        comb = crescent(site, rng, (7.0, 24.0), int(rng.integers(3, 7)))
        around = comb - 4.0 + 1.0 * site.noise(6.0, 41)
        site.paint(cover(around, 1.0) * np.clip(0.1 + 0.07 * site.noise(6.0, 42), 0.0, 0.5), FIBRE_HU)
        net(site, np.maximum(around, 0.5 - comb), 4.8, (0.5, 1.4), 43)
        _comb(site, comb, rng)
        name(site, around < 0, FIBROSIS)
        canvas.lay(site, box, side_at(canvas, place))


def _comb(site: Site, comb: np.ndarray, rng: np.random.Generator) -> None:
    inside = points_of(site, (comb < -0.5) & (site.pleura > 1.2))
    if len(inside) < 50:
        return
    volume = len(inside) * float(np.prod(site.grid.spacing))
    radii = 1.6 + 3.2 * rng.beta(1.4, 2.2, int(volume / 45.0))
    centres, sizes = packed(inside, radii, rng)
    wall = np.clip(1.1 + 0.35 * site.noise(4.0, 46), 0.5, 2.0)
    lumen = cysts(site, comb < 0, centres, sizes, wall)
    lumen = np.maximum(lumen, 0.6 - site.pleura)
    site.paint(cover(comb, SHARP_MM) * (lumen < 8.0), FIBRE_HU - 60.0)
    # Some cysts are filled.
    filled = value_at(site, site.noise(9.0, 47), points_of(site, lumen < 0)) > 1.6
    air = np.full(site.grid.shape, -940.0, np.float32)
    air[lumen < 0] = np.where(filled, -150.0, -940.0)
    site.paint(cover(lumen, SHARP_MM), air)
