"""Who is told what happens during a run, as it happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from harness.executors import Outcome
    from harness.runs.plan import Plan
    from harness.runs.request import TrialRequest


class Listener(Protocol):
    """Told what happens during a run, as it happens; the command line shows it."""

    def preparing(self, dataset: str, done: int, total: int) -> None:
        """Learn that a dataset is being made into a store: cells done, of how many."""

    def planned(self, plan: Plan) -> None:
        """Learn which trials there are; the missing ones begin."""

    def finished(self, request: TrialRequest, outcome: Outcome) -> None:
        """Learn how a trial ended."""


class Silence:
    """A listener that says nothing."""

    def preparing(self, dataset: str, done: int, total: int) -> None:
        """Say nothing."""

    def planned(self, plan: Plan) -> None:
        """Say nothing."""

    def finished(self, request: TrialRequest, outcome: Outcome) -> None:
        """Say nothing."""
