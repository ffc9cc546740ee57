"""A sweep's tables: what each parameter does in the mean over the others, and the best setting.

The best of many settings by their test scores is too good by the luck of the choice. Where a run
has scores on validation pairs, settings are chosen by these and their test scores are shown; where
it has none, the table says that it chose on test.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from harness.analysis.statistics import percentile_interval, resample
from harness.analysis.tables.estimates import pair_means
from harness.analysis.tables.formatting import (
    ARROWS,
    Column,
    change_cells,
    estimate_cells,
    fixed,
    texts,
)
from harness.analysis.tables.notes import what_an_interval_is
from harness.analysis.tables.resampling import drawn_means
from harness.analysis.tables.score_array import bare, shown
from harness.analysis.tables.selection import by_block, identity, joined
from harness.analysis.tables.text import Cell, Section

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from harness.analysis.tables.scale import Scale
    from harness.analysis.tables.score_array import Block
    from harness.analysis.tables.selection import Scope
    from harness.analysis.tables.table import Table

    Floats = NDArray[np.float64]

BEST = "best"
"""What stands as factor in a row of the best setting."""

MANY = 6
"""Numbers with so many values are shown in thirds."""

ON_TEST = "*"
"""Marks a setting that was chosen by the scores that are shown."""


def sweep(scope: Scope) -> Table:
    """Return the marginal effect of each parameter of each model that has several settings.

    One row per model, parameter, level and metric. Columns of its frame: ``dataset``,
    ``dataset_version``, ``split``, ``controls``, ``model``; ``side`` of the pairs (``test``, or
    ``validation`` for a search, which scores only its choice on test); ``factor``, ``level``,
    ``n_settings``; ``metric``, ``mean`` over the settings with that level; ``change`` with ``_low``
    and ``_high``, what that mean is above the model's over all its settings. And for each metric
    the best setting: ``factor`` is ``best``, ``level`` the setting, ``side`` where it was chosen,
    ``chosen_by`` its mean there, ``mean``, ``mean_low`` and ``mean_high`` that on test.
    """
    frames, notes = [], [*_notes(scope)]
    validation = replace(scope, results=scope.results.validation)
    on_validation = {block.key: block for block in validation.blocks}
    for block in scope.blocks:
        other = on_validation.get(block.key)
        held = _Sweep(validation, other, "validation") if other is not None else None
        tested = _Sweep(scope, block, "test")
        for model in dict.fromkeys([*tested.models, *(held.models if held else ())]):
            swept = tested if model in tested.models else held
            assert swept is not None  # one of the two has the model
            frames += [swept.marginal(model), _best(tested, held, model)]
            notes += swept.uneven(model)
    frame = joined(frames)
    if frame.empty:
        notes.append("No model has several settings, so there is nothing to sweep over.")
    else:
        notes += _choice(frame)
    return scope.table("sweep", [frame], notes, _sections)


def _notes(scope: Scope) -> Iterator[str]:
    yield (
        "Marginal effect: the mean over the settings with that level, less the mean over all "
        "settings of the model; the other parameters are averaged over. "
        f"{what_an_interval_is(scope.bootstrap)} Bold: it leaves out 0. Beside the change, the "
        "mean itself."
    )


def _choice(frame: pd.DataFrame) -> Iterator[str]:
    best = frame[frame["factor"] == BEST]
    if (best["side"] == "validation").any():
        yield "Best settings: chosen by their mean on validation pairs, scored on test pairs."
    if best["mean"].isna().any():
        yield "—: the run did not score that setting on test pairs; it chose by another metric."
    if (best["side"] == "test").any():
        yield (
            f"{ON_TEST} chosen on test: by the very scores that are shown, since the run has no "
            "validation scores of that metric. The best of many looks better than it is; do not "
            "report it as if it had been chosen beforehand."
        )


class _Sum(NamedTuple):
    """Sums over settings: how many, (n_metrics,) means, and (n_draws, n_metrics) resamples."""

    n: int
    mean: Floats
    draws: Floats

    @classmethod
    def zero(cls, n_draws: int, n_metrics: int) -> _Sum:
        """Return the sum over no setting."""
        return cls(0, np.zeros(n_metrics), np.zeros((n_draws, n_metrics)))

    def plus(self, mean: Floats, draws: Floats) -> _Sum:
        """Return the sum with one more setting."""
        return _Sum(self.n + 1, self.mean + mean[0], self.draws + draws[:, 0])


class _Sweep:
    """The settings of one block's models that have several, on one side of the split."""

    def __init__(self, scope: Scope, block: Block, side: str) -> None:
        self.scope, self.block, self.side = scope, block, side
        self.columns = {scale.name: at for at, scale in enumerate(scope.scales)}
        self.means = pair_means(block.values)
        scored = np.asarray(block.scored.any(axis=1))
        found: dict[str, list[int]] = {}
        for place, setting in enumerate(block.settings):
            if scored[place] and not setting.ceiling:
                found.setdefault(setting.model, []).append(place)
        self.models = {model: places for model, places in found.items() if len(places) > 1}

    def levels(self, model: str) -> dict[str, dict[str, list[int]]]:
        """Return for each factor that varies its levels, with the settings that have each.

        Of a number with many values, as a search draws them, the levels are thirds of the settings.
        """
        found: dict[str, dict[Any, list[int]]] = {}
        for place in self.models[model]:
            for name, value in self.block.settings[place].factors:
                found.setdefault(name, {}).setdefault(value, []).append(place)
        varied = {name: of for name, of in found.items() if len(of) > 1}
        return {name: _told(name, sorted(of.items(), key=_order)) for name, of in varied.items()}

    def marginal(self, model: str) -> pd.DataFrame:
        """Return a row for each level of each factor and each metric."""
        of_all, of_level = self._sums(model)
        n_all, about = len(self.models[model]), self.about(model)
        whole = [scale.per_context for scale in self.scope.scales]
        rows = []
        for (factor, level), (n, mean, draws) in of_level.items():
            change = draws / n - of_all.draws / n_all
            found = percentile_interval(change, self.scope.bootstrap.level)
            low, high = (np.where(whole, np.nan, ends) for ends in found)
            named = {"factor": bare(factor), "level": level, "n_settings": n}
            for name, at in self.columns.items():
                own = mean[at] / n
                ends = {"change_low": low[at], "change_high": high[at]}
                numbers = {"mean": own, "change": own - of_all.mean[at] / n_all, **ends}
                rows.append({**about, **named, "metric": name, **numbers})
        return pd.DataFrame(rows)

    def about(self, model: str) -> dict[str, Any]:
        """Return the columns that all rows of a model have in common."""
        row = identity(self.block, None).iloc[0].drop(["setting", "role"])
        columns = {str(name): value for name, value in row.items()}
        return {**columns, "model": model, "side": self.side}

    def _sums(self, model: str) -> tuple[_Sum, dict[tuple[str, str], _Sum]]:
        """Return sums over a model's settings, and over those with each level of each factor.

        Over the pairs that all of them have, since levels are compared; one setting at a time,
        since the resamples of thousands would not fit into memory together.
        """
        places = self.models[model]
        resamples = resample(list(self.block.pairs["context"]), self.scope.bootstrap)
        shared = np.all(~np.isnan(self.block.values[[*places]]), axis=0)[None]
        keys = [
            ((factor, level), set(members))
            for factor, levels in self.levels(model).items()
            for level, members in levels.items()
        ]
        of_all = _Sum.zero(resamples.draws, len(self.columns))
        of_level = {key: _Sum.zero(resamples.draws, len(self.columns)) for key, _ in keys}
        for place in places:
            found = drawn_means(self.block, slice(place, place + 1), resamples, shared)
            of_all = of_all.plus(*found)
            for key, members in keys:
                if place in members:
                    of_level[key] = of_level[key].plus(*found)
        return of_all, of_level

    def uneven(self, model: str) -> Iterator[str]:
        """Say where levels were not all combined with each other."""
        n = len(self.models[model])
        whole = math.prod(len(of) for of in self.levels(model).values())
        if n < whole:
            yield (
                f"{model}: not every level was combined with every other ({n} of {whole} "
                "settings), so that what a level owes to the others is in its effect."
            )

    def best(self, model: str, scale: Scale) -> int | None:
        """Return the place of a model's best setting by one metric; None where none has a mean."""
        if model not in self.models or scale.name not in self.columns:
            return None
        places = self.models[model]
        means = self.means[places, self.columns[scale.name]]
        if np.isnan(means).all():
            return None
        return places[int(np.nanargmax(means) if scale.higher_is_better else np.nanargmin(means))]


def _order(item: tuple[Any, list[int]]) -> tuple[bool, float, str]:
    value = item[0]
    number = isinstance(value, int | float)
    return (not number, float(value) if number else 0.0, str(value))


def _told(name: str, levels: Sequence[tuple[Any, list[int]]]) -> dict[str, list[int]]:
    """Return levels by what they are called, many numbers in thirds."""
    if len(levels) < MANY or not all(isinstance(value, int | float) for value, _ in levels):
        return {shown(name, value): places for value, places in levels}
    found = {}
    for part in np.array_split(np.arange(len(levels)), 3):
        low, high = (shown(name, levels[at][0]) for at in (part[0], part[-1]))
        found[f"{low} to {high}"] = [place for at in part for place in levels[at][1]]
    return found


def _best(tested: _Sweep, held: _Sweep | None, model: str) -> pd.DataFrame:
    """Return the best setting of a model by each metric, chosen on validation where that can be."""
    block, rows = tested.block, []
    resamples = resample(list(block.pairs["context"]), tested.scope.bootstrap)
    for column, scale, _ in tested.scope.directed:
        side = held if held is not None and held.best(model, scale) is not None else tested
        place = side.best(model, scale)
        if place is None:
            continue
        setting = side.block.settings[place]
        row = {**side.about(model), "factor": BEST, "level": setting.label, "n_settings": 1}
        row |= {"metric": scale.name, "chosen_by": side.means[place, side.columns[scale.name]]}
        scored = [at for at, one in enumerate(block.settings) if one.factors == setting.factors]
        if scored:
            where = slice(scored[0], scored[0] + 1)
            columns = slice(column, column + 1)
            mean, draws = drawn_means(block, where, resamples, columns=columns)
            low, high = percentile_interval(draws[:, 0, 0], tested.scope.bootstrap.level)
            ends = (np.nan, np.nan) if scale.per_context else (float(low), float(high))
            row |= {"mean": mean[0, 0], "mean_low": ends[0], "mean_high": ends[1]}
        rows.append(row)
    return pd.DataFrame(rows)


# --- how it is shown ----------------------------------------------------------------------------


def _sections(table: Table) -> Iterator[Section]:
    for title, block in by_block(table.frame):
        for model, rows in block.groupby("model", sort=False):
            effects = rows[rows["factor"] != BEST]
            side = effects["side"].iloc[0]
            yield _effects(f"{title}: {model}, marginal effects on {side} pairs", effects, table)
            yield _choices(f"{title}: {model}, best setting", rows[rows["factor"] == BEST], table)


def _effects(title: str, rows: pd.DataFrame, table: Table) -> Section:
    levels = rows.drop_duplicates(["factor", "level"])
    told = levels["factor"] + " = " + levels["level"].astype(str)
    columns = {"level": texts(told), "settings": texts(levels["n_settings"])}
    for scale in table.scales:
        part = rows[rows["metric"] == scale.name]
        if len(part):
            change = Column.of(part, "change")
            means = part["mean"].to_numpy(dtype=np.float64)
            columns[scale.name + ARROWS[scale.higher_is_better]] = [
                replace(cell, detail=f"{cell.detail} {fixed(mean, change.digits)}")
                for cell, mean in zip(change_cells(change), means, strict=True)
            ]
    return Section.of(title, columns)


def _choices(title: str, rows: pd.DataFrame, table: Table) -> Section:
    arrows = {scale.name: ARROWS[scale.higher_is_better] for scale in table.scales}
    marked = (rows["side"] == "test").map({True: f" {ON_TEST}", False: ""})
    chosen, scored = [], []
    for at in range(len(rows)):
        row = rows.iloc[at : at + 1]
        test = row.reindex(columns=["mean", "mean_low", "mean_high"]).astype(np.float64)
        column = Column.of(test, "mean")
        scored += estimate_cells(column)
        chosen.append(Cell(fixed(float(row["chosen_by"].iloc[0]), column.digits)))
    columns = {
        "by": texts(rows["metric"] + rows["metric"].map(arrows)),
        "setting": texts(rows["level"] + marked),
        "chosen on": texts(rows["side"]),
        "mean there": chosen,
        "test": scored,
    }
    return Section.of(title, columns, n_labels=2)
