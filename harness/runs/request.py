"""A trial packaged for a worker, and how its failure is recorded."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.executors import STAGES
from harness.runs.folder import RunFolder

if TYPE_CHECKING:
    from harness.jobs import TrialSpec


@dataclass(frozen=True, slots=True)
class TrialRequest:
    """A trial, and what a worker needs to carry it out.

    Attributes
    ----------
    spec
        What is computed.
    run, store
        The run folder and the screen, as paths that the worker can reach.
    suites
        What to score by.
    keep
        What stays in the trial's folder after scoring.
    threads, memory
        Threads of scoring, and about how much memory a block of genes may take.
    prediction
        The file of a prediction that was made elsewhere; `store` may then be a file, too.
    command
        The declaration of a model that is an external program.
    stages
        The stages of this call; those that are done already are left out.
    gpus
        How many GPUs the call holds.
    """

    spec: TrialSpec
    run: str
    store: str
    suites: tuple[str, ...] = ("vcc2025",)
    keep: tuple[str, ...] = ("scores", "profiles")
    threads: int = 1
    memory: str = "1GiB"
    prediction: str = ""
    command: str = ""
    stages: tuple[str, ...] = STAGES
    gpus: float = 0.0


def record_failure(
    request: TrialRequest,
    error: str,
    trace: str,
    *,
    cause: str = "raised",
    attempts: int | None = None,
) -> None:
    """Record how an attempt failed; also called for a worker that could not do so itself.

    Where it ran, in which stage, how long, and with how much memory comes from its last heartbeat.
    """
    run, trial = RunFolder(request.run), request.spec.id
    attempt = run.attempt(trial) or {}
    failure = {
        "trial": trial,
        "cause": cause,
        "error": error,
        "traceback": trace,
        "attempts": attempt.get("attempts", 1) if attempts is None else attempts,
        "stage": attempt.get("stage"),
        "wall_seconds": round(attempt["seen"] - attempt["began"], 3) if attempt else None,
        "peak_memory": attempt.get("peak_memory"),
        "host": attempt.get("host", platform.node()),
        "log": run.log(trial),
    }
    run.write_failure(trial, failure)
