"""What the files of a run say of it: states counted, failures by cause, and what to do again.

Reads only what is in the run folder, so it works beside a running driver, from another machine and
after everything else is gone.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness.errors import DataError, UnknownNameError
from harness.runs.folder import RunFolder
from harness.storage import paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from harness.runs.folder import State

STATES: tuple[State, ...] = ("done", "running", "failed", "lost", "missing")


@dataclass(frozen=True, slots=True)
class Entry:
    """One trial of a run, and what its folder says.

    Attributes
    ----------
    said
        Its manifest, failure or last sign of life, whichever its state stands on.
    """

    trial: str
    model: str
    state: State
    said: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Ledger:
    """All trials of a run, in the order of its job.

    Attributes
    ----------
    settings
        Of a search: the number of settings tried, and its budget; None: all that there are.
    """

    run: RunFolder
    entries: tuple[Entry, ...]
    driver: dict[str, Any] | None
    settings: tuple[int, int | None] | None = None

    @property
    def counts(self) -> dict[State, int]:
        """How many trials are in each state."""
        counted = Counter(entry.state for entry in self.entries)
        return {state: counted[state] for state in STATES}

    @property
    def causes(self) -> dict[str, tuple[Entry, ...]]:
        """The failed trials by cause and error, the most frequent first."""
        grouped: dict[str, list[Entry]] = {}
        for entry in self.in_state("failed"):
            key = f"{entry.said.get('cause', 'raised')}: {entry.said.get('error', '')}"
            grouped.setdefault(key, []).append(entry)
        ordered = sorted(grouped.items(), key=lambda item: -len(item[1]))
        return {cause: tuple(entries) for cause, entries in ordered}

    def in_state(self, state: State) -> tuple[Entry, ...]:
        """Return the trials in a state."""
        return tuple(entry for entry in self.entries if entry.state == state)


def read_ledger(path: str) -> Ledger:
    """Return what has become of each trial of a run; `DataError` where the folder is no run."""
    run = RunFolder(path)
    described = run.described()
    planned: dict[str, dict[str, Any]] = described["trials"]
    standings = run.standings(tuple(planned))
    entries = tuple(
        Entry(trial, str(planned[trial]["model"]), state, said)
        for trial, (state, said) in standings.items()
    )
    settings = None
    job = described.get("job", {})
    if job.get("kind") == "search":
        files = [
            paths.join(run.path, "search", key, name)
            for key in paths.list_names(paths.join(run.path, "search"))
            for name in paths.list_names(paths.join(run.path, "search", key))
            if name.endswith(".json")
        ]
        # Another search may have used the folder before: its trials are not in the plan.
        tried = sum(
            set(json.loads(text)["trials"]) <= planned.keys()
            for text in paths.read_each(files)
            if text is not None
        )
        settings = tried, job["budget"]["trials"]
    return Ledger(run, entries, run.driver(), settings)


def forget(path: str, trials: Sequence[str] = (), *, failed: bool = False) -> tuple[str, ...]:
    """Make trials of a run ones to be done again, and return their ids.

    Parameters
    ----------
    path
        The run folder. Nobody may be driving it.
    trials
        Ids, or the beginnings of ids that only one trial has.
    failed
        All that failed or were lost, besides.
    """
    ledger = read_ledger(path)
    with ledger.run.lock():
        chosen = dict.fromkeys(find_trial(ledger, trial) for trial in trials)
        if failed:
            chosen |= dict.fromkeys(
                entry.trial for entry in ledger.entries if entry.state in ("failed", "lost")
            )
        for trial in chosen:
            ledger.run.forget(trial)
    return tuple(chosen)


def find_trial(ledger: Ledger, beginning: str) -> str:
    """Return the id that begins so; an error where none does, or several do."""
    known = tuple(entry.trial for entry in ledger.entries)
    found = [trial for trial in known if beginning and trial.startswith(beginning)]
    if len(found) > 1:
        raise DataError(
            f"{ledger.run.path}: {len(found)} trials begin with {beginning!r}. Give more of the id."
        )
    if not found:
        raise UnknownNameError(f"trial in {ledger.run.path}", beginning, known)
    return found[0]


def ago(seen: float) -> str:
    """Return how long ago a time was, in words."""
    seconds = max(0.0, time.time() - seen)
    for unit, size in (("h", 3600.0), ("min", 60.0)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"
