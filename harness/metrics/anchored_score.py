"""From values of pairs to a context's aggregate, and from aggregates to the 2026 score.

A score says where an aggregate u lies between a baseline b (0) and a reference r (1):
(u - b)/(r - b). Only two members are held within bounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from harness.metrics.base import Ratio, metric_named

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray


def aggregates(values: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Return each metric's aggregate over the pairs of one context.

    The mean of what is defined, NaN if nothing is; of a metric declared as a ratio, the quotient of
    the sums of its parts over the pairs that have both. A ratio whose parts are not among `values`
    falls back on the mean of its own values.
    """
    return {name: _aggregate(name, values) for name in values}


def _aggregate(name: str, values: Mapping[str, np.ndarray]) -> float:
    reduce = metric_named(name).reduce
    if isinstance(reduce, Ratio) and {*reduce} <= set(values):
        top, bottom = values[reduce.numerator], values[reduce.denominator]
        both = np.isfinite(top) & np.isfinite(bottom)
        total = float(bottom[both].sum())
        return float(top[both].sum()) / total if total > 0 else math.nan
    defined = values[name][~np.isnan(values[name])]
    return float(defined.mean()) if len(defined) else math.nan


@dataclass(frozen=True, slots=True)
class Scale:
    """How one member of a combined score is scaled.

    Parameters
    ----------
    best
        The value that stands in for the reference where there is none.
    low, high
        Bounds of the scaled value; infinite for none.
    worst
        The value that an undefined aggregate counts as; None: the lower bound is taken.
    """

    best: float
    low: float = -math.inf
    high: float = math.inf
    worst: float | None = None


SCALES = {
    "pds_cosine": Scale(best=1.0, worst=0.0),
    "expr_mse_unbiased_capped_norm": Scale(best=0.0, low=0.0, high=1.0),
    "de_wilcoxon_direction_fidelity_yield_raw": Scale(best=1.0, worst=0.0),
    "de_wilcoxon_direction_reach_raw": Scale(best=1.0, worst=0.0),
    "de_wilcoxon_sig_jaccard": Scale(best=1.0, worst=0.0),
    "de_wilcoxon_lfc_nmae": Scale(best=0.0, low=-6.0),
}
"""The members of the 2026 score."""


def scaled(name: str, user: float, baseline: float, reference: float | None = None) -> float:
    """Return where `user` lies between baseline (0) and reference (1), within the member's bounds.

    As `scaled_members`, of one; without a reference, the member's best value stands in for it.
    """
    end = SCALES[name].best if reference is None else reference
    return float(scaled_members((name,), [user], [baseline], [end])[0])


def scaled_members(
    names: Sequence[str], users: ArrayLike, baselines: ArrayLike, references: ArrayLike
) -> NDArray[np.float64]:
    """Return where aggregates lie between baselines (0) and references (1), within the bounds.

    Parameters
    ----------
    names
        Members of the 2026 score, n of them.
    users
        (..., n) their aggregates; NaN counts as the worst there is.
    baselines, references
        (..., n) the two ends. `fault` must find none.
    """
    scales = [SCALES[name] for name in names]
    low, high = (np.array(ends) for ends in zip(*((s.low, s.high) for s in scales), strict=True))
    worst = np.array([math.nan if s.worst is None else s.worst for s in scales])
    user, base, end = (np.asarray(part, np.float64) for part in (users, baselines, references))
    value = np.where(np.isfinite(user), user, worst)
    clipped = np.clip((value - base) / (end - base), low, high)
    found: NDArray[np.float64] = np.where(np.isnan(value), low, clipped)
    return found


def fault(name: str, baseline: float, reference: float | None = None) -> str:
    """Say why nothing can be scaled between these two ends; empty if it can."""
    end = SCALES[name].best if reference is None else reference
    if not (math.isfinite(baseline) and math.isfinite(end)):
        return f"one end is undefined: baseline {baseline:g}, reference {end:g}"
    worst = SCALES[name].worst
    higher = worst is not None
    if not (end > baseline if higher else end < baseline):
        return f"the reference {end:g} is no better than the baseline {baseline:g}"
    if worst is not None and end <= worst:
        return f"the reference {end:g} is no better than the worst value {worst:g}"
    return ""
