"""`harness run`: what is missing of a job, then its tables."""

from __future__ import annotations

import re
import sys
from collections import Counter
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from harness.analysis import Results, write_tables
from harness.cli.console import Bars, complain, notes, out
from harness.config import read_cluster
from harness.runs import (
    RunFolder,
    changed_code,
    follow_run,
    older_defaults,
    run_job,
    submit_run,
)

if TYPE_CHECKING:
    from harness.config import ClusterSpec
    from harness.executors import Outcome
    from harness.runs import Plan, Report, TrialRequest

SHOWN_FAILURES = 8


class Reporter:
    """Shows a run as it goes: a live line per stage, or plain lines."""

    def __init__(self, bars: Bars) -> None:
        self.bars = bars
        self.done = self.total = 0

    def preparing(self, dataset: str, done: int, total: int) -> None:
        """Show how far a dataset's store is."""
        self.bars.update(f"preparing {dataset}", done, total, "parts")

    def planned(self, plan: Plan) -> None:
        """Print how many trials are done and how many are to run."""
        self.total = len(plan.missing)
        done = len(plan.trials) - self.total
        self.bars.say(
            f"{plan.path.name}: {len(plan.trials)} trials, {done} done, {self.total} to run. "
            f"Run folder: {plan.run.path}"
        )
        for text in (*changed_code(plan), *older_defaults(plan)):
            self.bars.say(f"warning: {text}")
        self.bars.update("trials", 0, max(1, self.total), "trials")

    def finished(self, request: TrialRequest, outcome: Outcome) -> None:
        """Print how a trial ended; a success only where there is no live line."""
        self.done += 1
        if outcome.failed:
            self.bars.say(f"[{self.done}/{self.total}] {request.spec}: {outcome.error}")
        elif not self.bars.live:
            self.bars.say(f"[{self.done}/{self.total}] {request.spec}: {outcome.seconds:.1f} s")
        self.bars.update("trials", self.done, self.total, "trials")


def run_(
    job: str,
    *,
    run: Annotated[str | None, Parameter(name=["--run", "-o"])] = None,
    on: str = "local",
) -> int:
    """Run what is missing of a job, then write its tables; the same command again resumes.

    Parameters
    ----------
    job
        A job's name, or its file.
    run
        The run folder; runs/NAME by default.
    on
        Where: local (Ray on this machine), inline (this process, for debugging), or a cluster file.
        One with the address of a dashboard (http://…) has the run submitted there as a Ray job.
    """
    cluster = None if on == "inline" else read_cluster(on)
    if cluster is not None and cluster.submits:
        return _submitted(job, run, cluster)
    with Bars() as bars:
        report = run_job(job, run, on, Reporter(bars))
    show_tables(report)
    return explain(report)


def _submitted(job: str, run: str | None, cluster: ClusterSpec) -> int:
    """Hand a run in at a cluster, and show what it prints there."""
    server, name = submit_run(job, run, cluster)
    notes().print(
        f"Submitted as Ray job {name} at {server.address}. It goes on without this command: "
        f"`harness status {run}` watches it, `harness cancel {run}` ends it.",
        markup=False,
    )
    follow_run(server, name, sys.stderr.write)
    return 0


def show_tables(report: Report) -> None:
    """Write a run's tables, and print the comparison."""
    plan = report.plan
    tables = write_tables(Results(plan.run.path), plan.run.tables, suites=plan.job.score.suites)
    for table in tables:
        out().print(table, soft_wrap=False)
    notes().print(f"Tables: {plan.run.tables}", markup=False)


def explain(report: Report) -> int:
    """Print what failed, by cause, and return the command's exit status."""
    if report.stopped:
        complain(f"Stopped early: {report.stopped}. What is missing, the same command runs.")
    if not report.failures:
        return 1 if report.stopped else 0
    causes = Counter(outcome.cause for _, outcome in report.failures)
    counted = ", ".join(f"{count} {cause}" for cause, count in causes.most_common())
    complain(f"{len(report.failures)} of {report.ran} trials failed ({counted}):")
    folder = RunFolder(report.plan.run.path)
    alike = grouped(report.failures)
    for group in alike[:SHOWN_FAILURES]:
        request, outcome = group[0]
        models = ", ".join(dict.fromkeys(request.spec.model for request, _ in group))
        many = f"{len(group)} trials of {models}, {outcome.cause}, the first: " * (len(group) > 1)
        where = f"attempt {outcome.attempts}, on {outcome.host or 'a lost worker'}"
        complain(
            f"{many}{request.spec}, {where if outcome.attempts else 'not begun'}: {outcome.error}\n"
            f"{outcome.traceback.rstrip()}\nLog: {folder.log(request.spec.id)}"
        )
    if len(alike) > SHOWN_FAILURES:
        left = len(alike) - SHOWN_FAILURES
        complain(f"… and {left} other causes: harness status {folder.path} has them.")
    notes().print(
        "The same command again runs only what is missing; --on inline runs it in this process."
    )
    return 1


def grouped(
    failures: list[tuple[TrialRequest, Outcome]],
) -> list[list[tuple[TrialRequest, Outcome]]]:
    """Return failures by what they died of, the most frequent first.

    Errors that differ in numbers alone, such as an id or an address, are one.
    """
    groups: dict[tuple[str, str], list[tuple[TrialRequest, Outcome]]] = {}
    for request, outcome in failures:
        key = (outcome.cause, re.sub(r"\d+", "#", outcome.error))
        groups.setdefault(key, []).append((request, outcome))
    return sorted(groups.values(), key=len, reverse=True)
