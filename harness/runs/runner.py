"""From a job to a finished table: which trials there are, which are missing, and getting them done.

`plan_job` reads, checks, prepares and expands; nothing of it starts a trial, so that a job with one
impossible trial costs nothing. `run_job` hands what is missing to an executor, counts what comes
back, and reduces whatever is there to tables. Nothing here remembers: what is done is read from
the run folder each time, so that a restarted run, or one on another machine, goes on where the
files say.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis import Results
from harness.config import read_cluster
from harness.errors import DataError, TrialError
from harness.executors import open_executor
from harness.runs.estimate import changed_code
from harness.runs.folder import RunFolder
from harness.runs.plan import Plan, _progress, _wanted, plan_job
from harness.runs.progress import Silence
from harness.runs.provenance import described_run
from harness.runs.request import Errand, record_failure
from harness.runs.search import choose
from harness.runs.status import forget
from harness.runs.submit import follow_run, submit_run
from harness.runs.trial_models import prepare_programs
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.config import ClusterSpec
    from harness.executors import Call, Outcome
    from harness.runs.progress import Listener


@dataclass(slots=True)
class Report:
    """How a run ended: counts, every failure, and why it stopped early if it did."""

    plan: Plan
    ran: int = 0
    stopped: str = ""
    failures: list[tuple[Errand, Outcome]] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether anything is missing from the tables."""
        return bool(self.failures or self.stopped)


def run_job(
    name: str,
    run: str | None = None,
    on: str = "local",
    listener: Listener | None = None,
) -> Report:
    """Run what is missing of a job; tables are written by whoever calls.

    Parameters
    ----------
    name, run, listener
        As for `plan_job`.
    on
        ``inline`` for this process, or a cluster file by name or path.
    """
    cluster = None if on == "inline" else read_cluster(on)
    listener = listener or Silence()
    here = cluster is None or cluster.kind == "local"
    plan = plan_job(name, run, listener.preparing, here=here)
    report = Report(plan)
    with plan.run.claim():
        plan.run.describe(described_run(plan.job, plan.path.name, plan.trials, plan.stores, on))
        paths.write_atomic(plan.run.job_file, plan.path.read_text(encoding="utf-8"))
        try:
            if here and (plan.missing or plan.search):
                prepare_programs(plan.commands, listener.preparing)
            plan = report.plan = _with_choice(plan, cluster, listener)
            listener.planned(plan)
            if plan.missing:
                _carry_on(report, cluster, listener)
        except KeyboardInterrupt:
            if not plan.run.is_cancelled():
                raise
            report.stopped = "cancelled"
    return report


def _with_choice(plan: Plan, cluster: ClusterSpec | None, listener: Listener) -> Plan:
    """Return a plan with the trials of the setting that its search chooses, if it has one."""
    if plan.search is None:
        return plan
    chosen = choose(plan.search, cluster, listener.preparing)
    trials = tuple(dict.fromkeys([*plan.trials, *chosen]))
    wanted = _wanted(plan.job.score.suites)
    done, scoring, other = _progress(plan.run, trials, wanted, plan.commands)
    return replace(plan, trials=trials, done=done, scoring=scoring, other_code=other)


def retry(
    run: str,
    trials: Sequence[str] = (),
    *,
    failed: bool = False,
    other_code: bool = False,
    on: str = "local",
    listener: Listener | None = None,
) -> Report:
    """Forget trials of a run, and run what is then missing of its job.

    Parameters
    ----------
    run
        The run folder, which has the job in it.
    trials, failed
        As for `ledger.forget`.
    other_code
        All finished ones that were made by other code than their models have now, besides.
    on, listener
        As for `run_job`.
    """
    folder = RunFolder(run)
    if not paths.exists(folder.job_file):
        raise DataError(f"{run}: its job.yaml is gone. Run the job itself again with -o {run}.")
    name = Path(folder.described()["job_file"]).stem
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
        job = Path(scratch, f"{name}.yaml")
        job.write_bytes(paths.read_bytes(folder.job_file))
        if other_code:
            trials = [
                *trials,
                *sorted(
                    plan_job(
                        str(job), run, listener.preparing if listener else None, here=False
                    ).other_code
                ),
            ]
        forget(run, trials, failed=failed)
        return run_job(str(job), run, on, listener)


def _carry_on(report: Report, cluster: ClusterSpec | None, listener: Listener) -> None:
    """Run what is missing, counting outcomes in the report as they come."""
    plan, errands = report.plan, {}

    def calls() -> Iterator[Call]:
        for errand, call in plan.calls(plan.missing):
            report.stopped = _why_stop(report)
            if report.stopped:
                return
            errands[call.key] = errand
            yield call

    with open_executor(cluster) as executor:
        executor.check(*(part.needs for part in plan.parts))
        for outcome in executor.run(calls()):
            errand = errands.pop(outcome.key)
            _count(report, errand, outcome)
            listener.finished(errand, outcome)


def run_for_results(job: str, run: str | None = None, on: str = "local") -> Results:
    """Run what is missing of a job, and return all of its results.

    Parameters
    ----------
    job
        A job's name, or the path of its file.
    run
        The run folder; ``runs/NAME`` by default.
    on
        ``inline`` for this process, ``local`` for Ray on this machine, or a cluster file.

    Raises
    ------
    JobError
        The job cannot be run.
    ClusterError
        It cannot be reached, or a run that was submitted there did not end well.
    TrialError
        Trials failed; the others are finished, and `Results` of the run folder has them.
    """
    cluster = None if on == "inline" else read_cluster(on)
    if cluster is not None and cluster.submits:
        follow_run(*submit_run(job, run, cluster), sys.stderr.write)
        return Results(str(run))
    report = run_job(job, run, on)
    for text in changed_code(report.plan):
        warnings.warn(text, stacklevel=2)
    if report.failures:
        raise TrialError(
            f"{len(report.failures)} of {report.ran} trials failed, the first: "
            f"{report.failures[0][0].spec}: {report.failures[0][1].error}. The others are in "
            f"Results({report.plan.run.path!r}); logs are in its folder trials/."
        )
    return Results(report.plan.run.path)


def _why_stop(report: Report) -> str:
    """Return why no further trial is to be started; nothing where there is no reason."""
    job, failures = report.plan.job, len(report.failures)
    if job.fail_fast and failures:
        return "fail_fast is set and a trial failed"
    most = job.limits.max_failures
    if most is not None and failures > most:
        return f"{failures} trials failed, more than max_failures: {most}"
    return ""


def _count(report: Report, errand: Errand, outcome: Outcome) -> None:
    report.ran += 1
    if not outcome.failed:
        return
    report.failures.append((errand, outcome))
    if outcome.cause != "raised":
        # The worker died and could not say so itself.
        record_failure(
            errand,
            outcome.error,
            outcome.traceback,
            cause=outcome.cause,
            attempts=outcome.attempts,
        )
