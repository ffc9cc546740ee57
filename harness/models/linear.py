"""The linear model that trained networks have to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, NonNegative, register
from harness.models.effects import MeanEffects
from harness.models.features import principal_scores, training_bulks
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Query, TrainView


@register("linear")
class Linear:
    """Predicts effects as ``G W Pᵀ + b``, where a perturbation is known by its target gene.

    Ahlmann-Eltze, Huber and Anders, Nature Methods 2025. With Y (n_genes, n_pairs) the training
    effects on the log1p scale:

    - G (n_genes, rank): the genes' scores on the first principal components of the training
      pseudobulks, genes as observations;
    - P (n_pairs, rank): the row of G of the pair's target gene, summed over the targets of a
      combination;
    - b (n_genes,): the mean effect of the context, so that it is perturbation-mean where W is 0;
    - ``W = (GᵀG + λI)⁻¹ Gᵀ (Y − b) P (PᵀP + λI)⁻¹`` with λ = `ridge`.

    One W serves all contexts. A query whose target is no gene of the screen gets the mean effect,
    and a note; so does a rank above what the training pairs can span, which is lowered to that.
    """

    def __init__(self, *, rank: Count = 10, ridge: NonNegative = 0.1) -> None:
        self.rank = rank
        self.ridge = ridge

    def fit(self, train: TrainView) -> Self:
        """Solve for W in closed form."""
        self.train_ = train
        self.means_ = MeanEffects(train)
        self.rows_ = {gene: row for row, gene in enumerate(train.genes)}
        self.embedding_ = principal_scores(training_bulks(train), self.rank)
        pairs = [pair for pair in train.pairs if train.targets(pair.perturbation)]
        k = self.embedding_.shape[1]
        self.weights_ = np.zeros((k, k))
        if pairs and k:
            residuals = np.array([train.effect(*p) - self.means_.of(p.context) for p in pairs]).T
            P = np.array([self._features(train.targets(pair.perturbation)) for pair in pairs])
            G, penalty = self.embedding_, self.ridge * np.eye(k)
            left = np.linalg.solve(G.T @ G + penalty, G.T @ residuals @ P)
            self.weights_ = np.linalg.solve(P.T @ P + penalty, left.T).T
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = []
        if self.embedding_.shape[1] < self.rank:
            self.notes_.append(f"rank {self.rank} was lowered to {self.embedding_.shape[1]}")
        for query in queries:
            effect = self.means_.of(query.context)
            if query.targets:
                effect = effect + self.embedding_ @ (self.weights_ @ self._features(query.targets))
            else:
                self.notes_.append(
                    f"{query.perturbation} in {query.context}: its target is no gene of the "
                    "screen, the mean effect is used"
                )
            control = self.train_.control_pseudobulk(query.context)
            yield Prediction(query, profile=control + effect)

    def _features(self, targets: Sequence[str]) -> np.ndarray:
        """Return the row of P for a set of target genes: (rank,)."""
        features: np.ndarray = self.embedding_[[self.rows_[gene] for gene in targets]].sum(axis=0)
        return features
