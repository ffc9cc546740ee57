"""Weights of genes: how clearly each responds, as a share of all."""

from __future__ import annotations

import numpy as np


def standardised_u(u: np.ndarray, ties: np.ndarray, n1: np.ndarray, n2: np.ndarray) -> np.ndarray:
    """Return (U - n1 n2 / 2) / σ with σ corrected for ties; 0 where all values are tied.

    Without correction for continuity: a gene without any difference has exactly 0.

    Parameters
    ----------
    u, ties
        (n_groups, n_genes) as in `harness.kernels.rank_test.BlockStatistics`.
    n1, n2
        (n_groups,) cells of each group and of its control.
    """
    sizes = [np.asarray(size, dtype=np.float64)[:, None] for size in (n1, n2)]
    product, n = sizes[0] * sizes[1], sizes[0] + sizes[1]
    variance = product / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)))
    z: np.ndarray = np.divide(
        u - product / 2.0,
        np.sqrt(np.maximum(variance, 0.0)),
        out=np.zeros(np.shape(u)),
        where=variance > 1e-12 * product,
    )
    return z


def squared_weights(statistic: np.ndarray) -> np.ndarray:
    """Return |statistic| of each row min-max scaled, squared, and divided by its sum.

    All genes weigh the same where a row's statistics are all of one size.

    Parameters
    ----------
    statistic
        (n_rows, n_genes), finite.
    """
    size = np.abs(statistic)
    lowest = size.min(axis=-1, keepdims=True)
    spread = size.max(axis=-1, keepdims=True) - lowest
    share = np.divide(size - lowest, spread, out=np.ones_like(size), where=spread > 0) ** 2
    weights: np.ndarray = share / share.sum(axis=-1, keepdims=True)
    return weights
