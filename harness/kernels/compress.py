"""Dense rows to the entries that are not zero, block after block, into arrays made beforehand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from harness.kernels.jit import compiled

if TYPE_CHECKING:
    from collections.abc import Iterable

# mypy: allow-untyped-defs


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
