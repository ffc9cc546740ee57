"""The forms that a block of genes may have, and how each is collected into keys.

Dense, stored by columns (SciPy CSC), or some columns of a matrix that is stored by rows: the last
is collected straight from the rows, without turning the matrix round first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels import rank_test_loops
from harness.kernels.columns import row_starts

if TYPE_CHECKING:
    from collections.abc import Callable

    from harness.kernels.groups import Segments


@dataclass(frozen=True, slots=True)
class RowRange:
    """Columns `start` to `stop` of a SciPy CSR matrix whose rows are sorted."""

    matrix: Any
    start: int
    stop: int

    @property
    def shape(self) -> tuple[int, int]:
        """(n_cells, width)."""
        return self.matrix.shape[0], self.stop - self.start

    @property
    def dtype(self) -> Any:
        """The type of the values."""
        return self.matrix.dtype


@dataclass(frozen=True, slots=True)
class Values:
    """A block as loops take it.

    Parameters
    ----------
    form
        ``dense``, ``columns`` or ``rows``.
    arrays
        The values; then, where sparse, indices and indptr.
    shape
        (n_cells, width).
    offset
        The first column, where stored by rows.
    """

    form: str
    arrays: tuple[np.ndarray, ...]
    shape: tuple[int, int]
    offset: int = 0

    @property
    def double(self) -> bool:
        """Whether the values need float64."""
        return self.arrays[0].dtype == np.float64

    def collector(
        self, first: int, segments: Segments
    ) -> Callable[[int, int, np.ndarray, np.ndarray], None]:
        """Return a function that collects tiles of columns, which must follow on from `first`."""
        data, *rest = self.arrays
        cells = (segments.segment, segments.label)
        bits = data.view(np.uint32) if not self.double else data
        if self.form == "dense":
            return lambda start, last, keys, places: rank_test_loops.collect_dense(
                bits, start, last, *cells, keys, places
            )
        indices, indptr = rest
        if self.form == "columns":
            return lambda start, last, keys, places: rank_test_loops.collect_columns(
                bits, indices, indptr, start, last, *cells, keys, places
            )
        cursor, at = row_starts(indices, indptr, self.offset + first), self.offset
        return lambda start, last, keys, places: rank_test_loops.collect_rows(
            bits, indices, cursor, indptr, at + start, at + last, *cells, keys, places
        )

    def entries(self, start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return some columns as `column_entries` does; not for rows."""
        if self.form == "dense":
            return column_entries(self.arrays[0][:, start:stop])
        data, indices, indptr = self.arrays
        return data, indices, indptr[start : stop + 1]


def column_entries(dense: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return what is not zero by columns: values, rows, and where each column's begin and end."""
    turned = np.ascontiguousarray(dense.T)
    found = turned != 0
    starts = np.concatenate([[0], np.cumsum(found.sum(axis=1))])
    rows = np.flatnonzero(found) % max(1, dense.shape[0])
    return turned[found], rows.astype(np.int32), starts


def values_of(block: Any) -> Values:
    """Return a block's arrays, float64 only where float32 would change a value."""
    if isinstance(block, RowRange):
        matrix = block.matrix
        if matrix.dtype == np.float32:
            parts = (matrix.data, matrix.indices, matrix.indptr)
            return Values("rows", parts, block.shape, block.start)
        block = matrix[:, block.start : block.stop].tocsc()
    if getattr(block, "format", "dense") == "csc":
        parts = (narrowed(np.asarray(block.data)), block.indices, block.indptr)
        return Values("columns", parts, block.shape)
    dense = np.ascontiguousarray(narrowed(np.asarray(block)))
    return Values("dense", (dense,), block.shape)


def narrowed(data: np.ndarray) -> np.ndarray:
    """Return the values as float32 if that changes none, else as float64."""
    if data.dtype in (np.float16, np.float32):
        return data.astype(np.float32, copy=False)
    single = data.astype(np.float32)
    return single if np.array_equal(single, data) else data.astype(np.float64, copy=False)
