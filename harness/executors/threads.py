"""Threads pinned to what a call asked for, so that neighbours on a machine do not crowd each other.

It is also what makes a trial give the same numbers everywhere: sums of floats depend on how many
threads divide them.
"""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:
    from collections.abc import Iterator

VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
"""Read by a library when it is loaded, and by the programs that a call starts."""

_FOUND: dict[tuple[int, int], ThreadpoolController] = {}


@contextmanager
def restored(*names: str) -> Iterator[None]:
    """Give environment variables their values back after the block."""
    before = {name: os.environ.get(name) for name in names}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def pinned(threads: int) -> Iterator[None]:
    """Let BLAS, OpenMP, numba and torch use `threads` threads each, in the block.

    Those that are loaded are told; those loaded in the block read it from the environment. numba
    alone would keep for good what it reads there, so it is loaded first.
    """
    numba: Any = import_module("numba")
    torch: Any = sys.modules.get("torch")
    had = numba.get_num_threads(), torch.get_num_threads() if torch else 0
    with restored(*VARIABLES):
        os.environ |= dict.fromkeys(VARIABLES, str(threads))
        numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))
        if torch:
            torch.set_num_threads(threads)
        try:
            with _libraries(threads).limit(limits=threads):
                yield
        finally:
            numba.set_num_threads(had[0])
            if torch:
                torch.set_num_threads(had[1])


def _libraries(threads: int) -> ThreadpoolController:
    """Find the loaded libraries that have threads.

    Looking for them takes milliseconds, so it is done again only where modules were imported since,
    or for another number of threads: one that was loaded in the last block was told that number by
    the environment.
    """
    key = len(sys.modules), threads
    if key not in _FOUND:
        _FOUND.clear()
        _FOUND[key] = ThreadpoolController()
    return _FOUND[key]
