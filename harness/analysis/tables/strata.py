"""Scores by strata: where a model is good, by what the truth says of its pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from harness.analysis.statistics import percentile_interval, resample
from harness.analysis.tables.formatting import ARROWS, Column, amount, estimate_cells, model_cells
from harness.analysis.tables.notes import cut, what_a_mean_is, what_an_interval_is
from harness.analysis.tables.pair_properties import EXPLAINED, FACTS, facts_of
from harness.analysis.tables.resampling import drawn_means, parts
from harness.analysis.tables.selection import (
    best_of_each_model,
    by_block,
    identity,
    standing,
)
from harness.analysis.tables.text import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope
    from harness.analysis.tables.table import Table

NAMES = ("low", "middle", "high")
FEWEST = 6
"""Pairs whose fact must be known: two in each stratum."""

MOST = 12
"""Settings shown: the best one of each model, and of these the first."""


class Stratum(NamedTuple):
    """A third of a block's pairs, by one fact."""

    fact: str
    name: str
    low: float
    high: float
    members: NDArray[np.bool_]


def strata(scope: Scope) -> Table:
    """Return each setting's means within thirds of the pairs, by every fact that is known.

    One row per setting, fact, stratum and metric. Columns of its frame: ``dataset``,
    ``dataset_version``, ``split``, ``controls``, ``model``, ``setting``, ``role``; ``fact`` (a
    column of `facts_of`), ``stratum``, ``from``, ``to``, ``n_pairs``; ``metric``, ``mean``,
    ``mean_low``, ``mean_high``; ``shown``, whether a text shows the setting.
    """
    notes = [
        f"{what_a_mean_is()} {what_an_interval_is(scope.bootstrap)}",
        "Strata: thirds of the pairs in order of what stands above them, n pairs each. "
        f"{EXPLAINED}",
    ]
    frames = []
    for block in scope.blocks:
        found, unknown = strata_of(block, scope)
        if unknown:
            notes.append(
                f"{block.title}: not by {cut(unknown)}, which the run's reference has of "
                f"fewer than {FEWEST} pairs."
            )
        order = standing(block, scope.scales, scope.reference(block)).order
        shown, said = best_of_each_model(block, order, MOST)
        notes += said
        frames += [_frame(block, scope, stratum, order, shown) for stratum in found]
    return scope.table("strata", frames, notes, _sections)


def strata_of(block: Block, scope: Scope) -> tuple[list[Stratum], list[str]]:
    """Return the thirds of a block's pairs by every fact, and the names of facts that lack pairs.

    Pairs with equal values are never parted, so thirds may differ in size, and where most values
    are equal there may be two.
    """
    facts = facts_of(block, scope.results.runs)
    found: list[Stratum] = []
    unknown = []
    for name, label in FACTS.items():
        values = facts[name].to_numpy()
        known = values[~np.isnan(values)]
        if len(known) < FEWEST:
            unknown.append(label)
            continue
        edges = np.quantile(known, [1 / 3, 2 / 3], method="lower")
        part = np.searchsorted(edges, values)  # NaN would be in the last
        for place, stratum in enumerate(NAMES):
            members = (part == place) & ~np.isnan(values)
            if members.any():
                ends = float(values[members].min()), float(values[members].max())
                found.append(Stratum(name, stratum, *ends, members))
    return found, unknown


def _frame(
    block: Block,
    scope: Scope,
    stratum: Stratum,
    order: Sequence[int],
    shown: Sequence[int],
) -> pd.DataFrame:
    where = stratum.members[None, :, None]
    resamples = resample(list(block.pairs["context"]), scope.bootstrap)
    shape = (3, len(block.settings), len(scope.scales))
    numbers = np.full(shape, np.nan)
    for part in parts(block, scope.bootstrap.draws):
        mean, draws = drawn_means(block, part, resamples, where)
        numbers[0, part] = mean
        numbers[1:, part] = percentile_interval(draws, scope.bootstrap.level)
    n_defined = (~np.isnan(block.values[:, stratum.members])).sum(axis=1)
    numbers[1:, n_defined < 2] = np.nan
    numbers[1:, :, [scale.per_context for scale in scope.scales]] = np.nan
    about = identity(block, scope.reference(block))
    about["shown"] = [place in shown or s.ceiling for place, s in enumerate(block.settings)]
    frame = about.loc[about.index.repeat(len(scope.scales))].reset_index(drop=True)
    columns: dict[str, Any] = {"fact": stratum.fact, "stratum": stratum.name}
    columns |= {"from": stratum.low, "to": stratum.high, "n_pairs": int(stratum.members.sum())}
    columns["metric"] = [scale.name for scale in scope.scales] * len(block.settings)
    for name, values in zip(("mean", "mean_low", "mean_high"), numbers, strict=True):
        columns[name] = values.ravel()
    rows = frame.assign(**columns)
    first = [place for place, setting in enumerate(block.settings) if setting.ceiling]
    every = [*first, *order, *(p for p in range(len(block.settings)) if p not in (*first, *order))]
    at = np.arange(len(rows)).reshape(len(block.settings), -1)[every].ravel()
    return rows.iloc[at].reset_index(drop=True)


def _sections(table: Table) -> Iterator[Section]:
    for title, block in by_block(table.frame):
        for scale in table.scales:
            rows = block[(block["metric"] == scale.name) & block["shown"]]
            ordered = rows.drop_duplicates(["model", "setting"])
            columns = {"model": model_cells(ordered.drop(columns="n_pairs"))}
            for (fact, _), part in rows.groupby(["fact", "stratum"], sort=False):
                ends = f"{amount(part['from'].iloc[0])}–{amount(part['to'].iloc[0])}"
                name = f"{FACTS[str(fact)]} {ends} n={part['n_pairs'].iloc[0]}"
                columns[name] = estimate_cells(Column.of(part, "mean"))
            yield Section.of(f"{title}: {scale.name}{ARROWS[scale.higher_is_better]}", columns)
