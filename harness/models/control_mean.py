"""The floor that no model should fall below: nothing happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harness.models.base import register
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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
