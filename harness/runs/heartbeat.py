"""Signs of life of a running trial, and what each of its stages took."""

from __future__ import annotations

import logging
import os
import platform
import resource
import sys
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from harness.models import idle_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from harness.runs.folder import RunFolder

HEARTBEAT_SECONDS = 10.0
"""How often a trial gives a sign of life."""

log = logging.getLogger("harness.trial")


class Heartbeat:
    """Signs of life of one attempt, in its trial's folder, while the block lasts.

    A thread gives them, so a model that computes for hours without a word is alive and a frozen
    process is not. A program of someone else's may be frozen beside it: for how long it has done
    nothing is said, too. Which stage it is in, where, which attempt at the call it is, and how much
    memory it has taken stand beside.

    Parameters
    ----------
    call
        Which stages are carried out. Attempts at the same ones are counted.
    show
        Called besides, to let others see the log.
    """

    def __init__(self, run: RunFolder, trial: str, call: str, show: Callable[[], None]) -> None:
        self.run, self.trial, self.call, self.show = run, trial, call, show
        self.stage, self.began, self.ended = "begin", time.time(), False
        before = run.attempt(trial) or {}
        self.attempts = int(before.get("attempts", 0)) + 1 if before.get("call") == call else 1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write_on, daemon=True)

    def write(self, stage: str | None = None) -> None:
        """Give a sign of life now."""
        self.stage = stage or self.stage
        attempt = {
            "call": self.call,
            "attempts": self.attempts,
            "stage": self.stage,
            "began": self.began,
            "host": platform.node(),
            "pid": os.getpid(),
            "peak_memory": peak_memory(),
            "idle": round(idle_seconds(), 1),
            "ended": self.ended,
        }
        self.run.write_attempt(self.trial, attempt)

    def _write_on(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a full disk or a lost connection is not this thread's to tell
                self.write()
                self.show()

    def __enter__(self) -> Self:
        self.write()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._stop.set()
        self._thread.join()
        if kind is not None and not issubclass(kind, Exception | SystemExit):
            # Interrupted: nothing else is written of it, and nobody is to wait for more of it.
            self.ended = True
            with suppress(OSError):
                self.write()


def peak_memory() -> int:
    """Return the most memory that this process has held since `reset_peak_memory`, in bytes."""
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
        line = next(line for line in lines if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    return _most(resource.RUSAGE_SELF)


def reset_peak_memory() -> None:
    """Begin to measure the peak of memory anew, where the system can.

    A worker carries one trial after the other: without this, each has the peak of the largest.
    """
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _most(who: int) -> int:
    return resource.getrusage(who).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _cpu_seconds() -> float:
    """Return the processor time of this process and of the programs that it ran and awaited."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


class Cost(TypedDict):
    """What one stage of a trial took.

    `gpu_seconds` are those for which GPUs were held, used or not; a share of a GPU counts as that.
    `peak_memory` is that of the process, or of the largest program that it ran.
    """

    seconds: float
    cpu_seconds: float
    gpu_seconds: float
    peak_memory: int
    host: str


class StageTimer:
    """What each stage took; the heartbeat tells others which one it is.

    Parameters
    ----------
    gpus
        How many GPUs are held the while.
    """

    def __init__(self, heartbeat: Heartbeat, gpus: float = 0.0) -> None:
        self.heartbeat, self.gpus = heartbeat, gpus
        self.costs: dict[str, Cost] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Measure the block, and say in the log that it begins."""
        log.info("%s: begins", name)
        self.heartbeat.write(name)
        reset_peak_memory()
        children = _most(resource.RUSAGE_CHILDREN)
        start, cpu = time.perf_counter(), _cpu_seconds()
        yield
        seconds = time.perf_counter() - start
        largest = _most(resource.RUSAGE_CHILDREN)
        self.costs[name] = Cost(
            seconds=round(seconds, 3),
            cpu_seconds=round(_cpu_seconds() - cpu, 3),
            gpu_seconds=round(self.gpus * seconds, 3),
            peak_memory=max(peak_memory(), largest if largest > children else 0),
            host=platform.node(),
        )
        log.info("%s: %.1f s", name, seconds)


def total_cost(costs: Mapping[str, Cost]) -> dict[str, Any]:
    """Return what all stages took together, as a manifest says it.

    ``seconds`` by stage; ``wall_seconds``, ``cpu_seconds`` and ``gpu_seconds`` are sums,
    ``peak_memory`` is the largest; ``stages`` has all of it by stage.
    """
    each = costs.values()
    return {
        "seconds": {stage: cost["seconds"] for stage, cost in costs.items()},
        "wall_seconds": round(sum(cost["seconds"] for cost in each), 3),
        "cpu_seconds": round(sum(cost["cpu_seconds"] for cost in each), 3),
        "gpu_seconds": round(sum(cost["gpu_seconds"] for cost in each), 3),
        "peak_memory": max((cost["peak_memory"] for cost in each), default=0),
        "stages": {stage: dict(cost) for stage, cost in costs.items()},
    }
