"""The comparison: every model and setting by every metric, with intervals, ranks and a footer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from harness.errors import UnknownNameError, listed
from harness.metrics import registered
from harness.metrics.suites import suites
from harness.results import VARIED
from harness.statistics import Bootstrap
from harness.tables.estimates import Scale, estimate, misses, ranks
from harness.tables.footer import Summary, footer
from harness.tables.reduction import BLOCK, blocks
from harness.tables.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from harness.results import Results
    from harness.tables.estimates import Estimates
    from harness.tables.reduction import Block, Setting

_DEFAULT = Bootstrap()


def compare(
    results: Results,
    *,
    suite: str | None = None,
    baseline: str | None = None,
    floors: Mapping[str, float] | None = None,
    ceilings: Sequence[str] = (),
    bootstrap: Bootstrap = _DEFAULT,
) -> Table:
    """Return one row per dataset, split, model and setting, best first.

    Parameters
    ----------
    suite
        Which scores; may be left out when there is only one suite.
    baseline
        The model that the combined score is scaled from, and that sets the floors; with its
        setting (``"linear rank=4"``) where there are several. Default: what the runs' jobs say.
    floors
        What each metric's mean must reach, instead of the baseline's own mean.
    ceilings
        Models to be marked and not ranked, beside those that say of themselves that they are.
    bootstrap
        How intervals are made.
    """
    suite = suite or _only_suite(results)
    scales = scales_of(results, suite)
    baseline = baseline or results.score_options.get("baseline")
    floors = floors if floors is not None else results.score_options.get("floors")
    _refuse_unknown(floors or {})
    frames, summaries = [], []
    for block in blocks(results, suite, [scale.name for scale in scales], ceilings):
        meant = candidates(block, baseline)
        place = meant[0] if len(meant) == 1 else None
        found = estimate(block, scales, place, bootstrap, floors)
        frames.append(_frame(block, scales, found, place))
        titles = tuple(block.settings[candidate].title for candidate in meant)
        summaries.append(Summary(block, found, titles))
    frame = pd.concat(_alike(frames), ignore_index=True) if frames else pd.DataFrame()
    notes = footer(results, suite, scales, summaries, baseline=baseline, bootstrap=bootstrap)
    return Table(suite, scales, frame, notes, bootstrap.level)


def scales_of(results: Results, suite: str) -> tuple[Scale, ...]:
    """Return the metrics that `results` has of a suite, in the suite's order, others after."""
    rows = results.rows
    chosen = rows.loc[rows["suite"] == suite, ["metric", "version"]].drop_duplicates()
    versions = {str(name): int(version) for name, version in chosen.itertuples(index=False)}
    declared = suites().get(suite)
    order = list(declared.metrics) if declared else []
    names = sorted(versions, key=lambda n: (order.index(n) if n in order else len(order), n))
    return tuple(_scale(n, versions[n], declared.combined if declared else ()) for n in names)


def _scale(name: str, version: int, combined: Sequence[str]) -> Scale:
    known = registered()
    if name not in known:
        raise UnknownNameError("metric", name, tuple(known))
    best = known[name].best if name in combined else None
    return Scale(name, version, known[name].higher_is_better, best)


def _only_suite(results: Results) -> str:
    known = suite_names(results)
    if len(known) > 1:
        raise ValueError(f"The results have the suites {listed(known)}: say which one to compare.")
    return known[0] if known else "vcc2025"


def suite_names(results: Results) -> list[str]:
    """Return the suites by which any of the trials was scored."""
    return [
        str(name) for name in results.rows["suite"].cat.remove_unused_categories().cat.categories
    ]


def _refuse_unknown(floors: Mapping[str, float]) -> None:
    """Raise for a floor of no metric at all; one of another suite's metric does no harm here."""
    for name in floors:
        if name not in registered():
            raise UnknownNameError("metric with a floor", name, tuple(registered()))


def candidates(block: Block, baseline: str | None) -> list[int]:
    """Return the places of the settings with scores that `baseline` may mean."""
    scored = np.flatnonzero(block.scored.any(axis=1)).tolist()
    exact = [place for place in scored if block.settings[place].title == baseline]
    return exact or [place for place in scored if block.settings[place].model == baseline]


# --- rows ---------------------------------------------------------------------------------------


def _frame(
    block: Block, scales: Sequence[Scale], found: Estimates, baseline: int | None
) -> pd.DataFrame:
    settings = block.settings
    scored = block.scored.sum(axis=1)
    ranked = np.array([not setting.ceiling for setting in settings], dtype=bool) & (scored > 0)
    place = ranks(found.metrics.mean, scales, ranked)
    frame = pd.DataFrame(_identity(block, baseline))
    done = block.trials[block.trials["state"] == "done"]
    frame["n_trials"] = np.bincount(done["setting"], minlength=len(settings))
    frame["n_pairs"] = scored
    frame["combined"], frame["combined_low"], frame["combined_high"] = found.combined
    frame["floors_missed"] = _missed(settings, scales, found, scored)
    n_ranked = (~np.isnan(place)).sum(axis=1)
    with np.errstate(invalid="ignore"):
        frame["mean_rank"] = np.nansum(place, axis=1) / np.where(n_ranked, n_ranked, np.nan)
    columns: dict[str, Any] = {}
    for column, scale in enumerate(scales):
        for suffix, values in zip(("", "_low", "_high"), found.metrics, strict=True):
            columns[scale.name + suffix] = values[:, column]
        columns[f"{scale.name}_rank"] = pd.Series(place[:, column]).astype("Int64")
        columns[f"{scale.name}_pairs"] = found.n_defined[:, column]
    frame = pd.concat([frame, pd.DataFrame(columns)], axis=1)
    order = {
        "ranked": frame["role"] != "ceiling",
        "score": -frame["combined"],
        "rank": frame["mean_rank"],
    }
    return frame.loc[pd.DataFrame(order).sort_values(list(order), kind="stable").index]


def _identity(block: Block, baseline: int | None) -> dict[str, Any]:
    """Return what a row is about: dataset and split, model, setting, role and factors."""
    names = [name for name in BLOCK if name in block.trials]
    version = block.trials.get("dataset_version")
    columns: dict[str, Any] = dict(zip(names, block.key, strict=True))
    if version is not None:
        columns = {"dataset": columns["dataset"], "dataset_version": version.iloc[0], **columns}
    columns["model"] = [setting.model for setting in block.settings]
    columns["setting"] = [setting.label for setting in block.settings]
    columns["role"] = [
        "ceiling" if setting.ceiling else "baseline" if place == baseline else ""
        for place, setting in enumerate(block.settings)
    ]
    factors = [name for name, _ in block.settings[0].factors if name != "model"]
    values = [dict(setting.factors) for setting in block.settings]
    # Objects, for pandas would write the whole number 4 as 4.0 beside a model without a rank.
    columns |= {n: pd.Series([value[n] for value in values], dtype=object) for n in factors}
    return columns


def _missed(
    settings: Sequence[Setting], scales: Sequence[Scale], found: Estimates, scored: Any
) -> list[str]:
    """Return for each setting the names of the metrics whose floor it misses."""
    names = [[] for _ in settings]  # type: list[list[str]]
    for column, scale in enumerate(scales):
        if scale.higher_is_better is None:
            continue
        missed = misses(
            found.metrics.mean[:, column], found.floors[:, column], scale.higher_is_better
        )
        for place in np.flatnonzero(missed & (scored > 0)).tolist():
            if not settings[place].ceiling:
                names[place].append(scale.name)
    return [" ".join(missed) for missed in names]


def _alike(frames: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """Keep pandas from changing the type of a column that is undefined in one block."""
    return [
        frame.astype({n: object for n in frame if str(n).startswith(VARIED)}) for frame in frames
    ]
