"""Calls as Ray tasks: a cluster on this machine, or one that is already there.

Ray only places and starts; what it would retry by itself it is told not to (``max_retries=0``),
because its rules are not ours: it retries out-of-memory kills for ever and cannot say afterwards
how many attempts there were. Results do not travel through Ray either: a worker writes them to the
run folder before it answers, so that a dead driver or head node loses nothing that was finished.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import time
from collections import Counter, deque
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
    RayError,
    TaskCancelledError,
    WorkerCrashedError,
)

from harness.errors import ClusterError
from harness.executors.base import Call, Cause, Outcome, attempt
from harness.executors.reaching import why_unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from harness.specs import ClusterSpec, Resources

POLL_SECONDS = 1.0
"""How long one wait lasts, so that Ctrl-C is never answered late."""

LOST = (WorkerCrashedError, NodeDiedError, ObjectLostError, TaskCancelledError)


GRACE_SECONDS = 10.0
"""How long after its time limit a call that cannot hear the alarm is killed with its worker."""

MORE_MEMORY = 2
"""What a call killed for its memory gets on its second attempt, as a multiple."""


@dataclass(slots=True)
class _Flight:
    """A call that is running somewhere."""

    call: Call
    attempts: int = 0
    started: float = 0.0
    ended: str = ""


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
        if reason := why_unreachable(options["address"]):
            raise _nobody(options["address"], reason)
        try:
            ray.init(**options, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise _nobody(options["address"], str(error)) from error
        return self

    def __exit__(self, *error: object) -> None:
        ray.shutdown()

    def check(self, *needs: Resources) -> None:
        """Raise `ClusterError` where no node could ever run a call: Ray would wait for one.

        Nodes that a cluster may still start cannot be known, so where it may, nothing is refused.
        """
        if self.cluster.autoscaling:
            return
        nodes = [node["Resources"] for node in _nodes()]
        for need in needs:
            asked = _in_rays_words(need)
            if not any(_has(node, asked) for node in nodes):
                raise ClusterError(_too_much(asked, nodes))

    def run(self, calls: Iterable[Call]) -> Iterator[Outcome]:
        """Yield one outcome for each call, in the order in which they finish."""
        waiting = iter(calls)
        again: deque[_Flight] = deque()
        flying: dict[Any, _Flight] = {}
        room = self.cluster.max_in_flight or _room()
        while True:
            while len(flying) < room and (flight := _next_flight(again, waiting)):
                flying[_submit(flight)] = flight
            if not flying:
                return
            ready, _ = ray.wait(list(flying), timeout=POLL_SECONDS, fetch_local=True)
            for reference in ready:
                flight = flying.pop(reference)
                outcome = _collect(reference, flight)
                if self._worth_another(outcome):
                    again.append(_with_more_memory(flight) if outcome.cause == "memory" else flight)
                else:
                    yield outcome
            _end_silent(flying)

    def _worth_another(self, outcome: Outcome) -> bool:
        """Whether the worker was lost, and the call may be tried on another.

        A call that was killed for its memory, or refused more of it, gets one more chance, since
        its neighbours may have taken it; a second time says that it is the call itself.
        """
        if outcome.cause == "lost":
            return outcome.attempts <= self.cluster.retries
        return outcome.cause == "memory" and outcome.attempts <= min(1, self.cluster.retries)


def _next_flight(again: deque[_Flight], waiting: Iterator[Call]) -> _Flight | None:
    """Return the next call to submit, those to be tried again first; None when there is none."""
    if again:
        return again.popleft()
    call = next(waiting, None)
    return None if call is None else _Flight(call)


def _submit(flight: _Flight) -> Any:
    """Submit one attempt, and return Ray's reference to its outcome."""
    flight.attempts += 1
    flight.started = time.perf_counter()
    options = _task_options(flight.call.resources)
    task = ray.remote(_attempt_in_worker).options(name=flight.call.key, max_retries=0, **options)
    return task.remote(flight.call.for_worker)


def _attempt_in_worker(call: Call) -> Outcome:
    """Run a call in a worker of its own, which dies if the call outlives its limit unheard.

    The watchdog is a thread of C that needs no interpreter: it works when nothing else does.
    """
    if call.limit_s is None:
        return attempt(call)
    faulthandler.dump_traceback_later(call.limit_s + GRACE_SECONDS, exit=True)
    try:
        return attempt(call)
    finally:
        faulthandler.cancel_dump_traceback_later()


def _end_silent(flying: dict[Any, _Flight]) -> None:
    """Kill the workers of calls that have given no sign of life for too long."""
    for reference, flight in flying.items():
        call = flight.call
        if call.stall_s is None or call.silence is None or flight.ended:
            continue
        if (silent := call.silence()) > call.stall_s:
            flight.ended = f"no sign of life for {silent:.0f} s, limit {call.stall_s:g} s"
            ray.cancel(reference, force=True)


def _with_more_memory(flight: _Flight) -> _Flight:
    """Return a call that was killed for its memory, asking for twice as much.

    One that declared nothing asks for half of the largest node: it then has few neighbours.
    """
    needs = flight.call.resources
    most = int(max((node["Resources"].get("memory", 0.0) for node in _nodes()), default=0.0))
    asked = needs.memory_bytes * MORE_MEMORY if needs.memory_bytes else most // MORE_MEMORY
    flight.call = replace(flight.call, resources=needs.with_memory(min(asked, most)))
    return flight


def _collect(reference: Any, flight: _Flight) -> Outcome:
    """Return the outcome of a call that Ray says is over."""
    try:
        outcome: Outcome = ray.get(reference)
    except OutOfMemoryError as error:
        return _failure(flight, "memory", error)
    except LOST as error:
        return _failure(flight, _why_lost(flight), error)
    except RayError as error:
        # The attempt itself never raises: what arrives here came from around it, such as a
        # result or an argument that cannot be pickled.
        return _failure(flight, "raised", error)
    return replace(outcome, attempts=flight.attempts)


def _why_lost(flight: _Flight) -> Cause:
    """Tell a worker that we killed, or that killed itself at its limit, from one that was lost."""
    if flight.ended:
        return "stalled"
    limit = flight.call.limit_s
    return "time" if limit and time.perf_counter() - flight.started > limit else "lost"


def _failure(flight: _Flight, cause: Cause, error: Exception) -> Outcome:
    first_line = str(error).strip().partition("\n")[0]
    return Outcome(
        key=flight.call.key,
        cause=cause,
        error=flight.ended or f"{type(error).__name__}: {first_line}",
        traceback=str(error),
        attempts=flight.attempts,
        seconds=time.perf_counter() - flight.started,
    )


def _connection(cluster: ClusterSpec) -> dict[str, Any]:
    """Return the arguments of ``ray.init``: a cluster of our own unless an address is declared."""
    if cluster.address is not None:
        return {"address": cluster.address}
    options: dict[str, Any] = {"address": "local", "include_dashboard": False}
    if cluster.num_cpus is not None:
        options["num_cpus"] = cluster.num_cpus
    if cluster.num_gpus is not None:
        options["num_gpus"] = cluster.num_gpus
    if cluster.object_store_bytes is not None:
        options["object_store_memory"] = cluster.object_store_bytes
    if cluster.env:
        options["runtime_env"] = {"env_vars": dict(cluster.env)}
    return options


def _nobody(address: str, reason: str) -> ClusterError:
    return ClusterError(
        f"No Ray cluster answers at {address!r}: {reason}. Start one with `ray start --head`, or "
        "run on this machine with --on local."
    )


def _task_options(resources: Resources) -> dict[str, Any]:
    """Return a call's needs in Ray's words."""
    options: dict[str, Any] = {"num_cpus": resources.cpus, "num_gpus": resources.gpus}
    if resources.memory_bytes is not None:
        options["memory"] = resources.memory_bytes
    return options


def _nodes() -> list[dict[str, Any]]:
    """Return what Ray says of each node that lives."""
    nodes: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in nodes if node["Alive"]]


def _in_rays_words(need: Resources) -> dict[str, float]:
    asked = {"CPU": need.cpus, "GPU": need.gpus, "memory": need.memory_bytes or 0}
    return {name: number for name, number in asked.items() if number}


def _has(node: dict[str, float], asked: dict[str, float]) -> bool:
    return all(node.get(name, 0) >= number for name, number in asked.items())


def _too_much(asked: dict[str, float], nodes: list[dict[str, float]]) -> str:
    """Say what was asked for, and what there is: nodes that are alike once, the largest first."""
    kinds = Counter(_amounts(node) for node in sorted(nodes, key=_size, reverse=True))
    found = "; ".join(f"{number} with {amounts}" for amounts, number in kinds.items())
    several = "s" * (len(nodes) != 1)
    return (
        f"No node of the Ray cluster has {_amounts(asked, missing=False)}, which one trial needs. "
        f"Found {len(nodes)} node{several}, the largest first: {found or 'none'}. Ask for less "
        "under `resources:` in the job, or run it where there is such a node; the file of a "
        "cluster that starts nodes as they are needed says `autoscaling: true`."
    )


def _size(node: dict[str, float]) -> tuple[float, ...]:
    return tuple(node.get(name, 0) for name in ("GPU", "CPU", "memory"))


def _amounts(resources: dict[str, float], *, missing: bool = True) -> str:
    """Return ``16 CPUs, 1 GPU, 60.0 GiB``."""
    amounts = [
        f"{number:g} {name}{'' if number == 1 else 's'}"
        for name in ("CPU", "GPU")
        if (number := resources.get(name, 0)) or missing
    ]
    if memory := resources.get("memory", 0):
        amounts.append(f"{memory / 2**30:.1f} GiB")
    return ", ".join(amounts)


def _room() -> int:
    """Return how many calls to keep in flight: two for each CPU, so that none waits for us."""
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return max(2, 2 * int(resources.get("CPU", 1)))
