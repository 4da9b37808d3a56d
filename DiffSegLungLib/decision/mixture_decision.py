"""Decided by the mixture: descriptors, the patient's components, names, fusion and regions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from DiffSegLungLib.decision.fusion import edge_map, fuse, keep_ratio, keep_share
from DiffSegLungLib.decision.label_map import Tissues
from DiffSegLungLib.decision.lucent_regions import drop_marginal_lucencies, find_lumens, grow_holes
from DiffSegLungLib.decision.mixture import Mixture, adapt
from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.decision.naming import (
    NAMED,
    emphysema_bound,
    healthy_density,
    hole_edge,
    lines_kept,
    log_density_prior,
    net_of_lines,
    share_by_texture,
    tissue_posterior,
)
from DiffSegLungLib.decision.raised_regions import (
    agree_on_texture,
    drop_bronchovascular_bundles,
    drop_small_or_superficial,
    part_rims,
)
from DiffSegLungLib.decision.regions import likeliest
from DiffSegLungLib.parallel import run_all
from DiffSegLungLib.parenchyma.cavities import cavity_walls, find_cavities
from DiffSegLungLib.parenchyma.grid import Grid
from DiffSegLungLib.parenchyma.vessels import Parenchyma
from DiffSegLungLib.progress import Progress
from DiffSegLungLib.representation.diffusion import DOWNSAMPLING
from DiffSegLungLib.representation.features import DESCRIPTORS, embed, fine_descriptors, upsample_cells
from DiffSegLungLib.representation.quality import Quality
from DiffSegLungLib.stages import STAGES, Clock
from DiffSegLungLib.tissues import CONSOLIDATION, EMPHYSEMA, HEALTHY

LINES = DESCRIPTORS.index("lines_5mm")
SLAB = 16
"""Slices whose descriptors are up-sampled at a time; bounds the memory of the mixture stage."""
SAMPLE = 60_000
"""Voxels of the patient that the mixture is adapted on."""


def decide_by_mixture(
    model: Model, grid: Grid, parenchyma: Parenchyma, seed: int, effort: Quality, clock: Clock
) -> Tissues:
    """Descriptors, the patient's mixture, names, fusion and rules."""
    with clock.stage("features", 0.3):
        fine = fine_descriptors(grid.hu, grid.mask, parenchyma, grid.spacing)
        cells = _embed(model, grid, seed, effort, clock.progress)
    with clock.stage("mixture", 0.65):
        tissues, _ = classify(model, grid, parenchyma, fine, cells, seed)
    with clock.stage("fusion", 0.75):
        return refine(model, grid, parenchyma, fine, tissues)


def _embed(model: Model, grid: Grid, seed: int, quality: Quality, progress: Progress) -> np.ndarray:
    device = next(model.student.parameters()).device.type
    stride = quality.stride(model.plan.window, model.plan.stride, DOWNSAMPLING)
    return embed(
        model.student,
        grid.hu,
        grid.mask,
        model.projection,
        replace(model.plan, stride=stride),
        seed,
        device,
        lambda fraction: progress("features", 0.3 + 0.35 * fraction, STAGES["features"]),
        quality.draws,
    )


def classify(
    model: Model, grid: Grid, parenchyma: Parenchyma, fine: np.ndarray, cells: np.ndarray, seed: int
) -> tuple[Tissues, np.ndarray]:
    """Posterior of the tissues by the patient's own mixture; the healthy lung's HU by row."""
    mask = grid.mask
    usable = mask & ~parenchyma.vessels
    healthy = healthy_density(parenchyma.density, usable, grid.spacing, model.rule)
    net = net_of_lines(fine[LINES], parenchyma.density, mask, grid.spacing, model.rule)
    net /= np.float32(lines_kept(grid.grain, model.rule))
    sample, level = _sample(usable, fine, cells, healthy, seed)
    prior = log_density_prior(100.0 * sample[:, 0], level, model.rule)
    patient = adapt(model.mixture, sample, prior[:, [NAMED.index(label) for label in model.labels]])
    posterior = np.zeros((len(NAMED), *mask.shape), np.float32)

    def decide(rows: slice) -> None:
        inside = mask[rows]
        points = descriptors_of(fine, cells, mask, rows)[:, inside].T
        density = parenchyma.density[rows][inside]
        expected = np.broadcast_to(healthy[:, None], inside.shape)[inside]
        posterior[:, rows][:, inside] = _posterior(
            model, patient, points, density, expected, net[rows][inside]
        ).T

    # The fusion asks for the nearest lung voxels; they are found beside the slabs, as the cavities are.
    enclosed = partial(find_cavities, grid.hu, mask, grid.airways, grid.spacing)
    tasks: list[Callable[[], Any]] = [enclosed, lambda: grid.nearest]
    tasks += [partial(decide, rows) for rows in _slabs(mask)]
    cavities: np.ndarray = run_all(tasks)[0]
    walls = cavity_walls(cavities, grid.hu, mask, grid.spacing)
    posterior[:, walls] = (np.array(NAMED) == CONSOLIDATION)[:, None]
    return Tissues(posterior, parenchyma.vessels & ~cavities & ~walls, cavities, healthy), healthy


def descriptors_of(fine: np.ndarray, cells: np.ndarray, mask: np.ndarray, rows: slice) -> np.ndarray:
    """Fine descriptors beside the up-sampled embedding for some slices: (dimensions, rows, y, x)."""
    shape = (mask.shape[0], mask.shape[1], mask.shape[2])
    return np.concatenate([fine[:, rows], upsample_cells(cells, shape, rows)])


def _slabs(mask: np.ndarray) -> list[slice]:
    """Some slices at a time, those without any of the mask left out."""
    slabs = [slice(first, min(first + SLAB, len(mask))) for first in range(0, len(mask), SLAB)]
    return [rows for rows in slabs if mask[rows].any()]


def _sample(
    mask: np.ndarray, fine: np.ndarray, cells: np.ndarray, healthy: np.ndarray, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Descriptors of voxels drawn evenly from the lungs, (points, dimensions), and the healthy HU at each."""
    chance = min(SAMPLE / max(int(mask.sum()), 1), 1.0)
    chosen = mask & (np.random.default_rng(seed).random(mask.shape, np.float32) < chance)

    def drawn(rows: slice) -> np.ndarray:
        return descriptors_of(fine, cells, mask, rows)[:, chosen[rows]].T

    points = np.concatenate(run_all([partial(drawn, rows) for rows in _slabs(chosen)]))
    return points, healthy[np.nonzero(chosen)[1]]


def _posterior(
    model: Model,
    patient: Mixture,
    points: np.ndarray,
    density: np.ndarray,
    healthy: np.ndarray,
    net: np.ndarray,
) -> np.ndarray:
    prior = log_density_prior(density, healthy, model.rule)
    exponents = np.ones(points.shape[1])
    exponents[len(DESCRIPTORS) :] = model.rule.embedding_share
    densities = patient.log_densities(points, next(model.student.parameters()).device.type, exponents)
    posterior = tissue_posterior(densities, patient.weights, model.labels, prior, model.rule, model.sharpness)
    return share_by_texture(posterior, net, model.rule)


def refine(model: Model, grid: Grid, parenchyma: Parenchyma, fine: np.ndarray, tissues: Tissues) -> Tissues:
    """Sobel-Diffusion Fusion of the posteriors; cavities and vessels in aerated lung keep their outlines."""
    edges = edge_map(parenchyma.density, fine[1:], grid.mask, grid.spacing, model.fusion, grid.nearest)
    fused = fuse(tissues.posterior, edges, grid.mask, model.fusion)
    fused = keep_share(fused, tissues.posterior, NAMED.index(CONSOLIDATION))
    fused = keep_ratio(fused, tissues.posterior, (NAMED.index(EMPHYSEMA), NAMED.index(HEALTHY)))
    refined = drop_bronchovascular_bundles(
        fused, NAMED, tissues.vessels, grid.mask, grid.spacing, model.regions
    )
    refined = drop_small_or_superficial(refined, NAMED, grid.mask, grid.spacing, grid.slice_mm, model.regions)
    refined = agree_on_texture(refined, NAMED, grid.mask, grid.spacing, model.regions)
    refined = part_rims(refined, NAMED, grid.hu, grid.mask, grid.spacing, model.regions)
    bound = emphysema_bound(tissues.healthy, model.rule)[:, None]
    refined = drop_marginal_lucencies(
        refined, NAMED, parenchyma.density, bound, grid.mask, grid.spacing, model.regions
    )
    edge = hole_edge(tissues.healthy)[:, None]
    refined = grow_holes(refined, NAMED, grid.hu, edge, grid.mask, grid.spacing, model.regions)
    # Within diseased tissue a line is part of the disease: a reticulum, an air bronchogram's wall.
    best = likeliest(refined)
    aerated = (best == NAMED.index(HEALTHY)) | (best == NAMED.index(EMPHYSEMA))
    lumens = find_lumens(refined, NAMED, tissues.vessels, grid.mask, grid.spacing, model.regions)
    return Tissues(refined, (tissues.vessels & aerated) | lumens, tissues.cavities, tissues.healthy)
