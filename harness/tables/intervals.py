"""Intervals for means over pairs: a percentile bootstrap over perturbations, within each context.

All models and metrics of a comparison see the same resamples, so that what is built of several
means (the combined score, a difference of two models) is resampled as a pair. A resample is a
count of each pair, and a resampled mean one matrix product: `scipy.stats.bootstrap` draws anew for
every statistic, knows no strata, and took twelve times as long for 2,000 means of 100 pairs.

What it gave up: percentile intervals are too narrow for few pairs. Of 5, 10, 20 and 40 normal
values they held the mean in 84, 90, 93 and 94 % of cases, not 95; the footer warns below `FEW`.
They never leave the range of the scores, as Student's do, and they need no jackknife, which a
scaled score that is clipped at 0 would mislead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


FEW = 20
"""With fewer pairs than this, an interval says more than it knows."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """How many resamples, from which seed, and how much of them an interval holds."""

    draws: int = 2000
    seed: int = 0
    level: float = 0.95

    def __post_init__(self) -> None:
        if self.draws < 1 or not 0 < self.level < 1:
            raise ValueError(
                f"Bootstrap needs at least 1 draw and a level between 0 and 1, but got {self}."
            )


@dataclass(frozen=True, slots=True)
class Resamples:
    """How often each resample took each pair; as many pairs of each stratum as there are.

    Attributes
    ----------
    draws
        How many resamples.
    strata
        For each stratum its pairs' places, and (draws, n_pairs of the stratum) counts.
    """

    draws: int
    strata: tuple[tuple[NDArray[np.int64], NDArray[np.uint16]], ...]

    def totals(self, values: Floats) -> Floats:
        """Return the (draws, n) sums of `values` (n_pairs, n) over the pairs of each resample."""
        total = np.zeros((self.draws, values.shape[1]))
        for places, counts in self.strata:
            total += counts.astype(np.float64) @ values[places]
        return total

    def means(self, values: Floats) -> Floats:
        """Return the (draws, n) means of `values` (n_pairs, n) over what is not NaN.

        NaN where a resample took none that is defined.
        """
        defined = ~np.isnan(values)
        totals = self.totals(np.where(defined, values, 0.0))
        if defined.all():
            return totals / max(len(values), 1)
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Floats = totals / self.totals(defined.astype(np.float64))
        return ratio


def resample(contexts: Sequence[str], bootstrap: Bootstrap) -> Resamples:
    """Draw resamples of pairs with replacement, within each of the `contexts` (n_pairs,).

    Contexts with a single pair are drawn from together: alone, such a pair could not vary. The
    draws depend on how many pairs each context has, and on the seed.
    """
    names, code, size = np.unique(np.asarray(contexts), return_inverse=True, return_counts=True)
    stratum = np.where(size[code] > 1, code, len(names))
    strata = []
    for number in np.unique(stratum):
        places = np.flatnonzero(stratum == number)
        rng = np.random.default_rng([bootstrap.seed, int(number)])
        n = len(places)
        counts = rng.multinomial(n, np.full(n, 1 / n), size=bootstrap.draws)
        strata.append((places, counts.astype(np.uint16)))
    return Resamples(bootstrap.draws, tuple(strata))


def percentile_interval(draws: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the ends of the central interval of `draws` (n_draws, ...), leaving out NaN."""
    ends = [50 * (1 - level), 50 * (1 + level)]
    if not np.isnan(draws).any():
        low, high = np.percentile(draws, ends, axis=0)
        return low, high
    flat = draws.reshape(len(draws), -1)
    found = np.full((2, flat.shape[1]), np.nan)
    for place in range(flat.shape[1]):
        column: NDArray[Any] = flat[:, place]
        column = column[~np.isnan(column)]
        if len(column):
            found[:, place] = np.percentile(column, ends)
    return found[0].reshape(draws.shape[1:]), found[1].reshape(draws.shape[1:])
