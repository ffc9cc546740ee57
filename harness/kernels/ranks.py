"""Midranks, without the second that importing `scipy.stats` takes."""

from __future__ import annotations

import numpy as np


def midranks(values: np.ndarray) -> np.ndarray:
    """Rank along the last axis from 1, tied values sharing the mean of their places; float64.

    NaN where a row has any, as `scipy.stats.rankdata` does.
    """
    rows = np.asarray(values)
    flat = rows.reshape(-1, rows.shape[-1]) if rows.size else rows.reshape(0, rows.shape[-1])
    ranks = np.empty(flat.shape)
    for row, out in zip(flat, ranks, strict=True):
        if np.isnan(row).any():
            out[:] = np.nan
            continue
        _, place, number = np.unique(row, return_inverse=True, return_counts=True)
        last = np.cumsum(number)
        out[:] = (last - (number - 1) / 2)[place]
    return ranks.reshape(rows.shape)
