"""From a job to its trials: which there are, and which are missing."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.config import declarations, find_declaration
from harness.data import (
    is_store_path,
    open_store,
    parse_simulated,
    presets,
    read_card,
    simulated_card,
    simulation_options,
)
from harness.errors import DataError, JobError
from harness.executors import Part
from harness.jobs import Known, ScoringJob, SearchJob, check_job, expand, read_job
from harness.metrics import registered_suites
from harness.models import (
    broken,
    code_of_model,
    command_of,
    is_other_code,
    parameters_of,
    registered,
)
from harness.runs.calls import chained
from harness.runs.datasets import prepare
from harness.runs.folder import RunFolder
from harness.runs.input_digests import wherever, with_inputs
from harness.runs.prediction_trials import trials_of_files
from harness.runs.request import Errand
from harness.runs.search import Search
from harness.runs.trial_models import commands_of, identified, impossible_here, is_ceiling
from harness.scoring import scores_counts
from harness.storage import paths
from harness.tasks import DataFactors, Task, parse_split

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from harness.jobs import TrialSpec


if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.executors import Call
    from harness.jobs import Job, TrialSpec
    from harness.runs.datasets import Progress


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


def plan_job(
    name: str, run: str | None = None, progress: Progress | None = None, *, here: bool = True
) -> Plan:
    """Return what a job comes to, making its stores where they are not there yet.

    Parameters
    ----------
    name
        A job's name, or the path of its file.
    run
        The run folder; ``runs/NAME`` by default.
    progress
        Called with the dataset, cells done and cells in all while a store is made.
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
    prepared = {dataset: prepare(dataset, progress) for dataset in job.datasets}
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
        for metric in registered_suites()[name].members()
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


def refuse_impossible(
    trials: Sequence[TrialSpec], stores: Mapping[str, str], where: str, *, here: bool = True
) -> None:
    """Raise for trials that cannot be carried out, all that is wrong at once.

    Parameters
    ----------
    trials
        Those that are to run.
    stores
        The store of each dataset.
    where
        The job's file.
    here
        Whether they run on this machine, which then must have what their programs need.

    Raises
    ------
    JobError
        A data factor asks for more than there is, a context lacks controls, a ceiling, which sees
        no training data, is to see less of it, a program reads counts that the screen has not, or
        it lacks its interpreter or engine.
    """
    trials = [trial for trial in trials if not trial.prediction]  # their truth is read as it is
    lacking = impossible_here(trials) if here else ()
    uncounted = _without_counts(trials, stores)
    found = dict.fromkeys(
        [*_ceilings(trials), *_without_data(trials, stores), *uncounted, *lacking]
    )
    if found:
        raise JobError(*(f"{where}: {problem}" for problem in found))


def refuse_suites(suites: Iterable[str], stores: Mapping[str, str], where: str) -> None:
    """Raise for suites of raw counts where a dataset has none.

    Parameters
    ----------
    suites
        What a job scores by.
    stores
        The store of each dataset.
    where
        The job's file.

    Raises
    ------
    JobError
        Names each suite and dataset that do not fit.
    """
    counted = [name for name in suites if scores_counts(name)]
    stored = {name: open_store(path).scale for name, path in stores.items()} if counted else {}
    found = [
        f"{where}: score.suite: {suite!r} scores raw counts, but dataset {name!r} holds {scale} "
        "values. Leave the suite out, or convert the dataset from its counts."
        for name, scale in stored.items()
        for suite in counted
        if scale != "counts"
    ]
    if found:
        raise JobError(*found)


def _ceilings(trials: Sequence[TrialSpec]) -> Iterator[str]:
    one_of = {trial.model: trial for trial in trials if trial.data}
    for name in sorted(name for name, trial in one_of.items() if is_ceiling(trial)):
        yield (
            f"{name}: found data factors, but a ceiling sees held-out cells and no training "
            "data. Give its entry `data: {}`."
        )


def _without_counts(trials: Sequence[TrialSpec], stores: Mapping[str, str]) -> Iterator[str]:
    for model, dataset in sorted({(trial.model, trial.dataset) for trial in trials}):
        command = command_of(model)
        if command is None or command.spec.input.scale != "counts":
            continue
        if (scale := open_store(stores[dataset]).scale) != "counts":
            yield (
                f"{model}: reads counts, but dataset {dataset!r} holds {scale} values. Leave the "
                "model out, or convert the dataset from its counts."
            )


def _without_data(trials: Sequence[TrialSpec], stores: Mapping[str, str]) -> Iterator[str]:
    # Trials that differ in model or seed alone ask for the same data.
    distinct = {
        (trial.dataset, trial.split_spec, trial.fold, trial.controls, trial.data): trial
        for trial in reversed(trials)
    }
    opened = {name: open_store(stores[name]) for name in {trial.dataset for trial in trials}}
    said: set[str] = set()
    for trial in reversed(distinct.values()):
        split = parse_split(json.loads(trial.split_spec), trial.split)
        data = DataFactors.of(trial.data, trial.seed)
        try:
            Task(opened[trial.dataset], split, trial.fold, controls=trial.controls, data=data)
        except DataError as error:
            if str(error) not in said:
                said.add(str(error))
                yield f"{error} (Split {trial.split}, fold {trial.fold}.)"


def known_names() -> Known:
    """Return what a job may name."""
    models = registered()
    return Known(
        models=tuple(models),
        suites=tuple(registered_suites()),
        datasets=(*declarations("datasets"), *(f"sim:{name}" for name in presets())),
        splits_of=_splits_of,
        parameters_of=parameters_of,
        broken={name: str(problems[0]) for name, problems in broken().items()},
        simulation_options=simulation_options(),
        metrics={
            name: {metric.name: metric.higher_is_better for metric in suite.members()}
            for name, suite in registered_suites().items()
        },
    )


def _splits_of(dataset: str) -> tuple[str, ...]:
    if is_store_path(dataset):
        return tuple(open_store(dataset).card.get("splits", {}))
    if parse_simulated(dataset) is not None:
        return tuple(simulated_card(dataset)["splits"])
    return tuple(read_card(dataset).splits)
