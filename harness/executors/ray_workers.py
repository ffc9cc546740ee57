"""The processes of a Ray cluster that carry calls: shared tasks, fresh processes, lasting actors.

A fit on a GPU gets a process of its own: CUDA memory that a library keeps would otherwise stay
taken on a device that others are sent to. Scoring on a GPU gets an actor that stays: starting CUDA
and compiling kernels takes longer than the scores of a small trial. An actor holds its GPU while it
lives, so one that nobody needs for some seconds is ended.
"""

from __future__ import annotations

import faulthandler
import signal
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

from harness.executors.base import Call, Outcome, attempt

if TYPE_CHECKING:
    from harness.executors.resources import Resources

GRACE_SECONDS = 10.0
"""How long after its time limit a call that cannot hear the alarm is killed with its worker."""

IDLE_SECONDS = 5.0
"""How long a lasting worker waits for its next call before it gives back what it holds."""


def attempt_in_worker(call: Call) -> Outcome:
    """Run a call in a worker of its own, which dies if the call outlives its limit unheard.

    The watchdog is a thread of C that needs no interpreter: it works when nothing else does. A
    worker whose node is taken away is told so by SIGTERM, of which Ray makes an exception in the
    midst of the call: that would pass for one of the model's, so the worker dies of it instead.
    """
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if call.limit_s is not None:
        faulthandler.dump_traceback_later(call.limit_s + GRACE_SECONDS, exit=True)
    try:
        return attempt(call)
    finally:
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGTERM, before)


class PersistentWorker:
    """An actor that carries one call after the other."""

    def attempt(self, call: Call) -> Outcome:
        """Run one call."""
        return attempt_in_worker(call)


# Made once: Ray sends a function to its workers once for each object that stands for it, and what
# makes a process fresh cannot be asked for later, with `options`.
_POOLED = ray.remote(attempt_in_worker)
_SINGLE_USE = ray.remote(max_calls=1)(attempt_in_worker)
_PERSISTENT = ray.remote(PersistentWorker)


@dataclass(slots=True)
class _Actor:
    """A lasting worker: whether it has a call, and since when it has none."""

    handle: Any
    needs: Resources
    reference: Any = None
    idle_since: float = 0.0


class Workers:
    """Submits calls to Ray, each to the kind of worker that it asks for."""

    def __init__(self) -> None:
        self._actors: list[_Actor] = []

    def room_for(self, call: Call) -> bool:
        """Whether a call can be submitted now, rather than wait here for a lasting worker."""
        if call.worker != "persistent":
            return True
        mine = [actor for actor in self._actors if actor.needs == call.resources]
        return any(actor.reference is None for actor in mine) or len(mine) < _places(call.resources)

    def submit(self, call: Call) -> Any:
        """Submit one attempt, and return Ray's reference to its outcome."""
        if call.worker == "persistent":
            actor = self._idle(call.resources)
            actor.reference = actor.handle.attempt.options(name=call.key).remote(call.for_worker)
            return actor.reference
        task = _SINGLE_USE if call.worker == "single_use" else _POOLED
        options = ray_options(call.resources)
        return task.options(name=call.key, max_retries=0, **options).remote(call.for_worker)

    def ended(self, reference: Any, *, lost: bool) -> None:
        """Learn that a call is over, and whether its worker died of it."""
        for actor in [one for one in self._actors if one.reference == reference]:
            actor.reference, actor.idle_since = None, time.monotonic()
            if lost:
                self._end(actor)

    def kill(self, reference: Any) -> None:
        """Kill the worker that carries a call."""
        for actor in self._actors:
            if actor.reference == reference:
                ray.kill(actor.handle)
                return
        ray.cancel(reference, force=True)

    def release(self, seconds: float = IDLE_SECONDS) -> None:
        """End the lasting workers that have had no call for so long."""
        now = time.monotonic()
        for actor in [one for one in self._actors if one.reference is None]:
            if now - actor.idle_since >= seconds:
                self._end(actor)

    def _idle(self, needs: Resources) -> _Actor:
        for actor in self._actors:
            if actor.needs == needs and actor.reference is None:
                return actor
        handle = _PERSISTENT.options(max_restarts=0, **ray_options(needs)).remote()
        self._actors.append(_Actor(handle, needs))
        return self._actors[-1]

    def _end(self, actor: _Actor) -> None:
        self._actors.remove(actor)
        ray.kill(actor.handle)


def nodes() -> list[dict[str, Any]]:
    """Return what Ray says of each node that lives."""
    found: list[dict[str, Any]] = ray.nodes()  # type: ignore[no-untyped-call]
    return [node for node in found if node["Alive"]]


def ray_resources(need: Resources) -> dict[str, float]:
    """Return what a call needs by Ray's names, without what it needs none of."""
    asked = {"CPU": need.cpus, "GPU": need.gpus, "memory": need.memory_bytes or 0, **need.custom}
    return {name: number for name, number in asked.items() if number}


def ray_options(needs: Resources) -> dict[str, Any]:
    """Return what a call needs as the options of a task or actor."""
    options: dict[str, Any] = {"num_cpus": needs.cpus, "num_gpus": needs.gpus}
    if needs.memory_bytes is not None:
        options["memory"] = needs.memory_bytes
    if needs.custom:
        options["resources"] = dict(needs.custom)
    return options


def _places(needs: Resources) -> int:
    """Return how many calls with such needs the whole cluster has place for, at least one."""
    asked = ray_resources(needs)
    places = 0
    for node in nodes():
        has = node["Resources"]
        places += min(int(has.get(name, 0) / number + 1e-9) for name, number in asked.items())
    return max(1, places)
