"""Gene embeddings times perturbation embeddings, both learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, NonNegative, at_least, register
from harness.models.features import Missing, Source, features_of
from harness.models.residuals import Residuals, ridge_weights

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Prediction, Query, TrainView


@register("bilinear")
class Bilinear:
    """Predicts effects as ``G Wᵀ x``: an embedding of each gene times one of the perturbation.

    The bilinear model of Ahlmann-Eltze, Huber and Anders, Nature Methods 2025, with embeddings of
    genes that are fitted to the effects instead of taken from the expression. With X
    (n, n_features) and Y (n, n_genes) as in `Ridge`, ``x̄_c + b_c + G Wᵀ x`` minimises::

        |Y − X W Gᵀ|² + λ |W Gᵀ|²    over G (n_genes, rank) and W (n_features, rank)

    in closed form (reduced-rank ridge regression; Mukherjee and Zhu, Statistical Analysis and Data
    Mining 2011): `Ridge`, projected on the leading `rank` directions of its fitted values. λ is
    `penalty`, None as in `Ridge`. A rank above what the fit has is lowered to that, with a note.
    """

    def __init__(
        self,
        *,
        rank: Count = 8,
        features: Source = "principal-components",
        n_features: Count | None = None,
        penalty: NonNegative | None = None,
        missing: Missing = "error",
    ) -> None:
        self.rank = rank
        self.features = features
        self.n_features = n_features
        self.penalty = penalty
        self.missing = missing

    def fit(self, train: TrainView) -> Self:
        """Solve in closed form."""
        at_least(1, rank=self.rank)
        features = features_of(train, self.features, self.n_features)
        self.residuals_ = Residuals(train, features, self.missing)
        vectors = self.residuals_.vectors
        kernel = vectors @ vectors.T
        weights, self.penalty_ = ridge_weights(kernel, self.residuals_.values, self.penalty)
        self.genes_ = _leading_directions(kernel, weights, self.penalty_, self.rank)
        self.perturbations_ = (vectors.T @ weights) @ self.genes_  # (n_features, rank)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = []
        found = self.genes_.shape[1]
        if self.residuals_.names and found < self.rank:
            self.notes_.append(f"rank {self.rank} was lowered to {found}")
        yield from self.residuals_.answers(queries, self._residual, self.notes_)

    def _residual(self, vector: np.ndarray) -> np.ndarray:
        residual: np.ndarray = self.genes_ @ (vector @ self.perturbations_)
        return residual


def _leading_directions(
    kernel: np.ndarray, weights: np.ndarray, penalty: float, rank: int
) -> np.ndarray:
    """Return the genes' embedding, with orthonormal columns: (n_genes, <= rank).

    They are the right singular vectors of the fitted values of the regression that is extended by
    the penalty's rows, whose inner products over perturbations are those of L in the code.
    """
    sizes, axes = np.linalg.eigh(kernel)
    sizes = np.maximum(sizes, 0.0)
    L = np.sqrt(sizes * (sizes + penalty))[:, None] * (axes.T @ weights)
    values, vectors = np.linalg.eigh(L @ L.T)
    kept = np.flatnonzero(values > values.max(initial=0.0) * 1e-10)[::-1][:rank]
    directions: np.ndarray = L.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return directions
