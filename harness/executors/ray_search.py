"""The settings of a search as trials of Ray Tune: placed, run some at a time, and stopped early.

Tune gets neither the space nor the ledger. What to try next is asked of whoever calls, as a `Call`
like any other, and what comes of it is told there; so a search that was killed goes on from the
run folder, not from Tune's own checkpoints. What Tune is for: actors that are used again from one
setting to the next, lost ones replaced, and ASHA, which ends a setting in the middle of its fit.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

# Ray Tune reads these when it runs. Results have no metric in common with intermediate ones, and
# Ctrl-C is the driver's to answer.
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # the new one speaks whatever `verbose` says

from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search import Searcher

from harness.executors.base import Call, Outcome, attempt

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from harness.resources import Resources

EVER = 10**9
"""More steps than any fit has."""


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
    source: Source, n: int, resources: Resources, *, retries: int, halving: Halving | None = None
) -> None:
    """Try settings on the Ray that is up, until the source has no more.

    Parameters
    ----------
    source
        Gives calls, and takes outcomes.
    n
        At most how many.
    resources
        What one needs.
    retries
        How often a setting whose worker was lost is tried again.
    halving
        When to stop one early; never by default.
    """
    needs = {"cpu": resources.cpus, "gpu": resources.gpus}
    if resources.memory_bytes is not None:
        needs["memory"] = resources.memory_bytes
    with tempfile.TemporaryDirectory(prefix="harness-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Tune warns of what its next version will do
        tuner = tune.Tuner(
            tune.with_resources(_try, needs),
            tune_config=tune.TuneConfig(
                search_alg=_Relay(source, reports=halving is not None),
                scheduler=None if halving is None else _scheduler(halving),
                num_samples=n,
                reuse_actors=True,
                trial_dirname_creator=str,
            ),
            run_config=tune.RunConfig(
                name="search",
                storage_path=scratch,
                verbose=0,
                failure_config=tune.FailureConfig(max_failures=retries),
            ),
        )
        tuner.fit()


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
    outcome = attempt(replace(call, args=(*call.args, listener)))
    if stopped:
        sys.exit()  # nobody takes a result any more: handing one in would wait for ever
    return {"outcome": outcome}


class _Relay(Searcher):
    """A source of settings, as Tune knows one."""

    def __init__(self, source: Source, *, reports: bool) -> None:
        super().__init__()
        self.source, self.reports = source, reports
        self.numbers: dict[str, int] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune keeps a copy of its searcher for a restart that never comes: the source has locks.
        return {"reports": self.reports, "numbers": self.numbers}

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self

    def suggest(self, trial_id: str) -> Any:
        if self.source.over:
            return Searcher.FINISHED
        found = self.source.next()
        if found is None:
            return None
        self.numbers[trial_id], call = found
        return {"call": call, "reports": self.reports}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        if "reported" in result:
            self.source.reported(self.numbers[trial_id], result["step"], result["reported"])

    def on_trial_complete(
        self,
        trial_id: str,
        result: dict[str, Any] | None = None,
        error: bool = False,  # noqa: FBT001, FBT002 - Tune's signature
    ) -> None:
        number, said = self.numbers[trial_id], result or {}
        if "outcome" not in said:  # the report that it was stopped for comes here alone
            self.on_trial_result(trial_id, said)
        if error:
            lost = Outcome(str(number), cause="lost", error="its worker was lost again and again")
            self.source.ended(number, lost)
        else:
            self.source.ended(number, said.get("outcome"))

    def save(self, checkpoint_path: str) -> None:
        """Save nothing: what is known is in the run folder."""

    def restore(self, checkpoint_path: str) -> None:
        """Restore nothing."""


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
