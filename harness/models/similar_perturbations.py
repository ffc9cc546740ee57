"""Perturbations that did alike elsewhere do alike here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import Count, at_least, register
from harness.models.effects import MeanEffects, effects_elsewhere, mean_of
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Query, TrainView


@register("similar-perturbations")
class SimilarPerturbations:
    """Predicts the mean effect of the k perturbations of the context that did most alike elsewhere.

    ``profile = x̄_c + mean of effects in c over the k shown perturbations most similar to p``,
    (n_genes,), log1p scale. Two perturbations are as similar as their effects correlate (Pearson,
    less the mean effect of the context), averaged over the other contexts that have both: the
    connectivity of signatures (Lamb et al., Science 2006). What it predicts was measured in the
    context itself, so that contexts may differ in how they answer as long as they agree on which
    perturbations are alike. Without one to compare with, the mean effect and a note.
    """

    def __init__(self, *, k: Count = 5) -> None:
        self.k = k

    def fit(self, train: TrainView) -> Self:
        """Compute the effect of every training pair."""
        at_least(1, k=self.k)
        self.train_ = train
        self.effects_ = effects_elsewhere(train)
        self.means_ = MeanEffects(train)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the mean of the most similar on top of the context's controls."""
        self.notes_ = []
        for query in queries:
            control = self.train_.control_pseudobulk(query.context)
            yield Prediction(query, profile=control + self._effect(query))

    def _effect(self, query: Query) -> np.ndarray:
        here = query.context
        similar = []
        for name, known in self.effects_.items():
            if name != query.perturbation and here in known:
                similarity = self._similarity(query.perturbation, name, here)
                if similarity is not None:
                    similar.append((-round(similarity, 9), name))
        if not similar:
            self.notes_.append(
                f"{query.perturbation} in {here}: no perturbation of the context to compare with "
                "in another, the mean effect is used"
            )
            return self.means_.of(here)
        return mean_of(self.effects_[name][here] for _, name in sorted(similar)[: self.k])

    def _similarity(self, one: str, other: str, here: str) -> float | None:
        """Return the mean correlation of two perturbations over contexts that have both."""
        first, second = self.effects_.get(one, {}), self.effects_[other]
        shared = [context for context in first if context in second and context != here]
        found = [
            _correlation(first[c] - self.means_.of(c), second[c] - self.means_.of(c))
            for c in shared
        ]
        return float(np.mean(found)) if found else None


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return Pearson's correlation; 0 where one of the two is constant."""
    first, second = first - first.mean(), second - second.mean()
    size = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / size if size > 0 else 0.0
