"""The one lock between processes of this machine: a file that the kernel locks.

The kernel releases it when the last process that has its descriptor ends, so none is ever stale.
"""

from __future__ import annotations

import fcntl
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator


@contextmanager
def exclusive_lock(
    file: str | os.PathLike[str], waiting: Callable[[], None] | None = None
) -> Iterator[int]:
    """Hold a lock inside the block; wait for another process that holds it.

    Parameters
    ----------
    file
        The file to lock, made with its folder if it is not there. Nothing is written to it, and it
        is left behind.
    waiting
        Called once before waiting, if another process holds the lock. It may raise instead.

    Yields
    ------
    The descriptor of the lock. A child process that inherits it holds the lock, too.
    """
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting is not None:
                waiting()
            fcntl.flock(held, fcntl.LOCK_EX)
        yield held.fileno()
