"""Drift: the same predictions under several suites, side by side.

Suites define scores of the same name differently, and leaderboards change from year to year. What
changes here is the suite alone: the trials are the same.
"""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.analysis.statistics import DEFAULT, Bootstrap, agreement
from harness.analysis.tables.formatting import ARROWS, fixed, model_cells, plain, texts
from harness.analysis.tables.selection import Scope, by_block, identity, standing, suite_names
from harness.analysis.tables.table import Table
from harness.analysis.tables.text import Cell, Section
from harness.errors import DataError, listed

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.analysis.results import Results


def drift(
    results: Results,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> Table:
    """Return where each setting stands under every suite.

    One row per setting and suite. Columns of its frame: ``dataset``, ``dataset_version``,
    ``split``, ``controls``, ``model``, ``setting``, ``role``; ``suite``, ``combined``,
    ``mean_rank``, ``place`` (by combined score where the suite has one, else by mean rank), and the
    mean of every metric that at least two of the suites have.

    Parameters
    ----------
    suites
        At least two; by default all that there are scores of.

    Raises
    ------
    DataError
        There are scores of one suite only.
    """
    names = list(dict.fromkeys(suites)) or suite_names(results)
    if len(names) < 2:
        raise DataError(
            f"A table of drift compares suites. Found scores of {listed(names) or 'none'}, "
            "expected at least two. Name more in the job (score: suite: [a, b]) and run it again."
        )
    scopes = [Scope.of(results, name, baseline, bootstrap) for name in names]
    every = [scale for scope in scopes for scale in scope.scales]
    counts = Counter(scale.name for scale in every)
    shared = tuple({one.name: one for one in every if counts[one.name] > 1}.values())
    frames = [_frame(scope, [scale.name for scale in shared]) for scope in scopes]
    frame = pd.concat(frames, ignore_index=True)
    notes = [note for scope in scopes for note in scope.about()]
    notes.append(
        "The trials are the same under every suite; scores of one name may be defined differently. "
        "#n: where a setting stands in the suite, by combined score where there is one, else by "
        "mean rank. Kendall's τ between two orders is 1 where they are the same, 0 where they are "
        "unrelated."
    )
    notes += [note for scope in scopes for note in scope.gaps()]
    said, suite = tuple(dict.fromkeys(notes)), ", ".join(names)
    return Table("drift", suite, shared, frame, said, partial(_sections, names), bootstrap.level)


def _frame(scope: Scope, shared: Sequence[str]) -> pd.DataFrame:
    frames = []
    columns = {scale.name: at for at, scale in enumerate(scope.scales)}
    for block in scope.blocks:
        reference = scope.reference(block)
        found = standing(block, scope.scales, reference)
        frame = identity(block, reference)
        frame["suite"], frame["combined"] = scope.suite, found.combined
        frame["mean_rank"] = found.mean_rank
        place = np.full(len(frame), np.nan)
        place[[*found.order]] = np.arange(1, len(found.order) + 1)
        frame["place"] = place
        for name in shared:
            frame[name] = found.means[:, columns[name]] if name in columns else np.nan
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _sections(names: Sequence[str], table: Table) -> Iterator[Section]:
    for title, part in by_block(table.frame):
        wide = part.pivot(index=["model", "setting"], columns="suite")
        first = part[part["suite"] == names[0]].sort_values("place", kind="stable")
        keys = pd.MultiIndex.from_frame(first[["model", "setting"]])
        columns = {"model": model_cells(first)}
        for name in names:
            columns[name] = _places(wide.loc[keys], name)
        for scale in table.scales:
            for name in names:
                values = wide.loc[keys, (scale.name, name)].to_numpy(dtype=np.float64)
                if not np.isnan(values).all():
                    columns[f"{scale.name}{ARROWS[scale.higher_is_better]} {name}"] = plain(
                        values, 4
                    )
        yield Section.of(f"{title}: standing by suite", columns)
        places = [wide["place", name].to_numpy() for name in names]
        taus = {name: plain(row) for name, row in zip(names, agreement(places), strict=True)}
        columns = {"Kendall's τ": texts(names), **taus}
        yield Section.of(f"{title}: agreement of the orders", columns)


def _places(wide: pd.DataFrame, suite: str) -> list[Cell]:
    cells = []
    for row in wide.index:
        place, combined, mean_rank = (
            float(wide.loc[row, (name, suite)]) for name in ("place", "combined", "mean_rank")
        )
        if np.isnan(place):
            cells.append(Cell("—"))
            continue
        scored = "" if np.isnan(combined) else f"combined {fixed(combined, 3)}, "
        cells.append(Cell(f"#{place:.0f}", f"{scored}mean rank {mean_rank:.2f}", place == 1))
    return cells
