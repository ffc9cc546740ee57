"""From score rows to arrays: one number per setting, pair and metric, seeds and folds averaged out.

A block is what can be compared: one dataset, one split, one way of dividing controls. Within it a
setting is everything else that a job chooses, save seed and fold. A pair's score is averaged over
seeds and folds before anything else, for a repeated seed is no new perturbation and must not make
an interval narrower.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.results import places

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from harness.results import Results

BLOCK = ("dataset", "split", "controls")
POOLED = ("seed", "fold")


@dataclass(frozen=True, slots=True)
class Setting:
    """A model and the values of the other factors; `label` names those that vary in its block."""

    model: str
    factors: tuple[tuple[str, Any], ...]
    label: str
    ceiling: bool

    @property
    def title(self) -> str:
        """The model and its label."""
        return f"{self.model} {self.label}".rstrip()


@dataclass(frozen=True, slots=True)
class Block:
    """The scores of one dataset and split as arrays.

    Attributes
    ----------
    key
        The values of the factors in `BLOCK`.
    settings
        The rows, in order of their titles.
    pairs
        (n_pairs) columns context and perturbation, sorted.
    values
        (n_settings, n_pairs, n_metrics) the mean over seeds and folds; NaN for none defined.
    scored
        (n_settings, n_pairs) whether any trial of the setting scored the pair, defined or not.
    trials
        The block's rows of the table of trials, with the place of their setting as ``setting``.
    """

    key: tuple[str, ...]
    settings: tuple[Setting, ...]
    pairs: pd.DataFrame
    values: NDArray[np.float64]
    scored: NDArray[np.bool_]
    trials: pd.DataFrame


def blocks(
    results: Results, suite: str, metrics: Sequence[str], ceilings: Sequence[str] = ()
) -> Iterator[Block]:
    """Yield the blocks of `results` in sorted order, with the scores of one suite.

    Parameters
    ----------
    metrics
        The order of the last axis.
    ceilings
        Models that are ceilings beside those of which a trial's manifest says so.
    """
    rows = results.rows
    chosen = rows["suite"] == suite
    rows = rows if chosen.all() else rows[chosen]
    factors = [name for name in results.factors if name not in (*BLOCK, *POOLED)]
    trials = results.trials.reset_index(drop=True)
    if trials.empty:
        return
    group = trials[_present(trials, BLOCK)].astype(str).agg("\0".join, axis=1)
    row_trial = places(rows["trial"], trials["trial"])
    for key in sorted(group.unique()):
        inside = group == key
        settings, setting = _settings(trials[inside], factors, ceilings)
        setting_of = np.full(len(trials), -1)
        setting_of[np.flatnonzero(inside)] = setting
        mine = inside.to_numpy()[row_trial]
        part, row_setting = (rows, row_trial) if mine.all() else (rows[mine], row_trial[mine])
        pairs, values, scored = _average(part, setting_of[row_setting], len(settings), metrics)
        named = trials[inside].assign(setting=setting)
        yield Block(tuple(key.split("\0")), settings, pairs, values, scored, named)


def _present(trials: pd.DataFrame, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in trials]


def _settings(
    trials: pd.DataFrame, factors: list[str], ceilings: Sequence[str]
) -> tuple[tuple[Setting, ...], NDArray[np.int64]]:
    """Return the settings sorted by title, and the place of each trial's."""
    keys = list(zip(*(trials[name] for name in factors), strict=True))
    known = set(trials.loc[trials["ceiling"] == True, "model"]) if "ceiling" in trials else set()  # noqa: E712 - None means no
    known |= set(ceilings)
    distinct = [dict(zip(factors, key, strict=True)) for key in dict.fromkeys(keys)]
    varied = _varied(distinct)
    settings = [
        Setting(
            model=str(values["model"]),
            factors=tuple(values.items()),
            label=_label(values, varied[values["model"]]),
            ceiling=values["model"] in known,
        )
        for values in distinct
    ]
    order = sorted(range(len(settings)), key=lambda place: settings[place].title)
    place_of = {tuple(distinct[old].values()): new for new, old in enumerate(order)}
    return tuple(settings[old] for old in order), np.array([place_of[key] for key in keys])


def _varied(distinct: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """Return for each model the factors whose values tell its settings apart."""
    seen: dict[str, dict[str, set[str]]] = {}
    for values in distinct:
        for name, value in values.items():
            seen.setdefault(values["model"], {}).setdefault(name, set()).add(repr(value))
    return {model: [n for n, found in of.items() if len(found) > 1] for model, of in seen.items()}


def _label(values: dict[str, Any], varied: Sequence[str]) -> str:
    return ", ".join(f"{bare(name)}={shown(name, values[name])}" for name in varied)


def bare(name: str) -> str:
    """Return the name of a parameter or data factor as a job has it."""
    return name.removeprefix("param.").removeprefix("data.")


def shown(name: str, value: Any) -> str:
    """Return the value of a factor as a table has it; a data factor without one is at its most."""
    if value is None:
        return "all" if name.startswith("data.") else "none"
    return str(value)


def _average(
    rows: pd.DataFrame, setting: NDArray[np.int64], n_settings: int, metrics: Sequence[str]
) -> tuple[pd.DataFrame, NDArray[np.float64], NDArray[np.bool_]]:
    context, perturbation = (rows[name].cat for name in ("context", "perturbation"))
    width = max(len(perturbation.categories), 1)
    code = context.codes.to_numpy().astype(np.int64) * width + perturbation.codes.to_numpy()
    used, pair = np.unique(code, return_inverse=True)
    pairs = pd.DataFrame(
        {
            "context": context.categories.to_numpy(dtype=object)[used // width],
            "perturbation": perturbation.categories.to_numpy(dtype=object)[used % width],
        }
    )
    metric = pd.Index(metrics).get_indexer(rows["metric"].cat.categories)
    metric = metric[rows["metric"].cat.codes.to_numpy()]
    shape = (n_settings, len(pairs), len(metrics))
    flat = np.ravel_multi_index((setting, pair, metric), shape)
    value = rows["value"].to_numpy()
    defined = ~np.isnan(value)
    size = int(np.prod(shape))
    count = np.bincount(flat, weights=defined, minlength=size)
    total = np.bincount(flat, weights=np.where(defined, value, 0.0), minlength=size)
    with np.errstate(invalid="ignore"):
        mean = (total / count).reshape(shape)
    rows_of = np.bincount(flat, minlength=size).reshape(shape)
    return pairs, mean, rows_of.sum(axis=2) > 0
