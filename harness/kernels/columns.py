"""Columns of a matrix stored by rows, and rows of one by columns, neither turned round whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from harness.kernels.jit import compiled
from harness.kernels.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Iterable


# mypy: allow-untyped-defs


@compiled
def _row_starts(indices, indptr, column, starts):
    """Find each row's first entry at or after a column; rows are sorted."""
    for row in range(starts.size):
        low, high = indptr[row], indptr[row + 1]
        while low < high:
            middle = (low + high) // 2
            if indices[middle] < column:
                low = middle + 1
            else:
                high = middle
        starts[row] = low


@compiled
def _count(indices, starts, stops, first, counts):
    for row in range(starts.size):
        for k in range(starts[row], stops[row]):
            counts[indices[k] - first] += 1


@compiled
def _fill(source, starts, stops, first, places, target):
    data, indices = source
    values, rows = target
    for row in range(starts.size):
        for k in range(starts[row], stops[row]):
            at = places[indices[k] - first]
            places[indices[k] - first] = at + 1
            values[at] = data[k]
            rows[at] = row


@compiled
def note_cuts(indices, indptr, step, n_columns, cuts):
    """Count each row's entries before every `step`-th column.

    Parameters
    ----------
    indices, indptr
        Some rows of a matrix stored by rows.
    step, n_columns
        Columns between two counts; how many columns there are.
    cuts
        (n_rows, n_cuts) int32, filled: entries before column 0, `step`, 2 `step`, …; all at last.

    Returns
    -------
    Whether every row's columns ascend and exist; if not, `cuts` are of no use.
    """
    for row in range(indptr.size - 1):
        before, cut = -1, 1
        first, stop = indptr[row], indptr[row + 1]
        for k in range(first, stop):
            column = indices[k]
            if column <= before:
                return False
            while column >= cut * step and cut < cuts.shape[1]:
                cuts[row, cut] = k - first
                cut += 1
            before = column
        if before >= n_columns:
            return False
        while cut < cuts.shape[1]:
            cuts[row, cut] = stop - first
            cut += 1
    return True


def row_starts(indices: np.ndarray, indptr: np.ndarray, column: int) -> np.ndarray:
    """Return where each row's first entry at or after a column is; rows must be sorted."""
    starts = np.empty(indptr.size - 1, np.int64)
    _row_starts(indices, indptr, column, starts)
    return starts


def columns_of(matrix: Any, start: int, stop: int, *, threads: int = 1) -> csc_matrix:
    """Return columns `start` to `stop` of a SciPy CSR matrix with sorted rows, as CSC.

    Parameters
    ----------
    matrix
        (n_rows, n_columns) CSR. Each row's indices must ascend (`sort_indices`).
    start, stop
        Which columns.
    threads
        How many threads share the columns.
    """
    n_rows, cuts = matrix.shape[0], np.linspace(start, stop, max(1, threads) + 1).astype(int)
    pieces = list(enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)))
    starts = np.empty((len(pieces), 2, n_rows), np.int64)
    counts = np.zeros(stop - start, np.int64)

    def count(piece: tuple[int, tuple[int, int]]) -> None:
        number, (first, last) = piece
        starts[number, 0] = row_starts(matrix.indices, matrix.indptr, first)
        starts[number, 1] = row_starts(matrix.indices, matrix.indptr, last)
        _count(matrix.indices, *starts[number], first, counts[first - start : last - start])

    in_threads(count, pieces, threads)
    indptr = np.concatenate([[0], np.cumsum(counts)])
    values = np.empty(indptr[-1], matrix.dtype)
    rows = np.empty(indptr[-1], np.int32)

    def fill(piece: tuple[int, tuple[int, int]]) -> None:
        number, (first, last) = piece
        places = indptr[first - start : last - start].copy()
        source, target = (matrix.data, matrix.indices), (values, rows)
        _fill(source, *starts[number], first, places, target)

    in_threads(fill, pieces, threads)
    return csc_matrix((values, rows, indptr), shape=(n_rows, stop - start), copy=False)


@compiled
def _pick(source, rows, column, target):
    """Copy the picked rows' values other than zero; `column` is zeros, before and after."""
    data, indices, indptr = source
    values, places, starts = target
    at = 0
    for j in range(indptr.size - 1):
        for k in range(indptr[j], indptr[j + 1]):
            column[indices[k]] += data[k]
        for i in range(rows.size):
            value = column[rows[i]]
            # Written always and kept only if not zero: a branch here is a coin toss.
            values[at], places[at] = value, i
            at += value != 0
        starts[j + 1] = at
        for k in range(indptr[j], indptr[j + 1]):
            column[indices[k]] = 0


def pick_rows(matrix: csc_matrix, rows: np.ndarray) -> csc_matrix:
    """Return rows of a CSC matrix, in any order and also repeatedly, without turning it round."""
    capacity = len(rows) * matrix.shape[1]  # pages never written take nothing
    values, places = np.empty(capacity, matrix.dtype), np.empty(capacity, np.int32)
    starts = np.zeros(matrix.shape[1] + 1, np.int64)
    source = (matrix.data, matrix.indices, matrix.indptr)
    column = np.zeros(matrix.shape[0], matrix.dtype)
    _pick(source, np.asarray(rows, np.int64), column, (values, places, starts))
    kept = (values[: starts[-1]], places[: starts[-1]], starts)
    return csc_matrix(kept, shape=(len(rows), matrix.shape[1]), copy=False)


@compiled
def _compress(block, at, data, indices, ends):
    for row in range(block.shape[0]):
        for column in range(block.shape[1]):
            value = block[row, column]
            # Written before it is known whether to keep it: a branch would be guessed wrong.
            data[at] = value
            indices[at] = column
            at += value != 0
        ends[row] = at
    return at


def compressed(
    blocks: Iterable[np.ndarray], shape: tuple[int, int], dtype: np.dtype, most: int
) -> csr_matrix | None:
    """Return the entries of a matrix given in blocks of rows, or None if there are too many.

    Parameters
    ----------
    blocks
        Dense rows, from the first on.
    shape, dtype
        Of the whole matrix, and of the values that are returned.
    most
        The number of entries to give up at. It is memory for as many that is asked for, of which
        what is never written takes nothing.
    """
    room = min(most, shape[0] * shape[1])
    data, indices = np.empty(room + 1, dtype), np.empty(room + 1, np.int32)
    indptr = np.zeros(shape[0] + 1, np.int64)
    at = first = 0
    for block in blocks:
        if at + np.count_nonzero(block) > room:
            return None
        ends = indptr[first + 1 : first + 1 + len(block)]
        at = _compress(np.ascontiguousarray(block), at, data, indices, ends)
        first += len(block)
    assert first == shape[0], "blocks cover all rows"
    for array in (data, indices):  # in place: of a view much smaller than its array SciPy copies
        array.resize(at, refcheck=False)
    if at < 2**31:
        indptr = indptr.astype(np.int32)
    return csr_matrix((data, indices, indptr), shape=shape, copy=False)
