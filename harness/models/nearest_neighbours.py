"""A perturbation does what its neighbours do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, at_least, register
from harness.models.features import Missing, Source, features_of
from harness.models.residuals import Residuals
from harness.models.ridge import squared_distances

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Prediction, Query, TrainView


@register("nearest-neighbours")
class NearestNeighbours:
    """Predicts the mean of what the k perturbations with the nearest features do.

    ``profile = x̄_c + b_c + mean of Y over the k training perturbations nearest to x``, (n_genes,),
    log1p scale; x, Y and b as in `Ridge`, Euclidean distance, the first in the alphabet of two that
    are equally near. The k-nearest-neighbour regression of Csendes et al., BMC Genomics 2025. With
    fewer than k perturbations to choose from, all of them, which is nearly the mean effect.
    """

    def __init__(
        self,
        *,
        features: Source = "principal-components",
        n_features: Count | None = None,
        k: Count = 5,
        missing: Missing = "error",
    ) -> None:
        self.features = features
        self.n_features = n_features
        self.k = k
        self.missing = missing

    def fit(self, train: TrainView) -> Self:
        """Keep the residuals and the features of the training perturbations."""
        at_least(1, k=self.k)
        features = features_of(train, self.features, self.n_features)
        self.residuals_ = Residuals(train, features, self.missing)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = []
        yield from self.residuals_.answers(queries, self._residual, self.notes_)

    def _residual(self, vector: np.ndarray) -> np.ndarray:
        distances = squared_distances(vector[None, :], self.residuals_.vectors)[0]
        # To nine digits, so that the last bit of a product does not choose among equals.
        nearest = np.argsort(np.round(distances, 9), kind="stable")[: self.k]
        residual: np.ndarray = self.residuals_.values[nearest].mean(axis=0)
        return residual
