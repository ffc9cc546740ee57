"""Before a run starts: refuse what cannot be done, and say what the rest will take.

Estimates are medians of what ran before, from the manifests in the run folder. A model that never
ran has none: nothing is guessed.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, replace
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.storage import canonical, size_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.runs.plan import Plan

_SAMPLED = 50
"""Of how many finished trials of a model the files are measured."""


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


def older_defaults(plan: Plan) -> list[str]:
    """Count finished trials that differ from missing ones by a default of an earlier version.

    Since then profiles become cells by another step, and splits deal by another rule: both are part
    of a trial's id, so such trials are missing now.
    """
    older: dict[str, tuple[str, ...]] = {}
    for trial in plan.missing:
        cells = replace(trial, cells="shift-controls") if trial.cells == "match-controls" else None
        split = None
        if trial.split_spec and json.loads(trial.split_spec).get("version") == 2:
            first = json.loads(trial.split_spec) | {"version": 1}
            split = replace(trial, split_spec=canonical(first))
        step = "cells: shift-controls, now match-controls. Set `cells: shift-controls`"
        rule = f"version 1 of split {trial.split}, now version 2. Set `split_version: 1`"
        if cells is not None:
            older.setdefault(cells.id, (step,))
        if split is not None:
            older.setdefault(split.id, (rule,))
        if cells is not None and split is not None:
            both = replace(cells, split_spec=split.split_spec)
            older.setdefault(both.id, (step, rule))
    found = plan.run.manifests(list(older)) if older else {}
    counts = Counter(reason for trial in found for reason in older[trial])
    return [
        f"{n} finished trial{'s' if n > 1 else ''} used {reason} to keep "
        f"{'them' if n > 1 else 'it'}."
        for reason, n in counts.items()
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
    """Estimate one model's missing trials from the manifests of those that ran."""
    needs_of = {stage: part.needs for part in plan.parts for stage in part.stages}
    took = {
        stage: median(seconds)
        for stage in needs_of
        if (seconds := [m["seconds"][stage] for m in ran if stage in m["seconds"]])
    }
    n_scoring = sum(trial in plan.scoring for trial in missing)
    left = cpu = gpu = 0.0
    for stage, needs in needs_of.items():
        n = len(missing) if stage == "score" else len(missing) - n_scoring
        seconds = n * took.get(stage, 0.0)
        left += seconds
        cpu += seconds * needs.cpus
        gpu += seconds * needs.gpus
    wanted = set(needs_of) if len(missing) > n_scoring else {"score"} if missing else set()
    known = wanted <= took.keys()
    run, measured = plan.run, [str(manifest["trial"]) for manifest in ran[:_SAMPLED]]
    sizes = [size_of(run.of_trial(trial)) + size_of(run.results(trial)) for trial in measured]
    return Estimate(
        len(missing),
        sum(took.values()) if needs_of.keys() <= took.keys() else None,
        left if known else None,
        cpu if known else None,
        gpu if known else None,
        float(median(sizes)) if sizes else None,
        max((int(m["peak_memory"]) for m in ran), default=None),
    )
