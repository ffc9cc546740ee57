"""From a job to its trials: which there are, and which are missing.

`plan_job` reads, checks, prepares and expands; nothing of it starts a trial, so a job with one
impossible trial costs nothing.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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
from harness.runs.datasets import prepare
from harness.runs.folder import RunFolder
from harness.runs.prediction_trials import trials_of_files
from harness.runs.request import TrialRequest
from harness.runs.search import Search
from harness.runs.trial_models import (
    commands_of,
    identified,
    is_ceiling,
    missing_here,
    with_absolute_paths,
    with_inputs,
)
from harness.scoring import scores_counts
from harness.storage import paths
from harness.tasks import DataFactors, Task, parse_split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from harness.jobs import Job, TrialSpec
    from harness.runs.datasets import Progress


@dataclass(frozen=True, slots=True)
class Plan:
    """The trials of a job, and what the run folder says of each.

    Attributes
    ----------
    stores
        The store of each dataset, or the file that is the truth.
    files
        By id, the files of predictions that were made elsewhere.
    search
        Chooses the setting of a search; its trials are known when it is over.
    commands
        The declarations of those models that are programs, by name.
    trials
        All of them, in the order of the job.
    done
        Ids of finished trials that have every score the job asks for.
    scoring
        Ids of finished trials that need scores only: their predictions were kept.
    other_code
        Ids of finished trials that were made by other code than their models have now.
    """

    job: Job
    path: Path
    run: RunFolder
    stores: dict[str, str]
    files: dict[str, str]
    search: Search | None
    commands: dict[str, str]
    trials: tuple[TrialSpec, ...] = ()
    done: frozenset[str] = frozenset()
    scoring: frozenset[str] = frozenset()
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

    def request(self, trial: TrialSpec) -> TrialRequest:
        """Return a trial with all that a worker needs for it, wherever that worker stands."""
        file = self.files.get(trial.id)
        return TrialRequest(
            spec=with_absolute_paths(trial),
            run=paths.absolute(self.run.path),
            store=paths.absolute(self.stores[trial.dataset]),
            suites=self.job.score.suites,
            keep=("scores",) if self.files else tuple(self.job.keep),
            prediction=paths.absolute(file) if file else "",
            command=self.commands.get(trial.model, "") if trial.command else "",
        )


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
    stores = datasets = {dataset: found.store for dataset, found in prepared.items()}
    folder = RunFolder(run or f"runs/{path.stem}")
    files: dict[TrialSpec, str] = {}
    search: Search | None = None
    try:
        if isinstance(job, ScoringJob):
            files, stores = trials_of_files(job, prepared)
            trials = tuple(files)
        else:
            if isinstance(job, SearchJob):
                search = Search.of(job, folder, screens, stores[job.dataset])
            trials = tuple(with_inputs(identified(expand(job, screens, parameters_of))))
    except JobError as error:
        raise JobError(*(f"{path}: {problem}" for problem in error.args)) from error
    blanks = search.blanks if search else ()
    commands = commands_of({t.model for t in (*trials, *blanks) if t.command})
    plan = with_progress(
        Plan(
            job=job,
            path=path,
            run=folder,
            stores=stores,
            files={trial.id: file for trial, file in files.items()},
            search=search,
            commands=commands,
        ),
        trials,
    )
    suites = [*job.score.suites, *((job.metric.suite,) if isinstance(job, SearchJob) else ())]
    impossible = [
        *_impossible((*plan.missing, *blanks), stores, here=here),
        *_without_counts(dict.fromkeys(suites), datasets),
    ]
    if impossible:
        raise JobError(*(f"{path}: {problem}" for problem in impossible))
    return plan


def with_progress(plan: Plan, trials: Sequence[TrialSpec]) -> Plan:
    """Return a plan of these trials, with what the run folder says of them.

    A finished trial that lacks a score and has no predictions left runs again.
    """
    wanted = {
        f"{suite}:{metric.name}": metric.version
        for suite in plan.job.score.suites
        for metric in registered_suites()[suite].members()
    }
    manifests = plan.run.manifests([trial.id for trial in trials])
    done = {t for t, manifest in manifests.items() if wanted.items() <= manifest["scored"].items()}
    scoring = {t for t in manifests.keys() - done if "predictions" in manifests[t]["kept"]}
    models = {trial.id: trial.model for trial in trials if not trial.prediction}
    code = {name: code_of_model(name, plan.commands.get(name, "")) for name in {*models.values()}}
    other_code = {
        trial
        for trial in (done | scoring) & models.keys()
        if is_other_code(manifests[trial].get("code", {}), code[models[trial]])
    }
    return replace(
        plan,
        trials=tuple(trials),
        done=frozenset(done),
        scoring=frozenset(scoring),
        other_code=frozenset(other_code),
    )


def _impossible(
    trials: Sequence[TrialSpec], stores: Mapping[str, str], *, here: bool
) -> Iterator[str]:
    """Yield why trials cannot be carried out, each reason once.

    A data factor asks for more than there is, a context lacks controls, a ceiling, which sees no
    training data, is to see less of it, a program reads counts that the screen does not have, or it
    lacks its interpreter or engine on this machine (`here`).
    """
    trials = [trial for trial in trials if not trial.prediction]  # their truth is read as it is
    varied = {trial.model: trial for trial in trials if trial.data}
    for name in sorted(name for name, trial in varied.items() if is_ceiling(trial)):
        yield (
            f"{name}: found data factors, but a ceiling sees held-out cells and no training "
            "data. Give its entry `data: {}`."
        )
    yield from dict.fromkeys(_without_data(trials, stores))
    for model, dataset in sorted({(trial.model, trial.dataset) for trial in trials}):
        command = command_of(model)
        if command is None or command.spec.input.scale != "counts":
            continue
        if (scale := open_store(stores[dataset]).scale) != "counts":
            yield (
                f"{model}: reads counts, but dataset {dataset!r} holds {scale} values. Leave the "
                "model out, or convert the dataset from its counts."
            )
    if here:
        yield from dict.fromkeys(missing_here(trials))


def _without_data(trials: Sequence[TrialSpec], stores: Mapping[str, str]) -> Iterator[str]:
    """Yield why tasks of trials cannot be made."""
    # Trials that differ in model or seed alone ask for the same data.
    distinct = {
        (trial.dataset, trial.split_spec, trial.fold, trial.controls, trial.data): trial
        for trial in reversed(trials)
    }
    opened = {name: open_store(stores[name]) for name in {trial.dataset for trial in trials}}
    reported: set[str] = set()
    for trial in reversed(distinct.values()):
        split = parse_split(json.loads(trial.split_spec), trial.split)
        data = DataFactors.of(trial.data, trial.seed)
        try:
            Task(opened[trial.dataset], split, trial.fold, controls=trial.controls, data=data)
        except DataError as error:
            if str(error) not in reported:
                reported.add(str(error))
                yield f"{error} (Split {trial.split}, fold {trial.fold}.)"


def _without_counts(suites: Iterable[str], datasets: Mapping[str, str]) -> Iterator[str]:
    """Yield each suite of raw counts with each dataset (name to store) that has none."""
    counted = [name for name in suites if scores_counts(name)]
    scales = {name: open_store(path).scale for name, path in datasets.items()} if counted else {}
    for dataset, scale in scales.items():
        for suite in counted:
            if scale != "counts":
                yield (
                    f"score.suite: {suite!r} scores raw counts, but dataset {dataset!r} holds "
                    f"{scale} values. Leave the suite out, or convert the dataset from its counts."
                )


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
