"""The executor that a cluster file declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.errors import ClusterError
from harness.executors.inline import InlineExecutor

if TYPE_CHECKING:
    from harness.config import ClusterSpec
    from harness.executors.base import Executor


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
