"""From a block of genes in host memory to the arrays that are copied to a device.

Whatever the block's form, what crosses is dense, or values with one index each and where rows or
columns begin: 4 bytes for each value of a dense block, 6 to 8 for each one above zero of a sparse
one. A matrix stored by rows is not turned round on the host: the sort on the device does that.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels.blocks import Values, values_of
from harness.kernels.columns import row_starts
from harness.kernels.jit import compiled
from harness.kernels.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Iterator

    from harness.kernels.backend import Backend

ALIGNED = 64
"""Arrays in a buffer begin at multiples of so many bytes."""


class Room:
    """Where one piece at a time is worked on: a stream, and memory that the device reads by itself.

    Both are used again from piece to piece: pinning memory costs more than filling it, and CuPy
    keeps freed device memory for the stream that had it. Arrays lent are valid until `clear`.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.stream = backend.stream()
        self._buffers: list[np.ndarray] = []
        self._lent = 0

    def clear(self) -> None:
        """Take back all that was lent."""
        self._lent = 0

    def array(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """Lend an array, its contents undefined."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        at, self._lent = self._lent, self._lent + 1
        if at == len(self._buffers):
            self._buffers.append(np.empty(0, np.uint8))
        if self._buffers[at].size < size:
            self._buffers[at] = self.backend.buffer(-(-size // ALIGNED) * ALIGNED)
        lent: np.ndarray = self._buffers[at][:size].view(dtype).reshape(shape)
        return lent


@dataclass(frozen=True, slots=True)
class Piece:
    """Some columns of a block, still where the block is.

    Parameters
    ----------
    values
        The block.
    first, stop
        Which of its columns.
    """

    values: Values
    first: int
    stop: int

    @property
    def form(self) -> str:
        """``dense``, ``columns`` or ``rows``."""
        return self.values.form

    @property
    def width(self) -> int:
        """The number of columns."""
        return self.stop - self.first

    def halves(self) -> tuple[Piece, Piece]:
        """Return two pieces with half the columns each."""
        middle = (self.first + self.stop) // 2
        return replace(self, stop=middle), replace(self, first=middle)

    def collect(self, room: Room, threads: int = 1) -> tuple[np.ndarray, ...]:
        """Copy the columns to memory of `room`, which is cleared: see the module's docstring."""
        room.clear()
        data, *rest = self.values.arrays
        if self.form == "dense":
            return (_copied(data[:, self.first : self.stop], room, threads),)
        indices, indptr = rest
        if self.form == "columns":
            begin, end = int(indptr[self.first]), int(indptr[self.stop])
            starts = room.array((self.width + 1,), np.int64)
            np.subtract(indptr[self.first : self.stop + 1], begin, out=starts)
            parts = (_copied(part[begin:end], room, threads) for part in (data, indices))
            return (*parts, starts)
        return self._from_rows(room, threads)

    def _from_rows(self, room: Room, threads: int) -> tuple[np.ndarray, ...]:
        data, indices, indptr = self.values.arrays
        lowest = self.values.offset + self.first
        begin = row_starts(indices, indptr, lowest)
        end = row_starts(indices, indptr, lowest + self.width)
        starts = room.array((begin.size + 1,), np.int64)
        starts[0] = 0
        np.cumsum(end - begin, out=starts[1:])
        values = room.array((int(starts[-1]),), data.dtype)
        narrow = np.uint16 if self.width <= 1 << 16 else np.int32
        columns = room.array(values.shape, narrow)
        in_threads(
            lambda rows: _gather(data, indices, begin, starts, rows, lowest, values, columns),
            _shares(begin.size, threads),
            threads,
        )
        return values, columns, starts


def pieces_of(block: Any, width: int) -> Iterator[Piece]:
    """Yield a block's columns, at most `width` at a time."""
    values = values_of(block)
    for first in range(0, values.shape[1], width):
        yield Piece(values, first, min(first + width, values.shape[1]))


def _copied(array: np.ndarray, room: Room, threads: int) -> np.ndarray:
    target = room.array(array.shape, array.dtype)

    def copy(rows: tuple[int, int]) -> None:
        np.copyto(target[slice(*rows)], array[slice(*rows)])

    in_threads(copy, _shares(len(array), threads), threads)
    return target


def _shares(n: int, threads: int) -> list[tuple[int, int]]:
    """Cut `n` things into one range for each thread."""
    cuts = np.linspace(0, n, max(1, threads) + 1).astype(int).tolist()
    return list(pairwise(cuts))


@compiled
def _gather(data, indices, begin, starts, rows, lowest, values, columns):  # type: ignore[no-untyped-def]  # noqa: PLR0913 - flat arrays
    """Copy each row's stretch of values, and its columns counted from `lowest`."""
    for row in range(rows[0], rows[1]):
        at, k = starts[row], begin[row]
        for i in range(starts[row + 1] - at):
            values[at + i] = data[k + i]
            columns[at + i] = indices[k + i] - lowest
