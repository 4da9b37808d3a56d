"""Names: which tissue density and texture speak for, and how far a voxel's own density bears a name out.

The rule guides the fit of the reference mixture, whose components then carry its names; a voxel's own
density weighs them, so that a boundary in HU is not blurred by the width of a Gaussian.  Both use the
patient's level of inflation.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from DiffSegLungLib.filters import masked_mean
from DiffSegLungLib.parenchyma.grain import Grain
from DiffSegLungLib.tissues import (
    BY_LABEL,
    CONSOLIDATION,
    EMPHYSEMA,
    FIBROSIS,
    GROUND_GLASS,
    HEALTHY,
)

AERATED_HU = (-960.0, -620.0)
"""Lung that may be healthy at some level of inflation."""
HOLE_HU = -985.0
"""Air in an emphysematous hole, as CT shows it."""
HOLE_EDGE_HU = (-940.0, -880.0)
"""Within which the edge of such a hole is looked for."""
NET_MM = 6.0
"""Deviation of the Gaussian over which a net of lines is judged."""
WELL_KEPT = 0.95
"""Share of the lines' rise from which no reader needs to be told."""
LEAST_KEPT = 0.6
"""Of the rise of lines, whatever the grain: beyond is no scan that the rule was set on."""
LAYERS = 8
LEAST_VOXELS = 500
QUARTILE_TO_MODE_HU = 20.0
"""From the quartile of least density of healthy lung to its mode."""
HEAVIEST_KG = 1.1
"""Of healthy parenchyma without its vessels: 0.4 to 0.9 kg in the ten training CT, of up to 6 litres."""
STEEPEST_HU_PER_MM = 0.9
"""Density that gravity adds from front to back, at most."""

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
        lucent_by: how much less dense than the patient's healthy lung emphysema is, in HU.
        largest_lower_shift: how far in HU that may move the bound of emphysema.
        dense_above: density in HU above which it is consolidation.
        lines_above: mean rise of fine lines, log(1 + HU / 20), above which raised density may be fibrosis.
        holes_above: the same for the holes between them: fibrosis has both, ground glass neither.
        net_above: mean rise of fine lines in the dense tissue around, log(1 + HU / 20), at which raised
            density is as likely fibrosis as ground glass.
        net_softness: over which that changes, the logistic's scale.
        grain_within: correlation of the noise in neighbouring voxels of a slice up to which a kernel takes
            nothing: half way from ten training CT (0.12 to 0.33) to the same smoothed by 0.8 pixels (0.45 to
            0.55).
        lost_softer: share of the lines' rise, by its logarithm, that each unit of correlation beyond takes.
        grain_across: correlation from slice to slice up to which slices take nothing.
        lost_across: share, by its logarithm, that each unit beyond takes.
        embedding_share: exponent on what the diffusion embedding says of a voxel beside density and texture.
        floor: smallest share of a tissue in what a component may be, so that density can overrule a name.
    """

    reference_hu: float = -860.0
    largest_shift: float = 150.0
    emphysema_below: float = -940.0
    aerated_below: float = -740.0
    lucent_by: float = 60.0
    largest_lower_shift: float = 45.0
    dense_above: float = -300.0
    lines_above: float = 1.3
    holes_above: float = 1.55
    floor: float = 0.1
    embedding_share: float = 0.5
    net_above: float = 0.94
    net_softness: float = 0.035
    grain_within: float = 0.4
    lost_softer: float = 2.0
    grain_across: float = 0.8
    lost_across: float = 2.0

    def stored(self) -> dict[str, float]:
        """The rule as plain numbers."""
        return asdict(self)


def healthy_density(density: np.ndarray, usable: np.ndarray, spacing: float, rule: NamingRule) -> np.ndarray:
    """The density of healthy lung in this patient, from front to back.

    Lung in expiration is denser, and denser towards the back of a lying patient.  The level is read off the
    quartile of least density of the aerated voxels in each layer, which disease reaches last; a line is laid
    through the layers.

    Args:
        density: HU of the parenchyma, (z, y, x), y from front to back.
        usable: bool (z, y, x), lung without vessels.
        spacing: voxel side in mm.
        rule: the naming rule.

    Returns:
        float32 (y,), HU; the reference where too little aerated lung is left to tell.
    """
    layers = _layers(np.flatnonzero(usable.any(axis=(0, 2))), LAYERS)
    points = []
    for layer in layers:
        values = density[:, layer][usable[:, layer]]
        values = values[(values > AERATED_HU[0]) & (values < AERATED_HU[1])]
        if values.size >= LEAST_VOXELS:
            points.append(((layer.start + layer.stop) / 2, float(np.percentile(values, 25))))
    if len(points) < 3:
        return np.full(density.shape[1], rule.reference_hu, np.float32)
    slope, level = _gravity_line(np.array(points), spacing)
    healthy = level + slope * np.arange(density.shape[1]) + QUARTILE_TO_MODE_HU
    excess = mean_by_row(healthy, usable) - densest_healthy(usable, spacing, rule)
    return (healthy - max(excess, 0.0)).astype(np.float32)


def mean_by_row(healthy: np.ndarray, usable: np.ndarray) -> float:
    """Mean over the lung of what :func:`healthy_density` says of its rows, HU."""
    return float(np.average(healthy, weights=np.count_nonzero(usable, axis=(0, 2))))


def densest_healthy(usable: np.ndarray, spacing: float, rule: NamingRule) -> float:
    """HU that healthy lung of this size has at the most, in whatever breath.

    Breathing moves air, not tissue: ``HEAVIEST_KG`` in the volume of the parenchyma.  What is denser all over
    holds fluid or cells.

    Args:
        usable: bool (z, y, x), lung without vessels.
        spacing: voxel side in mm.
        rule: the naming rule; its reference is never too dense.
    """
    litres = np.count_nonzero(usable) * spacing**3 / 1e6
    return max(1000.0 * (HEAVIEST_KG / litres - 1.0), rule.reference_hu)


def is_reference(healthy: np.ndarray, rule: NamingRule) -> bool:
    """Whether ``healthy_density`` found too little aerated lung and gave the reference back."""
    return bool((healthy == np.float32(rule.reference_hu)).all())


def upper_shift(healthy: np.ndarray | float, rule: NamingRule) -> np.ndarray:
    """How far the bound between healthy and raised density moves up in lung of this inflation, in HU."""
    return np.clip(np.asarray(healthy) - rule.reference_hu, 0.0, rule.largest_shift)


def lower_shift(healthy: np.ndarray | float, rule: NamingRule) -> np.ndarray:
    """How far the bound of emphysema moves up, in HU.

    In lung that is not fully inflated the walls between the holes are thicker, and so are partial volumes.
    A hyperinflated lung moves nothing: it must not make -950 HU normal, nor healthy lung emphysema.
    """
    lucent = np.asarray(healthy) - rule.lucent_by
    return np.clip(lucent - BY_LABEL[EMPHYSEMA].prior.high, 0.0, rule.largest_lower_shift)


def emphysema_bound(healthy: np.ndarray, rule: NamingRule) -> np.ndarray:
    """HU under which lung is emphysema at the patient's level of inflation."""
    return (BY_LABEL[EMPHYSEMA].prior.high + lower_shift(healthy, rule)).astype(np.float32)


def hole_edge(healthy: np.ndarray) -> np.ndarray:
    """HU half way between the air of a hole and the patient's healthy lung."""
    return np.clip((healthy + HOLE_HU) / 2, *HOLE_EDGE_HU).astype(np.float32)


def _layers(rows: np.ndarray, count: int) -> list[slice]:
    """``count`` layers of equal thickness over the rows that hold lung."""
    edges = np.linspace(rows[0], rows[-1] + 1, count + 1).astype(int) if rows.size else np.zeros(1, int)
    return [slice(int(low), int(high)) for low, high in zip(edges, edges[1:], strict=False)]


def _gravity_line(points: np.ndarray, spacing: float) -> tuple[float, float]:
    """Robust line through (row, HU): slope in HU a row, within what gravity does, and level at row 0."""
    # Theil and Sen's median of the slopes of all pairs; scipy.stats has it, but takes a second to import.
    first, second = np.triu_indices(len(points), 1)
    rows, hu = (points[second] - points[first]).T
    slope = float(np.clip(np.median(hu / rows), 0.0, STEEPEST_HU_PER_MM * spacing))
    return slope, float(np.median(points[:, 1] - slope * points[:, 0]))


def name_by_rule(descriptors: np.ndarray, rule: NamingRule, healthy: np.ndarray | float) -> np.ndarray:
    """The tissue that density and texture speak for: the guide of the reference mixture.

    Args:
        descriptors: (n, dimensions) whose first four are the fine descriptors of ``features``.
        rule: the naming rule.
        healthy: what :func:`healthy_density` gave at each descriptor, (n,), or one number.

    Returns:
        uint8 (n,), each one of ``NAMED``.
    """
    density, _, lines, holes = descriptors[:, :4].T
    density = density * 100.0
    fibrotic = (lines > rule.lines_above) & (holes > rule.holes_above)
    raised = np.where(fibrotic, FIBROSIS, GROUND_GLASS)
    labels = np.where(density < rule.aerated_below + upper_shift(healthy, rule), HEALTHY, raised)
    labels = np.where(density < rule.emphysema_below + lower_shift(healthy, rule), EMPHYSEMA, labels)
    return np.where(density > rule.dense_above, CONSOLIDATION, labels).astype(np.uint8)


def log_density_prior(density: np.ndarray, healthy: np.ndarray | float, rule: NamingRule) -> np.ndarray:
    """Log of how plausible each of ``NAMED`` is at a voxel's density.

    Args:
        density: HU, (voxels,).
        healthy: what :func:`healthy_density` gave, at each voxel, (voxels,) or one number.
        rule: the naming rule.

    Returns:
        float32 (voxels, tissues in the order of ``NAMED``), between the log of a small floor and 0.
    """
    lower, upper, fixed = lower_shift(healthy, rule), upper_shift(healthy, rule), np.zeros(1)
    # Inflation moves the bounds of healthy lung and of what borders on it; the others are absolute.
    shifts = {
        HEALTHY: (lower, upper),
        EMPHYSEMA: (fixed, lower),
        GROUND_GLASS: (upper, fixed),
        FIBROSIS: (upper, fixed),
        CONSOLIDATION: (fixed, fixed),
    }
    columns = [
        _log_plausible(density - shifts[label][0], density - shifts[label][1], label) for label in NAMED
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def net_of_lines(
    lines: np.ndarray, density: np.ndarray, mask: np.ndarray, spacing: float, rule: NamingRule
) -> np.ndarray:
    """How far a net of fine lines runs through the raised tissue around each voxel: regions decide.

    Args:
        lines: rise of fine lines, log(1 + HU / 20), (z, y, x).
        density: HU of the parenchyma, (z, y, x).
        mask: bool (z, y, x), the lungs.
        spacing: voxel side in mm.
        rule: the naming rule.

    Returns:
        float32 (z, y, x).
    """
    raised = mask & (density > rule.aerated_below) & (density < BY_LABEL[CONSOLIDATION].prior.low)
    return masked_mean(lines, raised, NET_MM / spacing)


def lines_kept(grain: Grain | None, rule: NamingRule) -> float:
    """How much of the rise of fine lines kernel and slices leave, against the scans that the rule was set on.

    Args:
        grain: of the scan's noise; None where it is not known, and all is taken as kept.
        rule: the naming rule.
    """
    if grain is None:
        return 1.0
    lost = max(grain.within - rule.grain_within, 0.0) * rule.lost_softer
    lost += max(grain.across - rule.grain_across, 0.0) * rule.lost_across
    return max(float(np.exp(-lost)), LEAST_KEPT)


def blur_warnings(grain: Grain | None, rule: NamingRule) -> list[str]:
    """Tell the reader where kernel or slices take so much of fine lines that fibrosis is hard to see.

    Args:
        grain: of the scan's noise; None where it is not known.
        rule: the naming rule.
    """
    kept = lines_kept(grain, rule)
    if grain is None or kept >= WELL_KEPT:
        return []
    kernel = grain.within - rule.grain_within, f"a soft kernel (its noise correlates by {grain.within:.2f})"
    slices = grain.across - rule.grain_across, f"thick slices (their noise correlates by {grain.across:.2f})"
    cause = " and ".join(cause for excess, cause in (kernel, slices) if excess > 0)
    return [
        f"Fine lines are blurred by {100 * (1 - kept):.0f} % by {cause}: that was allowed for, but ground "
        "glass and fibrosis are told apart less surely."
    ]


def share_by_texture(posterior: np.ndarray, net: np.ndarray, rule: NamingRule) -> np.ndarray:
    """Part what is ground glass or fibrosis by texture: fibrosis is a net of fine lines.

    Only the two exchange posterior: whether lung is healthy is not for the texture to say.

    Args:
        posterior: (voxels, tissues in the order of ``NAMED``).
        net: what :func:`net_of_lines` gave at each voxel over :func:`lines_kept`, (voxels,).
        rule: the naming rule.

    Returns:
        float32, as ``posterior``.
    """
    glass, fibrosis = NAMED.index(GROUND_GLASS), NAMED.index(FIBROSIS)
    evidence = np.clip((net - rule.net_above) / rule.net_softness, -4.0, 4.0)
    raised = posterior[:, glass] + posterior[:, fibrosis]
    netted = posterior[:, fibrosis] * np.exp(evidence)
    result = posterior.astype(np.float32, copy=True)
    result[:, fibrosis] = raised * netted / np.maximum(netted + posterior[:, glass], 1e-12)
    result[:, glass] = raised - result[:, fibrosis]
    return result


def _log_plausible(against_low: np.ndarray, against_high: np.ndarray, label: int) -> np.ndarray:
    """Log of a box with logistic flanks (``softness`` is the logistic's scale)."""
    prior = BY_LABEL[label].prior
    rise = np.logaddexp(0, -(against_low - prior.low) / prior.softness)
    fall = np.logaddexp(0, (against_high - prior.high) / prior.softness)
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
    score = sharpness * (log_densities + np.log(np.maximum(weights, 1e-9)).astype(np.float32))
    # Voxels come last: what is done for each component runs over whole rows.
    score = np.ascontiguousarray(score.T)
    score -= score.max(axis=0)
    component = np.exp(score, out=score)
    belongs = np.stack([labels == label for label in NAMED]).astype(np.float32)
    gathered = belongs @ component
    gathered /= gathered.sum(axis=0)
    posterior = (gathered + np.float32(rule.floor)) * np.exp(log_prior.T)
    posterior /= posterior.sum(axis=0)
    return np.ascontiguousarray(posterior.T, dtype=np.float32)
