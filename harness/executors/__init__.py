"""Where calls run: in this process or on a Ray cluster.

An executor is given functions, arguments and the resources that they need, and gives back outcomes
in the order in which they finish. It knows nothing of trials; Ray is imported nowhere else.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from harness.executors.base import Call as Call
    from harness.executors.base import Executor as Executor
    from harness.executors.base import Outcome as Outcome
    from harness.executors.base import Worker as Worker
    from harness.executors.base import attempt as attempt
    from harness.executors.inline import InlineExecutor as InlineExecutor
    from harness.executors.inline import open_executor as open_executor
    from harness.executors.ray_jobs import JobServer as JobServer
    from harness.executors.resources import STAGES as STAGES
    from harness.executors.resources import Part as Part
    from harness.executors.resources import Resources as Resources

_NAMES = {
    "base": "Call Executor Outcome Worker attempt",
    "inline": "InlineExecutor open_executor",
    "ray_jobs": "JobServer",
    "resources": "Part Resources STAGES",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}


def __getattr__(name: str) -> Any:
    """Load a public name when it is first asked for."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
