"""Scores of every single pair, averaged over seeds and folds: what a table's means are made of."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.analysis.tables.formatting import (
    ARROWS,
    Column,
    decimals,
    estimate_cells,
    significant,
    texts,
)
from harness.analysis.tables.pair_properties import EXPLAINED, FACTS, facts_of
from harness.analysis.tables.score_array import BLOCK, blocks
from harness.analysis.tables.selection import (
    best_of_each_model,
    joined,
    scales_of,
    standing,
    suite_names,
)
from harness.analysis.tables.text import Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from harness.analysis.results import Results
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope
    from harness.analysis.tables.table import Table
    from harness.analysis.tables.text import Cell

MOST = 8
"""Settings shown side by side: the best one of each model, and of these the first."""


def per_pair(results: Results) -> pd.DataFrame:
    """Return one row per suite, dataset, split, model, setting and pair; a column for each metric.

    A pair that no trial of a setting scored has no row; one whose score is undefined has NaN.
    """
    frames: list[pd.DataFrame] = []
    for suite in suite_names(results):
        names = [scale.name for scale in scales_of(results, suite)]
        frames.extend(_rows(block, suite, names) for block in blocks(results, suite, names))
    return joined(frames)


def _rows(block: Block, suite: str, metrics: Sequence[str]) -> pd.DataFrame:
    setting, pair = np.nonzero(block.scored)
    columns: dict[str, object] = {"suite": suite}
    columns |= dict(zip((n for n in BLOCK if n in block.trials), block.key, strict=True))
    for name in ("model", "label"):
        texts = np.array([getattr(one, name) for one in block.settings], dtype=object)
        columns["setting" if name == "label" else name] = texts[setting]
    for name in ("context", "perturbation"):
        columns[name] = block.pairs[name].to_numpy()[pair]
    values = block.values[setting, pair]
    columns |= {name: values[:, place] for place, name in enumerate(metrics)}
    return pd.DataFrame(columns)


def perturbations(scope: Scope) -> Table:
    """Return the scores of every pair, one row per setting and pair.

    Columns of its frame as `per_pair`, and those of `facts_of`.
    """
    frames, views = [], []
    notes = [
        "A number is a pair's score, averaged over seeds and folds. Bold: the best of the pair. "
        f"{EXPLAINED}"
    ]
    for block in scope.blocks:
        facts = facts_of(block, scope.results.runs)
        order = standing(block, scope.scales, scope.reference(block)).order
        shown, said = best_of_each_model(block, order, MOST)
        notes += said
        views.append((block, facts, shown))
        rows = _rows(block, scope.suite, [scale.name for scale in scope.scales])
        pair = np.nonzero(block.scored)[1]
        frames.append(pd.concat([rows, facts.iloc[pair].reset_index(drop=True)], axis=1))
    return scope.table("perturbations", frames, notes, partial(_sections, views))


def _sections(
    views: Sequence[tuple[Block, pd.DataFrame, list[int]]], table: Table
) -> Iterator[Section]:
    for block, facts, shown in views:
        known = [name for name in FACTS if facts[name].notna().any()]
        effect = facts["effect"].to_numpy()
        order = np.argsort(-effect, kind="stable") if "effect" in known else np.arange(len(facts))
        several = block.pairs["context"].nunique() > 1
        for column, scale in enumerate(table.scales):
            names = ["perturbation", *(["context"] if several else [])]
            columns = {name: texts(block.pairs[name].to_numpy()[order]) for name in names}
            columns |= {FACTS[n]: significant(facts[n].to_numpy()[order]) for n in known}
            values = block.values[shown][:, order, column]
            columns |= _scores(values, [block.settings[place].title for place in shown], scale)
            title = f"{block.title}: {scale.name}{ARROWS[scale.higher_is_better]}"
            yield Section.of(title, columns, n_labels=len(names))


def _scores(
    values: NDArray[np.float64], titles: Sequence[str], scale: Scale
) -> dict[str, list[Cell]]:
    """Return a column for each setting; the best of every row is bold."""
    undefined = np.full(values.size, np.nan)
    digits = decimals(values.ravel(), undefined, undefined)
    best = np.full(values.shape, fill_value=False)
    if scale.higher_is_better is not None:
        signed = values if scale.higher_is_better else -values
        best = signed == np.max(np.where(np.isnan(signed), -np.inf, signed), axis=0)
    found = {}
    for title, row, first in zip(titles, values, best, strict=True):
        blank = np.full(len(row), np.nan)
        found[title] = estimate_cells(Column(row, blank, blank), best=first, digits=digits)
    return found
