"""Raw counts as the 2026 suite reads them, and what it needs of them, in one pass over genes.

`Counts` is a matrix of counts with its library sizes, taken a block of genes at a time; rows can be
picked, stacked on others, or drawn anew and rescaled without a matrix being made. `measure_counts`
streams it and keeps a few arrays of (n_groups, n_genes), for several groupings of the same cells at
once: reading is shared by a truth and all of its split halves.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from scipy import sparse

from harness.errors import DataError
from harness.kernels import (
    BULK_TOTAL,
    Depths,
    Workspace,
    count_sums,
    joint_statistics,
    log1p_normalise,
    pick_rows,
)
from harness.scoring.group_statistics import dense

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.data import Cells
    from harness.kernels import Groups

MILLION = 1e6
"""The library size that cells are scaled to for the rank test, and the most that one may have."""

WHOLE = 1e-6
"""A value farther than this from a whole number is no count."""

BLOCK_BYTES = 1 << 27
"""Blocks no larger than this are faster than larger ones: their memory is used again while it is
warm (measured: 7,000 cells of 6,000 genes take 1.0 s in such blocks, 1.8 to 2.7 s in one GiB)."""

_BYTES_PER_VALUE = 40
"""Peak bytes per cell and gene of a block: counts as read, float64 log1p values, sorting keys."""


class Counts(Protocol):
    """Counts by blocks of genes; `sizes` is the library size of each row."""

    genes: tuple[str, ...]
    sizes: np.ndarray

    def block(self, start: int, stop: int) -> Any:
        """Return the genes from `start` to `stop`: (n_cells, width), dense or SciPy CSC."""


class CellCounts:
    """The counts of a truth or prediction, checked as they are read.

    Parameters
    ----------
    cells
        Whose counts; their scale must be counts.
    name
        What errors call them.
    """

    def __init__(self, cells: Cells, name: str) -> None:
        if cells.scale != "counts":
            raise DataError(
                f"{name}: the values are {cells.scale}. Expected raw counts, whole numbers, which "
                "the suite vcc2026 scales itself and cannot recover from log1p values. Give the "
                "counts, or leave out the suite."
            )
        self.cells, self.name = cells, name
        self.genes = tuple(cells.genes)
        self.sizes = np.asarray(cells.library_sizes(), np.float64)
        self._checked = 0
        self._last: tuple[tuple[int, int], Any] = ((0, 0), None)
        if not len(self.sizes):
            raise DataError(f"{self.name}: there are no cells. Expected at least one row.")
        if not (self.sizes <= MILLION).all():  # false for NaN, too
            cell = int(np.argmax(~(self.sizes <= MILLION)))
            raise DataError(
                f"{self.name}: cell {cell} has a total of {self.sizes[cell]:g}. Expected counts of "
                f"at most {MILLION:,.0f} per cell. Give raw counts, not rescaled ones."
            )

    def block(self, start: int, stop: int) -> Any:
        """Return a block of genes, checked when it is read for the first time.

        The last one is kept: rows picked twice from the same cells and stacked are read once.
        """
        at, block = self._last
        if at != (start, stop):
            block = self.cells.gene_block(start, stop)
            self._check_values(block, start, stop)
            self._last = ((start, stop), block)
        return block

    def _check_values(self, block: Any, start: int, stop: int) -> None:
        if stop <= self._checked:
            return
        values = block.data if hasattr(block, "indptr") else np.asarray(block)
        if values.size and not _are_counts(values):
            every = dense(block)
            cell, gene = (int(at) for at in np.argwhere(~_is_count(every))[0])
            raise DataError(
                f"{self.name}: a value is no count. Found {float(every[cell, gene])!r} in cell "
                f"{cell} for gene {self.genes[start + gene]!r}, expected whole numbers from 0. "
                "Give raw counts."
            )
        if start <= self._checked:
            self._checked = stop


def _is_csc(block: Any) -> bool:
    return getattr(block, "format", "dense") == "csc"


def _is_count(values: np.ndarray) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        whole: np.ndarray = (values >= 0) & (np.abs(values - np.rint(values)) <= WHOLE)
    return whole


def _are_counts(values: np.ndarray) -> bool:
    if not values.min() >= 0:  # true for NaN, too
        return False
    return np.array_equal(values, np.rint(values)) or bool(_is_count(values).all())


class Picked:
    """Some rows of other counts, in any order, also repeatedly."""

    def __init__(self, counts: Counts, rows: np.ndarray) -> None:
        self.counts, self.rows = counts, rows
        self.genes = counts.genes
        self.sizes = counts.sizes[rows]

    def block(self, start: int, stop: int) -> Any:
        """Return a block of genes of the rows."""
        block = self.counts.block(start, stop)
        if _is_csc(block):
            return pick_rows(block, self.rows)
        return np.asarray(block)[self.rows]


class Rescaled:
    """Counts times a factor for each gene, the products rounded to float32."""

    def __init__(self, counts: Counts, factors: np.ndarray, memory: int = 1 << 30) -> None:
        self.counts, self.factors = counts, factors
        self.genes = counts.genes
        self.sizes = np.zeros(len(counts.sizes))
        for start, stop in blocks(len(self.genes), len(self.sizes), memory):
            block = self.block(start, stop)
            if _is_csc(block):
                # SciPy sums float32 in float32, whatever is asked of the result.
                block = block.astype(np.float64)
            self.sizes += np.asarray(block.sum(axis=1, dtype=np.float64)).ravel()

    def block(self, start: int, stop: int) -> Any:
        """Return a block of genes."""
        block, factors = self.counts.block(start, stop), self.factors[start:stop]
        if not _is_csc(block):
            return (np.asarray(block) * factors).astype(np.float32)
        scaled = (block.data * np.repeat(factors, np.diff(block.indptr))).astype(np.float32)
        return sparse.csc_matrix((scaled, block.indices, block.indptr), shape=block.shape)


class Stacked:
    """The rows of several matrices of counts, the first on top."""

    def __init__(self, *parts: Counts) -> None:
        self.parts = parts
        self.genes = parts[0].genes
        self.sizes = np.concatenate([part.sizes for part in parts])

    def block(self, start: int, stop: int) -> Any:
        """Return a block of genes of all parts."""
        found = [part.block(start, stop) for part in self.parts]
        if all(_is_csc(block) for block in found):
            return sparse.vstack(found, format="csc")
        return np.vstack([dense(block) for block in found])


@dataclass(frozen=True)
class CountStatistics:
    """What one grouping of the cells gives.

    Parameters
    ----------
    sizes, reference
        (n_groups,) number of cells; position of the group's control.
    counts
        (n_groups, n_genes) sum of raw counts.
    bulk
        (n_groups, n_genes) pseudobulk: log1p of the counts summed over the group and scaled to a
        total of 50,000; zeros for a group without counts.
    noise
        (n_groups,) jackknife estimate of the sampling variance of `bulk`, summed over genes.
    cpm
        (n_groups, n_genes) mean over cells of counts per million.
    u, ties
        (n_groups, n_genes) of the rank test of log1p counts per million against the control.
    """

    sizes: np.ndarray
    reference: np.ndarray
    counts: np.ndarray
    bulk: np.ndarray
    noise: np.ndarray
    cpm: np.ndarray
    u: np.ndarray
    ties: np.ndarray


def blocks(n_genes: int, n_cells: int, memory: int) -> Iterator[tuple[int, int]]:
    """Yield the first gene and the end of blocks that fit into about `memory` bytes."""
    fitting = min(memory, BLOCK_BYTES) // (_BYTES_PER_VALUE * max(1, n_cells))
    width = max(16, fitting // 16 * 16)
    for start in range(0, n_genes, width):
        yield start, min(start + width, n_genes)


def measure_counts(
    counts: Counts, groupings: Sequence[Groups], *, threads: int = 1, memory: int = 1 << 30
) -> list[CountStatistics]:
    """Stream the genes once and return the statistics of every grouping.

    Parameters
    ----------
    counts
        The cells.
    groupings
        Each assigns the cells to groups; those it gives to none (-1) play no part.
    threads, memory
        How many threads; about how many bytes a block of genes may take.
    """
    n_genes = len(counts.genes)
    depths = [Depths.of(counts.sizes, groups) for groups in groupings]
    found = []
    for groups in groupings:
        raw, bulk, cpm, u, ties = (np.empty((groups.n_groups, n_genes)) for _ in range(5))
        part = CountStatistics(
            sizes=groups.sizes(),
            reference=groups.reference,
            counts=raw,
            bulk=bulk,
            noise=np.zeros(groups.n_groups),
            cpm=cpm,
            u=u,
            ties=ties,
        )
        found.append(part)
    workspace = Workspace()
    for start, stop in blocks(n_genes, len(counts.sizes), memory):
        block, here = counts.block(start, stop), slice(start, stop)
        # In float64: which cells are tied is decided by the last bit, and the oracle's is float64.
        logs = log1p_normalise(block.astype(np.float64), counts.sizes, MILLION)
        ranked = joint_statistics(logs, groupings, threads=threads, workspace=workspace)
        for part, groups, depth, ranks in zip(found, groupings, depths, ranked, strict=True):
            sums = count_sums(block, groups, depth, BULK_TOTAL, threads=threads)
            part.counts[:, here], part.cpm[:, here] = sums.counts, sums.shares
            part.noise[:] += sums.noise
            part.u[:, here], part.ties[:, here] = ranks.u, ranks.ties
    for part in found:
        cells, totals = np.maximum(part.sizes, 1), part.counts.sum(axis=1)
        scale = np.divide(BULK_TOTAL, totals, out=np.zeros_like(totals), where=totals > 0)
        np.multiply(part.counts, scale[:, None], out=part.bulk)
        np.log1p(part.bulk, out=part.bulk)
        np.multiply(part.cpm, (MILLION / cells)[:, None], out=part.cpm)
        np.maximum((cells - 1) / cells * part.noise, 0.0, out=part.noise)
    return found
