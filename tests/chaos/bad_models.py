"""Models that end badly, each in its own way; `storm` installs this file as another package would.

Ray's workers find them by their entry points, as they would find a stranger's model.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import time
from typing import TYPE_CHECKING, Self

import numpy as np

from harness.tasks.task import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from harness.tasks.task import Query, TrainView

MONITORED = "STORM_MEMORY_IS_WATCHED"
"""Set where Ray kills whatever takes too much memory; elsewhere the process limits itself."""

PIECE = 32 << 20
LEAST, MOST = 256 << 20, 2 << 30


class Mean:
    """Answers with the control mean, unless it ends before."""

    def fit(self, train: TrainView) -> Self:
        self.train_ = train
        self.work()
        return self

    def predict(self, queries: Sequence[Query]) -> Iterator[Prediction]:
        for query in queries:
            yield Prediction(query, profile=self.train_.control_pseudobulk(query.context))

    def work(self) -> None:
        """Do what this model is here for."""


class Raises(Mean):
    """Raises."""

    def work(self) -> None:
        raise ArithmeticError("this setting cannot be fitted")


class Dies(Mean):
    """Takes its worker with it, each time."""

    def work(self) -> None:
        os._exit(7)


class Naps(Mean):
    """Lives, and gives signs of life, but never ends."""

    def work(self) -> None:
        time.sleep(3600)


class Hangs(Mean):
    """Holds the interpreter in a call to C: no thread of its process runs again."""

    def work(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        ctypes.PyDLL(None).sleep(3600)


class Hogs(Mean):
    """Takes memory until it gets no more, or is killed; never above 2 GiB."""

    def work(self) -> None:
        watched = MONITORED in os.environ
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        if not watched:
            resource.setrlimit(resource.RLIMIT_AS, (address_space() + LEAST, hard))
        try:
            held = [
                np.ones(PIECE, np.uint8) for _ in range((MOST if watched else 2 * LEAST) // PIECE)
            ]
            time.sleep(20 * watched)
            raise AssertionError(f"{len(held) * PIECE >> 20} MiB were given, and nobody minded")
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def address_space() -> int:
    """Return how many bytes of addresses this process has."""
    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - as the manual page has it
        return int(file.read().split()[0]) * resource.getpagesize()
