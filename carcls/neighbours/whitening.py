"""Projections of embeddings that are fitted on the gallery alone.

Letters: n embeddings, g gallery, d embedding, m kept components.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from carcls.config import TrialConfig

# Of the largest eigenvalue: what is smaller is noise of the arithmetic, and whitening would blow it up.
_LEAST_EIGENVALUE = 1e-6


@dataclass(frozen=True, slots=True)
class Projection:
    """Centre, rotate and scale, then bring to length 1; each part may be absent.

    Attributes:
        mean: float32 [d]; None takes nothing off.
        matrix: float32 [d, m]; None leaves the components.
        l2_normalize: whether results have length 1; a zero stays zero.
    """

    mean: NDArray[np.float32] | None
    matrix: NDArray[np.float32] | None
    l2_normalize: bool

    def apply(self, embeddings: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return projected embeddings, float32 [n, m]."""
        projected = embeddings if self.mean is None else embeddings - self.mean
        if self.matrix is not None:
            projected = projected @ self.matrix
        if not self.l2_normalize:
            return np.ascontiguousarray(projected, np.float32)
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        return np.asarray(np.divide(projected, lengths, out=np.zeros_like(projected), where=lengths > 0), np.float32)


def fit_projection(config: TrialConfig, gallery: NDArray[np.float32], labels: NDArray[np.int64]) -> Projection:
    """Return the projection that the settings ask for, fitted on the gallery and on nothing else.

    ``pca``: the directions of largest variance, each scaled to variance 1 on the gallery; fewer than asked for where
    the gallery spans fewer. ``lda``: the directions that separate the classes best (Fisher 1936), scaled so that the
    covariance within classes, shrunk towards a multiple of the identity (Ledoit and Wolf 2004), is the identity; at
    most c - 1 of c classes. A gallery of one class, of equal images, or (``lda``) of one image a class has no such
    direction: it is left as it is.

    Args:
        config: whose whitening, whitening_dim (at most as many as there are) and l2_normalize are asked for.
        gallery: finite float32 [g, d].
        labels: int64 [g]; used by ``lda`` only.
    """
    plain = Projection(None, None, config.l2_normalize)
    if config.whitening == "none":
        return plain
    wide, dim = gallery.astype(np.float64), config.whitening_dim
    mean = wide.mean(axis=0)
    fitted = _principal(wide - mean, dim) if config.whitening == "pca" else _discriminant(wide - mean, labels, dim)
    return plain if fitted is None else replace(plain, mean=mean.astype(np.float32), matrix=fitted.astype(np.float32))


def _principal(centred: NDArray[np.float64], dim: int) -> NDArray[np.float64] | None:
    if len(centred) < 2 or not np.ptp(centred, axis=0).any():
        return None
    from sklearn.decomposition import PCA  # loads for a second that other trials save

    pca = PCA(min(dim, *centred.shape), svd_solver="covariance_eigh").fit(centred)
    kept = pca.explained_variance_ > _LEAST_EIGENVALUE * pca.explained_variance_[0]
    return np.asarray(pca.components_[kept].T / np.sqrt(pca.explained_variance_[kept]))


def _discriminant(centred: NDArray[np.float64], labels: NDArray[np.int64], dim: int) -> NDArray[np.float64] | None:
    names, places = np.unique(labels, return_inverse=True)
    means = np.stack([centred[places == place].mean(axis=0) for place in range(len(names))])  # [c, d]
    residuals = centred - means[places]
    if len(names) < 2 or not residuals.any():
        return None
    from scipy.linalg import cholesky, solve_triangular, svd  # loads for a tenth of a second that other trials save

    lower = cholesky(_shrunk_covariance(residuals), lower=True)  # [d, d]
    weights = np.sqrt(np.bincount(places) / len(places))[:, None]
    # Where the covariance within classes is the identity, that between them has as few directions as there are classes.
    between = solve_triangular(lower, (weights * means).T, lower=True)  # [d, c]
    directions, lengths, _ = svd(between, full_matrices=False)
    most = min(dim, len(names) - 1)
    kept = directions[:, :most][:, lengths[:most] ** 2 > _LEAST_EIGENVALUE * lengths[0] ** 2]
    return solve_triangular(lower, kept, lower=True, trans="T") if kept.shape[1] else None


def _shrunk_covariance(residuals: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the covariance [d, d] of centred rows [g, d], shrunk towards a multiple of the identity.

    As ``sklearn.covariance.ledoit_wolf`` (Ledoit and Wolf 2004), with one product of that size instead of three. No
    eigenvalue is so small beside the others that it could only be noise.
    """
    count, dims = residuals.shape
    sample = residuals.T @ residuals / count
    size, level = np.square(sample).sum(), np.trace(sample) / dims
    spread = np.square(np.einsum("ij,ij->i", residuals, residuals)).mean()
    apart = size / dims - level**2  # from the identity's multiple
    error = min(max(spread - size, 0.0) / (dims * count), apart)
    shrinkage = error / apart if apart > 0 else 0.0
    shrunk: NDArray[np.float64] = (1 - shrinkage) * sample
    shrunk.flat[:: dims + 1] += max(shrinkage * level, _LEAST_EIGENVALUE * np.sqrt(size))
    return shrunk
