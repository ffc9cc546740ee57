"""From score rows to arrays: one number per setting, pair and metric, seeds and folds averaged out.

A block is what can be compared: one dataset, one split, one way of dividing controls. Within it a
setting is everything else that a job chooses, save seed and fold. A pair's score is averaged over
seeds and folds before anything else, for a repeated seed is no new perturbation and must not make
an interval narrower. What each repeat scored stays beside it, as the second level of a bootstrap.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd

from harness.analysis.results import places
from harness.metrics import registered_suites

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from harness.analysis.results import Results

BLOCK = ("dataset", "split", "controls")
POOLED = ("seed", "fold")
LONG = 8
"""Numbers with more signs than this, as a search draws them, are shown to six digits."""


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
    fits
        (n_fits, n_pairs, n_metrics) what each repeat of a setting scored; those of one setting
        stand together, in the order of settings. A repeat is a seed, whatever its fold; where folds
        test the same pairs, a seed and fold.
    repeats
        For each setting the names of its repeats.
    ends
        (n_pairs, n_metrics, 2) the anchors of each pair's truth, baseline and replicate, NaN for
        metrics that are not scaled between any; None where there are none.
    no_ends
        Then why, for a suite that has anchors.
    """

    key: tuple[str, ...]
    settings: tuple[Setting, ...]
    pairs: pd.DataFrame
    values: NDArray[np.float64]
    scored: NDArray[np.bool_]
    trials: pd.DataFrame
    fits: NDArray[np.float64]
    repeats: tuple[tuple[str, ...], ...]
    ends: NDArray[np.float64] | None = None
    no_ends: str = ""

    @property
    def version(self) -> Any:
        """The version of the dataset, where trials say one."""
        trials = self.trials
        return trials["dataset_version"].iloc[0] if "dataset_version" in trials else None

    @property
    def title(self) -> str:
        """The dataset with its version, and the split."""
        return block_title(self.key, self.version)

    def fits_of(self, setting: int) -> NDArray[np.float64]:
        """Return what the repeats of a setting scored: (n_repeats, n_pairs, n_metrics)."""
        start = sum(len(names) for names in self.repeats[:setting])
        return self.fits[start : start + len(self.repeats[setting])]


def block_title(key: Sequence[str], version: object = None) -> str:
    """Return ``papalexi21 v1, unseen-perturbation``; what is empty is left out."""
    dataset, split, *controls = key
    named = f"{dataset} v{version}" if dataset and version is not None else dataset
    shared = "controls shared" if "shared" in controls else ""
    return ", ".join(filter(None, (named, split, shared)))


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
    group = trials[[name for name in BLOCK if name in trials]].astype(str).agg("\0".join, axis=1)
    row_trial = places(rows["trial"], trials["trial"])
    for key in sorted(group.unique()):
        inside = group == key
        settings, setting = _settings(trials[inside], factors, ceilings)
        named = trials[inside].assign(setting=setting)
        mine = inside.to_numpy()[row_trial]
        part, row_trials = (rows, row_trial) if mine.all() else (rows[mine], row_trial[mine])
        cells, pairs = _Cells.of(part, metrics)
        reduced = _reduced(cells, row_trials, named)
        found = _ends_of(suite, named, (row_trials, cells.pair), pairs, metrics)
        yield Block(
            tuple(key.split("\0")), settings, pairs, *reduced[:2], named, *reduced[2:], *found
        )


def _settings(
    trials: pd.DataFrame, factors: list[str], ceilings: Sequence[str]
) -> tuple[tuple[Setting, ...], NDArray[np.int64]]:
    """Return the settings sorted by title, and the place of each trial's."""
    keys = list(zip(*(trials[name] for name in factors), strict=True))
    known = set(trials.loc[trials["ceiling"] == True, "model"]) if "ceiling" in trials else set()  # noqa: E712 - None means no
    known |= set(ceilings)
    distinct = [dict(zip(factors, key, strict=True)) for key in dict.fromkeys(keys)]
    varied = _varied(distinct)
    settings = []
    for values in distinct:
        model = values["model"]
        label = ", ".join(f"{bare(name)}={shown(name, values[name])}" for name in varied[model])
        settings.append(Setting(str(model), tuple(values.items()), label, model in known))
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


def bare(name: str) -> str:
    """Return the name of a parameter or data factor as a job has it."""
    return name.removeprefix("param.").removeprefix("data.")


def shown(name: str, value: Any) -> str:
    """Return the value of a factor as a table has it; a data factor without one is at its most."""
    if value is None:
        return "all" if name.startswith("data.") else "none"
    text = str(value)
    return f"{value:.6g}" if isinstance(value, float) and len(text) > LONG else text


# --- sums over rows -----------------------------------------------------------------------------


def _reduced(
    cells: _Cells, trial: NDArray[np.int64], trials: pd.DataFrame
) -> tuple[Any, Any, Any, tuple[tuple[str, ...], ...]]:
    """Return values, what is scored, fits and the names of repeats, as `Block` has them."""
    trials = _with_scores(trials, trial)
    for names in (["setting", "seed"], ["setting", "seed", "fold"]):
        of_trial, repeats = _repeats(trials, names)
        fit = of_trial.reindex(range(int(trial.max(initial=-1)) + 1), fill_value=0).to_numpy()
        sums = cells.sums(fit[trial], sum(map(len, repeats)))
        if sums.rows.max(initial=0) <= 1:
            break
    starts = np.cumsum([0, *(len(names) for names in repeats[:-1])])
    total, defined, n_rows = (np.add.reduceat(part, starts, axis=0) for part in sums)
    with np.errstate(invalid="ignore"):
        values, fits = total / defined, sums.total / sums.defined
    return values, n_rows.sum(axis=2) > 0, fits, repeats


def _with_scores(trials: pd.DataFrame, trial: NDArray[np.int64]) -> pd.DataFrame:
    """Leave out trials without scores, but for one of each setting that has no other."""
    scored = trials.index.isin(np.flatnonzero(np.bincount(trial)))
    bare = ~trials["setting"].isin(trials.loc[scored, "setting"])
    return trials[scored | (bare & ~trials["setting"].duplicated())]


def _repeats(
    trials: pd.DataFrame, names: list[str]
) -> tuple[pd.Series[int], tuple[tuple[str, ...], ...]]:
    """Return the place of each trial's fit, and the names of each setting's repeats."""
    keys = list(zip(*(trials[name].tolist() for name in names), strict=True))
    distinct = sorted(set(keys))
    place = {key: number for number, key in enumerate(distinct)}
    repeats: list[list[str]] = [[] for _ in range(distinct[-1][0] + 1)]
    for setting, *repeat in distinct:
        repeats[setting].append(" ".join(map(str, repeat)))
    found = pd.Series([place[key] for key in keys], index=trials.index)
    return found, tuple(tuple(part) for part in repeats)


class _Sums(NamedTuple):
    """Sums over rows, (n_fits, n_pairs, n_metrics): of values, of defined ones, of rows."""

    total: NDArray[np.float64]
    defined: NDArray[np.float64]
    rows: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Cells:
    """Where each row belongs, its pair and metric as one number, and its value."""

    place: NDArray[np.int64]
    value: NDArray[np.float64]
    shape: tuple[int, int]

    @classmethod
    def of(cls, rows: pd.DataFrame, metrics: Sequence[str]) -> tuple[_Cells, pd.DataFrame]:
        """Return the cells of rows, and their pairs in sorted order."""
        context, perturbation = (rows[name].cat for name in ("context", "perturbation"))
        width = max(len(perturbation.categories), 1)
        code = context.codes.to_numpy().astype(np.int64) * width + perturbation.codes.to_numpy()
        seen = np.bincount(code) > 0
        used, pair = np.flatnonzero(seen), (np.cumsum(seen) - 1)[code]
        pairs = pd.DataFrame(
            {
                "context": context.categories.to_numpy(dtype=object)[used // width],
                "perturbation": perturbation.categories.to_numpy(dtype=object)[used % width],
            }
        )
        metric = pd.Index(metrics).get_indexer(rows["metric"].cat.categories)
        metric = metric[rows["metric"].cat.codes.to_numpy()]
        place = pair * len(metrics) + metric
        return cls(place, rows["value"].to_numpy(), (len(pairs), len(metrics))), pairs

    @property
    def pair(self) -> NDArray[np.int64]:
        """The pair of each row."""
        return self.place // max(self.shape[1], 1)

    def sums(self, fit: NDArray[Any], n_fits: int) -> _Sums:
        """Return the sums over the rows of each fit."""
        shape = (n_fits, *self.shape)
        flat = fit * (self.shape[0] * self.shape[1]) + self.place
        size = int(np.prod(shape))
        rows = np.bincount(flat, minlength=size).astype(np.float64).reshape(shape)
        known = ~np.isnan(self.value)
        defined, value = rows, self.value
        if not known.all():
            flat, value = flat[known], value[known]
            defined = np.bincount(flat, minlength=size).astype(np.float64).reshape(shape)
        total = np.bincount(flat, weights=value, minlength=size).astype(np.float64, copy=False)
        return _Sums(total.reshape(shape), defined, rows)


# --- the anchors of truths: what the 2026 score is measured between ------------------------------
# Every fold has a truth of its own, and each context of it both ends of the scale. A table's mean
# is over the pairs of all folds, so its ends are the means over the same pairs of what theirs are.

NOT_KEPT = "no anchors of the truth are kept beside these scores, by an older release perhaps"
"""Why there is no scale where nothing else is said."""


def _ends_of(
    suite: str,
    trials: pd.DataFrame,
    rows: tuple[NDArray[np.int64], NDArray[np.int64]],
    pairs: pd.DataFrame,
    metrics: Sequence[str],
) -> tuple[NDArray[np.float64] | None, str]:
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
