"""A range of columns of a matrix stored by rows, without turning the whole of it round."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.sparse import csc_matrix

from harness.kernels.compiling import compiled
from harness.kernels.threads import in_threads

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
