"""A run: its folder, its plan, its trials, and the loops that carry them out.

`plan_job` says which trials a job comes to and which are missing, `run_job` has them done by an
executor, `run_trial` is one of them from the screen to its scores. What is done is read from the
run folder each time.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.runs.estimate import Estimate as Estimate
    from harness.runs.estimate import changed_code as changed_code
    from harness.runs.estimate import estimates as estimates
    from harness.runs.estimate import older_defaults as older_defaults
    from harness.runs.estimate import searched as searched
    from harness.runs.folder import RunFolder as RunFolder
    from harness.runs.metric_checks import assess as assess
    from harness.runs.plan import Plan as Plan
    from harness.runs.plan import known_names as known_names
    from harness.runs.plan import plan_job as plan_job
    from harness.runs.prediction_trials import manifest_problems as manifest_problems
    from harness.runs.request import TrialRequest as TrialRequest
    from harness.runs.runner import Report as Report
    from harness.runs.runner import retry as retry
    from harness.runs.runner import run_for_results as run_for_results
    from harness.runs.runner import run_job as run_job
    from harness.runs.status import Ledger as Ledger
    from harness.runs.status import ago as ago
    from harness.runs.status import find_trial as find_trial
    from harness.runs.status import read_ledger as read_ledger
    from harness.runs.submit import follow_run as follow_run
    from harness.runs.submit import submit_run as submit_run
    from harness.runs.watch import LivePage as LivePage
    from harness.runs.watch import serve as serve

_NAMES = {
    "estimate": "Estimate changed_code estimates older_defaults searched",
    "folder": "RunFolder",
    "metric_checks": "assess",
    "plan": "Plan known_names plan_job",
    "prediction_trials": "manifest_problems",
    "request": "TrialRequest",
    "runner": "Report retry run_for_results run_job",
    "status": "Ledger ago find_trial read_ledger",
    "submit": "follow_run submit_run",
    "watch": "LivePage serve",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
