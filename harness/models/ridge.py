"""Ridge regression of effects on features of the perturbation, linear and by a kernel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, Positive, at_least, register
from harness.models.feature_regression import FeatureRegression
from harness.models.features import Missing, Source  # noqa: TC001 - jobs are checked by them
from harness.models.penalty_choice import Penalty  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.models.feature_regression import Kernel
    from harness.tasks import Prediction, Query, TrainView


@register("ridge")
class Ridge(FeatureRegression):
    """Ridge regression of a perturbation's effect on its features.

    GenePert (Chen and Zou, bioRxiv 2024) with any features. With x (n_features,) the vector of the
    query, X those of the training perturbations and Y (n, n_genes) what these do beyond the mean
    effect b of a context::

        profile = x̄_c + b_c + Yᵀ (X Xᵀ + λI)⁻¹ X x

    on the log1p scale. λ is `penalty`. None chooses it by leaving each perturbation out, with the
    features and mean effects of all; ``validation`` by leaving a fifth of them out, of features and
    mean effects too (`harness.models.penalty_choice`), and a note says which. Features as in
    `harness.models.features`; a perturbation without them gets the mean effect, and a note.
    """

    def __init__(
        self,
        *,
        features: Source = "principal-components",
        n_features: Count | None = None,
        penalty: Penalty | None = None,
        missing: Missing = "error",
    ) -> None:
        self.features = features
        self.n_features = n_features
        self.penalty = penalty
        self.missing = missing

    def fit(self, train: TrainView) -> Self:
        """Solve in closed form."""
        weights = self._regress(train).weights(self.penalty_)
        self.map_ = weights.T @ self.residuals_.vectors  # (n_genes, n_features)
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = self.choice_.notes
        yield from self.residuals_.answers(queries, lambda x: self.map_ @ x, self.notes_)


@register("kernel-ridge")
class KernelRidge(FeatureRegression):
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
        penalty: Penalty | None = None,
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
        self.weights_ = self._regress(train).weights(self.penalty_)
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = self.choice_.notes
        yield from self.residuals_.answers(queries, self._residual, self.notes_)

    def _residual(self, vector: np.ndarray) -> np.ndarray:
        residual: np.ndarray = self.kernel_(vector[None, :])[0] @ self.weights_
        return residual

    def _kernel_of(self, vectors: np.ndarray) -> Kernel:
        return _Gaussian(vectors, self.width)


class _Gaussian:
    """A Gaussian of the distance to each training vector, (n, n_features)."""

    def __init__(self, vectors: np.ndarray, width: float) -> None:
        self.vectors = vectors
        apart = squared_distances(vectors, vectors)[np.triu_indices(len(vectors), 1)]
        median = float(np.median(apart)) if apart.size else 0.0
        self.scale = 2 * width**2 * (median or 1.0)

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        """Return (m, n) for rows (m, n_features)."""
        kernel: np.ndarray = np.exp(-squared_distances(rows, self.vectors) / self.scale)
        return kernel


def squared_distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the squared Euclidean distances of rows: (n_first, n_second)."""
    lengths = (first**2).sum(axis=1)[:, None] + (second**2).sum(axis=1)
    squared: np.ndarray = np.maximum(lengths - 2 * first @ second.T, 0.0)
    return squared
