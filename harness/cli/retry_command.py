"""`harness retry`: trials of a run, done again."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from harness.cli.console import MISUSED, Bars, complain
from harness.cli.run_command import Reporter, explain, show_tables
from harness.sweep import retry


def retry_(
    run: str,
    *,
    failed: Annotated[bool, Parameter(negative=())] = False,
    trial: Annotated[list[str] | None, Parameter(negative=(), consume_multiple=True)] = None,
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
    on
        Where, as for `harness run`.
    """
    if not failed and not trial:
        complain("Say which: --failed, or --trial ID.")
        return MISUSED
    with Bars() as bars:
        report = retry(run, trial or (), failed=failed, on=on, listener=Reporter(bars))
    show_tables(report)
    return explain(report)
