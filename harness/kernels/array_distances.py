"""Distances between rows of two tables by array functions, for tables that are on a device.

The columns left out of a row's distances are set to zero in what is summed: adding zero changes no
bit, and all of a row's distances are summed in one order, so that equal rows stay equally far.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.kernels.backend import namespace_of

if TYPE_CHECKING:
    from collections.abc import Sequence

Distance = Literal["l1", "l2", "cosine"]


def array_distances(
    rows: Any, others: Any, kind: Distance, *, left_out: Sequence[Sequence[int]] | None = None
) -> Any:
    """Return what `harness.kernels.distances.pairwise_distances` does, where the arrays are.

    Takes the memory of `others` in float64 three times.
    """
    xp = namespace_of(rows, others)
    rows, others = (xp.asarray(table, dtype=np.float64) for table in (rows, others))
    result = xp.empty((len(rows), len(others)))
    for row in range(len(rows)):
        skipped = xp.asarray(left_out[row], dtype=np.int64) if left_out is not None else None
        result[row] = _from_one(rows[row], others, kind, skipped)
    return result


def _from_one(one: Any, others: Any, kind: Distance, skipped: Any) -> Any:
    xp = namespace_of(others)
    if kind == "cosine":
        product, own, other = (
            _total(part, skipped) for part in (others * one, (one * one)[None], others * others)
        )
        norms = xp.sqrt(own) * xp.sqrt(other)
        zero = norms == 0
        return 1.0 - xp.where(zero, 0.0, product / xp.where(zero, 1.0, norms))
    difference = others - one
    if kind == "l1":
        return _total(xp.abs(difference), skipped)
    return xp.sqrt(_total(difference * difference, skipped))


def _total(parts: Any, skipped: Any) -> Any:
    if skipped is not None and skipped.size:
        parts[:, skipped] = 0.0
    return parts.sum(axis=1)
