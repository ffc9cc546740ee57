"""Predictions as they are made: checked one by one, and passed on to where they are kept.

A model answers every query once, in order, with cells that could be log1p values. Whatever breaks
that is a `ModelError` that names model and query, raised before anything of it is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from harness.data.array_cells import ArrayCells
from harness.errors import HarnessError, ModelError, listed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.data.cells import Cells, StoreCells

LOG1P_BELOW = 15.0
"""The reference scorers refuse log1p values from here on: e^15 counts in one gene are none."""


class PredictionQuery(Protocol):
    """What is needed of a query; `harness.tasks.Query` is one."""

    @property
    def perturbation(self) -> str:
        """The perturbation."""

    @property
    def context(self) -> str:
        """The context."""

    @property
    def n_cells(self) -> int:
        """How many cells are asked for."""


class PredictedCells(Protocol):
    """What is needed of a prediction; `harness.tasks.Prediction` with cells is one."""

    @property
    def query(self) -> PredictionQuery:
        """The query that is answered."""

    @property
    def cells(self) -> np.ndarray | None:
        """The cells: (n_cells, n_genes), log1p scale."""


class PredictionCollector(ABC):
    """Takes predictions in the order of the queries; they are of use after `publish` only.

    Use as a context manager: what is left without `publish` leaves nothing behind. Where the cells
    go is the subclasses' part.

    Parameters
    ----------
    queries
        What must be answered, in this order.
    genes
        The columns.
    model
        For messages.
    """

    def __init__(
        self, queries: Sequence[PredictionQuery], genes: Sequence[str], model: str
    ) -> None:
        if not queries:
            raise ModelError(f"{model}: there is no query to predict. Check the split.")
        self.queries = tuple(queries)
        self.genes = tuple(genes)
        self.model = model
        self.profiles = np.full((len(self.queries), len(self.genes)), np.nan)
        self._places = {(q.perturbation, q.context): i for i, q in enumerate(self.queries)}
        self._answered = 0

    @abstractmethod
    def keep(self, cells: np.ndarray) -> None:
        """Take a copy of the cells that answer the next query."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is None or isinstance(error, HarnessError):
            return
        # what a model raises of its own does not say at which query
        n = len(self.queries)
        if self._answered == n:
            error.add_note(f"{self.model} had answered all {n} queries.")
        else:
            query = self.queries[self._answered]
            error.add_note(
                f"{self.model} was to answer query {self._answered + 1} of {n}: "
                f"{query.perturbation!r} in {query.context!r}."
            )

    def add(self, prediction: PredictedCells) -> None:
        """Check the next prediction and keep its cells; their mean is the query's profile."""
        where = self._check_query(prediction.query)
        cells = self._check_cells(prediction.cells, prediction.query, where)
        self.keep(cells)
        # Of the cells, not of the profile that a model may give besides: these are what is scored.
        self.profiles[self._answered] = cells.mean(axis=0, dtype=np.float64)
        self._answered += 1

    def publish(self) -> None:
        """Say that these were all; `ModelError` where queries are unanswered."""
        if missing := self.queries[self._answered :]:
            raise ModelError(
                f"{self.model} left {len(missing)} of {len(self.queries)} queries unanswered: "
                f"{listed((q.perturbation, q.context) for q in missing)}. Expected one prediction "
                "for each."
            )

    def _check_query(self, query: PredictionQuery) -> str:
        where = f"{self.model}, prediction for {query.perturbation!r} in {query.context!r}"
        place = self._places.get((query.perturbation, query.context))
        if place is None:
            raise ModelError(f"{where}: nobody asked for it. Answer what `predict` is given.")
        if place < self._answered:
            raise ModelError(f"{where}: the query was answered before. Answer each one once.")
        if place > self._answered:
            expected = self.queries[self._answered]
            raise ModelError(
                f"{where} is out of order: expected {expected.perturbation!r} in "
                f"{expected.context!r}. Yield predictions in the order of the queries."
            )
        return where

    def _check_cells(self, cells: object, query: PredictionQuery, where: str) -> np.ndarray:
        shape = (query.n_cells, len(self.genes))
        if cells is not None and not isinstance(cells, np.ndarray):
            found = type(cells).__name__
            raise ModelError(f"{where}: found cells as a {found}, expected an array of NumPy.")
        if cells is None or np.shape(cells) != shape:
            found = "no cells" if cells is None else f"an array of shape {np.shape(cells)}"
            raise ModelError(f"{where}: found {found}, expected {shape}, cells by genes.")
        if not np.issubdtype(cells.dtype, np.floating):
            raise ModelError(f"{where}: found values of type {cells.dtype}, expected float32.")
        low, high = float(cells.min(initial=0.0)), float(cells.max(initial=0.0))
        # NaN fails both comparisons, so one pass over the cells finds everything.
        if low >= 0 and high < LOG1P_BELOW:
            return cells
        for what, wrong in (
            ("NaN", np.isnan(cells)),
            ("infinite", np.isinf(cells)),
            ("negative", cells < 0),
            (f"above {LOG1P_BELOW:g}, counts?,", cells >= LOG1P_BELOW),
        ):
            if wrong.any():
                genes = [self.genes[i] for i in np.flatnonzero(wrong.any(axis=0))]
                raise ModelError(
                    f"{where}: found {int(wrong.sum())} values that are {what} in {listed(genes)}, "
                    f"expected log1p values of at least 0 and below {LOG1P_BELOW:g}."
                )
        raise AssertionError(f"{where}: none of the above, and outside of the bounds")


def cell_labels(queries: Sequence[PredictionQuery]) -> tuple[np.ndarray, np.ndarray]:
    """Return the perturbation and the context of each cell that is asked for: twice (n_cells,)."""
    sizes = [query.n_cells for query in queries]
    names = np.array([query.perturbation for query in queries], dtype=np.str_)
    contexts = np.array([query.context for query in queries], dtype=np.str_)
    return np.repeat(names, sizes), np.repeat(contexts, sizes)


HELD_BYTES = 64 * 1024 * 1024
"""The largest prediction that is held, and the most of a screen's controls."""


def fits(n_cells: int, n_genes: int) -> bool:
    """Whether cells are few enough to be held."""
    return 4 * n_cells * n_genes <= HELD_BYTES


class HeldPredictions(PredictionCollector):
    """Predictions that are held in memory; the same checks as for those that are written."""

    def __init__(
        self,
        queries: Sequence[PredictionQuery],
        *,
        genes: Sequence[str],
        control_label: str,
        model: str,
    ) -> None:
        super().__init__(queries, genes, model)
        n_cells = sum(query.n_cells for query in queries)
        self._matrix = np.empty((n_cells, len(genes)), dtype=np.float32)
        self._filled = 0
        self.control_label = control_label

    def keep(self, cells: np.ndarray) -> None:
        """Take a copy of the cells that answer the next query."""
        self._matrix[self._filled : self._filled + len(cells)] = cells
        self._filled += len(cells)

    @property
    def result(self) -> HeldPredictions:
        """What to score: this itself."""
        return self

    def cells(self, controls: Cells | None = None) -> ArrayCells:
        """Return the predicted cells, followed by the controls that they are measured from."""
        return ArrayCells(
            self._matrix,
            *cell_labels(self.queries),
            genes=self.genes,
            control_label=self.control_label,
            controls=controls,
        )


# --- controls that many predictions are measured from -------------------------------------------

_LAST: list[tuple[tuple[object, ...], ArrayCells]] = []


def held_controls(controls: StoreCells, *tag: object) -> Cells:
    """Return a screen's controls, read once for all trials of this process that share them.

    Parameters
    ----------
    controls
        What would be read each time; returned as it is where it is too large to be held.
    tag
        What tells its values from others of the same cells.
    """
    if not fits(controls.n_cells, len(controls.genes)):
        return controls
    key = controls.fingerprint, *tag
    if not _LAST or _LAST[0][0] != key:
        found = ArrayCells(
            controls.dense(),
            controls.perturbations,
            controls.contexts,
            genes=controls.genes,
            control_label=controls.control_label,
        )
        _LAST[:] = [(key, found)]
    return _LAST[0][1]
