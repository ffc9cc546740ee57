"""Mann–Whitney U of every group against its control, for a block of genes at once.

`block_statistics` reads a block once and gives, for every group and gene, the sum of its values, U
and the tie term; `p_values` makes two-sided p-values of those. They are apart because suites differ
in what they make of U, never in U.
"""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels import rank_loops
from harness.kernels.blocks import values_of
from harness.kernels.compiling import compiled
from harness.kernels.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.kernels.blocks import Values
    from harness.kernels.groups import Groups

TILE = 256
"""Columns taken together: enough for a row's part of them to be read as one stream (measured: with
32, each row costs a wait for memory, and collecting takes five times as long)."""

BUFFER_BYTES = 1 << 27
"""What the keys of a tile may take in each thread, of which pages never written take nothing."""

CACHED_BYTES = 1 << 21
"""Keys that are sorted and scanned before others, to find them still in the processor's cache."""

EXACT_UP_TO = 8
"""Group size up to which SciPy's ``method="auto"`` enumerates, where no values are tied."""


@dataclass(frozen=True, slots=True)
class BlockStatistics:
    """What a block of genes says of every group; each (n_groups, width) float64.

    Parameters
    ----------
    sums
        Sum of the group's values.
    u
        U of the group against its control: pairs of cells in which the group's is larger, ties
        counted one half. NaN for controls.
    ties
        Sum of t³ - t over the sets of t tied values in group and control together. 0 for controls.
    """

    sums: np.ndarray
    u: np.ndarray
    ties: np.ndarray


class Workspace:
    """Memory for keys, kept from one block to the next.

    Fresh memory costs a page fault for every 4 KiB, as much as sorting what is put there.
    """

    def __init__(self) -> None:
        self._free: SimpleQueue[np.ndarray] = SimpleQueue()

    @contextmanager
    def keys(self, columns: int, capacity: int) -> Iterator[np.ndarray]:
        """Lend an array of (columns, capacity) uint64, its contents undefined."""
        size = columns * capacity
        try:
            memory = self._free.get_nowait()
        except Empty:
            memory = np.empty(0, np.uint64)
        if memory.size < size:
            memory = np.empty(size, np.uint64)
        yield memory[:size].reshape(columns, capacity)
        self._free.put(memory)


def block_statistics(
    block: Any, groups: Groups, *, threads: int = 1, workspace: Workspace | None = None
) -> BlockStatistics:
    """Sum and rank the values of a block of genes in every group.

    Parameters
    ----------
    block
        (n_cells, width): dense, SciPy CSC, or a `RowRange` of a CSR matrix. Values must not be
        negative or NaN: the caller checks, since it can name the cell. Integers are taken as
        float64.
    groups
        The group of each cell and the control of each group.
    threads
        How many threads share the columns. The result does not depend on it, nor on the order of
        cells or the form of the block.
    workspace
        Memory to use again; whoever passes many blocks keeps one.
    """
    memory = workspace or Workspace()
    n_cells, width = block.shape
    if n_cells != groups.n_cells:
        raise ValueError(f"block has {n_cells} cells, groups have {groups.n_cells}.")
    values = values_of(block)
    shape = (groups.n_groups, width)
    result = BlockStatistics(np.zeros(shape), np.empty(shape), np.empty(shape))
    step = _chunk_width(width, threads, by_rows=values.form == "rows")
    starts = range(0, width, step)
    in_threads(
        lambda first: _Chunk(values, groups, result, memory).run(first, step), starts, threads
    )
    return result


def _chunk_width(width: int, threads: int, *, by_rows: bool) -> int:
    """Return how many columns a thread takes at once: two chunks to a thread, or many.

    More would share the work better, but narrow chunks read rows in scraps; and where the matrix is
    stored by rows, each chunk first has to find its place in every row.
    """
    even = -(-width // (2 * max(1, threads)))
    return even if by_rows else min(TILE, -(-even // 16) * 16)


class _Chunk:
    """Works through neighbouring columns, a tile at a time; one thread's work and buffers.

    Between sorts nothing is done in Python that could be done for the whole tile: each return from
    a kernel waits for the interpreter's lock, and several threads would do little else.
    """

    def __init__(
        self, values: Values, groups: Groups, result: BlockStatistics, workspace: Workspace
    ) -> None:
        self.workspace = workspace
        self.values, self.groups = values, groups
        self.result = (result.sums, result.u, result.ties)
        self.sizes = groups.sizes()
        segments = groups.segments
        self.members = np.concatenate(segments.members)
        self.starts = np.cumsum([0, *map(len, segments.members)])
        # One slot to spare in each segment: loops write before they know whether to keep.
        ends = np.cumsum(segments.n_cells + 1)
        self.bases = ends - segments.n_cells - 1
        most = int(np.diff(self.starts).max())
        self.label_bits = np.uint64(max(1, (most - 1).bit_length()))
        self.capacity = int(ends[-1])
        self.tile = int(np.clip(BUFFER_BYTES // (8 * self.capacity), 1, TILE))
        self.batch = max(1, min(self.tile, CACHED_BYTES // (8 * self.capacity)))
        self.short = np.empty((self.batch, self.capacity), np.uint32)

    def run(self, first: int, width: int) -> None:
        """Fill the results of `width` columns from `first`."""
        stop = min(first + width, self.values.shape[1])
        if self.values.double:
            for column in range(first, stop):
                self._double_column(column)
            return
        collect = self.values.collector(first, self.groups.segments)
        with self.workspace.keys(min(self.tile, stop - first), self.capacity) as keys:
            for start in range(first, stop, self.tile):
                last = min(start + self.tile, stop)
                starts = np.arange(last - start) * self.capacity + self.bases[:, None]
                places = starts.copy()
                collect(start, last, keys.reshape(-1), places)
                lengths = np.ascontiguousarray((places - starts).T)
                for row in range(0, last - start, self.batch):
                    batch = slice(row, row + self.batch)
                    self._rank(start + row, keys[batch], lengths[batch])

    def _rank(self, start: int, keys: np.ndarray, lengths: np.ndarray) -> None:
        short, lowest = self.short[: len(lengths)], np.empty_like(lengths)
        where = (keys, short, lengths, self.bases)
        rank_loops.shorten(*where, self.label_bits, lowest)
        ends = zip(lengths.tolist(), lowest.tolist(), strict=True)
        bases = self.bases.tolist()
        for row, (sizes, leasts) in enumerate(ends):
            for base, n, least in zip(bases, sizes, leasts, strict=True):
                if least < 0:
                    keys[row, base : base + n].sort()
                else:
                    short[row, base : base + n].sort()
        groups = (self.members, self.starts, self.sizes)
        rank_loops.scan_tile(*where, lowest, self.label_bits, *groups, start, self.result)

    def _double_column(self, column: int) -> None:
        segments, bits = self.groups.segments, self.label_bits
        rows, values = self.values.column(column)
        for segment, members in enumerate(segments.members):
            counts, sums = np.zeros((len(members), 3), np.int64), np.zeros(len(members))
            here = segments.segment[rows] == segment
            chosen, labels = values[here], segments.label[rows[here]]
            keys = _packed(chosen, labels, bits)
            if keys is not None:
                keys.sort()
                rank_loops.scan(keys, keys.size, bits, np.uint64(0), counts, np.zeros_like(sums))
                sums += _sums(keys, bits, chosen, len(members))
            else:
                keys, table = np.empty(chosen.size, np.uint64), np.empty(chosen.size)
                rank_loops.rank_doubles(chosen, labels, np.argsort(chosen), bits, keys, table)
                keys.sort()
                rank_loops.scan(keys, keys.size, bits, np.uint64(0), counts, np.zeros_like(sums))
                rank_loops.sum_doubles(keys, bits, table, sums)
            rank_loops.conclude(counts, sums, members, self.sizes, column, self.result)


def _packed(values: np.ndarray, labels: np.ndarray, label_bits: np.uint64) -> np.ndarray | None:
    """Return float64 values above zero and their labels as keys of 64 bits; None if too far apart.

    Values within a few powers of two, as logarithms are, share the upper bits of their exponents,
    which leaves room for labels. Such keys sort five times as fast as values with an index.
    """
    bits = values.view(np.uint64)
    if not bits.size or int(bits.max() - bits.min()) >> (64 - int(label_bits)):
        return None
    keys: np.ndarray = ((bits - bits.min()) << label_bits) | labels.astype(np.uint64)
    return keys


def _sums(keys: np.ndarray, label_bits: np.uint64, values: np.ndarray, n_labels: int) -> np.ndarray:
    """Return the sum of each label's values, in the order of sorted keys, whatever the cells'."""
    restored = ((keys >> label_bits) + values.view(np.uint64).min()).view(np.float64)
    labels = (keys & np.uint64((1 << int(label_bits)) - 1)).astype(np.int64)
    return np.bincount(labels, weights=restored, minlength=n_labels)


@compiled
def _normal_p(u, ties, n1, n2, p):  # type: ignore[no-untyped-def]
    """Two-sided p of U by the normal approximation, corrected for ties and continuity."""
    for i in range(u.shape[0]):
        n = n1[i] + n2[i]
        middle = 0.5 * n1[i] * n2[i]
        for j in range(u.shape[1]):
            variance = n1[i] * n2[i] / 12.0 * ((n + 1.0) - ties[i, j] / (n * (n - 1.0)))
            distance = abs(u[i, j] - middle) - 0.5
            if math.isnan(distance):
                p[i, j] = distance
            elif distance <= 0.0 or variance <= 0.0:
                p[i, j] = 1.0
            else:
                p[i, j] = min(1.0, math.erfc(distance / math.sqrt(variance) / math.sqrt(2.0)))


def p_values(
    u: np.ndarray, ties: np.ndarray, n1: np.ndarray, n2: np.ndarray, *, exact_when_small: bool
) -> np.ndarray:
    """Return two-sided p-values as ``scipy.stats.mannwhitneyu`` does; 1 where all values are tied.

    NaN where `u` is (controls).

    Parameters
    ----------
    u, ties
        (n_groups, n_genes), of `block_statistics`.
    n1, n2
        (n_groups,) cells of each group and of its control.
    exact_when_small
        Enumerate, as SciPy's ``method="auto"`` does, where a group or its control has at most eight
        cells and no value is tied; otherwise use the normal approximation everywhere.
    """
    p: np.ndarray = np.empty_like(u, dtype=np.float64)
    if not u.size:
        return p
    sizes = np.asarray(n1, np.float64), np.asarray(n2, np.float64)
    _normal_p(np.asarray(u, np.float64), np.asarray(ties, np.float64), *sizes, p)
    if exact_when_small:
        for i in np.flatnonzero(np.minimum(n1, n2) <= EXACT_UP_TO):
            untied = (ties[i] == 0) & ~np.isnan(u[i])
            if untied.any():
                p[i, untied] = _exact_p(u[i, untied], int(n1[i]), int(n2[i]))
    return p


def _exact_p(u: np.ndarray, n1: int, n2: int) -> np.ndarray:
    """Two-sided p by counting the arrangements at least as far from the middle."""
    nearer = np.minimum(u, n1 * n2 - u).astype(np.int64)
    tail: np.ndarray = _lower_tail(min(n1, n2), max(n1, n2))[nearer]
    return np.minimum(1.0, 2.0 * tail)


@lru_cache(maxsize=64)
def _lower_tail(small: int, large: int) -> np.ndarray:
    """P(U <= u) for u up to the middle, without ties; exact integers until the last division.

    The counts are the coefficients of the Gaussian binomial, the product over i up to `small` of
    (1 - q^(large + i)) / (1 - q^i). Floats would cancel here: whence the integers.
    """
    length = small * large // 2 + 1
    counts = np.zeros(length, dtype=object)
    counts[0] = 1
    for i in range(1, small + 1):
        above = large + i
        if above < length:
            counts[above:] = counts[above:] - counts[:-above]
        for start in range(min(i, length)):
            counts[start::i] = np.cumsum(counts[start::i])
    total = math.comb(small + large, small)
    return np.array([int(count) / total for count in np.cumsum(counts)])
