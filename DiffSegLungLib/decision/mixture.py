"""The reference mixture: fitted once on the training cohort, adapted to each patient.

A mixture fitted to one patient finds as many tissues as it has components, in a healthy lung too.  Here the
components are fixed by the cohort; a patient moves weights and, a little, means, so that a component which
nobody populates stays empty.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

LEAST_POINTS = 200
"""Points that a component needs for a full covariance."""

BLOCK, GPU_BLOCK = 4096, 262144
"""Voxels a block of the posterior: large enough for the matrix product, small enough for a processor's cache,
or for a graphics card's memory."""


@dataclass(frozen=True)
class Projection:
    """Standardisation and principal components of the embedding, as one affine map.

    Attributes:
        mean: float32 (inputs,).
        matrix: float32 (inputs, channels); whitened, so that channels have unit variance.
    """

    mean: np.ndarray
    matrix: np.ndarray

    def __call__(self, embedding: torch.Tensor) -> torch.Tensor:
        """Project (..., inputs) to (..., channels)."""
        return (embedding - torch.from_numpy(self.mean)) @ torch.from_numpy(self.matrix)


@dataclass(frozen=True)
class Mixture:
    """A Gaussian mixture with full covariances.

    Attributes:
        weights: float64 (components,), sum 1.
        means: float64 (components, dimensions).
        covariances: float64 (components, dimensions, dimensions).
    """

    weights: np.ndarray
    means: np.ndarray
    covariances: np.ndarray

    def log_densities(
        self, points: np.ndarray, device: str = "cpu", exponents: np.ndarray | None = None
    ) -> np.ndarray:
        """Log of each component's density at each point, without its weight: float32 (points, components).

        One matrix product with the inverse Cholesky factors gives all Mahalanobis distances of a block.

        Args:
            points: (points, dimensions).
            device: of torch.
            exponents: how much each dimension counts beside those before it, (dimensions,); all of it
                without.  The factors are triangular, so each row is a dimension given those before it.
        """
        components, dimensions = self.means.shape
        counted = np.ones(dimensions) if exponents is None else np.asarray(exponents, float)
        whiten = np.linalg.inv(np.linalg.cholesky(self.covariances))
        offset = torch.from_numpy(np.einsum("kij,kj->ki", whiten, self.means)[..., None]).float().to(device)
        factors = torch.from_numpy(whiten).float().to(device)
        logs = np.log(np.einsum("kii->ki", whiten)) - 0.5 * np.log(2 * np.pi)
        constant = (logs * counted).sum(1)
        roots = torch.from_numpy(np.sqrt(counted)[None, :, None]).float().to(device)
        offset, factors = offset * roots, factors * roots
        # The factors are triangular: their upper half needs but half of the dimensions.
        half = dimensions // 2
        parts = [slice(0, half), slice(half, dimensions)] if half else [slice(0, dimensions)]
        result = np.empty((len(points), components), np.float32)
        size = BLOCK if device == "cpu" else GPU_BLOCK
        for first in range(0, len(points), size):
            # Voxels last: the sum over dimensions then runs over whole rows.
            rows_of_voxels = np.ascontiguousarray(points[first : first + size].T, dtype=np.float32)
            block = torch.from_numpy(rows_of_voxels).to(device)
            distance = torch.zeros((components, block.shape[1]), device=device)
            for rows in parts:
                matrix = factors[:, rows, : rows.stop].reshape(-1, rows.stop)
                white = (
                    (matrix @ block[: rows.stop]).view(components, -1, block.shape[1]).sub_(offset[:, rows])
                )
                distance += white.square_().sum(1)
            result[first : first + size] = distance.mul_(-0.5).cpu().numpy().T + constant.astype(np.float32)
        return result

    def posterior(self, points: np.ndarray, guide: np.ndarray | None = None) -> np.ndarray:
        """Posterior probability of each component at each point, float32 (points, components).

        Args:
            points: (points, dimensions).
            guide: log of a prior of each component at each point, (points, components).
        """
        scores = self.log_densities(points) + np.log(np.maximum(self.weights, 1e-12))
        return softmax(scores if guide is None else scores + guide)


def softmax(scores: np.ndarray) -> np.ndarray:
    """Softmax along the last axis."""
    return torch.softmax(torch.from_numpy(np.asarray(scores, dtype=np.float32)), dim=-1).numpy()


def fit_projection(embeddings: np.ndarray, channels: int, told: np.ndarray | None = None) -> Projection:
    """Whitened principal components of the radiomics that the embedding tells.

    What varies most in an embedding is the noise of each scanner; the teacher's numbers are of tissue.

    Args:
        embeddings: (cells, inputs).
        channels: how many components are kept.
        told: the linear map from an embedding to the teacher's numbers, (inputs, numbers); without it, as
            after a training without distillation, the components are those of the standardised embedding.
    """
    from sklearn.decomposition import PCA

    if told is None:
        told = np.diag(1.0 / np.maximum(embeddings.std(axis=0), 1e-6))
    components = PCA(channels, whiten=True, random_state=0).fit(embeddings @ told)
    matrix = told @ components.components_.T / np.sqrt(components.explained_variance_)
    return Projection(embeddings.mean(0).astype(np.float32), matrix.astype(np.float32))


def fit_mixture(
    points: np.ndarray, groups: np.ndarray, components: int, seed: int = 0
) -> tuple[Mixture, np.ndarray]:
    """Fit the reference mixture, guided by density: EM (scikit-learn) within each group of points.

    Without the guide, components straddle the bounds between tissues wherever the bound is a matter of
    density and most of the variance lies elsewhere; emphysema then has no component of its own.

    Args:
        points: (points, dimensions), sampled so that rare tissue is as present as common tissue.
        groups: (points,), the tissue that density and texture speak for.
        components: Gaussians a group, fewer where a group has few points.
        seed: of the starts.

    Returns:
        The mixture, each group with the same total weight, and the group of each component.
    """
    from sklearn.mixture import GaussianMixture

    parts, owners = [], []
    present = [group for group in np.unique(groups) if (groups == group).sum() >= LEAST_POINTS]
    for group in present:
        own = points[groups == group]
        count = max(min(components, len(own) // LEAST_POINTS), 1)
        parts.append(GaussianMixture(count, reg_covar=1e-2, random_state=seed, max_iter=60).fit(own))
        owners.append(np.full(count, group))
    mixture = Mixture(
        np.concatenate([part.weights_ for part in parts]) / len(parts),
        np.concatenate([part.means_ for part in parts]),
        np.concatenate([part.covariances_ for part in parts]),
    )
    return mixture, np.concatenate(owners).astype(np.uint8)


def adapt(
    reference: Mixture,
    points: np.ndarray,
    guide: np.ndarray | None = None,
    relevance: float = 2000.0,
    prior: float = 0.02,
    rounds: int = 3,
) -> Mixture:
    """Adapt weights and means to one patient by MAP (Reynolds et al. 2000, equations 11 to 13).

    Covariances stay: a patient with little of a tissue cannot re-define it.  Nor can one with much: without
    the guide, a lung that is emphysematous all over draws the means of healthy lung to its own density.

    Args:
        reference: the cohort's mixture.
        points: descriptors of a sample of the patient's voxels, (points, dimensions).
        guide: log of how plausible each component is at the density of each point, (points, components).
        relevance: voxels at which a component's mean lies half way between cohort and patient.
        prior: strength of the reference weights as a share of the sample.
        rounds: EM rounds.

    Returns:
        The patient's mixture, same components in the same order.
    """
    mixture = reference
    for _ in range(rounds):
        posterior = mixture.posterior(points, guide).astype(np.float64)
        count = posterior.sum(0)
        share = (count / relevance) / (1 + count / relevance)
        own = posterior.T @ points / np.maximum(count, 1e-9)[:, None]
        means = share[:, None] * own + (1 - share[:, None]) * reference.means
        weights = (count + prior * len(points) * reference.weights) / ((1 + prior) * len(points))
        mixture = replace(mixture, weights=weights, means=means)
    return mixture
