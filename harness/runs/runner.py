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

from harness.analysis.results import Results
from harness.errors import DataError, JobError, TrialError
from harness.executors import open_executor
from harness.executors.resources import Part
from harness.jobs.checks import check_job
from harness.jobs.expansion import expand
from harness.jobs.specs import ScoringJob, SearchJob, read_cluster, read_job
from harness.metrics.suites import suites
from harness.models.code_version import code_of_model, is_other_code
from harness.models.known_models import commands_of, identified, parameters_of, prepare_programs
from harness.runs.calls import chained
from harness.runs.folder import RunFolder
from harness.runs.input_digests import wherever, with_inputs
from harness.runs.planning import changed_code, refuse_impossible, refuse_suites
from harness.runs.prediction_trials import trials_of_files
from harness.runs.preparation import known_names, prepare
from harness.runs.progress import Silence
from harness.runs.provenance import described_run
from harness.runs.request import Errand, record_failure
from harness.runs.search import Search, choose
from harness.runs.status import forget
from harness.runs.submit import follow_run, submit_run
from harness.storage import paths
from harness.storage.paths import find_declaration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.executors import Call, Outcome
    from harness.jobs.specs import ClusterSpec, Job, TrialSpec
    from harness.runs.progress import Listener


@dataclass(frozen=True, slots=True)
class Plan:
    """The trials of a job, and what the run folder says of each.

    Attributes
    ----------
    trials
        All of them, in the order of the job.
    done
        Ids of finished trials that have every score the job asks for.
    scoring
        Ids of finished trials that need scores only: their predictions were kept.
    stores
        The store of each dataset, or the file that is the truth.
    files
        By id, the files of predictions that were made elsewhere.
    search
        What chooses the setting of a search; its trials are known when it is over.
    commands
        The declarations of those models that are programs, by name.
    other_code
        Ids of finished trials that were made by other code than their models have now.
    """

    job: Job
    path: Path
    run: RunFolder
    trials: tuple[TrialSpec, ...]
    done: frozenset[str]
    scoring: frozenset[str]
    stores: dict[str, str]
    files: dict[str, str] = field(default_factory=dict)
    search: Search | None = None
    commands: dict[str, str] = field(default_factory=dict)
    other_code: frozenset[str] = frozenset()

    @property
    def missing(self) -> tuple[TrialSpec, ...]:
        """The trials that something has to be done for."""
        return tuple(trial for trial in self.trials if trial.id not in self.done)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The calls that a trial comes to, each with what it needs."""
        stages = self.job.resources
        return (Part(("score",), stages.score),) if self.files else stages.parts

    def errand(self, trial: TrialSpec) -> Errand:
        """Return a trial with all that a worker needs for it, wherever that worker stands."""
        given = self.files.get(trial.id)
        return Errand(
            spec=wherever(trial),
            run=paths.absolute(self.run.path),
            store=paths.absolute(self.stores[trial.dataset]),
            suites=self.job.score.suites,
            keep=("scores",) if self.files else tuple(self.job.keep),
            given=paths.absolute(given) if given else "",
            command=self.commands.get(trial.model, "") if trial.command else "",
        )

    def calls(self, trials: Sequence[TrialSpec]) -> Iterator[tuple[Errand, Call]]:
        """Yield each trial's errand and the calls that carry it out, one chained to the next.

        Stages that are behind a trial already are left out.
        """
        behind = self.run.stages([t.id for t in trials]) if len(self.parts) > 1 else {}
        behind |= dict.fromkeys(self.scoring, "predict")
        for trial in trials:
            errand = self.errand(trial)
            yield errand, chained(errand, self.parts, self.job.limits, behind.get(trial.id))


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


def plan_job(
    name: str, run: str | None = None, listener: Listener | None = None, *, here: bool = True
) -> Plan:
    """Return what a job comes to, making its stores where they are not there yet.

    Parameters
    ----------
    name
        A job's name, or the path of its file.
    run
        The run folder; ``runs/NAME`` by default.
    listener
        Told while stores are made.
    here
        Whether the trials are to run on this machine.

    Raises
    ------
    JobError
        The job cannot be run; all that is wrong with it at once.
    """
    path = find_declaration("jobs", name)
    problems = check_job(path, known_names())
    if problems:
        raise JobError(*problems)
    job = read_job(str(path))
    report = (listener or Silence()).preparing
    prepared = {dataset: prepare(dataset, report) for dataset in job.datasets}
    screens = {dataset: found.screen for dataset, found in prepared.items()}
    stores = {dataset: found.store for dataset, found in prepared.items()}
    files: dict[TrialSpec, str] = {}
    folder, search = RunFolder(run or f"runs/{path.stem}"), None
    try:
        if isinstance(job, ScoringJob):
            files, stores = trials_of_files(job, prepared)
        if isinstance(job, SearchJob):
            search = Search.of(job, folder, screens, stores[job.dataset])
        expanded = () if files else expand(job, screens, parameters_of)
        trials = tuple(files or with_inputs(identified(expanded)))
    except JobError as error:
        raise JobError(*(f"{path}: {problem}" for problem in error.args)) from error
    given = {trial.id: file for trial, file in files.items()}
    blanks = search.blanks if search else ()
    commands = commands_of({t.model for t in (*trials, *blanks) if t.command})
    found = _progress(folder, trials, _wanted(job.score.suites), commands)
    plan = Plan(job, path, folder, trials, *found[:2], stores, given, search, commands, found[2])
    refuse_impossible((*plan.missing, *blanks), stores, str(path), here=here)
    screens_of = {name: found.store for name, found in prepared.items()}
    searched = (job.metric.suite,) if isinstance(job, SearchJob) else ()
    refuse_suites(dict.fromkeys((*job.score.suites, *searched)), screens_of, str(path))
    return plan


def _wanted(names: Sequence[str]) -> dict[str, int]:
    """Return the version of every score that a trial must have, as manifests name them."""
    return {
        f"{name}:{metric.name}": metric.version
        for name in names
        for metric in suites()[name].members()
    }


def _progress(
    run: RunFolder,
    trials: Sequence[TrialSpec],
    wanted: dict[str, int],
    commands: Mapping[str, str],
) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
    """Return which trials have all scores, which need scoring only, and which other code made.

    A trial that lacks a score and has no predictions left is in none: it runs again.
    """
    done, scoring = set(), set()
    manifests = run.manifests([trial.id for trial in trials])
    for trial, manifest in manifests.items():
        if wanted.items() <= manifest["scored"].items():
            done.add(trial)
        elif "predictions" in manifest["kept"]:
            scoring.add(trial)
    models = {trial.id: trial.model for trial in trials if not trial.prediction}
    now = {name: code_of_model(name, commands.get(name, "")) for name in {*models.values()}}
    other = {
        trial
        for trial in done | scoring
        if trial in models and is_other_code(manifests[trial].get("code", {}), now[models[trial]])
    }
    return frozenset(done), frozenset(scoring), frozenset(other)


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
    plan = plan_job(name, run, listener, here=here)
    report = Report(plan)
    with plan.run.claim():
        plan.run.describe(described_run(plan, on))
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
            trials = [*trials, *sorted(plan_job(str(job), run, listener, here=False).other_code)]
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
