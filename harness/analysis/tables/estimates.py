"""What a comparison says of each setting: means, intervals, combined scores, floors and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.analysis.statistics import defined_mean, percentile_interval, rank, resample
from harness.analysis.tables.combined_score import combination
from harness.analysis.tables.resampling import Opponent, drawn_means, parts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from harness.analysis.statistics import Bootstrap, Resamples
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block

    Floats = NDArray[np.float64]

_EQUAL = 1e-12  # relative; sums in another order differ by less, and are no reason to miss a floor


class Interval(NamedTuple):
    """Estimates with the ends of their intervals, arrays of one shape; NaN where undefined."""

    mean: Floats
    low: Floats
    high: Floats

    @classmethod
    def undefined(cls, *shape: int) -> Interval:
        """Return NaN throughout."""
        return cls(*(np.full(shape, np.nan) for _ in range(3)))

    def put(self, place: slice, mean: Floats, draws: Floats, level: float) -> None:
        """Fill in means and, from their resamples (n_draws, ...), intervals."""
        self.mean[place] = mean
        self.low[place], self.high[place] = percentile_interval(draws, level)

    def hide(self, where: NDArray[np.bool_]) -> None:
        """Make intervals undefined."""
        self.low[where] = self.high[where] = np.nan


@dataclass(frozen=True, slots=True)
class Estimates:
    """Estimates of one block.

    Attributes
    ----------
    metrics
        (n_settings, n_metrics) means over pairs.
    n_defined
        (n_settings, n_metrics) pairs with a defined score; an interval needs two.
    combined
        (n_settings,) combined scores; NaN without a baseline.
    floors
        (n_settings, n_metrics) what a mean must reach; NaN for no floor.
    places
        (n_settings, n_metrics) ranks; NaN for what is not ranked.
    ties
        (n_settings, n_metrics) whether the interval of the paired difference from the best setting
        holds 0. What is first is no tie.
    """

    metrics: Interval
    n_defined: NDArray[np.int64]
    combined: Interval
    floors: Floats = field(repr=False)
    places: Floats = field(repr=False)
    ties: NDArray[np.bool_] = field(repr=False)


def estimate(
    block: Block,
    scales: Sequence[Scale],
    baseline: int | None,
    bootstrap: Bootstrap,
    floors: Mapping[str, float] | None = None,
) -> Estimates:
    """Return the estimates of a block; `baseline` is the place of the setting to scale from.

    The combined score is that of the means over pairs, as the challenges define it, not the mean of
    trials' combined scores; see `harness.analysis.tables.combined_score`.
    """
    resamples = resample(list(block.pairs["context"]), bootstrap)
    shape = (len(block.settings), len(scales))
    metrics, combined = Interval.undefined(*shape), Interval.undefined(shape[0])
    limits, ties = np.full(shape, np.nan), np.zeros(shape, dtype=bool)
    places = metric_ranks(pair_means(block.values), scales, ranked_settings(block))
    combiner = combination(block, scales, baseline, resamples)
    leaders = _leaders(block, scales, places, resamples)
    for part in parts(block, bootstrap.draws) if len(block.pairs) else ():
        known = drawn_means(block, part, resamples)
        metrics.put(part, *known, bootstrap.level)
        for column, leader in leaders:
            found = leader.differences(part, known)
            low, high = (end[:, 0] for end in percentile_interval(found.draws, bootstrap.level))
            behind = (found.n_pairs[:, 0] > 1) & (places[part, column] > 1)
            ties[part, column] = (low <= 0) & (high >= 0) & behind
        if combiner is not None:
            limits[part] = combiner.floors(part)
            combined.put(part, *combiner.scores(part, known), bootstrap.level)
    # Too few pairs say nothing, and neither does one value for a whole context.
    n_defined = (~np.isnan(block.values)).sum(axis=1)
    metrics.hide((n_defined < 2) | np.array([scale.per_context for scale in scales], dtype=bool))
    n_scored = block.scored.sum(axis=1)
    combined.hide(n_scored < 2)
    combined.mean[n_scored == 0] = np.nan
    for column, scale in enumerate(scales):
        limits[:, column] = (floors or {}).get(scale.name, limits[:, column])
    return Estimates(metrics, n_defined, combined, limits, places, ties)


def _leaders(
    block: Block, scales: Sequence[Scale], places: Floats, resamples: Resamples
) -> list[tuple[int, Opponent]]:
    """Return for each ranked metric its column and the setting that is first by it."""
    found = []
    for column in np.flatnonzero((places == 1).any(axis=0)).tolist():
        if not scales[column].per_context:
            first = int(np.flatnonzero(places[:, column] == 1)[0])
            columns = slice(column, column + 1)
            found.append((column, Opponent(block, first, resamples, columns)))
    return found


def ranked_settings(block: Block) -> NDArray[np.bool_]:
    """Return which settings are ranked: no ceilings, and nothing without scores."""
    ceilings = np.array([setting.ceiling for setting in block.settings], dtype=bool)
    ranked: NDArray[np.bool_] = np.asarray(block.scored.any(axis=1)) & ~ceilings
    return ranked


def pair_means(values: Floats) -> Floats:
    """Return the means (n_settings, n_metrics) over the pairs that are defined."""
    return defined_mean(values, axis=1)


def misses(means: Floats, floors: Floats, higher_is_better: bool) -> NDArray[np.bool_]:  # noqa: FBT001 - data of a metric, not a switch
    """Return where a mean does not reach its floor. NaN reaches none; a floor of NaN is none."""
    better = means > floors if higher_is_better else means < floors
    reached = better | np.isclose(means, floors, rtol=_EQUAL, atol=0)
    missed: NDArray[np.bool_] = ~reached & ~np.isnan(floors)
    return missed


def metric_ranks(means: Floats, scales: Sequence[Scale], ranked: NDArray[np.bool_]) -> Floats:
    """Return (n_settings, n_metrics) places from 1; what ties shares the better place.

    Parameters
    ----------
    means
        (n_settings, n_metrics); NaN is last, since an undefined score must not help anyone.
    ranked
        (n_settings,) which settings take part. NaN for the others, and for metrics without a
        direction or without any value.
    """
    places = np.full(means.shape, np.nan)
    for column, scale in enumerate(scales):
        values = means[ranked, column]
        if scale.higher_is_better is not None and not np.isnan(values).all():
            places[ranked, column] = rank(values, higher_is_better=scale.higher_is_better)
    return places
