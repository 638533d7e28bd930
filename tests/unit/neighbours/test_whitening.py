"""Projections that are fitted on the gallery."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.covariance import ledoit_wolf
from sklearn.decomposition import PCA

from carcls.config import TrialConfig, Whitening
from carcls.neighbours.whitening import Projection, _shrunk_covariance, fit_projection


def toy(seed: int, images: int = 400) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return embeddings whose classes differ in small directions, under large ones that say nothing."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 4, images)
    signal = np.eye(4)[labels] + random.normal(scale=0.25, size=(images, 4))
    noise = random.normal(scale=3, size=(images, 6))
    return np.concatenate([noise, signal], axis=1).astype(np.float32) + 5, labels


def fitted(
    gallery: NDArray[np.float32],
    labels: NDArray[np.int64],
    whitening: Whitening,
    dim: int,
    *,
    l2_normalize: bool = False,
) -> Projection:
    """Return the projection of a trial with these settings."""
    return fit_projection(
        TrialConfig(whitening=whitening, whitening_dim=dim, l2_normalize=l2_normalize), gallery, labels
    )


def test_pca_makes_the_gallery_white() -> None:
    """On the gallery, components have mean 0, variance 1 and no correlation, and span what scikit-learn's PCA spans."""
    gallery, labels = toy(0)
    projected = fitted(gallery, labels, "pca", 5).apply(gallery)
    assert np.allclose(projected.mean(axis=0), 0, atol=1e-3)
    assert np.allclose(np.cov(projected.T), np.eye(5), atol=1e-2)
    reference = PCA(5, whiten=True).fit_transform(gallery.astype(np.float64))
    assert np.allclose(np.abs(projected), np.abs(reference), atol=1e-2)


@pytest.mark.parametrize(("images", "dims"), [(400, 10), (40, 60)])
def test_the_covariance_is_that_of_scikit_learn(images: int, dims: int) -> None:
    """Shrunk as Ledoit and Wolf do, with more images than components and with fewer."""
    random = np.random.default_rng(4)
    residuals = random.normal(size=(images, dims)) @ random.normal(size=(dims, dims))
    expected, _ = ledoit_wolf(residuals, assume_centered=True)
    assert np.allclose(_shrunk_covariance(residuals), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_lda_makes_classes_round() -> None:
    """The shrunk covariance within classes becomes the identity; what is kept is ordered by how it separates them."""
    gallery, labels = toy(5)
    projection = fitted(gallery, labels, "lda", 64)
    assert projection.matrix is not None
    assert projection.matrix.shape == (10, 3)
    means = np.stack([gallery[labels == label].mean(axis=0, dtype=np.float64) for label in range(4)])
    within = projection.matrix.T @ _shrunk_covariance(gallery - means[labels]) @ projection.matrix
    assert np.allclose(within, np.eye(3), atol=1e-4)
    apart = (np.bincount(labels)[:, None] * projection.apply(means.astype(np.float32)) ** 2).sum(axis=0)
    assert np.all(np.diff(apart) < 0)


@pytest.mark.parametrize("whitening", ["pca", "lda"])
def test_components_that_do_not_exist_are_not_made_up(whitening: Whitening) -> None:
    """Fewer images than components, one-image classes and constant columns leave what there really is."""
    random = np.random.default_rng(2)
    gallery = np.zeros((5, 20), np.float32)
    gallery[:, :8] = random.normal(size=(5, 8))
    projection = fitted(gallery, np.array([0, 0, 1, 1, 2]), whitening, 16, l2_normalize=True)
    projected = projection.apply(gallery)
    assert projected.shape[1] <= 4
    assert np.isfinite(projected).all()


@pytest.mark.parametrize("whitening", ["pca", "lda"])
def test_equal_images_are_left_as_they_are(whitening: Whitening) -> None:
    """Where nothing varies there is no direction; the embeddings stay finite."""
    gallery = np.ones((6, 3), np.float32)
    projection = fitted(gallery, np.array([0, 0, 1, 1, 2, 2]), whitening, 2)
    assert (projection.apply(gallery) == gallery).all()


def test_a_zero_stays_zero_when_normalised() -> None:
    """Length 1 for everything that has a direction."""
    gallery = np.array([[0, 0], [3, 4]], np.float32)
    projection = fitted(gallery, np.array([0, 1]), "none", 9, l2_normalize=True)
    assert np.allclose(projection.apply(gallery), [[0, 0], [0.6, 0.8]])
