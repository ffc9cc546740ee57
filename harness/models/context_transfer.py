"""What a perturbation did elsewhere, it does here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harness.models.base import register
from harness.models.effects import MeanEffects, effects_elsewhere, mean_of
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy as np

    from harness.tasks import Query, TrainView


@register("context-transfer")
class ContextTransfer:
    """Predicts the perturbation's mean effect in the other contexts where it was trained on.

    ``profile = x̄_c + mean over c' ≠ c of (x̄_pc' − x̄_c')``, (n_genes,), log1p scale; each context
    counts once. A perturbation that was trained on in no other context gets the mean effect of the
    context's training perturbations instead (as perturbation-mean), and a note. The additive
    "shift" of scGen's vector arithmetic (Lotfollahi, Wolf and Theis, Nature Methods 2019) without
    the autoencoder.
    """

    def fit(self, train: TrainView) -> Self:
        """Compute the effect of every training pair."""
        self.train_ = train
        self.effects_ = effects_elsewhere(train)
        self.means_ = MeanEffects(train)
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the transferred effect on top of the context's controls."""
        self.notes_ = []
        for query in queries:
            profile = self.train_.control_pseudobulk(query.context) + self._effect(query)
            yield Prediction(query, profile=profile)

    def _effect(self, query: Query) -> np.ndarray:
        known = self.effects_.get(query.perturbation, {})
        elsewhere = [effect for context, effect in known.items() if context != query.context]
        if elsewhere:
            return mean_of(elsewhere)
        self.notes_.append(
            f"{query.perturbation} in {query.context}: trained on in no other context, "
            "the mean effect is used"
        )
        return self.means_.of(query.context)
