"""The linear model that trained networks have to beat."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, register
from harness.models.effects import MeanEffects
from harness.models.features import principal_scores, training_bulks
from harness.models.penalty_choice import Choice, Penalty, chosen
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Pair, Query, TrainView

PAPER_RIDGE = 0.1

RIDGES = 10.0 ** np.arange(-2, 4.5, 0.5)
"""What ``ridge: validation`` chooses from."""


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

    One W serves all contexts. λ is 0.1 in the paper; ``validation`` chooses it from 0.01 to 10,000
    by leaving training perturbations out (`harness.models.penalty_choice`), and a note says which.
    A query whose target is no gene of the screen gets the mean effect, and a note; so does a rank
    above what the training pairs can span, which is lowered to that.
    """

    def __init__(self, *, rank: Count = 10, ridge: Penalty = PAPER_RIDGE) -> None:
        self.rank = rank
        self.ridge = ridge

    def fit(self, train: TrainView) -> Self:
        """Solve for W in closed form."""
        self.train_ = train
        with train.remembering():
            self.choice_ = self._choice(train)
            equations = _Equations(train, self.rank)
        self.ridge_ = self.choice_.penalty
        self.means_, self.rows_ = equations.means, equations.rows
        self.embedding_ = equations.embedding
        self.weights_ = equations.solve(self.ridge_)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = self.choice_.notes
        if self.embedding_.shape[1] < self.rank:
            self.notes_.append(f"rank {self.rank} was lowered to {self.embedding_.shape[1]}")
        for query in queries:
            effect = self.means_.of(query.context)
            if query.targets:
                features = _features(self.embedding_, self.rows_, query.targets)
                effect = effect + self.embedding_ @ (self.weights_ @ features)
            else:
                self.notes_.append(
                    f"{query.perturbation} in {query.context}: its target is no gene of the "
                    "screen, the mean effect is used"
                )
            control = self.train_.control_pseudobulk(query.context)
            yield Prediction(query, profile=control + effect)

    def _choice(self, train: TrainView) -> Choice:
        if not isinstance(self.ridge, str):
            return Choice(self.ridge, "")

        def errors(view: TrainView, pairs: Sequence[Pair]) -> np.ndarray:
            return _Equations(view, self.rank).errors(RIDGES, train, pairs)

        return chosen("ridge", RIDGES, train, errors, lambda: PAPER_RIDGE)


class _Equations:
    """What W is solved from, whatever the penalty: ``(A + λI) W (B + λI) = C``.

    ``A = GᵀG``, ``B = PᵀP`` and ``C = Gᵀ (Y − b) P``, each (rank, rank).
    """

    def __init__(self, train: TrainView, rank: int) -> None:
        self.means = MeanEffects(train)
        self.rows = {gene: row for row, gene in enumerate(train.genes)}
        self.embedding = G = principal_scores(training_bulks(train), rank)
        self.A = G.T @ G
        self.B = np.zeros_like(self.A)
        self.C = np.zeros_like(self.A)
        residuals, P = self._known(train, train.pairs)
        if len(P) and G.shape[1]:
            self.B = P.T @ P
            self.C = G.T @ residuals.T @ P

    def solve(self, ridge: float) -> np.ndarray:
        """Return W: (rank, rank)."""
        if not self.C.any():
            return np.zeros_like(self.C)
        penalty = ridge * np.eye(len(self.C))
        left = np.linalg.solve(self.A + penalty, self.C)
        weights: np.ndarray = np.linalg.solve(self.B + penalty, left.T).T
        return weights

    def errors(self, ridges: np.ndarray, train: TrainView, pairs: Sequence[Pair]) -> np.ndarray:
        """Return the squared error of the pairs' profiles in a view, by ridge: (n_ridges,)."""
        residuals, P = self._known(train, pairs)
        predicted = (P @ self.solve(ridge).T @ self.embedding.T for ridge in ridges)
        return np.array([((residuals - one) ** 2).sum() for one in predicted])

    def _known(self, train: TrainView, pairs: Sequence[Pair]) -> tuple[np.ndarray, np.ndarray]:
        """Compute residuals and P of the pairs that have targets: (n, n_genes) and (n, rank).

        A residual is a pair's effect less the mean effect of its context, on the log1p scale.
        """
        found = [pair for pair in pairs if train.targets(pair.perturbation)]
        residuals = [train.effect(*pair) - self.means.of(pair.context) for pair in found]
        targets = [train.targets(pair.perturbation) for pair in found]
        P = [_features(self.embedding, self.rows, genes) for genes in targets]
        n_genes, rank = self.embedding.shape
        return np.reshape(residuals, (len(found), n_genes)), np.reshape(P, (len(found), rank))


def _features(embedding: np.ndarray, rows: dict[str, int], targets: Sequence[str]) -> np.ndarray:
    """Return the row of P for a set of target genes: (rank,)."""
    features: np.ndarray = embedding[[rows[gene] for gene in targets]].sum(axis=0)
    return features
