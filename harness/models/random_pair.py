"""Real cells of the wrong perturbation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from harness.errors import ModelError
from harness.models.base import query_rng, register
from harness.tasks import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks import Query, TrainView


@register("random-pair", cells=None)
class RandomPair:
    """Predicts the cells of another training perturbation of the context, drawn by the seed.

    Cells (n_cells, n_genes), log1p scale, drawn without replacement where the other pair has
    enough. A control for metrics that realistic scatter alone would please. A context without
    training pairs gets a pair of another context, and a note.
    """

    def __init__(self, *, seed: int = 0) -> None:
        self.seed = seed

    def fit(self, train: TrainView) -> Self:
        """Keep the view; cells are read when a query draws them."""
        self.train_ = train
        self.notes_: list[str] = []
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        """Yield the drawn pair's cells for each query."""
        self.notes_ = []
        for query in queries:
            rng = query_rng(self.seed, query, "random-pair")
            others = [p for p in self.train_.pairs if p.perturbation != query.perturbation]
            near = [pair for pair in others if pair.context == query.context]
            if not others:
                raise ModelError(
                    f"random-pair: no other perturbation to draw from for {query.perturbation!r} "
                    f"in {query.context!r}."
                )
            if not near:
                self.notes_.append(
                    f"{query.perturbation} in {query.context}: cells of another context are used"
                )
            choices = near or others
            pair = choices[rng.integers(len(choices))]
            cells = self.train_.cells(*pair)
            drawn = rng.choice(len(cells), query.n_cells, replace=query.n_cells > len(cells))
            yield Prediction(query, cells=cells[drawn])
