"""Before a run starts: refuse what cannot be done, and say what the rest will take.

Estimates are medians of what ran before, from the manifests in the run folder. A model that never
ran has none: nothing is guessed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.data.store import open_store
from harness.errors import DataError, JobError
from harness.models.known_models import command_of, impossible_here, is_ceiling
from harness.scoring.score import scores_counts
from harness.storage.local_cache import size_of
from harness.tasks.data_factors import DataFactors
from harness.tasks.splits import parse_split
from harness.tasks.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from harness.jobs.specs import TrialSpec
    from harness.runs.folder import RunFolder
    from harness.runs.runner import Plan

_SAMPLED = 50
"""Of how many finished trials of a model the files are measured."""


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


def searched(plan: Plan) -> str:
    """Say what a job searches, how far it has come, and what that leaves; nothing without one."""
    if plan.search is None:
        return ""
    job, tried = plan.search.job, plan.search.tried()
    n_left, n_seeds = job.n_settings - len(tried), len(plan.search.blanks)
    seeds = f" over {n_seeds} seeds" if n_seeds > 1 else ""
    took = [one.seconds for one in tried if one.state == "done"]
    left = f", about {n_left * median(took):.2g} s of {job.model} left" if took and n_left else ""
    return (
        f"Before that, a search: {job.n_settings} settings of {job.model} by {job.sampler.kind}, "
        f"{job.budget.concurrent} at a time, chosen by {job.metric.suite}:{job.metric.name} on "
        f"validation pairs{seeds}; {len(tried)} tried, {n_left} to try{left}. The best is then "
        f"scored on the test pairs: {n_seeds} more trial{'s' * (n_seeds > 1)}."
    )


def changed_code(plan: Plan) -> list[str]:
    """Return, for each model that was edited since trials of it ended, what that means for them."""
    edited = Counter(trial.model for trial in plan.trials if trial.id in plan.other_code)
    return [
        f"{n} finished trial{'s were' if n > 1 else ' was'} made by other code of {model} than it "
        f"has now, and {'are' if n > 1 else 'is'} kept. `harness retry {plan.run.path} "
        "--other-code` makes such trials again; with another folder (-o) both can be compared."
        for model, n in edited.items()
    ]


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one model's missing trials will take.

    Attributes
    ----------
    seconds
        Those of a finished trial, the medians of its stages together; None where none has run.
    left, cpu_seconds, gpu_seconds
        Of all that are missing: seconds one after the other, and for how long they hold CPUs and
        GPUs; None where a stage that is missing has never run.
    size
        The median of bytes that a finished trial keeps; None where that is not known.
    memory
        The most memory that a finished trial took; None where none has run.
    """

    n_missing: int
    seconds: float | None
    left: float | None
    cpu_seconds: float | None
    gpu_seconds: float | None
    size: float | None
    memory: int | None


def estimates(plan: Plan) -> dict[str, Estimate]:
    """Return an estimate for each model of a plan."""
    manifests = plan.run.manifests([trial.id for trial in plan.trials])
    by_model: dict[str, list[dict[str, Any]]] = {}
    for manifest in manifests.values():
        by_model.setdefault(str(manifest["model"]), []).append(manifest)
    missing: dict[str, list[str]] = {trial.model: [] for trial in plan.trials}
    for trial in plan.missing:
        missing[trial.model].append(trial.id)
    return {model: _estimate(plan, ids, by_model.get(model, [])) for model, ids in missing.items()}


def _estimate(plan: Plan, missing: Sequence[str], ran: Sequence[Mapping[str, Any]]) -> Estimate:
    took = {
        stage: median(seconds)
        for part in plan.parts
        for stage in part.stages
        if (seconds := [m["seconds"][stage] for m in ran if stage in m["seconds"]])
    }
    n_scoring = sum(trial in plan.scoring for trial in missing)
    left = cpu = gpu = 0.0
    stages = {stage for part in plan.parts for stage in part.stages}
    for part in plan.parts:
        for stage in part.stages:
            n = len(missing) if stage == "score" else len(missing) - n_scoring
            seconds = n * took.get(stage, 0.0)
            left += seconds
            cpu += seconds * part.needs.cpus
            gpu += seconds * part.needs.gpus
    wanted = stages if len(missing) > n_scoring else {"score"} if missing else set()
    known = wanted <= took.keys()
    return Estimate(
        len(missing),
        sum(took.values()) if stages <= took.keys() else None,
        left if known else None,
        cpu if known else None,
        gpu if known else None,
        _size(plan.run, [str(m["trial"]) for m in ran]),
        max((int(m["peak_memory"]) for m in ran), default=None),
    )


def _size(run: RunFolder, trials: Sequence[str]) -> float | None:
    """Return the median of bytes that a trial has in the run folder."""
    if not trials:
        return None
    sizes = [
        size_of(run.of_trial(trial)) + size_of(run.results(trial)) for trial in trials[:_SAMPLED]
    ]
    return float(median(sizes))
