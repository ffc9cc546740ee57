"""Predictions as they are made: checked one by one, and passed on to where they are kept.

A model answers every query once, in order, with cells that could be log1p values. Whatever breaks
that is a `ModelError` that names model and query, raised before anything of it is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self

import numpy as np

from harness.errors import HarnessError, ModelError, listed

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

LOG1P_BELOW = 15.0
"""The reference scorers refuse log1p values from here on: e^15 counts in one gene are none."""


class Asked(Protocol):
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


class Answer(Protocol):
    """What is needed of a prediction; `harness.tasks.Prediction` with cells is one."""

    @property
    def query(self) -> Asked:
        """The query that is answered."""

    @property
    def cells(self) -> np.ndarray | None:
        """The cells: (n_cells, n_genes), log1p scale."""


class Keeper(Protocol):
    """Where predicted cells go."""

    def append(self, rows: np.ndarray, /) -> None:
        """Take the next cells; they are the caller's again afterwards."""

    def publish(self) -> None:
        """Learn that these were all."""

    def __exit__(self, *failure: object) -> None: ...


class Answered:
    """Takes predictions in the order of the queries; they are of use after `publish` only.

    Use as a context manager: what is left without `publish` leaves nothing behind.

    Parameters
    ----------
    queries
        What must be answered, in this order.
    genes
        The columns.
    model
        For messages.
    keeper
        Gets the cells.
    """

    def __init__(
        self, queries: Sequence[Asked], genes: Sequence[str], model: str, keeper: Keeper
    ) -> None:
        self.queries = tuple(queries)
        self.genes = tuple(genes)
        self.model = model
        self.profiles = np.full((len(self.queries), len(self.genes)), np.nan)
        self._places = {(q.perturbation, q.context): i for i, q in enumerate(self.queries)}
        self._answered = 0
        self._keeper = keeper

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._keeper.__exit__(kind, error, trace)
        if error is not None and not isinstance(error, HarnessError):
            error.add_note(self._whereabouts())

    def _whereabouts(self) -> str:
        """Return which query was to be answered next, for what a model raises of its own."""
        n = len(self.queries)
        if self._answered == n:
            return f"{self.model} had answered all {n} queries."
        query = self.queries[self._answered]
        return (
            f"{self.model} was to answer query {self._answered + 1} of {n}: "
            f"{query.perturbation!r} in {query.context!r}."
        )

    def add(self, prediction: Answer) -> None:
        """Check the next prediction and pass its cells on; their mean is the query's profile."""
        where = self._check_query(prediction.query)
        cells = self._check_cells(prediction.cells, prediction.query, where)
        self._keeper.append(cells)
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
        self._keeper.publish()

    def _check_query(self, query: Asked) -> str:
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

    def _check_cells(self, cells: object, query: Asked, where: str) -> np.ndarray:
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
        if not (low >= 0 and high < LOG1P_BELOW):
            raise ModelError(f"{where}: {self._wrong_values(cells)}")
        return cells

    def _wrong_values(self, cells: np.ndarray) -> str:
        expected = f"expected log1p values of at least 0 and below {LOG1P_BELOW:g}."
        for what, wrong in (
            ("NaN", np.isnan(cells)),
            ("infinite", np.isinf(cells)),
            ("negative", cells < 0),
            (f"above {LOG1P_BELOW:g}, counts?,", cells >= LOG1P_BELOW),
        ):
            if wrong.any():
                genes = [self.genes[i] for i in np.flatnonzero(wrong.any(axis=0))]
                found = f"{int(wrong.sum())} values that are {what} in {listed(genes)}"
                return f"found {found}, {expected}"
        raise AssertionError(expected)
