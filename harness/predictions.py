"""Predictions on disk: written as they are made, checked one by one, read by blocks of genes.

A prediction is laid out as a store: cells sorted into one range per pair, `obs` with `perturbation`
and `context`, log1p values, readable by `anndata.read_zarr`. Before the predicted cells stand the
controls that they are measured from, the ones that the model was shown. A scratch prediction,
deleted once it is scored, can do without them (`controls=None`) and be opened `with_controls`, that
are read where they lie: they can be a third of the file.

Profiles are a prediction with one cell per pair, so that whatever reads the one reads the other.
"""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

import numpy as np

from harness import paths
from harness.archives import SUFFIX, unpacked
from harness.errors import HarnessError, ModelError, listed
from harness.foreign import DEFAULT, open_foreign
from harness.store import Store, open_store, ranges_of
from harness.store_writer import StoreWriter

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from types import TracebackType

    import pandas as pd

    from harness.cells import Cells, Scale, StoreCells
    from harness.kernels.threads import Limits

LOG1P_BELOW = 15.0
"""The reference scorers refuse log1p values from here on: e^15 counts in one gene are none."""


class Asked(Protocol):
    """What the writer needs of a query; `harness.tasks.Query` is one."""

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
    """What the writer needs of a prediction; `harness.tasks.Prediction` with cells is one."""

    @property
    def query(self) -> Asked:
        """The query that is answered."""

    @property
    def cells(self) -> np.ndarray | None:
        """The cells: (n_cells, n_genes), log1p scale."""


class StoredCells:
    """The cells of a store or a prediction on disk; implements `harness.cells.Cells`.

    `controls`, cells of the same screen that the file itself does not hold, follow its own.
    """

    def __init__(self, store: Store, controls: Cells | None = None) -> None:
        self._store = store
        self._controls = controls
        self.genes = store.genes
        self.control_label = store.control_label
        self.scale: Scale = store.scale
        sizes = [r.stop - r.start for r in store.ranges]
        names = np.repeat(np.array([r.perturbation for r in store.ranges], dtype=np.str_), sizes)
        contexts = np.repeat(np.array([r.context for r in store.ranges], dtype=np.str_), sizes)
        if controls is not None:
            names = np.concatenate([names, controls.perturbations])
            contexts = np.concatenate([contexts, controls.contexts])
        self.perturbations = names
        self.contexts = contexts

    @property
    def fingerprint(self) -> str | None:
        """A digest of the content; none where the controls are another's."""
        return self._store.fingerprint if self._controls is None else None

    @property
    def n_cells(self) -> int:
        """The number of rows, the controls' among them."""
        return len(self.perturbations)

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell over all genes, for counts: (n_cells,) float64."""
        own = self._store.library_sizes()
        return own if self._controls is None else _both(own, self._controls.library_sizes())

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return the genes from `start` to `stop` of all cells: (n_cells, stop - start)."""
        own = self._store.gene_block(start, stop)
        return own if self._controls is None else _both(own, self._controls.gene_block(start, stop))


def _both(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    together: np.ndarray = np.concatenate([first, second])
    return together


class PredictionWriter:
    """Writes predictions in the order of the queries; nothing is there until `finish`.

    Use as a context manager: what is left without `finish` leaves no file. Each prediction is
    checked when it is added, and a model that breaks its contract is a `ModelError` that names
    model and query.

    Parameters
    ----------
    path
        The folder to write; a Zarr store.
    queries
        What must be answered, in this order.
    genes
        The columns.
    control_label
        The perturbation of control cells.
    controls
        The controls to write before the predicted cells; None leaves them out.
    model
        For messages and the file's card.
    compression
        ``none`` for a prediction that is deleted once it is scored.
    lasting
        False for one that this process deletes itself; see `StoreWriter`.
    """

    def __init__(  # noqa: PLR0913 - all but two by keyword, and no two belong together
        self,
        path: str,
        queries: Sequence[Asked],
        *,
        genes: Sequence[str],
        control_label: str,
        controls: StoreCells | None = None,
        model: str = "model",
        compression: Literal["zstd", "none"] = "zstd",
        lasting: bool = True,
    ) -> None:
        if not queries:
            raise ModelError(f"{model}: there is no query to predict. Check the split.")
        self.queries = tuple(queries)
        self.genes = tuple(genes)
        self.model = model
        self.profiles = np.full((len(queries), len(self.genes)), np.nan)
        self._places = {(q.perturbation, q.context): i for i, q in enumerate(queries)}
        self._answered = 0
        obs = _labels(self.queries, controls)
        self._writer = StoreWriter(
            path,
            obs=obs,
            var=_frame({}, index=self.genes),
            ranges=ranges_of(obs["context"], obs["perturbation"]),
            dtype="float32",
            card={"name": f"predictions of {model}"},
            scale="log1p",
            control_label=control_label,
            compression=compression,
            lasting=lasting,
        )
        if controls is not None:
            for _, block in controls.blocks():
                self._writer.append(block)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._writer.__exit__(kind, error, trace)
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
        """Check the next prediction and write its cells; its mean becomes the query's profile."""
        where = self._check_query(prediction.query)
        cells = self._check_cells(prediction.cells, prediction.query, where)
        self._writer.append(cells)
        # Of the cells, not of the profile that a model may give besides: these are what is scored.
        self.profiles[self._answered] = cells.mean(axis=0, dtype=np.float64)
        self._answered += 1

    def finish(self) -> StoredCells:
        """Publish the file and open it; `ModelError` where queries are unanswered."""
        self.publish()
        return StoredCells(open_store(self._writer.path))

    def publish(self) -> None:
        """Give the file its name; `ModelError` where queries are unanswered."""
        if missing := self.queries[self._answered :]:
            raise ModelError(
                f"{self.model} left {len(missing)} of {len(self.queries)} queries unanswered: "
                f"{listed((q.perturbation, q.context) for q in missing)}. Expected one prediction "
                "for each."
            )
        self._writer.publish()

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

    def _check_cells(self, cells: np.ndarray | None, query: Asked, where: str) -> np.ndarray:
        shape = (query.n_cells, len(self.genes))
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


def write_profiles(
    path: str,
    queries: Sequence[Asked],
    profiles: np.ndarray,
    *,
    genes: Sequence[str],
    control_label: str,
    controls: Mapping[str, np.ndarray],
) -> None:
    """Write one profile for each query and for each context's controls, on the log1p scale.

    Parameters
    ----------
    path
        The folder to write; reads like a prediction whose pairs have one cell each.
    queries, profiles
        What was asked, and (n_queries, n_genes) the answers.
    genes
        The columns.
    control_label, controls
        The controls' perturbation, and (n_genes,) their profile by context.
    """
    contexts = [*controls, *(query.context for query in queries)]
    names = [*(control_label for _ in controls), *(query.perturbation for query in queries)]
    obs = _frame({"perturbation": names, "context": contexts})
    with StoreWriter(
        path,
        obs=obs,
        var=_frame({}, index=list(genes)),
        ranges=ranges_of(contexts, names),
        dtype="float64",
        card={"name": "profiles"},
        scale="log1p",
        control_label=control_label,
    ) as writer:
        for profile in controls.values():
            writer.append(profile[None, :])
        writer.append(profiles)
        writer.publish()


def open_predictions(
    path: str,
    *,
    perturbation_column: str = "target_gene",
    context_column: str | None = None,
    control_label: str = "non-targeting",
    scale: Scale | None = None,
    limits: Limits = DEFAULT,
) -> Cells:
    """Open predictions: ours, a foreign `.h5ad` or AnnData `.zarr`, or a `.vcc` archive.

    Parameters
    ----------
    path
        A prediction or store of ours says itself what its labels and scale are.
    perturbation_column, context_column, control_label, scale, limits
        For a foreign file; see `harness.foreign.open_foreign`.
    """
    if is_store(path):
        return StoredCells(open_store(path))
    with unpacked(path) if path.endswith(SUFFIX) else nullcontext(path) as file:
        return open_foreign(
            os.fspath(file),
            perturbation_column=perturbation_column,
            context_column=context_column,
            control_label=control_label,
            scale=scale,
            limits=limits,
        )


def with_controls(path: str, controls: Cells) -> StoredCells:
    """Open a prediction that was written without controls, with those it is measured from."""
    return StoredCells(open_store(path), controls)


def is_store(path: str) -> bool:
    """Whether there is a store or prediction of ours, and not a foreign file or nothing."""
    root = paths.join(path, "zarr.json")
    if not paths.exists(root):
        return False
    described = json.loads(paths.read_text(root))
    return "harness" in described.get("attributes", {})


def _labels(queries: Iterable[Asked], controls: StoreCells | None) -> pd.DataFrame:
    names: list[Any] = [] if controls is None else [controls.perturbations]
    contexts: list[Any] = [] if controls is None else [controls.contexts]
    for query in queries:
        names.append(np.full(query.n_cells, query.perturbation))
        contexts.append(np.full(query.n_cells, query.context))
    return _frame({"perturbation": np.concatenate(names), "context": np.concatenate(contexts)})


def _frame(columns: Mapping[str, Any], index: Sequence[str] | None = None) -> pd.DataFrame:
    import pandas as pd

    data = {name: pd.Categorical(values) for name, values in columns.items()}
    frame = pd.DataFrame(data, index=None if index is None else pd.Index(index))
    frame.index = frame.index.astype(str)
    return frame
