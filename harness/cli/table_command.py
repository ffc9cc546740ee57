"""`harness table`: the models of one or several runs, compared."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter

from harness.cli.console import out
from harness.results import Results
from harness.tables import compare_suites

Format = Literal["text", "markdown", "csv"]


def table_(
    *runs: Annotated[str, Parameter(required=True)],
    baseline: str | None = None,
    suite: str | None = None,
    to: Format = "text",
) -> int:
    """Compare the models of one or several runs.

    Parameters
    ----------
    runs
        Run folders.
    baseline
        The model that combined scores are measured from; the job's own by default.
    suite
        Which suite's scores; the job's by default.
    to
        text for the terminal, markdown, or csv (numbers unrounded).
    """
    suites = () if suite is None else tuple(suite.split(","))
    for table in compare_suites(Results(runs), suites=suites, baseline=baseline):
        if to == "text":
            out().print(table, soft_wrap=False)
        else:
            text = table.to_markdown() if to == "markdown" else table.to_csv()
            out().print(text, markup=False)
    return 0
