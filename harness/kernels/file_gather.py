"""Many short pieces of a file into one array, without a return to Python between two of them.

A strip of a matrix that is stored by rows is one piece of a few kilobytes for each cell. Read by
`os.preadv`, each costs three times what the system takes for it, and holds the interpreter's lock.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numba
import numpy as np

from harness.kernels.jit import compiled
from harness.kernels.threads import in_threads

_pread: Any = numba.types.ExternalFunction(
    "pread",
    numba.types.intp(numba.types.int32, numba.types.voidptr, numba.types.uintp, numba.types.int64),
)
"""The C library's: machine code that calls it by name can be kept on disk."""


@compiled
def _gather(file, places, length, starts, ends, out):
    """Fill `out` and return -1, or the piece that could not be read. All numbers are of bytes."""
    for piece in range(starts.size):
        position, at = starts[piece], ends[piece]
        while at < ends[piece + 1]:
            chunk = position // length
            inside = position - chunk * length
            wanted = min(ends[piece + 1] - at, length - inside)
            target = out[at : at + wanted]
            got = _pread(file, target.ctypes, wanted, places[chunk] + inside)
            if got <= 0:
                return piece
            position += got
            at += got
    return -1


def gather(
    file: int,
    places: np.ndarray,
    length: int,
    starts: np.ndarray,
    ends: np.ndarray,
    *,
    threads: int = 1,
) -> tuple[np.ndarray, int]:
    """Read pieces of an array that lies in a file in chunks.

    Parameters
    ----------
    file
        Descriptor of the open file.
    places, length
        (n_chunks,) the byte at which each chunk begins in the file; how many bytes one holds.
    starts
        (n,) the array's byte at which each piece begins.
    ends
        (n + 1,) where the pieces go: one after the other, from 0.
    threads
        How many threads share the pieces.

    Returns
    -------
    The bytes, and -1; or the number of a piece that the file does not hold, or that cannot be read.
    """
    out, failed = np.empty(int(ends[-1]), np.uint8), [-1]
    cuts = np.linspace(0, len(starts), threads + 1).astype(int)

    def some(range_: tuple[int, int]) -> None:
        first, last = range_
        own = (starts[first:last], ends[first : last + 1])
        found = _gather(file, places, length, *own, out)
        if found >= 0:
            failed.append(first + found)

    in_threads(some, pairwise(cuts.tolist()), threads)
    return out, max(failed)
