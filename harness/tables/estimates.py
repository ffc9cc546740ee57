"""What a comparison says of each setting: means, intervals, combined scores, floors and ranks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.metrics.combine import combined_score
from harness.statistics import percentile_interval, resample

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from harness.statistics import Bootstrap, Resamples
    from harness.tables.reduction import Block

    Floats = NDArray[np.float64]

_DRAWN_AT_ONCE = 8_000_000  # resampled means in memory: 64 MB
_EQUAL = 1e-12  # relative; sums in another order differ by less, and are no reason for a rank


@dataclass(frozen=True, slots=True)
class Scale:
    """What a table needs to know of a metric.

    Attributes
    ----------
    higher_is_better
        None for a mere count, which is shown and not ranked.
    best
        The best value, when the suite combines the metric; else None.
    """

    name: str
    version: int
    higher_is_better: bool | None
    best: float | None = None


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
    """

    metrics: Interval
    n_defined: NDArray[np.int64]
    combined: Interval
    floors: Floats = field(repr=False)


def estimate(
    block: Block,
    scales: Sequence[Scale],
    baseline: int | None,
    bootstrap: Bootstrap,
    floors: Mapping[str, float] | None = None,
) -> Estimates:
    """Return the estimates of a block; `baseline` is the place of the setting to scale from.

    The combined score is that of the means over pairs, as the challenge defines it, not the mean of
    trials' combined scores. Baseline and setting share their resamples, and a setting that lacks
    pairs is scaled from the baseline's means over the pairs that it has.
    """
    n_settings, n_pairs, n_metrics = block.values.shape
    metrics, combined = Interval.undefined(n_settings, n_metrics), Interval.undefined(n_settings)
    n_defined = (~np.isnan(block.values)).sum(axis=1)
    references = _References(block, baseline, resample(list(block.pairs["context"]), bootstrap))
    limits = np.full((n_settings, n_metrics), np.nan)
    best = np.array([np.nan if scale.best is None else scale.best for scale in scales])
    members = ~np.isnan(best)
    if n_pairs:
        for part in _parts(n_settings, n_metrics * bootstrap.draws):
            mean, draws = pair_means(block.values[part], references.resamples)
            metrics.put(part, mean, draws, bootstrap.level)
            if baseline is None or not members.any():
                continue
            base_mean, base_draws = references.of(part)
            limits[part, members] = base_mean[:, members]
            combined.put(
                part,
                combined_score(mean[:, members], base_mean[:, members], best[members]),
                combined_score(draws[..., members], base_draws[..., members], best[members]),
                bootstrap.level,
            )
    metrics.hide(n_defined < 2)
    n_scored = block.scored.sum(axis=1)
    combined.hide(n_scored < 2)
    combined.mean[n_scored == 0] = np.nan
    for place, scale in enumerate(scales):
        limits[:, place] = (floors or {}).get(scale.name, limits[:, place])
    return Estimates(metrics, n_defined, combined, limits)


def _parts(n_settings: int, size_of_one: int) -> Iterator[slice]:
    step = max(1, _DRAWN_AT_ONCE // size_of_one)
    for start in range(0, n_settings, step):
        yield slice(start, min(start + step, n_settings))


def pair_means(values: Floats, resamples: Resamples) -> tuple[Floats, Floats]:
    """Return the means (n_settings, n_metrics) over pairs, and (n_draws, ...) of the resamples."""
    n_settings, n_pairs, n_metrics = values.shape
    defined = ~np.isnan(values)
    with np.errstate(invalid="ignore"):
        mean = np.where(defined, values, 0.0).sum(axis=1) / defined.sum(axis=1)
    flat = values.transpose(1, 0, 2).reshape(n_pairs, -1)
    return mean, resamples.means(flat).reshape(-1, n_settings, n_metrics)


@dataclass(slots=True)
class _References:
    """The baseline's means over the pairs that each setting has; few settings lack any."""

    block: Block
    baseline: int | None
    resamples: Resamples
    known: dict[bytes, tuple[Floats, Floats]] = field(default_factory=dict)

    def of(self, part: slice) -> tuple[Floats, Floats]:
        """Return (n_settings, n_metrics) means and (n_draws, n_settings, n_metrics) resamples."""
        found = [self._over(pairs) for pairs in self.block.scored[part]]
        if all(one is found[0] for one in found):  # broadcast rather than copied
            return np.repeat(found[0][0], len(found), axis=0), found[0][1]
        means, draws = zip(*found, strict=True)
        return np.concatenate(means), np.concatenate(draws, axis=1)

    def _over(self, pairs: NDArray[np.bool_]) -> tuple[Floats, Floats]:
        key = pairs.tobytes()
        if key not in self.known:
            values = np.where(pairs[:, None], self.block.values[self.baseline], np.nan)
            self.known[key] = pair_means(values[None], self.resamples)
        return self.known[key]


def misses(means: Floats, floors: Floats, higher_is_better: bool) -> NDArray[np.bool_]:  # noqa: FBT001 - data of a metric, not a switch
    """Return where a mean does not reach its floor. NaN reaches none; a floor of NaN is none."""
    better = means > floors if higher_is_better else means < floors
    reached = better | np.isclose(means, floors, rtol=_EQUAL, atol=0)
    missed: NDArray[np.bool_] = ~reached & ~np.isnan(floors)
    return missed


def ranks(means: Floats, scales: Sequence[Scale], ranked: NDArray[np.bool_]) -> Floats:
    """Return (n_settings, n_metrics) places from 1; what ties shares the better place.

    Parameters
    ----------
    means
        (n_settings, n_metrics); NaN is last, since an undefined score must not help anyone.
    ranked
        (n_settings,) which settings take part: no ceilings, and nothing without scores. NaN for
        the others, and for metrics without a direction or without any value.
    """
    places = np.full(means.shape, np.nan)
    for column, scale in enumerate(scales):
        values = means[ranked, column]
        if scale.higher_is_better is None or np.isnan(values).all():
            continue
        cost = -values if scale.higher_is_better else values
        cost = np.where(np.isnan(cost), np.inf, cost)
        rounded = _rounded(cost)
        places[ranked, column] = 1 + np.searchsorted(np.sort(rounded), rounded)  # ties: the better
    return places


def _rounded(values: Floats) -> Floats:
    return np.array([float(f"{value:.12g}") for value in values])
