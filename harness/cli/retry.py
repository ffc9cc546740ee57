"""`harness retry`: trials of a run, done again."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from harness.cli.console import MISUSED, Bars, complain
from harness.cli.run import Reporter, explain, show_tables
from harness.runs import retry


def retry_(
    run: str,
    *,
    failed: Annotated[bool, Parameter(negative=())] = False,
    trial: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
    other_code: Annotated[bool, Parameter(negative=())] = False,
    on: str = "local",
) -> int:
    """Do trials of a run again, and whatever else of its job is missing; then write its tables.

    Parameters
    ----------
    run
        The run folder.
    failed
        All that failed or were lost.
    trial
        These, by id or its beginning, also when they are done.
    other_code
        All that are done and were made by other code than their models have now.
    on
        Where, as for `harness run`.
    """
    if not failed and not trial and not other_code:
        complain("Say which: --failed, --trial ID, or --other-code.")
        return MISUSED
    with Bars() as bars:
        listener = Reporter(bars)
        options = {"failed": failed, "other_code": other_code}
        report = retry(run, trial or (), **options, on=on, listener=listener)
    show_tables(report)
    return explain(report)
