"""How stable a ranking is: Kendall's tau between it and the rankings of other data.

Tau-b (Kendall 1945, Biometrika 33:239) is 1 for the same order, 0 on average for unrelated ones, -1
for the reverse. The other data are resamples of perturbations, single seeds, or another metric. A
tau of 0.6 among five settings means that two of the ten comparisons went the other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.statistics.bootstrap import percentile_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DRAWS = 500
"""Resamples compared at most: the mean tau has moved by less than 0.01 by then."""


@dataclass(frozen=True, slots=True)
class Stability:
    """Tau between a ranking and others: the mean, and where most of them lie.

    Attributes
    ----------
    n
        How many other rankings.
    reason
        Why there is no tau, if there is none.
    """

    mean: float
    low: float
    high: float
    n: int
    reason: str = ""


def tau(ranking: Floats, other: Floats) -> float:
    """Return Kendall's tau-b of two rankings (n,); NaN where either does not order anything."""
    from scipy.stats import kendalltau

    both = ~(np.isnan(ranking) | np.isnan(other))
    if both.sum() < 2:
        return float("nan")
    return float(kendalltau(ranking[both], other[both]).statistic)


def stability(ranking: Floats, others: Floats, level: float = 0.95) -> Stability:
    """Return how much `others` (n_others, n) agree with a ranking (n,)."""
    if len(ranking) < 2:
        return Stability(np.nan, np.nan, np.nan, 0, "fewer than two settings")
    step = -(-len(others) // DRAWS) or 1
    taus = np.array([tau(ranking, other) for other in others[::step]])
    taus = taus[~np.isnan(taus)]
    if not len(taus):
        return Stability(np.nan, np.nan, np.nan, 0, "no other ranking orders the settings")
    low, high = percentile_interval(taus, level)
    return Stability(float(taus.mean()), float(low), float(high), len(taus))


def agreement(rankings: Floats) -> Floats:
    """Return the (n_rankings, n_rankings) taus of every two of several rankings (n_rankings, n)."""
    n = len(rankings)
    found = np.full((n, n), np.nan)
    for row in range(n):
        for column in range(row, n):
            found[row, column] = found[column, row] = tau(rankings[row], rankings[column])
    return found
