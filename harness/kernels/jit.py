"""How kernels are compiled: free of the interpreter's lock, kept on disk, no threads of numba's.

Threads are ours (`harness.kernels.threads`) because numba's are per process, ignore what a
scheduler granted, and do not survive a fork. A kernel is therefore a plain serial function that
releases the lock. Functions that call each other stay in one file: numba notices only a change of
the file that holds the caller.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numba

if TYPE_CHECKING:
    from collections.abc import Callable


def compiled(function: Callable[..., Any]) -> Any:
    """Compile on first call; keep the machine code on disk where a folder can be written.

    Beside the file, as Python does; else under the user's home; else under ``$HARNESS_CACHE``.
    """
    return _compile(function, {"nogil": True})


def compiled_sum(function: Callable[..., Any]) -> Any:
    """Compile as `compiled` does, and let sums be reordered so that they use vector registers."""
    return _compile(function, {"nogil": True, "fastmath": {"reassoc", "nsz", "contract"}})


def _compile(function: Callable[..., Any], options: dict[str, Any]) -> Any:
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither beside the file nor under the user's home can be written
        ours, config = os.environ.get("HARNESS_CACHE"), _config()
        if not ours or "://" in ours or config.CACHE_DIR:
            return numba.njit(**options)(function)  # compile in every process
        config.CACHE_DIR = str(Path(ours) / "numba")
        return _compile(function, options)


def _config() -> Any:
    return numba.config
