"""`harness cancel`: end a run that someone drives."""

from __future__ import annotations

from harness.cli.console import FAILED, complain, notes
from harness.runs import RunFolder


def cancel_(run: str) -> int:
    """Ask a run's driver to stop, from any machine; what is finished is kept.

    Parameters
    ----------
    run
        The run folder.
    """
    folder = RunFolder(run)
    folder.described()
    driver = folder.driver()
    if driver is None:
        complain(f"{run}: nobody is driving it.")
        return FAILED
    folder.ask_to_cancel()
    notes().print(
        f"Asked process {driver['pid']} on {driver['host']} to stop; it looks every few seconds.",
        markup=False,
    )
    return 0
