"""Cells as scoring reads them: labelled rows, taken a block of genes at a time.

`Cells` is what a truth, a prediction of ours and a foreign file have in common. `StoreCells` is
some rows of a store, in any order, on the scale that is asked for: it holds row numbers and labels,
never the matrix, and reads what a block needs when it is asked.

Counts become log1p in one place, here: each cell is scaled to the screen's library size (the median
total count over the cells that have any), then ``log(1 + x)``, in float32. What was given up: a
cell is normalised again each time it is read, since keeping a second matrix on disk would double
every screen.
"""

from __future__ import annotations

from functools import cached_property
from hashlib import blake2b
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from harness.errors import DataError
from harness.kernels import log1p_normalise

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Scale = Literal["log1p", "counts"]

BLOCK_BYTES = 64 * 1024 * 1024
"""Size of the float32 blocks in which rows are streamed: a thousand cells of 18,000 genes."""

_GAP = 1024
"""Rows that are read and dropped rather than ending a span: less than a store's shard."""


class Cells(Protocol):
    """Labelled cells; what `score` needs of a truth or a prediction, and nothing else."""

    @property
    def genes(self) -> tuple[str, ...]:
        """The gene names, in the order of the columns."""

    @property
    def perturbations(self) -> np.ndarray:
        """The perturbation of each cell, `control_label` for controls: (n_cells,) str."""

    @property
    def contexts(self) -> np.ndarray:
        """The context of each cell: (n_cells,) str."""

    @property
    def control_label(self) -> str:
        """What `perturbations` says of a control cell."""

    @property
    def scale(self) -> Scale:
        """What the values are: ``log1p`` or ``counts``."""

    @property
    def n_cells(self) -> int:
        """The number of rows."""

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return the columns from `start` to `stop` of all cells: (n_cells, stop - start)."""

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell over all genes, for counts: (n_cells,) float64."""


class PairRange(Protocol):
    """Where the cells of one pair, or the controls of one context, lie."""

    @property
    def context(self) -> str:
        """The context."""

    @property
    def perturbation(self) -> str:
        """The perturbation, or the control label."""

    @property
    def start(self) -> int:
        """The first row."""

    @property
    def stop(self) -> int:
        """The row after the last."""


class Screen(Protocol):
    """What tasks need of a store; `harness.testing` has one in memory."""

    @property
    def genes(self) -> tuple[str, ...]:
        """The gene names, in the order of the columns."""

    @property
    def scale(self) -> Scale:
        """The scale on which the cells are stored."""

    @property
    def control_label(self) -> str:
        """The perturbation of control cells."""

    @property
    def card(self) -> dict[str, Any]:
        """The dataset card that the screen was made by."""

    @property
    def fingerprint(self) -> str:
        """A digest of the content."""

    @property
    def ranges(self) -> Sequence[PairRange]:
        """The rows of every pair and of every context's controls."""

    @property
    def library_size(self) -> float | None:
        """The median total count over the cells that have any, for counts."""

    def rows(self, start: int, stop: int) -> np.ndarray:
        """Return some cells on the stored scale: (stop - start, n_genes)."""

    def gene_block(
        self, start: int, stop: int, first: int = 0, last: int | None = None
    ) -> np.ndarray:
        """Return some genes of the cells ``first:last`` on the stored scale: cells by genes."""

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell, for counts: (n_cells,) float64."""

    def batches(self) -> np.ndarray | None:
        """Return the batch of each cell, (n_cells,), where the card names a column of them."""

    def targets(self, perturbation: str) -> tuple[str, ...]:
        """Return the genes of the screen that the perturbation acts on."""


class Reader:
    """Reads a screen on either scale; the library sizes are fetched once for all who share it."""

    tag = ""
    """What tells these values from the screen's own."""

    def __init__(self, store: Screen) -> None:
        self.store = store

    def __getstate__(self) -> dict[str, Any]:
        # A hundred million library sizes have no place in a pickle.
        return {"store": self.store}

    @cached_property
    def sizes(self) -> np.ndarray:
        """The total count of each cell of the screen: (n_cells,) float64."""
        return self.store.library_sizes()

    @cached_property
    def batches(self) -> np.ndarray | None:
        """The batch of each cell of the screen, where that is known: (n_cells,)."""
        return self.store.batches()

    def rows(self, rows: np.ndarray, scale: Scale) -> np.ndarray:
        """Return neighbouring rows, in one read, all genes: (n, n_genes) float32."""
        low = int(rows.min())
        block = self.store.rows(low, int(rows.max()) + 1)
        wanted = rows - low
        if len(wanted) != len(block) or not np.array_equal(wanted, np.arange(len(block))):
            block = block[wanted]
        return self._scaled(self._seen(block, rows, 0), rows, scale)

    def sizes_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the total count of cells: (n,) float64."""
        sizes: np.ndarray = self.sizes[rows]
        return sizes

    def genes(self, rows: np.ndarray, start: int, stop: int, scale: Scale) -> np.ndarray:
        """Return a block of genes of any rows, reading little else: (n, stop - start) float32."""
        block = np.empty((len(rows), stop - start), dtype=np.float32)
        size = max(1, BLOCK_BYTES // (4 * max(1, stop - start)))
        for first, last in runs(rows, size):
            wanted = rows[first:last]
            low, high = int(wanted.min()), int(wanted.max()) + 1
            part = self.store.gene_block(start, stop, low, high)
            part = self._seen(part[wanted - low], wanted, start)
            block[first:last] = self._scaled(part, wanted, scale)
        return block

    def _seen(self, block: np.ndarray, rows: np.ndarray, first_gene: int) -> np.ndarray:
        """Return the visible part of a block on the stored scale: here all of it."""
        return block

    def _scaled(self, block: np.ndarray, rows: np.ndarray, scale: Scale) -> np.ndarray:
        if scale == "counts" or self.store.scale == "log1p":
            return block.astype(np.float32, copy=False)
        library_size = self.store.library_size
        assert library_size is not None, "a store of counts knows its library size"
        block = block.astype(np.float32, copy=False)
        if library_size == 0:  # no cell has any count
            return block
        normalised: np.ndarray = log1p_normalise(block, self.sizes_of(rows), library_size)
        return normalised


class StoreCells:
    """Some rows of a screen with their labels; implements `Cells`.

    Parameters
    ----------
    reader
        Of the screen. Kept private: whoever gets a `StoreCells` gets these rows only.
    rows
        (n_cells,) row numbers in the screen, in the order that the cells are to have.
    perturbations, contexts
        (n_cells,) labels.
    scale
        What `gene_block` and `blocks` return. A screen of log1p values has no counts to give.
    """

    def __init__(
        self,
        reader: Reader,
        rows: np.ndarray,
        perturbations: np.ndarray,
        contexts: np.ndarray,
        scale: Scale = "log1p",
    ) -> None:
        store = reader.store
        if scale == "counts" and store.scale != "counts":
            raise DataError(
                f"Screen {store.card.get('name')!r} holds log1p values: found no counts, expected "
                "them for what is to be computed. Convert the screen from its counts."
            )
        self._reader = reader
        self._rows = np.asarray(rows, dtype=np.int64)
        self.perturbations = perturbations
        self.contexts = contexts
        self.scale: Scale = scale
        self.genes = store.genes
        self.control_label = store.control_label

    @property
    def fingerprint(self) -> str:
        """A digest of the screen's content, of which rows these are, and of their labels."""
        labels = (np.asarray(self.perturbations, np.str_), np.asarray(self.contexts, np.str_))
        digest = blake2b(digest_size=16)
        for part in (self._reader.store.fingerprint, self.scale, self.control_label):
            digest.update(f"{part}\0".encode())
        for array in (self._rows, *labels):
            digest.update(f"{array.dtype.str}{array.shape}".encode())
            digest.update(np.ascontiguousarray(array).data.cast("B"))
        return digest.hexdigest()

    @property
    def n_cells(self) -> int:
        """The number of rows."""
        return len(self._rows)

    def library_sizes(self) -> np.ndarray:
        """Return the total count of each cell over all genes: (n_cells,) float64."""
        return self._reader.sizes_of(self._rows)

    def gene_block(self, start: int, stop: int) -> np.ndarray:
        """Return the genes from `start` to `stop` of all cells: (n_cells, stop - start) float32."""
        return self._reader.genes(self._rows, start, stop, self.scale)

    def blocks(self, max_bytes: int = BLOCK_BYTES) -> Iterator[tuple[int, np.ndarray]]:
        """Yield all genes of a few cells at a time: position of the first, (n, n_genes) float32.

        Rows that lie near each other in the screen are read in one piece.
        """
        size = max(1, max_bytes // (4 * max(1, len(self.genes))))
        for first, last in runs(self._rows, size):
            yield first, self._reader.rows(self._rows[first:last], self.scale)

    def dense(self) -> np.ndarray:
        """Return all cells at once: (n_cells, n_genes) float32."""
        cells = np.empty((self.n_cells, len(self.genes)), dtype=np.float32)
        for first, block in self.blocks():
            cells[first : first + len(block)] = block
        return cells

    def mean(self) -> np.ndarray:
        """Return the mean over the cells, on `scale`: (n_genes,) float64, NaN without cells."""
        total = np.zeros(len(self.genes))
        for _, block in self.blocks():
            total += block.sum(axis=0, dtype=np.float64)
        return total / self.n_cells if self.n_cells else np.full(len(self.genes), np.nan)


def runs(rows: np.ndarray, size: int) -> Iterator[tuple[int, int]]:
    """Yield stretches of positions whose rows ascend, are neighbours and span at most `size` rows.

    A gap longer than `_GAP` ends a stretch, as does going back.
    """
    if not len(rows):
        return
    steps = np.diff(rows)
    breaks = {0, len(rows), *(np.flatnonzero((steps <= 0) | (steps > _GAP)) + 1).tolist()}
    for start, stop in pairwise(sorted(breaks)):
        first = start
        while first < stop:
            last = first + int(np.searchsorted(rows[first:stop], rows[first] + size))
            yield first, last
            first = last


Half = Literal["shown", "held"]


def halved(rows: np.ndarray, half: Half, *names: str) -> np.ndarray:
    """Return one of two halves of the rows, ascending; which rows depends on the names alone.

    The shown half has the odd one.
    """
    seed = blake2b("\0".join(names).encode(), digest_size=16)
    order = np.random.default_rng(int.from_bytes(seed.digest())).permutation(len(rows))
    shown = (len(rows) + 1) // 2
    chosen = order[:shown] if half == "shown" else order[shown:]
    return np.sort(rows[chosen])
