"""Floors that know only what a perturbation does to its own target gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harness.models.base import register
from harness.models.effects import MeanEffects
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from harness.tasks import Query, TrainView


@register("target-knockdown")
class TargetKnockdown:
    """Predicts the controls with the perturbation's own target gene lowered as in training.

    ``profile = x̄_c`` save for target genes t, which get ``s · x̄_c[t]`` with
    ``s = Σ x̄_p[t] / Σ x̄_c[t]`` over all training pairs (p, c) and their targets, (n_genes,), log1p
    scale. s is below 1 where perturbations silence genes, and above it where they activate them. A
    query without a target among the screen's genes, or without a training pair that has one, gets
    the controls' mean, and a note. A model has to beat this floor to show that it knows more of a
    perturbation than its name.
    """

    def fit(self, train: TrainView) -> Self:
        """Measure what share of a target gene's expression perturbations leave."""
        self.train_ = train
        self.columns_ = {gene: column for column, gene in enumerate(train.genes)}
        left = there = 0.0
        for perturbation, context in train.pairs:
            columns = self._targets(train.targets(perturbation))
            if columns:
                left += float(train.pseudobulk(perturbation, context)[columns].sum())
                there += float(train.control_pseudobulk(context)[columns].sum())
        self.share_left_ = left / there if there > 0 else None
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        self.notes_ = []
        for query in queries:
            profile = self._without_target(query.context).copy()
            columns = self._targets(query.targets)
            missing = ""
            if self.share_left_ is None:
                missing = "no training perturbation has a target among the genes of the screen"
            elif not columns:
                missing = "its target is no gene of the screen"
            else:
                control = self.train_.control_pseudobulk(query.context)
                profile[columns] = self.share_left_ * control[columns]
            if missing:
                self.notes_.append(
                    f"{query.perturbation} in {query.context}: {missing}, no gene is lowered"
                )
            yield Prediction(query, profile=profile)

    def _without_target(self, context: str) -> np.ndarray:
        """Return the profile of all genes but the target."""
        return self.train_.control_pseudobulk(context)

    def _targets(self, genes: Sequence[str]) -> list[int]:
        return [self.columns_[gene] for gene in genes]


@register("mean-and-target")
class MeanAndTarget(TargetKnockdown):
    """Predicts the mean effect of the context, and the own target gene lowered as in training.

    All genes but targets as `PerturbationMean` predicts them, targets as `TargetKnockdown` does,
    (n_genes,), log1p scale. The floor that a model has to pass: it takes no knowledge of what a
    perturbation does beyond its own target. Notes of both.
    """

    def fit(self, train: TrainView) -> Self:
        """Average the effects of each context, and measure what is left of target genes."""
        super().fit(train)
        self.effects_ = MeanEffects(train)
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the profile of each query."""
        yield from super().predict(queries)
        for query in queries:
            if note := self.effects_.note(query.context):
                self.notes_.append(f"{query.perturbation} in {query.context}: {note}")

    def _without_target(self, context: str) -> np.ndarray:
        profile: np.ndarray = self.train_.control_pseudobulk(context) + self.effects_.of(context)
        return profile
