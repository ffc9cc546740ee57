"""Gene embeddings times perturbation embeddings, both learned."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, at_least, register
from harness.models.feature_regression import FeatureRegression
from harness.models.features import Missing, Source  # noqa: TC001 - jobs are checked by them
from harness.models.penalty_choice import Penalty  # noqa: TC001

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.models.residuals import RidgePath
    from harness.tasks import Prediction, Query, TrainView


@register("bilinear")
class Bilinear(FeatureRegression):
    """Predicts effects as ``G Wᵀ x``: an embedding of each gene times one of the perturbation.

    The bilinear model of Ahlmann-Eltze, Huber and Anders, Nature Methods 2025, with embeddings of
    genes that are fitted to the effects instead of taken from the expression. With X
    (n, n_features) and Y (n, n_genes) as in `Ridge`, ``x̄_c + b_c + G Wᵀ x`` minimises::

        |Y − X W Gᵀ|² + λ |W Gᵀ|²    over G (n_genes, rank) and W (n_features, rank)

    in closed form (reduced-rank ridge regression; Mukherjee and Zhu, Statistical Analysis and Data
    Mining 2011): `Ridge`, projected on the leading `rank` directions of its fitted values. λ is
    `penalty`, as in `Ridge`. A rank above what the fit has is lowered to that, with a note.
    """

    def __init__(
        self,
        *,
        rank: Count = 8,
        features: Source = "principal-components",
        n_features: Count | None = None,
        penalty: Penalty | None = None,
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
        path = self._regress(train)
        self.genes_ = path.values.T @ _leading_directions(path, self.penalty_, self.rank)
        weights = path.weights(self.penalty_) @ self.genes_
        self.perturbations_ = self.residuals_.vectors.T @ weights  # (n_features, rank)
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = self.choice_.notes
        found = self.genes_.shape[1]
        if self.residuals_.names and found < self.rank:
            self.notes_.append(f"rank {self.rank} was lowered to {found}")
        yield from self.residuals_.answers(queries, self._residual, self.notes_)

    def _residual(self, vector: np.ndarray) -> np.ndarray:
        residual: np.ndarray = self.genes_ @ (vector @ self.perturbations_)
        return residual

    def _combined(self, path: RidgePath, rows: np.ndarray, penalty: float) -> np.ndarray:
        directions = _leading_directions(path, penalty, self.rank)
        fitted = super()._combined(path, rows, penalty)
        combined: np.ndarray = (fitted @ path.gram @ directions) @ directions.T
        return combined


def _leading_directions(path: RidgePath, penalty: float, rank: int) -> np.ndarray:
    """Return weights Z of the residuals Y, such that ``Yᵀ Z`` embeds the genes: (n, <= rank).

    The columns of ``Yᵀ Z`` are orthonormal: the right singular vectors of the fitted values of the
    regression that is extended by the penalty's rows, whose inner products over perturbations are
    those of ``L Y`` in the code.
    """
    lengths = np.sqrt(path.sizes * (path.sizes + penalty)) * path.shrinkage(penalty)
    L = lengths[:, None] * path.axes.T
    values, vectors = np.linalg.eigh(L @ path.gram @ L.T)
    kept = np.flatnonzero(values > values.max(initial=0.0) * 1e-10)[::-1][:rank]
    directions: np.ndarray = L.T @ (vectors[:, kept] / np.sqrt(values[kept]))
    return directions
