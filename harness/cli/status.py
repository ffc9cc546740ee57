"""`harness status`: what has become of a run's trials, from its files."""

from __future__ import annotations

import time
from typing import Annotated

from cyclopts import Parameter
from rich.live import Live
from rich.table import Table

from harness.cli.console import out
from harness.runs import Ledger, ago, read_ledger

SHOWN = 12
IDLE_SECONDS = 60.0
REFRESH_SECONDS = 2.0


def status_(run: str, *, watch: Annotated[bool, Parameter(negative=())] = False) -> int:
    """Show what has become of a run's trials; works beside a driver and from another machine.

    Parameters
    ----------
    run
        The run folder.
    watch
        Keep showing it until nothing is running any more.
    """
    ledger = read_ledger(run)
    if not watch:
        out().print(shown(ledger), soft_wrap=False)
        return 0
    with Live(shown(ledger), console=out(), auto_refresh=False) as live:
        while ledger.driver is not None:
            time.sleep(REFRESH_SECONDS)
            ledger = read_ledger(run)
            live.update(shown(ledger), refresh=True)
    return 0


def shown(ledger: Ledger) -> Table:
    """Return counts by state, what runs where, and failures by cause.

    A trial that a search stopped early is stored as failed, with the cause ``stopped``. It is
    counted apart, because nothing went wrong.
    """
    stopped = [entry for entry in ledger.in_state("failed") if entry.said.get("cause") == "stopped"]
    numbers = {str(state): count for state, count in ledger.counts.items()}
    numbers["failed"] -= len(stopped)
    numbers["stopped early by the search"] = len(stopped)
    counts = " · ".join(f"{count} {state}" for state, count in numbers.items() if count)
    table = Table(title=f"{ledger.run.path}: {counts}", title_justify="left", box=None)
    table.show_header = False
    table.add_column()  # without any, Rich leaves out the title too
    for entry in ledger.in_state("running")[:SHOWN]:
        said = entry.said
        where = f"{said['stage']} on {said['host']}, began {ago(said['began'])}"
        if (idle := float(said.get("idle", 0.0))) >= IDLE_SECONDS:
            where += f"; its program last did something {ago(said['seen'] - idle)}"
        table.add_row("running", entry.trial, entry.model, where)
    for entry in ledger.in_state("lost")[:SHOWN]:
        where = f"{entry.said['stage']} on {entry.said['host']}, seen {ago(entry.said['seen'])}"
        table.add_row("lost", entry.trial, entry.model, where)
    causes = [item for item in ledger.causes.items() if item[1][0] not in stopped]
    for cause, entries in causes[:SHOWN]:
        first = f"{len(entries)} trials, the first {entries[0].trial}"
        models = ", ".join(dict.fromkeys(entry.model for entry in entries))
        table.add_row("failed", first, models, cause)
    driver = ledger.driver
    if driver:
        table.caption = f"Driven by process {driver['pid']} on {driver['host']}."
    else:
        table.caption = "Nobody is driving it."
    if ledger.settings is not None:
        tried, budget = ledger.settings
        most = "" if budget is None else f", of at most {budget}"
        table.caption = f"{tried} settings tried{most}. {table.caption}"
    table.caption_justify = "left"
    return table
