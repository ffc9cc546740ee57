"""What a worker is given of a trial, and how it, or whoever waits for it, says that it failed."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.executors import STAGES
from harness.runs.folder import RunFolder

if TYPE_CHECKING:
    from harness.jobs import TrialSpec


@dataclass(frozen=True, slots=True)
class Errand:
    """A trial, and what a worker needs besides to carry it out.

    Attributes
    ----------
    spec
        What is computed.
    run
        The run folder, as a path that the worker can reach.
    store
        The screen, likewise.
    suites
        What to score by.
    keep
        What stays in the trial's folder after scoring.
    threads, gpus
        How many threads scoring may use; how many GPUs are held the while.
    given
        The file of a prediction that was made elsewhere; `store` may then be a file, too.
    command
        The declaration of a model that is a program.
    stages
        Which stages this call carries out, those that are done already aside.
    """

    spec: TrialSpec
    run: str
    store: str
    suites: tuple[str, ...] = ("vcc2025",)
    keep: tuple[str, ...] = ("scores", "profiles")
    threads: int = 1
    memory: str = "1GiB"
    given: str = ""
    command: str = ""
    stages: tuple[str, ...] = STAGES
    gpus: float = 0.0


def record_failure(
    errand: Errand, error: str, trace: str, *, cause: str = "raised", attempts: int | None = None
) -> None:
    """Write down how an attempt failed; also for a worker that could not do so itself.

    Where it ran, in which stage it was, for how long, and how much memory it took are what it said
    last.
    """
    run, trial = RunFolder(errand.run), errand.spec.id
    said = run.attempt(trial) or {}
    failure = {
        "trial": trial,
        "cause": cause,
        "error": error,
        "traceback": trace,
        "attempts": said.get("attempts", 1) if attempts is None else attempts,
        "stage": said.get("stage"),
        "wall_seconds": round(said["seen"] - said["began"], 3) if said else None,
        "peak_memory": said.get("peak_memory"),
        "host": said.get("host", platform.node()),
        "log": run.log(trial),
    }
    run.write_failure(trial, failure)
