"""Disease that takes most of both lungs, spread into a real CT: are the lungs held, and has it its name?

Such lungs mislead what is read off the patient: the density of healthy lung, the patient's own mixture, and
what is air or lung at all.  Lesions of ``lesions`` are too small to show that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from scipy import ndimage

from DiffSegLungLib.evaluation.hosts import Host, HostFile, load_host
from DiffSegLungLib.pipeline import segment
from DiffSegLungLib.tissues import BY_LABEL, CONSOLIDATION, EMPHYSEMA, GROUND_GLASS, VESSEL

EDGE_MM = 1.5
"""Deviation of the Gaussian over which a spread begins."""


@dataclass(frozen=True)
class Spread:
    """A tissue that takes the lowest part of both lungs.

    Attributes:
        label: of the tissue.
        extent: share of the lungs that it takes, from the base or the back.
        filled: share of each voxel of parenchyma that is something else now.
        hu: of that.
        dorsal: from the back on, else from the base.
    """

    label: int
    extent: float
    filled: float
    hu: float
    dorsal: bool = False

    @property
    def name(self) -> str:
        """Such as ``ground-glass, 90 % from the base, 30 % filled``."""
        end = "back" if self.dorsal else "base"
        share = f"{100 * self.extent:.0f} % from the {end}"
        return f"{BY_LABEL[self.label].key}, {share}, {100 * self.filled:.0f} % filled"


SPREADS = (
    Spread(GROUND_GLASS, 0.6, 0.3, 20.0),
    Spread(GROUND_GLASS, 0.95, 0.3, 20.0),
    Spread(EMPHYSEMA, 0.5, 0.85, -990.0),
    Spread(EMPHYSEMA, 0.95, 0.85, -990.0),
    Spread(CONSOLIDATION, 0.2, 1.0, 40.0, dorsal=True),
    Spread(CONSOLIDATION, 0.35, 1.0, 40.0, dorsal=True),
)


def score(host: HostFile, seed: int, data: Path, model: str | None) -> dict[str, Any]:
    """Segment a host with each spread.

    Returns:
        ``name`` and ``spreads``: a row each with ``spread``, ``ml``, and the shares of it that our lungs hold
        (``held``) and that have its name (``named``), and of the other lung that has it too (``elsewhere``).
    """
    healthy = load_host(host, data)
    rows = [_score_spread(healthy, spread, seed, model) for spread in SPREADS]
    return {"name": host.name, "seed": seed, "spreads": rows}


def _score_spread(host: Host, spread: Spread, seed: int, model: str | None) -> dict[str, Any]:
    hu, where = painted(host, spread, seed)
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing([float(step) for step in host.spacing[::-1]])
    labels = segment(image, model=model, device="cpu").label_array
    tissue = np.where(labels == VESSEL, 0, labels)
    elsewhere = (host.sides > 0) & ~where & (tissue > 0)
    # A vessel that is left out of the parenchyma is no miss, but dense lung that passes for one is.
    judged = where & ((labels != VESSEL) | (spread.label == CONSOLIDATION))
    return {
        "spread": spread.name,
        "ml": float(where.sum() * np.prod(host.spacing) / 1000.0),
        "held": float((labels[where] > 0).mean()),
        "named": float((tissue[judged] == spread.label).mean()),
        "elsewhere": float((tissue[elsewhere] == spread.label).mean()) if elsewhere.any() else 0.0,
    }


def painted(host: Host, spread: Spread, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """HU with a spread, float32, and where it is, bool; its border and what fills it are uneven.

    Args:
        host: a CT from ``hosts``.
        spread: what takes the lungs, and how far.
        seed: of its border and of its unevenness.
    """
    lung, spacing = host.sides > 0, np.array(host.spacing)
    rng = np.random.default_rng((seed, 83))
    axis = 1 if spread.dorsal else 0
    places = np.flatnonzero(lung.any(axis=tuple({0, 1, 2} - {axis})))
    along = (np.arange(lung.shape[axis]) - places[0]) / (places[-1] - places[0])
    field = np.expand_dims(1 - along if spread.dorsal else along, tuple({0, 1, 2} - {axis}))
    field = field + 0.1 * _noise(rng, lung.shape, 12.0 / spacing)
    where = lung & (field < np.quantile(field[lung], spread.extent))
    edge = ndimage.gaussian_filter(where.astype(np.float32), EDGE_MM / spacing) * lung
    filled = np.clip(spread.filled + 0.05 * _noise(rng, lung.shape, 4.0 / spacing), 0.05, 1.0)
    share = edge * filled
    if spread.label != CONSOLIDATION:  # which alone hides the vessels
        share *= 1 - host.vessels
    return (host.hu * (1 - share) + spread.hu * share).astype(np.float32), where


def _noise(rng: np.random.Generator, shape: tuple[int, ...], sigma: np.ndarray) -> np.ndarray:
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)
    return np.asarray(noise / noise.std())


def by_spread(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each spread the least share held, the mean share named and the mean share elsewhere."""
    result = {}
    for spread in SPREADS:
        found = [one for row in rows for one in row["spreads"] if one["spread"] == spread.name]
        if found:
            result[spread.name] = {
                "hosts": len(found),
                "held_least": min(one["held"] for one in found),
                "named": float(np.mean([one["named"] for one in found])),
                "elsewhere": float(np.mean([one["elsewhere"] for one in found])),
            }
    return result
