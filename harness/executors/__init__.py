"""Where calls run: in this process or on a Ray cluster. Knows nothing of trials."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import ClusterError
from harness.executors.base import Call, Executor, Outcome, Worker, attempt
from harness.executors.inline import InlineExecutor

if TYPE_CHECKING:
    from harness.jobs.specs import ClusterSpec

__all__ = ["Call", "Executor", "InlineExecutor", "Outcome", "Worker", "attempt", "open_executor"]


def open_executor(cluster: ClusterSpec | None) -> Executor:
    """Return the executor that a cluster file declares; without one, this process.

    Ray is imported here and not before, since a debugging session need not have it.
    """
    if cluster is None:
        return InlineExecutor()
    if cluster.submits:
        raise ClusterError(
            f"{cluster.address} is a dashboard, where runs are submitted: `harness run JOB -o RUN "
            "--on FILE` does. Give this command a cluster that it can join, or submit the run "
            "again: what is done is kept."
        )
    from harness.executors.ray import RayExecutor

    return RayExecutor(cluster)
