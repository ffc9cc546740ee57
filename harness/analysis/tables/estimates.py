"""What a comparison says of each setting: means, intervals, combined scores, floors and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.statistics import percentile_interval, rank, resample
from harness.analysis.tables.combined_score import combination
from harness.analysis.tables.resampling import Opponent, drawn_means, parts
from harness.analysis.tables.scale import Interval, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from harness.analysis.statistics import Bootstrap
    from harness.analysis.tables.score_array import Block

    Floats = NDArray[np.float64]

_EQUAL = 1e-12  # relative; sums in another order differ by less, and are no reason to miss a floor


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
    return _Estimation(block, scales, baseline, bootstrap, floors or {}).carried_out()


class _Estimation:
    """The estimates of one block while they are made, some settings at a time."""

    def __init__(
        self,
        block: Block,
        scales: Sequence[Scale],
        baseline: int | None,
        bootstrap: Bootstrap,
        floors: Mapping[str, float],
    ) -> None:
        self.block, self.scales, self.bootstrap, self.floors = block, scales, bootstrap, floors
        self.resamples = resample(list(block.pairs["context"]), bootstrap)
        n_settings, _, n_metrics = block.values.shape
        self.metrics = Interval.undefined(n_settings, n_metrics)
        self.combined = Interval.undefined(n_settings)
        self.limits = np.full((n_settings, n_metrics), np.nan)
        self.ties = np.zeros((n_settings, n_metrics), dtype=bool)
        self.places = metric_ranks(pair_means(block.values), scales, ranked_settings(block))
        self.combination = combination(block, scales, baseline, self.resamples)

    def carried_out(self) -> Estimates:
        """Go through the settings, and leave undefined what too few pairs say nothing about."""
        block = self.block
        if len(block.pairs):
            leaders = self._leaders()
            for part in parts(block, self.bootstrap.draws):
                self._estimate(part, leaders)
        n_defined = (~np.isnan(block.values)).sum(axis=1)
        whole = np.array([scale.per_context for scale in self.scales], dtype=bool)
        self.metrics.hide((n_defined < 2) | whole)
        n_scored = block.scored.sum(axis=1)
        self.combined.hide(n_scored < 2)
        self.combined.mean[n_scored == 0] = np.nan
        for place, scale in enumerate(self.scales):
            self.limits[:, place] = self.floors.get(scale.name, self.limits[:, place])
        return Estimates(
            self.metrics, n_defined, self.combined, self.limits, self.places, self.ties
        )

    def _estimate(self, part: slice, leaders: Sequence[tuple[int, Opponent]]) -> None:
        level = self.bootstrap.level
        mean, draws = drawn_means(self.block, part, self.resamples)
        self.metrics.put(part, mean, draws, level)
        for column, leader in leaders:
            found = leader.differences(part, (mean, draws))
            low, high = (end[:, 0] for end in percentile_interval(found.draws, level))
            behind = (found.n_pairs[:, 0] > 1) & (self.places[part, column] > 1)
            self.ties[part, column] = (low <= 0) & (high >= 0) & behind
        if self.combination is not None:
            self.limits[part] = self.combination.floors(part)
            self.combined.put(part, *self.combination.scores(part, (mean, draws)), level)

    def _leaders(self) -> list[tuple[int, Opponent]]:
        """Return for each ranked metric its column and the setting that is first by it."""
        found = []
        for column in np.flatnonzero((self.places == 1).any(axis=0)).tolist():
            if self.scales[column].per_context:
                continue
            first = int(np.flatnonzero(self.places[:, column] == 1)[0])
            columns = slice(column, column + 1)
            found.append((column, Opponent(self.block, first, self.resamples, columns)))
        return found


def ranked_settings(block: Block) -> NDArray[np.bool_]:
    """Return which settings are ranked: no ceilings, and nothing without scores."""
    ceilings = np.array([setting.ceiling for setting in block.settings], dtype=bool)
    ranked: NDArray[np.bool_] = np.asarray(block.scored.any(axis=1)) & ~ceilings
    return ranked


def pair_means(values: Floats) -> Floats:
    """Return the means (n_settings, n_metrics) over the pairs that are defined."""
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean: Floats = np.where(defined, values, 0.0).sum(axis=1) / defined.sum(axis=1)
    return mean


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
