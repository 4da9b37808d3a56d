"""Decided by the diffusion U-Net: its calibrated posterior, fused with the edges of the CT."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from DiffSegLungLib.decision.by_network import (
    NetworkReading,
    cavities_of,
    dense_beside,
    disease_kept,
    diseased_where_likely,
    shares_of_tissues,
    vessels_of,
)
from DiffSegLungLib.decision.fusion import FusionSettings, diffuse, edge_map
from DiffSegLungLib.decision.label_map import Tissues
from DiffSegLungLib.decision.model import Model
from DiffSegLungLib.decision.naming import NAMED, healthy_density
from DiffSegLungLib.decision.regions import likeliest
from DiffSegLungLib.filters import nearest_inside
from DiffSegLungLib.io.volume import Volume
from DiffSegLungLib.lungs.lungs import Lungs
from DiffSegLungLib.parenchyma.grid import Grid, lung_box
from DiffSegLungLib.parenchyma.vessels import Parenchyma
from DiffSegLungLib.progress import Progress, silent
from DiffSegLungLib.representation.network import TissueNetwork
from DiffSegLungLib.stages import STAGES
from DiffSegLungLib.tissues import CAVITY, HEALTHY

CONTEXT_MM = 36.0
"""Tissue around the lungs that the network sees: lung that collapsed lies there."""
ADDED = (
    "{:.0f} mL of dense tissue beside the lungs was counted as lung, since the network sees airless lung "
    "there; check that it is not effusion or mediastinum"
)


def read_network(
    network: TissueNetwork,
    volume: Volume,
    found: Lungs,
    progress: Progress = silent,
    mirrored: bool = False,
) -> NetworkReading:
    """What the diffusion U-Net says of the lungs and of what lies around them, calibrated."""
    box = lung_box(found.mask, volume.spacing, CONTEXT_MM)
    hu = found.calibration.corrected(volume.hu[box])
    told = partial(_tell_network, progress)
    seen = NetworkReading(network.read(hu, volume.spacing, told, mirrored), box)
    return seen.calibrated(network.temperature, network.bias)


def _tell_network(progress: Progress, share: float) -> None:
    progress("network", 0.15 + 0.35 * share, STAGES["network"])


def with_dense_lung(found: Lungs, seen: NetworkReading, volume: Volume) -> Lungs:
    """The lungs with the airless lung beside them that the network sees; each piece joins the nearer side."""
    hu = volume.hu[seen.box]
    posterior = seen.posterior_on(seen.box, volume.spacing, hu.shape, volume.spacing)
    sides = found.sides.copy()
    inside = sides[seen.box]
    added = dense_beside(inside > 0, posterior, hu, volume.voxel_ml)
    inside[added] = inside.take(nearest_inside(inside > 0))[added]
    told = [ADDED.format(np.count_nonzero(added) * volume.voxel_ml)] if added.any() else []
    return replace(found, sides=sides, warnings=(*found.warnings, *told))


@dataclass(frozen=True)
class Evidence:
    """What decides on the working grid, before anything is decided.

    Attributes:
        posterior: calibrated, of the lung voxels, float32 (classes, voxels).
        edges: float32 (voxels,), of the CT and of the network's classes, for the fusion.
        healthy: float32 (y,), HU of the patient's healthy lung.
        grid: the working grid.
        fusion: the fusion's parameters.
    """

    posterior: np.ndarray
    edges: np.ndarray
    healthy: np.ndarray
    grid: Grid
    fusion: FusionSettings


def evidence_of(
    model: Model, grid: Grid, parenchyma: Parenchyma, seen: NetworkReading, volume: Volume
) -> Evidence:
    """The network's calibrated posterior on the working grid, and the edges of density and of its classes."""
    posterior = seen.posterior_on(grid.box, volume.spacing, grid.hu.shape, (grid.spacing,) * 3)
    classes = posterior[HEALTHY : CAVITY + 1]
    edges = edge_map(parenchyma.density, classes, grid.mask, grid.spacing, model.fusion)
    healthy = healthy_density(parenchyma.density, grid.mask & ~parenchyma.vessels, grid.spacing, model.rule)
    return Evidence(posterior[:, grid.mask], edges[grid.mask], healthy, grid, model.fusion)


def decide_by_network(evidence: Evidence) -> Tissues:
    """The posterior, fused within its edges; disease stays where it is likelier than not."""
    grid, posterior = evidence.grid, evidence.posterior
    mask, everywhere = grid.mask, np.ones(posterior.shape[1], bool)
    shares = shares_of_tissues(posterior, everywhere)
    fused = diffuse(shares, evidence.edges, mask, evidence.fusion)
    likely = diseased_where_likely(fused)
    decided = disease_kept(likely, shares, posterior)
    cavities = cavities_of(posterior, mask, grid.hu, grid.spacing)
    vessels = vessels_of(posterior, everywhere) & (likeliest(decided) == NAMED.index(HEALTHY))
    vessels &= ~cavities[mask]
    stages = {"fusion": (shares, fused), "likely_disease": (fused, likely), "kept_disease": (likely, decided)}
    moved = {name: _moved(before, after) for name, (before, after) in stages.items()}
    moved |= {"cavities": int(np.count_nonzero(cavities)), "vessels": int(np.count_nonzero(vessels))}
    volumes = {name: round(count * grid.spacing**3 / 1000.0, 3) for name, count in moved.items()}
    return Tissues(_on_grid(decided, mask), _on_grid(vessels, mask), cavities, evidence.healthy, volumes)


def _on_grid(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Values of lung voxels, (..., voxels), on the working grid; 0 outside."""
    result = np.zeros((*values.shape[:-1], *mask.shape), values.dtype)
    result[..., mask] = values
    return result


def _moved(before: np.ndarray, after: np.ndarray) -> int:
    """Voxels of lung whose likeliest tissue is another one."""
    return int(np.count_nonzero(likeliest(before) != likeliest(after)))
