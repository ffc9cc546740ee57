"""Ridge regression of effects on features of the perturbation, linear and by a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, NonNegative, Positive, at_least, register
from harness.models.features import Missing, Source, features_of
from harness.models.residuals import Residuals, ridge_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Prediction, Query, TrainView


@register("ridge")
class Ridge:
    """Ridge regression of a perturbation's effect on its features.

    GenePert (Chen and Zou, bioRxiv 2024) with any features. With x (n_features,) the vector of the
    query, X those of the training perturbations and Y (n, n_genes) what these do beyond the mean
    effect b of a context::

        profile = x̄_c + b_c + Yᵀ (X Xᵀ + λI)⁻¹ X x

    on the log1p scale. λ is `penalty`; None chooses it by leaving each perturbation out. Features
    as in `harness.models.features`; a perturbation without them gets the mean effect, and a note.
    """

    def __init__(
        self,
        *,
        features: Source = "principal-components",
        n_features: Count | None = None,
        penalty: NonNegative | None = None,
        missing: Missing = "error",
    ) -> None:
        self.features = features
        self.n_features = n_features
        self.penalty = penalty
        self.missing = missing

    def fit(self, train: TrainView) -> Self:
        """Solve in closed form."""
        features = features_of(train, self.features, self.n_features)
        self.residuals_ = Residuals(train, features, self.missing)
        vectors = self.residuals_.vectors
        weights, self.penalty_ = ridge_weights(
            vectors @ vectors.T, self.residuals_.values, self.penalty
        )
        self.map_ = weights.T @ vectors  # (n_genes, n_features)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = []
        yield from self.residuals_.answers(queries, lambda x: self.map_ @ x, self.notes_)


@register("kernel-ridge")
class KernelRidge:
    """Kernel ridge regression of a perturbation's effect on its features, by a Gaussian kernel.

    ``profile = x̄_c + b_c + Yᵀ (K + λI)⁻¹ k(x)`` as in `Ridge`, with
    ``k(x, y) = exp(−|x − y|² / 2w²)`` and w = `width` times the median distance of the training
    perturbations: the mean of a Gaussian process (Rasmussen and Williams 2006, section 2.2). What
    is like nothing that was trained on gets the mean effect. `penalty`, `features` and `missing` as
    in `Ridge`.
    """

    def __init__(
        self,
        *,
        features: Source = "principal-components",
        n_features: Count | None = None,
        width: Positive = 1.0,
        penalty: NonNegative | None = None,
        missing: Missing = "error",
    ) -> None:
        self.features = features
        self.n_features = n_features
        self.width = width
        self.penalty = penalty
        self.missing = missing

    def fit(self, train: TrainView) -> Self:
        """Solve in closed form."""
        at_least(1e-9, width=self.width)
        features = features_of(train, self.features, self.n_features)
        self.residuals_ = Residuals(train, features, self.missing)
        vectors = self.residuals_.vectors
        distances = squared_distances(vectors, vectors)
        apart = distances[np.triu_indices(len(vectors), 1)]
        median = float(np.median(apart)) if apart.size else 0.0
        self.scale_ = 2 * self.width**2 * (median or 1.0)
        self.weights_, self.penalty_ = ridge_weights(
            np.exp(-distances / self.scale_), self.residuals_.values, self.penalty
        )
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = []
        yield from self.residuals_.answers(queries, self._residual, self.notes_)

    def _residual(self, vector: np.ndarray) -> np.ndarray:
        distances = squared_distances(vector[None, :], self.residuals_.vectors)[0]
        residual: np.ndarray = np.exp(-distances / self.scale_) @ self.weights_
        return residual


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances of rows: (n_first, n_second)."""
    lengths = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    squared: np.ndarray = np.maximum(lengths - 2 * first @ second.T, 0.0)
    return squared
