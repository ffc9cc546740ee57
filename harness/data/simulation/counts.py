"""Draw negative-binomial counts, each cell from a random stream of its own.

A full screen has six thousand million entries, so the cost of one is what counts (about 45 ns).
Most entries have a small mean: there one uniform number is inverted, and for means far below one it
is compared with a bound first, which saves the logarithm. Larger means take a gamma and a Poisson
number. Because a cell's stream depends on its seed alone, cells come out the same in any block, in
any order and from any thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import numba
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Array: TypeAlias = np.ndarray[Any, np.dtype[Any]]

INVERTED = 30.0
"""Means above this are drawn as a gamma mixture of Poisson numbers; measured: flat around it."""
MOST = 10_000.0
"""Where an inversion gives up, should rounding leave a sliver of probability at the very end."""


def cell_seeds(first: int, n: int, seed: int) -> Array:
    """Return a seed for each of `n` cells from number `first` on, (n,) uint32, no two alike.

    A bijection of the cell's number (the finaliser of MurmurHash3), counted from a place that the
    screen's seed gives: seeds of 32 bits drawn at random would give a dozen of 340,000 cells the
    numbers of another.
    """
    origin = np.random.SeedSequence(seed).generate_state(1)[0]
    x = np.arange(first, first + n, dtype=np.uint32) + origin
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        x = (x ^ (x >> np.uint32(shift))) * np.uint32(factor)
    mixed: Array = x ^ (x >> np.uint32(16))
    return mixed


_compiled: Callable[..., Callable[..., None]] = numba.njit(
    nogil=True, cache=True, error_model="numpy"
)


@_compiled
def fill_counts(
    counts: Array, seeds: Array, library: Array, batch: Array, shares: Array, dispersion: Array
) -> None:
    """Fill an array with the counts of some cells.

    Parameters
    ----------
    counts
        Is overwritten: (n_cells, n_genes) float32.
    seeds
        From `cell_seeds`: (n_cells,).
    library
        Expected total of each cell, where `shares` sum to one: (n_cells,).
    batch
        Row of `shares` of each cell: (n_cells,) int.
    shares
        Expected counts over `library`: (n_batches, n_genes).
    dispersion
        Variance is mean + dispersion · mean²: (n_genes,), above 0.
    """
    # numba's np.random is a generator of each thread, seeded here for each cell
    for i in range(seeds.size):
        np.random.seed(seeds[i])  # noqa: NPY002
        for g in range(shares.shape[1]):
            mean = library[i] * shares[batch[i], g]
            scale = mean * dispersion[g]
            size = 1.0 / dispersion[g]
            if mean > INVERTED:
                rate = np.random.gamma(size, scale)  # noqa: NPY002
                counts[i, g] = np.random.poisson(rate)  # noqa: NPY002
                continue
            left = np.random.random()  # noqa: NPY002
            if left < 1.0 - mean:  # P(0) is never below 1 - mean
                counts[i, g] = 0.0
                continue
            stop = 1.0 / (1.0 + scale)
            probability = np.exp(size * np.log(stop))
            count = 0.0
            while left >= probability and count < MOST:
                left -= probability
                probability *= (1.0 - stop) * (size + count) / (count + 1.0)
                count += 1.0
            counts[i, g] = count
