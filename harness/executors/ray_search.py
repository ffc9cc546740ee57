"""The settings of a search as trials of Ray Tune: placed, run some at a time, and stopped early.

Tune gets neither the space nor the ledger. What to try next is asked of whoever calls, as a `Call`
like any other, and what comes of it is told there; so a search that was killed goes on from the
run folder, not from Tune's own checkpoints, and one whose worker was lost is asked again by our
rules. What Tune is for: actors that are used again from one setting to the next, and ASHA, which
ends a setting in the middle of its fit.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
import threading
import time
import warnings
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, cast

# Ray Tune reads these when it runs. Results have no metric in common with intermediate ones, and
# Ctrl-C is the driver's to answer.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one speaks whatever `verbose` says

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.errors import ClusterError
from harness.executors.base import Call, Outcome, attempt, worth_another
from harness.executors.ray_capacity import LOOK_SECONDS, Places, with_more_memory
from harness.executors.ray_kills import kills_told
from harness.executors.ray_workers import GRACE_SECONDS, in_rays_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Self

    from harness.executors.base import Cause

EVER = 10**9
"""More steps than any fit has."""

PUT_OFF_SECONDS = 2.0
"""How often a worker that hears says so to its watchdog."""


class Source(Protocol):
    """Who knows what to try next, and wants to know what came of it; asked in the driver."""

    @property
    def over(self) -> bool:
        """Whether there is nothing more to try."""

    def next(self) -> tuple[int, Call] | None:
        """Return a number and a call; None where others have to end first.

        The call's function takes, last, whom to report to: ``(step, value) -> go on?``, or None.
        """

    def reported(self, number: int, step: int, value: float) -> None:
        """Learn how well a setting does in the middle of its fit."""

    def ended(self, number: int, outcome: Outcome | None) -> None:
        """Learn what came of a setting; None where it was stopped early."""


@dataclass(frozen=True, slots=True)
class Halving:
    """ASHA: of the settings that reached a step, the best of every `factor` go on.

    `known` are the reports of settings that ended before, as (number, step, value).
    """

    grace: int
    factor: int
    higher_is_better: bool
    known: Iterable[tuple[int, int, float]] = ()


def tune_settings(
    source: Source, *, retries: int, patience: float | None, halving: Halving | None = None
) -> None:
    """Try settings on the Ray that is up, until the source has no more.

    Parameters
    ----------
    source
        Gives calls, and takes outcomes.
    retries
        How often a setting whose worker was lost is tried again; not one that its limits ended. One
        that was killed for its memory is tried once more, with more of it.
    patience
        How long to wait for a node once none has what a setting needs; None for ever.
    halving
        When to stop one early; never by default.

    Raises
    ------
    ClusterError
        No node had for too long what a setting needs. Settings that had not ended are not told.
    """
    relay = _Relay(source, retries, reports=halving is not None)
    watch = _Watch(relay, Places(patience))
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Tune warns of what its next version will do
        tuner = tune.Tuner(
            tune.with_resources(_try, _needs),
            tune_config=tune.TuneConfig(
                search_alg=relay,
                scheduler=None if halving is None else _scheduler(halving),
                num_samples=-1,  # until the source has no more: one that was lost is asked again
                reuse_actors=True,
                trial_dirname_creator=str,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=0),
                stop=watch,
            ),
        )
        with kills_told(relay.killed.add):
            tuner.fit()
    if watch.reason:
        raise ClusterError(watch.reason)


def _needs(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    """Return what one setting asks of a node; of those that were killed for memory, more."""
    call: Call = config["call"]
    return tune.PlacementGroupFactory([in_rays_words(call.resources)])


def _try(config: dict[str, Any]) -> dict[str, Any]:
    """Carry out a call, in a worker; what it raises is an outcome, not Tune's to retry."""
    call: Call = config["call"]
    stopped: list[int] = []

    def report(step: int, value: float) -> bool:
        """Tell Tune how well a setting does, and return whether it may go on."""
        try:
            tune.report({"step": step, "reported": value})
        except SystemExit:  # how Tune ends the thread of a trial that it stopped
            stopped.append(step)
        return not stopped

    listener = report if config["reports"] else None
    with _watched(call):
        outcome = attempt(replace(call, args=(*call.args, listener)))
    if stopped:
        sys.exit()  # nobody takes a result any more: handing one in would wait for ever
    return {"outcome": outcome}


@contextmanager
def _watched(call: Call) -> Iterator[None]:
    """End this process where a call is deaf for too long: past its limit, or to any other thread.

    The watchdog is a thread of C that works when no Python can run any more; while some can, a
    thread of ours keeps putting it off.
    """
    if call.limit_s is None and call.stall_s is None:
        yield
        return
    until = None if call.limit_s is None else time.monotonic() + call.limit_s + GRACE_SECONDS
    done = threading.Event()

    def put_off() -> None:
        while not done.is_set():
            left = [] if until is None else [until - time.monotonic()]
            left += [] if call.stall_s is None else [call.stall_s + PUT_OFF_SECONDS]
            faulthandler.dump_traceback_later(max(0.1, min(left)), exit=True)
            done.wait(PUT_OFF_SECONDS)

    watcher = threading.Thread(target=put_off, daemon=True)
    watcher.start()
    try:
        yield
    finally:
        done.set()
        watcher.join()
        faulthandler.cancel_dump_traceback_later()


@dataclass(slots=True)
class _Asked:
    """A setting that was handed to Tune: how often, and when last."""

    number: int
    call: Call
    attempts: int = 0
    at: float = 0.0


class _Relay(Searcher):
    """A source of settings, as Tune knows one; asks again what was lost with its worker."""

    def __init__(self, source: Source, retries: int, *, reports: bool) -> None:
        super().__init__()
        self.source, self.retries, self.reports = source, retries, reports
        self.running: dict[str, _Asked] = {}
        self.again: deque[_Asked] = deque()
        self.killed: set[str] = set()

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps a copy of its searcher for a restart that never comes: the source has locks.
        return {"reports": self.reports}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def suggest(self, trial_id: str) -> Any:
        asked = self.again.popleft() if self.again else self._next()
        if asked is None:
            return None if self.running or not self.source.over else Searcher.FINISHED
        asked.attempts += 1
        asked.at = time.time()
        self.running[trial_id] = asked
        return {"call": asked.call.for_worker, "reports": self.reports}

    def _next(self) -> _Asked | None:
        found = None if self.source.over else self.source.next()
        return None if found is None else _Asked(*found)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "reported" in result:
            number = self.running[trial_id].number
            self.source.reported(number, result["step"], result["reported"])

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Tune's signature
    ) -> None:
        said = result or {}
        if "outcome" not in said:  # the report that it was stopped for comes here alone
            self.on_trial_result(trial_id, said)
        asked = self.running.pop(trial_id)
        outcome: Outcome | None = said.get("outcome")
        if error:
            outcome = _starved(asked) if trial_id in self.killed else _lost(asked)
        elif outcome is not None:
            outcome = replace(outcome, attempts=asked.attempts)
        if outcome is not None and worth_another(outcome, self.retries):
            self._ask_again(asked, outcome)
        else:
            self.source.ended(asked.number, outcome)

    def _ask_again(self, asked: _Asked, outcome: Outcome) -> None:
        if outcome.cause == "memory":
            needs = with_more_memory(asked.call.resources)
            asked.call = replace(asked.call, resources=needs)
        self.again.append(asked)

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: what is known is in the run folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


class _Watch(tune.Stopper):
    """Ends a search of which no node can try a setting any more; Tune would wait for ever.

    All of it, since settings need the same; what has not ended is asked again by the next run.
    """

    def __init__(self, relay: _Relay, places: Places) -> None:
        self.relay, self.places, self.reason = relay, places, ""

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Stop no setting by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether a setting has waited too long for a node; asked at every step of Tune."""
        asked, now = self.relay.running.values(), time.time()
        if self.places.due and any(now - one.at > LOOK_SECONDS for one in asked):
            self.places.look(one.call.resources for one in asked)
            self.reason = next(filter(None, map(self._given_up, asked)), "")
        return bool(self.reason)

    def _given_up(self, asked: _Asked) -> str:
        return self.places.given_up(asked.call.resources)


def _lost(asked: _Asked) -> Outcome:
    """Return what became of a setting whose worker died: of its limits, or by itself."""
    call, cause, error = asked.call, "lost", "its worker was lost again and again"
    if call.limit_s and call.age and call.age(asked.at) > call.limit_s:
        cause, error = "time", f"ran longer than its limit of {call.limit_s:g} s, and heard nothing"
    elif call.stall_s and call.silence and (silent := call.silence(asked.at)) > call.stall_s:
        cause, error = "stalled", f"no sign of life for {silent:.0f} s, limit {call.stall_s:g} s"
    return Outcome(call.key, cause=cast("Cause", cause), error=error, attempts=asked.attempts)


def _starved(asked: _Asked) -> Outcome:
    error = "killed for its memory: the node had too little left for all that ran on it"
    return Outcome(asked.call.key, cause="memory", error=error, attempts=asked.attempts)


def _scheduler(halving: Halving) -> TrialScheduler:
    scheduler = AsyncHyperBandScheduler(
        time_attr="step",
        metric="reported",
        mode="max" if halving.higher_is_better else "min",
        grace_period=halving.grace,
        reduction_factor=halving.factor,
        max_t=EVER,
        stop_last_trials=False,
    )
    sign = 1 if halving.higher_is_better else -1
    for number, step, value in halving.known:
        # What ended before the driver was killed still counts. Tune has no public way to say so.
        ended: Any = _Ended(f"known-{number}")
        scheduler._brackets[0].on_result(ended, step, sign * value)
    return scheduler


@dataclass(frozen=True, slots=True)
class _Ended:
    """As much of a Tune trial as its halving looks at."""

    trial_id: str
