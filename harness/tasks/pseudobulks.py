"""Means over cells, kept on disk or on an object store for all trials that need them."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING

import numpy as np

from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Callable

REMEMBERED = 64
"""Means that a process holds: each effect asks for its controls', and an object store is slow."""


def kept_mean(folder: str, name: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Return a mean that was kept under a name, or compute it and keep it: (n_genes,) float64.

    The name must say of which cells it is: what is there is never written again.
    """
    path = paths.join(folder, f"{name}.npy")
    with suppress(FileNotFoundError):
        return _read(path).copy()
    mean = compute()
    buffer = BytesIO()
    np.save(buffer, mean)
    paths.write_atomic(path, buffer.getvalue())
    return mean


@lru_cache(maxsize=REMEMBERED)
def _read(path: str) -> np.ndarray:
    return np.asarray(np.load(BytesIO(paths.read_bytes(path))), dtype=np.float64)
