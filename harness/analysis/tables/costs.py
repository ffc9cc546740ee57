"""What a setting costs: seconds of each stage, processor and GPU seconds, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from harness.analysis.tables.score_array import Block

STAGES = ("fit", "predict", "score")
SUMMED = ("seconds", "cpu_seconds", "gpu_seconds")
GIB = 2**30


def costs_of(block: Block) -> pd.DataFrame:
    """Return what a finished trial of each setting takes in the mean, a row per setting.

    Columns ``seconds`` and ``seconds_fit``, ``_predict``, ``_score`` (of the clock),
    ``cpu_seconds``, ``gpu_seconds`` (over all stages) and ``peak_memory`` (bytes, of the process
    that ran it); NaN where the trials' manifests do not say.
    """
    trials = block.trials[block.trials["state"] == "done"]
    columns = {name: _total(trials, name) for name in SUMMED}
    columns |= {f"seconds_{stage}": _numbers(trials, f"seconds.{stage}") for stage in STAGES}
    columns["peak_memory"] = _numbers(trials, "peak_memory")
    means = pd.DataFrame(columns).groupby(trials["setting"]).mean()
    return means.reindex(range(len(block.settings))).reset_index(drop=True)


def changes_of(costs: pd.DataFrame, base: int) -> pd.DataFrame:
    """Return how much more than the row at `base` each costs, as columns ``NAME_change``."""
    found = costs[[*SUMMED, "peak_memory"]]
    return (found - found.iloc[base]).add_suffix("_change")


def _total(trials: pd.DataFrame, name: str) -> pd.Series[float]:
    """Return the sum over stages; a manifest has one number, or one for each stage."""
    if name in trials:
        return _numbers(trials, name)
    stages = [_numbers(trials, f"{name}.{stage}") for stage in STAGES]
    return pd.concat(stages, axis=1).sum(axis=1, min_count=1)


def _numbers(trials: pd.DataFrame, name: str) -> pd.Series[float]:
    if name not in trials:
        return pd.Series(np.nan, index=trials.index)
    return pd.to_numeric(trials[name], errors="coerce").astype(np.float64)
