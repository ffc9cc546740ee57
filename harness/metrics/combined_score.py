"""Put metrics of different scales on one, from the baseline to the best value, and average them.

The only place that defines the scaled and the combined score: scoring one prediction, tables and
resampling all call it, so every function takes any leading dimensions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray


def scaled_scores(
    means: ArrayLike, baseline_means: ArrayLike, best: ArrayLike
) -> NDArray[np.float64]:
    """Return how far each metric has come from the baseline's value to the best one, 0 to 1.

    (u − b)/(1 − b) where 1 is best, 1 − u/b where 0 is best, with u the mean and b the baseline's:
    (u − b)/(best − b) for both. NaN and negative values become 0, as in the 2025 challenge; so
    does every value where the baseline leaves nothing to gain.

    Parameters
    ----------
    means, baseline_means
        (..., n_metrics) each metric's mean over perturbations.
    best
        (n_metrics,) the best value of each metric, 0 or 1.
    """
    u, b, goal = (np.asarray(part, dtype=np.float64) for part in (means, baseline_means, best))
    if not np.isin(goal, (0.0, 1.0)).all():
        raise ValueError(
            f"A scaled score needs metrics whose best value is 0 or 1, found {goal.tolist()}. "
            "Leave the others out of the combination."
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = (u - b) / (goal - b)
    return np.where(np.isfinite(scaled) & (scaled > 0), scaled, 0.0)


def combine_scores(
    means: ArrayLike, baseline_means: ArrayLike, best: ArrayLike
) -> NDArray[np.float64]:
    """Return the average of the scaled scores over the last axis; arguments as `scaled_scores`."""
    average: NDArray[np.float64] = scaled_scores(means, baseline_means, best).mean(axis=-1)
    return average
