"""The comparison: every model and setting by every metric, with intervals, ranks and a footer."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.statistics import DEFAULT, Bootstrap
from harness.analysis.tables.comparison_notes import Summary, table_notes
from harness.analysis.tables.estimates import estimate, misses
from harness.analysis.tables.formatting import (
    ARROWS,
    Column,
    estimate_cells,
    model_cells,
    plain,
    scored_cells,
)
from harness.analysis.tables.metric_checks import MARK, doubts
from harness.analysis.tables.score_array import blocks
from harness.analysis.tables.selection import (
    Scope,
    by_block,
    candidates,
    identity,
    joined,
    mean_over_metrics,
)
from harness.analysis.tables.table import Table
from harness.analysis.tables.text import Section
from harness.analysis.trials import VARIED
from harness.errors import UnknownNameError
from harness.metrics import registered

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.analysis.results import Results
    from harness.analysis.tables.estimates import Estimates
    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block, Setting


def compare(
    results: Results,
    *,
    suite: str | None = None,
    baseline: str | None = None,
    floors: Mapping[str, float] | None = None,
    ceilings: Sequence[str] = (),
    bootstrap: Bootstrap = DEFAULT,
) -> Table:
    """Return one row per dataset, split, model and setting, best first.

    Columns of its frame: ``dataset``, ``dataset_version``, ``split``, ``controls``; ``model``,
    ``setting`` (the factors that vary), ``role`` (``ceiling``, ``baseline`` or empty), the other
    factors; ``n_trials``, ``n_pairs``; ``combined``, ``combined_low``, ``combined_high``,
    ``floors_missed`` (names), ``mean_rank``; for each metric its mean under its own name and
    ``_low``, ``_high``, ``_rank``, ``_tie`` (not told from the best) and ``_pairs`` (with a defined
    score). Rows of one dataset and split stand together, in the order of the table.

    Parameters
    ----------
    suite
        Which scores; may be left out when there is only one suite.
    baseline
        The model that the combined score is scaled from, and that sets the floors; with its
        setting (``"linear rank=4"``) where there are several. Default: what the runs' jobs say.
    floors
        What each metric's mean must reach, instead of the baseline's own mean.
    ceilings
        Models to be marked and not ranked, beside those that say of themselves that they are.
    bootstrap
        How intervals are made.
    """
    scope = Scope.of(results, suite, baseline, bootstrap)
    scales = scope.scales
    floors = floors if floors is not None else results.score_options.get("floors")
    for name in floors or ():  # a floor of another suite's metric does no harm
        if name not in registered():
            raise UnknownNameError("metric with a floor", name, tuple(registered()))
    frames, summaries = [], []
    for block in blocks(results, scope.suite, [scale.name for scale in scales], ceilings):
        meant = candidates(block, scope.baseline)
        place = meant[0] if len(meant) == 1 else None
        found = estimate(block, scales, place, bootstrap, floors)
        frame = _frame(block, scales, found, place)
        # Objects, for pandas would change the type of a column that is undefined in one block.
        frames.append(frame.astype({n: object for n in frame if str(n).startswith(VARIED)}))
        titles = tuple(block.settings[candidate].title for candidate in meant)
        summaries.append(Summary(block, found, titles))
    against = doubts(results, scope.suite)
    doubtful = (
        f"{MARK} {metric} on these data: {said}. See `harness trust`."
        for metric, said in against.items()
    )
    notes = (*table_notes(scope, summaries), *doubtful)
    layout = partial(_sections, doubted=frozenset(against))
    frame = joined(frames)
    return Table("comparison", scope.suite, scales, frame, notes, layout, bootstrap.level)


# --- rows ---------------------------------------------------------------------------------------


def _frame(
    block: Block, scales: Sequence[Scale], found: Estimates, baseline: int | None
) -> pd.DataFrame:
    settings = block.settings
    scored = block.scored.sum(axis=1)
    frame = identity(block, baseline, factors=True)
    done = block.trials[block.trials["state"] == "done"]
    frame["n_trials"] = np.bincount(done["setting"], minlength=len(settings))
    frame["n_pairs"] = scored
    frame["combined"], frame["combined_low"], frame["combined_high"] = found.combined
    frame["floors_missed"] = _missed(settings, scales, found, scored)
    frame["mean_rank"] = mean_over_metrics(found.places)
    columns: dict[str, Any] = {}
    for column, scale in enumerate(scales):
        for suffix, values in zip(("", "_low", "_high"), found.metrics, strict=True):
            columns[scale.name + suffix] = values[:, column]
        columns[f"{scale.name}_rank"] = pd.Series(found.places[:, column]).astype("Int64")
        columns[f"{scale.name}_tie"] = found.ties[:, column]
        columns[f"{scale.name}_pairs"] = found.n_defined[:, column]
    frame = pd.concat([frame, pd.DataFrame(columns)], axis=1)
    order = {
        "ranked": frame["role"] != "ceiling",
        "score": -frame["combined"],
        "rank": frame["mean_rank"],
    }
    return frame.loc[pd.DataFrame(order).sort_values(list(order), kind="stable").index]


def _missed(
    settings: Sequence[Setting], scales: Sequence[Scale], found: Estimates, scored: Any
) -> list[str]:
    """Return for each setting the names of the metrics whose floor it misses."""
    names = [[] for _ in settings]  # type: list[list[str]]
    for column, scale in enumerate(scales):
        if scale.higher_is_better is None:
            continue
        missed = misses(
            found.metrics.mean[:, column], found.floors[:, column], scale.higher_is_better
        )
        for place in np.flatnonzero(missed & (scored > 0)).tolist():
            if not settings[place].ceiling:
                names[place].append(scale.name)
    return [" ".join(missed) for missed in names]


# --- how it is shown ----------------------------------------------------------------------------


def _sections(table: Table, doubted: frozenset[str] = frozenset()) -> Iterator[Section]:
    for title, part in by_block(table.frame):
        columns = {"model": model_cells(part)}
        ranked = part[part["role"] != "ceiling"]
        if part["combined"].notna().any():
            # No model is marked as the best where none beats the baseline.
            best = max(ranked["combined"].max(), 1e-12)
            columns["combined ↑"] = estimate_cells(
                Column.of(part, "combined"),
                best=((part["combined"] >= best) & (part["role"] != "ceiling")).to_numpy(),
            )
        if part["mean_rank"].notna().any():
            first = part["mean_rank"] == part["mean_rank"].min()
            cells = plain(part["mean_rank"])
            columns["mean rank ↓"] = [
                replace(cell, best=bool(one)) for cell, one in zip(cells, first, strict=True)
            ]
        for scale in table.scales:
            first = (part[f"{scale.name}_rank"] == 1).fillna(value=False)
            mark = f"{MARK} " if scale.name in doubted else ""
            name = mark + scale.name + ARROWS[scale.higher_is_better]
            columns[name] = scored_cells(part, scale.name, first)
        yield Section.of(title, columns)
