"""Run pieces of work on a given number of threads, in this process."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

Piece = TypeVar("Piece")


@dataclass(frozen=True, slots=True)
class Limits:
    """What reading may take.

    Parameters
    ----------
    threads
        How many threads; None: as many as this process may use.
    memory
        Bytes up to which a matrix stays in memory.
    """

    threads: int | None = None
    memory: int = 1 << 30

    @property
    def n_threads(self) -> int:
        """The number of threads to use."""
        return self.threads or available_threads()


def available_threads() -> int:
    """Return how many processors this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def in_threads(function: Callable[[Piece], object], pieces: Iterable[Piece], threads: int) -> None:
    """Call `function` on each piece, on at most `threads` threads; the first error is raised."""
    pieces = list(pieces)
    if threads <= 1 or len(pieces) <= 1:
        for piece in pieces:
            function(piece)
        return
    with ThreadPoolExecutor(min(threads, len(pieces))) as pool:
        for _ in pool.map(function, pieces):
            pass
