"""Mean Euclidean distance between two sets of cells, a tile of each at a time.

|x - y|² = |x|² + |y|² - 2xy makes matrix products of it, in float32 after centring, so that what is
squared is spread and not level. Where cells lie so near each other that the difference would be
rounding error (copies of one profile do), the tile is computed again in float64.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.kernels.jit import compiled

if TYPE_CHECKING:
    from collections.abc import Callable

TILE = 1024
"""Cells of either side taken together."""

NEAR = 1e-3
"""Squared distance, as a share of the squared norms, below which float32 is not trusted."""


def mean_distance(
    take: Callable[[int, int], np.ndarray],
    n: int,
    others: Callable[[int, int], np.ndarray] | None = None,
    n_others: int = 0,
) -> float:
    """Return the mean Euclidean distance over all ordered pairs of cells.

    Parameters
    ----------
    take, n
        Gives cells `start` to `stop` of one set as (stop - start, n_genes) float32, centred; how
        many cells there are.
    others, n_others
        The other set. None: the set itself, each cell's distance of zero to itself counted.
    """
    total = 0.0
    for start in range(0, n, TILE):
        rows = take(start, min(start + TILE, n))
        if others is None:
            total += _sum_of_distances(rows, rows, same=True)
            for below in range(0, start, TILE):
                total += 2.0 * _sum_of_distances(rows, take(below, below + TILE))
        else:
            for first in range(0, n_others, TILE):
                columns = others(first, min(first + TILE, n_others))
                total += _sum_of_distances(rows, columns)
    return total / n / (n if others is None else n_others)


def _sum_of_distances(x: np.ndarray, y: np.ndarray, *, same: bool = False) -> float:
    squares = [np.einsum("ij,ij->i", side, side, dtype=np.float64) for side in (x, y)]
    near = NEAR if x.dtype == np.float32 else 0.0
    total = float(_sum_tile(x @ y.T, *squares, near, same))
    if math.isnan(total):
        return _sum_of_distances(x.astype(np.float64), y.astype(np.float64), same=same)
    return total


@compiled
def _sum_tile(products, x_squares, y_squares, near, same):  # type: ignore[no-untyped-def]
    """Sum the distances of a tile; NaN if any two cells are nearer than float32 can tell."""
    total = 0.0
    for i in range(products.shape[0]):
        row, too_near = 0.0, 0
        for j in range(products.shape[1]):
            level = x_squares[i] + y_squares[j]
            squared = level - 2.0 * products[i, j]
            apart = not (same and i == j)
            too_near += apart and squared < near * level
            row += math.sqrt(max(squared, 0.0)) if apart else 0.0
        if near > 0.0 and too_near > 0:
            return math.nan
        total += row
    return total


def energy_distance(to_other: Any, within: Any, within_other: Any) -> Any:
    """Return 2 E|X - Y| - E|X - X'| - E|Y - Y'|, of numbers or of arrays."""
    return 2.0 * to_other - within - within_other
