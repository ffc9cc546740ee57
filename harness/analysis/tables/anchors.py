"""The anchors of a block's truths, pair by pair: what the 2026 score is measured between.

Every fold has a truth of its own, and each context of it both ends of the scale. A table's mean is
over the pairs of all folds, so its ends are the means over the same pairs of what theirs are.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

from harness.metrics import registered_suites

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pandas as pd
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

NOT_KEPT = "no anchors of the truth are kept beside these scores, by an older release perhaps"
"""Why there is no scale where nothing else is said."""


def ends_of(
    suite: str,
    trials: pd.DataFrame,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    pairs: pd.DataFrame,
    metrics: Sequence[str],
) -> tuple[Floats | None, str]:
    """Return both ends of each pair's scale (n_pairs, n_metrics, 2), or None and why.

    Parameters
    ----------
    suite
        Why is empty for one that has no anchors.
    trials
        Of one block; their index is what rows call them by.
    rows
        The trial and the pair of every score.
    pairs
        Columns context and perturbation.
    metrics
        The order of the axis; NaN for those that are no members.
    """
    declared = registered_suites().get(suite)
    members = declared.anchored if declared else ()
    if not members or not {*members} <= {*metrics}:
        return None, ""
    of_fold = _of_folds(suite, trials)
    for number, found in of_fold.items():
        if isinstance(found, str):
            return None, f"fold {number}: {found}" if len(of_fold) > 1 else found
    fold = trials["fold"].reindex(range(int(rows[0].max(initial=-1)) + 1), fill_value=-1)
    places = [metrics.index(name) for name in members]
    total = np.full((len(pairs), len(metrics), 2), np.nan)
    total[:, places], n_folds = 0.0, np.zeros(len(pairs))
    for number, found in of_fold.items():
        here = np.unique(rows[1][fold.to_numpy()[rows[0]] == number])
        for context, ends in found.items():
            at = here[(pairs["context"].to_numpy()[here] == context)]
            total[np.ix_(at, places)] += [ends[name] for name in members]
            n_folds[at] += 1
    with np.errstate(invalid="ignore", divide="ignore"):
        return total / n_folds[:, None, None], ""


def _of_folds(suite: str, trials: pd.DataFrame) -> Mapping[Any, Any]:
    """Return the ends of each fold by context and metric, or why it has none."""
    judged = trials[trials["state"] == "done"]
    if "ceiling" in judged:
        judged = judged[judged["ceiling"] != True]  # noqa: E712 - None means no
    if "ends" not in judged:
        return dict.fromkeys(judged["fold"], NOT_KEPT)
    found: dict[Any, Any] = {}
    for fold, text in zip(judged["fold"], judged["ends"], strict=True):
        if isinstance(found.get(fold, ""), str):
            said = json.loads(text).get(suite) if isinstance(text, str) else None
            found[fold] = said or found.get(fold) or NOT_KEPT
    return found
