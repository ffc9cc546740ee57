"""Write a run's tables into its folder."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pandas as pd

from harness.analysis.results import Results
from harness.analysis.statistics import DEFAULT, Bootstrap
from harness.analysis.tables.ablation import ablation
from harness.analysis.tables.comparison import compare
from harness.analysis.tables.per_perturbation import per_pair
from harness.analysis.tables.ranks import ranks
from harness.analysis.tables.selection import Scope, declared_suites, suite_names
from harness.analysis.tables.table import side_by_side
from harness.errors import listed
from harness.scoring import SUITE, as_markdown, writing
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.analysis.tables.table import Table
    from harness.scoring import Batch, Request

RANKED = 100
"""A run of more settings gets no table of ranks unless it is asked for: it takes a while."""


def compare_suites(
    results: Results,
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    floors: Mapping[str, float] | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> tuple[Table, ...]:
    """Return a comparison for each suite, by default for all that there are scores of."""
    names = [*(suites or suite_names(results))] or declared_suites(results)
    return side_by_side(
        compare(results, suite=name, baseline=baseline, floors=floors, bootstrap=bootstrap)
        for name in names
    )


def write_batch_tables(batch: Batch, out: str, request: Request) -> tuple[Table, ...]:
    """Write ``OUT/table.md`` of predictions that were scored together; return the comparisons."""
    if not batch.scores:
        return ()
    trials = pd.DataFrame({"trial": list(batch.scores), "model": list(batch.scores)})
    if batch.ends:
        trials["ends"] = json.dumps(batch.ends)
    results = Results.of(batch.frame.rename(columns={"prediction": "trial"}), trials)
    suites, baseline = list(request.suites), request.baseline_name
    tables = compare_suites(results, suites=suites, baseline=baseline)
    text = [f"## Suite {table.suite}\n\n{table.to_markdown()}" for table in tables]
    if len(batch.anchored):
        text.append(f"\n## Scaled score of {SUITE}\n\n{as_markdown(batch.anchored)}")
    if batch.not_anchored:
        text.append(f"\nNo scaled score of {SUITE}: {batch.not_anchored}\n")
    if batch.failures:
        text.append(f"\nNot scored: {listed(batch.failures)}.\n")
    writing(out, lambda: paths.write_atomic(paths.join(out, "table.md"), "\n".join(text)))
    return tables


def write_tables(
    results: Results,
    folder: str,
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    floors: Mapping[str, float] | None = None,
    bootstrap: Bootstrap = DEFAULT,
) -> tuple[Table, ...]:
    """Write a run's tables; return the comparisons, and after them those of an ablation.

    ``comparison`` and ``ranks`` (up to `RANKED` settings) and, of an ablation, ``ablation``, each
    as ``.md``, ``.csv`` and ``.tex``; ``per_perturbation.csv``. `harness table` gives the others.

    There is one table per suite: a section each in a text, and in the CSV the column ``suite``.
    `baseline` and `floors` are by default what the runs' jobs say.
    """
    tables = compare_suites(
        results, suites=suites, baseline=baseline, floors=floors, bootstrap=bootstrap
    )
    _write(folder, "comparison", tables)
    paths.write_atomic(paths.join(folder, "per_perturbation.csv"), _csv(per_pair(results)))
    if max(len(table.frame) for table in tables) <= RANKED:
        scopes = (Scope.of(results, table.suite, baseline, bootstrap) for table in tables)
        _write(folder, "ranks", side_by_side(ranks(scope) for scope in scopes))
    found = (
        ablation(results, suite=table.suite, baseline=baseline, bootstrap=bootstrap)
        for table in tables
    )
    changes = side_by_side(one for one in found if one is not None)
    if changes:
        _write(folder, "ablation", changes)
    return (*tables, *changes)


def _write(folder: str, name: str, tables: Sequence[Table]) -> None:
    """Write the tables of all suites in each form, one file a form."""
    texts = (f"## Suite {table.suite}\n\n{table.to_markdown()}" for table in tables)
    paths.write_atomic(paths.join(folder, f"{name}.md"), "\n".join(texts))
    latex = (table.to_latex() for table in tables)
    paths.write_atomic(paths.join(folder, f"{name}.tex"), "\n".join(latex))
    frames = []
    for table in tables:
        # The copy is one block of memory: many columns are else slow to add to.
        others = table.frame.drop(columns="suite", errors="ignore").copy()
        others.insert(0, "suite", table.suite)
        frames.append(others)
    paths.write_atomic(
        paths.join(folder, f"{name}.csv"), _csv(pd.concat(frames, ignore_index=True))
    )


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")
