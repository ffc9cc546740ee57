"""A search: settings tried on the validation pairs, and the best of them named for the test.

Nothing here reads a test pair: the trials of a search are on the validation side, and the chosen
setting only becomes trials of the test side when the search is over. The controls are in no pair,
so the held ones of a context serve both sides.

What was tried is in the run folder as ``search/KEY/NNNN.json``, where KEY stands for what is
searched and how. A search begun again goes on after the settings that are there, so it may also be
given more trials; another space is another search.
"""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.data import open_store
from harness.errors import JobError, TrialError
from harness.executors import Call, InlineExecutor, open_executor
from harness.jobs import Setting, complete, frozen_parameters, trials_of
from harness.metrics import metric_named
from harness.models import parameters_of
from harness.runs.input_digests import digests_of_choices, wherever, with_inputs
from harness.runs.request import Errand, record_failure
from harness.runs.search_sampler import LEARNS_WITH, Proposals, Tried
from harness.runs.trial_models import commands_of, identified
from harness.runs.trying import try_setting
from harness.storage import canonical, paths
from harness.tasks import Task, factor_values, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from harness.config import ClusterSpec
    from harness.executors import Outcome, Resources
    from harness.jobs import Screen, SearchJob, TrialSpec
    from harness.runs.folder import RunFolder

    Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Search:
    """One search of a run.

    Attributes
    ----------
    blanks
        The trials of a setting on the test side, one for each seed, without the parameters.
    """

    job: SearchJob
    run: RunFolder
    store: str
    blanks: tuple[TrialSpec, ...]

    @classmethod
    def of(
        cls, job: SearchJob, run: RunFolder, screens: Mapping[str, Screen], store: str
    ) -> Search:
        """Return a job's search; `JobError` where the split has nothing to choose by."""
        for package, extra in LEARNS_WITH.get(job.sampler.kind, {}).items():
            if find_spec(package) is None:
                raise JobError(
                    f"sampler: {job.sampler.kind} draws settings with {package}, which is not "
                    f"installed. Install it: pip install 'virtual-cell-harness[{extra}]'"
                )
        blank = Setting(job.model, {}, factor_values(job.data or {}))
        search = cls(job, run, store, identified(trials_of(job, screens, blank)))
        first = search.blanks[0]
        split = parse_split(json.loads(first.split_spec), first.split)
        if not Task(open_store(store), split, first.fold).pairs_of("validation"):
            raise JobError(
                f"split: {job.split!r} of {job.dataset} has no validation pairs, and a search "
                "chooses by these alone. Give the split a share of them (`validation: 0.1`) in "
                "the card of the dataset, or search on another split."
            )
        return search

    @cached_property
    def folder(self) -> str:
        """Where this search is written down."""
        job = self.job
        meant = {
            "trials": [json.loads(trial.to_json()) for trial in self.blanks],
            "metric": f"{job.metric.suite}:{metric_named(job.metric.name).key}",
            **job.model_dump(mode="json", include={"model", "space", "sampler", "scheduler"}),
            **digests_of_choices(job),
        }
        key = hashlib.sha256(canonical(meant).encode()).hexdigest()[:12]
        return paths.join(self.run.path, "search", key)

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric that is chosen by."""
        return bool(metric_named(self.job.metric.name).higher_is_better)

    def tried(self) -> list[Tried]:
        """Return the settings that ended, by number; not those that `harness retry` forgot."""
        names = [name for name in paths.list_names(self.folder) if name.endswith(".json")]
        read = (
            json.loads(paths.read_bytes(paths.join(self.folder, name))) for name in sorted(names)
        )
        within = (one for one in read if one["number"] < self.job.n_settings)
        return [one for one in map(_tried, within) if one.state == "done" or self._failed(one)]

    def _failed(self, tried: Tried) -> bool:
        return any(self.run.failure(trial) is not None for trial in tried.trials)

    def write(self, tried: Tried) -> None:
        """Write down what came of a setting."""
        text = json.dumps(asdict(tried), indent=2, sort_keys=True) + "\n"
        paths.write_atomic(paths.join(self.folder, f"{tried.number:04}.json"), text)

    def trials(self, drawn: Mapping[str, Any], side: str = "test") -> tuple[TrialSpec, ...]:
        """Return the trials of a setting, one for each seed."""
        values = complete(self.job.model, drawn, parameters_of(self.job.model))
        cells = values.pop("cells", None)
        chosen: dict[str, Any] = {"parameters": frozen_parameters(values), "side": side}
        meant = [replace(blank, cells=cells, **chosen) for blank in self.blanks]
        return tuple(with_inputs(meant))

    def errands(self, drawn: Mapping[str, Any]) -> tuple[Errand, ...]:
        """Return what a worker needs to try a setting."""
        needs, commands = self.resources, commands_of([self.job.model])
        return tuple(
            Errand(
                spec=wherever(trial),
                run=paths.absolute(self.run.path),
                store=paths.absolute(self.store),
                suites=(self.job.metric.suite,),
                keep=("scores",),
                threads=needs.threads,
                gpus=needs.gpus,
                command=commands.get(self.job.model, ""),
            )
            for trial in self.trials(drawn, "validation")
        )

    @property
    def resources(self) -> Resources:
        """What a setting needs: the most that any of its stages does."""
        return self.job.resources.largest


def _tried(said: dict[str, Any]) -> Tried:
    steps = {int(step): value for step, value in said["steps"].items()}
    return Tried(**{**said, "steps": steps, "trials": tuple(said["trials"])})


# --- the search as a whole ----------------------------------------------------------------------


class Course:
    """A search under way: asked what to try, told what came of it, writing all of it down."""

    def __init__(self, search: Search, progress: Progress) -> None:
        self.search, self.progress, self.job = search, progress, search.job
        self.proposals = Proposals(
            self.job.space,
            self.job.sampler,
            concurrent=self.job.budget.concurrent,
            higher_is_better=search.higher_is_better,
            tried=search.tried(),
        )
        self.began = time.monotonic()
        self.begun: dict[int, float] = {}
        self.steps: dict[int, dict[int, float]] = {}
        for one in self.proposals.tried.values():
            self.note(self.search.trials(one.drawn, "validation"))

    @property
    def left(self) -> list[int]:
        """The numbers that nobody has begun."""
        known = self.proposals.tried.keys() | self.begun.keys()
        return [n for n in range(self.job.n_settings) if n not in known]

    @property
    def over(self) -> bool:
        """Whether nothing more is to be begun."""
        limit = self.job.budget.seconds
        late = limit is not None and time.monotonic() - self.began > limit
        return late or not self.left or bool(self.too_many_failures)

    @property
    def too_many_failures(self) -> str:
        """Why the job gives up, if it does."""
        most = 0 if self.job.fail_fast else self.job.limits.max_failures
        failed = [one for one in self.proposals.tried.values() if one.state == "failed"]
        if most is None or len(failed) <= most:
            return ""
        return f"{len(failed)} settings failed, the last: {failed[-1].error}"

    def next(self) -> tuple[int, Call] | None:
        """Return the next setting's number and call; None where others have to end first."""
        number = self.left[0]
        if not self.proposals.ready(number):
            return None
        drawn = self.proposals.ask(number)
        self.begun[number] = time.monotonic()
        errands = self.search.errands(drawn)
        self.note(tuple(errand.spec for errand in errands))
        metric = self.job.metric
        limits, run, trials = self.job.limits, self.search.run, [e.spec.id for e in errands]
        return number, Call(
            f"{number:04}",
            try_setting,
            (errands, metric.suite, metric.name),
            self.search.resources,
            limit_s=limits.seconds,
            stall_s=limits.stall_seconds,
            silence=lambda since: min(run.silence(trial, since) for trial in trials),
            age=lambda since: max(run.age(trial, since) for trial in trials),
        )

    def reported(self, number: int, step: int, value: float) -> None:
        """Learn how well a setting does in the middle of its fit."""
        self.steps.setdefault(number, {})[step] = value

    def ended(self, number: int, outcome: Outcome | None) -> None:
        """Learn what came of a setting; None where it was stopped early."""
        steps = self.steps.get(number, {})
        drawn = self.proposals.drawn[number]
        errands = self.search.errands(drawn)
        tried = Tried(
            number,
            drawn,
            "stopped" if outcome is None else "failed" if outcome.failed else "done",
            value=[*steps.values()][-1] if outcome is None else outcome.value,
            steps=steps,
            trials=tuple(errand.spec.id for errand in errands),
            error="" if outcome is None else outcome.error,
            seconds=round(time.monotonic() - self.begun[number], 3),
        )
        if outcome is None:
            error = f"stopped after step {[*steps][-1]}: others did better by then"
            record_failure(errands[0], error, "", cause="stopped")
        elif outcome.cause not in ("", "raised"):
            record_failure(
                errands[0],
                outcome.error,
                outcome.traceback,
                cause=outcome.cause,
                attempts=outcome.attempts,
            )
        self.proposals.tell(tried)
        self.search.write(tried)
        self.progress(
            f"the choice of {self.job.model}", len(self.proposals.tried), self.job.n_settings
        )

    def note(self, trials: tuple[TrialSpec, ...]) -> None:
        """Add trials to those that the run says it has, so that its status knows them."""
        described = self.search.run.described()
        described["trials"] |= {trial.id: json.loads(trial.to_json()) for trial in trials}
        self.search.run.describe(described)


def choose(
    search: Search, cluster: ClusterSpec | None, progress: Progress
) -> tuple[TrialSpec, ...]:
    """Try what is missing of a search, and return the best setting's trials on the test side.

    ``tables/search.csv`` then has every setting that was tried.

    Parameters
    ----------
    search
        What to try.
    cluster
        Where; this process, one setting after the other, without one.
    progress
        Told after each setting: a word, how many ended, of how many.

    Raises
    ------
    TrialError
        No setting got to the end.
    """
    course = Course(search, progress)
    if not course.over:
        _try_all(course, cluster)
    tried = sorted(course.proposals.tried.values(), key=lambda one: one.number)
    best = _best(tried, higher_is_better=search.higher_is_better)
    paths.write_atomic(paths.join(search.run.tables, "search.csv"), _table(search, tried, best))
    if course.too_many_failures or best is None:
        reason = course.too_many_failures or "no setting got to the end"
        raise TrialError(
            f"{search.job.model}: the search chose nothing: {reason}. What was tried is in "
            f"{paths.join(search.run.tables, 'search.csv')}, the logs in trials/."
        )
    winners = search.trials(best.drawn)
    course.note(winners)
    return winners


def _try_all(course: Course, cluster: ClusterSpec | None) -> None:
    job, resources = course.job, course.search.resources
    if cluster is None:
        if job.scheduler.kind != "none":
            raise JobError(
                "scheduler: asha compares settings that run side by side, on Ray. Run it with "
                "--on local, or leave the scheduler out."
            )
        _one_by_one(course)
        return
    from harness.executors import Halving, tune_settings

    halving = None
    if job.scheduler.kind == "asha":
        known = [
            (one.number, step, value)
            for one in course.proposals.tried.values()
            for step, value in sorted(one.steps.items())
        ]
        better = course.search.higher_is_better
        halving = Halving(job.scheduler.grace, job.scheduler.factor, better, known)
    with open_executor(cluster) as executor:
        executor.check(resources)
        tune_settings(course, retries=cluster.retries, patience=cluster.patience, halving=halving)


def _one_by_one(course: Course) -> None:
    with InlineExecutor() as executor:
        while not course.over:
            found = course.next()
            assert found is not None  # nothing else is running
            number, call = found
            for outcome in executor.run([call]):
                course.ended(number, outcome)


def _best(tried: list[Tried], *, higher_is_better: bool) -> Tried | None:
    """Return the best of the settings that got to the end, the first of equals."""
    done = [one for one in tried if one.state == "done" and one.value is not None]
    sign = -1 if higher_is_better else 1
    return min(done, key=lambda one: sign * (one.value or 0.0), default=None)


def _table(search: Search, tried: list[Tried], best: Tried | None) -> str:
    """Return the settings that were tried, one row each, as CSV."""
    metric = search.job.metric
    rows = [
        {
            "number": one.number,
            "chosen": one is best,
            "state": one.state,
            f"validation_{metric.name}": one.value,
            **one.drawn,
            "steps": max(one.steps, default=0),
            "seconds": one.seconds,
            "trials": " ".join(one.trials),
            "error": one.error,
        }
        for one in tried
    ]
    return pd.DataFrame(rows).to_csv(index=False, lineterminator="\n")
