"""The reference mixture against scipy and scikit-learn, its guided fit and its adaptation to a patient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.mixture import GaussianMixture

from DiffSegLungLib.decision.mixture import (
    BLOCK,
    LEAST_POINTS,
    Mixture,
    Projection,
    adapt,
    fit_mixture,
    fit_projection,
    softmax,
)
from Testing.bench.plain import _log_densities as plain_log_densities


def random_mixture(components: int = 4, dimensions: int = 5, seed: int = 0) -> Mixture:
    random = np.random.default_rng(seed)
    factors = random.normal(size=(components, dimensions, dimensions))
    covariances = factors @ factors.transpose(0, 2, 1) + 0.3 * np.eye(dimensions)
    weights = random.dirichlet(np.ones(components))
    return Mixture(weights, random.normal(scale=3, size=(components, dimensions)), covariances)


def blobs(means: list[tuple[float, float]], count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return np.concatenate([random.normal(mean, 0.5, (count, 2)) for mean in means])


def test_log_densities_equal_scipy() -> None:
    mixture = random_mixture()
    points = np.random.default_rng(1).normal(scale=2, size=(BLOCK + 50, 5))  # more than one block
    expected = np.stack(
        [
            multivariate_normal(mean, covariance).logpdf(points)
            for mean, covariance in zip(mixture.means, mixture.covariances, strict=True)
        ],
        axis=1,
    )
    densities = mixture.log_densities(points)
    assert densities.dtype == np.float32 and densities.shape == expected.shape
    assert densities == pytest.approx(expected, rel=1e-4, abs=1e-4)


def test_an_exponent_counts_dimensions_given_those_before_them() -> None:
    mixture = random_mixture()
    points = np.random.default_rng(1).normal(scale=2, size=(50, 5))
    fine = Mixture(mixture.weights, mixture.means[:, :3], mixture.covariances[:, :3, :3])
    marginal, both = fine.log_densities(points[:, :3]), mixture.log_densities(points)
    for share in (0.0, 0.25, 1.0):
        exponents = np.array([1, 1, 1, share, share])
        expected = marginal + share * (both - marginal)
        for way in (Mixture.log_densities, plain_log_densities):
            assert way(mixture, points, "cpu", exponents) == pytest.approx(expected, rel=1e-3, abs=1e-3)


def test_log_densities_hold_at_the_scale_of_the_descriptors() -> None:
    """Densities are HU / 100: means near -9 and deviations of a tenth, in 32 bits."""
    mixture = Mixture(
        np.array([1.0]), np.array([[-9.5, -8.6, 1.2, 1.4]]), np.diag([0.01, 0.01, 0.02, 0.02])[None]
    )
    points = mixture.means + np.random.default_rng(0).normal(0, 0.1, (500, 4))
    expected = multivariate_normal(mixture.means[0], mixture.covariances[0]).logpdf(points)
    assert mixture.log_densities(points)[:, 0] == pytest.approx(expected, abs=1e-3)


def test_the_posterior_equals_scikit_learn() -> None:
    points = blobs([(0, 0), (3, 1), (-2, 4)], 300)
    reference = GaussianMixture(3, random_state=0).fit(points)
    mixture = Mixture(reference.weights_, reference.means_, reference.covariances_)
    assert mixture.posterior(points) == pytest.approx(reference.predict_proba(points), abs=1e-4)


def test_a_point_far_from_every_component_still_has_a_posterior() -> None:
    posterior = random_mixture().posterior(np.full((3, 5), 1e3))
    assert np.isfinite(posterior).all()
    assert posterior.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_softmax_stands_large_scores() -> None:
    assert softmax(np.array([[1000.0, 1000.0, -1000.0]])) == pytest.approx(np.array([[0.5, 0.5, 0.0]]))


def test_adaptation_empties_what_nobody_populates() -> None:
    reference = Mixture(
        np.array([0.4, 0.3, 0.3]), np.array([[0.0, 0.0], [6.0, 0.0], [0.0, 9.0]]), np.stack([np.eye(2)] * 3)
    )
    patient = adapt(reference, blobs([(0.5, 0.2)], 20_000))
    assert patient.weights[1:].max() < 0.01 and patient.weights[0] > 0.98
    assert patient.means[1:] == pytest.approx(reference.means[1:], abs=0.02)
    assert patient.means[0] == pytest.approx([0.5, 0.2], abs=0.1)
    assert patient.weights.sum() == pytest.approx(1, abs=1e-6)
    assert np.array_equal(patient.covariances, reference.covariances)


def test_what_fills_the_lung_cannot_re_define_its_neighbour() -> None:
    """Guided by density, points beyond the bound between two components leave the other one's mean alone."""
    reference = Mixture(np.array([0.9, 0.1]), np.array([[0.0, 0.0], [4.0, 0.0]]), np.stack([np.eye(2)] * 2))
    points = blobs([(2.4, 0.0)], 20_000)
    beyond = points[:, :1] > 2.0
    guide = np.where(beyond, [[-12.0, 0.0]], [[0.0, -12.0]])
    blind, guided = adapt(reference, points), adapt(reference, points, guide)
    assert blind.means[0, 0] > 1.9 and guided.means[0, 0] < 1.5
    assert guided.weights[1] == pytest.approx(beyond.mean(), abs=0.03)


def test_adaptation_moves_means_by_how_much_tissue_there_is() -> None:
    reference = Mixture(np.array([1.0]), np.zeros((1, 2)), np.eye(2)[None])
    moved = [
        float(adapt(reference, blobs([(1.0, 0.0)], count)).means[0, 0]) for count in (20, 2_000, 200_000)
    ]
    assert moved[0] < 0.05
    assert moved[1] == pytest.approx(0.5, abs=0.05)
    assert moved[2] == pytest.approx(1.0, abs=0.05)


def test_adaptation_to_the_cohort_itself_changes_little() -> None:
    reference = Mixture(
        np.array([0.7, 0.3]), np.array([[0.0, 0.0], [8.0, 0.0]]), np.stack([0.25 * np.eye(2)] * 2)
    )
    points = np.concatenate([blobs([(0, 0)], 7_000), blobs([(8, 0)], 3_000, seed=1)])
    patient = adapt(reference, points)
    assert patient.weights == pytest.approx(reference.weights, abs=0.01)
    assert patient.means == pytest.approx(reference.means, abs=0.03)
    assert reference.means[1, 0] == 8.0, "the reference itself must not change"


def test_every_group_gets_its_components_and_the_same_weight() -> None:
    points = np.concatenate([blobs([(0, 0), (2, 0)], 2_000), blobs([(5, 5)], 300)])
    groups = np.repeat([1, 5], [4_000, 300]).astype(np.uint8)
    mixture, owners = fit_mixture(points, groups, components=3)
    assert owners.dtype == np.uint8 and owners.tolist() == [1, 1, 1, 5]
    assert mixture.weights[owners == 1].sum() == pytest.approx(0.5)
    assert mixture.weights[owners == 5].sum() == pytest.approx(0.5)
    assert mixture.means[3] == pytest.approx([5, 5], abs=0.15)
    assert mixture.posterior(np.array([[5.0, 5.0]]))[0, 3] > 0.99


def test_a_group_too_small_for_a_covariance_gets_none() -> None:
    points = np.concatenate([blobs([(0, 0)], 1_000), blobs([(5, 5)], LEAST_POINTS - 1)])
    groups = np.repeat([1, 2], [1_000, LEAST_POINTS - 1])
    assert set(fit_mixture(points, groups, components=2)[1]) == {1}


def test_the_fit_is_determined_by_its_seed() -> None:
    points, groups = blobs([(0, 0), (2, 0), (1, 2)], 500), np.ones(1_500, int)
    first, second = (fit_mixture(points, groups, 3, seed=4)[0] for _ in range(2))
    assert np.array_equal(first.means, second.means)
    assert np.array_equal(first.covariances, second.covariances)


def correlated(count: int = 5_000) -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.normal(size=(count, 4)) @ random.normal(size=(4, 12)) + 3.0).astype(np.float32)


def test_the_projection_is_whitened() -> None:
    embeddings = correlated()
    projected = fit_projection(embeddings, 3, np.eye(12))(torch.from_numpy(embeddings)).numpy()
    assert projected.shape == (5_000, 3)
    assert projected.mean(axis=0) == pytest.approx(0, abs=1e-3)
    assert np.cov(projected.T) == pytest.approx(np.eye(3), abs=1e-2)


def test_the_projection_keeps_what_varies_most() -> None:
    embeddings = correlated()
    projection = fit_projection(embeddings, 4, np.eye(12))
    projected = projection(torch.from_numpy(embeddings)).numpy()
    # Four components made the data, so four channels hold all of it: least squares finds it again.
    centred = embeddings - embeddings.mean(axis=0)
    found = projected @ np.linalg.lstsq(projected, centred, rcond=None)[0]
    assert found == pytest.approx(centred, abs=1e-2)


def test_the_projection_keeps_what_tells_the_radiomics_however_little_it_varies() -> None:
    random = np.random.default_rng(0)
    embeddings = random.normal(size=(2_000, 6)) * [100, 80, 60, 1, 1, 1]
    told = np.zeros((6, 3))
    told[3:] = random.normal(size=(3, 3))
    projection = fit_projection(embeddings, 3, told)
    assert np.abs(projection.matrix[:3]).max() == 0, "the scanners' noise"
    assert np.linalg.matrix_rank(projection.matrix[3:]) == 3


def test_without_a_teacher_the_projection_is_that_of_the_standardised_embedding() -> None:
    random = np.random.default_rng(0)
    shared = random.normal(size=(4_000, 1))
    embeddings = random.normal(size=(4_000, 6)) * 0.1
    embeddings[:, 1:4] += shared * [1, 1, 1]
    embeddings *= [1000, 1, 1, 1, 1, 0]  # the largest numbers are not what varies together; one is constant
    projection = fit_projection(embeddings, 2)
    projected = projection(torch.from_numpy(embeddings.astype(np.float32))).numpy()
    assert abs(np.corrcoef(projected[:, 0], shared[:, 0])[0, 1]) > 0.99
    assert np.cov(projected.T) == pytest.approx(np.eye(2), abs=1e-2)


def test_a_constant_channel_does_not_divide_by_zero() -> None:
    embeddings = correlated()
    embeddings[:, 5] = 1.0
    projection = fit_projection(embeddings, 3, np.eye(12))
    assert np.isfinite(projection.matrix).all() and projection.matrix.dtype == np.float32
    assert isinstance(projection, Projection)
