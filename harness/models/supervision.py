"""What a trial offers to a model that trains in steps.

A model with ``trains = True`` gets it as its attribute ``supervision_`` before `fit`; fitted by
hand, it has none and must do without. It must not hold on to it: what is fitted is pickled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.models.base import Model


class Supervision(Protocol):
    """Validation scores, a checkpoint that outlives the process, and the learning curve."""

    def higher_is_better(self, metric: str) -> bool:
        """Whether more of a metric, as ``suite:name``, is better; an error for an unknown one."""

    def validate(self, model: Model, step: int, metric: str) -> float | None:
        """Score what the model now predicts for the validation pairs; None without any.

        What a step is, settings of one search must agree on: networks count epochs, for settings
        with other batches have other numbers of them.
        """

    def load(self) -> bytes | None:
        """Return what an interrupted attempt at the same trial saved last."""

    def save(self, state: bytes) -> None:
        """Keep a checkpoint in place of the one before, whole or not at all."""

    def record(self, curve: Sequence[Mapping[str, Any]]) -> None:
        """Store the learning curve so far, one row an epoch."""
