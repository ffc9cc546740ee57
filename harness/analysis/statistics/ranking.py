"""Ranks with their uncertainty: intervals, who is first how often, and tests over all settings.

Intervals and the probability of being best come from the resamples of `bootstrap`: in each one the
settings are ranked anew (Hall and Miller 2009, Using the bootstrap to quantify the authority of an
empirical ranking, Annals of Statistics 37:3929). Friedman's test and Nemenyi's critical difference
(Demšar 2006, Statistical comparisons of classifiers over multiple data sets, JMLR 7:1) rank within
each pair instead, and so weigh easy and hard perturbations alike.

How stable a ranking is, Kendall's tau between it and the rankings of other data says. Tau-b
(Kendall 1945, Biometrika 33:239) is 1 for the same order, 0 on average for unrelated ones, -1 for
the reverse. The other data are resamples of perturbations, single seeds, or another metric. A tau
of 0.6 among five settings means that two of the ten comparisons went the other way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.statistics.bootstrap import percentile_interval

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_EQUAL = 12  # significant digits; sums in another order differ beyond, and are no reason for a rank


def rank(values: Floats, *, higher_is_better: bool, axis: int = -1) -> Floats:
    """Return places from 1 along an axis; what ties shares the better one, NaN is last.

    An undefined score must not help anyone, so NaN ranks behind all, sharing that place.
    """
    cost = -values if higher_is_better else values
    return _places(rounded(np.where(np.isnan(cost), np.inf, cost)), axis)


def _places(values: Floats, axis: int) -> Floats:
    """Rank as `scipy.stats.rankdata` with "min", without the half second that its import takes."""
    rows = np.moveaxis(values, axis, -1)
    order = np.argsort(rows, axis=-1)
    ordered = np.take_along_axis(rows, order, axis=-1)
    first = np.broadcast_to(np.arange(1.0, rows.shape[-1] + 1), rows.shape).copy()
    first[..., 1:][ordered[..., 1:] == ordered[..., :-1]] = 0
    found = np.empty(rows.shape)
    np.put_along_axis(found, order, np.maximum.accumulate(first, axis=-1), axis=-1)
    return np.moveaxis(found, -1, axis)


def rounded(values: Floats) -> Floats:
    """Return values to twelve significant digits, for comparing what was summed differently."""
    values = np.asarray(values, dtype=np.float64)
    finite = np.isfinite(values) & (values != 0)
    size = np.zeros(values.shape)
    size[finite] = np.floor(np.log10(np.abs(values[finite])))
    unit = 10.0 ** (_EQUAL - 1 - size)
    usable = finite & np.isfinite(unit)
    result = values.copy()
    result[usable] = np.round(values[usable] * unit[usable]) / unit[usable]
    return result


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of n settings by one number, arrays (n,).

    Attributes
    ----------
    rank
        By the number itself.
    low, high
        The ends of the percentile interval of the rank over resamples.
    best
        The share of resamples in which the setting is first; those who tie there share it.
    draws
        (n_draws, n) the ranks in each resample.
    """

    rank: Floats
    low: Floats
    high: Floats
    best: Floats
    draws: Floats


def ranks_of(values: Floats, draws: Floats, *, higher_is_better: bool, level: float) -> Ranks:
    """Return the ranks of `values` (n,), and their uncertainty from `draws` (n_draws, n)."""
    drawn = rank(draws, higher_is_better=higher_is_better)
    return summary_of_ranks(rank(values, higher_is_better=higher_is_better), drawn, level)


def mean_ranks_of(members: Sequence[Ranks], level: float) -> tuple[Floats, Ranks]:
    """Return mean ranks over several metrics (n,), and the settings' ranks by these.

    The mean rank is what a generalist is measured by: no metric's scale counts for more.
    """
    mean: Floats = np.mean([one.rank for one in members], axis=0)
    drawn = np.mean([one.draws for one in members], axis=0)
    return mean, ranks_of(mean, drawn, higher_is_better=False, level=level)


def summary_of_ranks(places: Floats, drawn: Floats, level: float) -> Ranks:
    """Return ranks with the intervals and the chances of being first that `drawn` gives them."""
    first = drawn == 1
    best = (first / np.maximum(first.sum(axis=1, keepdims=True), 1)).mean(axis=0)
    low, high = percentile_interval(drawn, level)
    return Ranks(places, np.floor(low), np.ceil(high), best, drawn)


@dataclass(frozen=True, slots=True)
class Friedman:
    """Whether settings differ at all over pairs, and by how much of a mean rank two must.

    Attributes
    ----------
    n_pairs
        Pairs for which all settings have a score; only these are ranked.
    mean_ranks
        (n,) of the settings within each pair, from 1 for the best; what ties shares the mean.
    statistic, p
        Friedman's chi-squared, corrected for ties, and its p-value.
    difference
        Nemenyi's critical difference of two mean ranks at the level.
    p_values
        (n, n) Nemenyi's, of every two settings.
    reason
        Why all of it is undefined, if it is.
    """

    n_pairs: int
    mean_ranks: Floats
    statistic: float
    p: float
    difference: float
    p_values: Floats
    reason: str = ""

    def groups(self) -> list[list[int]]:
        """Return the longest runs of settings that no two differ in, each from the best on.

        The bars of a critical-difference plot; a run of one is none.
        """
        if self.reason:
            return []
        order = np.argsort(self.mean_ranks, kind="stable")
        found: list[list[int]] = []
        end = 0
        for start in range(len(order)):
            near = self.mean_ranks[order] - self.mean_ranks[order[start]] < self.difference
            last = int(np.flatnonzero(near).max())
            if last > start and last > end:
                found.append([int(place) for place in order[start : last + 1]])
            end = max(end, last)
        return found


def untested(n_pairs: int, n: int, reason: str) -> Friedman:
    """Return the result for n settings that are not tested, for a reason: all of it NaN."""
    undefined = np.full((n, n), np.nan)
    return Friedman(n_pairs, undefined[0], np.nan, np.nan, np.nan, undefined, reason)


def friedman(values: Floats, *, higher_is_better: bool, level: float = 0.95) -> Friedman:
    """Rank settings within every pair, and test whether they differ.

    Parameters
    ----------
    values
        (n_pairs, n) scores, averaged over seeds and folds; pairs with NaN are left out.
    level
        1 less the chance that any two of equal settings differ by `Friedman.difference`.
    """
    from scipy.stats import friedmanchisquare, rankdata, studentized_range

    n = values.shape[1]
    complete = values[~np.isnan(values).any(axis=1)]
    reason = ""
    if n < 3:
        reason = f"{n} settings; Friedman's test needs three"
    elif len(complete) < 2:
        reason = f"{len(complete)} pairs that all have; Friedman's test needs two"
    ranked = rankdata(rounded(-complete if higher_is_better else complete), axis=1)
    if not reason and (ranked == ranked[:, :1]).all():
        reason = "no pair tells the settings apart"
    if reason:
        return untested(len(complete), n, reason)
    test = friedmanchisquare(*ranked.T)
    means: Floats = ranked.mean(axis=0)
    error = np.sqrt(n * (n + 1) / (12 * len(complete)))  # of the studentized range of mean ranks
    apart = np.abs(means[:, None] - means[None, :]) / error
    return Friedman(
        len(complete),
        means,
        float(test.statistic),
        float(test.pvalue),
        float(studentized_range.ppf(level, n, np.inf) * error),
        np.asarray(studentized_range.sf(apart, n, np.inf), dtype=np.float64),
    )


# --- stability ---------------------------------------------------------------------------------

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
    """Compute Kendall's τ of a ranking (n,) with each of `others` (n_others, n)."""
    if len(ranking) < 2:
        return Stability(np.nan, np.nan, np.nan, 0, "fewer than two settings")
    step = -(-len(others) // DRAWS) or 1
    taus = np.array([tau(ranking, other) for other in others[::step]])
    taus = taus[~np.isnan(taus)]
    if not len(taus):
        return Stability(np.nan, np.nan, np.nan, 0, "no other ranking orders the settings")
    low, high = percentile_interval(taus, level)
    return Stability(float(taus.mean()), float(low), float(high), len(taus))


def agreement(rankings: Sequence[Floats]) -> Floats:
    """Return the (n_rankings, n_rankings) taus of every two of several rankings (n,)."""
    n = len(rankings)
    found = np.full((n, n), np.nan)
    for row in range(n):
        for column in range(row, n):
            found[row, column] = found[column, row] = tau(rankings[row], rankings[column])
    return found
