"""From means and p-values to fold changes and adjusted p-values, as the reference scorers do."""

from __future__ import annotations

import numpy as np

FOLD_CHANGE_CLIP = 20.0
"""What pdex 0.1 puts for x/0; its inverse for 0/x."""


def adjust(p: np.ndarray) -> np.ndarray:
    """Benjamini–Hochberg over all of `p` at once, whatever its shape.

    Ranks by an unstable sort and multiplies by n / rank, as ``scipy.stats.false_discovery_control``
    does: the same p-values give the same bits.
    """
    flat = np.asarray(p, dtype=np.float64).ravel()
    order = np.argsort(flat)
    ranked = flat[order]
    ranked *= flat.size / np.arange(1, flat.size + 1)
    np.minimum.accumulate(ranked[::-1], out=ranked[::-1])
    adjusted = np.empty_like(flat)
    adjusted[order] = ranked
    clipped: np.ndarray = np.clip(adjusted, 0, 1)
    return clipped.reshape(np.shape(p))


def adjust_rows(p: np.ndarray) -> np.ndarray:
    """Benjamini–Hochberg within each row: (n_rows, n_genes)."""
    adjusted = np.empty(np.shape(p), dtype=np.float64)
    for row, values in enumerate(p):
        adjusted[row] = adjust(values)
    return adjusted


def clipped_fold_change(mean: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Ratio of geometric means from means of log1p; x/0 is 20, 0/x is 1/20 and 0/0 is 1.

    Parameters
    ----------
    mean, control
        Broadcastable means of log1p values; ``expm1`` of them are compared.
    """
    top, bottom = np.broadcast_arrays(np.expm1(mean), np.expm1(control))
    ratio: np.ndarray = np.divide(
        top, bottom, out=np.full(top.shape, FOLD_CHANGE_CLIP), where=bottom != 0
    )
    ratio[top == 0] = 1 / FOLD_CHANGE_CLIP
    ratio[(top == 0) & (bottom == 0)] = 1.0
    return ratio


def fold_change(mean: np.ndarray, control: np.ndarray) -> np.ndarray:
    """Ratio of geometric means from means of log1p; x/0 is infinite, 0/x is 0 and 0/0 is 1."""
    top, bottom = np.broadcast_arrays(np.expm1(mean), np.expm1(control))
    ratio: np.ndarray = np.divide(top, bottom, out=np.full(top.shape, np.inf), where=bottom != 0)
    ratio[(top == 0) & (bottom == 0)] = 1.0
    return ratio
