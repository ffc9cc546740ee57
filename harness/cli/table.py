"""`harness table`: the models of one or several runs, compared."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from harness.analysis import Format, Kind, Results, tables_of
from harness.cli.console import out, split_names


def table_(
    *runs: Annotated[str, Parameter(required=True)],
    kind: Kind = "comparison",
    baseline: str | None = None,
    suite: str | None = None,
    to: Format = "text",
) -> int:
    """Compare the models of one or several runs.

    Parameters
    ----------
    runs
        Run folders.
    kind
        comparison: every setting by every metric. ranks: how sure each rank is. pairs: paired
        differences with tests. ablation: what each factor changes. sweep: what each parameter does,
        and the best setting. perturbations: every single pair. strata: by effect size, cells and
        expression of the target. cost: seconds and memory beside scores. drift: suites side by
        side.
    baseline
        The model that combined scores are measured from, the job's own by default; for pairs, the
        one that all others are compared with.
    suite
        Which suite's scores, several with commas; all that there are by default.
    to
        text for the terminal, markdown, latex (booktabs), html, or csv (numbers unrounded).
    """
    suites = split_names(suite)
    for table in tables_of(Results(runs), kind, suites=suites, baseline=baseline):
        if to == "text":
            out().print(table, soft_wrap=False)
        else:
            print(table.to(to), end="")
    return 0
