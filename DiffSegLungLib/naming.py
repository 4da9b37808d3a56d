"""Names: which tissue density and texture speak for, and how far a voxel's own density bears a name out.

The rule guides the fit of the reference mixture, whose components then carry its names; a voxel's own density
weighs them, so that a boundary in HU is not blurred by the width of a Gaussian.  Both use the patient's level of
inflation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from DiffSegLungLib.tissues import (
    BY_LABEL,
    CONSOLIDATION,
    EMPHYSEMA,
    FIBROSIS,
    GROUND_GLASS,
    HEALTHY,
    HounsfieldPrior,
)

NAMED = (HEALTHY, EMPHYSEMA, GROUND_GLASS, FIBROSIS, CONSOLIDATION)
"""Tissues that a component can be; cavities and vessels are told by shape, not by a component."""


@dataclass(frozen=True)
class NamingRule:
    """The rule, stored with every result.

    Attributes:
        reference_hu: density of healthy lung at full inspiration, of which the tissue table's priors speak.
        largest_shift: how far in HU a patient's level of inflation may move the bounds of healthy lung.
        emphysema_below: density in HU under which lung is emphysema.
        aerated_below: density in HU under which it is healthy, at full inspiration.
        dense_above: density in HU above which it is consolidation.
        lines_above: mean rise of fine lines, log(1 + HU / 20), above which raised density may be fibrosis.
        holes_above: the same for the holes between them: fibrosis has both, ground glass neither.
        floor: smallest share of a tissue in what a component may be, so that density can overrule a name.
    """

    reference_hu: float = -860.0
    largest_shift: float = 90.0
    emphysema_below: float = -940.0
    aerated_below: float = -740.0
    dense_above: float = -300.0
    lines_above: float = 1.3
    holes_above: float = 1.55
    floor: float = 0.02

    def stored(self) -> dict[str, float]:
        """The rule as plain numbers."""
        return asdict(self)


def inflation_shift(density: np.ndarray, rule: NamingRule) -> float:
    """How much denser than the reference the patient's best aerated lung is, in HU.

    Args:
        density: HU of the parenchyma's voxels, any shape.
        rule: the naming rule.

    Returns:
        The mode of the aerated voxels less the reference, within ``largest_shift`` above and 0 below: a
        hyperinflated lung must not make -950 HU normal.
    """
    aerated = density[(density > -960) & (density < -620)]
    if aerated.size < 100:
        return 0.0
    counts, edges = np.histogram(aerated, bins=np.arange(-960, -619, 10))
    smooth = np.convolve(counts, np.ones(5), mode="same")
    mode = edges[int(smooth.argmax())] + 5.0
    return float(np.clip(mode - rule.reference_hu, 0.0, rule.largest_shift))


def name_by_rule(descriptors: np.ndarray, rule: NamingRule, shift: float = 0.0) -> np.ndarray:
    """The tissue that density and texture speak for: the guide of the reference mixture.

    Args:
        descriptors: (n, dimensions) whose first four are the fine descriptors of ``features``.
        rule: the naming rule.
        shift: what :func:`inflation_shift` gave for the patient the descriptors come from.

    Returns:
        uint8 (n,), each one of ``NAMED``.
    """
    density, _, lines, holes = descriptors[:, :4].T
    density = density * 100.0
    fibrotic = (lines > rule.lines_above) & (holes > rule.holes_above)
    raised = np.where(fibrotic, FIBROSIS, GROUND_GLASS)
    labels = np.where(density < rule.aerated_below + shift, HEALTHY, raised)
    labels = np.where(density < rule.emphysema_below, EMPHYSEMA, labels)
    return np.where(density > rule.dense_above, CONSOLIDATION, labels).astype(np.uint8)


def log_density_prior(density: np.ndarray, shift: float) -> np.ndarray:
    """Log of how plausible each of ``NAMED`` is at a voxel's density.

    Args:
        density: HU, (voxels,).
        shift: what :func:`inflation_shift` gave.

    Returns:
        float32 (voxels, tissues in the order of ``NAMED``), between the log of a small floor and 0.
    """
    columns = [_log_plausible(density, _shifted(label, shift)) for label in NAMED]
    return np.stack(columns, axis=1).astype(np.float32)


def _shifted(label: int, shift: float) -> HounsfieldPrior:
    """Move the border between healthy and raised density with the inflation; the others are absolute."""
    prior = BY_LABEL[label].prior
    if label == HEALTHY:
        return HounsfieldPrior(prior.low, prior.high + shift, prior.softness)
    if label in (GROUND_GLASS, FIBROSIS):
        return HounsfieldPrior(prior.low + shift, prior.high, prior.softness)
    return prior


def _log_plausible(density: np.ndarray, prior: HounsfieldPrior) -> np.ndarray:
    """Log of a box with logistic flanks (``softness`` is the logistic's scale)."""
    rise = np.logaddexp(0, -(density - prior.low) / prior.softness)
    fall = np.logaddexp(0, (density - prior.high) / prior.softness)
    return -np.minimum(rise + fall, 12.0)


def tissue_posterior(
    log_densities: np.ndarray,
    weights: np.ndarray,
    labels: np.ndarray,
    log_prior: np.ndarray,
    rule: NamingRule,
    sharpness: float,
) -> np.ndarray:
    """Posterior of the tissues: components gathered by name, weighed by the voxel's own density.

    Args:
        log_densities: (voxels, components), from the mixture.
        weights: (components,).
        labels: (components,), the tissue of each component.
        log_prior: (voxels, tissues), from :func:`log_density_prior`.
        rule: the naming rule.
        sharpness: exponent on the mixture's likelihood, at most 1; neighbouring descriptors share voxels, so
            taking them as independent evidence would be over-confident.

    Returns:
        float32 (voxels, tissues in the order of ``NAMED``).
    """
    score = sharpness * (log_densities + np.log(np.maximum(weights, 1e-9)))
    score -= score.max(axis=1, keepdims=True)
    component = np.exp(score)
    gathered = np.stack([component[:, labels == label].sum(axis=1) for label in NAMED], axis=1)
    gathered /= gathered.sum(axis=1, keepdims=True)
    posterior = (gathered + rule.floor) * np.exp(log_prior)
    return (posterior / posterior.sum(axis=1, keepdims=True)).astype(np.float32)
