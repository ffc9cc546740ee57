"""The table of ranks: each with its interval and the chance of being first, tests, stability."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.analysis.statistics import (
    Stability,
    agreement,
    friedman,
    holm,
    mean_ranks_of,
    ranks_of,
    resample,
    stability,
    untested,
)
from harness.analysis.tables.estimates import metric_ranks, pair_means
from harness.analysis.tables.formatting import (
    ARROWS,
    UNDEFINED,
    amount,
    model_cells,
    p_text,
    plain,
    texts,
)
from harness.analysis.tables.notes import counted, cut
from harness.analysis.tables.resampling import drawn_means, parts
from harness.analysis.tables.scale import WHOLE
from harness.analysis.tables.selection import identity, standing
from harness.analysis.tables.text import Cell, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from harness.analysis.statistics import Friedman, Ranks
    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope
    from harness.analysis.tables.table import Table

    Floats = NDArray[np.float64]


MEAN_RANK = "mean rank"
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
    tests = {
        scale.name: friedman(block.values[[*places], :, at].T, higher_is_better=up, level=level)
        for at, scale, up in directed
    }
    whole = {scale.name for _, scale, _ in directed if scale.per_context}
    unsure = np.full(len(places), np.nan)
    for name in whole:  # all pairs of a context share one value: nothing to resample or to test
        by_metric[name] = replace(by_metric[name], low=unsure, high=unsure, best=unsure)
        tests[name] = untested(tests[name].n_pairs, len(places), tests[name].reason or WHOLE)
    mean_rank, by_mean = mean_ranks_of([*by_metric.values()], level)
    every = {**by_metric, MEAN_RANK: by_mean}
    return Ranking(
        block,
        places,
        mean_rank,
        by_mean,
        by_metric,
        tests,
        {
            name: Stability(np.nan, np.nan, np.nan, 0, WHOLE)
            if name in whole
            else stability(found.rank, found.draws, level)
            for name, found in every.items()
        },
        _by_seed(block, scope, places, every),
        agreement([found.rank for found in by_metric.values()]),
        len(order) - len(places),
    )


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
    """Return the agreement of each repeat's ranking with the ranking by all repeats."""
    n_repeats = min(len(block.repeats[place]) for place in places)
    if n_repeats < 2:
        return {}
    alone = []
    for repeat in range(n_repeats):
        means = pair_means(np.stack([block.fits_of(place)[repeat] for place in places]))
        alone.append(metric_ranks(means, scope.scales, np.ones(len(places), dtype=bool)))
    by_repeat = np.stack(alone)  # (n_repeats, n, n_metrics)
    found = {
        scale.name: stability(every[scale.name].rank, by_repeat[..., at])
        for at, scale, _ in scope.directed
    }
    found[MEAN_RANK] = stability(every[MEAN_RANK].rank, np.nanmean(by_repeat, axis=2))
    return found


def ranks(scope: Scope) -> Table:
    """Return the ranks of settings, one row for each, best first.

    Columns of its frame: ``dataset``, ``dataset_version``, ``split``, ``controls``, ``model``,
    ``setting``, ``role``; ``mean_rank`` over metrics; ``mean_rank_place`` with ``_low``, ``_high``
    and ``_first`` (the share of resamples in which the setting leads by its mean rank); for each
    metric ``_rank`` with the same, ``_friedman_rank`` (mean rank within pairs); the same for all
    rows of a block, ``_friedman_p``, ``_critical_difference`` (Nemenyi's), ``_tau`` (stability).
    """
    found = [one for block in scope.blocks if (one := ranking_of(block, scope)) is not None]
    frames = [_frame(ranking, scope) for ranking in found]
    return scope.table("ranks", frames, _notes(scope, found), partial(_sections, found))


def _frame(ranking: Ranking, scope: Scope) -> pd.DataFrame:
    block, places = ranking.block, [*ranking.places]
    about = identity(block, scope.reference(block)).iloc[places].reset_index(drop=True)
    columns: dict[str, object] = {"mean_rank": ranking.mean_rank}
    columns |= _columns("mean_rank_place", ranking.by_mean)
    for name, found in ranking.by_metric.items():
        columns |= _columns(f"{name}_rank", found)
        columns[f"{name}_friedman_rank"] = ranking.friedman[name].mean_ranks
        columns[f"{name}_friedman_p"] = ranking.friedman[name].p
        columns[f"{name}_critical_difference"] = ranking.friedman[name].difference
        columns[f"{name}_tau"] = ranking.perturbations[name].mean
    return pd.concat([about, pd.DataFrame(columns)], axis=1)


def _columns(name: str, found: Ranks) -> dict[str, object]:
    return {
        name: found.rank,
        f"{name}_low": found.low,
        f"{name}_high": found.high,
        f"{name}_first": found.best,
    }


def _notes(scope: Scope, found: Sequence[Ranking]) -> Iterator[str]:
    bootstrap = scope.bootstrap
    yield (
        f"Ranks: ties share the better one. In brackets the {100 * bootstrap.level:g} % interval "
        f"of the rank over {bootstrap.draws} bootstrap resamples of perturbations within each "
        "context, and of seeds where there are several; then the share of resamples in which the "
        "setting is first. The mean rank is over metrics; beside it, where it puts the setting. "
        "Ceilings are not ranked."
    )
    yield (
        "Friedman's test asks whether settings differ at all, ranking them within each pair that "
        "all have; its p-values are adjusted by Holm's procedure over the metrics. Two settings "
        "whose mean ranks within pairs differ by less than the critical difference (Nemenyi's) are "
        "not told apart."
    )
    yield (
        "Stability: Kendall's τ between the order and those of resampled perturbations and seeds, "
        "of single seeds, and by other metrics. 1: the same order; 0: unrelated; −1: the reverse."
    )
    for ranking in found:
        if ranking.n_left_out:
            left = counted(ranking.n_left_out, "setting")
            yield f"{ranking.block.title}: {left} behind these left out."


# --- how it is shown ----------------------------------------------------------------------------


def _sections(found: Sequence[Ranking], table: Table) -> Iterator[Section]:
    better = {scale.name: ARROWS[scale.higher_is_better] for scale in table.scales}
    for ranking in found:
        title = ranking.block.title
        settings = [ranking.block.settings[place] for place in ranking.places]
        about = pd.DataFrame([{"model": s.model, "setting": s.label} for s in settings])
        models = model_cells(about)
        means = [
            Cell(mean.text, f"#{place.text} {place.detail}", place.best)
            for mean, place in zip(plain(ranking.mean_rank), _ranked(ranking.by_mean), strict=True)
        ]
        columns = {"model": models, "mean rank ↓": means}
        columns |= {n + better[n]: _ranked(r) for n, r in ranking.by_metric.items()}
        yield Section.of(f"{title}: ranks", columns)
        yield _tests(f"{title}: do settings differ?", ranking)
        within = {
            n: plain(test.mean_ranks) for n, test in ranking.friedman.items() if not test.reason
        }
        if within:
            yield Section.of(f"{title}: mean rank within pairs", {"model": models, **within})
        yield _stability(f"{title}: stability of the order", ranking)


def _ranked(found: Ranks) -> list[Cell]:
    columns = (found.rank, found.low, found.high, found.best)
    return [
        Cell(
            f"{rank:.0f}",
            "" if np.isnan(low) else f"[{low:.0f}, {high:.0f}] {100 * first:.0f} %",
            bool(rank == 1),
        )
        for rank, low, high, first in zip(*columns, strict=True)
    ]


def _tests(title: str, ranking: Ranking) -> Section:
    tests = ranking.friedman
    adjusted = holm(np.array([test.p for test in tests.values()]))
    titles = [ranking.block.settings[place].title for place in ranking.places]
    groups = [
        "; ".join(cut([titles[at] for at in group]) for group in test.groups())
        for test in tests.values()
    ]
    columns = {
        "metric": texts(tests),
        "not told apart": [
            Cell(test.reason or told or "none")
            for test, told in zip(tests.values(), groups, strict=True)
        ],
        "pairs": texts(test.n_pairs for test in tests.values()),
        "χ²": [Cell(amount(test.statistic)) for test in tests.values()],
        "p": [Cell(p_text(p).removeprefix("p ").removeprefix("= ")) for p in adjusted],
        "critical difference": plain(test.difference for test in tests.values()),
    }
    return Section.of(title, columns, n_labels=2)


def _stability(title: str, ranking: Ranking) -> Section:
    names = [*ranking.by_metric, MEAN_RANK]
    columns = {"order by": texts(names), "τ, perturbations": _taus(names, ranking.perturbations)}
    if ranking.seeds:
        columns["τ, single seeds"] = _taus(names, ranking.seeds)
    for at, name in enumerate(ranking.by_metric):
        columns[f"τ, {name}"] = [*plain(ranking.metrics[:, at]), Cell(UNDEFINED)]
    return Section.of(title, columns)


def _taus(names: Sequence[str], found: Mapping[str, Stability]) -> list[Cell]:
    cells = []
    for name in names:
        one = found[name]
        known = not np.isnan(one.mean)
        detail = f"[{one.low:.2f}, {one.high:.2f}]" if known else one.reason
        cells.append(Cell(f"{one.mean:.2f}" if known else UNDEFINED, detail))
    return cells
