"""Who is ahead, and how sure that is: ranks with intervals, tests over all settings, stability."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from harness.analysis.statistics import (
    Friedman,
    Stability,
    agreement,
    friedman,
    mean_ranks_of,
    ranks_of,
    resample,
    stability,
)
from harness.analysis.tables.estimates import pair_means, ranks
from harness.analysis.tables.resampling import drawn_means, parts
from harness.analysis.tables.scale import WHOLE
from harness.analysis.tables.selection import standing

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from harness.analysis.statistics import Ranks
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope

    Floats = NDArray[np.float64]

MOST = 200
"""Ranks are of so many settings at most: of the best."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """The ranks of one block's settings; arrays and `Ranks` are in the order of `places`.

    Attributes
    ----------
    block
        What is ranked.
    places
        The settings, best first: by combined score, then by mean rank.
    mean_rank, by_mean
        (n,) the mean of the ranks over metrics, and the ranks by it: the generalists'.
    by_metric
        The ranks by each metric that has a direction.
    friedman
        Friedman's and Nemenyi's tests of each metric; the data of a critical-difference plot.
    perturbations
        How much the order by each metric, and by the mean rank (``mean rank``), agrees with that
        of resampled perturbations and seeds.
    seeds
        The same, with that of each seed alone; only where all settings have several.
    metrics
        (n_metrics, n_metrics) Kendall's tau between the orders by every two metrics.
    n_left_out
        Settings beyond `MOST`.
    """

    block: Block
    places: tuple[int, ...]
    mean_rank: Floats
    by_mean: Ranks
    by_metric: Mapping[str, Ranks]
    friedman: Mapping[str, Friedman]
    perturbations: Mapping[str, Stability]
    seeds: Mapping[str, Stability]
    metrics: Floats
    n_left_out: int


MEAN_RANK = "mean rank"


def ranking_of(block: Block, scope: Scope) -> Ranking | None:
    """Return the ranking of a block's settings; None where fewer than two have scores."""
    order = standing(block, scope.scales, scope.reference(block)).order
    places = order[:MOST]
    directed = scope.directed
    if len(places) < 2 or not directed:
        return None
    level = scope.bootstrap.level
    means, draws = _drawn(block, scope, places)
    by_metric = {
        scale.name: ranks_of(means[:, at], draws[..., at], higher_is_better=up, level=level)
        for at, scale, up in directed
    }
    whole = {scale.name for _, scale, _ in directed if scale.per_context}
    unsure = np.full(len(places), np.nan)
    for name in whole:
        by_metric[name] = replace(by_metric[name], low=unsure, high=unsure, best=unsure)
    mean_rank, by_mean = mean_ranks_of([*by_metric.values()], level)
    every = {**by_metric, MEAN_RANK: by_mean}
    return Ranking(
        block,
        places,
        mean_rank,
        by_mean,
        by_metric,
        {
            scale.name: _untested(
                friedman(block.values[[*places], :, at].T, higher_is_better=up, level=level), scale
            )
            for at, scale, up in directed
        },
        {
            name: Stability(np.nan, np.nan, np.nan, 0, WHOLE)
            if name in whole
            else stability(found.rank, found.draws, level)
            for name, found in every.items()
        },
        _by_seed(block, scope, places, every),
        agreement(np.array([found.rank for found in by_metric.values()])),
        len(order) - len(places),
    )


def _untested(found: Friedman, scale: Scale) -> Friedman:
    """Return Friedman's test as it is, or none of a metric whose pairs share one value."""
    if not scale.per_context:
        return found
    undefined = np.full_like(found.p_values, np.nan)
    nothing = (np.nan, np.nan, np.nan)
    return Friedman(found.n_pairs, undefined[0], *nothing, undefined, found.reason or WHOLE)


def _drawn(block: Block, scope: Scope, places: Sequence[int]) -> tuple[Floats, Floats]:
    """Return means (n, n_metrics) and resamples (n_draws, n, n_metrics) of some settings."""
    resamples = resample(list(block.pairs["context"]), scope.bootstrap)
    means = np.empty((len(places), len(scope.scales)))
    draws = np.empty((scope.bootstrap.draws, *means.shape))
    row_of = {place: row for row, place in enumerate(places)}
    for part in parts(block, scope.bootstrap.draws):
        wanted = [place for place in range(part.start, part.stop) if place in row_of]
        if wanted:
            mean, drawn = drawn_means(block, part, resamples)
            rows, at = [row_of[place] for place in wanted], np.array(wanted) - part.start
            means[rows], draws[:, rows] = mean[at], drawn[:, at]
    return means, draws


def _by_seed(
    block: Block, scope: Scope, places: Sequence[int], every: Mapping[str, Ranks]
) -> dict[str, Stability]:
    """Return how the order by each single repeat agrees with that by all of them."""
    n_repeats = min(len(block.repeats[place]) for place in places)
    if n_repeats < 2:
        return {}
    alone = []
    for repeat in range(n_repeats):
        means = pair_means(np.stack([block.fits_of(place)[repeat] for place in places]))
        alone.append(ranks(means, scope.scales, np.ones(len(places), dtype=bool)))
    by_repeat = np.stack(alone)  # (n_repeats, n, n_metrics)
    found = {
        scale.name: stability(every[scale.name].rank, by_repeat[..., at])
        for at, scale, _ in scope.directed
    }
    found[MEAN_RANK] = stability(every[MEAN_RANK].rank, np.nanmean(by_repeat, axis=2))
    return found
