"""Signs of life of a running trial, and how long each of its stages took."""

from __future__ import annotations

import logging
import os
import platform
import resource
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from harness.runs import RunFolder

PULSE_SECONDS = 10.0
"""How often a trial gives a sign of life."""

log = logging.getLogger("harness.trial")


class Pulse:
    """Signs of life of one attempt, in its trial's folder, while the block lasts.

    A thread gives them, so a model that computes for hours without a word is alive and a frozen
    process is not. Which stage it is in, where, and how much memory it has taken stand beside.
    `show` is called besides, to let others see the log.
    """

    def __init__(self, run: RunFolder, trial: str, show: Callable[[], None]) -> None:
        self.run, self.trial, self.show, self.stage = run, trial, show, "begin"
        self.began = time.time()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, daemon=True)

    def beat(self, stage: str | None = None) -> None:
        """Give a sign of life now."""
        self.stage = stage or self.stage
        attempt = {
            "stage": self.stage,
            "began": self.began,
            "host": platform.node(),
            "pid": os.getpid(),
            "peak_memory": peak_memory(),
        }
        self.run.write_attempt(self.trial, attempt)

    def _beat_on(self) -> None:
        while not self._stop.wait(PULSE_SECONDS):
            with suppress(OSError):  # a full disk or a lost connection is not this thread's to tell
                self.beat()
                self.show()

    def __enter__(self) -> Self:
        self.beat()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()


def peak_memory() -> int:
    """Return the most memory that this process has held so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@dataclass(slots=True)
class Stopwatch:
    """Seconds that each stage took; the pulse tells others which one it is."""

    pulse: Pulse
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block, and say in the log that it begins."""
        log.info("%s: begins", name)
        self.pulse.beat(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)
        log.info("%s: %.1f s", name, self.seconds[name])
