"""What data factors do to the training data: fewer pairs, fewer cells, shallower cells.

They act on what a model sees, never on the truth, nor on which pairs are asked about:

- ``train_contexts``: training pairs of these contexts alone, or of so many: the held-out context
  that a split shows a part of, then others, chosen by hash. The controls of every context stay.
- ``train_perturbations``: so many of the perturbations that are then left, or a share of them,
  chosen by hash; each in all of its contexts.
- ``cells_per_perturbation``: so many cells of each training pair; all where it has fewer.
- ``control_cells``: so many of the shown controls of each context, as far as the model sees them.
  What a prediction is scored against stays: a model may not hide its ignorance of the controls.
- ``umi_depth``: each molecule is kept with this probability, or with the one that brings the
  screen's median to this many per cell. Cells are normalised to the screen's own library size all
  the same. The controls that a prediction is measured from are thinned with it, for a predicted
  effect would else contain the difference in depth; scores that compare profiles themselves, such
  as the MAE, do contain it.

What is drawn depends on names, the trial's seed and the screen's fingerprint alone, and is nested:
the first 10 cells are among the first 20, and a molecule kept at a tenth is kept at a half.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.config import DATA_FACTORS, JSON, describe
from harness.data import Reader, runs
from harness.errors import DataError, listed, near_match
from harness.kernels import thinned

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from harness.data import Screen
    from harness.tasks.splits import Pair


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a whole number of at least 1, or null for all")
    return value


def _depth(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise ValueError(
            "a share of the molecules above 0 and up to 1, the median of molecules per cell above "
            "1, or null for all"
        )
    return None if value == 1 else float(value)


def _share_or_count(value: Any) -> int | float | None:
    if type(value) is int and value >= 1:
        return value
    if type(value) is float and 0 < value <= 1:
        return None if value == 1 else value
    raise ValueError(
        "a whole number of perturbations, a share of them such as 0.5, or null for all"
    )


def _names_or_count(value: Any) -> int | tuple[str, ...]:
    if type(value) is int and value >= 1:
        return value
    names = (value,) if isinstance(value, str) else value
    right = isinstance(names, list | tuple) and names and all(isinstance(n, str) for n in names)
    if not right or len(set(names)) < len(names):
        raise ValueError(
            "a context, a list of different contexts (a list in the list of values), a whole "
            "number of them, or null for all"
        )
    return tuple(sorted(names))


_READ: dict[str, Callable[[Any], JSON]] = {
    "cells_per_perturbation": _count,
    "control_cells": _count,
    "train_contexts": _names_or_count,
    "train_perturbations": _share_or_count,
    "umi_depth": _depth,
}


def factor_value(name: str, value: Any) -> JSON:
    """Return a factor's value in the one form that trials have; None for the default.

    Raises
    ------
    ValueError
        The factor is unknown, or the value is none of its own; says what was expected.
    """
    if name not in _READ:
        raise ValueError(f"is not a data factor. {near_match(name, DATA_FACTORS)}")
    if value is None:
        return None
    try:
        return _READ[name](value)
    except ValueError as error:
        raise ValueError(f"found {describe(value)}, expected {error}.") from None


def factor_values(factors: Mapping[str, Any]) -> tuple[tuple[str, JSON], ...]:
    """Return factors as a `TrialSpec` holds them: sorted by name, defaults left out."""
    read = {name: factor_value(name, value) for name, value in sorted(factors.items())}
    return tuple((name, value) for name, value in read.items() if value is not None)


def data_factor_problems(factors: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the dotted key of each wrong value, below the factors, and what is wrong with it.

    A list means "each of these".
    """
    for name, value in factors.items():
        if value == []:
            yield name, "is an empty list: it means no trial at all."
        many = value if isinstance(value, list) else [value]
        for i, one in enumerate(many):
            try:
                factor_value(name, one)
            except ValueError as error:
                known = name in _READ and isinstance(value, list)
                yield f"{name}[{i}]" if known else name, str(error)
                if name not in _READ:
                    break


@dataclass(frozen=True, slots=True)
class DataFactors:
    """The data factors of one trial and its seed; None is all there is."""

    seed: int = 0
    cells_per_perturbation: int | None = None
    control_cells: int | None = None
    train_contexts: int | tuple[str, ...] | None = None
    train_perturbations: int | float | None = None
    umi_depth: float | None = None

    @classmethod
    def of(cls, factors: Iterable[tuple[str, Any]], seed: int) -> DataFactors:
        """Return the factors of a `TrialSpec`."""
        return cls(seed=seed, **dict(factors))

    def __bool__(self) -> bool:
        return self != DataFactors(seed=self.seed)

    def pairs(
        self, training: Collection[Pair], kept: Collection[str] = frozenset()
    ) -> frozenset[Pair]:
        """Return the training pairs that are shown.

        Parameters
        ----------
        training
            The training pairs of the fold.
        kept
            Contexts that a number of contexts counts first.
        """
        contexts = {pair.context for pair in training}
        if isinstance(self.train_contexts, int):
            ordered = self._first(contexts, len(contexts), "contexts")
            ordered.sort(key=lambda context: context not in kept)
            contexts = set(ordered[: self.train_contexts])
        elif self.train_contexts is not None:
            contexts &= set(self.train_contexts)
        left = {pair for pair in training if pair.context in contexts}
        if self.train_perturbations is not None:
            names = {pair.perturbation for pair in left}
            n = _number(self.train_perturbations, len(names))
            chosen = set(self._first(names, n, "perturbations"))
            left = {pair for pair in left if pair.perturbation in chosen}
        return frozenset(left)

    def cells(self, rows: np.ndarray, fingerprint: str, pair: Pair) -> np.ndarray:
        """Return the shown rows of a training pair, ascending."""
        return self._drawn(rows, self.cells_per_perturbation, fingerprint, *pair)

    def controls(self, rows: np.ndarray, fingerprint: str, context: str) -> np.ndarray:
        """Return the rows of a context's controls that the model sees, ascending."""
        return self._drawn(rows, self.control_cells, fingerprint, context)

    def reader(self, reader: Reader) -> Reader:
        """Return what reads the shown cells: at their depth, or thinned."""
        if self.umi_depth is None:
            return reader
        store = reader.store
        share = self.umi_depth
        if share > 1:
            assert store.library_size is not None, "a screen of counts knows its library size"
            share = share / store.library_size
        return ThinReader(store, share, int.from_bytes(self._digest("depth", store.fingerprint)))

    def check(
        self,
        store: Screen,
        training: Mapping[Pair, int],
        controls: Mapping[str, int],
        kept: Collection[str] = frozenset(),
    ) -> None:
        """Raise `DataError` where a factor asks for what the screen does not have.

        Parameters
        ----------
        training
            The training pairs of the fold, and how many cells each has.
        controls
            How many shown controls each context has.
        kept
            As in `pairs`.
        """
        found = [*self._wrong_depth(store), *self._wrong_names(training, kept)]
        cells = [training[pair] for pair in self.pairs(training, kept)]
        for name, wanted, sizes, what in (
            ("cells_per_perturbation", self.cells_per_perturbation, cells, "training pair"),
            ("control_cells", self.control_cells, controls.values(), "context's shown controls"),
        ):
            most = max(sizes, default=0)
            if wanted is not None and wanted > most:
                found.append(
                    f"{name}: found {wanted}, but the largest {what} has {most} cells. "
                    "Ask for fewer, or for null, which means all."
                )
        if found:
            raise DataError(f"Screen {store.card.get('name')!r}: {found[0]}")

    def _wrong_depth(self, store: Screen) -> Iterator[str]:
        if self.umi_depth is None:
            return
        if store.scale != "counts":
            yield (
                "umi_depth: molecules can be thinned where they are counted, but this screen "
                "holds log1p values. Convert it from its counts, or leave the factor out."
            )
        elif self.umi_depth >= max(1.0, store.library_size or 0.0):
            yield (
                f"umi_depth: found {self.umi_depth:g} molecules per cell, but the screen's median "
                f"is {store.library_size:g}. Ask for fewer, or for a share below 1."
            )

    def _wrong_names(self, training: Collection[Pair], kept: Collection[str]) -> Iterator[str]:
        contexts = sorted({pair.context for pair in training})
        wanted = self.train_contexts
        if isinstance(wanted, int) and wanted > len(contexts):
            yield (
                f"train_contexts: found {wanted}, but training pairs are in {len(contexts)}: "
                f"{listed(contexts)}."
            )
        elif isinstance(wanted, tuple):
            absent = [name for name in wanted if name not in contexts]
            if absent:
                hint = near_match(absent[0], contexts)
                yield f"train_contexts: no training pair is in {absent[0]!r}. {hint}"
        shown = DataFactors(self.seed, train_contexts=wanted).pairs(training, kept)
        names = {pair.perturbation for pair in shown}
        count = self.train_perturbations
        if isinstance(count, int) and count > len(names):
            yield (
                f"train_perturbations: found {count}, but there are {len(names)} to train on. "
                "Ask for fewer, or for null, which means all."
            )

    def _first(self, names: Iterable[str], n: int, what: str) -> list[str]:
        """Return the first names in an order that is that of no alphabet, but the same always."""
        return sorted(names, key=lambda name: self._digest(what, name))[:n]

    def _drawn(self, rows: np.ndarray, n: int | None, *names: str) -> np.ndarray:
        if n is None or n >= len(rows):
            return rows
        rng = np.random.default_rng(int.from_bytes(self._digest("cells", *names)))
        chosen: np.ndarray = np.sort(rows[rng.permutation(len(rows))[:n]])
        return chosen

    def _digest(self, *names: str) -> bytes:
        return blake2b("\0".join([str(self.seed), *names]).encode(), digest_size=8).digest()


def _number(wanted: int | float, there: int) -> int:
    return wanted if isinstance(wanted, int) else max(1, int(wanted * there + 0.5))


class ThinReader(Reader):
    """Reads a screen of counts whose molecules are thinned, on either scale.

    Library sizes are those of the thinned cells. They need all genes of a cell, so they are counted
    when its row is read, or when they are first asked for; one number is kept for each cell.
    """

    def __init__(self, store: Screen, share: float, key: int) -> None:
        self._hold(store, share, key)

    def _hold(self, store: Screen, share: float, key: int) -> None:
        self.store, self.share, self.key = store, share, key
        self.tag = f"{share!r}:{key}"

    @cached_property
    def _known(self) -> np.ndarray:
        return np.full(max(r.stop for r in self.store.ranges), np.nan)

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store, "share": self.share, "key": self.key}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._hold(**state)

    def sizes_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the total count of cells: (n,) float64."""
        unknown = rows[np.isnan(self._known[rows])]
        for first, last in runs(unknown, 1024):
            wanted = unknown[first:last]
            low = int(wanted.min())
            block = self.store.rows(low, int(wanted.max()) + 1)
            self._seen(block[wanted - low], wanted, 0)
        sizes: np.ndarray = self._known[rows]
        return sizes

    def _seen(self, block: np.ndarray, rows: np.ndarray, first_gene: int) -> np.ndarray:
        try:
            kept = thinned(block, rows, first_gene, self.share, self.key)
        except ValueError as error:
            name = self.store.card.get("name")
            raise DataError(
                f"Screen {name!r}, umi_depth: {error}. Convert it from counts."
            ) from error
        if kept.shape[1] == len(self.store.genes):
            self._known[rows] = kept.sum(axis=1, dtype=np.float64)
        return kept
