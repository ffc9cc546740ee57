"""What a metric is, and the registry of them.

A metric gives one value for each pair, never their mean: reductions belong to tables, which need
the values to resample them. Where it has no value it gives NaN and says why. Its description is its
function's docstring, so the two cannot drift apart.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

Need = Literal["profiles", "de", "energy", "populations", "centre", "counts"]
"""What a metric reads of both sides: pseudobulks, rank tests, distances between cells of one side
or of both, a reference mean from outside the truth; or raw counts, and then its comparison is a
`count_comparison.CountComparison`."""

Function = TypeVar("Function", bound="Callable[[Any], Values]")

NO_TRUE_GENES = "no significant gene in truth"
"""Why a metric over the truth's significant genes has no value; the oracle's cell is empty."""

CONSTANT_PREDICTION = "constant prediction"
"""Why a correlation has no value: the predicted values do not vary."""

CONSTANT_TRUTH = "constant truth"
"""Why a correlation has no value: the true values do not vary."""


class Values(NamedTuple):
    """One value for each pair, NaN where there is none, and then the reason (else empty)."""

    values: np.ndarray
    reasons: tuple[str, ...]

    @classmethod
    def of(cls, values: np.ndarray, *causes: tuple[np.ndarray | bool, str]) -> Values:
        """Set values to NaN where a cause applies; the first cause that does is the reason."""
        values = np.array(values, dtype=np.float64)
        reasons = [""] * len(values)
        for applies, reason in causes:
            for at in np.flatnonzero(np.broadcast_to(applies, values.shape)):
                values[at] = np.nan
                reasons[at] = reasons[at] or reason
        return cls(values, tuple(reasons))

    @classmethod
    def for_all(cls, value: float, n_pairs: int, reason: str = "") -> Values:
        """Give every pair of a context the same value."""
        return cls(np.full(n_pairs, value), (reason,) * n_pairs)


class Ratio(NamedTuple):
    """An aggregate that is no mean: the sum of one metric over pairs by the sum of another."""

    numerator: str
    denominator: str


Reduction = Literal["mean"] | Ratio
"""How a context's pairs become one number."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One definition of a score.

    Parameters
    ----------
    name
        As the field's reference scorers call it.
    version
        Raised whenever any score could change; tables never mix versions.
    needs
        What it reads of both sides.
    higher_is_better
        None for a mere count.
    best
        The value of a perfect prediction, from which the combined score is scaled; None if none.
    function
        From a comparison to one value per pair.
    reduce
        How the pairs of a context are aggregated. Where not by their mean, values still have the
        aggregate as their mean within one context and one prediction, but not when resampled.
    per_context
        Whether all pairs of a context that are scored together have one value. It is no sample
        then: resampled pairs do not say how far it would move, and tests over pairs say nothing.
    """

    name: str
    version: int
    needs: frozenset[Need]
    higher_is_better: bool | None
    best: float | None
    function: Callable[[Any], Values]
    reduce: Reduction = "mean"
    per_context: bool = False

    @property
    def key(self) -> str:
        """`name@version`, under which scores are stored."""
        return f"{self.name}@{self.version}"

    @property
    def description(self) -> str:
        """What the metric means: formula, source, and edge cases."""
        return inspect.getdoc(self.function) or ""

    @property
    def summary(self) -> str:
        """The description's first sentence."""
        return self.description.split("\n\n")[0].replace("\n", " ")

    def __call__(self, comparison: Any) -> Values:
        """Score every pair of the comparison; an exception says in which metric it was raised.

        It ends the scoring: a column that is left out would not be missed.
        """
        try:
            found = self.function(comparison)
        except Exception as error:
            error.add_note(f"In metric {self.key}.")
            raise
        assert len(found.values) == len(found.reasons) == comparison.n_pairs
        return found


DEFINITIONS = ("calibrated", "clustering", "differential", "expression", "vcc2026")
"""The modules of this package that define metrics."""

_METRICS: dict[str, Metric] = {}


def register(metric: Metric) -> Metric:
    """Make a metric known by its name."""
    if metric.name in _METRICS:
        raise ValueError(f"Metric {metric.name!r} is registered already.")
    _METRICS[metric.name] = metric
    return metric


@cache
def _define() -> None:
    """Import every module that defines metrics."""
    for name in DEFINITIONS:
        import_module(f"harness.metrics.{name}")


def registered() -> dict[str, Metric]:
    """Return all metrics by name, in the order in which they are defined."""
    _define()
    return dict(_METRICS)


def metric_named(name: str) -> Metric:
    """Return the metric of this name; KeyError if there is none."""
    return registered()[name]


def metric(  # noqa: PLR0913 - what is to be said of a metric, all by keyword
    name: str,
    *,
    needs: Need | tuple[Need, ...],
    higher_is_better: bool | None,
    best: float | None,
    version: int = 1,
    reduce: Reduction = "mean",
    per_context: bool = False,
) -> Callable[[Function], Function]:
    """Register the decorated function as a metric."""

    def decorate(function: Function) -> Function:
        needed: frozenset[Need] = frozenset([needs] if isinstance(needs, str) else needs)
        register(
            Metric(name, version, needed, higher_is_better, best, function, reduce, per_context)
        )
        return function

    return decorate
