"""Cost against score: what each setting takes, what it gets, and what nobody beats at both."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from harness.analysis.tables.estimates import estimate
from harness.analysis.tables.formatting import (
    Column,
    amount,
    estimate_cells,
    model_cells,
    plain,
    significant,
)
from harness.analysis.tables.notes import what_an_interval_is
from harness.analysis.tables.selection import by_block, identity, mean_over_metrics
from harness.analysis.tables.text import Cell, Section

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope
    from harness.analysis.tables.table import Table


STAGES = ("fit", "predict", "score")
SUMMED = ("seconds", "cpu_seconds", "gpu_seconds")
GIB = 2**30
FRONT_SIGN = "★"


def costs_of(block: Block) -> pd.DataFrame:
    """Return the mean cost of a finished trial, one row per setting.

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
    """Return each row's cost minus that of the row at `base`, as columns ``NAME_change``."""
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


def cost(scope: Scope) -> Table:
    """Return what a trial of each setting costs beside what it scores, the cheapest first.

    One row per setting. Columns of its frame: ``dataset``, ``dataset_version``, ``split``,
    ``controls``, ``model``, ``setting``, ``role``, ``n_trials``; ``combined`` with ``_low`` and
    ``_high``, ``mean_rank``; those of `costs_of`; ``front``, whether no other setting is
    both at least as cheap in seconds and at least as good.
    """
    frames = [_frame(block, scope) for block in scope.blocks]
    return scope.table("cost", frames, _notes(scope), _sections)


def _notes(scope: Scope) -> Iterator[str]:
    yield (
        "Seconds and memory are means over the trials of a setting: fit, predict, score and all of "
        "them by the clock, whatever else ran on the machine; cpu and gpu: seconds of processors "
        "and GPUs that a trial held, where trials say; memory: the most that its process held in "
        "any stage."
    )
    yield what_an_interval_is(scope.bootstrap)
    yield (
        f"{FRONT_SIGN} no other setting is both as cheap and as good: by combined score where "
        "there is one, else by mean rank."
    )


def _frame(block: Block, scope: Scope) -> pd.DataFrame:
    reference = scope.reference(block)
    found = estimate(block, scope.scales, reference, scope.bootstrap)
    frame = identity(block, reference)
    done = block.trials[block.trials["state"] == "done"]
    frame["n_trials"] = np.bincount(done["setting"], minlength=len(frame))
    frame["combined"], frame["combined_low"], frame["combined_high"] = found.combined
    frame["mean_rank"] = mean_over_metrics(found.places)
    frame = pd.concat([frame, costs_of(block)], axis=1)
    score = frame["combined"] if frame["combined"].notna().any() else -frame["mean_rank"]
    score = score.where(frame["role"] != "ceiling")
    frame["front"] = _front(frame["seconds"].to_numpy(), score.to_numpy(dtype=np.float64))
    return frame.sort_values("seconds", kind="stable", ignore_index=True)


def _front(seconds: NDArray[np.float64], score: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which settings are on the Pareto front: the best of all that take no longer."""
    front = np.zeros(len(seconds), dtype=bool)
    best = -np.inf
    for place in np.lexsort((-score, seconds)).tolist():
        if score[place] > best and not np.isnan(seconds[place]):
            front[place], best = True, score[place]
    return front


def _sections(table: Table) -> Iterator[Section]:
    for title, part in by_block(table.frame):
        columns = {"model": model_cells(part)}
        if part["combined"].notna().any():
            signs = [[FRONT_SIGN] if front else [] for front in part["front"]]
            columns["combined ↑"] = estimate_cells(Column.of(part, "combined"), signs)
            columns["mean rank ↓"] = plain(part["mean_rank"])
        else:
            columns["mean rank ↓"] = [
                Cell(f"{cell.text} {FRONT_SIGN}" if front else cell.text)
                for cell, front in zip(plain(part["mean_rank"]), part["front"], strict=True)
            ]
        columns |= {f"{stage} s": significant(part[f"seconds_{stage}"]) for stage in STAGES}
        columns["all s"] = significant(part["seconds"])
        for name, label in (("cpu_seconds", "cpu s"), ("gpu_seconds", "gpu s")):
            if part[name].notna().any():
                columns[label] = significant(part[name])
        if part["peak_memory"].notna().any():
            columns["memory GiB"] = [Cell(amount(size / GIB)) for size in part["peak_memory"]]
        yield Section.of(title, columns)
