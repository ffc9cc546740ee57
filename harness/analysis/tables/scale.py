"""How the scores of one metric are read."""

from __future__ import annotations

from dataclasses import dataclass

WHOLE = "one value for all pairs of a context"
"""Why a metric has no interval and no test: see `per_context`."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What a table needs to know of a metric.

    Attributes
    ----------
    higher_is_better
        None for a mere count, which is shown and not ranked.
    best
        The best value, when the suite combines the metric from a baseline; else None.
    per_context
        Whether all pairs of a context share one value, which then has no interval and no test.
    anchored
        Whether the suite combines the metric between anchors of the truth.
    """

    name: str
    version: int
    higher_is_better: bool | None
    best: float | None = None
    per_context: bool = False
    anchored: bool = False
