"""A combination does what its parts do, summed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import numpy as np

from harness.models.base import NonNegative, at_least, register
from harness.models.effects import MeanEffects, effects_elsewhere, mean_of, parts_of
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
        for query in queries:
            control = self.train_.control_pseudobulk(query.context)
            yield Prediction(query, profile=control + self.sum_of(query))

    def sum_of(self, query: Query) -> np.ndarray:
        """Return the sum of the parts' effects: (n_genes,)."""
        parts = parts_of(query.perturbation, self.train_)
        total: np.ndarray = np.sum([self._effect(part, query) for part in parts], axis=0)
        return total

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


@register("shrunken-additive")
class ShrunkenAdditive:
    """Predicts a combination as a share of the sum of its parts, which other combinations teach.

    ``profile = x̄_c + s Σ over parts a of (x̄_a − x̄_c)``, (n_genes,), log1p scale, with one s for
    all: the slope of the trained combinations' effects on the sums of their parts', shrunk to a
    prior of 1 that counts for `shrinkage` combinations. The linear model of Norman et al., Science
    2019, with one coefficient for both parts; s below 1 is what saturation and the parts' noise
    leave, and s = 1/2 the "matching mean" of Viñas Torné et al., Nature Biotechnology 2025. Without
    a trained combination whose parts were trained on alone, s is 1, with a note. Single
    perturbations and unknown parts as in `Additive`.
    """

    def __init__(self, *, shrinkage: NonNegative = 2.0) -> None:
        self.shrinkage = shrinkage

    def fit(self, train: TrainView) -> Self:
        """Fit the slope."""
        at_least(0.0, shrinkage=self.shrinkage)
        self.train_ = train
        self.additive_ = Additive().fit(train)
        self.share_, self.n_combinations_ = self._fit_share()
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the share of the sum on top of the context's controls."""
        self.notes_ = self.additive_.notes_ = []
        if not self.n_combinations_:
            self.notes_.append("no trained combination has trained parts: the sum is not shrunk")
        for query in queries:
            single = len(parts_of(query.perturbation, self.train_)) == 1
            effect = self.additive_.sum_of(query) * (1.0 if single else self.share_)
            yield Prediction(query, profile=self.train_.control_pseudobulk(query.context) + effect)

    def _fit_share(self) -> tuple[float, int]:
        effects, product, moment, n = self.additive_.effects_, 0.0, 0.0, 0
        for perturbation, context in self.train_.pairs:
            parts = parts_of(perturbation, self.train_)
            if len(parts) < 2 or any(context not in effects.get(part, {}) for part in parts):
                continue
            total = np.sum([effects[part][context] for part in parts], axis=0)
            product += float(total @ effects[perturbation][context])
            moment += float(total @ total)
            n += 1
        if not moment:
            return 1.0, 0
        prior = self.shrinkage * moment / n
        return (product + prior) / (moment + prior), n
