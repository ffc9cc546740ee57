"""An ablation's table: what each factor changes of the base, with intervals and cost.

A change is a mean over pairs of differences, level less base, each first averaged over seeds and
folds. Base and level are resampled together, pair by pair: what makes a perturbation easy for both
cancels, so the interval is much narrower than those of the two means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.factors import DATA_FACTORS
from harness.metrics.combine import combined_score
from harness.results import read_run
from harness.statistics import Bootstrap, percentile_interval, resample
from harness.tables.compare import candidates, scales_of
from harness.tables.estimates import pair_means
from harness.tables.footer import block_title
from harness.tables.reduction import BLOCK, blocks, shown
from harness.tables.render import (
    ARROWS,
    UNDEFINED,
    Cell,
    Section,
    decimals,
    sections_as_markdown,
    sections_in_terminal,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from rich.console import Console, ConsoleOptions, RenderableType

    from harness.results import Results
    from harness.statistics import Resamples
    from harness.tables.estimates import Scale
    from harness.tables.reduction import Block

    Floats = NDArray[np.float64]

_DEFAULT = Bootstrap()
_STAGES = ("seconds.fit", "seconds.predict", "seconds.score")
COMBINED = "combined"


@dataclass(frozen=True, slots=True)
class Ablation:
    """One row per dataset, split and level of a factor; the base first.

    Attributes
    ----------
    frame
        Columns ``suite``, ``dataset``, ``split``, ``controls``, ``model``, ``change`` (in
        words), ``factor``, ``level``, ``base`` (the base's level), ``n_trials``, ``n_pairs``
        (those of level and base), ``seconds`` (mean per trial: fit, predict and score); for the
        combined score and each metric the level's mean, and with ``_change``, ``_change_low`` and
        ``_change_high`` the change and the ends of its interval.
    """

    suite: str
    scales: tuple[Scale, ...]
    frame: pd.DataFrame
    notes: tuple[str, ...]

    def to_markdown(self) -> str:
        """Return GitHub-flavoured Markdown, one table per dataset and split, with the footer."""
        return sections_as_markdown(self._sections(), self.notes)

    def to_csv(self) -> str:
        """Return all columns of `frame`, unrounded."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def to_rich(self, width: int = 110) -> RenderableType:
        """Return what a terminal of `width` columns can show."""
        return sections_in_terminal(self._sections(), self.notes, width)

    def __rich_console__(
        self, console: Console, options: ConsoleOptions
    ) -> Iterator[RenderableType]:
        """Render at the console's width, so that a table can be printed as it is."""
        yield self.to_rich(options.max_width)

    def _sections(self) -> Iterator[Section]:
        names = [name for name in BLOCK if name in self.frame]
        if not names:
            return
        for key, part in self.frame.groupby(names, sort=False):
            title = block_title([str(value) for value in key])
            columns = {"factor": [Cell(text) for text in part["change"]]}
            better = {COMBINED: True} | {s.name: s.higher_is_better for s in self.scales}
            for name, up in better.items():
                if part[name].notna().any():
                    columns[name + ARROWS[up]] = _cells(part, name)
            columns["seconds"] = [Cell(_seconds(value)) for value in part["seconds"]]
            rows = tuple(zip(*columns.values(), strict=True))
            yield Section(f"{title}: changes from the base", tuple(columns), rows)


def ablation(
    results: Results, *, suite: str, baseline: str | None = None, bootstrap: Bootstrap = _DEFAULT
) -> Ablation | None:
    """Return what the factors of an ablation change; None where the runs hold none.

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
    scales = scales_of(results, suite)
    baseline = baseline or results.score_options.get("baseline")
    varies: dict[str, dict[str, Any]] = {}
    base: dict[str, Any] = {}
    for said in declared:
        varies |= said["varies"]
        base |= said["base"]
    rows: list[dict[str, Any]] = []
    notes: list[str] = []
    for block in blocks(results, suite, [scale.name for scale in scales]):
        found = _Changes(block, scales, varies, baseline, bootstrap)
        if found.base < 0:
            notes.append(
                f"{block_title(block.key)}: the base has no scores, so there are no changes."
            )
            continue
        rows += [{"suite": suite, **row} for row in found.rows(base)]
    varied = {name for change in varies.values() for name in change}
    notes += _notes(suite, base, varied, bootstrap)
    return Ablation(suite, scales, pd.DataFrame(rows), tuple(notes))


def _notes(
    suite: str, base: Mapping[str, Any], varied: Collection[str], bootstrap: Bootstrap
) -> Iterator[str]:
    named = ", ".join(f"{name}={_level(name, value)}" for name, value in base.items())
    yield f"Suite {suite}. The base: {named}. Its row has means, the others their change from it."
    yield (
        "A change is the mean over pairs of level less base, seeds and folds averaged first. In "
        f"brackets the {100 * bootstrap.level:g} % percentile interval of {bootstrap.draws} "
        "bootstrap resamples of perturbations within each context, base and level together. Bold: "
        "it leaves out 0. It speaks of one factor; among many, some leave out 0 by chance."
    )
    if "umi_depth" in varied:
        yield (
            "umi_depth: a model that saw shallow cells predicts shallow cells, which scores that "
            "compare profiles themselves (mae) count as an error; scores of effects do not."
        )
    yield "seconds: of fitting, predicting and scoring, per trial."


class _Changes:
    """The changes within one block."""

    def __init__(
        self,
        block: Block,
        scales: Sequence[Scale],
        varies: Mapping[str, Mapping[str, Any]],
        baseline: str | None,
        bootstrap: Bootstrap,
    ) -> None:
        self.block, self.scales, self.level = block, scales, bootstrap.level
        trials = block.trials[block.trials["trial"].isin(varies)]
        self.varied = {
            int(place): dict(varies[trial])
            for trial, place in zip(trials["trial"], trials["setting"], strict=True)
        }
        scored = block.scored.sum(axis=1)
        bases = [place for place, change in self.varied.items() if not change and scored[place]]
        self.base = bases[0] if bases else -1
        named = candidates(block, baseline)
        self.reference = named[0] if len(named) == 1 else None
        self.resamples: Resamples = resample(list(block.pairs["context"]), bootstrap)

    def rows(self, base: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield the base's row, then one for each level, in the order of factors and levels."""
        seconds = self._seconds()
        for place in sorted(self.varied, key=lambda place: _order(self.varied[place])):
            change, model = self.varied[place], self.block.settings[place].model
            told = [f"{n}: {_level(n, base.get(n))} → {_level(n, v)}" for n, v in change.items()]
            yield {
                **dict(zip(BLOCK, self.block.key, strict=True)),
                "model": model,
                "change": "; ".join(told) or f"base: {model}",
                "factor": ", ".join(change),
                "level": ", ".join(_level(name, value) for name, value in change.items()),
                "base": ", ".join(_level(name, base.get(name)) for name in change),
                "n_trials": int((self.block.trials["setting"] == place).sum()),
                "n_pairs": int(self._shared(place).sum()),
                "seconds": seconds.get(place, np.nan),
                **self._combined(place),
                **self._metrics(place),
            }

    def _shared(self, *places: int) -> NDArray[np.bool_]:
        shared: NDArray[np.bool_] = np.all(self.block.scored[[self.base, *places]], axis=0)
        return shared

    def _metrics(self, place: int) -> dict[str, float]:
        values = self.block.values
        change = values[place] - values[self.base]
        mean, draws = pair_means(change[None], self.resamples)
        own, _ = pair_means(values[place][None], self.resamples)
        low, high = percentile_interval(draws[:, 0], self.level)
        few = (~np.isnan(change)).sum(axis=0) < 2
        columns: dict[str, float] = {}
        for at, scale in enumerate(self.scales):
            ends = (np.nan, np.nan) if few[at] else (low[at], high[at])
            columns |= _named(scale.name, own[0, at], mean[0, at], *ends)
        return columns

    def _combined(self, place: int) -> dict[str, float]:
        """Return the change of the combined score, scaled from the baseline on the same pairs."""
        best = np.array([np.nan if scale.best is None else scale.best for scale in self.scales])
        members = ~np.isnan(best)
        if self.reference is None or not members.any():
            return _named(COMBINED, np.nan, np.nan, np.nan, np.nan)
        shared = self._shared(place, self.reference)
        chosen = self.block.values[[place, self.base, self.reference]]
        chosen = np.where(shared[:, None], chosen, np.nan)[..., members]
        mean, draws = pair_means(chosen, self.resamples)
        score = combined_score(mean[:2], mean[2:], best[members])
        drawn = combined_score(draws[:, :2], draws[:, 2:], best[members])
        ends = percentile_interval(drawn[:, 0] - drawn[:, 1], self.level)
        return _named(COMBINED, score[0], score[0] - score[1], *(float(end) for end in ends))

    def _seconds(self) -> dict[int, float]:
        """Return the mean seconds of a finished trial, by the place of its setting."""
        trials = self.block.trials
        stages = [name for name in _STAGES if name in trials]
        if not stages:
            return {}
        total = trials[stages].astype(np.float64).sum(axis=1, min_count=1).to_numpy()
        setting = trials["setting"].to_numpy()
        return {place: _mean(total[setting == place]) for place in self.varied}


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else np.nan


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


def _seconds(value: float) -> str:
    return UNDEFINED if np.isnan(value) else f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _cells(part: pd.DataFrame, name: str) -> list[Cell]:
    """Return a column's cells: the base's mean, then changes with their intervals."""
    low, high = part[f"{name}_change_low"].to_numpy(), part[f"{name}_change_high"].to_numpy()
    changes, own = part[f"{name}_change"].to_numpy(), part[name].to_numpy()
    is_base = (part["factor"] == "").to_numpy()
    digits = decimals(changes, low, high)
    cells = []
    for at in range(len(part)):
        if is_base[at]:
            cells.append(Cell(UNDEFINED if np.isnan(own[at]) else f"{own[at]:.{digits}f}"))
        elif np.isnan(changes[at]):
            cells.append(Cell(UNDEFINED))
        else:
            known = not np.isnan(low[at])
            detail = f"[{low[at]:+.{digits}f}, {high[at]:+.{digits}f}]" if known else ""
            clear = bool(known and (low[at] > 0 or high[at] < 0))
            cells.append(Cell(f"{changes[at]:+.{digits}f}", detail, clear))
    return cells
