"""What commands print, and where: results to standard output, everything else to standard error."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

FAILED, MISUSED = 1, 2
"""Exit statuses: something failed; the command, a declaration or the data cannot be meant."""

PIPE_WIDTH = 110
"""Columns where there is no terminal to ask."""

PLAIN_SECONDS = 10.0
"""Where there is no terminal, a stage says how far it is this often."""


def out() -> Console:
    """Return the console for results; in files and pipes, lines are as long as a table needs."""
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    return Console(file=sys.stdout, soft_wrap=True, highlight=False, width=width)


def notes() -> Console:
    """Return the console for everything that is no result."""
    return Console(file=sys.stderr, soft_wrap=True, highlight=False)


def complain(problem: object) -> None:
    """Print an error, its text taken literally."""
    notes().print(f"error: {problem}", markup=False, style="red")


def split_names(text: str | None) -> tuple[str, ...]:
    """Split an option that names several things with commas; each counts once."""
    return () if text is None else tuple(dict.fromkeys(text.split(",")))


class Bars:
    """A live line per stage with counts and time left; plain lines where there is no terminal."""

    def __init__(self) -> None:
        self.console = notes()
        self.live = self.console.is_terminal
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            disable=not self.live,
        )

    def __enter__(self) -> Bars:
        self._progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._progress.stop()

    def update(self, stage: str, done: int, total: int, unit: str = "cells") -> None:
        """Show that a stage has done so many of so many."""
        if self.live:
            if stage not in self._tasks:
                self._tasks[stage] = self._progress.add_task(stage, total=total, unit=unit)
            self._progress.update(self._tasks[stage], completed=done, total=total)
            return
        now = time.monotonic()
        if done >= total or now - self._said.setdefault(stage, now) >= PLAIN_SECONDS:
            self._said[stage] = now
            self.say(f"{stage}: {done:,} of {total:,} {unit}")

    def say(self, text: str) -> None:
        """Print a line above the live ones."""
        self._progress.console.print(text, markup=False)


@contextmanager
def progress(stage: str, unit: str = "cells") -> Iterator[Callable[[int, int], None]]:
    """Give a function of (done, total) that shows how far one stage is."""
    with Bars() as bars:
        yield lambda done, total: bars.update(stage, done, total, unit)
