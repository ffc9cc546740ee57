"""How well the experiment predicts itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harness.models.base import register
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Query, TrainView


@register("replicate", ceiling=True, cells=None)
class Replicate:
    """The ceiling: predicts one half of the held-out cells by the other half.

    It is fitted to `Task.replicate_view` and scored against the other half, so that it shows what
    the noise of the experiment leaves to be predicted. Cells (n_cells, n_genes), log1p scale.
    """

    def fit(self, train: TrainView) -> Self:
        """Keep the view of the halves."""
        self.train_ = train
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the half of each pair that the view shows."""
        for query in queries:
            yield Prediction(query, cells=self.train_.cells(query.perturbation, query.context))
