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
from itertools import pairwise
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels import rank_test_loops
from harness.kernels.blocks import values_of
from harness.kernels.jit import compiled
from harness.kernels.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.kernels.blocks import Values
    from harness.kernels.groups import Groups

TILE = 256
"""Columns taken together: enough for a row's part of them to be read as one stream (measured: with
32, each row costs a wait for memory, and collecting takes five times as long)."""

BUFFER_BYTES = 1 << 27
"""What the keys of a tile may take in each thread, of which pages never written take nothing."""

CACHED_BYTES = 1 << 21
"""Keys that are sorted and scanned before others, to find them still in the processor's cache."""

DOUBLES_TILE = 64
"""The same of float64: a dense tile is turned round while it is in the processor's cache."""

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
    return joint_statistics(block, [groups], threads=threads, workspace=workspace)[0]


def joint_statistics(
    block: Any,
    groupings: Sequence[Groups],
    *,
    threads: int = 1,
    workspace: Workspace | None = None,
) -> list[BlockStatistics]:
    """Return what `block_statistics` does, for several groupings of the same cells.

    Values that need float64 are sorted once for all of them. Parameters are as there.
    """
    memory = workspace or Workspace()
    n_cells, width = block.shape
    for groups in groupings:
        if n_cells != groups.n_cells:
            raise ValueError(f"block has {n_cells} cells, groups have {groups.n_cells}.")
    values = values_of(block)
    if values.double:
        work = _Doubles(values, groupings, memory)
        in_threads(work.run, range(0, width, DOUBLES_TILE), threads)
        return work.statistics()
    return [_single_statistics(values, groups, memory, threads) for groups in groupings]


def _single_statistics(
    values: Values, groups: Groups, memory: Workspace, threads: int
) -> BlockStatistics:
    """Rank values that float32 holds."""
    width = values.shape[1]
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
        rank_test_loops.shorten(*where, self.label_bits, lowest)
        ends = zip(lengths.tolist(), lowest.tolist(), strict=True)
        bases = self.bases.tolist()
        for row, (sizes, leasts) in enumerate(ends):
            for base, n, least in zip(bases, sizes, leasts, strict=True):
                if least < 0:
                    keys[row, base : base + n].sort()
                else:
                    short[row, base : base + n].sort()
        groups = (self.members, self.starts, self.sizes)
        rank_test_loops.scan_tile(*where, lowest, self.label_bits, *groups, start, self.result)


class _Doubles:
    """Works through columns of float64; each is sorted once, for all groupings of its cells."""

    def __init__(self, values: Values, groupings: Sequence[Groups], workspace: Workspace) -> None:
        self.values, self.workspace = values, workspace
        self.offsets = np.cumsum([0, *(groups.n_groups for groups in groupings)])
        shifted = list(zip(groupings, self.offsets.tolist(), strict=False))
        codes = [np.where(one.codes >= 0, one.codes + at, -1) for one, at in shifted]
        self.groupings = (
            np.array(codes, np.int32),
            np.concatenate([one.reference + at for one, at in shifted]).astype(np.int32),
            np.concatenate([groups.sizes() for groups in groupings]),
        )
        shape = (int(self.offsets[-1]), values.shape[1])
        self.result = (np.empty(shape), np.empty(shape), np.empty(shape))

    def run(self, first: int) -> None:
        """Fill the results of a tile of columns from `first`."""
        entries = self.values.entries(first, min(first + DOUBLES_TILE, self.values.shape[1]))
        starts = entries[2]
        most = max(1, int(np.diff(starts).max()))
        bits = np.uint64(most.bit_length())
        batch = max(1, CACHED_BYTES // (8 * most))
        for at in range(0, len(starts) - 1, batch):
            own = (*entries[:2], starts[at : at + batch + 1])
            lengths, cuts = np.empty((2, len(own[2]) - 1), np.int64)
            with self.workspace.keys(len(lengths), most) as keys:
                rank_test_loops.pack_doubles(own, bits, keys, lengths, cuts)
                for row, n in enumerate(lengths.tolist()):
                    keys[row, :n].sort()
                where = (own, bits, keys, lengths, cuts)
                rank_test_loops.scan_doubles(*where, self.groupings, first + at, self.result)

    def statistics(self) -> list[BlockStatistics]:
        """Return the results of each grouping."""
        cuts = pairwise(self.offsets.tolist())
        return [BlockStatistics(*(part[a:b] for part in self.result)) for a, b in cuts]


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


def midranks(values: np.ndarray) -> np.ndarray:
    """Rank along the last axis from 1, tied values sharing the mean of their places; float64.

    NaN where a row has any, as `scipy.stats.rankdata` does.
    """
    rows = np.asarray(values)
    flat = rows.reshape(-1, rows.shape[-1]) if rows.size else rows.reshape(0, rows.shape[-1])
    ranks = np.empty(flat.shape)
    for row, out in zip(flat, ranks, strict=True):
        if np.isnan(row).any():
            out[:] = np.nan
            continue
        _, place, number = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(number)
        out[:] = (last - (number - 1) / 2)[place]
    return ranks.reshape(rows.shape)
