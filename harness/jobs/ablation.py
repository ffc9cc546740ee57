"""An ablation: a base setting, and others that differ from it in one factor each, or in several.

The base is in it once, whatever the lists repeat of it. Which factors a trial varies is no part of
its id: the same trial of a sweep is done already.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.config import DATA_FACTORS
from harness.errors import JobError, near_match
from harness.jobs.job import AblationJob
from harness.jobs.settings import Setting, complete, settings, settings_of
from harness.tasks import factor_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from inspect import Parameter

    from harness.config import JSON
    from harness.jobs.job import Job
    from harness.jobs.trial_spec import TrialSpec


def base_setting(job: AblationJob, known: Mapping[str, Parameter]) -> Setting:
    """Find the one setting that all others are compared with."""
    found = list(settings_of(job.base, known, job.data))
    if len(found) != 1:
        raise JobError(
            f"base: means {len(found)} settings, expected one. Put the lists under vary."
        )
    return found[0]


def ablation_settings(job: AblationJob, known: Mapping[str, Parameter]) -> list[Setting]:
    """Return the settings of an ablation, the base first.

    Parameters
    ----------
    known
        The parameters of the base's model, `specs.CELLS` among them for one that predicts profiles.
    """
    base = base_setting(job, known)
    names = [*(name for name in known if name != "seed"), *DATA_FACTORS]
    for factor, levels in job.vary.items():
        if factor not in names:
            hint = near_match(factor, names)
            raise JobError(f"vary.{factor}: is no factor of {base.model}. {hint}")
        if all(_with(base, {factor: level}, known) == base for level in levels):
            raise JobError(f"vary.{factor}: no value differs from the base's. Remove the factor.")
    if job.design == "full-factorial":
        changes = settings(job.vary)
    else:
        changes = [{f: level} for f, levels in job.vary.items() for level in levels]
    found = [base]
    for change in changes:
        setting = _with(base, change, known)
        if setting not in found:
            found.append(setting)
    return found


def _with(base: Setting, change: Mapping[str, Any], known: Mapping[str, Parameter]) -> Setting:
    values = {name: value for name, value in change.items() if name not in DATA_FACTORS}
    factors = {name: value for name, value in change.items() if name in DATA_FACTORS}
    try:
        data = factor_values({**dict(base.data), **factors})
    except ValueError as error:
        raise JobError(f"vary: {error}") from None
    return replace(base, values=complete(base.model, {**base.values, **values}, known), data=data)


def variations(
    job: AblationJob, trials: Sequence[TrialSpec], known: Mapping[str, Parameter]
) -> dict[str, dict[str, JSON]]:
    """Find the factors in which each trial of the ablation differs from the base.

    Nothing for the base itself; other models that the job names are not in it.
    """
    meant = {
        (setting.parameters, setting.values.get("cells"), setting.data): setting.named
        for setting in ablation_settings(job, known)
    }
    base = base_setting(job, known).named
    found: dict[str, dict[str, JSON]] = {}
    for trial in trials:
        named = meant.get((trial.parameters, trial.cells, trial.data))
        if named is not None and trial.model == job.base.model:
            found[trial.id] = {name: v for name, v in named.items() if v != base[name]}
    return found


def described(
    job: Job,
    trials: Sequence[TrialSpec],
    parameters_of: Callable[[str], Mapping[str, Parameter]],
) -> dict[str, Any]:
    """Describe an ablation for a run: its base, and what each trial varies. Empty for others."""
    if not isinstance(job, AblationJob):
        return {}
    known = parameters_of(job.base.model)
    base = base_setting(job, known).named
    return {"ablation": {"base": base, "varies": variations(job, trials, known)}}
