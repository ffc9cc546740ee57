"""Calls in the driver's own process, in order: for debugging, and the reference in tests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from harness.errors import ClusterError
from harness.executors.base import attempt
from harness.executors.threads import restored

VISIBLE = "CUDA_VISIBLE_DEVICES"
"""What CUDA reads, once, when it starts."""

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from harness.config import ClusterSpec
    from harness.executors.base import Call, Executor, Outcome
    from harness.executors.resources import Resources


class InlineExecutor:
    """Runs each call where it stands, so that a debugger and a profiler see everything.

    A call that asks for no GPU sees none, as on a cluster; CUDA, once started in it, stays without
    for the rest of the process.
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def check(self, *needs: Resources) -> None:
        """Refuse nothing: one call at a time has the whole machine, whatever it asks for."""

    def run(self, calls: Iterable[Call | None]) -> Iterator[Outcome]:
        """Yield one outcome for each call, in order."""
        for first in calls:
            assert first is not None  # no call is in flight here that another could wait for
            call: Call | None = first
            while call is not None:
                with restored(VISIBLE):
                    if not call.resources.gpus:
                        os.environ[VISIBLE] = ""
                    outcome = attempt(call)
                call = None if outcome.failed else call.then
            yield outcome


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
