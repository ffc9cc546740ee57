"""Before a run starts: refuse what cannot be done, and say what the rest will take.

Estimates are medians of what ran before, from the manifests in the run folder. A model that never
ran has none: nothing is guessed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from harness import paths
from harness.data_factors import DataFactors
from harness.errors import DataError, JobError
from harness.models import registered
from harness.splits import parse_split
from harness.store import open_store
from harness.tasks import Task

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from harness.runs import RunFolder
    from harness.specs import TrialSpec
    from harness.sweep import Plan

_SAMPLED = 50
"""Of how many finished trials of a model the files are measured."""


def refuse_impossible(trials: Sequence[TrialSpec], stores: Mapping[str, str], where: str) -> None:
    """Raise for trials that their screens have no data for, all that is wrong at once.

    Parameters
    ----------
    trials
        Those that are to run.
    stores
        The store of each dataset.
    where
        The job's file.

    Raises
    ------
    JobError
        A data factor asks for more than there is, a context lacks controls, or a ceiling, which
        sees no training data, is to see less of it.
    """
    trials = [trial for trial in trials if not trial.prediction]  # their truth is read as it is
    found = dict.fromkeys([*_ceilings(trials), *_without_data(trials, stores)])
    if found:
        raise JobError(*(f"{where}: {problem}" for problem in found))


def _ceilings(trials: Sequence[TrialSpec]) -> Iterator[str]:
    models = registered()
    for name in sorted({trial.model for trial in trials if trial.data}):
        if models[name].ceiling:
            yield (
                f"{name}: found data factors, but a ceiling sees held-out cells and no training "
                "data. Give its entry `data: {}`."
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


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one model's missing trials will take.

    Attributes
    ----------
    seconds
        The median of a finished trial, all stages; None where none has run.
    left
        Seconds of all that are missing, one after the other.
    size
        The median of bytes that a finished trial keeps; None where that is not known.
    """

    n_missing: int
    seconds: float | None
    left: float | None
    size: float | None


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
    # One that was only scored again says nothing of fitting.
    whole = [
        sum(m["seconds"].values())
        for m in ran
        if "predict" in m["seconds"] or m["trial"] in plan.files
    ]
    score = [m["seconds"]["score"] for m in ran if "score" in m["seconds"]]
    seconds = median(whole) if whole else None
    n_scoring = sum(trial in plan.scoring for trial in missing)
    n_whole = len(missing) - n_scoring
    known = (seconds is not None or not n_whole) and (bool(score) or not n_scoring)
    left = None
    if known:
        left = n_whole * (seconds or 0.0) + n_scoring * (median(score) if score else 0.0)
    return Estimate(len(missing), seconds, left, _size(plan.run, [str(m["trial"]) for m in ran]))


def _size(run: RunFolder, trials: Sequence[str]) -> float | None:
    """Return the median of bytes that a trial has in the run folder; None on an object store."""
    if paths.is_remote(run.path) or not trials:
        return None
    sizes = []
    for trial in trials[:_SAMPLED]:
        files = [*Path(run.of_trial(trial)).rglob("*"), Path(run.results(trial))]
        sizes.append(sum(file.stat().st_size for file in files if file.is_file()))
    return float(median(sizes))
