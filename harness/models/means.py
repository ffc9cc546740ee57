"""The two mean baselines: the field's, and the one that the challenge's scorer builds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harness.models.base import register
from harness.models.effects import MeanEffects
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from harness.tasks import Query, TrainView


@register("control-mean")
class ControlMean:
    """Predicts the mean of the context's controls: no perturbation has an effect.

    ``profile = x̄_c`` with x̄_c the pseudobulk of the shown controls, (n_genes,), log1p scale. The
    baseline "no change" of Ahlmann-Eltze, Huber and Anders, Nature Methods 2025.
    """

    def fit(self, train: TrainView) -> Self:
        """Keep the view; there is nothing to learn."""
        self.train_ = train
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the control's profile for each query."""
        for query in queries:
            yield Prediction(query, profile=self.train_.control_pseudobulk(query.context))


@register("perturbation-mean")
class PerturbationMean:
    """Predicts that every perturbation does what perturbations do on average in the context.

    ``profile = x̄_c + mean over p of (x̄_p − x̄_c)`` over the context's training perturbations,
    (n_genes,), log1p scale; each perturbation counts once, however many cells it has. A context
    without training pairs gets the mean effect of the others, and a note. The "mean" baseline of
    Ahlmann-Eltze, Huber and Anders, Nature Methods 2025, and of Kernfeld et al., Genome Biology
    2025.
    """

    def fit(self, train: TrainView) -> Self:
        """Average the effects of the training pairs of each context."""
        self.train_ = train
        self.effects_ = MeanEffects(train)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the same profile for all queries of a context."""
        self.notes_ = []
        for query in queries:
            if note := self.effects_.note(query.context):
                self.notes_.append(f"{query.perturbation} in {query.context}: {note}")
            yield Prediction(query, profile=self._profile(query.context))

    def _profile(self, context: str) -> np.ndarray:
        control = self.train_.control_pseudobulk(context)
        profile: np.ndarray = control + self.effects_.of(context)
        return profile


@register("cell-eval-baseline", cells="tile-profile")
class CellEvalBaseline(PerturbationMean):
    """The baseline of `cell-eval baseline`: the mean of all pseudobulks, the control's among them.

    ``profile = (x̄_c + Σ x̄_p) / (n + 1)`` over the n training perturbations of the context,
    (n_genes,), log1p scale, tiled over the cells. What the released code computes (cell-eval
    0.6.6), though the challenge speaks of the perturbations' mean; in effects it is the mean effect
    times n / (n + 1), which is how a context without training pairs gets it from the others', with
    their mean n and a note.
    """

    def _profile(self, context: str) -> np.ndarray:
        counts = self.effects_.counts
        n = counts.get(context, sum(counts.values()) / max(1, len(counts)))
        effect = self.effects_.of(context) * (n / (n + 1))
        profile: np.ndarray = self.train_.control_pseudobulk(context) + effect
        return profile
