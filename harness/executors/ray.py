"""Calls as Ray tasks: a cluster on this machine, or one that is already there.

Ray only places and starts; what it would retry by itself it is told not to (``max_retries=0``),
because its rules are not ours: it retries out-of-memory kills for ever and cannot say afterwards
how many attempts there were. Results do not travel through Ray either: a worker writes them to the
run folder before it answers, so that a dead driver or head node loses nothing that was finished.
"""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

# Read by Ray when it is imported. Without the first, a driver under `uv run` ships the
# working folder to every worker; without the second, a local cluster leaves a token in the user's
# home folder which later clusters then demand.
os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
os.environ.setdefault("RAY_AUTH_MODE", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_LOG_TO_DRIVER", "0")  # a lost worker is one line of ours, not thirty
# Only with this does a task without GPUs see none; Ray plans to make it the default.
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")

import ray
from ray.exceptions import (
    NodeDiedError,
    ObjectLostError,
    OutOfMemoryError,
    RayActorError,
    RayError,
    TaskCancelledError,
    WorkerCrashedError,
)

from harness.errors import ClusterError
from harness.executors.base import Call, Cause, Outcome, should_retry
from harness.executors.ray_capacity import (
    LOOK_SECONDS,
    Capacity,
    capacity_error,
    has,
    with_more_memory,
)
from harness.executors.ray_jobs import probe_address
from harness.executors.ray_workers import Workers, nodes, ray_resources

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from harness.config import ClusterSpec
    from harness.executors.resources import Resources

POLL_SECONDS = 1.0
"""How long one wait lasts, so that Ctrl-C is never answered late."""

LOST = (WorkerCrashedError, NodeDiedError, ObjectLostError, TaskCancelledError, RayActorError)


@dataclass(slots=True)
class _PendingCall:
    """A call that runs or is queued, with its attempts so far and when the last was submitted."""

    call: Call
    attempts: int = 0
    submitted: float = 0.0
    ended: str = ""

    @property
    def seconds(self) -> float:
        """Wall time since the last attempt was submitted."""
        return time.time() - self.submitted


class RayExecutor:
    """Runs calls as Ray tasks, at most a bounded number at a time.

    Parameters
    ----------
    cluster
        Which cluster (none: one is started on this machine and stopped at the end), how many
        calls may be in flight, and how often a call whose worker was lost is tried again.
    """

    def __init__(self, cluster: ClusterSpec) -> None:
        self.cluster = cluster

    def __enter__(self) -> Self:
        options = _connection(self.cluster)
        if reason := probe_address(options["address"]):
            raise _nobody(options["address"], reason)
        _init(options)
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()

    def check(self, *needs: Resources) -> None:
        """Raise `ClusterError` where no node could ever run a call: Ray would wait for one.

        Nodes that a cluster may still start cannot be known, so where it may, nothing is refused.
        """
        if self.cluster.autoscaling:
            return
        found = [node["Resources"] for node in nodes()]
        for need in needs:
            asked = ray_resources(need)
            if not any(has(node, asked) for node in found):
                raise ClusterError(capacity_error(asked, found))

    def run(self, calls: Iterable[Call | None]) -> Iterator[Outcome]:
        """Yield one outcome for each call, in the order in which they finish."""
        room = self.cluster.max_in_flight
        if room is None:  # two for each CPU, so that none waits for us
            resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            room = max(2, 2 * int(resources.get("CPU", 1)))
        waiting, in_flight = iter(calls), _InFlight(room, Capacity(self.cluster.patience))
        try:
            while in_flight.fill(waiting):
                if unplaceable := in_flight.unplaceable():
                    yield from unplaceable
                    continue
                for pending, outcome in in_flight.completed():
                    if should_retry(outcome, self.cluster.retries):
                        if outcome.cause == "memory":
                            needs = with_more_memory(pending.call.resources)
                            pending.call = replace(pending.call, resources=needs)
                        in_flight.queued.append(pending)
                    elif outcome.failed or pending.call.then is None:
                        yield outcome
                    else:
                        in_flight.queued.append(_PendingCall(pending.call.then))
                in_flight.kill_stalled()
        finally:
            in_flight.workers.release(0.0)


class _InFlight:
    """Calls that were started: running on Ray, or queued for another attempt or stage.

    They are submitted before new calls, so that files between two stages of a trial do not pile
    up.
    """

    def __init__(self, room: int, places: Capacity) -> None:
        self.room, self.places = room, places
        self.workers = Workers()
        self.running: dict[Any, _PendingCall] = {}
        self.queued: deque[_PendingCall] = deque()

    def fill(self, waiting: Iterator[Call | None]) -> bool:
        """Submit what there is room for, and return whether anything is left to wait for."""
        for _ in range(len(self.queued)):
            self._submit(self.queued.popleft())
        while len(self.running) + len(self.queued) < self.room:
            call = next(waiting, None)
            if call is None:
                break
            self._submit(_PendingCall(call))
        return bool(self.running or self.queued)

    def completed(self) -> Iterator[tuple[_PendingCall, Outcome]]:
        """Yield the calls that are over, after a short wait for one to be."""
        ready, _ = ray.wait(list(self.running), timeout=POLL_SECONDS, fetch_local=True)
        for reference in ready:
            pending = self.running.pop(reference)
            outcome = _collect(reference, pending)
            self.workers.ended(reference, lost=outcome.cause not in ("", "raised"))
            yield pending, outcome
        self.workers.release()

    def kill_stalled(self) -> None:
        """Kill the workers of calls that have given no sign of life for too long."""
        for reference, pending in self.running.items():
            call = pending.call
            if call.stall_s is None or call.silence is None or pending.ended:
                continue
            if (silent := call.silence(pending.submitted)) > call.stall_s:
                pending.ended = f"no sign of life for {silent:.0f} s, limit {call.stall_s:g} s"
                self.workers.kill(reference)

    def unplaceable(self) -> list[Outcome]:
        """Take back the calls that no node has had place for in too long, and return their ends."""
        any_old = any(pending.seconds > LOOK_SECONDS for pending in self.running.values())
        if self.places.due and (self.places.any_lacking or any_old):
            begun = (*self.running.values(), *self.queued)
            self.places.look(pending.call.resources for pending in begun)
        ended: list[Outcome] = []
        if not self.places.any_lacking:
            return ended
        for reference, pending in list(self.running.items()):
            if reason := self.places.given_up(pending.call.resources):
                del self.running[reference]
                self.workers.kill(reference)
                self.workers.ended(reference, lost=True)
                ended.append(_without_place(pending, pending.attempts - 1, reason))
        for pending in list(self.queued):
            if reason := self.places.given_up(pending.call.resources):
                self.queued.remove(pending)
                ended.append(_without_place(pending, pending.attempts, reason))
        return ended

    def _submit(self, pending: _PendingCall) -> None:
        if self.places.given_up(pending.call.resources) or not self.workers.room_for(pending.call):
            self.queued.append(pending)
            return
        pending.attempts += 1
        pending.submitted = time.time()
        self.running[self.workers.submit(pending.call)] = pending


def _collect(reference: Any, pending: _PendingCall) -> Outcome:
    """Return the outcome of a call that Ray says is over."""
    try:
        outcome: Outcome = ray.get(reference)
    except OutOfMemoryError as error:
        return _failure(pending, "memory", error)
    except LOST as error:
        return _failure(pending, _why_lost(pending), error)
    except RayError as error:
        # The attempt itself never raises: what arrives here came from around it, such as a
        # result or an argument that cannot be pickled.
        return _failure(pending, "raised", error)
    return replace(outcome, attempts=pending.attempts)


def _why_lost(pending: _PendingCall) -> Cause:
    """Tell a worker that we killed, or that killed itself at its limit, from one that was lost."""
    if pending.ended:
        return "stalled"
    limit = pending.call.limit_s
    age = pending.call.age(pending.submitted) if pending.call.age else pending.seconds
    return "time" if limit and age > limit else "lost"


def _failure(pending: _PendingCall, cause: Cause, error: Exception) -> Outcome:
    first_line = str(error).strip().partition("\n")[0]
    return Outcome(
        key=pending.call.key,
        cause=cause,
        error=pending.ended or f"{type(error).__name__}: {first_line}",
        traceback=str(error),
        attempts=pending.attempts,
        seconds=pending.seconds,
    )


def _without_place(pending: _PendingCall, attempts: int, reason: str) -> Outcome:
    """Return the end of a call that was given up; the attempt that never began is none."""
    return Outcome(
        pending.call.key, cause="lost", error=reason, attempts=attempts, unplaceable=True
    )


def _connection(cluster: ClusterSpec) -> dict[str, Any]:
    """Return the arguments of ``ray.init``: a cluster of our own unless an address is declared."""
    options: dict[str, Any] = {}
    if cluster.env:
        options["runtime_env"] = {"env_vars": dict(cluster.env)}
    if cluster.address is not None:
        return {"address": cluster.address, **options}
    options |= {"address": "local", "include_dashboard": False}
    if cluster.num_cpus is not None:
        options["num_cpus"] = cluster.num_cpus
    if cluster.num_gpus is not None:
        options["num_gpus"] = cluster.num_gpus
    if cluster.object_store_bytes is not None:
        options["object_store_memory"] = cluster.object_store_bytes
    return options


def _init(options: dict[str, Any], attempts: int = 2) -> None:
    """Connect to a cluster or start one; a start that a busy machine was too slow for, once more.

    Ray gives its own processes half a minute, and has no kind of exception for that.
    """
    try:
        ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
    except ConnectionError as error:
        raise _nobody(options["address"], str(error)) from error
    except Exception as error:
        if "timed out during startup" not in str(error):
            raise
        ray.shutdown()
        if attempts > 1:
            _init(options, attempts - 1)
            return
        raise ClusterError(
            "Ray did not start on this machine within half a minute, twice. Wait until the machine "
            "is less busy, use --on inline, or name a cluster that runs."
        ) from error


def _nobody(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"No Ray cluster answers at {address!r}: {reason}. Start one with `ray start --head`, or "
        "run on this machine with --on local."
    )
