"""Distances between rows of two tables, each row with some columns left out.

A row's own target gene must not help to recognise it, and which columns are left out differs from
row to row. They are skipped, not subtracted afterwards: rounding would break ties between equal
rows.
"""

# mypy: allow-untyped-defs

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.kernels.backend import namespace_of
from harness.kernels.jit import compiled_sum
from harness.kernels.threads import in_threads

if TYPE_CHECKING:
    from collections.abc import Sequence


Distance = Literal["l1", "l2", "cosine"]


def array_distances(
    rows: Any, others: Any, kind: Distance, *, left_out: Sequence[Sequence[int]] | None = None
) -> Any:
    """Return what `pairwise_distances` does, where the arrays are.

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


@compiled_sum
def _add_l1(one, others, first, last, result):
    for q in range(others.shape[0]):
        total = 0.0
        for j in range(first, last):
            total += abs(one[j] - others[q, j])
        result[q, 0] += total


@compiled_sum
def _add_l2(one, others, first, last, result):
    for q in range(others.shape[0]):
        total = 0.0
        for j in range(first, last):
            difference = one[j] - others[q, j]
            total += difference * difference
        result[q, 0] += total


@compiled_sum
def _add_products(one, others, first, last, result):
    for q in range(others.shape[0]):
        product, own, other = 0.0, 0.0, 0.0
        for j in range(first, last):
            product += one[j] * others[q, j]
            own += one[j] * one[j]
            other += others[q, j] * others[q, j]
        result[q, 0] += product
        result[q, 1] += own
        result[q, 2] += other


_LOOPS: dict[str, Any] = {"l1": _add_l1, "l2": _add_l2, "cosine": _add_products}


def pairwise_distances(
    rows: np.ndarray,
    others: np.ndarray,
    kind: Distance,
    *,
    left_out: Sequence[Sequence[int]] | None = None,
    threads: int = 1,
) -> np.ndarray:
    """Return the distance of every row to every other row: (n_rows, n_others) float64.

    Parameters
    ----------
    rows, others
        (n_rows, n_genes) and (n_others, n_genes).
    kind
        ``l1`` (sum of absolute differences), ``l2`` (Euclidean) or ``cosine`` (1 at a norm of 0).
    left_out
        For each row, the columns to leave out of all of its distances.

    Tables on a device are compared there, and so is the result.
    """
    if namespace_of(rows, others) is not np:
        on_device: np.ndarray = array_distances(rows, others, kind, left_out=left_out)
        return on_device
    rows = np.ascontiguousarray(rows, dtype=np.float64)
    others = np.ascontiguousarray(others, dtype=np.float64)
    result = np.empty((len(rows), len(others)))

    def fill(row: int) -> None:
        skipped = left_out[row] if left_out is not None else ()
        parts = np.zeros((len(others), 3))
        ends = [-1, *sorted(set(skipped)), rows.shape[1]]
        for before, after in pairwise(ends):
            if before + 1 < after:
                _LOOPS[kind](rows[row], others, before + 1, after, parts)
        result[row] = _finish(kind, parts)

    in_threads(fill, range(len(rows)), threads)
    return result


def _finish(kind: Distance, parts: np.ndarray) -> np.ndarray:
    if kind == "l1":
        return parts[:, 0]
    if kind == "l2":
        root: np.ndarray = np.sqrt(parts[:, 0])
        return root
    norms = np.sqrt(parts[:, 1]) * np.sqrt(parts[:, 2])
    similarity = np.divide(parts[:, 0], norms, out=np.zeros(len(parts)), where=norms > 0)
    distance: np.ndarray = 1.0 - similarity
    return distance
