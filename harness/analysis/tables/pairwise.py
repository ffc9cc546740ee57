"""Every two settings, or all against one: paired differences with intervals and tests.

A difference is the mean over the pairs that both settings have, seeds and folds averaged first.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.statistics import holm, paired_tests, percentile_interval, resample
from harness.analysis.tables.estimates import pair_means
from harness.analysis.tables.formatting import ARROWS, Column, change_cells, texts
from harness.analysis.tables.notes import counted, cut
from harness.analysis.tables.resampling import Opponent
from harness.analysis.tables.scale import WHOLE
from harness.analysis.tables.selection import by_block, identity, standing
from harness.analysis.tables.text import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope
    from harness.analysis.tables.table import Table

MOST = 20
"""With more settings than this, each is compared with one rather than with all others: 20 settings
are 190 comparisons already."""


def pairs(scope: Scope, *, against: str | None = None) -> Table:
    """Return the paired differences of settings, one row per comparison and metric.

    Columns of its frame: ``dataset``, ``dataset_version``, ``split``, ``controls``; ``setting_a``
    and ``setting_b``; ``metric``; ``n_pairs`` that both have; ``difference`` (a less b) with
    ``_low`` and ``_high``; ``a_better`` (on how many pairs); ``p_permutation``, ``p_wilcoxon``, and
    both adjusted by Holm's procedure over the block (``_holm``); ``reason`` where there is none.

    Parameters
    ----------
    against
        The model to compare all others with; by default every two settings, best first, or where
        these are more than `MOST` the baseline, or else the best.
    """
    frames, notes = [], [*_notes(scope)]
    for block in scope.blocks:
        chosen, said = _chosen(block, scope, against)
        notes += said
        if chosen:
            frames.append(_frame(block, scope, chosen))
    return scope.table("pairs", frames, notes, _sections)


def _notes(scope: Scope) -> Iterator[str]:
    level = scope.bootstrap.level
    yield (
        "A number is the mean difference, the first setting less the second, over the pairs that "
        "both have, seeds and folds averaged first. In brackets the "
        f"{100 * level:g} % percentile interval of {scope.bootstrap.draws} bootstrap resamples of "
        "perturbations within each context, and of seeds where there are several, both settings "
        "together. p: a permutation test of the mean over pairs, adjusted by Holm's procedure over "
        f"all comparisons and metrics of its table; bold: below {1 - level:.2g}. Wilcoxon's "
        "signed-rank test, and p-values as they were, are in the CSV."
    )


def _chosen(
    block: Block, scope: Scope, against: str | None
) -> tuple[list[tuple[int, int]], list[str]]:
    """Return which settings to compare with which, and what must be said of it."""
    reference = scope.reference(block)
    order = list(standing(block, scope.scales, reference).order)
    if against is not None:
        if reference is None:
            return [], [f"No comparison: no one setting with scores is meant by {against!r}."]
        return [(place, reference) for place in order if place != reference], []
    if len(order) <= MOST:
        return list(combinations(order, 2)), []
    other = order[0] if reference is None else reference
    told = (
        f"{counted(len(order), 'setting')}, too many to compare every two: each is compared with "
        f"{block.settings[other].title}."
    )
    return [(place, other) for place in order if place != other], [told]


def _frame(block: Block, scope: Scope, chosen: Sequence[tuple[int, int]]) -> pd.DataFrame:
    first, second = (np.array(side) for side in zip(*chosen, strict=True))
    columns = [column for column, _, _ in scope.directed]
    signs = np.array([1.0 if up else -1.0 for _, _, up in scope.directed])
    changes = block.values[first][..., columns] - block.values[second][..., columns]
    low, high = _intervals(block, scope, chosen)
    whole = np.array([scale.per_context for _, scale, _ in scope.directed])
    tested = np.where(whole, np.nan, changes)  # tests of what is tied throughout take long
    found = paired_tests(tested.transpose(1, 0, 2).reshape(len(block.pairs), -1))
    n_pairs = (~np.isnan(changes)).sum(axis=1)
    few = (n_pairs < 2) | whole
    better = (changes * signs > 0).sum(axis=1)
    about = identity(block, None).iloc[0].drop(["model", "setting", "role"])
    titles = [setting.title for setting in block.settings]
    of_row = np.repeat(np.arange(len(chosen)), len(columns))
    frame: dict[str, Any] = {str(name): value for name, value in about.items()}
    frame |= {"setting_a": [titles[place] for place in first[of_row]]}
    frame |= {"setting_b": [titles[place] for place in second[of_row]]}
    frame |= {"metric": [scale.name for _, scale, _ in scope.directed] * len(chosen)}
    frame |= {"n_pairs": n_pairs.ravel(), "difference": pair_means(changes).ravel()}
    frame |= {"difference_low": np.where(few, np.nan, low[:, columns]).ravel()}
    frame |= {"difference_high": np.where(few, np.nan, high[:, columns]).ravel()}
    tests = {"p_permutation": found.permutation, "p_wilcoxon": found.wilcoxon}
    frame |= {"a_better": better.ravel(), **tests}
    frame |= {f"{name}_holm": holm(p) for name, p in tests.items()}
    reasons = zip(found.reasons, np.tile(whole, len(chosen)), strict=True)
    frame["reason"] = [WHOLE if same else reason for reason, same in reasons]
    return pd.DataFrame(frame, index=range(len(of_row)))


def _intervals(
    block: Block, scope: Scope, chosen: Sequence[tuple[int, int]]
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the intervals of the differences: (n_chosen, n_metrics) each."""
    resamples = resample(list(block.pairs["context"]), scope.bootstrap)
    ends = np.empty((2, len(chosen), len(scope.scales)))
    opponents: dict[int, Opponent] = {}
    for row, (place, other) in enumerate(chosen):
        opponent = opponents.setdefault(other, Opponent(block, other, resamples))
        draws = opponent.differences(slice(place, place + 1)).draws[:, 0]
        ends[:, row] = percentile_interval(draws, scope.bootstrap.level)
    return ends[0], ends[1]


def _sections(table: Table) -> Iterator[Section]:
    for title, part in by_block(table.frame):
        keys = ["setting_a", "setting_b"]
        pairs = part[keys].drop_duplicates()
        columns = {"setting": texts(pairs["setting_a"]), "less": texts(pairs["setting_b"])}
        for scale in table.scales:
            rows = part[part["metric"] == scale.name]
            if len(rows):
                p = rows["p_permutation_holm"].to_numpy()
                change = Column.of(rows, "difference")
                cells = change_cells(change, p < 1 - table.level, p)
                columns[scale.name + ARROWS[scale.higher_is_better]] = cells
        fewer = part["n_pairs"].max()
        lacking = part[part["n_pairs"] < fewer].drop_duplicates(keys)
        if len(lacking):
            named = (f"{a} and {b}" for a, b in lacking[keys].to_numpy().tolist())
            title += f" (over fewer pairs than others: {cut(named)})"
        yield Section.of(f"{title}: paired differences", columns, n_labels=2)
