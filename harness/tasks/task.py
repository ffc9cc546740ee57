"""A screen under a split: what a model may see, what it must predict, and the truth it is held to.

A model gets a `TrainView`. It answers for training pairs and for the *shown* controls; anything
else raises `HeldOutError`, so that a leak is a crash and not a good score. Scoring gets a *truth*:
the held-out pairs with the *held* controls of their contexts.

Controls are divided in two halves per context, by the screen's fingerprint and the context's name.
If both sides had the same ones, the noise of their mean would be part of every predicted effect and
of every true effect at once, and would pass for skill: predicting "no effect" would correlate with
the truth. The price is half of the controls; `controls="shared"` is there for comparing with tools
that do not pay it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np

from harness.data import BLOCK_BYTES, Cells, Half, Reader, Scale, Screen, StoreCells, halved
from harness.errors import DataError
from harness.tasks.data_factors import DataFactors
from harness.tasks.splits import Assignment, Pair, assign
from harness.tasks.visible_cells import VisibleCells, VisibleRows

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from harness.tasks.split_kinds import SplitSpec

__all__ = ["Cells", "Prediction", "Query", "Task", "TrainView", "Truth"]

Truth = StoreCells
"""The held-out cells that scoring reads: for each context its held controls, then its pairs."""

Controls = Literal["divided", "shared"]


@dataclass(frozen=True, slots=True)
class Query:
    """A pair that a model is asked to predict, and what it may know of it.

    `targets` are the genes of the screen that the perturbation acts on, none where the name is no
    gene; `n_cells` is how many cells the prediction must have.
    """

    perturbation: str
    context: str
    targets: tuple[str, ...]
    n_cells: int


@dataclass(frozen=True, slots=True, eq=False)
class Prediction:
    """A model's answer to one query, on the log1p scale: cells, a profile, or both.

    `cells` is (n_cells, n_genes) float32, `profile` (n_genes,). A prediction without cells is given
    some by the step that the job declares (`harness.models.profile_to_cells`).
    """

    query: Query
    cells: np.ndarray | None = None
    profile: np.ndarray | None = None


class TrainView:
    """What a model may learn from: training pairs, and the shown controls of every context.

    Everything is on the log1p scale; `counts` gives the same cells as they were counted. Cells are
    read when asked for, a pair at a time, so that a model that needs means only never holds a
    screen in memory. Asking for any other pair raises `HeldOutError`.
    """

    def __init__(self, shown: VisibleRows) -> None:
        self._shown = shown
        self.genes: tuple[str, ...] = shown.store.genes
        self.contexts: tuple[str, ...] = tuple(sorted(shown.controls))
        self.pairs: tuple[Pair, ...] = tuple(sorted(shown.pairs, key=_by_context))
        self.perturbations: tuple[str, ...] = tuple(sorted({p.perturbation for p in self.pairs}))
        self.combination_separator: str | None = shown.store.card.get("combination_separator")

    @property
    def library_size(self) -> float | None:
        """What a cell's counts are scaled to before log1p; None where the screen has no counts."""
        return self._shown.store.library_size

    def counts(self) -> TrainView:
        """Return a view of the same cells as raw counts; `DataError` where the screen has none.

        What a model answers is on the log1p scale all the same: ``log1p(counts / their sum *
        library_size)``.
        """
        return TrainView(self._shown.counts())

    def without(self, perturbations: Iterable[str]) -> TrainView:
        """Return a view without any pair of some perturbations, as if they were held out."""
        return TrainView(self._shown.without(perturbations))

    def remembering(self) -> AbstractContextManager[None]:
        """Read each pseudobulk once within a ``with``, here and in views `without` some pairs."""
        return self._shown.remembering()

    def cells(self, perturbation: str, context: str) -> np.ndarray:
        """Return the cells of a training pair: (n_cells, n_genes) float32."""
        return self._shown.cells_of(perturbation, context).dense()

    def controls(
        self, context: str, n: int | None = None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        """Return shown control cells of a context: (n_cells, n_genes) float32.

        All of them without `n`, which a big screen has no memory for. With it, `n` different ones
        drawn by `rng` (the same ones each time without a generator), or all where there are fewer.
        """
        return self._shown.labelled(self._drawn(context, n, rng), "", context).dense()

    def batch_labels(self, perturbation: str, context: str) -> np.ndarray | None:
        """Return the batch of each cell of a training pair; None where the screen tells none."""
        self._shown.cells_of(perturbation, context)  # refuses a pair that is not shown
        return self._shown.batch_labels(self._shown.pairs[Pair(perturbation, context)])

    def control_batch_labels(self, context: str, n: int | None = None) -> np.ndarray | None:
        """Return the batch of each of the cells that `controls` returns, likewise."""
        return self._shown.batch_labels(self._drawn(context, n))

    def _drawn(
        self, context: str, n: int | None, rng: np.random.Generator | None = None
    ) -> np.ndarray:
        self._shown.controls_of(context)  # refuses a context that is not there
        rows = self._shown.controls[context]
        if n is None or n >= len(rows):
            return rows
        rng = np.random.default_rng(0) if rng is None else rng
        drawn: np.ndarray = rows[np.sort(rng.choice(len(rows), size=n, replace=False))]
        return drawn

    def control_blocks(self, context: str, max_bytes: int = BLOCK_BYTES) -> Iterator[np.ndarray]:
        """Yield all shown controls of a context, some at a time: (n, n_genes) float32."""
        for _, block in self._shown.controls_of(context).blocks(max_bytes):
            yield block

    def pseudobulk(self, perturbation: str, context: str) -> np.ndarray:
        """Return the mean over the cells of a training pair: (n_genes,) float64."""
        cells = self._shown.cells_of(perturbation, context)
        return self._shown.pseudobulk(cells, self._shown.pairs[Pair(perturbation, context)])

    def control_pseudobulk(self, context: str) -> np.ndarray:
        """Return the mean over the shown controls of a context: (n_genes,) float64."""
        cells = self._shown.controls_of(context)
        return self._shown.pseudobulk(cells, self._shown.controls[context])

    def effect(self, perturbation: str, context: str) -> np.ndarray:
        """Return a training pair's pseudobulk less that of its context's controls: (n_genes,)."""
        mean = self.pseudobulk(perturbation, context)
        effect: np.ndarray = mean - self.control_pseudobulk(context)
        return effect

    def n_cells(self, perturbation: str, context: str) -> int:
        """Count the cells of a training pair."""
        return self._shown.cells_of(perturbation, context).n_cells

    def n_controls(self, context: str) -> int:
        """Count the shown controls of a context."""
        return self._shown.controls_of(context).n_cells

    def training_cells(self) -> VisibleCells:
        """Return every training cell by its position; what `data_loader` streams."""
        return self._shown.training(self.pairs)

    def control_cells(self, context: str) -> VisibleCells:
        """Return the shown controls of a context by their position."""
        return self._shown.shown_controls(context)

    def targets(self, perturbation: str) -> tuple[str, ...]:
        """Return the genes of the screen that any perturbation acts on: a name is no secret."""
        return self._shown.store.targets(perturbation)

    def batches(
        self, max_bytes: int = BLOCK_BYTES, rng: np.random.Generator | None = None
    ) -> Iterator[tuple[Pair, np.ndarray]]:
        """Yield every training cell once, in blocks of one pair: (n, n_genes) float32.

        Pairs come in their sorted order, or in one drawn by `rng`.
        """
        order = np.arange(len(self.pairs)) if rng is None else rng.permutation(len(self.pairs))
        for i in order:
            pair = self.pairs[i]
            for _, block in self._shown.cells_of(*pair).blocks(max_bytes):
                yield pair, block


class Task:
    """A screen, a split and a fold of it.

    Parameters
    ----------
    store
        The screen.
    split
        As `parse_split` returns it.
    fold
        Which of the split's folds.
    controls
        ``divided`` gives each side its own half of the controls of a context, ``shared`` all to
        both.
    cache
        Folder or URL for pseudobulks, which every trial on a screen needs. Any number of processes
        may share it.
    data
        What the model sees of the training data, if not all of it.
    """

    def __init__(
        self,
        store: Screen,
        split: SplitSpec,
        fold: int = 0,
        *,
        controls: Controls = "divided",
        cache: str | None = None,
        data: DataFactors | None = None,
    ) -> None:
        self.store = store
        self._reader = Reader(store)
        self.split = split
        self.fold = fold
        self.controls = controls
        self.cache = cache
        for context in sorted({pair.context for pair in self.pairs_of("test")}):
            self._check_controls(context)
        self.data = data or DataFactors()
        if self.data:
            n_controls = {c: len(self._control_rows(c, "shown")) for c in self._control_ranges}
            n_cells = {pair: len(self._rows(pair)) for pair in self.assignment.train}
            self.data.check(store, n_cells, n_controls, self._kept_contexts)
        self._shown_reader = self.data.reader(self._reader)

    @cached_property
    def assignment(self) -> Assignment:
        """The pairs of each side."""
        separator = self.store.card.get("combination_separator")
        return assign(self.split, self._ranges, self.fold, separator)

    def pairs_of(self, side: str) -> tuple[Pair, ...]:
        """Return the pairs of a side in the order of the store, by context first."""
        if side not in Assignment._fields:
            msg = f"side is {side!r}, expected one of {', '.join(Assignment._fields)}"
            raise ValueError(msg)
        return tuple(sorted(getattr(self.assignment, side), key=_by_context))

    def train_view(self) -> TrainView:
        """Return what a model is fitted to."""
        data, screen = self.data, self.store.fingerprint
        pairs = data.pairs(self.assignment.train, self._kept_contexts)
        train = {pair: data.cells(self._rows(pair), screen, pair) for pair in pairs}
        shown = {
            c: data.controls(self._control_rows(c, "shown"), screen, c)
            for c in self._control_ranges
        }
        return TrainView(
            VisibleRows(self._shown_reader, train, shown, self._refusals(), self.cache)
        )

    def replicate_view(self, side: str = "test") -> TrainView:
        """Return what a ceiling is fitted to: one half of the cells of each held-out pair.

        A ceiling has no training data, so it has no data factors.
        """
        if self.data:
            msg = "a ceiling sees no training data: its trial takes no data factors"
            raise ValueError(msg)
        pairs = {pair: self._half(pair, "shown") for pair in self._divisible(side)}
        shown = {c: self._control_rows(c, "shown") for c in self._control_ranges}
        return TrainView(VisibleRows(self._reader, pairs, shown, {}, self.cache))

    def queries(self, side: str = "test", *, half: bool = False) -> tuple[Query, ...]:
        """Return what a model is asked, by context and perturbation.

        With `half`, what a ceiling is asked: as many cells as `replicate_view` has of a pair. A
        pair of one cell cannot be divided and is then left out, of `truth` too.
        """
        pairs = self._divisible(side) if half else self.pairs_of(side)
        return tuple(
            Query(
                pair.perturbation,
                pair.context,
                self.store.targets(pair.perturbation),
                len(self._half(pair, "shown") if half else self._rows(pair)),
            )
            for pair in pairs
        )

    def truth(self, side: str = "test", *, half: bool = False, scale: Scale = "log1p") -> Truth:
        """Return the cells of a side's pairs and the held controls of their contexts.

        With `half`, the other half of each pair than `replicate_view` has.
        """
        pairs = self._divisible(side) if half else self.pairs_of(side)
        rows = {pair: self._half(pair, "held") if half else self._rows(pair) for pair in pairs}
        return self._cells(rows, "held", scale)

    def shown_controls(self, side: str = "test", *, scale: Scale = "log1p") -> StoreCells:
        """Return the controls that a prediction for the side is measured from: the shown ones.

        All of them whatever ``control_cells`` says, but at the depth that the model saw.
        """
        contexts = dict.fromkeys(pair.context for pair in self.pairs_of(side))
        return self._cells({Pair("", context): _NO_ROWS for context in contexts}, "shown", scale)

    def _cells(self, rows: Mapping[Pair, np.ndarray], controls: Half, scale: Scale) -> StoreCells:
        parts: list[tuple[str, str, np.ndarray]] = []
        for context in dict.fromkeys(pair.context for pair in rows):
            parts.append((self.store.control_label, context, self._control_rows(context, controls)))
            parts += [(p, c, some) for (p, c), some in rows.items() if c == context]
        sizes = [len(some) for _, _, some in parts]
        return StoreCells(
            self._reader if controls == "held" else self._shown_reader,
            np.concatenate([_NO_ROWS, *(some for _, _, some in parts)]),
            np.repeat(np.array([name for name, _, _ in parts], dtype=np.str_), sizes),
            np.repeat(np.array([context for _, context, _ in parts], dtype=np.str_), sizes),
            scale,
        )

    @cached_property
    def _ranges(self) -> dict[Pair, tuple[int, int]]:
        label = self.store.control_label
        return {
            Pair(r.perturbation, r.context): (r.start, r.stop)
            for r in self.store.ranges
            if r.perturbation != label
        }

    @cached_property
    def _control_ranges(self) -> dict[str, tuple[int, int]]:
        label = self.store.control_label
        return {r.context: (r.start, r.stop) for r in self.store.ranges if r.perturbation == label}

    @property
    def _kept_contexts(self) -> frozenset[str]:
        """The held-out contexts that are partly trained on; ``train_contexts: N`` has them first.

        Where every context has tested pairs, as under unseen-perturbation, none is held out.
        """
        if self.split.version == 1 or self.split.kind not in ("few-shot-context", "listed"):
            return frozenset()
        tested = {pair.context for pair in self.assignment.test}
        trained = {pair.context for pair in self.assignment.train}
        return frozenset(tested & trained) if trained - tested else frozenset()

    def _rows(self, pair: Pair) -> np.ndarray:
        return np.arange(*self._ranges[pair])

    def _divisible(self, side: str) -> tuple[Pair, ...]:
        return tuple(pair for pair in self.pairs_of(side) if len(self._rows(pair)) > 1)

    def _half(self, pair: Pair, half: Half) -> np.ndarray:
        return halved(self._rows(pair), half, self.store.fingerprint, *pair)

    def _control_rows(self, context: str, half: Half) -> np.ndarray:
        rows = np.arange(*self._control_ranges[context])
        if self.controls == "shared":
            return rows
        return halved(rows, half, self.store.fingerprint, context)

    def _refusals(self) -> dict[Pair, str]:
        where = f"of split {self.split.kind!r}, fold {self.fold}"
        said = {
            pair: f"is on the {side} side {where}"
            for side in ("validation", "test")
            for pair in self.pairs_of(side)
        }
        unused = set(self._ranges) - set(said) - self.assignment.train
        return (
            dict.fromkeys(self.assignment.train, "is left out by the trial's data factors")
            | said
            | dict.fromkeys(unused, f"is on no side {where}")
        )

    def _check_controls(self, context: str) -> None:
        start, stop = self._control_ranges.get(context, (0, 0))
        needed = 2 if self.controls == "divided" else 1
        if stop - start < needed:
            raise DataError(
                f"Screen {self.store.card.get('name')!r}, context {context!r}: effects have no "
                f"origin. Found {stop - start} control cells, expected at least {needed} for "
                f"controls that are {self.controls}. Leave the context out of the split."
            )


_NO_ROWS = np.empty(0, dtype=np.int64)


def _by_context(pair: Pair) -> tuple[str, str]:
    return pair.context, pair.perturbation
