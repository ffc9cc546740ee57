"""Expand a job into trials.

`settings` and `ablation` find the settings that an entry means; here they meet datasets, splits,
folds and seeds. Two entries that mean the same trial are refused: one of them is a mistake, and its
row in the table would be the other's.

Registries and stores live higher up, so whoever calls brings what is needed of them: a `Screen`
for each dataset and the parameters of each model.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.errors import JobError
from harness.jobs.ablation import ablation_settings
from harness.jobs.job import AblationJob
from harness.jobs.settings import Filter, repeated, settings_of
from harness.jobs.trial_spec import TrialSpec
from harness.storage import canonical
from harness.tasks import parse_split

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from inspect import Parameter

    from harness.jobs.job import Job, ModelEntry
    from harness.jobs.settings import Setting


@dataclass(frozen=True, slots=True)
class SplitChoice:
    """A split of one dataset, ready to be written into trials."""

    spec: str
    n_folds: int


@dataclass(frozen=True, slots=True)
class Screen:
    """What expanding a job needs to know of a dataset, beyond its name."""

    version: int
    fingerprint: str
    splits: Mapping[str, SplitChoice]


def expand(
    job: Job,
    screens: Mapping[str, Screen],
    parameters_of: Callable[[str], Mapping[str, Parameter]],
) -> list[TrialSpec]:
    """Expand a checked job into trials, in the order of the file, models varying slowest.

    Parameters
    ----------
    job
        As `read_job` returns it.
    screens
        One for each of the job's datasets, by name.
    parameters_of
        A model's parameters with their defaults, as `inspect.signature` gives them; with `CELLS`
        among them for a model that predicts profiles.
    """
    entry_of: dict[TrialSpec, str] = {}
    for where, entry in job.entries:
        try:
            trials = _of_entry(job, screens, entry, parameters_of(entry.model), where)
        except JobError as error:
            raise JobError(*(f"{where}: {problem}" for problem in error.args)) from error
        for trial in trials:
            if trial in entry_of:
                raise _twice(trial, entry_of[trial], where)
            entry_of[trial] = where
    return list(entry_of)


def _of_entry(
    job: Job,
    screens: Mapping[str, Screen],
    entry: ModelEntry,
    known: Mapping[str, Parameter],
    where: str,
) -> list[TrialSpec]:
    """Expand one entry, without the trials that its filters leave out."""
    if where == "base" and isinstance(job, AblationJob):
        meant: Sequence[Setting] = ablation_settings(job, known)
    else:
        meant = list(settings_of(entry, known, job.data))
    chosen = Filter(entry, known)
    trials: list[TrialSpec] = []
    for setting in meant:
        for dataset, split in itertools.product(job.datasets, job.splits):
            if chosen.keeps(setting, {"dataset": dataset, "split": split}):
                seeds = repeated(job.seeds, entry.repeat or job.repeat)
                trials += _trials(job, setting, (dataset, screens[dataset], split), seeds)
    chosen.check(len(trials))
    return trials


def _trials(
    job: Job, setting: Setting, place: tuple[str, Screen, str], seeds: Sequence[int]
) -> Iterator[TrialSpec]:
    dataset, screen, split = place
    choice = screen.splits[split]
    folds = range(choice.n_folds) if job.folds is None else job.folds
    if beyond := [fold for fold in folds if fold >= choice.n_folds]:
        raise JobError(
            f"folds: found {beyond[0]}, but split {split!r} has {choice.n_folds} folds, counted "
            "from 0. Leave folds out to run all of them."
        )
    spec = choice.spec
    if job.split_version is not None:
        declared = {**json.loads(spec), "version": job.split_version}
        spec = canonical(parse_split(declared, f"split_version: {split}").model_dump(mode="json"))
    for fold, seed in itertools.product(folds, seeds):
        yield TrialSpec(
            dataset=dataset,
            dataset_version=screen.version,
            fingerprint=screen.fingerprint,
            split=split,
            split_spec=spec,
            fold=fold,
            model=setting.model,
            parameters=setting.parameters,
            cells=setting.values.get("cells"),
            seed=seed,
            controls=job.score.controls,
            data=setting.data,
        )


def trials_of(job: Job, screens: Mapping[str, Screen], setting: Setting) -> Iterator[TrialSpec]:
    """Yield the trials of one setting on all that a job names."""
    seeds = repeated(job.seeds, job.repeat)
    for dataset, split in itertools.product(job.datasets, job.splits):
        yield from _trials(job, setting, (dataset, screens[dataset], split), seeds)


def _twice(trial: TrialSpec, first: str, second: str) -> JobError:
    setting = ", ".join(f"{name}={value!r}" for name, value in (*trial.parameters, *trial.data))
    if first == second:
        where = f"{first} gives the same trial twice"
        what = "Remove the value that its lists, or seeds, folds, dataset or split, repeat."
    else:
        where = f"{first} and {second} give the same trial"
        what = "Remove one: a setting left out has its default."
    found = f"{trial.model}({setting}), cells {trial.cells!r}, seed {trial.seed}"
    return JobError(f"{where}: {found}. {what}")


@dataclass(frozen=True, slots=True)
class Prepared:
    """A dataset that trials can be made of: where its store is, and what identifies it."""

    store: str
    screen: Screen
