"""Results made by hand, for tests of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.results import Results
from harness.analysis.tables import Bootstrap

if TYPE_CHECKING:
    from harness.analysis.tables import Table


FEW = Bootstrap(draws=200)
MAE, OVERLAP, PDS = "mae", "overlap_at_N", "discrimination_score_l1"


def results_of(*trials: dict[str, Any], **common: Any) -> Results:
    """Return results of trials given as factors and ``scores``: metric to one value per pair."""
    rows, specs = [], []
    for number, given in enumerate(trials):
        trial = common | given
        scores, contexts = trial.pop("scores"), trial.pop("contexts", None)
        names = trial.pop("pairs", None)
        specs.append({"trial": f"t{number}", "dataset": "toy", "split": "halves", **trial})
        for metric, values in scores.items():
            for place, value in enumerate(values):
                pair = names[place] if names else f"P{place:03d}"
                context = contexts[place] if contexts else "A549"
                reason = "constant prediction" if np.isnan(value) else ""
                rows.append(("vcc2025", metric, 1, context, pair, value, reason, f"t{number}"))
    columns = ["suite", "metric", "version", "context", "perturbation", "value", "reason", "trial"]
    return Results.of(pd.DataFrame(rows, columns=columns), pd.DataFrame(specs, dtype=object))


def row_of(table: Table, model: str) -> pd.Series[Any]:
    return table.frame[table.frame["model"] == model].iloc[0]


def footer_of(table: Table) -> str:
    return "\n".join(table.notes)


HAND = (
    {"model": "mean", "scores": {OVERLAP: [0.1, 0.3], MAE: [0.2, 0.4], PDS: [0.5, 0.7]}},
    {"model": "linear", "scores": {OVERLAP: [0.4, 0.6], MAE: [0.1, 0.2], PDS: [0.4, 0.6]}},
)
