"""`harness report`: one page of one or several runs."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from harness.analysis import write_report
from harness.cli.console import notes, split_names
from harness.models import registered


def report_(
    *runs: Annotated[str, Parameter(required=True)],
    output: Annotated[str, Parameter(name=["--output", "-o"])] = "report.html",
    suite: str | None = None,
    baseline: str | None = None,
    title: str | None = None,
) -> int:
    """Write one self-contained page: tables, figures, methods, provenance and failures.

    Parameters
    ----------
    runs
        Run folders.
    output
        The HTML file; opens from disk, without network or server.
    suite
        Which suites' scores, several with commas; all that there are by default.
    baseline
        The model that combined scores are measured from; the job's own by default.
    title
        The page's heading; the runs' names by default.
    """
    suites = split_names(suite)
    write_report(runs, output, registered(), suites=suites, baseline=baseline, title=title)
    notes().print(f"Written: {output}", markup=False)
    return 0
