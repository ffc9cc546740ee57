"""A search: settings tried on the validation pairs, and the best of them scored on the test pairs.

Nothing here reads a test pair: the trials of a search are on the validation side, and the chosen
setting only becomes trials of the test side when the search is over. The controls are in no pair,
so the held ones of a context serve both sides.

Each setting is a call for the executor that sweeps use. ``search/KEY/NNNN.json`` has what came of a
setting, ``search/KEY/reports/NNNN.json`` what it reported in the middle of its fit; KEY stands for
what is searched and how. A search begun again continues after the settings that are there, so it
may also be given more trials; another space is another search.
"""

from __future__ import annotations

import io
import json
import time
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pandas as pd

from harness.data import open_store
from harness.errors import ClusterError, JobError, StoppedError, TrialError
from harness.executors import Call, open_executor
from harness.jobs import Setting, complete, frozen_parameters, trials_of
from harness.metrics import metric_named
from harness.models import parameters_of
from harness.runs.folder import RunFolder
from harness.runs.request import TrialRequest, record_failure
from harness.runs.search_sampler import NEEDED, Proposals, Tried, should_prune
from harness.runs.trial import run_trial
from harness.runs.trial_models import (
    commands_of,
    digests_of_choices,
    identified,
    with_absolute_paths,
    with_inputs,
)
from harness.storage import canonical, paths, text_digest
from harness.tasks import Task, factor_values, parse_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from harness.config import ClusterSpec
    from harness.executors import Outcome, Resources
    from harness.jobs import Scheduler, Screen, SearchJob, TrialSpec

    Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Search:
    """What is searched, and its files in the run folder.

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
        for key, kind in (("sampler", job.sampler.kind), ("scheduler", job.scheduler.kind)):
            for package, extra in NEEDED.get(kind, {}).items():
                if find_spec(package) is None:
                    raise JobError(
                        f"{key}: {kind} needs {package}, which is not installed. Install it: pip "
                        f"install 'virtual-cell-harness[{extra}]'"
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
        """The folder of this search."""
        job = self.job
        identity = {
            "trials": [json.loads(trial.to_json()) for trial in self.blanks],
            "metric": f"{job.metric.suite}:{metric_named(job.metric.name).key}",
            **job.model_dump(mode="json", include={"model", "space", "sampler", "scheduler"}),
            **digests_of_choices(job),
        }
        return paths.join(self.run.path, "search", text_digest(canonical(identity)))

    @property
    def higher_is_better(self) -> bool:
        """The direction of the metric that is chosen by."""
        return bool(metric_named(self.job.metric.name).higher_is_better)

    @property
    def resources(self) -> Resources:
        """The resources of a setting: the most that any of its stages needs."""
        return self.job.resources.largest

    def tried(self) -> list[Tried]:
        """Return the settings that ended, by number; not those that `harness retry` forgot."""
        names = [name for name in paths.list_names(self.folder) if name.endswith(".json")]
        settings = []
        for text in paths.read_each([paths.join(self.folder, name) for name in sorted(names)]):
            if text is None or (found := json.loads(text))["number"] >= self.job.n_settings:
                continue
            found["steps"] = {int(step): value for step, value in found["steps"].items()}
            setting = Tried(**found | {"trials": tuple(found["trials"])})
            failed = any(self.run.failure(trial) is not None for trial in setting.trials)
            if setting.state == "done" or failed:
                settings.append(setting)
        return settings

    def trials(self, drawn: Mapping[str, Any], side: str = "test") -> tuple[TrialSpec, ...]:
        """Return the trials of a setting, one for each seed."""
        values = complete(self.job.model, drawn, parameters_of(self.job.model))
        cells = values.pop("cells", None)
        chosen: dict[str, Any] = {"parameters": frozen_parameters(values), "side": side}
        return tuple(with_inputs([replace(blank, cells=cells, **chosen) for blank in self.blanks]))

    def requests(self, drawn: Mapping[str, Any]) -> tuple[TrialRequest, ...]:
        """Return what a worker needs to try a setting."""
        commands = commands_of([self.job.model])
        return tuple(
            TrialRequest(
                spec=with_absolute_paths(trial),
                run=paths.absolute(self.run.path),
                store=paths.absolute(self.store),
                suites=(self.job.metric.suite,),
                keep=("scores",),
                threads=self.resources.threads,
                gpus=self.resources.gpus,
                command=commands.get(self.job.model, ""),
            )
            for trial in self.trials(drawn, "validation")
        )


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
        Where; without one in this process, one setting after the other.
    progress
        Called after each setting with a text, the number that ended, and of how many.

    Raises
    ------
    ClusterError
        No node has had what a setting needs for too long; begun again, the search continues.
    TrialError
        No setting was fitted to its end.
    """
    running = RunningSearch(search, progress)
    if not running.is_over:
        with open_executor(cluster) as executor:
            executor.check(search.resources)
            for outcome in executor.run(running.calls()):
                if outcome.unplaceable:  # all settings need the same, so none could run
                    raise ClusterError(outcome.error)
                running.record(outcome)
    tried = sorted(running.proposals.tried.values(), key=lambda one: one.number)
    done = [one for one in tried if one.state == "done" and one.value is not None]
    sign = -1 if search.higher_is_better else 1
    best = min(done, key=lambda one: sign * (one.value or 0.0), default=None)  # first of equals
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
    table = paths.join(search.run.tables, "search.csv")
    paths.write_atomic(table, pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))
    if running.too_many_failures or best is None:
        reason = running.too_many_failures or "no setting got to the end"
        raise TrialError(
            f"{search.job.model}: the search chose nothing: {reason}. What was tried is in "
            f"{table}, the logs in trials/."
        )
    winners = search.trials(best.drawn)
    running.describe(winners)
    return winners


class RunningSearch:
    """A running search: proposes the next setting, records each result, and saves both."""

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
        for one in self.proposals.tried.values():
            self.describe(search.trials(one.drawn, "validation"))
            if one.steps:
                Reports(search.folder, one.number).write(one.steps)

    @property
    def left(self) -> list[int]:
        """The numbers of settings that have not begun."""
        known = self.proposals.tried.keys() | self.begun.keys()
        return [n for n in range(self.job.n_settings) if n not in known]

    @property
    def is_over(self) -> bool:
        """Whether no further setting begins."""
        limit = self.job.budget.seconds
        late = limit is not None and time.monotonic() - self.began > limit
        return late or not self.left or bool(self.too_many_failures)

    @property
    def too_many_failures(self) -> str:
        """Why the job gives up; empty if it does not."""
        most = 0 if self.job.fail_fast else self.job.limits.max_failures
        failed = [one for one in self.proposals.tried.values() if one.state == "failed"]
        if most is None or len(failed) <= most:
            return ""
        return f"{len(failed)} settings failed, the last: {failed[-1].error}"

    def calls(self) -> Iterator[Call | None]:
        """Yield a call for each setting; None while the next one waits for others to end."""
        while not self.is_over:
            number = self.left[0]
            yield self._call(number) if self.proposals.ready(number) else None

    def _call(self, number: int) -> Call:
        requests = self.search.requests(self.proposals.ask(number))
        self.begun[number] = time.monotonic()
        self.describe(tuple(request.spec for request in requests))
        run, trials = self.search.run, [request.spec.id for request in requests]
        job, needs = self.job, self.search.resources
        better = self.search.higher_is_better
        reports = Reports(paths.absolute(self.search.folder), number, job.scheduler, better)
        return Call(
            str(number),
            try_setting,
            (requests, job.metric.suite, job.metric.name, reports),
            needs,
            limit_s=job.limits.seconds,
            stall_s=job.limits.stall_seconds,
            silence=lambda since: min(run.silence(trial, since) for trial in trials),
            age=lambda since: max(run.age(trial, since) for trial in trials),
            worker="single_use" if needs.gpus else "pooled",
        )

    def record(self, outcome: Outcome) -> None:
        """Save what came of a setting."""
        number = int(outcome.key)
        drawn = self.proposals.drawn[number]
        trials = self.search.trials(drawn, "validation")
        steps = Reports(self.search.folder, number).read()
        stopped = not outcome.failed and outcome.value is None
        tried = Tried(
            number,
            drawn,
            "failed" if outcome.failed else "stopped" if stopped else "done",
            value=steps[max(steps)] if stopped else outcome.value,
            steps=steps,
            trials=tuple(trial.id for trial in trials),
            error=outcome.error,
            seconds=round(time.monotonic() - self.begun[number], 3),
        )
        if outcome.cause not in ("", "raised"):  # the worker died and could not record it
            record_failure(
                self.search.requests(drawn)[0],
                outcome.error,
                outcome.traceback,
                cause=outcome.cause,
                attempts=outcome.attempts,
            )
        self.proposals.tell(tried)
        text = json.dumps(asdict(tried), indent=2, sort_keys=True) + "\n"
        paths.write_atomic(paths.join(self.search.folder, f"{number:04}.json"), text)
        n_tried, n_settings = len(self.proposals.tried), self.job.n_settings
        self.progress(f"the choice of {self.job.model}", n_tried, n_settings)

    def describe(self, trials: tuple[TrialSpec, ...]) -> None:
        """Add trials to those that the run says it has, so that its status knows them."""
        described = self.search.run.described()
        described["trials"] |= {trial.id: json.loads(trial.to_json()) for trial in trials}
        self.search.run.describe(described)


# --- in the worker ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reports:
    """What one setting reports in the middle of its fit, in the search's folder.

    Attributes
    ----------
    scheduler
        When to stop a setting that does worse than others at the same step.
    """

    folder: str
    number: int
    scheduler: Scheduler | None = None
    higher_is_better: bool = False

    def read(self) -> dict[int, float]:
        """Return the setting's values by step."""
        [text] = paths.read_each([self._file(self.number)])
        return {} if text is None else {int(k): v for k, v in json.loads(text).items()}

    def write(self, steps: Mapping[int, float]) -> None:
        """Replace the setting's values."""
        text = json.dumps({str(step): steps[step] for step in sorted(steps)})
        paths.write_atomic(self._file(self.number), text)

    def add(self, step: int, value: float) -> bool:
        """Record a value, and return whether the setting may go on."""
        steps = {at: v for at, v in self.read().items() if at < step}
        before = max(steps, default=0)
        steps[step] = value
        self.write(steps)
        if self.scheduler is None or not self.scheduler.reaches_rung(before, step):
            return True
        names = paths.list_names(paths.join(self.folder, "reports"))
        others = [int(name.partition(".")[0]) for name in names]
        texts = paths.read_each([self._file(n) for n in others if n != self.number])
        known = [{int(k): v for k, v in json.loads(text).items()} for text in texts if text]
        return not should_prune(
            self.scheduler, steps, known, higher_is_better=self.higher_is_better
        )

    def _file(self, number: int) -> str:
        return paths.join(self.folder, "reports", f"{number:04}.json")


def try_setting(
    requests: tuple[TrialRequest, ...], suite: str, metric: str, reports: Reports
) -> float | None:
    """Carry out the trials of a setting that are not finished, and return its score.

    The score is the mean over validation pairs and seeds of what is defined; None for a setting
    that was stopped early. `TrialError` where nothing is defined.
    """

    def mean(frame: pd.DataFrame) -> float:
        rows = frame[(frame["suite"] == suite) & (frame["metric"] == metric)]
        return float(rows["value"].mean())

    def report(step: int, frame: pd.DataFrame) -> bool:
        value = mean(frame)
        return bool(pd.isna(value)) or reports.add(step, value)

    version = metric_named(metric).version
    for request in requests:
        manifest = RunFolder(request.run).manifest(request.spec.id) or {"scored": {}}
        if manifest["scored"].get(f"{suite}:{metric}") != version:
            try:
                run_trial(request, report)
            except StoppedError:
                return None
    files = [RunFolder(request.run).results(request.spec.id) for request in requests]
    value = mean(pd.concat(pd.read_parquet(io.BytesIO(paths.read_bytes(file))) for file in files))
    if pd.isna(value):
        raise TrialError(f"no validation pair has a value of {metric} (suite {suite})")
    return value
