"""An ablation's table: what each factor changes of the base, with intervals, tests and cost.

A change is a mean over pairs of differences, level less base, each first averaged over seeds and
folds. Base and level are resampled together, pair by pair: what makes a perturbation easy for both
cancels, so the interval is much narrower than those of the two means. The permutation test asks
whether the change is 0; its p-values are adjusted over all changes of a dataset and split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.analysis.statistics import (
    DEFAULT,
    Bootstrap,
    holm,
    paired_tests,
    percentile_interval,
    resample,
)
from harness.analysis.tables.combined_score import combination
from harness.analysis.tables.cost import GIB, changes_of, costs_of
from harness.analysis.tables.formatting import (
    ARROWS,
    Column,
    amount_cells,
    change_cells,
    estimate_cells,
    texts,
)
from harness.analysis.tables.resampling import Opponent, drawn_means
from harness.analysis.tables.score_array import BLOCK, block_title, shown
from harness.analysis.tables.selection import Scope, by_block
from harness.analysis.tables.text import Section
from harness.analysis.trials import read_run
from harness.config import DATA_FACTORS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from harness.analysis.results import Results
    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.table import Table
    from harness.analysis.tables.text import Cell

    Floats = NDArray[np.float64]

COMBINED = "combined"
_COSTS = {
    "seconds": ("seconds", 1),
    "cpu_seconds": ("cpu s", 1),
    "gpu_seconds": ("gpu s", 1),
    "peak_memory": ("memory GiB", GIB),
}


def ablation(
    results: Results, *, suite: str, baseline: str | None = None, bootstrap: Bootstrap = DEFAULT
) -> Table | None:
    """Return what the factors of an ablation change; None where the runs hold none.

    One row per dataset, split and level of a factor; the base first. Columns of its frame:
    ``suite``, ``dataset``, ``split``, ``controls``, ``model``, ``change`` (in words), ``factor``,
    ``level``, ``base`` (the base's level), ``n_trials``, ``n_pairs`` (those of level and base),
    ``seconds`` and what else a trial cost, with ``_change`` how much more than the base; for the
    combined score and each metric the level's mean, and with ``_change``, ``_change_low`` and
    ``_change_high`` the change and the ends of its interval; for each metric ``_p`` of the
    permutation test and ``_p_holm``.

    Parameters
    ----------
    suite
        Which scores.
    baseline
        The model that the combined score is scaled from. Default: what the runs' jobs say.
    bootstrap
        How intervals are made.
    """
    declared = [said for run in results.runs if (said := read_run(run).get("ablation"))]
    if not declared:
        return None
    scope = Scope.of(results, suite, baseline, bootstrap)
    varies: dict[str, dict[str, Any]] = {}
    base: dict[str, Any] = {}
    for said in declared:
        varies |= said["varies"]
        base |= said["base"]
    frames, notes = [], []
    for block in scope.blocks:
        changes = _Changes(block, scope, varies)
        if changes.base < 0:
            title = block_title(block.key)
            notes.append(f"{title}: the base has no scores, so there are no changes.")
            continue
        frames.append(changes.frame(suite, base))
    varied = {name for change in varies.values() for name in change}
    notes += _notes(base, varied, bootstrap)
    return scope.table("ablation", frames, notes, _sections)


def _notes(base: Mapping[str, Any], varied: Collection[str], bootstrap: Bootstrap) -> Iterator[str]:
    named = ", ".join(f"{name}={_level(name, value)}" for name, value in base.items())
    yield f"The base: {named}. Its row has means, the others their change from it."
    yield (
        "A change is the mean over pairs of level less base, seeds and folds averaged first. In "
        f"brackets the {100 * bootstrap.level:g} % percentile interval of {bootstrap.draws} "
        "bootstrap resamples of perturbations within each context, and of seeds where there are "
        "several, base and level together. p: a permutation test of the change over pairs, "
        "adjusted by Holm's procedure over all changes of its table. Bold: p below "
        f"{1 - bootstrap.level:.2g}; of the combined score, which is no mean over pairs, an "
        "interval that leaves out 0."
    )
    if "umi_depth" in varied:
        yield (
            "umi_depth: a model that saw shallow cells predicts shallow cells, which scores that "
            "compare profiles themselves (mae) count as an error; scores of effects do not."
        )
    yield (
        "Cost, per trial: what a level takes, and in percent how much more than the base. Seconds "
        "of fitting, predicting and scoring by the clock, whatever else ran on the machine; cpu "
        "and gpu: seconds of processors, and for which GPUs were held; memory: the most that a "
        "process held in any stage."
    )


class _Changes:
    """The changes within one block."""

    def __init__(self, block: Block, scope: Scope, varies: Mapping[str, Mapping[str, Any]]) -> None:
        self.block, self.scales, self.level = block, scope.scales, scope.bootstrap.level
        trials = block.trials[block.trials["trial"].isin(varies)]
        self.varied = {
            int(place): dict(varies[trial])
            for trial, place in zip(trials["trial"], trials["setting"], strict=True)
        }
        scored = block.scored.sum(axis=1)
        bases = [place for place, change in self.varied.items() if not change and scored[place]]
        self.base = bases[0] if bases else -1
        self.resamples = resample(list(block.pairs["context"]), scope.bootstrap)
        reference = scope.reference(block)
        self.combination = combination(block, scope.scales, reference, self.resamples)
        self.opponent = Opponent(block, self.base, self.resamples)

    def frame(self, suite: str, base: Mapping[str, Any]) -> pd.DataFrame:
        """Return the base's row, then one for each level, in the order of factors and levels."""
        order = sorted(self.varied, key=lambda place: _order(self.varied[place]))
        frame = pd.DataFrame([{"suite": suite, **self._row(place, base)} for place in order])
        costs = costs_of(self.block).iloc[order].reset_index(drop=True)
        frame = pd.concat([frame, costs, changes_of(costs, order.index(self.base))], axis=1)
        return pd.concat([frame, self._tests(order)], axis=1)

    def _row(self, place: int, base: Mapping[str, Any]) -> dict[str, Any]:
        change, model = self.varied[place], self.block.settings[place].model
        pairs = np.all(self.block.scored[[self.base, place]], axis=0)
        told = [f"{n}: {_level(n, base.get(n))} → {_level(n, v)}" for n, v in change.items()]
        return {
            **dict(zip(BLOCK, self.block.key, strict=True)),
            "model": model,
            "change": "; ".join(told) or f"base: {model}",
            "factor": ", ".join(change),
            "level": ", ".join(_level(name, value) for name, value in change.items()),
            "base": ", ".join(_level(name, base.get(name)) for name in change),
            "n_trials": int((self.block.trials["setting"] == place).sum()),
            "n_pairs": int(pairs.sum()),
            **self._combined(place, pairs),
            **self._metrics(place),
        }

    def _metrics(self, place: int) -> dict[str, float]:
        part = slice(place, place + 1)
        change = self.opponent.differences(part)
        own, _ = drawn_means(self.block, part, self.resamples)
        low, high = percentile_interval(change.draws[:, 0], self.level)
        columns: dict[str, float] = {}
        for at, scale in enumerate(self.scales):
            told = change.n_pairs[0, at] > 1 and not scale.per_context
            ends = (low[at], high[at]) if told else (np.nan, np.nan)
            columns |= _named(scale.name, own[0, at], change.mean[0, at], *ends)
        return columns

    def _tests(self, order: Sequence[int]) -> pd.DataFrame:
        """Return p-values and their adjustment over the table; NaN for the base."""
        values = self.block.values
        others = [place for place in order if self.varied[place]]
        n_metrics = len(self.scales)
        p = np.full((len(order), n_metrics), np.nan)
        if others:
            changes = values[others] - values[self.base]
            flat = changes.transpose(1, 0, 2).reshape(len(self.block.pairs), -1)
            found = paired_tests(flat).permutation.reshape(len(others), n_metrics)
            found[:, [scale.per_context for scale in self.scales]] = np.nan
            p[[place in others for place in order]] = found
        names = [scale.name for scale in self.scales]
        return pd.concat(
            [
                pd.DataFrame(p, columns=[f"{name}_p" for name in names]),
                pd.DataFrame(holm(p), columns=[f"{name}_p_holm" for name in names]),
            ],
            axis=1,
        )

    def _combined(self, place: int, pairs: NDArray[np.bool_]) -> dict[str, float]:
        """Return the change of the combined score over some pairs (n_pairs,)."""
        if self.combination is None:
            return _named(COMBINED, np.nan, np.nan, np.nan, np.nan)
        found = self.combination.shared((place, self.base), pairs)
        (own, drawn), (base, base_drawn) = ((mean[0], draws[:, 0]) for mean, draws in found)
        ends = percentile_interval(drawn - base_drawn, self.level)
        return _named(COMBINED, own, own - base, *ends)


def _named(name: str, own: Any, change: Any, low: Any, high: Any) -> dict[str, float]:
    values = {"": own, "_change": change, "_change_low": low, "_change_high": high}
    return {name + suffix: float(value) for suffix, value in values.items()}


def _order(change: Mapping[str, Any]) -> tuple[Any, ...]:
    """Return where a level stands: the base first, then by factor and number, names after."""
    numbers = {name: value for name, value in change.items() if isinstance(value, int | float)}
    return len(change), tuple(
        (name, name not in numbers, numbers.get(name, 0), str(value))
        for name, value in change.items()
    )


def _level(name: str, value: Any) -> str:
    if isinstance(value, list | tuple):
        return " and ".join(str(one) for one in value)
    return shown(f"data.{name}" if name in DATA_FACTORS else name, value)


# --- how it is shown ----------------------------------------------------------------------------


def _sections(table: Table) -> Iterator[Section]:
    for title, part in by_block(table.frame):
        factors = {"factor": texts(part["change"])}
        better = {COMBINED: True} | {s.name: s.higher_is_better for s in table.scales}
        scores = {
            name + ARROWS[up]: _cells(part, name, 1 - table.level)
            for name, up in better.items()
            if part[name].notna().any()
        }
        yield Section.of(f"{title}: changes from the base", factors | scores)
        # Cost stands beside one score: the combined, if any.
        columns = factors | dict([*scores.items()][:1])
        for name, (head, unit) in _COSTS.items():
            if (part[name] > 0).any():
                columns[head] = amount_cells(part[name] / unit, part[f"{name}_change"] / unit)
        yield Section.of(f"{title}: cost", columns)


def _cells(part: pd.DataFrame, name: str, level: float) -> list[Cell]:
    """Return a column's cells: the base's mean, then changes with their intervals and tests."""
    change = Column.of(part, f"{name}_change")
    adjusted = part[f"{name}_p_holm"].to_numpy() if f"{name}_p_holm" in part else None
    clear = None if adjusted is None else adjusted < level
    cells = change_cells(change, clear, adjusted)
    undefined = np.full(len(part), np.nan)
    own = part[name].to_numpy(dtype=np.float64)
    means = estimate_cells(Column(own, undefined, undefined), digits=change.digits)
    is_base = (part["factor"] == "").to_numpy()
    return [mean if base else cell for mean, cell, base in zip(means, cells, is_base, strict=True)]
