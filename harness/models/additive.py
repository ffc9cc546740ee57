"""A combination does what its parts do, summed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import register
from harness.models.effects import MeanEffects, effects_elsewhere, mean_of
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Query, TrainView


@register("additive")
class Additive:
    """Predicts a combination as the sum of the effects of its single perturbations.

    ``profile = x̄_c + Σ over parts a of (x̄_a − x̄_c)``, (n_genes,), log1p scale. A part that was
    not trained on in the context has its mean effect in other contexts; one trained on nowhere, a
    single perturbation that is itself asked for among them, the mean effect of the context; each
    with a note. The "additive" baseline of Ahlmann-Eltze, Huber and Anders, Nature Methods 2025.
    """

    def fit(self, train: TrainView) -> Self:
        """Compute the effect of every training pair."""
        self.train_ = train
        self.effects_ = effects_elsewhere(train)
        self.means_ = MeanEffects(train)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the sum of the parts' effects on top of the context's controls."""
        self.notes_ = []
        separator = self.train_.combination_separator
        for query in queries:
            parts = query.perturbation.split(separator) if separator else [query.perturbation]
            effects = [self._effect(part, query) for part in parts]
            control = self.train_.control_pseudobulk(query.context)
            yield Prediction(query, profile=control + np.sum(effects, axis=0))

    def _effect(self, part: str, query: Query) -> np.ndarray:
        known = self.effects_.get(part, {})
        if query.context in known:
            return known[query.context]
        where = f"{query.perturbation} in {query.context}: {part}"
        if known:
            self.notes_.append(f"{where} was trained on in other contexts, their mean is used")
            return mean_of(known.values())
        self.notes_.append(f"{where} was not trained on alone, the mean effect is used")
        return self.means_.of(query.context)
