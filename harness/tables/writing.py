"""Write a run's tables into its folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from harness import paths
from harness.statistics import Bootstrap
from harness.tables.ablation import ablation
from harness.tables.compare import compare
from harness.tables.pairs import per_pair
from harness.tables.scope import suite_names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.results import Results
    from harness.tables.table import Table

_DEFAULT = Bootstrap()


def compare_suites(
    results: Results,
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    floors: Mapping[str, float] | None = None,
    bootstrap: Bootstrap = _DEFAULT,
) -> tuple[Table, ...]:
    """Return a comparison for each suite, by default for all that there are scores of."""
    names: list[str | None] = [*(suites or suite_names(results))] or [None]
    return tuple(
        compare(results, suite=name, baseline=baseline, floors=floors, bootstrap=bootstrap)
        for name in names
    )


def write_tables(
    results: Results,
    folder: str,
    *,
    suites: Sequence[str] = (),
    baseline: str | None = None,
    floors: Mapping[str, float] | None = None,
    bootstrap: Bootstrap = _DEFAULT,
) -> tuple[Table, ...]:
    """Write ``comparison.md``, ``comparison.csv`` and ``per_perturbation.csv``; return the tables.

    Of an ablation also ``ablation.md`` and ``ablation.csv``, what each factor changes of the base.

    There is one table per suite: a section each in the Markdown, and in the CSV the column
    ``suite``. `baseline` and `floors` are by default what the runs' jobs say.
    """
    tables = compare_suites(
        results, suites=suites, baseline=baseline, floors=floors, bootstrap=bootstrap
    )
    headed = (f"## Suite {table.suite}\n\n{table.to_markdown()}" for table in tables)
    paths.write_atomic(paths.join(folder, "comparison.md"), "\n".join(headed))
    frames = [table.frame.assign(suite=table.suite) for table in tables]
    joined = pd.concat(frames, ignore_index=True)
    joined.insert(0, "suite", joined.pop("suite"))
    paths.write_atomic(paths.join(folder, "comparison.csv"), _csv(joined))
    paths.write_atomic(paths.join(folder, "per_perturbation.csv"), _csv(per_pair(results)))
    found = (
        ablation(results, suite=table.suite, baseline=baseline, bootstrap=bootstrap)
        for table in tables
    )
    changes = tuple(one for one in found if one is not None)
    if changes:
        texts = (f"## Suite {one.suite}\n\n{one.to_markdown()}" for one in changes)
        paths.write_atomic(paths.join(folder, "ablation.md"), "\n".join(texts))
        every = pd.concat([one.frame for one in changes], ignore_index=True)
        paths.write_atomic(paths.join(folder, "ablation.csv"), _csv(every))
    return (*tables, *changes)


def _csv(frame: pd.DataFrame) -> str:
    return frame.to_csv(index=False, lineterminator="\n")
