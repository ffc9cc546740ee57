"""How the scores of one metric are read, and their estimates with intervals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from harness.analysis.statistics import percentile_interval

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]


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


class Interval(NamedTuple):
    """Estimates with the ends of their intervals, arrays of one shape; NaN where undefined."""

    mean: Floats
    low: Floats
    high: Floats

    @classmethod
    def undefined(cls, *shape: int) -> Interval:
        """Return NaN throughout."""
        return cls(*(np.full(shape, np.nan) for _ in range(3)))

    def put(self, place: slice, mean: Floats, draws: Floats, level: float) -> None:
        """Fill in means and, from their resamples (n_draws, ...), intervals."""
        self.mean[place] = mean
        self.low[place], self.high[place] = percentile_interval(draws, level)

    def hide(self, where: NDArray[np.bool_]) -> None:
        """Make intervals undefined."""
        self.low[where] = self.high[where] = np.nan
