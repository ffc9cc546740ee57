"""Run what is missing of a job: hand its trials to an executor and count what comes back.

Nothing is remembered between runs: `plan_job` reads from the run folder which trials are done, so a
restarted run, or one on another machine, continues where the files say.
"""

from __future__ import annotations

import sys
import tempfile
import warnings
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from harness.analysis import Results
from harness.config import read_cluster
from harness.errors import DataError, TrialError
from harness.executors import STAGES, Call, open_executor
from harness.runs.estimate import changed_code, older_defaults
from harness.runs.folder import RunFolder
from harness.runs.plan import Plan, plan_job, with_progress
from harness.runs.progress import Silence
from harness.runs.provenance import described_run
from harness.runs.request import TrialRequest, record_failure
from harness.runs.search import choose
from harness.runs.status import forget
from harness.runs.submit import follow_run, submit_run
from harness.runs.trial import run_trial
from harness.runs.trial_models import prepare_programs
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.config import ClusterSpec
    from harness.executors import Outcome, Part, Worker
    from harness.jobs import Limits
    from harness.runs.progress import Listener


@dataclass(slots=True)
class Report:
    """How a run ended: counts, every failure, and why it stopped early if it did."""

    plan: Plan
    ran: int = 0
    stopped: str = ""
    failures: list[tuple[TrialRequest, Outcome]] = field(default_factory=list)

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
    paths.check_writable(plan.run.path)
    with plan.run.lock():
        plan.run.describe(described_run(plan.job, plan.path.name, plan.trials, plan.stores, on))
        paths.write_atomic(plan.run.job_file, plan.path.read_text(encoding="utf-8"))
        try:
            if here and (plan.missing or plan.search):
                prepare_programs(plan.commands, listener.preparing)
            if plan.search is not None:
                chosen = choose(plan.search, cluster, listener.preparing)
                plan = with_progress(plan, tuple(dict.fromkeys([*plan.trials, *chosen])))
                report.plan = plan
            listener.planned(plan)
            if plan.missing:
                _run_missing(report, cluster, listener)
        except KeyboardInterrupt:
            if not plan.run.is_cancelled():
                raise
            report.stopped = "cancelled"
    return report


def _run_missing(report: Report, cluster: ClusterSpec | None, listener: Listener) -> None:
    """Run the missing trials, counting outcomes in the report as they come."""
    plan = report.plan
    requests: dict[str, TrialRequest] = {}

    def calls() -> Iterator[Call]:
        for request, call in missing_calls(plan):
            failures, most = len(report.failures), plan.job.limits.max_failures
            if plan.job.fail_fast and failures:
                report.stopped = "fail_fast is set and a trial failed"
            elif most is not None and failures > most:
                report.stopped = f"{failures} trials failed, more than max_failures: {most}"
            if report.stopped:
                return
            requests[call.key] = request
            yield call

    with open_executor(cluster) as executor:
        executor.check(*(part.needs for part in plan.parts))
        for outcome in executor.run(calls()):
            request = requests.pop(outcome.key)
            report.ran += 1
            if outcome.failed:
                report.failures.append((request, outcome))
                if outcome.cause != "raised":  # the worker died and could not record it
                    record_failure(
                        request,
                        outcome.error,
                        outcome.traceback,
                        cause=outcome.cause,
                        attempts=outcome.attempts,
                    )
            listener.finished(request, outcome)


def missing_calls(plan: Plan) -> Iterator[tuple[TrialRequest, Call]]:
    """Yield each missing trial with the first of its calls, without the stages that are done."""
    completed = plan.run.stages([t.id for t in plan.missing]) if len(plan.parts) > 1 else {}
    completed |= dict.fromkeys(plan.scoring, "predict")
    for trial in plan.missing:
        request = plan.request(trial)
        call = chain_calls(request, plan.parts, plan.job.limits, completed.get(trial.id))
        yield request, call


def chain_calls(
    request: TrialRequest, parts: Sequence[Part], limits: Limits, completed: str | None
) -> Call:
    """Return the first of the calls that carry out a trial; each has the next as `then`.

    Parameters
    ----------
    request
        The trial.
    parts
        Which stages go together, and what they need.
    limits
        Those of each call.
    completed
        The last stage that an earlier attempt finished.
    """
    run = RunFolder(request.run)
    done = STAGES[: STAGES.index(completed) + 1] if completed else ()
    call: Call | None = None
    for part in reversed(parts):
        if set(part.stages) <= set(done):
            continue
        needs = part.needs
        # On a GPU a fit has a process of its own, and scoring keeps one.
        on_gpu: Worker = "persistent" if part.stages == ("score",) else "single_use"
        request = replace(request, stages=part.stages, threads=needs.threads, gpus=needs.gpus)
        call = Call(
            request.spec.id,
            run_trial,
            (request,),
            needs,
            limit_s=limits.seconds,
            stall_s=limits.stall_seconds,
            silence=partial(run.silence, request.spec.id),
            age=partial(run.age, request.spec.id),
            worker=on_gpu if needs.gpus else "pooled",
            then=call,
        )
    assert call is not None  # scoring is never completed for a trial that is missing
    return call


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
    name = Path(folder.described()["job_file"]).stem
    if not paths.exists(folder.job_file):
        raise DataError(f"{run}: its job.yaml is gone. Run the job itself again with -o {run}.")
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch:
        job = Path(scratch, f"{name}.yaml")
        job.write_bytes(paths.read_bytes(folder.job_file))
        # What would refuse to run the job is found before a finished trial is forgotten.
        progress = listener.preparing if listener else None
        plan = plan_job(str(job), run, progress, here=False)
        if on != "inline":
            read_cluster(on)
        if other_code:
            trials = [*trials, *sorted(plan.other_code)]
        forget(run, trials, failed=failed)
        return run_job(str(job), run, on, listener)


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
    for text in (*changed_code(report.plan), *older_defaults(report.plan)):
        warnings.warn(text, stacklevel=2)
    if report.failures:
        raise TrialError(
            f"{len(report.failures)} of {report.ran} trials failed, the first: "
            f"{report.failures[0][0].spec}: {report.failures[0][1].error}. The others are in "
            f"Results({report.plan.run.path!r}); logs are in its folder trials/."
        )
    return Results(report.plan.run.path)
