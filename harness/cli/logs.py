"""`harness logs`: what a trial printed and logged."""

from __future__ import annotations

from harness.cli.console import FAILED, complain, out
from harness.runs import find_trial, read_ledger
from harness.storage import paths


def logs_(run: str, trial: str) -> int:
    """Show what a trial printed and logged, and how it failed if it did.

    Parameters
    ----------
    run
        The run folder.
    trial
        The trial's id, or the beginning of it.
    """
    ledger = read_ledger(run)
    found = find_trial(ledger, trial)
    log = ledger.run.log(found)
    if not paths.exists(log):
        complain(f"{log}: the trial has written nothing yet.")
        return FAILED
    out().print(paths.read_text(log), markup=False, end="")
    failure = ledger.run.failure(found)
    if failure is not None and failure["cause"] != "raised":
        complain(f"{failure['cause']}: {failure['error']}")
    return 0
