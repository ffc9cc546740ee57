"""The rows of a screen that a model may see, and the refusal of all others.

Every reading of a `TrainView` ends here, whether it asks for a pair by name or for cells by
position: a row that is not shown has neither a name nor a position.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from copy import copy
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from harness.data import BLOCK_BYTES, Reader, StoreCells, runs
from harness.errors import HeldOutError, near_match
from harness.storage import paths
from harness.tasks.splits import Pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from harness.data import Scale


REMEMBERED = 64
"""Means that a process holds: each effect asks for its controls', and an object store is slow."""


def kept_mean(folder: str, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return a mean that was kept under a name, or compute it and keep it: (n_genes,) float64.

    The name must say of which cells it is: what is there is never written again.
    """
    path = paths.join(folder, f"{name}.npy")
    with suppress(FileNotFoundError):
        return _read(path).copy()
    mean = compute()
    buffer = BytesIO()
    np.save(buffer, mean)
    paths.write_atomic(path, buffer.getvalue())
    return mean


@lru_cache(maxsize=REMEMBERED)
def _read(path: str) -> np.ndarray:
    return np.asarray(np.load(BytesIO(paths.read_bytes(path))), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class VisibleCells:
    """Cells that a model may see, by their position among them, in the order of the screen.

    `rows` (n_cells,) ascend; they say how near cells lie on disk and reach nothing by themselves.
    `pairs` (n_cells,) are positions in the view's `pairs`; zeros for controls.
    """

    reader: Reader
    rows: np.ndarray
    pairs: np.ndarray
    scale: Scale = "log1p"

    @property
    def n_cells(self) -> int:
        """The number of cells."""
        return len(self.rows)

    def read(self, positions: np.ndarray) -> np.ndarray:
        """Return cells by their ascending positions, on `scale`: (n, n_genes) float32."""
        rows = self.rows[positions]
        cells = np.empty((len(rows), len(self.reader.store.genes)), dtype=np.float32)
        size = max(1, BLOCK_BYTES // (4 * max(1, cells.shape[1])))
        for first, last in runs(rows, size):
            cells[first:last] = self.reader.rows(rows[first:last], self.scale)
        return cells


class VisibleRows:
    """The rows that a view may read, and why it may not read others."""

    def __init__(
        self,
        reader: Reader,
        pairs: Mapping[Pair, np.ndarray],
        controls: Mapping[str, np.ndarray],
        refusals: Mapping[Pair, str],
        cache: str | None,
    ) -> None:
        self.reader = reader
        self.store = reader.store
        self.pairs = pairs
        self.controls = controls
        self.refusals = refusals
        self.cache = cache
        self.refused: list[Pair] = []
        self.scale: Scale = "log1p"
        self._content = f"{self.store.fingerprint}:{reader.tag}"
        self._means: dict[str, np.ndarray] | None = None

    def counts(self) -> VisibleRows:
        """Return the same rows as raw counts; `DataError` where the screen has none."""
        found = copy(self)
        found.scale = "counts"
        found._content = f"{self.store.fingerprint}:{self.reader.tag}:counts"
        found.labelled(np.empty(0, dtype=np.int64), "", "")  # refuses a screen of log1p values
        return found

    def without(self, perturbations: Iterable[str]) -> VisibleRows:
        """Return the same rows but those of some perturbations, which are then refused."""
        left_out = frozenset(perturbations)
        gone = {pair for pair in self.pairs if pair.perturbation in left_out}
        found = copy(self)
        found.pairs = {pair: rows for pair, rows in self.pairs.items() if pair not in gone}
        found.refusals = {**self.refusals, **dict.fromkeys(gone, "is left out of this view")}
        return found

    @contextmanager
    def remembering(self) -> Iterator[None]:
        """Hold every pseudobulk that is computed meanwhile, 8 bytes a gene and pair, until the end.

        The rows that are made `without` some perturbations meanwhile share what is held.
        """
        self._means = {}
        try:
            yield
        finally:
            self._means = None

    def cells_of(self, perturbation: str, context: str) -> StoreCells:
        """Return the cells of a training pair; `HeldOutError` for any other."""
        pair = Pair(perturbation, context)
        if pair not in self.pairs:
            self.refused.append(pair)
            raise HeldOutError(
                f"{self._refusal(pair)} A model sees training pairs and controls only."
            )
        return self.labelled(self.pairs[pair], perturbation, context)

    def controls_of(self, context: str) -> StoreCells:
        """Return the shown controls of a context."""
        if context not in self.controls:
            raise HeldOutError(
                f"Context {context!r} has no control cells. "
                f"{near_match(context, tuple(self.controls))}"
            )
        return self.labelled(self.controls[context], self.store.control_label, context)

    def pseudobulk(self, cells: StoreCells, rows: np.ndarray) -> np.ndarray:
        """Return the mean of the cells, from the cache where it has been computed before."""
        # The rows themselves are part of the name: another half of the controls is another file.
        name = blake2b(self._content.encode() + rows.tobytes(), digest_size=16).hexdigest()
        if self._means is None:
            return self._mean(name, cells)
        if name not in self._means:
            self._means[name] = self._mean(name, cells)
        return self._means[name].copy()

    def _mean(self, name: str, cells: StoreCells) -> np.ndarray:
        if self.cache is None:
            return cells.mean()
        return kept_mean(paths.join(self.cache, "pseudobulks"), name, cells.mean)

    def batch_labels(self, rows: np.ndarray) -> np.ndarray | None:
        """Return the batches of rows, which must be shown ones; None where they are not known."""
        known = self.reader.batches
        return None if known is None else known[rows].astype(str)

    def training(self, pairs: Sequence[Pair]) -> VisibleCells:
        """Return the cells of all training pairs, numbered as in `pairs`."""
        parts = [self.pairs[pair] for pair in pairs]
        rows = np.concatenate([np.empty(0, dtype=np.int64), *parts])
        numbers = np.repeat(np.arange(len(pairs), dtype=np.int32), [len(part) for part in parts])
        order = np.argsort(rows, kind="stable")
        return VisibleCells(self.reader, rows[order], numbers[order], self.scale)

    def shown_controls(self, context: str) -> VisibleCells:
        """Return the shown controls of a context."""
        self.controls_of(context)  # refuses a context that is not there
        rows = self.controls[context]
        return VisibleCells(self.reader, rows, np.zeros(len(rows), dtype=np.int32), self.scale)

    def labelled(self, rows: np.ndarray, perturbation: str, context: str) -> StoreCells:
        """Return rows, which must be shown ones, with their labels."""
        names = np.full(len(rows), perturbation), np.full(len(rows), context)
        return StoreCells(self.reader, rows, *names, self.scale)

    def _refusal(self, pair: Pair) -> str:
        said = f"Perturbation {pair.perturbation!r} in context {pair.context!r}"
        if pair in self.refusals:
            return f"{said} {self.refusals[pair]}."
        if pair.perturbation == self.store.control_label:
            return f"{said} is the control: ask for it with `controls({pair.context!r})`."
        known = sorted({p.perturbation for p in self.pairs if p.context == pair.context})
        if not known:
            return f"{said} cannot be shown: no pair of that context is."
        return f"{said} is not in the screen. {near_match(pair.perturbation, known)}"
