"""Job files: what to run, checked and expanded into trials.

A job declares datasets, splits, models and their settings; it never says how. `expand` turns it
into frozen `TrialSpec` values, whose id is a hash of what they compute.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.jobs.ablation import described as described
    from harness.jobs.checks import Known as Known
    from harness.jobs.checks import check_job as check_job
    from harness.jobs.expansion import Prepared as Prepared
    from harness.jobs.expansion import Screen as Screen
    from harness.jobs.expansion import SplitChoice as SplitChoice
    from harness.jobs.expansion import expand as expand
    from harness.jobs.expansion import trials_of as trials_of
    from harness.jobs.job import Job as Job
    from harness.jobs.job import Limits as Limits
    from harness.jobs.job import ScoringJob as ScoringJob
    from harness.jobs.job import SearchJob as SearchJob
    from harness.jobs.job import read_job as read_job
    from harness.jobs.prediction_manifest import Listed as Listed
    from harness.jobs.prediction_manifest import read_manifest as read_manifest
    from harness.jobs.prediction_manifest import value_of as value_of
    from harness.jobs.search_space import Dimension as Dimension
    from harness.jobs.search_space import Sampler as Sampler
    from harness.jobs.search_space import Scheduler as Scheduler
    from harness.jobs.settings import Setting as Setting
    from harness.jobs.settings import complete as complete
    from harness.jobs.trial_spec import TrialSpec as TrialSpec
    from harness.jobs.trial_spec import frozen_parameters as frozen_parameters

_NAMES = {
    "ablation": "described",
    "checks": "Known check_job",
    "expansion": "Prepared Screen SplitChoice expand trials_of",
    "job": "Job Limits ScoringJob SearchJob read_job",
    "prediction_manifest": "Listed read_manifest value_of",
    "search_space": "Dimension Sampler Scheduler",
    "settings": "Setting complete",
    "trial_spec": "TrialSpec frozen_parameters",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
