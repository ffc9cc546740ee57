"""Correlations, and what is said where there is none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from harness.kernels import midranks
from harness.metrics.base import CONSTANT_PREDICTION, CONSTANT_TRUTH, Values

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDING = 1e-6
"""Numbers that differ by no more, relatively, are one: they come of sums over single precision."""


def constant(values: np.ndarray) -> np.ndarray:
    """Tell which rows have the same value throughout."""
    same: np.ndarray = (values == values[..., :1]).all(axis=-1)
    return same


def pearson(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation along the last axis; NaN where either side is constant."""
    x, y = (side - side.mean(axis=-1, keepdims=True) for side in (np.asarray(x), np.asarray(y)))
    norms = np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))
    products = (x * y).sum(axis=-1)
    found: np.ndarray = np.divide(
        products, norms, out=np.full(np.shape(norms), np.nan), where=norms > 0
    )
    clipped: np.ndarray = np.clip(found, -1.0, 1.0)
    return clipped


def spearman(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson correlation of midranks, along the last axis."""
    return pearson(midranks(x), midranks(y))


def one_for_all(
    predicted: np.ndarray,
    true: np.ndarray,
    correlation: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Values:
    """Correlate one number for each pair, and give every pair the correlation."""
    n_pairs = len(true)
    if n_pairs < 2:
        return Values.for_all(np.nan, n_pairs, "fewer than two perturbations")
    for side, reason in ((predicted, CONSTANT_PREDICTION), (true, CONSTANT_TRUTH)):
        if np.ptp(side) <= ROUNDING * np.abs(side).max():
            return Values.for_all(np.nan, n_pairs, reason)
    return Values.for_all(float(correlation(predicted, true)), n_pairs)
